//! Input with nothing in it, one patient, equal values, NaN: a clear error or a documented result.

use statistics::{
    Error, IntervalMethod, Patients, Resampling, Score, Scores, Statistic, bootstrap, compare, holm, mean_sd,
    sign_flip_test, student_t, t_interval,
};

const BOTH: [IntervalMethod; 2] = [IntervalMethod::Percentile, IntervalMethod::Bca];

fn score(patient: &str, slice: usize, seed: u64, value: f64) -> Score<'_> {
    Score { patient, slice, seed, value }
}

fn message<T>(result: Result<T, Error>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn nothing_is_an_error_and_a_family_of_no_tests_is_none() {
    assert_eq!(Scores::new([]), Err(Error::Empty));
    assert_eq!(Patients::new::<[f64; 1]>(&[]), Err(Error::Empty));
    assert_eq!(mean_sd(&[]), Err(Error::Empty));
    assert_eq!(t_interval(&[], 0.95), Err(Error::Empty));
    assert_eq!(
        message(Patients::new(&[vec![0.5], vec![]])),
        "patient 1, counted from 0, has no slices; leave patients without values out"
    );
    assert_eq!(holm(&[]), Ok(vec![]));
    assert_eq!(compare(&[], 0.05), Ok(vec![]));
}

#[test]
fn values_that_are_no_numbers_are_named_with_their_place() {
    let one = [score("a", 3, 7, f64::NAN)];
    assert_eq!(
        message(Scores::new(one)),
        "patient 'a', slice 3, seed 7: the value is NaN; expected a finite number within ±1e50"
    );
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.1e50, -f64::MAX] {
        assert!(matches!(Scores::new([score("a", 0, 0, value)]), Err(Error::Value { .. })));
        assert!(matches!(Patients::new(&[[0.5], [value]]), Err(Error::Value { .. })));
        assert!(matches!(mean_sd(&[0.5, value]), Err(Error::Value { .. })));
    }
    for p in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
        assert!(matches!(holm(&[0.5, p]), Err(Error::PValue { index: 1, .. })));
    }
}

#[test]
fn seeds_must_have_the_same_slices_and_each_once() {
    assert_eq!(
        message(Scores::new([score("a", 0, 1, 0.5), score("b", 0, 1, 0.5), score("a", 0, 2, 0.5)])),
        "patient 'b', slice 0, seed 2 has no value, but other seeds or slices do; evaluate every seed on the same slices, \
         or leave the seed out"
    );
    assert_eq!(
        message(Scores::new([score("a", 0, 1, 0.5), score("a", 0, 1, 0.5)])),
        "patient 'a', slice 0, seed 1 was given twice; give each slice of a seed's run once"
    );
}

#[test]
fn models_are_compared_on_the_same_slices_only() {
    let one = Scores::new([score("a", 0, 1, 0.5), score("b", 4, 1, 0.5)]).unwrap();
    let other = Scores::new([score("a", 0, 1, 0.5)]).unwrap();
    let place = "patient 'b', slice 4 is in the";
    let advice = "set of scores only; compare models on the same slices of the same patients";
    assert_eq!(message(one.minus(&other)), format!("{place} first {advice}"));
    assert_eq!(message(other.minus(&one)), format!("{place} second {advice}"));
}

#[test]
fn confidence_and_significance_lie_between_0_and_1() {
    let two = Patients::new(&[[0.5], [0.6]]).unwrap();
    for confidence in [0.0, 1.0, -0.5, 95.0, f64::NAN] {
        let resampling = Resampling { confidence, ..Resampling::default() };
        assert!(matches!(bootstrap(&two, Statistic::SliceMean, &resampling), Err(Error::NotAFraction { .. })));
        assert!(matches!(t_interval(&[0.5, 0.6], confidence), Err(Error::NotAFraction { .. })));
        assert!(matches!(student_t(confidence, 3), Err(Error::NotAFraction { .. })));
        assert!(matches!(compare(&[], confidence), Err(Error::NotAFraction { .. })));
    }
    assert_eq!(
        message(t_interval(&[0.5, 0.6], 95.0)),
        "the confidence is 95; expected a number between 0 and 1, both excluded"
    );
}

#[test]
fn quantiles_end_for_the_confidences_nearest_to_0_and_1() {
    for degrees_of_freedom in [1, 2, 40, 99_999, 100_000, u64::MAX] {
        for confidence in [f64::MIN_POSITIVE, 1e-100, 1e-12, 1.0 - f64::EPSILON, 1.0 - f64::EPSILON / 2.0] {
            let t = student_t(confidence, degrees_of_freedom).unwrap();
            assert!(t.is_finite() && t >= 0.0, "{degrees_of_freedom} {confidence:e} {t:e}");
        }
    }
    // Cauchy's distribution: t = tan(confidence · π/2).
    assert!((student_t(0.5, 1).unwrap() - 1.0).abs() < 1e-12);
    assert!((student_t(1e-12, 1).unwrap() / (1e-12 * std::f64::consts::FRAC_PI_2) - 1.0).abs() < 1e-12);
}

#[test]
fn resamples_must_reach_beyond_both_ends() {
    let two = Patients::new(&[[0.5], [0.6]]).unwrap();
    let with = |resamples, confidence| {
        bootstrap(&two, Statistic::SliceMean, &Resampling { resamples, confidence, ..Resampling::default() })
    };
    assert_eq!(message(with(38, 0.95)), "38 resamples can't give an interval of confidence 0.95; use at least 39");
    assert!(with(39, 0.95).is_ok());
    assert!(matches!(with(0, 0.01), Err(Error::Resamples { .. })));
    assert!(matches!(with(10_000, 1.0 - f64::EPSILON / 2.0), Err(Error::Resamples { .. })));
}

#[test]
fn one_patient_has_no_interval_and_a_p_of_1() {
    let one = Patients::new(&[[0.5, 0.9]]).unwrap();
    let interval = bootstrap(&one, Statistic::SliceMean, &Resampling::default());
    assert_eq!(message(interval), "an interval needs at least 2 patients, found 1; give more, or the estimate alone");
    let test = sign_flip_test(&one, Statistic::SliceMean, 0);
    assert_eq!((test.p, test.smallest_p), (1.0, 1.0));
}

#[test]
fn one_seed_has_a_mean_and_no_spread() {
    let found = mean_sd(&[0.7]).unwrap();
    assert_eq!((found.mean, found.sd), (0.7, None));
    assert_eq!(t_interval(&[0.7], 0.95), Err(Error::TooFew { what: "seeds", found: 1 }));
}

#[test]
fn equal_values_give_intervals_of_no_width() {
    let seeds = t_interval(&[0.7; 3], 0.95).unwrap();
    assert_eq!((seeds.low, seeds.high), (0.7, 0.7));
    let slices: Vec<Vec<f64>> = [1, 4, 2, 3, 7].iter().map(|&slices| vec![0.7; slices]).collect();
    let patients = Patients::new(&slices).unwrap();
    for method in BOTH {
        for statistic in [Statistic::SliceMean, Statistic::PatientMean] {
            let interval = bootstrap(&patients, statistic, &Resampling { method, ..Resampling::default() }).unwrap();
            assert!((interval.low - 0.7).abs() < 1e-15 && (interval.high - 0.7).abs() < 1e-15, "{interval}");
        }
    }
}

#[test]
fn models_that_are_equal_have_a_p_of_1() {
    for patients in [1, 8, 25] {
        let test = sign_flip_test(&Patients::new(&vec![[0.0]; patients]).unwrap(), Statistic::SliceMean, 0);
        assert_eq!((test.p, test.difference), (1.0, 0.0));
    }
}

#[test]
fn differences_that_rounding_alone_makes_unequal_count_as_equal() {
    // 0.1 + 0.2 - 0.3 is not 0, and six of the eight patterns are as far from 0 as the one found, or farther.
    let test = sign_flip_test(&Patients::new(&[[0.1], [0.2], [-0.3]]).unwrap(), Statistic::PatientMean, 0);
    assert_eq!(test.p, 1.0);
    let test = sign_flip_test(&Patients::new(&[[0.3], [-0.2], [0.1]]).unwrap(), Statistic::PatientMean, 0);
    // ±0.2 is found; sums are ±0.6, ±0.4, ±0.2 and 0 twice.
    assert_eq!(test.p, 0.75);
}
