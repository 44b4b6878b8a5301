//! Adam with decoupled weight decay, ours because tch's optimisers can't save their state, and a run must resume exactly.

use crate::config::{OptimizerConfig, Schedule};
use stage_api::{Group, NamedTensor};
use std::collections::BTreeMap;
use tch::{Tensor, no_grad};

/// The optimiser and its state; parameters are known by name.
pub struct Adam {
    config: OptimizerConfig,
    moments: BTreeMap<String, Moments>,
}

struct Moments {
    first: Tensor,
    second: Tensor,
    /// Updates of this parameter so far.
    steps: i64,
}

impl Adam {
    /// An optimiser that has seen no step.
    pub fn new(config: &OptimizerConfig) -> Self {
        Self { config: config.clone(), moments: BTreeMap::new() }
    }

    /// One update of every parameter that has a gradient, at `lr(group)`; gradients are then cleared.
    pub fn step(&mut self, parameters: &[NamedTensor], lr: impl Fn(Group) -> f64) {
        let [beta1, beta2] = self.config.betas;
        no_grad(|| {
            for parameter in parameters {
                let mut value = parameter.tensor.shallow_clone();
                let mut gradient = value.grad();
                if !gradient.defined() {
                    continue;
                }
                let state = self.moments.entry(parameter.name.clone()).or_insert_with(|| Moments {
                    first: gradient.zeros_like(),
                    second: gradient.zeros_like(),
                    steps: 0,
                });
                state.steps += 1;
                let lr = lr(parameter.group);
                // Vectors are biases and normalisation: decay would pull them to zero for no reason.
                if self.config.weight_decay > 0.0 && value.dim() > 1 {
                    let _ = value.g_mul_scalar_(1.0 - lr * self.config.weight_decay);
                }
                let _ = state.first.lerp_(&gradient, 1.0 - beta1);
                let _ = state.second.g_mul_scalar_(beta2).g_add_(&(gradient.square() * (1.0 - beta2)));
                let correction1 = 1.0 - beta1.powi(state.steps as i32);
                let correction2 = 1.0 - beta2.powi(state.steps as i32);
                let denominator = (&state.second / correction2).sqrt_().g_add_scalar_(1e-8);
                let _ = value.g_sub_(&(&state.first / denominator * (lr / correction1)));
                let _ = gradient.zero_();
            }
        });
    }

    /// The state as tensors: `<parameter>.first`, `.second` and `.steps`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.moments
            .iter()
            .flat_map(|(name, m)| {
                [
                    (format!("{name}.first"), m.first.shallow_clone()),
                    (format!("{name}.second"), m.second.shallow_clone()),
                    (format!("{name}.steps"), Tensor::from_slice(&[m.steps])),
                ]
            })
            .collect()
    }

    /// Takes over a state that [`Self::state`] gave; `None` if a part of it is missing.
    pub fn restore(&mut self, state: Vec<(String, Tensor)>, device: tch::Device) -> Option<()> {
        let mut state: BTreeMap<String, Tensor> = state.into_iter().collect();
        self.moments.clear();
        while let Some(name) = state.keys().next().and_then(|k| k.rsplit_once('.')).map(|(name, _)| name.to_owned()) {
            let mut part = |part: &str| state.remove(&format!("{name}.{part}"));
            let (first, second, steps) = (part("first")?, part("second")?, part("steps")?.int64_value(&[0]));
            let moments = Moments { first: first.to_device(device), second: second.to_device(device), steps };
            self.moments.insert(name, moments);
        }
        Some(())
    }
}

/// The factor of a group's learning rate at its `done`-th step of `total`.
pub fn schedule_factor(config: &OptimizerConfig, done: usize, total: usize) -> f64 {
    let warmup = config.warmup_steps.min(total / 4);
    if done < warmup {
        return (done + 1) as f64 / warmup as f64;
    }
    match config.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => {
            let share = (done - warmup) as f64 / (total - warmup).max(1) as f64;
            0.02 + 0.98 * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn parameter(values: &[f32]) -> NamedTensor {
        // Two dimensions, so that weight decay applies.
        let tensor = Tensor::from_slice(values).unsqueeze(0).set_requires_grad(true);
        NamedTensor { name: "w".into(), group: Group::Decoder, tensor }
    }

    fn descend(optimizer: &mut Adam, p: &[NamedTensor], steps: usize) {
        for _ in 0..steps {
            (&p[0].tensor * &p[0].tensor).sum(Kind::Float).backward();
            optimizer.step(p, |_| 0.1);
        }
    }

    #[test]
    fn three_steps_agree_with_the_recurrence_written_out() {
        let config = OptimizerConfig { weight_decay: 0.01, ..OptimizerConfig::default() };
        let p = [parameter(&[1.0])];
        descend(&mut Adam::new(&config), &p, 3);
        // torch.optim.AdamW(lr = 0.1, weight_decay = 0.01) on f(w) = w², by the paper's algorithm in f64.
        let (mut w, mut m, mut v) = (1.0f64, 0.0, 0.0);
        for t in 1..=3 {
            let g = 2.0 * w;
            w *= 1.0 - 0.1 * 0.01;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            w -= 0.1 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        }
        assert!((p[0].tensor.double_value(&[0, 0]) - w).abs() < 1e-6);
    }

    #[test]
    fn a_restored_optimizer_continues_bit_for_bit() {
        let config = OptimizerConfig::default();
        let (a, b) = ([parameter(&[1.0, -2.0])], [parameter(&[1.0, -2.0])]);
        let mut whole = Adam::new(&config);
        descend(&mut whole, &a, 6);
        let mut first = Adam::new(&config);
        descend(&mut first, &b, 3);
        let mut second = Adam::new(&config);
        second.restore(first.state(), Device::Cpu).unwrap();
        descend(&mut second, &b, 3);
        assert_eq!(a[0].tensor, b[0].tensor);
    }

    #[test]
    fn schedule_rises_then_falls_to_two_percent() {
        let config = OptimizerConfig { warmup_steps: 10, ..OptimizerConfig::default() };
        assert!((schedule_factor(&config, 0, 100) - 0.1).abs() < 1e-9);
        assert!((schedule_factor(&config, 10, 100) - 1.0).abs() < 1e-9);
        assert!(schedule_factor(&config, 99, 100) < 0.03);
    }
}
