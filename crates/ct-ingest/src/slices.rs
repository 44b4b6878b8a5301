//! Volumes to square slices in LPS display order, and masks of such slices back into the volume's own voxels.
//!
//! Display order: rows run to posterior, columns to the patient's left, slice 0 is the most inferior.

use crate::resample::{ImageResizer, resize_mask};
use crate::{Geometry, IngestError, Volume, Voxels};
use fast_image_resize::pixels::F32;
use slice_store::{StoreSettings, WindowAt};

/// The way from a volume to its slices and exactly back: axis order and directions, scale, padding.
#[derive(Clone, Debug, PartialEq)]
pub struct SlicePlan {
    slices: Walk,
    rows: Walk,
    columns: Walk,
    scaled: [usize; 2],
    size: usize,
    positions: Vec<SlicePosition>,
}

/// Where a stored slice lies: the part of its record that the volume's geometry decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlicePosition {
    /// Of the slice's centre along the slices' normal in mm, superior positive.
    pub position_mm: f32,
    /// Distance of the stored slice's rows in mm.
    pub row_spacing_mm: f32,
    /// Distance of the stored slice's columns in mm.
    pub column_spacing_mm: f32,
    /// Distance to the next slice in mm.
    pub slice_spacing_mm: f32,
    /// Whether these millimetres may be trusted.
    pub spacing_valid: bool,
}

/// A display axis as a walk through the volume's flat voxel order.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Walk {
    /// The volume's axis.
    axis: usize,
    /// Steps.
    length: usize,
    /// Where the first step stands, on this axis alone.
    start: usize,
    /// What a step adds.
    stride: isize,
}

/// Cuts a CT volume into slices of `settings.slice_size` squared: HU, clipped to the stored range (and to the window, where
/// the settings say so), then resized with the longer side filling the slice and padded with air at the right and bottom.
/// Voxels that are not a number count as air.
///
/// Gives `[slices, size, size]` HU and the plan that led there.
pub fn image_slices(volume: &Volume, settings: &StoreSettings) -> (Vec<i16>, SlicePlan) {
    let plan = SlicePlan::new(&volume.geometry, volume.shape, settings.slice_size);
    let [low, high] = hu_range(settings);
    let (native, scaled, size) = (plan.native_size(), plan.scaled, plan.size);
    let mut images = vec![low.round() as i16; plan.slices.length * size * size];
    let mut resizer = ImageResizer::new();
    for (slice, image) in images.chunks_exact_mut(size * size).enumerate() {
        // Where a voxel is NaN, max() gives its other operand: air.
        let hu = |index: usize| F32::new(volume.voxels.get(index).max(low).min(high));
        let plane: Vec<F32> = plan.plane(slice).map(hu).collect();
        let plane = if native == scaled { plane } else { resizer.resize(&plane, native, scaled) };
        for (to, from) in image.chunks_exact_mut(size).zip(plane.chunks_exact(scaled[1])) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = from.0.round() as i16;
            }
        }
    }
    (images, plan)
}

/// Cuts a mask along the plan of its image: 1 where a voxel has one of the `target` labels, resized by area (see
/// `SlicePlan::restore_mask` for the way back), `[slices, size, size]`.
///
/// # Errors
/// A voxel that is not one of the `known` labels, or a mask whose shape is not the plan's (compare geometries first).
pub fn mask_slices(mask: &Volume, plan: &SlicePlan, known: &[i32], target: &[i32]) -> Result<Vec<u8>, IngestError> {
    let labels = Labels { mask, known, target };
    let binary = labels.binary()?;
    if mask.shape != plan.shape() {
        let (found, expected) = (format!("a shape of {:?}", mask.shape), "its image's shape");
        return Err(IngestError::Unsupported { path: mask.path.clone(), found, expected });
    }
    let size = plan.size;
    let mut masks = vec![0; plan.slices.length * size * size];
    for (slice, stored) in masks.chunks_exact_mut(size * size).enumerate() {
        let plane: Vec<u8> = plan.plane(slice).map(|index| binary[index]).collect();
        let plane = resize_mask(&plane, plan.native_size(), plan.scaled);
        for (to, from) in stored.chunks_exact_mut(size).zip(plane.chunks_exact(plan.scaled[1])) {
            to[..from.len()].copy_from_slice(from);
        }
    }
    Ok(masks)
}

impl SlicePlan {
    /// The plan for a volume of that geometry and shape.
    pub fn new(geometry: &Geometry, shape: [usize; 3], size: usize) -> Self {
        let strides = [1, shape[0], shape[0] * shape[1]];
        // Superior, posterior and left in world coordinates, where right, anterior and superior are positive.
        let walk = |world: usize, wanted: f64| {
            let runs = |axis: &usize| geometry.orientation.0[*axis].world().0 == world;
            let axis = (0..3).find(runs).expect("an orientation has every direction");
            let (length, stride) = (shape[axis], strides[axis]);
            if geometry.orientation.0[axis].world().1 == wanted {
                Walk { axis, length, start: 0, stride: stride as isize }
            } else {
                Walk { axis, length, start: (length - 1) * stride, stride: -(stride as isize) }
            }
        };
        let (slices, rows, columns) = (walk(2, 1.0), walk(1, -1.0), walk(0, -1.0));
        let longest = rows.length.max(columns.length);
        let scale = |length: usize| ((length * size + longest / 2) / longest).max(1);
        let scaled = [scale(rows.length), scale(columns.length)];
        let mut plan = Self { slices, rows, columns, scaled, size, positions: Vec::new() };
        plan.positions = plan.positions_in(geometry, shape);
        plan
    }

    /// Where each slice lies, from inferior to superior.
    pub fn positions(&self) -> &[SlicePosition] {
        &self.positions
    }

    /// Rows and columns of a slice in the volume's own voxels.
    pub fn native_size(&self) -> [usize; 2] {
        [self.rows.length, self.columns.length]
    }

    /// Rows and columns that a stored slice uses; the rest, at the bottom and at the right, is padding.
    pub fn scaled_size(&self) -> [usize; 2] {
        self.scaled
    }

    /// The volume's shape.
    pub fn shape(&self) -> [usize; 3] {
        let mut shape = [0; 3];
        for walk in [self.slices, self.rows, self.columns] {
            shape[walk.axis] = walk.length;
        }
        shape
    }

    /// Takes masks of the stored slices (`[slices, size, size]`, anything but 0 is the target) back to the volume's own
    /// shape and voxel order, as zeros and ones: the padding falls away, and a voxel is 1 if more than half of its area
    /// is. Exact where a slice is stored at its own size. Panics if `slices` has another length.
    pub fn restore_mask(&self, slices: &[u8]) -> Vec<u8> {
        let pixels = self.size * self.size;
        assert_eq!(slices.len(), self.slices.length * pixels, "masks of {} slices", self.slices.length);
        let mut restored = vec![0; self.shape().iter().product()];
        for (slice, stored) in slices.chunks_exact(pixels).enumerate() {
            let used = stored.chunks_exact(self.size).take(self.scaled[0]).flat_map(|row| &row[..self.scaled[1]]);
            let plane: Vec<u8> = used.map(|&value| u8::from(value != 0)).collect();
            let plane = resize_mask(&plane, self.scaled, self.native_size());
            for (index, value) in self.plane(slice).zip(plane) {
                restored[index] = value;
            }
        }
        restored
    }

    /// The voxels of a slice, row by row, as places in the volume's flat voxel order.
    fn plane(&self, slice: usize) -> impl Iterator<Item = usize> + use<> {
        let (rows, columns, start) = (self.rows, self.columns, self.slices.at(slice));
        (0..rows.length).flat_map(move |row| (0..columns.length).map(move |c| start + rows.at(row) + columns.at(c)))
    }

    fn positions_in(&self, geometry: &Geometry, shape: [usize; 3]) -> Vec<SlicePosition> {
        let centre = |slice: usize| {
            let mut voxel = shape.map(|length| (length as f64 - 1.0) / 2.0);
            let flipped = self.slices.stride < 0;
            voxel[self.slices.axis] = if flipped { self.slices.length - 1 - slice } else { slice } as f64;
            geometry.to_mm(voxel)
        };
        let normal = self.normal(geometry);
        let column = |axis: usize| std::array::from_fn(|world| geometry.affine[world][axis]);
        let along = |walk: Walk, scaled: usize| geometry.spacing_mm[walk.axis] * walk.length as f64 / scaled as f64;
        let position = |slice: usize| SlicePosition {
            position_mm: dot(centre(slice), normal) as f32,
            row_spacing_mm: along(self.rows, self.scaled[0]) as f32,
            column_spacing_mm: along(self.columns, self.scaled[1]) as f32,
            slice_spacing_mm: dot(column(self.slices.axis), normal).abs() as f32,
            spacing_valid: geometry.spacing_valid,
        };
        (0..self.slices.length).map(position).collect()
    }

    /// The slices' unit normal, to superior: under a tilted gantry it is not the slice axis.
    fn normal(&self, geometry: &Geometry) -> [f64; 3] {
        let column = |walk: Walk| -> [f64; 3] { std::array::from_fn(|world| geometry.affine[world][walk.axis]) };
        let (r, c) = (column(self.rows), column(self.columns));
        let cross = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
        let towards_superior = dot(cross, column(self.slices)) * self.slices.stride as f64;
        let length = dot(cross, cross).sqrt() * towards_superior.signum();
        cross.map(|component| component / length)
    }
}

impl Walk {
    fn at(self, step: usize) -> usize {
        self.start.wrapping_add_signed(self.stride * step as isize)
    }
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// The HU that a store may hold.
fn hu_range(settings: &StoreSettings) -> [f32; 2] {
    let [low, high] = settings.stored_hu.map(f32::from);
    match settings.window_at {
        WindowAt::Load => [low, high],
        WindowAt::Prepare => [settings.window.low().clamp(low, high), settings.window.high().clamp(low, high)],
    }
}

/// A mask file's labels.
struct Labels<'a> {
    mask: &'a Volume,
    known: &'a [i32],
    target: &'a [i32],
}

impl Labels<'_> {
    /// 1 where the target is, in the file's voxel order.
    fn binary(&self) -> Result<Vec<u8>, IngestError> {
        match &self.mask.voxels {
            Voxels::I16(values) => values.iter().map(|&value| self.is_target(f32::from(value))).collect(),
            Voxels::F32(values) => values.iter().map(|&value| self.is_target(value)).collect(),
        }
    }

    /// Labels are whole numbers, whatever type they are stored as.
    fn is_target(&self, value: f32) -> Result<u8, IngestError> {
        let label = value.round();
        // Scaling by the header may leave a rounding error.
        if (value - label).abs() < 1e-3 && self.known.contains(&(label as i32)) {
            return Ok(u8::from(self.target.contains(&(label as i32))));
        }
        let expected = format!(
            "expected one of the manifest's labels {:?}; correct `labels` in the manifest, or the mask",
            self.known
        );
        Err(IngestError::MaskValue { path: self.mask.path.clone(), value: f64::from(value), expected })
    }
}
