//! Predictions of a store against the masks of its volumes, on these volumes' own voxels.

mod common;

use common::scratch::{Scratch, text};
use common::{Nifti, patient};
use ct_ingest::NativeMasks;
use serde_json::json;
use slice_store::SliceStore;

/// Wider than high, and not of the store's size.
const SHAPE: [usize; 3] = [60, 44, 6];

/// The true masks of a case as a store has them, each slice's.
fn stored(store: &SliceStore, case: &str) -> Vec<u8> {
    let evaluation = store.for_evaluation();
    let rows = (0..store.records().len()).filter(|&row| store.records()[row].case == case);
    rows.flat_map(|row| evaluation.truth(row).expect("it has a mask").to_vec()).collect()
}

#[test]
fn a_prediction_meets_the_mask_of_the_file_voxel_by_voxel_in_millimetres() {
    let scratch = Scratch::with_cases(2, SHAPE);
    let [image, _] = patient(SHAPE, 0);
    // A mask whose voxels differ from slice to slice, row to row and column to column.
    let is_target = |x: usize, y: usize, z: usize| x >= 10 + z && x < 30 && y >= 8 && y < 30 + z && z > 0;
    let mask = Nifti::uint8(SHAPE, |x, y, z| u8::from(is_target(x, y, z)));
    image.save(&scratch.data().join("volume-0.nii"));
    mask.save(&scratch.data().join("segmentation-0.nii.gz"));
    let store = scratch.prepared("store", &[]);
    let masks = NativeMasks::open(&store, &scratch.data(), &["0"].into()).unwrap();
    let pair = masks.pair("0", &stored(&store, "0")).unwrap().expect("every voxel is known");

    // Rows run to posterior, columns to the left, slices to superior, as the file's own axes do (LPS).
    let [columns, rows, slices] = SHAPE;
    assert_eq!(pair.shape, [slices, rows, columns]);
    assert!(pair.spacing_valid);
    let far = |(found, expected): (&f64, f64)| (found - expected).abs() > 1e-5;
    assert!(!pair.spacing_mm.iter().zip([2.0, 0.8, 0.8]).any(far), "{:?}", pair.spacing_mm);
    let expected = (0..slices)
        .flat_map(|z| (0..rows).flat_map(move |y| (0..columns).map(move |x| u8::from(is_target(x, y, z)))))
        .collect::<Vec<u8>>();
    assert_eq!(pair.truth, expected);
    // 60 columns were stored as 32: what comes back differs at the edges alone.
    let shared = pair.prediction.iter().zip(&pair.truth).filter(|(p, t)| **p == 1 && **t == 1).count() as f64;
    let count = |mask: &[u8]| mask.iter().map(|&voxel| u32::from(voxel)).sum::<u32>();
    let dice = 2.0 * shared / f64::from(count(&pair.prediction) + count(&pair.truth));
    assert!((0.95..1.0).contains(&dice), "{dice}");
}

#[test]
fn masks_that_are_others_now_and_cases_that_are_not_there_are_refused_before_anything_is_compared() {
    let scratch = Scratch::with_cases(2, SHAPE);
    let store = scratch.prepared("store", &[]);
    let refused = |expected: &str| {
        let error = NativeMasks::open(&store, &scratch.data(), &["0", "1"].into()).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains('1'), "{error}");
    };
    assert!(NativeMasks::open(&store, &scratch.data(), &["0", "1"].into()).is_ok());
    Nifti::uint8(SHAPE, |x, _, _| u8::from(x == 9)).save(&scratch.data().join("segmentation-1.nii.gz"));
    refused("are others than the store was prepared from");
    std::fs::remove_file(scratch.data().join("segmentation-1.nii.gz")).unwrap();
    refused("are others than the store was prepared from");
    std::fs::remove_file(scratch.data().join("volume-1.nii")).unwrap();
    refused("holds no such case");
    // The others can be compared still.
    assert!(NativeMasks::open(&store, &scratch.data(), &["0"].into()).is_ok());
}

#[test]
fn a_case_without_a_mask_and_one_of_a_stated_orientation_have_nothing_to_compare_with() {
    let scratch = Scratch::with_cases(2, SHAPE);
    std::fs::remove_file(scratch.data().join("segmentation-1.nii.gz")).unwrap();
    let manifest = scratch.manifest("stated", |manifest| manifest["orientation"] = json!({ "0": "LPS" }));
    let output = scratch.prepare("store", &["--manifest", &manifest, "--mask-coverage", "all"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let store = SliceStore::open(&scratch.store("store")).unwrap();
    let masks = NativeMasks::open(&store, &scratch.data(), &["0", "1"].into()).unwrap();
    for case in ["0", "1"] {
        assert!(masks.pair(case, &vec![0; 6 * 32 * 32]).unwrap().is_none(), "{case}");
    }
}

#[test]
fn a_volume_with_voxels_of_which_nobody_knows_is_not_compared() {
    let scratch = Scratch::with_cases(1, SHAPE);
    let manifest = scratch.manifest("ignoring", |manifest| manifest["labels"]["ignore"] = json!(255));
    let mask = Nifti::uint8(SHAPE, |x, y, _| if x < 9 { 255 } else { u8::from(y < 9) });
    mask.save(&scratch.data().join("segmentation-0.nii.gz"));
    let output = scratch.prepare("store", &["--manifest", &manifest]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let store = SliceStore::open(&scratch.store("store")).unwrap();
    let masks = NativeMasks::open(&store, &scratch.data(), &["0"].into()).unwrap();
    assert!(masks.pair("0", &vec![0; 6 * 32 * 32]).unwrap().is_none());
}
