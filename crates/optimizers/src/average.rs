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
