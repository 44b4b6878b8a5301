//! Paired permutation test over patients.

use crate::{Patients, Statistic};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Up to so many patients every pattern of signs is counted: half a million of them.
pub const EXACT_UP_TO: usize = 20;

/// So many patterns are drawn beyond.
pub const MONTE_CARLO_DRAWS: usize = 99_999;

/// What a paired test found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedTest {
    /// The statistic of the differences, in the metric's unit.
    pub difference: f64,
    /// Two-sided, in (0, 1]: how often chance alone gives a difference as large.
    pub p: f64,
    /// The smallest p that so many patients can give. Where it is above the level of significance, no difference, however
    /// large, could have been shown.
    pub smallest_p: f64,
    /// How many patients.
    pub patients: usize,
    /// Whether all patterns of signs were counted, or drawn.
    pub exact: bool,
}

/// Whether two models differ: if they don't, each patient's differences ([`Scores::minus`](crate::Scores::minus)) might
/// as well have the other sign, all slices of a patient together. p is the share of sign patterns whose statistic is as
/// far from 0 as the one found, or farther; sums that differ by rounding alone (1e-12 of the sum of sizes) are equal.
///
/// - Up to [`EXACT_UP_TO`] patients all 2ⁿ patterns are counted; `smallest_p` is 2/2ⁿ, and 1 of one patient.
/// - Beyond, [`MONTE_CARLO_DRAWS`] m are drawn by `seed` (ChaCha8): p = (b + 1)/(m + 1), b of them as far (Phipson & Smyth
///   2010, equation 2); `smallest_p` is 1/(m + 1).
///
/// Differences that are all 0 give p = 1. Swapping the models changes the sign of the difference and no bit of p.
pub fn sign_flip_test(differences: &Patients, statistic: Statistic, seed: u64) -> PairedTest {
    let parts = differences.parts(statistic);
    let mut sizes: Vec<f64> = parts.iter().map(|part| part.total.abs()).collect();
    // Neither the order of the patients nor which model comes first decides what is drawn.
    sizes.sort_by(f64::total_cmp);
    let found = parts.iter().map(|part| part.total).sum::<f64>().abs();
    let far_enough = found - sizes.iter().sum::<f64>() * 1e-12;
    let patients = sizes.len();
    let exact = patients <= EXACT_UP_TO;
    let (p, smallest_p) = if exact {
        (exact_p(&sizes, far_enough), 0.5_f64.powi(patients as i32 - 1))
    } else {
        let draws = MONTE_CARLO_DRAWS as f64;
        ((far_draws(&sizes, far_enough, seed) as f64 + 1.0) / (draws + 1.0), 1.0 / (draws + 1.0))
    };
    PairedTest { difference: differences.estimate(statistic), p, smallest_p, patients, exact }
}

/// A pattern and its opposite are as far from 0, so the last sign stays.
fn exact_p(sizes: &[f64], far_enough: f64) -> f64 {
    let patterns = 1_u32 << (sizes.len() - 1);
    let is_far = |pattern: &u32| signed_sum(sizes, |patient| pattern >> patient & 1 == 1).abs() >= far_enough;
    (0..patterns).filter(is_far).count() as f64 / f64::from(patterns)
}

fn far_draws(sizes: &[f64], far_enough: f64, seed: u64) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..MONTE_CARLO_DRAWS).filter(|_| signed_sum(sizes, |_| rng.random()).abs() >= far_enough).count()
}

fn signed_sum(sizes: &[f64], mut is_negative: impl FnMut(usize) -> bool) -> f64 {
    sizes.iter().enumerate().map(|(patient, size)| if is_negative(patient) { -size } else { *size }).sum()
}
