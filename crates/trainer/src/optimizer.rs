//! The optimisers, ours because tch's can't save their state, and a run must resume exactly.

use crate::config::{OptimizerConfig, OptimizerKind};
use stage_api::NamedTensor;
use std::collections::BTreeMap;
use tch::{Tensor, no_grad};

/// Added to the root of the second moment, as PyTorch does.
const EPSILON: f64 = 1e-8;

/// The optimiser and its state; parameters are known by name.
pub struct Optimizer {
    config: OptimizerConfig,
    moments: BTreeMap<String, Moments>,
    /// Version of each gradient when it was cleared. It stays defined then, and so differs from a new one: whatever is added
    /// in place raises the version.
    cleared: BTreeMap<String, i64>,
}

/// What is remembered of a parameter's gradients.
struct Moments {
    /// Adam's first moment, or SGD's velocity.
    first: Tensor,
    /// Adam's second moment.
    second: Option<Tensor>,
    /// Updates of this parameter so far.
    steps: i64,
}

impl Optimizer {
    /// An optimiser that has seen no step.
    pub fn new(config: &OptimizerConfig) -> Self {
        Self { config: config.clone(), moments: BTreeMap::new(), cleared: BTreeMap::new() }
    }

    /// Those of the parameters that got a gradient since the last update.
    pub fn with_gradient(&self, mut parameters: Vec<NamedTensor>) -> Vec<NamedTensor> {
        parameters.retain(|parameter| self.gradient(parameter).is_some());
        parameters
    }

    fn gradient(&self, parameter: &NamedTensor) -> Option<Tensor> {
        let gradient = parameter.tensor.grad();
        let is_new = gradient.defined() && self.cleared.get(&parameter.name) != Some(&gradient.internal_version());
        is_new.then_some(gradient)
    }

    /// One update of every parameter that got a gradient since the last, at `lr(parameter)`; gradients are then cleared. The
    /// others stay where they are: no decay, no way on by what they remember.
    pub fn step(&mut self, parameters: &[NamedTensor], lr: impl Fn(&NamedTensor) -> f64) {
        no_grad(|| {
            for parameter in parameters {
                let Some(gradient) = self.gradient(parameter) else { continue };
                let state = self.moments.entry(parameter.name.clone()).or_insert_with(|| Moments {
                    first: gradient.zeros_like(),
                    second: (self.config.kind != OptimizerKind::Sgd).then(|| gradient.zeros_like()),
                    steps: 0,
                });
                state.steps += 1;
                update(&self.config, state, &parameter.tensor, &gradient, lr(parameter));
            }
        });
        self.clear(parameters);
    }

    /// Drops the gradients.
    pub fn clear(&mut self, parameters: &[NamedTensor]) {
        for parameter in parameters {
            let mut gradient = parameter.tensor.grad();
            if gradient.defined() {
                let _ = gradient.zero_();
                self.cleared.insert(parameter.name.clone(), gradient.internal_version());
            }
        }
    }

    /// The state as tensors: `<parameter>.first`, `.second` (not of SGD) and `.steps`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.moments
            .iter()
            .flat_map(|(name, m)| {
                let second = m.second.as_ref().map(|second| (format!("{name}.second"), second.shallow_clone()));
                [
                    (format!("{name}.first"), m.first.shallow_clone()),
                    (format!("{name}.steps"), Tensor::from_slice(&[m.steps])),
                ]
                .into_iter()
                .chain(second)
            })
            .collect()
    }

    /// Takes over a state that [`Self::state`] gave; `None` if a part of it is missing.
    pub fn restore(&mut self, state: Vec<(String, Tensor)>, device: tch::Device) -> Option<()> {
        let mut state: BTreeMap<String, Tensor> = state.into_iter().collect();
        self.moments.clear();
        while let Some(name) = state.keys().next().and_then(|k| k.rsplit_once('.')).map(|(name, _)| name.to_owned()) {
            let mut part = |part: &str| state.remove(&format!("{name}.{part}"));
            let first = part("first")?.to_device(device);
            let second = match self.config.kind {
                OptimizerKind::Sgd => None,
                _ => Some(part("second")?.to_device(device)),
            };
            let steps = part("steps")?.int64_value(&[0]);
            self.moments.insert(name, Moments { first, second, steps });
        }
        Some(())
    }
}

/// The norm of all gradients as one vector.
pub fn global_norm(parameters: &[NamedTensor]) -> f64 {
    let norms: Vec<Tensor> =
        parameters.iter().map(|p| p.tensor.grad()).filter(Tensor::defined).map(|g| g.norm()).collect();
    if norms.is_empty() { 0.0 } else { Tensor::stack(&norms, 0).norm().double_value(&[]) }
}

/// Shortens gradients of that global norm to `limit`, as `torch.nn.utils.clip_grad_norm_` does.
pub fn clip(parameters: &[NamedTensor], norm: f64, limit: f64) {
    let factor = limit / (norm + 1e-6);
    if factor < 1.0 {
        for parameter in parameters {
            let mut gradient = parameter.tensor.grad();
            if gradient.defined() {
                let _ = gradient.g_mul_scalar_(factor);
            }
        }
    }
}

/// Moves one parameter, as PyTorch's optimiser of that name does.
fn update(config: &OptimizerConfig, state: &mut Moments, value: &Tensor, gradient: &Tensor, lr: f64) {
    let mut value = value.shallow_clone();
    // Vectors are biases and normalisation: decay would pull them to zero for no reason.
    let decay = if value.dim() > 1 { config.weight_decay } else { 0.0 };
    let mut coupled = gradient.shallow_clone();
    if decay > 0.0 {
        match config.kind {
            OptimizerKind::AdamW => drop(value.g_mul_scalar_(1.0 - lr * decay)),
            OptimizerKind::Adam | OptimizerKind::Sgd => coupled = gradient + &value * decay,
        }
    }
    if let Some(second) = &mut state.second {
        let [beta1, beta2] = config.betas;
        let _ = state.first.lerp_(&coupled, 1.0 - beta1);
        let _ = second.g_mul_scalar_(beta2).g_add_(&(coupled.square() * (1.0 - beta2)));
        let correction1 = 1.0 - beta1.powi(state.steps as i32);
        let correction2 = 1.0 - beta2.powi(state.steps as i32);
        let denominator = (&*second / correction2).sqrt_().g_add_scalar_(EPSILON);
        let _ = value.g_sub_(&(&state.first / denominator * (lr / correction1)));
    } else {
        let _ = state.first.g_mul_scalar_(config.momentum).g_add_(&coupled);
        let direction =
            if config.nesterov { coupled + &state.first * config.momentum } else { state.first.shallow_clone() };
        let _ = value.g_sub_(&(direction * lr));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stage_api::Group;
    use tch::{Device, Kind};

    fn config(kind: OptimizerKind) -> OptimizerConfig {
        OptimizerConfig { kind, weight_decay: 0.01, ..OptimizerConfig::default() }
    }

    fn parameter(values: &[f32]) -> NamedTensor {
        // Two dimensions, so that weight decay applies.
        let tensor = Tensor::from_slice(values).unsqueeze(0).set_requires_grad(true);
        NamedTensor { name: "w".into(), group: Group::trainable("decoder"), tensor }
    }

    /// Steps down `f(w) = w²`, whose gradient is `2w`.
    fn descend(optimizer: &mut Optimizer, p: &[NamedTensor], steps: usize) {
        for _ in 0..steps {
            (&p[0].tensor * &p[0].tensor).sum(Kind::Float).backward();
            optimizer.step(p, |_| 0.1);
        }
    }

    /// Where three steps from 1 end.
    fn after_three(config: &OptimizerConfig) -> f64 {
        let p = [parameter(&[1.0])];
        descend(&mut Optimizer::new(config), &p, 3);
        p[0].tensor.double_value(&[0, 0])
    }

    /// torch.optim.AdamW or Adam (lr = 0.1, weight_decay = 0.01), by the papers' algorithms in f64.
    fn adam_written_out(decoupled: bool) -> f64 {
        let (mut w, mut m, mut v) = (1.0f64, 0.0, 0.0);
        for t in 1..=3 {
            let g = 2.0 * w + if decoupled { 0.0 } else { 0.01 * w };
            w *= if decoupled { 1.0 - 0.1 * 0.01 } else { 1.0 };
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            w -= 0.1 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        }
        w
    }

    #[test]
    fn three_steps_of_adam_agree_with_the_recurrence_written_out() {
        assert!((after_three(&config(OptimizerKind::AdamW)) - adam_written_out(true)).abs() < 1e-6);
        assert!((after_three(&config(OptimizerKind::Adam)) - adam_written_out(false)).abs() < 1e-6);
    }

    #[test]
    fn three_steps_of_sgd_agree_with_the_recurrence_written_out() {
        let sgd = config(OptimizerKind::Sgd);
        // g = 2.01 w. Without momentum a step multiplies w by 1 − 0.201.
        let plain = after_three(&OptimizerConfig { momentum: 0.0, ..sgd.clone() });
        assert!((plain - 0.799f64.powi(3)).abs() < 1e-6);
        // With momentum 0.9 by hand: v = 2.01, w = 0.799; v = 3.41499, w = 0.457501; v = 3.99306801, w = 0.058194199.
        assert!((after_three(&sgd) - 0.058_194_199).abs() < 1e-6);
        // Nesterov goes on by g + 0.9 v: w = 1 − 0.1 (2.01 + 1.809) = 0.6181; g = 1.242381, v = 3.051381,
        // w = 0.6181 − 0.1 (1.242381 + 2.7462429) = 0.21923761; g = 0.4406675961, v = 3.1869104961, w = −0.111651094.
        assert!((after_three(&OptimizerConfig { nesterov: true, ..sgd }) + 0.111_651_094).abs() < 1e-6);
    }

    #[test]
    fn gradients_are_shortened_to_the_limit_and_never_lengthened() {
        // Gradients 2w: (6, 0) and (0, 8), together of norm 10.
        let p = [parameter(&[3.0, 0.0]), parameter(&[0.0, 4.0])];
        for q in &p {
            (&q.tensor * &q.tensor).sum(Kind::Float).backward();
        }
        assert!((global_norm(&p) - 10.0).abs() < 1e-6);
        clip(&p, 10.0, 20.0);
        assert_eq!(p[0].tensor.grad().double_value(&[0, 0]), 6.0);
        clip(&p, 10.0, 1.0);
        assert!((p[0].tensor.grad().double_value(&[0, 0]) - 0.6).abs() < 1e-6);
        assert!((p[1].tensor.grad().double_value(&[0, 1]) - 0.8).abs() < 1e-6);
    }

    #[test]
    fn a_restored_optimizer_continues_bit_for_bit() {
        for kind in [OptimizerKind::AdamW, OptimizerKind::Adam, OptimizerKind::Sgd] {
            let config = config(kind);
            let (a, b) = ([parameter(&[1.0, -2.0])], [parameter(&[1.0, -2.0])]);
            let mut whole = Optimizer::new(&config);
            descend(&mut whole, &a, 6);
            let mut first = Optimizer::new(&config);
            descend(&mut first, &b, 3);
            let mut second = Optimizer::new(&config);
            second.restore(first.state(), Device::Cpu).unwrap();
            descend(&mut second, &b, 3);
            assert_eq!(a[0].tensor, b[0].tensor, "{kind:?}");
        }
    }

    #[test]
    fn a_step_that_misses_a_parameter_leaves_it_alone_before_and_after_a_restart() {
        for kind in [OptimizerKind::AdamW, OptimizerKind::Adam, OptimizerKind::Sgd] {
            let config = config(kind);
            let p = [parameter(&[1.0])];
            let mut first = Optimizer::new(&config);
            descend(&mut first, &p, 1);
            let after_one = p[0].tensor.detach().copy();
            // The same parameter in a new process: no gradient is there.
            let restarted = [parameter(&[after_one.double_value(&[0, 0]) as f32])];
            let mut second = Optimizer::new(&config);
            second.restore(first.state().iter().map(|(n, t)| (n.clone(), t.copy())).collect(), Device::Cpu).unwrap();
            first.step(&p, |_| 0.1);
            second.step(&restarted, |_| 0.1);
            assert_eq!(p[0].tensor, after_one, "{kind:?}");
            assert_eq!(restarted[0].tensor, after_one, "{kind:?}");
            // Neither counts the step.
            descend(&mut first, &p, 1);
            descend(&mut second, &restarted, 1);
            assert_eq!(p[0].tensor, restarted[0].tensor, "{kind:?}");
        }
    }

    #[test]
    fn a_gradient_that_was_dropped_moves_nothing_and_the_next_one_does() {
        let p = [parameter(&[1.0])];
        let mut optimizer = Optimizer::new(&config(OptimizerKind::AdamW));
        (&p[0].tensor * f64::NAN).sum(Kind::Float).backward();
        assert_eq!(optimizer.with_gradient(vec![parameter(&[2.0])]).len(), 0);
        optimizer.clear(&p);
        optimizer.step(&p, |_| 0.1);
        assert_eq!(p[0].tensor.double_value(&[0, 0]), 1.0);
        assert!(optimizer.state().is_empty(), "it was given moments");
        descend(&mut optimizer, &p, 3);
        assert!((p[0].tensor.double_value(&[0, 0]) - adam_written_out(true)).abs() < 1e-6);
    }
}
