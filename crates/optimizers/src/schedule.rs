//! The course of a learning rate.

use crate::config::{OptimizerConfig, Schedule};

/// The power of `poly`, as DeepLab and nnU-Net have it.
const POLY_POWER: f64 = 0.9;

/// The factor of a group's learning rate at its `done`-th update of `total`.
pub fn schedule_factor(config: &OptimizerConfig, done: usize, total: usize) -> f64 {
    let warmup = config.warmup_steps.min(total / 4);
    if done < warmup {
        return (done + 1) as f64 / warmup as f64;
    }
    let since = done - warmup;
    let share = since as f64 / (total - warmup).max(1) as f64;
    match config.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => 0.02 + 0.98 * 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
        // A group's last update may be asked for once more, after it: then the share is 1.
        Schedule::Poly => (1.0 - share).max(0.0).powf(POLY_POWER),
        Schedule::Step { factor, period } => factor.powi((since / period) as i32),
    }
}
