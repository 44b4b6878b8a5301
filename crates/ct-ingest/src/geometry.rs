//! Where a volume lies in the patient, and whether two volumes lie in the same place.

use crate::orientation::cofactors;
use crate::{IngestError, Orientation};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Rows and columns of a slice may be this far from a right angle, in degrees.
const LARGEST_SHEAR_DEGREES: f64 = 0.5;

/// The slice axis may be this far from the slices' normal, in degrees: gantries tilt by 30 at most.
const LARGEST_TILT_DEGREES: f64 = 35.0;

/// Which part of the header the affine came from, in the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffineKind {
    /// The `sform` rows.
    Sform,
    /// The `qform` quaternion.
    Qform,
    /// None is set: voxel sizes only; the orientation is a convention (NIfTI: LAS, as nibabel assumes; NRRD and MetaImage:
    /// LPS, as ITK assumes).
    VoxelSizes,
    /// The positions and directions of DICOM slices.
    Dicom,
    /// The directions and the origin of an NRRD or MetaImage header.
    Directions,
    /// The manifest states the orientation.
    Stated,
}

/// Where a volume lies: NIfTI world coordinates, right, anterior and superior positive, in mm.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Voxel index to mm; the last row is 0 0 0 1.
    pub affine: [[f64; 4]; 4],
    /// Distance of neighbouring voxels along each voxel axis in mm.
    pub spacing_mm: [f64; 3],
    /// The closest of the 48 orientations.
    pub orientation: Orientation,
    /// Where the affine came from.
    pub affine_kind: AffineKind,
    /// Whether millimetres may be trusted: false where the affine is the identity (signs apart), which means that
    /// whoever wrote the file had no geometry, as in LiTS volumes 28 to 47.
    pub spacing_valid: bool,
}

impl Geometry {
    /// The geometry that an affine means: voxel index to right, anterior, superior in mm.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn of_affine(affine: [[f64; 4]; 4], affine_kind: AffineKind) -> Result<Self, String> {
        let spacing_mm = std::array::from_fn(|voxel| column_norm(&affine, voxel));
        let finite = affine.iter().flatten().all(|value| value.is_finite());
        let sensible = spacing_mm.iter().all(|mm: &f64| (1e-4..1e4).contains(mm));
        let orientation = Orientation::of_affine(&affine).filter(|_| finite && sensible);
        let Some(orientation) = orientation else { return Err("which flattens space".to_owned()) };
        let spacing_valid = !is_identity(&affine, affine_kind);
        let geometry = Self { affine, spacing_mm, orientation, affine_kind, spacing_valid };
        let [shear, tilt] = geometry.shear_degrees();
        if shear > LARGEST_SHEAR_DEGREES {
            let rest = format!("expected a right angle within {LARGEST_SHEAR_DEGREES} degrees");
            return Err(format!("whose rows and columns are {:.2} degrees apart, {rest}", 90.0 - shear));
        }
        if tilt > LARGEST_TILT_DEGREES {
            let rest = format!("expected at most {LARGEST_TILT_DEGREES}, a gantry's tilt");
            return Err(format!("whose slice axis is {tilt:.1} degrees from the slices' normal, {rest}"));
        }
        Ok(geometry)
    }

    /// How far, in degrees, rows and columns of the slices are from a right angle, and the slice axis from their normal.
    pub fn shear_degrees(&self) -> [f64; 2] {
        let unit = |world: usize| {
            let axis = (0..3).find(|&axis| self.orientation.0[axis].world().0 == world).unwrap_or_default();
            [0, 1, 2].map(|row| self.affine[row][axis] / self.spacing_mm[axis])
        };
        let (slice, row, column) = (unit(2), unit(1), unit(0));
        let dot = |a: [f64; 3], b: [f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
        let normal = [
            row[1] * column[2] - row[2] * column[1],
            row[2] * column[0] - row[0] * column[2],
            row[0] * column[1] - row[1] * column[0],
        ];
        // The arc tangent keeps its precision where the angle is small.
        let along = dot(slice, normal).abs();
        let across = (dot(slice, slice) * dot(normal, normal) - along * along).max(0.0).sqrt();
        [dot(row, column).abs().asin().to_degrees(), across.atan2(along).to_degrees()]
    }

    /// The largest distance of a corner of the volume from where the affine `other` puts it, in voxels along the axis that it
    /// differs most on. An axis of one voxel counts as two, so that its spacing counts too.
    pub(crate) fn largest_distance_voxels(&self, other: &[[f64; 4]; 4], shape: [usize; 3]) -> f64 {
        let (cofactors, determinant) = self.cofactors();
        let corner = |corner: usize| {
            let last = |axis: usize| (shape[axis] - 1).max(1) as f64;
            let index = std::array::from_fn(|axis| if corner >> axis & 1 == 1 { last(axis) } else { 0.0 });
            let (here, there) = (position(&self.affine, index), position(other, index));
            // The inverse of the affine takes millimetres to voxels.
            (0..3).map(move |axis| {
                let along: f64 = (0..3).map(|row| cofactors[row][axis] * (there[row] - here[row])).sum();
                let apart = (along / determinant).abs();
                // What is not a number is nowhere.
                if apart.is_nan() { f64::INFINITY } else { apart }
            })
        };
        (0..8).flat_map(corner).fold(0.0, f64::max)
    }

    /// The same voxels with another orientation, as a manifest states it: the spacing is kept, the origin is lost.
    #[must_use]
    pub fn with_orientation(&self, orientation: Orientation) -> Self {
        Self {
            affine: orientation.affine(self.spacing_mm),
            orientation,
            affine_kind: AffineKind::Stated,
            ..self.clone()
        }
    }

    /// The cofactors and the determinant of the affine's steps.
    fn cofactors(&self) -> ([[f64; 3]; 3], f64) {
        let steps: [[f64; 3]; 3] = std::array::from_fn(|row| std::array::from_fn(|axis| self.affine[row][axis]));
        let cofactors = cofactors(&steps);
        (cofactors, (0..3).map(|axis| steps[0][axis] * cofactors[0][axis]).sum())
    }

    /// The volume of a voxel in mm³; `None` where millimetres are not to be trusted.
    pub fn voxel_mm3(&self) -> Option<f64> {
        self.spacing_valid.then(|| self.cofactors().1.abs())
    }

    /// The voxel at a position in mm, as fractions of indices.
    pub fn to_voxel(&self, mm: [f64; 3]) -> [f64; 3] {
        let (cofactors, determinant) = self.cofactors();
        std::array::from_fn(|axis| {
            let along: f64 = (0..3).map(|row| cofactors[row][axis] * (mm[row] - self.affine[row][3])).sum();
            along / determinant
        })
    }

    /// The position of a voxel in mm; indices may be fractions.
    pub fn to_mm(&self, voxel: [f64; 3]) -> [f64; 3] {
        position(&self.affine, voxel)
    }
}

fn position(affine: &[[f64; 4]; 4], voxel: [f64; 3]) -> [f64; 3] {
    let row = |r: &[f64; 4]| r[0] * voxel[0] + r[1] * voxel[1] + r[2] * voxel[2] + r[3];
    [row(&affine[0]), row(&affine[1]), row(&affine[2])]
}

impl AffineKind {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Sform, Self::Qform, Self::VoxelSizes, Self::Dicom, Self::Directions, Self::Stated];

    /// The header's own word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sform => "sform",
            Self::Qform => "qform",
            Self::VoxelSizes => "voxel sizes",
            Self::Dicom => "DICOM slice positions",
            Self::Directions => "directions",
            Self::Stated => "stated",
        }
    }
}

/// A file's name, shape and geometry: all that is compared before two volumes meet.
#[derive(Clone, Copy, Debug)]
pub struct Grid<'a> {
    /// The file, for the message.
    pub path: &'a Path,
    /// Voxels along each axis.
    pub shape: [usize; 3],
    /// Where they are.
    pub geometry: &'a Geometry,
}

/// How far apart two places may be that count as one: voxels at the corner of the grid where they differ most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct GeometryTolerance(f64);

impl GeometryTolerance {
    /// Beyond half a voxel, a voxel of the one is another voxel of the other.
    pub const MOST_VOXELS: f64 = 0.5;

    /// In voxels: above 0, [`Self::MOST_VOXELS`] at most.
    pub fn voxels(self) -> f64 {
        self.0
    }
}

impl Default for GeometryTolerance {
    /// A twentieth of a voxel: programs that write the same place with few digits differ by less.
    fn default() -> Self {
        Self(0.05)
    }
}

impl TryFrom<f64> for GeometryTolerance {
    type Error = String;

    fn try_from(voxels: f64) -> Result<Self, String> {
        if voxels > 0.0 && voxels <= Self::MOST_VOXELS {
            Ok(Self(voxels))
        } else {
            let most = Self::MOST_VOXELS;
            Err(format!("`geometry_tolerance` is {voxels}, expected voxels: above 0, at most {most}"))
        }
    }
}

impl From<GeometryTolerance> for f64 {
    fn from(tolerance: GeometryTolerance) -> Self {
        tolerance.0
    }
}

/// Checks that an image and a mask lie on the same grid: equal shape, and no corner further apart than the tolerance. The order
/// and the directions of their files' axes may differ: what is compared is in display order. Gives the distance, in voxels along the
/// axis where it is largest.
///
/// # Errors
/// The first difference, with both files, both values and the distance that decided.
pub fn check_same_geometry(image: Grid<'_>, mask: Grid<'_>, tolerance: GeometryTolerance) -> Result<f64, IngestError> {
    let mismatch = |what, image_value: String, mask_value: String, apart: String| {
        let found = format!("{image_value} and {mask_value}{apart}");
        let (image, mask) = (image.path.to_path_buf(), mask.path.to_path_buf());
        Err(IngestError::GeometryMismatch { image, mask, what, found })
    };
    let ((a, a_shape), (b, b_shape)) = (image.in_display_order(), mask.in_display_order());
    // Numbers are shown as the files have them, unless the files' axes are not the same ones.
    let like_files = image.geometry.orientation == mask.geometry.orientation;
    let order = if like_files { "" } else { " (columns, rows, slices)" };
    if a_shape != b_shape {
        let [image, mask] = if like_files { [image.shape, mask.shape] } else { [a_shape, b_shape] };
        return mismatch("shape", format!("{image:?}{order}"), format!("{mask:?}{order}"), String::new());
    }
    let allowed = tolerance.voxels();
    let apart = a.largest_distance_voxels(&b.affine, a_shape);
    if apart <= allowed {
        return Ok(apart);
    }
    let mut found =
        format!(", {} voxels apart at the farthest corner (at most {allowed} are allowed", few_digits(apart));
    if apart <= GeometryTolerance::MOST_VOXELS {
        found += "; if they belong together, say so by `geometry_tolerance` in the manifest";
    }
    found += ")";
    let longer = |i: usize| (a.spacing_mm[i] / b.spacing_mm[i] - 1.0).abs() * a_shape[i] as f64;
    if (0..3).any(|i| longer(i) > allowed) {
        let [image, mask] = if like_files { [image.geometry, mask.geometry] } else { [&a, &b] };
        let shown = |geometry: &Geometry| format!("{:?}{order}", geometry.spacing_mm);
        return mismatch("spacing (mm)", shown(image), shown(mask), found);
    }
    mismatch("affine", image.geometry.to_string(), mask.geometry.to_string(), found)
}

/// A distance in voxels as messages show it: enough digits where it is small to tell it from a tolerance.
pub(crate) fn few_digits(voxels: f64) -> String {
    if voxels < 1.0 { format!("{voxels:.4}") } else { format!("{voxels:.1}") }
}

impl Grid<'_> {
    /// The same places with the axes in the order and directions of a picture: columns to the left, rows to posterior,
    /// slices to superior.
    fn in_display_order(&self) -> (Geometry, [usize; 3]) {
        let mut geometry = self.geometry.clone();
        let mut shape = self.shape;
        for (to, (world, wanted)) in [(0, -1.0), (1, -1.0), (2, 1.0)].into_iter().enumerate() {
            let toward = |axis: usize| self.geometry.orientation.0[axis].world();
            let from = (0..3).find(|&axis| toward(axis).0 == world).unwrap_or_default();
            shape[to] = self.shape[from];
            geometry.spacing_mm[to] = self.geometry.spacing_mm[from];
            let kept = toward(from).1 == wanted;
            for row in 0..3 {
                let step = self.geometry.affine[row][from];
                geometry.affine[row][to] = if kept { step } else { -step };
                geometry.affine[row][3] += if kept { 0.0 } else { step * (self.shape[from] - 1) as f64 };
            }
        }
        (geometry, shape)
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z, _] = self.affine;
        write!(f, "{x:?} {y:?} {z:?} ({} from the {})", self.orientation, self.affine_kind.name())
    }
}

fn column_norm(affine: &[[f64; 4]; 4], column: usize) -> f64 {
    (0..3).map(|row| affine[row][column].powi(2)).sum::<f64>().sqrt()
}

/// The identity but for signs, with the origin at voxel 0 (or wherever voxel sizes alone put it).
fn is_identity(affine: &[[f64; 4]; 4], kind: AffineKind) -> bool {
    let unit = (0..3).all(|r| (0..3).all(|c| affine[r][c].abs() == f64::from(u8::from(r == c))));
    unit && (kind == AffineKind::VoxelSizes || affine.iter().take(3).all(|row| row[3] == 0.0))
}
