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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(schedule: Schedule, done: usize) -> f64 {
        let config = OptimizerConfig { warmup_steps: 10, schedule, ..OptimizerConfig::default() };
        schedule_factor(&config, done, 110)
    }

    #[test]
    fn every_schedule_rises_first() {
        let step = Schedule::Step { factor: 0.5, period: 30 };
        for schedule in [Schedule::Constant, Schedule::Cosine, Schedule::Poly, step] {
            assert!((at(schedule, 0) - 0.1).abs() < 1e-12, "{schedule:?}");
            assert!((at(schedule, 10) - 1.0).abs() < 1e-12, "{schedule:?}");
        }
    }

    #[test]
    fn after_the_warmup_each_follows_its_formula() {
        assert_eq!(at(Schedule::Constant, 109), 1.0);
        // Half-way the cosine is half-way between 1 and 0.02.
        assert!((at(Schedule::Cosine, 60) - 0.51).abs() < 1e-12);
        assert!(at(Schedule::Cosine, 109) < 0.021);
        // 0.5^0.9 and 0.01^0.9 = 10^−1.8.
        assert!((at(Schedule::Poly, 60) - 0.535_886_731).abs() < 1e-9);
        assert!((at(Schedule::Poly, 109) - 0.015_848_932).abs() < 1e-9);
        assert_eq!(at(Schedule::Poly, 110), 0.0);
        let step = Schedule::Step { factor: 0.5, period: 30 };
        assert_eq!([39, 40, 69, 70, 100].map(|done| at(step, done)), [1.0, 0.5, 0.5, 0.25, 0.125]);
    }
}
