//! Mean, sample standard deviation and Student's interval over a few seeds.

use crate::Error;
use crate::error::{checked, checked_fraction};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::beta::beta_reg;
use std::fmt;

/// From `low` to `high`, both included, in the unit of the values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How often such intervals hold the true value, as far as the method's assumptions go; 0.95 for 95 %.
    pub confidence: f64,
}

/// `[low, high]`, with three decimals unless the format asks for others.
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let decimals = f.precision().unwrap_or(3);
        write!(f, "[{:.decimals$}, {:.decimals$}]", self.low, self.high)
    }
}

/// Mean and spread of some values, in their unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanSd {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation, √(Σ(x − mean)² / (n − 1)); `None` of one value.
    pub sd: Option<f64>,
    /// How many values.
    pub n: usize,
}

/// Mean and sample standard deviation. Errors: no values, one that is NaN, infinite or too large.
pub fn mean_sd(values: &[f64]) -> Result<MeanSd, Error> {
    for (index, &value) in values.iter().enumerate() {
        checked(value, || format!("value {index}, counted from 0"))?;
    }
    let n = values.len();
    let &first = values.first().ok_or(Error::Empty)?;
    // Of differences from the first, so that equal values have a spread of exactly 0.
    let mean = first + values.iter().map(|value| value - first).sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Ok(MeanSd { mean, sd: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()), n })
}

/// Student's interval of the mean, mean ± t · SD / √n, for values that are independent and roughly normal, such as the
/// results of several seeds. Equal values give an interval of no width. Errors: those of [`mean_sd`], fewer than two
/// values, a confidence outside (0, 1).
pub fn t_interval(values: &[f64], confidence: f64) -> Result<Interval, Error> {
    checked_fraction("confidence", confidence)?;
    let MeanSd { mean, sd, n } = mean_sd(values)?;
    let Some(sd) = sd else { return Err(Error::TooFew { what: "seeds", found: n }) };
    let half = student_t(confidence, n as u64 - 1)? * sd / (n as f64).sqrt();
    Ok(Interval { low: mean - half, high: mean + half, confidence })
}

/// The t with P(|T| ≤ t) = `confidence`, for T of Student's distribution with `degrees_of_freedom`. Its probability
/// outside ±t is I(ν/(ν + t²); ν/2, ½), the regularised incomplete beta function (Abramowitz & Stegun 1964, 26.7.1). Errors:
/// no degree of freedom, a confidence outside (0, 1).
pub fn student_t(confidence: f64, degrees_of_freedom: u64) -> Result<f64, Error> {
    checked_fraction("confidence", confidence)?;
    if degrees_of_freedom == 0 {
        return Err(Error::TooFew { what: "seeds", found: 1 });
    }
    let freedom = degrees_of_freedom as f64;
    if degrees_of_freedom >= NEARLY_NORMAL {
        return Ok(student_t_near_normal(confidence, freedom));
    }
    // Of the two probabilities the smaller one, which keeps its digits. statrs' own quantile is not used: it is wrong in
    // far tails and does not end for some arguments.
    let is_within = |t: f64| {
        let (outside, inside) = (freedom / (freedom + t * t), t * t / (freedom + t * t));
        if confidence < 0.5 {
            beta_reg(0.5, freedom / 2.0, inside) <= confidence
        } else {
            beta_reg(freedom / 2.0, 0.5, outside) >= 1.0 - confidence
        }
    };
    // Bisection of the exponent; one degree of freedom at the largest confidence below 1 gives 6e15.
    let (mut low, mut high) = (1e-150_f64, 1e17_f64);
    for _ in 0..80 {
        let middle = (low * high).sqrt();
        *(if is_within(middle) { &mut low } else { &mut high }) = middle;
    }
    Ok(low)
}

/// From here on the incomplete beta function loses digits, and three terms of the series give all of them.
const NEARLY_NORMAL: u64 = 100_000;

/// By the normal quantile z and the powers of 1/ν (Abramowitz & Stegun 1964, 26.7.5).
fn student_t_near_normal(confidence: f64, freedom: f64) -> f64 {
    let z = -Normal::standard().inverse_cdf((1.0 - confidence) / 2.0);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    z + first / freedom + second / freedom.powi(2)
}
