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
        parameters.retain(|parameter| self.has_gradient(parameter));
        parameters
    }

    /// Whether this one did.
    pub fn has_gradient(&self, parameter: &NamedTensor) -> bool {
        self.gradient(parameter).is_some()
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
