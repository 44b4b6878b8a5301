//! Distances between the boundaries of two masks: Hausdorff distance, its percentiles and ASSD as MONAI defines them,
//! surface Dice as DeepMind's surface-distance does.

use crate::distance::Nearest;
use crate::edges::{Grid, Region, contour_lengths};
use crate::{MaskView, Spacing};

/// Distances from each edge pixel of one mask to the nearest edge pixel of the other, both ways, sorted ascending.
#[derive(Clone, Debug)]
pub struct SurfaceDistances {
    from_prediction: Vec<f64>,
    from_truth: Vec<f64>,
}

/// Measures the boundaries of two masks of one size, in the unit of `spacing`.
///
/// Where exactly one mask is empty, all distances are the diagonal of the image in `spacing`; where both are, 0.
pub fn surface_distances(prediction: MaskView<'_>, truth: MaskView<'_>, spacing: Spacing) -> SurfaceDistances {
    prediction.assert_same_size(&truth);
    let Some(region) = Region::around(prediction, truth) else {
        return SurfaceDistances { from_prediction: vec![0.0], from_truth: vec![0.0] };
    };
    let edges = [region.edge_pixels(prediction), region.edge_pixels(truth)];
    let sorted = |from: &Grid, to: &Grid| {
        let mut distances: Vec<f64> = boundary_distances(from, to, spacing).map(|(_, distance)| distance).collect();
        distances.sort_unstable_by(f64::total_cmp);
        distances
    };
    let from_prediction = sorted(&edges[0], &edges[1]);
    let from_truth = sorted(&edges[1], &edges[0]);
    if from_prediction.is_empty() || from_truth.is_empty() {
        let diagonal = spacing.diagonal(truth.height(), truth.width());
        return SurfaceDistances { from_prediction: vec![diagonal], from_truth: vec![diagonal] };
    }
    SurfaceDistances { from_prediction, from_truth }
}

impl SurfaceDistances {
    /// Hausdorff distance: the larger of the two directed maxima.
    pub fn hausdorff(&self) -> f64 {
        self.hausdorff_percentile(100.0)
    }

    /// The larger of the two directed percentiles (`percent` in [0, 100], linear between ranks); 95 gives HD95.
    pub fn hausdorff_percentile(&self, percent: f64) -> f64 {
        percentile(&self.from_prediction, percent).max(percentile(&self.from_truth, percent))
    }

    /// Average symmetric surface distance: the mean of both directions together.
    pub fn assd(&self) -> f64 {
        let sum: f64 = self.from_prediction.iter().chain(&self.from_truth).sum();
        sum / (self.from_prediction.len() + self.from_truth.len()) as f64
    }
}

/// Share of the two contours, by length, that lies within `tolerance` (inclusive, in the unit of `spacing`) of the other
/// contour, in [0, 1]. The contours run through the corners between pixels. Both masks empty: 1; exactly one: 0.
pub fn surface_dice(prediction: MaskView<'_>, truth: MaskView<'_>, spacing: Spacing, tolerance: f64) -> f64 {
    prediction.assert_same_size(&truth);
    let Some(region) = Region::around(prediction, truth) else {
        return 1.0;
    };
    let lengths = contour_lengths(spacing);
    let contours = [region.contour_codes(prediction), region.contour_codes(truth)];
    let (mut within, mut total) = (0.0, 0.0);
    for (from, to) in [(&contours[0], &contours[1]), (&contours[1], &contours[0])] {
        for (code, distance) in boundary_distances(from, to, spacing) {
            let length = lengths[usize::from(code)];
            total += length;
            within += if distance <= tolerance { length } else { 0.0 };
        }
    }
    within / total
}

/// Value and distance to `to` of every marked point of `from`; infinite distances where `to` has none.
fn boundary_distances<'a>(from: &'a Grid, to: &Grid, spacing: Spacing) -> impl Iterator<Item = (u8, f64)> + 'a {
    let nearest = Nearest::new(to, spacing);
    let marked = from.cells.iter().enumerate().filter(|(_, value)| **value != 0);
    marked.map(move |(i, &value)| (value, nearest.distance(i / from.width, i % from.width)))
}

/// Percentile of sorted values, linear between the two nearest ranks as in NumPy and torch.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = percent.clamp(0.0, 100.0) / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}
