//! One example of how definitions of HD95 differ: ours, and what MONAI and MedPy say of the same four slices
//! (`fixtures/make_hd95.py`). `docs/reference/evaluation.md` has these numbers.

use seg_metrics::{MaskView, Spacing, surface_distances};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Example {
    size: usize,
    monai_mean: f64,
    monai_counted: usize,
    slices: Vec<Slice>,
}

#[derive(Deserialize)]
struct Slice {
    prediction: Vec<usize>,
    truth: Vec<usize>,
    /// Pixels, or null for NaN.
    monai: Option<f64>,
    /// Pixels, or the text of an error.
    medpy: Value,
}

fn example() -> Example {
    serde_json::from_str(include_str!("fixtures/hd95.json")).unwrap()
}

fn ours(example: &Example) -> Vec<f64> {
    let pixels = |runs: &[usize]| -> Vec<u8> {
        runs.iter().enumerate().flat_map(|(i, &length)| std::iter::repeat_n((i % 2) as u8, length)).collect()
    };
    let hd95 = |slice: &Slice| {
        let (prediction, truth) = (pixels(&slice.prediction), pixels(&slice.truth));
        let view = |pixels| MaskView::new(pixels, example.size, example.size).unwrap();
        surface_distances(view(&prediction), view(&truth), Spacing::PIXELS).hausdorff_percentile(95.0)
    };
    example.slices.iter().map(hd95).collect()
}

#[test]
fn each_direction_has_its_percentile_and_empty_masks_count() {
    // Found, a column aside, with a speck; missed; false positive; rightly empty. The speck is 4 of the prediction's 48 edge pixels, 5 rows
    // and columns from the truth's corner and more: rank 0.95 x 47 = 44.65 lies between its two nearest.
    let speck = 50_f64.sqrt() + 0.65 * (61_f64.sqrt() - 50_f64.sqrt());
    let diagonal = 24.0 * 2_f64.sqrt();
    for (ours, expected) in ours(&example()).into_iter().zip([speck, diagonal, diagonal, 0.0]) {
        assert!((ours - expected).abs() < 1e-12, "{ours}, expected {expected}");
    }
}

#[test]
fn monai_has_our_value_where_both_masks_are_there_and_leaves_the_others_out_of_its_mean() {
    let example = example();
    let ours = ours(&example);
    // In 32-bit floats, the rank of the percentile too.
    assert!((example.slices[0].monai.unwrap() - ours[0]).abs() < 1e-5 * ours[0]);
    assert!(example.slices[1..].iter().all(|slice| slice.monai.is_none()));
    assert_eq!((example.monai_mean, example.monai_counted), (example.slices[0].monai.unwrap(), 1));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    // As documented: of all slices, and of those with the target, as `hd95_px` is.
    assert_eq!(format!("{:.2} {:.2}", mean(&ours), mean(&ours[..2])), "18.86 20.75");
}

#[test]
fn medpy_pools_both_directions_and_refuses_empty_masks() {
    let example = example();
    // 4 of 92 distances are the speck's: less than 5 %.
    assert_eq!(example.slices[0].medpy, json!(1.0));
    for slice in &example.slices[1..] {
        assert!(slice.medpy.as_str().unwrap().contains("does not contain any binary object"), "{}", slice.medpy);
    }
}
