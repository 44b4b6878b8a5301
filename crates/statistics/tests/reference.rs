//! Equal to scipy and statsmodels: `fixtures/make_fixtures.py` says how their values were made.

use serde::Deserialize;
use statistics::{
    EXACT_UP_TO, IntervalMethod, MONTE_CARLO_DRAWS, Patients, Resampling, Statistic, bootstrap, holm, mean_sd,
    sign_flip_test, student_t, t_interval,
};

#[derive(Deserialize)]
struct Reference {
    student: Vec<StudentCase>,
    seeds: Vec<SeedsCase>,
    bootstrap: Vec<BootstrapCase>,
    sign_flip: Vec<SignFlipCase>,
    holm: Vec<HolmCase>,
}

#[derive(Deserialize)]
struct StudentCase {
    df: u64,
    confidence: f64,
    t: f64,
}

#[derive(Deserialize)]
struct SeedsCase {
    values: Vec<f64>,
    confidence: f64,
    mean: f64,
    sd: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct BootstrapCase {
    patients: Vec<Vec<f64>>,
    statistic: Statistic,
    resamples: usize,
    confidence: f64,
    seed: u64,
    estimate: f64,
    percentile: [f64; 2],
    bca: [f64; 2],
}

#[derive(Deserialize)]
struct SignFlipCase {
    patients: Vec<Vec<f64>>,
    statistic: Statistic,
    difference: f64,
    /// Of all patterns of signs.
    p: f64,
    seed: u64,
    /// Of the patterns that this seed draws, where there are too many to count.
    drawn_p: Option<f64>,
}

#[derive(Deserialize)]
struct HolmCase {
    p: Vec<f64>,
    adjusted: Vec<f64>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("fixtures/reference.json")).expect("the fixture is as described here")
}

fn assert_near(found: f64, expected: f64, relative: f64, what: &str) {
    let difference = (found - expected).abs();
    assert!(difference <= relative * expected.abs(), "{what}: {found:?}, expected {expected:?}");
}

#[test]
fn critical_values_are_scipys_for_any_degrees_of_freedom() {
    for case in reference().student {
        let t = student_t(case.confidence, case.df).unwrap();
        assert_near(t, case.t, 1e-9, &format!("{} degrees of freedom, confidence {}", case.df, case.confidence));
    }
}

#[test]
fn means_spreads_and_t_intervals_are_scipys() {
    for case in reference().seeds {
        let what = format!("{:?}", case.values);
        let found = mean_sd(&case.values).unwrap();
        assert_near(found.mean, case.mean, 1e-14, &what);
        assert_near(found.sd.unwrap(), case.sd, 1e-13, &what);
        let interval = t_interval(&case.values, case.confidence).unwrap();
        assert_near(interval.low, case.low, 1e-11, &what);
        assert_near(interval.high, case.high, 1e-11, &what);
    }
}

#[test]
fn bootstrap_intervals_over_patients_are_scipys_of_the_same_resamples() {
    for case in reference().bootstrap {
        let patients = Patients::new(&case.patients).unwrap();
        let what = format!("{} patients, {:?}, seed {}", patients.count(), case.statistic, case.seed);
        assert_near(patients.estimate(case.statistic), case.estimate, 1e-14, &what);
        for (method, [low, high]) in [(IntervalMethod::Percentile, case.percentile), (IntervalMethod::Bca, case.bca)] {
            let resampling =
                Resampling { method, confidence: case.confidence, resamples: case.resamples, seed: case.seed };
            let interval = bootstrap(&patients, case.statistic, &resampling).unwrap();
            // statrs' normal distribution function has 10 digits.
            assert_near(interval.low, low, 1e-8, &format!("{what}, {method:?}, low"));
            assert_near(interval.high, high, 1e-8, &format!("{what}, {method:?}, high"));
        }
    }
}

#[test]
fn p_of_few_patients_is_scipys_of_all_sign_patterns() {
    let cases = reference().sign_flip;
    for case in cases.iter().filter(|case| case.patients.len() <= EXACT_UP_TO) {
        let test = sign_flip_test(&Patients::new(&case.patients).unwrap(), case.statistic, case.seed);
        assert!(test.exact);
        assert_eq!(test.p, case.p, "{:?}", case.patients);
        assert_near(test.difference, case.difference, 1e-12, "difference");
    }
}

#[test]
fn p_of_many_patients_is_that_of_the_drawn_patterns_and_near_that_of_all() {
    let cases = reference().sign_flip;
    let mut drawn = 0;
    for case in cases.iter().filter(|case| case.patients.len() > EXACT_UP_TO) {
        let test = sign_flip_test(&Patients::new(&case.patients).unwrap(), case.statistic, case.seed);
        assert!(!test.exact);
        assert_eq!(Some(test.p), case.drawn_p);
        let standard_error = (case.p * (1.0 - case.p) / MONTE_CARLO_DRAWS as f64).sqrt();
        assert!((test.p - case.p).abs() < 4.0 * standard_error, "{} is far from {}", test.p, case.p);
        drawn += 1;
    }
    assert!(drawn > 0);
}

#[test]
fn adjusted_p_values_are_statsmodels() {
    for case in reference().holm {
        for (found, expected) in holm(&case.p).unwrap().into_iter().zip(case.adjusted) {
            assert!((found - expected).abs() < 1e-15, "{:?}: {found}, expected {expected}", case.p);
        }
    }
}
