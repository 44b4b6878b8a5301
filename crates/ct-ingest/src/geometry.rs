//! Where a volume lies in the patient, and whether two volumes lie in the same place.

use crate::{IngestError, Orientation};
use nifti::NiftiHeader;
use std::path::Path;

/// Two volumes are in the same place if their corners are, to this part of a voxel.
const TOLERANCE_VOXELS: f64 = 1e-3;

/// Which part of the header the affine came from, in the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffineKind {
    /// The `sform` rows.
    Sform,
    /// The `qform` quaternion.
    Qform,
    /// Neither is set: voxel sizes only; the orientation is a convention (LAS, as nibabel assumes).
    VoxelSizes,
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
    /// The geometry of a header: its sform, else its qform, else its voxel sizes.
    pub(crate) fn of_header(header: &NiftiHeader, shape: [usize; 3], path: &Path) -> Result<Self, IngestError> {
        let (affine, kind) = if header.sform_code > 0 {
            (sform(header), AffineKind::Sform)
        } else if header.qform_code > 0 {
            (qform(header), AffineKind::Qform)
        } else {
            (voxel_sizes(header, shape), AffineKind::VoxelSizes)
        };
        Self::of_affine(affine, kind).ok_or_else(|| IngestError::Geometry {
            path: path.to_path_buf(),
            problem: format!("its {} gives the affine {affine:?}, which flattens space", kind.name()),
        })
    }

    /// `None` where the affine is flat or not finite.
    fn of_affine(affine: [[f64; 4]; 4], affine_kind: AffineKind) -> Option<Self> {
        let orientation = Orientation::of_affine(&affine)?;
        let spacing_mm = std::array::from_fn(|voxel| column_norm(&affine, voxel));
        let finite = affine.iter().flatten().all(|value| value.is_finite());
        let sensible = spacing_mm.iter().all(|mm: &f64| (1e-4..1e4).contains(mm));
        let spacing_valid = !is_identity(&affine, affine_kind);
        let geometry = Self { affine, spacing_mm, orientation, affine_kind, spacing_valid };
        (finite && sensible).then_some(geometry)
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

    /// The position of a voxel in mm; indices may be fractions.
    pub fn to_mm(&self, voxel: [f64; 3]) -> [f64; 3] {
        let row = |r: &[f64; 4]| r[0] * voxel[0] + r[1] * voxel[1] + r[2] * voxel[2] + r[3];
        [row(&self.affine[0]), row(&self.affine[1]), row(&self.affine[2])]
    }
}

impl AffineKind {
    /// The header's own word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sform => "sform",
            Self::Qform => "qform",
            Self::VoxelSizes => "voxel sizes",
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

/// Checks that an image and a mask lie on the same grid: equal shape, and equal spacing and affine within 0.001 voxel
/// at every corner.
///
/// # Errors
/// The first difference, with both files and both values.
pub fn check_same_geometry(image: Grid<'_>, mask: Grid<'_>) -> Result<(), IngestError> {
    let mismatch = |what, image_value: String, mask_value: String| {
        let (image, mask) = (image.path.to_path_buf(), mask.path.to_path_buf());
        Err(IngestError::GeometryMismatch { image, mask, what, image_value, mask_value })
    };
    if image.shape != mask.shape {
        return mismatch("shape", format!("{:?}", image.shape), format!("{:?}", mask.shape));
    }
    let (a, b) = (image.geometry, mask.geometry);
    let voxel = a.spacing_mm.iter().copied().fold(f64::INFINITY, f64::min);
    if (0..3).any(|i| (a.spacing_mm[i] - b.spacing_mm[i]).abs() > TOLERANCE_VOXELS * a.spacing_mm[i]) {
        return mismatch("spacing (mm)", format!("{:?}", a.spacing_mm), format!("{:?}", b.spacing_mm));
    }
    let far_apart = (0..8).any(|corner| {
        let index = std::array::from_fn(|i| if corner >> i & 1 == 1 { (image.shape[i] - 1) as f64 } else { 0.0 });
        let (p, q) = (a.to_mm(index), b.to_mm(index));
        (0..3).map(|i| (p[i] - q[i]).powi(2)).sum::<f64>().sqrt() > TOLERANCE_VOXELS * voxel
    });
    if far_apart {
        return mismatch("affine", show(a), show(b));
    }
    Ok(())
}

fn show(geometry: &Geometry) -> String {
    let [x, y, z, _] = geometry.affine;
    format!("{x:?} {y:?} {z:?} ({} from the {})", geometry.orientation, geometry.affine_kind.name())
}

fn sform(header: &NiftiHeader) -> [[f64; 4]; 4] {
    [header.srow_x.map(f64::from), header.srow_y.map(f64::from), header.srow_z.map(f64::from), [0.0, 0.0, 0.0, 1.0]]
}

/// The quaternion's rotation times the voxel sizes (nifti1.h, "method 2").
fn qform(header: &NiftiHeader) -> [[f64; 4]; 4] {
    let [b, c, d] = [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from);
    let rest = 1.0 - (b * b + c * c + d * d);
    // Half turns, the commonest rotation of all, have a = 0: rounding of b, c, d to f32 must not turn into an angle.
    let a = if rest < 3.0 * f64::from(f32::EPSILON) { 0.0 } else { rest.sqrt() };
    let norm = (a * a + b * b + c * c + d * d).sqrt();
    let [a, b, c, d] = [a / norm, b / norm, c / norm, d / norm];
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let mut size = [1, 2, 3].map(|i| f64::from(header.pixdim[i]).abs());
    if header.pixdim[0] < 0.0 {
        size[2] = -size[2];
    }
    let offset = [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from);
    let row = |i: usize| [rotation[i][0] * size[0], rotation[i][1] * size[1], rotation[i][2] * size[2], offset[i]];
    [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]
}

/// nibabel's base affine: the first axis runs to the left, the origin is in the middle.
fn voxel_sizes(header: &NiftiHeader, shape: [usize; 3]) -> [[f64; 4]; 4] {
    let mut affine = [[0.0; 4]; 4];
    affine[3][3] = 1.0;
    for axis in 0..3 {
        let sign = if axis == 0 { -1.0 } else { 1.0 };
        affine[axis][axis] = sign * f64::from(header.pixdim[axis + 1]).abs();
        affine[axis][3] = -affine[axis][axis] * (shape[axis] as f64 - 1.0) / 2.0;
    }
    affine
}

fn column_norm(affine: &[[f64; 4]; 4], column: usize) -> f64 {
    (0..3).map(|row| affine[row][column].powi(2)).sum::<f64>().sqrt()
}

/// The identity but for signs, with the origin at voxel 0 (or wherever voxel sizes alone put it).
fn is_identity(affine: &[[f64; 4]; 4], kind: AffineKind) -> bool {
    let unit = (0..3).all(|r| (0..3).all(|c| affine[r][c].abs() == f64::from(u8::from(r == c))));
    unit && (kind == AffineKind::VoxelSizes || affine.iter().take(3).all(|row| row[3] == 0.0))
}
