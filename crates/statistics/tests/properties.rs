//! What holds for any values.

use proptest::collection::vec;
use proptest::prelude::*;
use statistics::{
    IntervalMethod, Patients, Resampling, Score, Scores, Statistic, bootstrap, holm, sign_flip_test, t_interval,
};

fn patients() -> impl Strategy<Value = Vec<Vec<f64>>> {
    vec(vec(0.0..1.0, 1..6), 2..9)
}

fn statistic() -> impl Strategy<Value = Statistic> {
    prop_oneof![Just(Statistic::SliceMean), Just(Statistic::PatientMean)]
}

fn resampling() -> impl Strategy<Value = Resampling> {
    (prop_oneof![Just(IntervalMethod::Percentile), Just(IntervalMethod::Bca)], 0.5..0.95, any::<u64>())
        .prop_map(|(method, confidence, seed)| Resampling { method, confidence, resamples: 199, seed })
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

proptest! {
    #[test]
    fn the_order_of_patients_slices_and_rows_changes_no_bit(
        (values, shuffled) in patients().prop_flat_map(|values| {
            let rows: Vec<(usize, usize)> = (0..values.len())
                .flat_map(|patient| (0..values[patient].len()).map(move |slice| (patient, slice)))
                .collect();
            (Just(values), Just(rows).prop_shuffle())
        }),
        statistic in statistic(),
        resampling in resampling(),
    ) {
        // The same patients under other names, in another order.
        let names = |last: usize| (0..values.len()).map(|i| i.abs_diff(last).to_string()).collect::<Vec<_>>();
        let (names, other_names) = (names(0), names(values.len() - 1));
        let score = |names: &[String], (patient, slice): (usize, usize), flip: bool| {
            let slices = &values[patient];
            let value = slices[if flip { slices.len() - 1 - slice } else { slice }];
            (names[patient].clone(), slice, value)
        };
        let scores = |rows: Vec<(String, usize, f64)>| {
            let rows = rows.iter().map(|(patient, slice, value)| Score { patient, slice: *slice, seed: 0, value: *value });
            Scores::new(rows).unwrap().patients()
        };
        let mut ordered = shuffled.clone();
        ordered.sort_unstable();
        let one = scores(ordered.iter().map(|&row| score(&names, row, false)).collect());
        let other = scores(shuffled.iter().map(|&row| score(&other_names, row, true)).collect());
        prop_assert_eq!(one.estimate(statistic), other.estimate(statistic));
        prop_assert_eq!(bootstrap(&one, statistic, &resampling), bootstrap(&other, statistic, &resampling));
        prop_assert_eq!(sign_flip_test(&one, statistic, 1), sign_flip_test(&other, statistic, 1));
    }

    #[test]
    fn a_constant_added_to_all_values_moves_the_intervals_by_it(
        values in patients(), constant in -5.0..5.0, statistic in statistic(), resampling in resampling(),
    ) {
        let moved: Vec<Vec<f64>> = values.iter().map(|v| v.iter().map(|v| v + constant).collect()).collect();
        let interval = |values: &[Vec<f64>]| bootstrap(&Patients::new(values).unwrap(), statistic, &resampling).unwrap();
        let (here, there) = (interval(&values), interval(&moved));
        prop_assert!(near(here.low + constant, there.low) && near(here.high + constant, there.high), "{here} {there}");
        let (here, there) = (t_interval(&values.concat(), 0.9), t_interval(&moved.concat(), 0.9));
        let (here, there) = (here.unwrap(), there.unwrap());
        prop_assert!(near(here.low + constant, there.low) && near(here.high + constant, there.high), "{here} {there}");
    }

    #[test]
    fn intervals_lie_between_the_worst_and_the_best_patient(
        values in patients(), statistic in statistic(), resampling in resampling(),
    ) {
        let patients = Patients::new(&values).unwrap();
        let interval = bootstrap(&patients, statistic, &resampling).unwrap();
        let means = values.iter().map(|v| v.iter().sum::<f64>() / v.len() as f64);
        let (worst, best) = means.fold((1.0_f64, 0.0_f64), |(low, high), mean| (low.min(mean), high.max(mean)));
        prop_assert!(worst - 1e-12 <= interval.low && interval.low <= interval.high && interval.high <= best + 1e-12);
    }

    #[test]
    fn p_is_the_same_whichever_model_comes_first(
        values in vec(vec(-1.0..1.0, 1..4), 1..23), statistic in statistic(), seed in any::<u64>(),
    ) {
        let swapped: Vec<Vec<f64>> = values.iter().map(|v| v.iter().map(|v| -v).collect()).collect();
        let test = sign_flip_test(&Patients::new(&values).unwrap(), statistic, seed);
        let other = sign_flip_test(&Patients::new(&swapped).unwrap(), statistic, seed);
        prop_assert_eq!(test.p, other.p);
        prop_assert!(near(test.difference, -other.difference));
        prop_assert!(test.smallest_p <= test.p && test.p <= 1.0);
    }

    #[test]
    fn the_smallest_p_is_reached_by_differences_of_one_sign(sizes in vec(0.01..1.0, 1..23)) {
        let differences: Vec<[f64; 1]> = sizes.iter().map(|difference| [*difference]).collect();
        let test = sign_flip_test(&Patients::new(&differences).unwrap(), Statistic::PatientMean, 5);
        // Drawn patterns of 21 signs and more may hold the observed one.
        let chance = if test.exact { 0.0 } else { 3e-5 };
        prop_assert!(test.p >= test.smallest_p && test.p <= test.smallest_p + chance);
    }

    #[test]
    fn holm_is_at_least_raw_keeps_the_order_of_p_values_and_follows_their_places(
        p_values in vec(0.0..=1.0, 1..12).prop_shuffle(),
    ) {
        let adjusted = holm(&p_values).unwrap();
        let reversed: Vec<f64> = p_values.iter().rev().copied().collect();
        prop_assert_eq!(holm(&reversed).unwrap().into_iter().rev().collect::<Vec<_>>(), adjusted.clone());
        for (p, a) in p_values.iter().zip(&adjusted) {
            prop_assert!(a >= p && *a <= 1.0 && *a <= p * p_values.len() as f64 + 1e-15);
            for (q, b) in p_values.iter().zip(&adjusted) {
                prop_assert!(p > q || a <= b);
            }
        }
    }

    #[test]
    fn any_finite_numbers_have_a_finite_answer(
        values in vec(vec((-1.0..1.0, -320..=49).prop_map(|(v, e): (f64, i32)| v * 10_f64.powi(e)), 1..4), 1..8),
        statistic in statistic(),
        resampling in resampling(),
    ) {
        let patients = Patients::new(&values).unwrap();
        let test = sign_flip_test(&patients, statistic, 0);
        prop_assert!(test.difference.is_finite() && test.p > 0.0 && test.p <= 1.0);
        if let Ok(interval) = bootstrap(&patients, statistic, &resampling) {
            prop_assert!(interval.low.is_finite() && interval.high.is_finite() && interval.low <= interval.high);
        }
        if let Ok(interval) = t_interval(&values.concat(), resampling.confidence) {
            prop_assert!(interval.low.is_finite() && interval.high.is_finite() && interval.low <= interval.high);
        }
    }
}
