//! The rules that no reference implementation has: empty masks, masks at the image border, classes that are missing.
//! Numbers are closed forms or drawn by hand.

use seg_metrics::{
    MaskSizeError, MaskView, Spacing, auc, dice, distance_transform, iou, surface_dice, surface_distances,
};

/// Makes the image of 3 × 4 pixels a triangle of 6, 8 and 10.
const SPACING: Spacing = Spacing { row: 2.0, column: 2.0 };

fn empty() -> MaskView<'static> {
    MaskView::new(&[0; 12], 3, 4).unwrap()
}

fn one_pixel() -> MaskView<'static> {
    MaskView::new(&[0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0], 3, 4).unwrap()
}

#[test]
fn two_empty_masks_agree_fully() {
    let distances = surface_distances(empty(), empty(), SPACING);
    assert_eq!([dice(empty(), empty()), iou(empty(), empty()), surface_dice(empty(), empty(), SPACING, 0.0)], [1.0; 3]);
    assert_eq!([distances.hausdorff(), distances.hausdorff_percentile(95.0), distances.assd()], [0.0; 3]);
}

#[test]
fn one_empty_mask_is_a_diagonal_away() {
    for (prediction, truth) in [(empty(), one_pixel()), (one_pixel(), empty())] {
        let distances = surface_distances(prediction, truth, SPACING);
        assert_eq!([distances.hausdorff(), distances.hausdorff_percentile(95.0), distances.assd()], [10.0; 3]);
        assert_eq!([dice(prediction, truth), iou(prediction, truth)], [0.0; 2]);
        assert_eq!(surface_dice(prediction, truth, SPACING, 100.0), 0.0);
    }
}

#[test]
fn a_mask_of_the_whole_image_has_its_edge_on_the_border() {
    let (whole, middle) = ([1; 25], (0..25).map(|i| u8::from(i == 12)).collect::<Vec<_>>());
    let (whole, middle) = (MaskView::new(&whole, 5, 5).unwrap(), MaskView::new(&middle, 5, 5).unwrap());
    let distances = surface_distances(middle, whole, Spacing::PIXELS);
    assert_eq!(distances.hausdorff(), 8.0_f64.sqrt(), "from the corner to the middle");
    assert_eq!(distances.hausdorff_percentile(0.0), 2.0, "from the middle to the nearest border pixel");
}

#[test]
fn hd95_takes_the_percentile_of_each_direction_by_itself() {
    // Prediction: columns 0 and 100 of one row; truth: column 0. Distances 0 and 100 forth, 0 back.
    let mut prediction = [0; 101];
    (prediction[0], prediction[100]) = (1, 1);
    let mut truth = [0; 101];
    truth[0] = 1;
    let view = |pixels| MaskView::new(pixels, 1, 101).unwrap();
    let distances = surface_distances(view(&prediction), view(&truth), Spacing::PIXELS);
    assert_eq!(distances.hausdorff_percentile(95.0), 95.0);
    assert_eq!(distances.assd(), 100.0 / 3.0);
}

#[test]
fn surface_dice_counts_a_contour_at_exactly_the_tolerance() {
    // Two pixels three columns of 4 mm apart: their inner corners are 8 mm from the other contour, their outer ones 12 mm.
    let (a, b) = ([1, 0, 0, 0], [0, 0, 0, 1]);
    let view = |pixels| MaskView::new(pixels, 1, 4).unwrap();
    let at = |tolerance| surface_dice(view(&a), view(&b), Spacing { row: 3.0, column: 4.0 }, tolerance);
    assert_eq!([at(7.9), at(8.0), at(11.9), at(12.0)], [0.0, 0.5, 0.5, 1.0]);
}

#[test]
fn distances_to_nothing_are_infinite() {
    assert_eq!(distance_transform(empty(), SPACING), [f64::INFINITY; 12]);
    assert_eq!(distance_transform(MaskView::new(&[], 0, 0).unwrap(), SPACING), []);
}

#[test]
fn an_image_without_pixels_is_an_empty_mask() {
    let nothing = MaskView::new(&[], 0, 7).unwrap();
    assert!(nothing.is_empty());
    assert_eq!(surface_distances(nothing, nothing, SPACING).hausdorff(), 0.0);
    assert_eq!(dice(nothing, nothing), 1.0);
}

#[test]
fn mask_with_the_wrong_number_of_pixels_is_refused() {
    let error = MaskView::new(&[0; 11], 3, 4).unwrap_err();
    assert_eq!(error, MaskSizeError { height: 3, width: 4, found: 11 });
    assert_eq!(error.to_string(), "a mask of 3 × 4 pixels was given 11 values, expected 3 · 4");
    assert!(MaskView::new(&[], usize::MAX, 2).is_err(), "the product must not wrap around");
}

#[test]
#[should_panic(expected = "masks of 3 × 4 and 4 × 3 pixels cannot be compared")]
fn masks_of_different_sizes_are_never_compared() {
    dice(empty(), MaskView::new(&[0; 12], 4, 3).unwrap());
}

#[test]
fn auc_needs_both_classes_and_real_scores() {
    assert_eq!(auc(&[], &[]), None);
    assert_eq!(auc(&[0.1, 0.9], &[true, true]), None);
    assert_eq!(auc(&[f64::NAN, 0.9], &[true, false]), None);
    assert_eq!(auc(&[f64::NEG_INFINITY, f64::INFINITY], &[false, true]), Some(1.0));
    assert_eq!(auc(&[0.5, 0.5], &[true, false]), Some(0.5));
    assert_eq!(auc(&[0.0, -0.0], &[true, false]), Some(0.5), "the two zeros are a tie");
}
