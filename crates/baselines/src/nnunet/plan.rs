//! The 2-D plan by the rules of nnU-Net 2.8.1 (`default_experiment_planner.py`, `network_topology.py`): from sizes and spacings to
//! patch, stages, channels and batch. Numbers alone; no tensors.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Channels of the first stage.
const FIRST_FEATURES: i64 = 32;
const MOST_FEATURES: i64 = 512;
/// Background and target.
const CLASSES: f64 = 2.0;
const CONVOLUTIONS_PER_STAGE: f64 = 2.0;
/// No side of a map is halved to less.
const SMALLEST_SIDE: f64 = 4.0;
/// Values in all maps of a patch that 8 GB are reckoned for with [`REFERENCE_BATCH`].
const REFERENCE_VALUES: f64 = 85e6;
const REFERENCE_BATCH: f64 = 12.0;
const SMALLEST_BATCH: f64 = 2.0;
/// Of the data set's voxels, in one batch.
const LARGEST_SHARE: f64 = 0.05;
/// An axis whose spacing is more times coarser than the others' is resampled to one of the finer spacings instead.
const ANISOTROPY: f64 = 3.0;

/// A training case, as the fingerprint has it: cropped to what isn't 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Voxels along slices, rows, columns.
    pub shape: [usize; 3],
    /// Millimetres along the same; 999 along slices that are cases by themselves.
    pub spacing: [f64; 3],
}

/// What a plan is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The training cases.
    pub cases: Vec<Case>,
}

/// A 2-D configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The volume's axes in the order of the plan: along the first, which has the coarsest spacing, lie the slices.
    pub axes: [usize; 3],
    /// Millimetres of a slice's rows and columns, to which volumes are resampled.
    pub spacing: [f64; 2],
    /// Median rows and columns of the resampled slices.
    pub median_shape: [f64; 2],
    /// Rows and columns that the network sees at once.
    pub patch: [i64; 2],
    /// Patches in an update.
    pub batch: i64,
    /// Channels of each stage, from full resolution downwards.
    pub features: Vec<i64>,
    /// For each stage, by how much it makes rows and columns fewer.
    pub strides: Vec<[i64; 2]>,
    /// For each stage, rows and columns of its kernels.
    pub kernels: Vec<[i64; 2]>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum PlanError {
    /// The fingerprint has no cases.
    #[error("no plan can be made of no cases: state at least one")]
    Empty,
    /// A case has a side of 0, or a spacing that is no length.
    #[error(
        "case {number} of the fingerprint has {:?} voxels of {:?} mm, expected at least one voxel and a finite spacing above 0 \
         along each axis: correct it, or leave it out",
        case.shape,
        case.spacing
    )]
    Case {
        /// Its place in the fingerprint.
        number: usize,
        /// The case.
        case: Case,
    },
    /// Rows and columns are too unlike each other for a patch, or have too few pixels to be halved once.
    #[error(
        "slices of {shape:?} pixels of {spacing:?} mm can't be planned for: expected sides that can be halved once to \
         {SMALLEST_SIDE} pixels or more, and pixels less uneven"
    )]
    Slices {
        /// Median rows and columns.
        shape: [f64; 2],
        /// Their spacing in millimetres.
        spacing: [f64; 2],
    },
}

impl Plan {
    /// The plan for one channel and two classes, with 8 GB of memory in mind, as the reference has it by default.
    ///
    /// # Errors
    /// If the cases have no sizes, or their slices none that a network can be planned for.
    pub fn new(fingerprint: &Fingerprint) -> Result<Self, PlanError> {
        let cases = &fingerprint.cases;
        if cases.is_empty() {
            return Err(PlanError::Empty);
        }
        let is_sound =
            |case: &Case| case.shape.iter().all(|&n| n > 0) && case.spacing.iter().all(|&s| s.is_finite() && s > 0.0);
        if let Some(number) = cases.iter().position(|case| !is_sound(case)) {
            return Err(PlanError::Case { number, case: cases[number] });
        }
        let spacing = target_spacing(cases);
        let slices_along = first_largest(&spacing);
        let mut axes = [slices_along, 0, 0];
        for (place, axis) in axes[1..].iter_mut().zip((0..3).filter(|&axis| axis != slices_along)) {
            *place = axis;
        }
        let resampled =
            |case: &Case, axis: usize| (case.spacing[axis] / spacing[axis] * case.shape[axis] as f64).round_ties_even();
        let shape = axes.map(|axis| median(cases.iter().map(|case| resampled(case, axis)).collect()));
        let voxels = shape.iter().product::<f64>() * cases.len() as f64;
        let [_, rows, columns] = axes;
        Self::of_slices(axes, [spacing[rows], spacing[columns]], [shape[1], shape[2]], voxels)
    }

    fn of_slices(axes: [usize; 3], spacing: [f64; 2], shape: [f64; 2], voxels: f64) -> Result<Self, PlanError> {
        let unfit = PlanError::Slices { shape, spacing };
        let per_mm = spacing.map(|s| 1.0 / s);
        let scale = (2048.0 * 2048.0 / (per_mm[0] * per_mm[1])).sqrt();
        let start = [0, 1].map(|i| (per_mm[i] * scale).round_ties_even().min(shape[i]));
        if start.iter().any(|side| !(side.is_finite() && *side >= 1.0)) {
            return Err(unfit);
        }
        let mut topology = Topology::new(spacing, start);
        while topology.values() / REFERENCE_BATCH * 2.0 > REFERENCE_VALUES {
            // The axis whose patch is largest beside the slice gives way, the later of two that are alike.
            let shares = [topology.patch[0] / shape[0], topology.patch[1] / shape[1]];
            let axis = usize::from(shares[1] >= shares[0]);
            // By as little as the smaller patch's own halvings allow, which may be fewer than the larger one's.
            let mut smaller = topology.patch;
            smaller[axis] -= topology.multiples[axis];
            let step = Topology::new(spacing, smaller).multiples[axis];
            let mut patch = topology.patch;
            patch[axis] -= step;
            topology = Topology::new(spacing, patch);
        }
        if topology.strides.len() < 2 {
            return Err(unfit);
        }
        let by_memory = (REFERENCE_VALUES / topology.values() * REFERENCE_BATCH).round_ties_even();
        let by_share = (voxels * LARGEST_SHARE / (topology.patch[0] * topology.patch[1])).round_ties_even();
        Ok(Self {
            axes,
            spacing,
            median_shape: shape,
            patch: topology.patch.map(|side| side as i64),
            batch: by_memory.min(by_share).max(SMALLEST_BATCH) as i64,
            features: (0..topology.strides.len()).map(features).collect(),
            strides: topology.strides,
            kernels: topology.kernels,
        })
    }
}

/// A network's stages for slices of a spacing and a wished patch.
struct Topology {
    /// The wish, rounded up to what can be halved so often.
    patch: [f64; 2],
    multiples: [f64; 2],
    strides: Vec<[i64; 2]>,
    kernels: Vec<[i64; 2]>,
}

impl Topology {
    fn new(mut spacing: [f64; 2], wish: [f64; 2]) -> Self {
        let mut size = wish;
        let mut multiples = [1.0; 2];
        let mut kernel = [1, 1];
        let (mut strides, mut kernels) = (vec![[1, 1]], Vec::new());
        loop {
            let finest = |axes: [bool; 2]| {
                spacing.iter().zip(axes).filter(|(_, used)| *used).map(|(s, _)| *s).fold(f64::INFINITY, f64::min)
            };
            let large = size.map(|side| side >= 2.0 * SMALLEST_SIDE);
            let limit = finest(large);
            let halved = [0, 1].map(|i| large[i] && spacing[i] / limit < 2.0);
            match halved {
                [false, false] => break,
                [true, false] if size[0] < 3.0 * SMALLEST_SIDE => break,
                [false, true] if size[1] < 3.0 * SMALLEST_SIDE => break,
                _ => {}
            }
            let limit = finest([true, true]);
            for (side, s) in kernel.iter_mut().zip(spacing) {
                if s / limit < 2.0 {
                    *side = 3;
                }
            }
            for axis in (0..2).filter(|&axis| halved[axis]) {
                multiples[axis] *= 2.0;
                spacing[axis] *= 2.0;
                size[axis] = (size[axis] / 2.0).ceil();
            }
            strides.push(halved.map(|halved| if halved { 2 } else { 1 }));
            kernels.push(kernel);
        }
        kernels.push([3, 3]);
        let patch = [0, 1].map(|i| (wish[i] / multiples[i]).ceil() * multiples[i]);
        Self { patch, multiples, strides, kernels }
    }

    /// Values in all maps that convolutions give for a patch: the measure of memory.
    fn values(&self) -> f64 {
        let mut size = self.patch;
        let lowest = self.strides.len() - 1;
        let mut values = 0.0;
        for (number, stride) in self.strides.iter().enumerate() {
            size = [0, 1].map(|i| (size[i] / stride[i] as f64).floor());
            let pixels = size[0] * size[1];
            let map = features(number) as f64 * pixels;
            values += CONVOLUTIONS_PER_STAGE * map;
            if number < lowest {
                // The decoder's, and what its transposed convolution gives.
                values += (CONVOLUTIONS_PER_STAGE + 1.0) * map;
            }
            if number == 0 && lowest > 0 {
                values += CLASSES * pixels;
            }
        }
        values
    }
}

fn features(stage: usize) -> i64 {
    (0..stage).fold(FIRST_FEATURES, |features, _| (2 * features).min(MOST_FEATURES))
}

/// Median spacing along each axis, finer where one axis is much coarser than the others and has far fewer voxels.
fn target_spacing(cases: &[Case]) -> [f64; 3] {
    let spacings = |axis: usize| cases.iter().map(|case| case.spacing[axis]).collect::<Vec<_>>();
    let mut target = [0, 1, 2].map(|axis| percentile(spacings(axis), 0.5));
    let size = [0, 1, 2].map(|axis| percentile(cases.iter().map(|case| case.shape[axis] as f64).collect(), 0.5));
    let coarsest = first_largest(&target);
    let others = || (0..3).filter(|&axis| axis != coarsest);
    let coarsest_other = others().map(|axis| target[axis]).fold(0.0, f64::max);
    let smallest_other = others().map(|axis| size[axis]).fold(f64::INFINITY, f64::min);
    let is_coarse = target[coarsest] > ANISOTROPY * coarsest_other;
    let has_few_voxels = size[coarsest] * ANISOTROPY < smallest_other;
    if is_coarse && has_few_voxels {
        let fine = percentile(spacings(coarsest), 0.1);
        target[coarsest] = if fine < coarsest_other { coarsest_other + 1e-5 } else { fine };
    }
    target
}

fn first_largest(values: &[f64; 3]) -> usize {
    (1..3).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Between the two nearest of the values, as NumPy interpolates, to the last bit.
fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = share * (values.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let (a, b) = (values[below], values[(below + 1).min(values.len() - 1)]);
    if part < 0.5 { a + (b - a) * part } else { b - (b - a) * (1.0 - part) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    if values.len() % 2 == 1 { low } else { f64::midpoint(low, high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(shape: [usize; 3], spacing: [f64; 3]) -> Result<Plan, PlanError> {
        Plan::new(&Fingerprint { cases: vec![Case { shape, spacing }; 3] })
    }

    #[test]
    fn what_no_network_can_be_planned_for_is_said() {
        let said = |plan: Result<Plan, PlanError>| plan.unwrap_err().to_string();
        assert!(said(Plan::new(&Fingerprint { cases: vec![] })).contains("no cases"));
        let nan = said(planned([1, 64, 64], [999.0, f64::NAN, 1.0]));
        assert!(nan.starts_with("case 0 of the fingerprint has [1, 64, 64] voxels of [999.0, NaN, 1.0] mm"), "{nan}");
        assert!(said(planned([1, 0, 64], [999.0, 1.0, 1.0])).contains("at least one voxel"));
        assert!(said(planned([1, 7, 7], [999.0, 1.0, 1.0])).contains("slices of [7.0, 7.0] pixels"));
        assert!(said(planned([1, 64, 64], [999.0, 1e-9, 1.0])).contains("pixels less uneven"));
    }

    #[test]
    fn sizes_without_end_still_end() {
        for shape in [[1, usize::MAX, 1], [1, usize::MAX, usize::MAX], [1, 8, usize::MAX]] {
            if let Ok(plan) = planned(shape, [999.0, 1.0, 1.0]) {
                assert!(plan.patch.iter().all(|&side| side >= 1), "{plan:?}");
            }
        }
    }
}
