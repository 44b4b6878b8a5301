//! What a table says of seeds, patients and families of tests.

use statistics::{Cell, PairedTest, Patients, Resampling, Score, Scores, Statistic, Verdict, compare, sign_flip_test};

/// One patient with one slice, one with three; two seeds.
const VALUES: [(&str, usize, [f64; 2]); 4] =
    [("a", 0, [0.2, 0.4]), ("b", 0, [0.9, 0.7]), ("b", 1, [0.6, 0.6]), ("b", 5, [0.6, 0.8])];

fn scores(values: &[(&str, usize, [f64; 2])]) -> Scores {
    let rows = values.iter().flat_map(|&(patient, slice, values)| {
        [1, 2].into_iter().zip(values).map(move |(seed, value)| Score { patient, slice, seed, value })
    });
    Scores::new(rows).unwrap()
}

fn test_of(p: f64, patients: usize) -> PairedTest {
    PairedTest { difference: 0.02, p, smallest_p: 0.5_f64.powi(patients as i32 - 1), patients, exact: true }
}

fn verdicts(family: &[PairedTest]) -> Vec<Verdict> {
    compare(family, 0.05).unwrap().iter().map(|comparison| comparison.verdict).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

#[test]
fn seeds_are_averaged_first_and_patients_weigh_by_slices_or_alike() {
    let scores = scores(&VALUES);
    // By slice: 0.3; 0.8, 0.6, 0.7.
    assert!(near(scores.patients().estimate(Statistic::SliceMean), 0.6));
    assert!(near(scores.patients().estimate(Statistic::PatientMean), 0.5));
    let per_seed = scores.per_seed(Statistic::SliceMean);
    assert!(near(per_seed[0], 0.575) && near(per_seed[1], 0.625), "{per_seed:?}");
    let per_seed = scores.per_seed(Statistic::PatientMean);
    assert!(near(per_seed[0], 0.45) && near(per_seed[1], 0.55), "{per_seed:?}");
}

#[test]
fn models_with_other_numbers_of_seeds_can_be_compared() {
    let one_seed = VALUES.map(|(patient, slice, _)| Score { patient, slice, seed: 9, value: 0.5 });
    let differences = scores(&VALUES).minus(&Scores::new(one_seed).unwrap()).unwrap();
    assert!(near(differences.estimate(Statistic::SliceMean), 0.1));
    assert!(near(differences.estimate(Statistic::PatientMean), 0.0));
}

#[test]
fn three_patients_are_too_few_however_large_the_difference() {
    let test = sign_flip_test(&Patients::new(&[[0.9], [0.8], [0.9]]).unwrap(), Statistic::PatientMean, 0);
    assert_eq!((test.p, test.smallest_p), (0.25, 0.25));
    assert_eq!(verdicts(&[test]), [Verdict::TooFewPatients]);
}

#[test]
fn patients_that_are_enough_for_one_test_can_be_too_few_for_a_family() {
    // Six patients can give 0.03125, which is significant by itself and not as the first of two.
    let (smallest, larger) = (test_of(0.03125, 6), test_of(0.4, 6));
    assert_eq!(verdicts(&[smallest]), [Verdict::Differs]);
    assert_eq!(verdicts(&[larger]), [Verdict::NoDifferenceShown]);
    assert_eq!(verdicts(&[smallest, larger]), [Verdict::TooFewPatients; 2]);
}

#[test]
fn a_test_of_few_patients_can_be_significant_after_others_are() {
    // Holm's factor of the second of two is 1, so six patients are enough here.
    let family = [test_of(0.5, 6), test_of(0.001, 12)];
    assert_eq!(verdicts(&family), [Verdict::NoDifferenceShown, Verdict::Differs]);
    assert_eq!(verdicts(&[test_of(0.03125, 6), test_of(0.001, 12)]), [Verdict::Differs; 2]);
}

#[test]
fn cells_read_as_people_write_them() {
    let mut cell = Cell::new(&scores(&VALUES), Statistic::PatientMean, &Resampling::default()).unwrap();
    assert_eq!(cell.to_string(), "0.500 ± 0.071 [0.300, 0.700], 2 patients, 2 seeds");
    cell.comparison = Some(compare(&[test_of(0.03125, 6)], 0.05).unwrap()[0]);
    assert_eq!(format!("{cell:.2}"), "0.50 ± 0.07 [0.30, 0.70], 2 patients, 2 seeds; differs: +0.02, p = 0.031");
    cell.comparison = Some(compare(&[test_of(0.0001, 20)], 0.05).unwrap()[0]);
    assert!(cell.to_string().ends_with("; differs: +0.020, p < 0.001"));

    let one = Scores::new([Score { patient: "a", slice: 0, seed: 3, value: 0.5 }]).unwrap();
    let cell = Cell::new(&one, Statistic::PatientMean, &Resampling::default()).unwrap();
    assert_eq!(cell.to_string(), "0.500, 1 patient, 1 seed");
}

#[test]
fn cells_survive_json() {
    let mut cell = Cell::new(&scores(&VALUES), Statistic::SliceMean, &Resampling::default()).unwrap();
    cell.comparison = Some(compare(&[test_of(0.25, 3)], 0.05).unwrap()[0]);
    let json = serde_json::to_string(&cell).unwrap();
    assert!(json.contains(r#""verdict":"too-few-patients""#), "{json}");
    assert_eq!(serde_json::from_str::<Cell>(&json).unwrap().to_string(), cell.to_string());
}
