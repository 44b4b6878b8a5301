//! How often intervals hold the true mean, where slices of a patient resemble each other.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use statistics::{IntervalMethod, Patients, Resampling, Statistic, bootstrap, sign_flip_test, t_interval};

const TRIALS: usize = 600;
const SLICES: usize = 8;

/// Patients differ by a normal deviate, their slices by another of half the size; the true mean is 0.
fn draw(patients: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    let mut normal = || -> f64 { StandardNormal.sample(rng) };
    let patient = |_| {
        let own = normal();
        (0..SLICES).map(|_| own + 0.5 * normal()).collect()
    };
    (0..patients).map(patient).collect()
}

/// Share of trials in which `holds` says yes.
fn share(patients: usize, mut holds: impl FnMut(Vec<Vec<f64>>, u64) -> bool) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    (0..TRIALS).filter(|&trial| holds(draw(patients, &mut rng), trial as u64)).count() as f64 / TRIALS as f64
}

fn holds_zero(values: &[Vec<f64>], method: IntervalMethod, seed: u64) -> bool {
    let resampling = Resampling { method, resamples: 400, seed, ..Resampling::default() };
    let interval = bootstrap(&Patients::new(values).unwrap(), Statistic::SliceMean, &resampling).unwrap();
    interval.low <= 0.0 && 0.0 <= interval.high
}

#[test]
fn intervals_over_patients_hold_the_mean_and_those_over_slices_do_not() {
    for method in [IntervalMethod::Percentile, IntervalMethod::Bca] {
        let over_patients = share(40, |values, seed| holds_zero(&values, method, seed));
        assert!((0.91..0.98).contains(&over_patients), "{method:?}: {over_patients}");
        // Each slice as if it were a patient: the standard error is √(1.25/8) / √(1 + 0.25/8) = 0.39 of the true one, so
        // that P(|Z| < 1.96 · 0.39) = 0.55 remain.
        let over_slices = share(40, |values, seed| {
            let slices: Vec<Vec<f64>> = values.concat().into_iter().map(|value| vec![value]).collect();
            holds_zero(&slices, method, seed)
        });
        assert!((0.48..0.63).contains(&over_slices), "{method:?}: {over_slices}");
    }
}

#[test]
fn student_intervals_of_three_values_hold_the_mean() {
    let held = share(3, |values, _| {
        let means: Vec<f64> = values.iter().map(|slices| slices.iter().sum::<f64>() / SLICES as f64).collect();
        let interval = t_interval(&means, 0.95).unwrap();
        interval.low <= 0.0 && 0.0 <= interval.high
    });
    assert!((0.92..0.98).contains(&held), "{held}");
}

#[test]
fn equal_models_differ_by_chance_as_often_as_the_level_says() {
    let found = share(10, |values, seed| {
        sign_flip_test(&Patients::new(&values).unwrap(), Statistic::SliceMean, seed).p <= 0.05
    });
    assert!((0.02..0.085).contains(&found), "{found}");
}
