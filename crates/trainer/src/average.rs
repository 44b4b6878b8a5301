//! An exponential moving average of the weights (Polyak averaging).

use stage_api::NamedTensor;
use tch::no_grad;

/// The average of what a checkpoint holds.
pub struct WeightAverage {
    decay: f64,
    /// As the averaged ones, with the same names in the same order.
    pub tensors: Vec<NamedTensor>,
}

impl WeightAverage {
    /// Begins with the values that the weights have now.
    pub fn new(decay: f64, of: &[NamedTensor]) -> Self {
        let copied = |t: &NamedTensor| NamedTensor {
            name: t.name.clone(),
            group: t.group,
            tensor: no_grad(|| t.tensor.detach().copy()),
        };
        Self { decay, tensors: of.iter().map(copied).collect() }
    }

    /// Moves the average of each group that was just updated toward its weights. `updates`: how often that group had
    /// been updated before, absent for a group that is not trained, whose average stays too.
    pub fn update(&mut self, weights: &[NamedTensor], updates: impl Fn(&NamedTensor) -> Option<usize>) {
        no_grad(|| {
            for (average, weight) in self.tensors.iter_mut().zip(weights) {
                if let Some(updates) = updates(weight) {
                    let share = 1.0 - decay_at(self.decay, updates);
                    let _ = average.tensor.lerp_(&weight.tensor, share);
                }
            }
        });
    }

    /// Exchanges the values of the average and of the weights; twice is nothing.
    pub fn swap(&mut self, weights: &[NamedTensor]) {
        no_grad(|| {
            for (average, weight) in self.tensors.iter_mut().zip(weights) {
                let kept = weight.tensor.detach().copy();
                weight.tensor.shallow_clone().copy_(&average.tensor);
                average.tensor.copy_(&kept);
            }
        });
    }
}

/// Smaller at first, so that the beginning's weights are soon forgotten (as TensorFlow's `num_updates` does).
fn decay_at(decay: f64, updates: usize) -> f64 {
    decay.min((1.0 + updates as f64) / (10.0 + updates as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stage_api::Group;
    use tch::Tensor;

    const DECODER: Group = Group::trainable("decoder");
    const LORA: Group = Group::trainable("lora");

    fn weight(group: Group, value: f32) -> NamedTensor {
        NamedTensor { name: group.name.into(), group, tensor: Tensor::from_slice(&[value]) }
    }

    #[test]
    fn the_average_follows_its_recurrence_where_a_group_learns_and_rests_where_not() {
        let weights = [weight(DECODER, 1.0), weight(LORA, 1.0)];
        let mut average = WeightAverage::new(0.15, &weights);
        for (updates, value) in [2.0f64, 3.0].into_iter().enumerate() {
            for w in &weights {
                let _ = w.tensor.shallow_clone().fill_(value);
            }
            average.update(&weights, |t| (t.group == DECODER).then_some(updates));
        }
        // Decays 1/10, then min(0.15, 2/11): 0.1 + 0.9 · 2 = 1.9; 0.15 · 1.9 + 0.85 · 3 = 2.835.
        assert!((average.tensors[0].tensor.double_value(&[0]) - 2.835).abs() < 1e-6);
        assert_eq!(average.tensors[1].tensor.double_value(&[0]), 1.0);
    }

    #[test]
    fn swapping_twice_is_nothing() {
        let weights = [weight(DECODER, 1.0)];
        let mut average = WeightAverage::new(0.9, &weights);
        let _ = weights[0].tensor.shallow_clone().fill_(5.0);
        average.swap(&weights);
        assert_eq!((weights[0].tensor.double_value(&[0]), average.tensors[0].tensor.double_value(&[0])), (1.0, 5.0));
        average.swap(&weights);
        assert_eq!((weights[0].tensor.double_value(&[0]), average.tensors[0].tensor.double_value(&[0])), (5.0, 1.0));
    }
}
