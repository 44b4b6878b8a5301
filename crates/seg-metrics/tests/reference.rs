//! Agreement with MONAI (Dice, IoU, HD, HD95, ASSD) and DeepMind's surface-distance (surface Dice), from
//! `fixtures/reference.json`, which `fixtures/make_fixtures.py` writes.

use seg_metrics::{MaskView, Spacing, dice, iou, surface_dice, surface_distances};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    tolerances: Vec<f64>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    height: usize,
    width: usize,
    prediction: Vec<usize>,
    truth: Vec<usize>,
    dice: f64,
    iou: f64,
    measures: Vec<Measures>,
}

#[derive(Deserialize)]
struct Measures {
    spacing: [f64; 2],
    hd: f64,
    hd95: f64,
    assd: f64,
    surface_dice: Vec<f64>,
}

/// Calls `check` with each fixture and its two masks, the prediction first.
fn for_each_case(check: impl Fn(&Case, MaskView<'_>, MaskView<'_>, &[f64])) {
    let reference: Reference = serde_json::from_str(include_str!("fixtures/reference.json")).unwrap();
    assert!(reference.cases.len() > 20, "the fixture file is not whole");
    for case in &reference.cases {
        let (prediction, truth) = (pixels(&case.prediction), pixels(&case.truth));
        let view = |pixels| MaskView::new(pixels, case.height, case.width).unwrap();
        check(case, view(&prediction), view(&truth), &reference.tolerances);
    }
}

fn pixels(runs: &[usize]) -> Vec<u8> {
    runs.iter().enumerate().flat_map(|(i, &length)| std::iter::repeat_n((i % 2) as u8, length)).collect()
}

/// MONAI answers in 32-bit floats, and `torch.quantile` finds the rank of HD95 in them, too: where two ranks lie far
/// apart (an island), that moves the result by up to 7e-6 of itself.
#[track_caller]
fn assert_close(ours: f64, theirs: f64, what: &str) {
    assert!((ours - theirs).abs() <= 1e-5 * theirs.abs().max(1.0), "{what}: {ours}, reference {theirs}");
}

#[test]
fn dice_and_iou_are_those_of_monai() {
    for_each_case(|case, prediction, truth, _| {
        assert_close(dice(prediction, truth), case.dice, &case.name);
        assert_close(iou(prediction, truth), case.iou, &case.name);
    });
}

#[test]
fn hausdorff_distances_and_assd_are_those_of_monai() {
    for_each_case(|case, prediction, truth, _| {
        for expected in &case.measures {
            let [row, column] = expected.spacing;
            let distances = surface_distances(prediction, truth, Spacing { row, column });
            let what = |metric| format!("{metric} of '{}' at spacing {row} × {column}", case.name);
            assert_close(distances.hausdorff(), expected.hd, &what("HD"));
            assert_close(distances.hausdorff_percentile(95.0), expected.hd95, &what("HD95"));
            assert_close(distances.assd(), expected.assd, &what("ASSD"));
        }
    });
}

#[test]
fn surface_dice_is_that_of_surface_distance() {
    for_each_case(|case, prediction, truth, tolerances| {
        for expected in &case.measures {
            let [row, column] = expected.spacing;
            for (&tolerance, &theirs) in tolerances.iter().zip(&expected.surface_dice) {
                let ours = surface_dice(prediction, truth, Spacing { row, column }, tolerance);
                let what = format!("'{}' at spacing {row} × {column}, tolerance {tolerance}", case.name);
                assert!((ours - theirs).abs() < 1e-9, "{what}: {ours}, reference {theirs}");
            }
        }
    });
}
