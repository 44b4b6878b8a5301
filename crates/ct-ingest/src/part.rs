//! Masks that lie on a part of their image's grid, as programs save them that cut a segmentation down to what is painted.
//!
//! Invariant: only whole voxels are moved; a mask that doesn't fit to the tolerance stays what it is, for the comparison of
//! geometries to refuse.

use crate::{GeometryTolerance, Grid, IngestError, Volume};
use std::array;

/// Where the voxels of a part lie in the whole.
struct Placement {
    /// The whole's axis that each of the part's axes runs along.
    axes: [usize; 3],
    /// Whether it runs the same way.
    forward: [bool; 3],
    /// The whole's voxel in which the part's first one lies.
    first: [i64; 3],
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
    let Some(placement) = placement(mask.grid(), image, tolerance.voxels()) else { return Ok(mask) };
    let strides = |shape: [usize; 3]| [1, shape[0], shape[0] * shape[1]];
    let (from, to) = (strides(mask.shape), strides(image.shape));
    let step: [i64; 3] = array::from_fn(|axis| {
        let stride = to[placement.axes[axis]] as i64;
        if placement.forward[axis] { stride } else { -stride }
    });
    let first: i64 = (0..3).map(|axis| placement.first[axis] * to[axis] as i64).sum();
    let mut places = Vec::with_capacity(mask.shape[1] * mask.shape[2]);
    for z in 0..mask.shape[2] {
        for y in 0..mask.shape[1] {
            let line = first + y as i64 * step[1] + z as i64 * step[2];
            places.push((y * from[1] + z * from[2], line));
        }
    }
    let count = image.shape.iter().product();
    let Some(voxels) = mask.voxels.spread(&mask.path, count, &places, (mask.shape[0], step[0]))? else {
        return Ok(mask);
    };
    (mask.shape, mask.voxels, mask.geometry) = (image.shape, voxels, image.geometry.clone());
    Ok(mask)
}

/// `None` where the part's voxels are not the whole's own.
fn placement(part: Grid<'_>, whole: Grid<'_>, tolerance: f64) -> Option<Placement> {
    let corner = |index: [f64; 3]| whole.geometry.to_voxel(part.geometry.to_mm(index));
    let origin = corner([0.0; 3]);
    let steps: [[f64; 3]; 3] = array::from_fn(|axis| {
        let along = corner(array::from_fn(|other| f64::from(u8::from(other == axis))));
        array::from_fn(|i| along[i] - origin[i])
    });
    let axes: [usize; 3] = array::from_fn(|axis| {
        (0..3).max_by(|&a, &b| steps[axis][a].abs().total_cmp(&steps[axis][b].abs())).unwrap_or_default()
    });
    let mut seen = axes;
    seen.sort_unstable();
    if seen != [0, 1, 2] {
        return None;
    }
    let forward: [bool; 3] = array::from_fn(|axis| steps[axis][axes[axis]] > 0.0);
    let first: [i64; 3] = array::from_fn(|i| origin[i].round() as i64);
    // Every corner lies where whole steps lead, and inside.
    let fits = (0..8).all(|number| {
        let index: [usize; 3] = array::from_fn(|axis| (number >> axis & 1) * (part.shape[axis] - 1));
        let found = corner(index.map(|i| i as f64));
        let mut expected = first;
        for axis in 0..3 {
            expected[axes[axis]] += if forward[axis] { index[axis] as i64 } else { -(index[axis] as i64) };
        }
        (0..3).all(|i| {
            (found[i] - expected[i] as f64).abs() <= tolerance && (0..whole.shape[i] as i64).contains(&expected[i])
        })
    });
    fits.then_some(Placement { axes, forward, first })
}
