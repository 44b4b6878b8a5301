//! The fast paths against definitions written out point by point, on random masks and spacings.

use proptest::prelude::*;
use seg_metrics::{
    MaskView, Overlap, Spacing, auc, dice, distance_transform, iou, surface_dice, surface_distances, volume_dice,
};

type Points = Vec<(f64, f64)>;

#[derive(Clone, Debug)]
struct Pair {
    height: usize,
    width: usize,
    prediction: Vec<u8>,
    truth: Vec<u8>,
    spacing: Spacing,
}

impl Pair {
    fn views(&self) -> (MaskView<'_>, MaskView<'_>) {
        let view = |pixels| MaskView::new(pixels, self.height, self.width).unwrap();
        (view(&self.prediction), view(&self.truth))
    }
}

/// Sparse, dense and empty masks; foreground values other than 1 too.
fn mask(pixels: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(0.0), 0.01..0.99].prop_flat_map(move |share| {
        let pixel = (proptest::bool::weighted(share), 1..=u8::MAX).prop_map(|(on, value)| u8::from(on) * value);
        proptest::collection::vec(pixel, pixels)
    })
}

fn pair() -> impl Strategy<Value = Pair> {
    (1_usize..14, 1_usize..14, 0.2..4.0, 0.2..4.0).prop_flat_map(|(height, width, row, column)| {
        (mask(height * width), mask(height * width)).prop_map(move |(prediction, truth)| {
            let spacing = Spacing { row, column };
            Pair { height, width, prediction, truth, spacing }
        })
    })
}

fn at(mask: MaskView<'_>, y: isize, x: isize) -> bool {
    let inside = (0..mask.height() as isize).contains(&y) && (0..mask.width() as isize).contains(&x);
    inside && mask.pixels()[y as usize * mask.width() + x as usize] != 0
}

fn edge_points(mask: MaskView<'_>, spacing: Spacing) -> Points {
    let mut points = Vec::new();
    for y in 0..mask.height() as isize {
        for x in 0..mask.width() as isize {
            let surrounded = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)].iter().all(|&(y, x)| at(mask, y, x));
            if at(mask, y, x) && !surrounded {
                points.push((y as f64 * spacing.row, x as f64 * spacing.column));
            }
        }
    }
    points
}

/// Corners between pixels with the length of contour that each stands for: half a side for each of the four sides that
/// meet there and separate foreground from background, but the diagonal where the contour turns.
fn contour_points(mask: MaskView<'_>, spacing: Spacing) -> Vec<((f64, f64), f64)> {
    let mut points = Vec::new();
    let half_diagonal = spacing.row.hypot(spacing.column) / 2.0;
    for y in 0..=mask.height() as isize {
        for x in 0..=mask.width() as isize {
            let [a, b, c, d] = [(y - 1, x - 1), (y - 1, x), (y, x - 1), (y, x)].map(|(y, x)| at(mask, y, x));
            let (up, down, left, right) = (a != b, c != d, a != c, b != d);
            let length = match [up, down, left, right].iter().filter(|side| **side).count() {
                0 => continue,
                2 if up && down => spacing.row,
                2 if left && right => spacing.column,
                2 => half_diagonal,
                _ => 2.0 * half_diagonal,
            };
            points.push(((y as f64 * spacing.row, x as f64 * spacing.column), length));
        }
    }
    points
}

fn nearest(from: (f64, f64), to: &Points) -> f64 {
    to.iter().map(|to| (from.0 - to.0).hypot(from.1 - to.1)).fold(f64::INFINITY, f64::min)
}

fn directed(from: &Points, to: &Points) -> Vec<f64> {
    let mut distances: Vec<f64> = from.iter().map(|&point| nearest(point, to)).collect();
    distances.sort_by(f64::total_cmp);
    distances
}

#[track_caller]
fn assert_close(ours: f64, expected: f64) {
    assert!((ours - expected).abs() < 1e-9, "{ours}, expected {expected}");
}

proptest! {
    #[test]
    fn surface_distances_are_those_between_all_pairs_of_edge_pixels(pair in pair()) {
        let (prediction, truth) = pair.views();
        let (p, t) = (edge_points(prediction, pair.spacing), edge_points(truth, pair.spacing));
        let distances = surface_distances(prediction, truth, pair.spacing);
        if p.is_empty() || t.is_empty() {
            let (height, width) = (pair.height as f64 * pair.spacing.row, pair.width as f64 * pair.spacing.column);
            let expected = if p.is_empty() && t.is_empty() { 0.0 } else { height.hypot(width) };
            for distance in [distances.hausdorff(), distances.hausdorff_percentile(95.0), distances.assd()] {
                assert_close(distance, expected);
            }
        } else {
            let (forth, back) = (directed(&p, &t), directed(&t, &p));
            let quantile = |sorted: &[f64]| {
                let rank = 0.95 * (sorted.len() - 1) as f64;
                let (low, high) = (sorted[rank as usize], sorted[(rank as usize + 1).min(sorted.len() - 1)]);
                low * (1.0 - rank.fract()) + high * rank.fract()
            };
            assert_close(distances.hausdorff(), forth[forth.len() - 1].max(back[back.len() - 1]));
            assert_close(distances.hausdorff_percentile(95.0), quantile(&forth).max(quantile(&back)));
            let sum: f64 = forth.iter().chain(&back).sum();
            assert_close(distances.assd(), sum / (forth.len() + back.len()) as f64);
        }
    }

    #[test]
    fn surface_dice_is_the_share_of_contour_within_tolerance(pair in pair(), tolerance in 0.0..6.0) {
        let (prediction, truth) = pair.views();
        let (p, t) = (contour_points(prediction, pair.spacing), contour_points(truth, pair.spacing));
        let (mut within, mut total) = (0.0, 0.0);
        for (from, to) in [(&p, &t), (&t, &p)] {
            let to: Points = to.iter().map(|(point, _)| *point).collect();
            for &(point, length) in from {
                total += length;
                within += if nearest(point, &to) <= tolerance { length } else { 0.0 };
            }
        }
        let expected = if total == 0.0 { 1.0 } else { within / total };
        assert_close(surface_dice(prediction, truth, pair.spacing, tolerance), expected);
    }

    #[test]
    fn distance_transform_is_the_distance_to_the_nearest_foreground_pixel(pair in pair()) {
        let (mask, _) = pair.views();
        let position = |i: usize| {
            ((i / pair.width) as f64 * pair.spacing.row, (i % pair.width) as f64 * pair.spacing.column)
        };
        let foreground: Points =
            (0..pair.prediction.len()).filter(|&i| pair.prediction[i] != 0).map(position).collect();
        for (i, distance) in distance_transform(mask, pair.spacing).into_iter().enumerate() {
            let expected = nearest(position(i), &foreground);
            prop_assert!(distance == expected || (distance - expected).abs() < 1e-9, "{distance}, expected {expected}");
        }
    }

    #[test]
    fn all_measures_are_symmetric_and_within_their_range(pair in pair(), tolerance in 0.0..6.0) {
        let (a, b) = pair.views();
        let measures = |a, b| {
            let distances = surface_distances(a, b, pair.spacing);
            let overlaps = [dice(a, b), iou(a, b), surface_dice(a, b, pair.spacing, tolerance)];
            (overlaps, [distances.assd(), distances.hausdorff_percentile(95.0), distances.hausdorff()])
        };
        let (overlaps, distances) = measures(a, b);
        let (overlaps_back, distances_back) = measures(b, a);
        for (forth, back) in overlaps.into_iter().chain(distances).zip(overlaps_back.into_iter().chain(distances_back)) {
            assert_close(forth, back);
        }
        prop_assert!(overlaps.iter().all(|share| (0.0..=1.0).contains(share)), "{overlaps:?}");
        let [assd, hd95, hd] = distances;
        let diagonal = pair.spacing.diagonal(pair.height, pair.width);
        prop_assert!(assd <= hd + 1e-9 && hd95 <= hd && (0.0..=diagonal).contains(&hd), "{distances:?}, {diagonal}");
    }

    #[test]
    fn volume_dice_is_the_dice_of_all_slices_laid_side_by_side(pair in pair(), cut in 0_usize..14) {
        let (prediction, truth) = pair.views();
        let cut = cut.min(pair.height);
        let parts = [(0, cut), (cut, pair.height)].map(|(top, bottom)| {
            let part = |mask: MaskView<'_>| mask.pixels()[top * pair.width..bottom * pair.width].to_vec();
            (part(prediction), part(truth), bottom - top)
        });
        let views = parts.iter().map(|(prediction, truth, height)| {
            let view = |pixels| MaskView::new(pixels, *height, pair.width).unwrap();
            (view(prediction), view(truth))
        });
        prop_assert_eq!(volume_dice(views.clone()), dice(prediction, truth));
        prop_assert_eq!(views.map(|(p, t)| Overlap::of(p, t)).sum::<Overlap>(), Overlap::of(prediction, truth));
    }

    #[test]
    fn auc_is_the_share_of_pairs_in_the_right_order(cases in proptest::collection::vec((0_u8..6, any::<bool>()), 0..40)) {
        let scores: Vec<f64> = cases.iter().map(|(score, _)| f64::from(*score)).collect();
        let labels: Vec<bool> = cases.iter().map(|(_, label)| *label).collect();
        let of = |wanted: bool| cases.iter().filter(move |(_, label)| *label == wanted).map(|(score, _)| *score);
        let (mut right, mut pairs) = (0.0, 0.0);
        for positive in of(true) {
            for negative in of(false) {
                pairs += 1.0;
                right += match positive.cmp(&negative) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        let expected = (pairs > 0.0).then(|| right / pairs);
        let area = auc(&scores, &labels);
        prop_assert_eq!(area.is_some(), expected.is_some());
        assert_close(area.unwrap_or_default(), expected.unwrap_or_default());
    }
}
