//! Bootstrap intervals over patients: patients are drawn, with all their slices.

use crate::error::checked_fraction;
use crate::scores::Part;
use crate::{Error, Interval, Patients, Statistic};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

/// How an interval is made of the resamples' statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntervalMethod {
    /// Their quantiles (Efron & Tibshirani 1993, section 13.3).
    Percentile,
    /// Their quantiles, moved for bias and skewness (Efron & Tibshirani 1993, section 14.3): the better one in general.
    Bca,
}

/// How patients are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resampling {
    /// Percentile or BCa.
    pub method: IntervalMethod,
    /// Of the interval, in (0, 1).
    pub confidence: f64,
    /// How often a set of patients is drawn; at least 2 / (1 − confidence) − 1.
    pub resamples: usize,
    /// Of ChaCha8, which draws the same patients on every machine.
    pub seed: u64,
}

/// 95 %, BCa, 10 000 resamples, seed 0.
impl Default for Resampling {
    fn default() -> Self {
        Self { method: IntervalMethod::Bca, confidence: 0.95, resamples: 10_000, seed: 0 }
    }
}

/// Differences this small, beside the largest part of the statistic, are rounding.
const ROUNDING: f64 = 1e-12;

/// The interval of a statistic over patients like these (cluster bootstrap: Davison & Hinkley 1997, section 3.8,
/// strategy 1). Each resample draws as many patients as there are, with replacement, each with all its slices. Of
/// differences ([`Scores::minus`](crate::Scores::minus)) it is the interval of the paired difference.
///
/// Few patients make it too narrow: with n of them the percentile interval has √((n − 1)/n) of the width at best, and
/// never reaches beyond the best and the worst patient. Patients that are all equal give an interval of no width.
/// The ends are quantiles, linear between ranks. Errors: one patient, a confidence outside (0, 1), too few resamples.
pub fn bootstrap(patients: &Patients, statistic: Statistic, resampling: &Resampling) -> Result<Interval, Error> {
    let &Resampling { method, confidence, resamples, seed } = resampling;
    checked_fraction("confidence", confidence)?;
    // `as` saturates, where the confidence is too close to 1 for any number.
    let needed = (2.0 / (1.0 - confidence) - 1.0 - 1e-6).ceil() as usize;
    if resamples < needed {
        return Err(Error::Resamples { found: resamples, confidence, needed });
    }
    if patients.count() < 2 {
        return Err(Error::TooFew { what: "patients", found: patients.count() });
    }
    let parts = patients.parts(statistic);
    let mut statistics = resampled(&parts, resamples, seed);
    statistics.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    let ends = match method {
        IntervalMethod::Percentile => [tail, 1.0 - tail],
        IntervalMethod::Bca => bca_levels(&parts, &statistics, tail),
    };
    let [low, high] = ends.map(|level| quantile(&statistics, level));
    Ok(Interval { low, high, confidence })
}

/// The statistic of each resample. How often a patient was drawn decides it, to the last bit, and not when.
fn resampled(parts: &[Part], resamples: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut times = vec![0_u32; parts.len()];
    let resample = |_| {
        times.fill(0);
        for _ in parts {
            times[rng.random_range(0..parts.len() as u32) as usize] += 1;
        }
        let drawn = |value: fn(&Part) -> f64| -> f64 {
            parts.iter().zip(&times).map(|(part, &times)| value(part) * f64::from(times)).sum()
        };
        drawn(|part| part.total) / drawn(|part| part.weight)
    };
    (0..resamples).map(resample).collect()
}

/// The quantiles that stand for `tail` and 1 − `tail`: Φ(z₀ + z/(1 − a·z)) with z = z₀ ± z_tail, the bias z₀ from the
/// share of resamples below the estimate, ties halved, and the acceleration a from the jackknife over patients.
fn bca_levels(parts: &[Part], statistics: &[f64], tail: f64) -> [f64; 2] {
    let total: f64 = parts.iter().map(|part| part.total).sum();
    let weight: f64 = parts.iter().map(|part| part.weight).sum();
    let estimate = total / weight;
    let largest = parts.iter().map(|part| (part.total / part.weight).abs()).fold(0.0, f64::max);
    let tied = largest * ROUNDING;
    let below = statistics.partition_point(|&value| value < estimate - tied) as f64;
    let not_above = statistics.partition_point(|&value| value <= estimate + tied) as f64;
    let count = statistics.len() as f64;
    // Kept off 0 and 1, whose quantiles are infinite.
    let share = ((below + not_above) / (2.0 * count)).clamp(0.5 / count, 1.0 - 0.5 / count);
    let normal = Normal::standard();
    let bias = normal.inverse_cdf(share);
    let acceleration = acceleration(parts, total, weight, tied);
    let edge = normal.inverse_cdf(tail);
    [edge, -edge].map(|edge| {
        let shifted = bias + edge;
        let scale = 1.0 - acceleration * shifted;
        // Beyond the pole nothing is left of the distribution on that side.
        if scale > 0.0 { normal.cdf(bias + shifted / scale) } else { f64::from(shifted > 0.0) }
    })
}

/// Σu³ / (6 (Σu²)^1.5) with u the mean of the leave-one-out statistics minus each (Efron & Tibshirani 1993, equation
/// 14.15); 0 where they don't differ.
fn acceleration(parts: &[Part], total: f64, weight: f64, tied: f64) -> f64 {
    let without = |part: &Part| (total - part.total) / (weight - part.weight);
    let mean = parts.iter().map(without).sum::<f64>() / parts.len() as f64;
    let deviations: Vec<f64> = parts.iter().map(|part| mean - without(part)).collect();
    let largest = deviations.iter().map(|deviation| deviation.abs()).fold(0.0, f64::max);
    if largest <= tied {
        return 0.0;
    }
    // As parts of the largest, so that no cube is too small for a number.
    let sum = |power| deviations.iter().map(|deviation| (deviation / largest).powi(power)).sum::<f64>();
    sum(3) / (6.0 * sum(2).powf(1.5))
}

/// Of sorted values, linear between ranks: `level` 0 is the first, 1 the last.
fn quantile(sorted: &[f64], level: f64) -> f64 {
    let position = level * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}
