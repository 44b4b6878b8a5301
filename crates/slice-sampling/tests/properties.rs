//! What holds for every store, seed and setting.

use proptest::prelude::*;
use slice_sampling::{NoSights, SamplingError, SamplingSettings, Selection, SplitRule, UniformSubset, select};
use slice_store::{SliceLabel, SliceRecord};
use std::collections::BTreeSet;

/// Patients with one or two volumes of `slices` slices, of which those from the second third have the target.
fn records(patients: usize, slices: u32) -> Vec<SliceRecord> {
    let cases = (0..patients).flat_map(|p| (0..=p % 2).map(move |series| (p, series)));
    cases
        .flat_map(|(patient, series)| {
            (0..slices).map(move |index| SliceRecord {
                case: format!("{patient}-{series}"),
                patient: patient.to_string(),
                index,
                position_mm: index as f32,
                row_spacing_mm: 1.0,
                column_spacing_mm: 1.0,
                slice_spacing_mm: 1.0,
                spacing_valid: true,
                label: if (slices / 3..slices * 2 / 3).contains(&index) {
                    SliceLabel::MaskPresent
                } else {
                    SliceLabel::MaskAbsent
                },
                source_sha256: String::new(),
            })
        })
        .collect()
}

fn settings(labelled: usize, keep_rate: f64) -> SamplingSettings {
    SamplingSettings {
        split: SplitRule::default(),
        labelled: labelled.into(),
        keep_rate,
        validation_slices: 32,
        strategy: "uniform".into(),
        run: None,
    }
}

fn patients_of(records: &[SliceRecord], ids: &[slice_store::SliceId]) -> BTreeSet<String> {
    ids.iter().map(|id| records.iter().find(|r| r.id() == *id).unwrap().patient.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_patient_is_in_two_splits_and_a_subset_of_n_has_n_distinct_target_slices(
        patients in 4usize..15, seed: u64, labelled in 1usize..12, keep_rate in 0.4f64..1.0,
    ) {
        let records = records(patients, 18);
        let s = select(&records, &settings(labelled, keep_rate), (&UniformSubset, &NoSights), seed).unwrap();
        let [train, validation, test] = [&s.train, &s.validation, &s.test].map(|ids| patients_of(&records, ids));
        prop_assert!(train.is_disjoint(&validation) && train.is_disjoint(&test) && validation.is_disjoint(&test));
        prop_assert_eq!(train.len() + validation.len() + test.len(), patients);
        let distinct: BTreeSet<_> = s.labelled.iter().collect();
        prop_assert_eq!(distinct.len(), labelled);
        for id in &s.labelled {
            prop_assert!(s.train.contains(id) && records.iter().any(|r| r.id() == *id && r.has_target()));
        }
        prop_assert!(s.validation.len() <= 32);
        // keep_rate touches training patients only: test patients keep all their slices.
        let whole = records.iter().filter(|r| test.contains(&r.patient)).count();
        prop_assert_eq!(s.test.len(), whole);
    }

    #[test]
    fn the_seed_decides_all_and_threads_nothing(seed: u64) {
        let records = records(8, 12);
        let here = select(&records, &settings(5, 1.0), (&UniformSubset, &NoSights), seed).unwrap();
        let there = std::thread::scope(|scope| scope.spawn(|| select(&records, &settings(5, 1.0), (&UniformSubset, &NoSights), seed).unwrap()).join().unwrap());
        prop_assert_eq!(&here, &there);
        prop_assert_ne!(here.labelled, select(&records, &settings(5, 1.0), (&UniformSubset, &NoSights), seed ^ 0x55).unwrap().labelled);
    }
}

#[test]
fn keep_rate_keeps_the_middle_of_each_volume() {
    let records = records(4, 10);
    let s = select(&records, &settings(1, 0.3), (&UniformSubset, &NoSights), 0).unwrap();
    for case in s.train.iter().map(|id| &id.case).collect::<BTreeSet<_>>() {
        let kept: Vec<u32> = s.train.iter().filter(|id| id.case == *case).map(|id| id.index).collect();
        assert_eq!(kept, [3, 4, 5]);
    }
}

#[test]
fn slices_without_a_mask_are_neither_labelled_nor_validation_slices() {
    let mut records = records(6, 18);
    let is_masked = |record: &SliceRecord| record.index.is_multiple_of(2);
    for record in records.iter_mut().filter(|record| !is_masked(record)) {
        record.label = if record.has_target() { SliceLabel::ListPresent } else { SliceLabel::Unknown };
    }
    let of = |id: &slice_store::SliceId| records.iter().find(|record| record.id() == *id).unwrap();
    let s = select(&records, &settings(6, 1.0), (&UniformSubset, &NoSights), 0).unwrap();
    assert!(s.labelled.len() == 6 && s.labelled.iter().all(|id| of(id).has_mask() && of(id).has_target()));
    assert!(!s.validation.is_empty() && s.validation.iter().all(|id| of(id).has_mask()));
    assert!(s.train.iter().any(|id| !of(id).has_mask()), "they are training slices all the same");
    let with_mask = records.iter().filter(|r| r.has_target() && r.has_mask() && s.split.train.contains(&r.patient));
    let found = with_mask.count();
    let error = select(&records, &settings(found + 1, 1.0), (&UniformSubset, &NoSights), 0).unwrap_err();
    assert!(matches!(error, SamplingError::TooFewSlices { found: had, .. } if had == found), "{error}");
}

#[test]
fn impossible_choices_are_refused_with_numbers() {
    let records = records(4, 9);
    let error = select(&records, &settings(1000, 1.0), (&UniformSubset, &NoSights), 0).unwrap_err();
    assert!(matches!(error, SamplingError::TooFewSlices { asked: 1000, .. }), "{error}");
    let given = |train: &[&str], test: &[&str]| SplitRule::Given {
        train: train.iter().map(ToString::to_string).collect(),
        validation: vec![],
        test: test.iter().map(ToString::to_string).collect(),
    };
    let with = |split| {
        select(&records, &SamplingSettings { split, ..settings(1, 1.0) }, (&UniformSubset, &NoSights), 0)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        with(given(&["0"], &["9"])),
        "the split names patient '9', which the store doesn't have; it has: 0, 1, 2, 3. Name these in `sampling.split`, or have \
         them drawn: --set 'sampling.split={fractions={train=0.7,validation=0.1,test=0.2}}'"
    );
    assert!(with(given(&["0", "1"], &["1"])).contains("'1' twice"));
    assert!(with(given(&[], &["1"])).contains("no training patient"));
    assert!(with(SplitRule::Fractions { train: 0.9, validation: 0.3, test: 0.1 }).contains("sum to 1"));
}

#[test]
fn a_selection_is_replayed_from_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("selection.json");
    let selection = select(&records(6, 12), &settings(5, 0.5), (&UniformSubset, &NoSights), 9).unwrap();
    selection.save(&path).unwrap();
    assert_eq!(Selection::load(&path).unwrap(), selection);
    assert!(std::fs::read_to_string(&path).unwrap().contains(&format!("\"{}\"", selection.labelled[0])));
    std::fs::write(&path, "{\"seed\": 1}").unwrap();
    assert!(Selection::load(&path).unwrap_err().to_string().contains("missing field"));
}
