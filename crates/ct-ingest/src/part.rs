//! Grids that are a part of another: masks as programs save them that cut a segmentation down to what is painted, and frames.
//!
//! Invariant: only whole voxels are moved; a mask that doesn't fit to the tolerance stays what it is, for the comparison of
//! geometries to refuse.

use crate::{GeometryTolerance, Grid, IngestError, Volume};
use std::array;

/// Where the voxels of a part lie in the whole, each of them in one of the whole's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The whole's axis that each of the part's axes runs along.
    axes: [usize; 3],
    /// The whole's voxel in which the part's first one lies, as its place in the file.
    first: i64,
    /// What a step along each of the part's axes adds to it.
    steps: [i64; 3],
}

/// The mask on the whole grid of its image, with zeros around it; a mask of the image's own shape, or one that lies elsewhere, as it
/// is.
///
/// # Errors
/// No memory for it.
pub(crate) fn on_whole_grid(
    mut mask: Volume,
    image: Grid<'_>,
    tolerance: GeometryTolerance,
) -> Result<Volume, IngestError> {
    let sorted = |mut shape: [usize; 3]| {
        shape.sort_unstable();
        shape
    };
    if sorted(mask.shape) == sorted(image.shape) {
        return Ok(mask);
    }
    let Some(placement) = Placement::of(mask.grid(), image, tolerance) else { return Ok(mask) };
    let (columns, rows) = (mask.shape[0], mask.shape[1]);
    let mut places = Vec::with_capacity(rows * mask.shape[2]);
    for z in 0..mask.shape[2] {
        places.extend((0..rows).map(|y| ((y + z * rows) * columns, placement.place([0, y, z]) as i64)));
    }
    let count = image.shape.iter().product();
    let Some(voxels) = mask.voxels.spread(&mask.path, count, &places, (columns, placement.steps[0]))? else {
        return Ok(mask);
    };
    (mask.shape, mask.voxels, mask.geometry) = (image.shape, voxels, image.geometry.clone());
    Ok(mask)
}

/// The mask on another grid: each voxel there gets the value of the nearest one here, or 0 where there is none. `None` where the grids have no
/// place in common, or the mask's header makes another number of 0.
///
/// # Errors
/// No memory for it.
pub(crate) fn nearest_on_grid(mut mask: Volume, image: Grid<'_>) -> Result<Option<Volume>, IngestError> {
    let [columns, rows, slices] = image.shape;
    let mut met = false;
    let nearest = |index: [usize; 3]| {
        let at = mask.geometry.to_voxel(image.geometry.to_mm(index.map(|i| i as f64)));
        let inside = (0..3).all(|axis| at[axis] >= -0.5 && at[axis] < mask.shape[axis] as f64 - 0.5);
        let [x, y, z] = at.map(|i| i.round().max(0.0) as usize);
        inside.then(|| x + mask.shape[0] * (y + mask.shape[1] * z))
    };
    let places = (0..slices).flat_map(|z| (0..rows).flat_map(move |y| (0..columns).map(move |x| [x, y, z])));
    let places = places.map(|index| {
        let place = nearest(index);
        met |= place.is_some();
        place
    });
    let Some(voxels) = mask.voxels.picked(&mask.path, columns * rows * slices, places)? else { return Ok(None) };
    if !met {
        return Ok(None);
    }
    (mask.shape, mask.voxels, mask.geometry) = (image.shape, voxels, image.geometry.clone());
    Ok(Some(mask))
}

impl Placement {
    /// Where a part lies: its axes may be others of the whole's and run the other way. `None` where its voxels are not the whole's own
    /// within the tolerance, or lie outside.
    pub fn of(part: Grid<'_>, whole: Grid<'_>, tolerance: GeometryTolerance) -> Option<Self> {
        let tolerance = tolerance.voxels();
        let corner = |index: [f64; 3]| whole.geometry.to_voxel(part.geometry.to_mm(index));
        let origin = corner([0.0; 3]);
        let along: [[f64; 3]; 3] = array::from_fn(|axis| {
            let next = corner(array::from_fn(|other| f64::from(u8::from(other == axis))));
            array::from_fn(|i| next[i] - origin[i])
        });
        let axes: [usize; 3] = array::from_fn(|axis| {
            (0..3).max_by(|&a, &b| along[axis][a].abs().total_cmp(&along[axis][b].abs())).unwrap_or_default()
        });
        let mut seen = axes;
        seen.sort_unstable();
        if seen != [0, 1, 2] {
            return None;
        }
        // Far beyond any grid, and far from what whole numbers can hold.
        if origin.iter().any(|index| index.abs() > 1e9) {
            return None;
        }
        let signs: [i64; 3] = array::from_fn(|axis| if along[axis][axes[axis]] > 0.0 { 1 } else { -1 });
        let first: [i64; 3] = array::from_fn(|i| origin[i].round() as i64);
        // Every corner lies where whole steps lead, and inside.
        let fits = (0..8).all(|number| {
            let index: [usize; 3] = array::from_fn(|axis| (number >> axis & 1) * (part.shape[axis] - 1));
            let found = corner(index.map(|i| i as f64));
            let mut expected = first;
            for axis in 0..3 {
                expected[axes[axis]] += signs[axis] * index[axis] as i64;
            }
            (0..3).all(|i| {
                (found[i] - expected[i] as f64).abs() <= tolerance && (0..whole.shape[i] as i64).contains(&expected[i])
            })
        });
        let strides = [1, whole.shape[0] as i64, (whole.shape[0] * whole.shape[1]) as i64];
        let steps = array::from_fn(|axis| signs[axis] * strides[axes[axis]]);
        let first = (0..3).map(|axis| first[axis] * strides[axis]).sum();
        fits.then_some(Self { axes, first, steps })
    }

    /// The place of one of the part's voxels among the whole's, whose first axis runs fastest.
    pub fn place(&self, index: [usize; 3]) -> usize {
        let steps: i64 = (0..3).map(|axis| self.steps[axis] * index[axis] as i64).sum();
        (self.first + steps) as usize
    }

    /// The whole's axis that each of the part's axes runs along.
    pub fn axes(&self) -> [usize; 3] {
        self.axes
    }
}
