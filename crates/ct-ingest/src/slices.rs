//! Volumes to square slices in LPS display order, and masks of such slices back into the volume's own voxels.
//!
//! Display order: rows run to posterior, columns to the patient's left, slice 0 is the most inferior.

use crate::coverage::Painted;
use crate::resample::{ImageResizer, resize_mask};
use crate::volume::{PlaneWalk, Scaling};
use crate::{Geometry, IngestError, Volume};
use fast_image_resize::pixels::F32;
use slice_store::{IGNORED, MaskResize, Scale, StoreSettings, WindowAt};
use std::path::Path;

/// The way from a volume to its slices and exactly back: axis order and directions, scale, padding.
#[derive(Clone, Debug, PartialEq)]
pub struct SlicePlan {
    slices: Walk,
    rows: Walk,
    columns: Walk,
    scaled: [usize; 2],
    size: usize,
    mask_resize: MaskResize,
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

/// A slice in its file may have this many pixels, 8192 × 8192, which takes 256 MiB for each of the three planes that are worked
/// on; CT has 512 × 512 to 2048 × 2048.
const MOST_PIXELS: usize = 1 << 26;

/// Slices may take this much memory, whatever they come from.
const LARGEST_UNASKED: usize = 1 << 30;

/// Beyond it, they may take 8 GiB, as a volume may, if their sides become no more than so many times longer. (4096 slices at
/// 1024 × 1024 take that, and 64 pixels a side become 1024.)
const LARGEST_GROWTH: usize = 16;
const MOST_BYTES: usize = 8 << 30;

/// Cuts a CT volume into slices of `settings.slice_size` squared: HU, clipped to the stored range (and to the window, where
/// the settings say so), then resized with the longer side filling the slice and padded with air at the right and bottom.
/// Voxels that are not a number count as air.
///
/// Gives `[slices, size, size]` HU and the plan that led there.
///
/// # Errors
/// Values that can't be a CT's (see [`crate::Intensity`]), a slice larger than a store that doesn't scale, or sizes that are no
/// CT's: slices of more than 2^26 pixels, more than 8 GiB of them, or more than 1 GiB where sides become 16 times longer.
pub fn image_slices(volume: &Volume, settings: &StoreSettings) -> Result<(Vec<i16>, SlicePlan), IngestError> {
    let plan = SlicePlan::for_volume(volume, settings)?;
    let [low, high] = hu_range(settings);
    let (native, scaled, size) = (plan.native_size(), plan.scaled, plan.size);
    check_growth(volume, &plan)?;
    let mut images = vec![low.round() as i16; plan.slices.length * size * size];
    let mut resizer = ImageResizer::new();
    let mut values = vec![0.0; native[0] * native[1]];
    let mut plane = vec![F32::new(0.0); values.len()];
    let mut found = [f32::INFINITY, f32::NEG_INFINITY];
    for (slice, image) in images.chunks_exact_mut(size * size).enumerate() {
        volume.voxels.plane(plan.walk(slice), &mut values);
        widen(&mut found, &values);
        for (to, value) in plane.iter_mut().zip(&values) {
            // max() gives its other operand where one is NaN: it becomes air.
            *to = F32::new(value.max(low).min(high));
        }
        let resized = if native == scaled { None } else { Some(resizer.resize(&plane, native, scaled)) };
        let lines = resized.as_ref().unwrap_or(&plane).chunks_exact(scaled[1]);
        for (to, from) in image.chunks_exact_mut(size).zip(lines) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = nearest_integer(from.0);
            }
        }
    }
    volume.intensity.check_values(volume, found)?;
    Ok((images, plan))
}

/// Refuses slices that would take far more memory than any CT's, as 30,000 slices of a pixel would, and slices in files that no
/// scanner makes.
fn check_growth(volume: &Volume, plan: &SlicePlan) -> Result<(), IngestError> {
    too_large(plan.native_size(), plan.slices.length, plan.size).map_or(Ok(()), |found| {
        let expected = "slices of a CT: is the orientation right?";
        Err(IngestError::Unsupported { path: volume.path.clone(), found, expected })
    })
}

/// What is too large about slices of so many rows and columns that become squares of `size`.
fn too_large([rows, columns]: [usize; 2], slices: usize, size: usize) -> Option<String> {
    if rows.saturating_mul(columns) > MOST_PIXELS {
        return Some(format!("slices of {rows} x {columns} pixels"));
    }
    let bytes = slices.saturating_mul(2 * size * size);
    let grown = size > LARGEST_GROWTH * rows.max(columns);
    let too_large = bytes > MOST_BYTES || (bytes > LARGEST_UNASKED && grown);
    too_large.then(|| format!("{slices} slices that would become {} MB of {size} x {size} pixels", bytes >> 20))
}

/// Widens a range by values; NaN widens nothing. Lanes side by side, because one minimum after the other would wait for the
/// one before: this was a quarter of all the time of a preparation.
fn widen(range: &mut [f32; 2], values: &[f32]) {
    const LANES: usize = 32;
    let (mut least, mut most) = ([range[0]; LANES], [range[1]; LANES]);
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            let value = block[lane];
            least[lane] = if value < least[lane] { value } else { least[lane] };
            most[lane] = if value > most[lane] { value } else { most[lane] };
        }
    }
    let least = least.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
    let most = most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    *range = [least, most];
}

/// Rounds half away from zero, as `f32::round` does; that is a function call where the processor's instruction is not assumed.
fn nearest_integer(value: f32) -> i16 {
    (value + 0.5_f32.copysign(value)) as i16
}

/// Cuts masks along the plan of their image: 1 where a voxel has one of the `target` labels in any of the `masks`, resized
/// as the settings say (see [`SlicePlan::restore_mask`] for the way back), `[slices, size, size]`.
///
/// The `plan` is the image's. A mask's axes may run otherwise in its file: each is read along its own.
///
/// # Errors
/// A voxel that is not one of the `known` labels, or a mask whose shape is not the plan's (compare geometries first). Where the
/// header scales whole numbers, as it does for labels that were floats when they were saved, a value counts as the label that is
/// within half a step of it: saving rounded it by as much.
pub fn mask_slices(masks: &[Volume], plan: &SlicePlan, known: &[i32], target: &[i32]) -> Result<Vec<u8>, IngestError> {
    let labels = MaskLabels { known: known.to_vec(), target: target.to_vec(), ignored: None };
    painted_slices(masks, plan, &labels).map(|(slices, _)| slices)
}

/// What the values of a mask mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaskLabels {
    /// All that it may have.
    pub known: Vec<i32>,
    /// The target's.
    pub target: Vec<i32>,
    /// That of voxels of which nobody knows what they are.
    pub ignored: Option<i32>,
}

/// The same, with what is painted in each slice.
pub(crate) fn painted_slices(
    masks: &[Volume],
    plan: &SlicePlan,
    labels: &MaskLabels,
) -> Result<(Vec<u8>, Vec<Painted>), IngestError> {
    let mut own_plans = Vec::with_capacity(masks.len());
    for mask in masks {
        let own = SlicePlan::new(&mask.geometry, mask.shape, plan.size);
        if (own.native_size(), own.slices.length) != (plan.native_size(), plan.slices.length) {
            let (found, expected) = (format!("a shape of {:?}", mask.shape), "its image's shape");
            return Err(IngestError::Unsupported { path: mask.path.clone(), found, expected });
        }
        own_plans.push(own);
    }
    let labels = Labels::new(labels);
    let size = plan.size;
    let native = plan.native_size();
    let mut slices = vec![0; plan.slices.length * size * size];
    let mut reader = LabelReader { labels: &labels, bytes: vec![0; native[0] * native[1]], values: Vec::new() };
    let mut plane = vec![0; native[0] * native[1]];
    let mut painted = vec![Painted::default(); plan.slices.length];
    for (slice, stored) in slices.chunks_exact_mut(size * size).enumerate() {
        plane.fill(0);
        for (mask, own) in masks.iter().zip(&own_plans) {
            let found = reader.add(mask, own.walk(slice), &mut plane)?;
            painted[slice].any |= found.any;
            painted[slice].target |= found.target;
            painted[slice].ignored |= found.ignored;
        }
        if painted[slice].target || painted[slice].ignored {
            plan.store_plane(&plane, painted[slice].ignored, stored);
        }
    }
    Ok((slices, painted))
}

impl SlicePlan {
    /// The plan for a volume.
    ///
    /// # Errors
    /// A slice larger than a store that doesn't scale.
    pub fn for_volume(volume: &Volume, settings: &StoreSettings) -> Result<Self, IngestError> {
        Self::for_grid(&volume.path, &volume.geometry, volume.shape, settings)
    }

    /// The plan for a volume of that geometry and shape.
    pub(crate) fn for_grid(
        path: &Path,
        geometry: &Geometry,
        shape: [usize; 3],
        settings: &StoreSettings,
    ) -> Result<Self, IngestError> {
        let mut plan = Self::new(geometry, shape, settings.slice_size);
        plan.mask_resize = settings.mask_resize;
        if settings.scale == Scale::Native {
            plan.scaled = plan.native_size();
            if plan.scaled.iter().any(|&length| length > settings.slice_size) {
                return Err(IngestError::SliceTooLarge {
                    path: path.to_path_buf(),
                    slice: plan.scaled,
                    size: settings.slice_size,
                });
            }
            plan.positions = plan.positions_in(geometry);
        }
        Ok(plan)
    }

    /// The plan for a volume of that geometry and shape, whose longer side fills a slice.
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
        let mask_resize = MaskResize::default();
        let mut plan = Self { slices, rows, columns, scaled, size, mask_resize, positions: Vec::new() };
        plan.positions = plan.positions_in(geometry);
        plan
    }

    /// Where each slice lies, from inferior to superior.
    pub fn positions(&self) -> &[SlicePosition] {
        &self.positions
    }

    /// The number of each slice in the volume's file, in the file's own order, counted from 0.
    pub fn numbers(&self) -> Vec<usize> {
        let (length, flipped) = (self.slices.length, self.slices.stride < 0);
        (0..length).map(|slice| if flipped { length - 1 - slice } else { slice }).collect()
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

    /// Cuts a mask of the volume's own voxels, where anything but 0 is the target, into the stored slices, resized as the settings say:
    /// `[slices, size, size]`, and by slice whether anything is painted in it. [`Self::restore_mask`] is the way back. Panics if the
    /// mask has another number of voxels.
    pub(crate) fn cut_mask(&self, mask: &[u8]) -> (Vec<u8>, Vec<bool>) {
        assert_eq!(mask.len(), self.shape().iter().product::<usize>(), "a mask of {:?} voxels", self.shape());
        let mut slices = vec![0; self.slices.length * self.size * self.size];
        let mut painted = Vec::with_capacity(self.slices.length);
        for (slice, stored) in slices.chunks_exact_mut(self.size * self.size).enumerate() {
            let plane: Vec<u8> = self.plane(slice).map(|index| u8::from(mask[index] != 0)).collect();
            painted.push(plane.contains(&1));
            if painted[slice] {
                self.store_plane(&plane, false, stored);
            }
        }
        (slices, painted)
    }

    /// Resizes a slice's mask, of [`TARGET`] and [`IGNORE`], into the stored one.
    fn store_plane(&self, plane: &[u8], has_ignored: bool, stored: &mut [u8]) {
        let resized = |plane: &[u8]| resize_mask(plane, self.native_size(), self.scaled, self.mask_resize);
        let plane = if has_ignored {
            let of = |is: fn(u8) -> bool| resized(&plane.iter().map(|&bits| u8::from(is(bits))).collect::<Vec<u8>>());
            // Ignored is what could be the target if the ignored voxels were.
            let (target, either) = (of(|bits| bits == TARGET), of(|bits| bits != 0));
            let pixel = |(target, either)| if target != 0 || either == 0 { target } else { IGNORED };
            target.into_iter().zip(either).map(pixel).collect()
        } else {
            resized(plane)
        };
        for (to, from) in stored.chunks_exact_mut(self.size).zip(plane.chunks_exact(self.scaled[1])) {
            to[..from.len()].copy_from_slice(from);
        }
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
            let plane = resize_mask(&plane, self.scaled, self.native_size(), MaskResize::Area);
            for (index, value) in self.plane(slice).zip(plane) {
                restored[index] = value;
            }
        }
        restored
    }

    /// Takes levels of the stored slices (`[slices, size, size]`, of 0 to 255) back likewise: each voxel gets the mean of its area.
    /// Panics if `slices` has another length.
    pub fn restore_levels(&self, slices: &[u8]) -> Vec<u8> {
        let pixels = self.size * self.size;
        assert_eq!(slices.len(), self.slices.length * pixels, "levels of {} slices", self.slices.length);
        let mut restored = vec![0; self.shape().iter().product()];
        let mut resizer = ImageResizer::new();
        for (slice, stored) in slices.chunks_exact(pixels).enumerate() {
            let used = stored.chunks_exact(self.size).take(self.scaled[0]).flat_map(|row| &row[..self.scaled[1]]);
            let plane: Vec<F32> = used.map(|&value| F32::new(f32::from(value))).collect();
            let plane = resizer.resize(&plane, self.scaled, self.native_size());
            for (index, value) in self.plane(slice).zip(plane) {
                restored[index] = value.0.round() as u8;
            }
        }
        restored
    }

    /// The voxels of a slice, row by row, as places in the volume's flat voxel order.
    pub fn plane(&self, slice: usize) -> impl Iterator<Item = usize> + use<> {
        let (rows, columns, start) = (self.rows, self.columns, self.slices.at(slice));
        (0..rows.length).flat_map(move |row| (0..columns.length).map(move |c| start + rows.at(row) + columns.at(c)))
    }

    /// The same as a walk that a reader of voxels follows.
    fn walk(&self, slice: usize) -> PlaneWalk {
        PlaneWalk {
            start: self.slices.at(slice) + self.rows.start + self.columns.start,
            rows: (self.rows.length, self.rows.stride),
            columns: (self.columns.length, self.columns.stride),
        }
    }

    /// The middle of a stored slice in mm.
    pub(crate) fn centre(&self, geometry: &Geometry, slice: usize) -> [f64; 3] {
        let mut voxel = self.shape().map(|length| (length as f64 - 1.0) / 2.0);
        let flipped = self.slices.stride < 0;
        voxel[self.slices.axis] = if flipped { self.slices.length - 1 - slice } else { slice } as f64;
        geometry.to_mm(voxel)
    }

    fn positions_in(&self, geometry: &Geometry) -> Vec<SlicePosition> {
        let normal = self.normal(geometry);
        let column = |axis: usize| std::array::from_fn(|world| geometry.affine[world][axis]);
        let along = |walk: Walk, scaled: usize| geometry.spacing_mm[walk.axis] * walk.length as f64 / scaled as f64;
        let position = |slice: usize| SlicePosition {
            position_mm: dot(self.centre(geometry, slice), normal) as f32,
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

/// The same, for a quick look.
struct Labels<'a> {
    labels: &'a MaskLabels,
    /// For each byte: 0, [`TARGET`] or [`IGNORE`], or [`UNKNOWN`].
    of_byte: [u8; 256],
}

/// The target, in a plane of bits.
const TARGET: u8 = 1;

/// A value that is no label.
const UNKNOWN: u8 = 2;

/// A voxel of which nobody knows what it is. Where one mask says so and another shows the target, it is ignored.
const IGNORE: u8 = 4;

impl<'a> Labels<'a> {
    fn new(labels: &'a MaskLabels) -> Self {
        let quick = Self { labels, of_byte: [0; 256] };
        Self { labels, of_byte: std::array::from_fn(|byte| quick.of(byte as i32)) }
    }

    fn of(&self, label: i32) -> u8 {
        match label {
            label if self.labels.ignored == Some(label) => IGNORE,
            label if self.labels.target.contains(&label) => TARGET,
            label if self.labels.known.contains(&label) => 0,
            _ => UNKNOWN,
        }
    }

    /// Labels are whole numbers, whatever type they are stored as, and may be `rounded` by so much.
    fn of_value(&self, value: f32, rounded: f32) -> u8 {
        let label = value.round();
        if (value - label).abs() < rounded { self.of(label as i32) } else { UNKNOWN }
    }
}

/// How far from its label a mask's value may be.
fn label_rounding(mask: &Volume) -> f32 {
    // What arithmetic with 32 bits leaves.
    let rounding = 1e-3;
    match mask.voxels.quantised() {
        // Saving floats as whole numbers with a slope rounds by half a slope; steps of 1 or more can't tell labels apart.
        Some(Scaling { slope, .. }) if slope.abs() < 1.0 => rounding + 0.5 * slope.abs() as f32,
        _ => rounding,
    }
}

/// Reads the target of one plane after the other.
struct LabelReader<'a> {
    labels: &'a Labels<'a>,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl LabelReader<'_> {
    /// Sets `plane` to 1 where the mask has the target; gives what it has anywhere.
    fn add(&mut self, mask: &Volume, walk: PlaneWalk, plane: &mut [u8]) -> Result<Painted, IngestError> {
        if !mask.voxels.byte_plane(walk, &mut self.bytes) {
            self.values.resize(plane.len(), 0.0);
            mask.voxels.plane(walk, &mut self.values);
            for (to, &value) in self.bytes.iter_mut().zip(&self.values) {
                // Small whole numbers, which masks have, are looked up like bytes; anything else goes the long way.
                let byte = value as u8;
                *to = if f32::from(byte) == value { byte } else { 255 };
            }
            let odd = |value: &&f32| f32::from(**value as u8) != **value || **value == 255.0;
            if self.values.iter().any(|value| odd(&value)) {
                return self.add_odd(mask, plane);
            }
        }
        // Most planes of most masks are empty.
        let any = self.bytes.iter().fold(0, |any, &byte| any | byte) != 0;
        if self.labels.of_byte[0] == 0 && !any {
            return Ok(Painted::default());
        }
        let mut found = 0;
        for (to, &byte) in plane.iter_mut().zip(&self.bytes) {
            let label = self.labels.of_byte[usize::from(byte)];
            found |= label;
            *to |= label;
        }
        if found & UNKNOWN != 0 {
            let wrong = self.bytes.iter().find(|&&byte| self.labels.of_byte[usize::from(byte)] == UNKNOWN);
            return Err(self.unknown(mask, f32::from(wrong.copied().unwrap_or_default())));
        }
        Ok(Painted { any, target: found & TARGET != 0, ignored: found & IGNORE != 0 })
    }

    /// Values that are not all bytes.
    fn add_odd(&self, mask: &Volume, plane: &mut [u8]) -> Result<Painted, IngestError> {
        let mut found = Painted::default();
        let rounded = label_rounding(mask);
        for (to, &value) in plane.iter_mut().zip(&self.values) {
            match self.labels.of_value(value, rounded) {
                UNKNOWN => return Err(self.unknown(mask, value)),
                label => {
                    *to |= label;
                    found.any |= value.round() != 0.0;
                    found.target |= label == TARGET;
                    found.ignored |= label == IGNORE;
                }
            }
        }
        Ok(found)
    }

    fn unknown(&self, mask: &Volume, value: f32) -> IngestError {
        let cause = mask.voxels.quantised().map_or(String::new(), |Scaling { slope, inter }| {
            format!(
                " (its header makes {slope} x + {inter} of the whole numbers x that it holds: floats were saved in a header of \
                 whole numbers; save the labels as unsigned bytes)"
            )
        });
        let expected = format!(
            "expected one of the manifest's labels {:?}; correct `labels` in the manifest, or the mask{cause}",
            self.labels.labels.known
        );
        IngestError::MaskValue { path: mask.path.clone(), value: f64::from(value), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_may_grow_as_those_of_real_scans_do_and_no_further() {
        // 1.1 GiB of slices of a small volume; a whole body at the same size; a cut-out of 64 pixels.
        for (native, slices, size) in [([243, 243], 560, 1024), ([512, 512], 4096, 1024), ([64, 40], 600, 1024)] {
            assert_eq!(too_large(native, slices, size), None);
        }
        assert!(too_large([512, 512], 4097, 1024).is_some_and(|found| found.contains("become 8194 MB of 1024 x 1024")));
        assert!(too_large([1, 1], 30_000, 256).is_some_and(|found| found.contains("30000 slices")));
        assert!(too_large([63, 63], 600, 1024).is_some());
        assert_eq!(too_large([8192, 8192], 1, 256), None);
        assert!(too_large([8193, 8192], 1, 256).is_some_and(|found| found == "slices of 8193 x 8192 pixels"));
        assert!(too_large([usize::MAX, 2], usize::MAX, 1024).is_some());
    }
}
