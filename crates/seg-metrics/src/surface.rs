//! Distances between the boundaries of two masks, by two definitions: between edge voxels, each counted once, as MONAI
//! has them, and between corners of voxels, each weighed by the surface that runs through it, as DeepMind's
//! surface-distance does.

use crate::boundary::{Boundary, Field, Region, is_empty};
use crate::distance::distances;
use crate::surfel::areas;
use crate::{MaskView, Spacing, VolumeView};

/// Distances from each edge pixel or voxel of one mask to the nearest of the other, both ways, sorted ascending: MONAI's.
#[derive(Clone, Debug)]
pub struct SurfaceDistances {
    /// Infinite where exactly one mask is empty.
    both_ways: [Vec<f64>; 2],
    /// Of the image: takes the place of infinity.
    diagonal: f64,
}

/// Distances from each surface element of one mask to the nearest of the other, both ways, sorted ascending, with the
/// element's area: those of surface-distance. An element is the surface that runs through a corner between voxels.
#[derive(Clone, Debug)]
pub struct SurfelDistances {
    /// (distance, area); infinite distances where exactly one mask is empty.
    both_ways: [Vec<(f64, f64)>; 2],
    /// Of the volume: takes the place of infinity.
    diagonal: f64,
}

/// Measures between the edge pixels of two masks of one size, in the unit of `spacing`.
///
/// Where exactly one mask is empty, all distances are the diagonal of the image in `spacing`; where both are, 0.
pub fn surface_distances(prediction: MaskView<'_>, truth: MaskView<'_>, spacing: Spacing) -> SurfaceDistances {
    prediction.assert_same_size(&truth);
    SurfaceDistances::between(prediction.field(spacing), truth.field(spacing))
}

/// Measures between the edge voxels of two volumes on one grid, in mm: MONAI's definition.
///
/// Where exactly one mask is empty, all distances are the diagonal of the volume in mm; where both are, 0.
pub fn volume_surface_distances(prediction: VolumeView<'_>, truth: VolumeView<'_>) -> SurfaceDistances {
    prediction.assert_same_grid(&truth);
    SurfaceDistances::between(prediction.field(), truth.field())
}

/// Measures between the surface elements of two volumes on one grid, in mm: surface-distance's definition.
///
/// Where exactly one mask is empty, all distances are the diagonal of the volume in mm; where both are, 0.
pub fn volume_surfel_distances(prediction: VolumeView<'_>, truth: VolumeView<'_>) -> SurfelDistances {
    prediction.assert_same_grid(&truth);
    SurfelDistances::between(prediction.field(), truth.field())
}

/// Share of the two contours, by length, that lies within `tolerance` (inclusive, in the unit of `spacing`) of the other
/// contour, in [0, 1]: [`SurfelDistances::surface_dice`] of two images, whose contours run through the corners between
/// pixels. Both masks empty: 1; exactly one: 0.
pub fn surface_dice(prediction: MaskView<'_>, truth: MaskView<'_>, spacing: Spacing, tolerance: f64) -> f64 {
    prediction.assert_same_size(&truth);
    SurfelDistances::between(prediction.field(spacing), truth.field(spacing)).surface_dice(tolerance)
}

impl SurfaceDistances {
    fn between(prediction: Field<'_>, truth: Field<'_>) -> Self {
        let both_ways = both_ways(prediction, truth, Boundary::Edges).map(|points| {
            let mut distances: Vec<f64> = points.into_iter().map(|(_, distance)| distance).collect();
            distances.sort_unstable_by(f64::total_cmp);
            distances
        });
        Self { both_ways, diagonal: truth.diagonal() }
    }

    /// Hausdorff distance: the larger of the two directed maxima.
    pub fn hausdorff(&self) -> f64 {
        self.hausdorff_percentile(100.0)
    }

    /// The larger of the two directed percentiles (`percent` in [0, 100], linear between ranks as in NumPy and torch); 95
    /// gives HD95.
    pub fn hausdorff_percentile(&self, percent: f64) -> f64 {
        let percentile = |sorted: &Vec<f64>| {
            let rank = percent.clamp(0.0, 100.0) / 100.0 * (sorted.len() - 1) as f64;
            let [below, above] = [rank.floor(), rank.ceil()].map(|rank| sorted[rank as usize].min(self.diagonal));
            below + (above - below) * rank.fract()
        };
        larger(self.both_ways.each_ref().map(percentile))
    }

    /// Average symmetric surface distance: the mean of both directions together.
    pub fn assd(&self) -> f64 {
        let all = || self.both_ways.iter().flatten();
        (all().sum::<f64>() / all().count() as f64).min(self.diagonal)
    }

    /// Share of all edge pixels or voxels that lie within `tolerance` (inclusive, ≥ 0) of the other mask's, in [0, 1]:
    /// `compute_surface_dice` of MONAI without `use_subvoxels`. Both masks empty: 1; exactly one: 0.
    pub fn surface_dice(&self, tolerance: f64) -> f64 {
        let all = || self.both_ways.iter().flatten();
        all().filter(|distance| **distance <= tolerance.max(0.0)).count() as f64 / all().count() as f64
    }
}

impl SurfelDistances {
    fn between(prediction: Field<'_>, truth: Field<'_>) -> Self {
        let areas = areas(truth.spacing);
        let both_ways = both_ways(prediction, truth, Boundary::Corners).map(|points| {
            let weighed = points.into_iter().map(|(code, distance)| (distance, areas[usize::from(code)]));
            let mut weighed: Vec<(f64, f64)> = weighed.collect();
            weighed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            weighed
        });
        Self { both_ways, diagonal: truth.diagonal() }
    }

    /// Hausdorff distance: the larger of the two directed maxima.
    pub fn hausdorff(&self) -> f64 {
        self.hausdorff_percentile(100.0)
    }

    /// The larger of the two directed percentiles (`percent` in [0, 100]), each the distance at which that share of the
    /// area is reached, without interpolation: `compute_robust_hausdorff`.
    pub fn hausdorff_percentile(&self, percent: f64) -> f64 {
        let percentile = |sorted: &Vec<(f64, f64)>| {
            let total = sorted.iter().map(|(_, area)| area).sum::<f64>();
            let mut reached = 0.0;
            let at = sorted.iter().find(|(_, area)| {
                reached += area;
                reached / total >= percent / 100.0
            });
            at.or(sorted.last()).map_or(0.0, |(distance, _)| distance.min(self.diagonal))
        };
        larger(self.both_ways.each_ref().map(percentile))
    }

    /// Mean distance by area from the prediction's surface to the truth's, and back: `compute_average_surface_distance`,
    /// which gives them the other way round.
    pub fn averages(&self) -> [f64; 2] {
        self.both_ways.each_ref().map(|points| {
            let total: f64 = points.iter().map(|(_, area)| area).sum();
            (points.iter().map(|(distance, area)| distance * area).sum::<f64>() / total).min(self.diagonal)
        })
    }

    /// Average symmetric surface distance: the mean of [`SurfelDistances::averages`].
    pub fn assd(&self) -> f64 {
        self.averages().iter().sum::<f64>() / 2.0
    }

    /// Share of the two surfaces, by area, that lies within `tolerance` (inclusive, ≥ 0) of the other, in [0, 1]:
    /// `compute_surface_dice_at_tolerance`, the NSD of the challenges. Both masks empty: 1; exactly one: 0.
    pub fn surface_dice(&self, tolerance: f64) -> f64 {
        let (mut within, mut total) = (0.0, 0.0);
        for (distance, area) in self.both_ways.iter().flatten() {
            total += area;
            within += if *distance <= tolerance.max(0.0) { *area } else { 0.0 };
        }
        within / total
    }
}

/// Value and distance to the other boundary of every point on the prediction's and on the truth's. A single point stands
/// for what can't be measured: at 0 where both masks are empty, infinitely far where one is.
fn both_ways(prediction: Field<'_>, truth: Field<'_>, boundary: Boundary) -> [Vec<(u8, f64)>; 2] {
    let Some(region) = Region::around(prediction, truth) else {
        return [vec![(1, 0.0)], vec![(1, 0.0)]];
    };
    if is_empty(prediction.cells) || is_empty(truth.cells) {
        return [vec![(1, f64::INFINITY)], vec![(1, f64::INFINITY)]];
    }
    [(prediction, truth), (truth, prediction)].map(|(from, to)| distances(region, boundary, from, to))
}

fn larger([a, b]: [f64; 2]) -> f64 {
    a.max(b)
}
