//! Which of a NIfTI header's affines counts here, and what a mask's header says so that other programs put the mask where its
//! CT is.

use super::forms::{AffineChoice, Forms};
use super::readers;
use crate::geometry::few_digits;
use crate::orientation::nearest_rotation;
use crate::{AffineKind, Geometry};

/// Two affines of one file mean the same place if no corner is further apart than this.
const AFFINES_AGREE_VOXELS: f64 = 1.0;

/// A gantry's tilt above this is none that rounding makes.
const TILT_DEGREES: f64 = 0.1;

/// Voxels of a CT are between these, mm: a unit that makes others of them is wrong.
const VOXEL_SIZES_MM: std::ops::Range<f64> = 1e-2..1e2;

/// Why a header has no place.
pub(super) enum NoPlace {
    /// What is wrong, as a sentence about the file.
    Unusable(String),
    /// Its two affines, and how many voxels they are apart.
    Disagree { voxels: f64, sform: String, qform: String },
}

impl Forms {
    /// The affine that counts, and what is doubtful about it. The standard's precedence: the sform, where its code is not 0 and
    /// it says anything, else the qform, else the voxel sizes.
    pub(super) fn geometry(
        &self,
        shape: [usize; 3],
        choice: Option<AffineChoice>,
    ) -> Result<(Geometry, Vec<String>), NoPlace> {
        let mut warnings = Vec::new();
        let sform = (self.sform_code > 0).then(|| self.in_mm(self.sform()));
        let qform = (self.qform_code > 0).then(|| self.in_mm(self.qform(readers::nibabel_rounding(self.version))));
        let empty = self.sform_is_empty() && choice != Some(AffineChoice::Sform);
        let (affine, kind) = match (sform, qform, choice) {
            (Some(_), Some(qform), _) if empty => {
                warnings.push(format!(
                    "its sform (code {}) is empty: the qform is taken, as SimpleITK does",
                    self.sform_code
                ));
                (qform, AffineKind::Qform)
            }
            (Some(sform), Some(qform), None) => {
                Self::agree(&sform, &qform, shape)?;
                (sform, AffineKind::Sform)
            }
            (Some(affine), _, None | Some(AffineChoice::Sform)) | (Some(affine), None, Some(AffineChoice::Qform)) => {
                (affine, AffineKind::Sform)
            }
            (_, Some(affine), _) => (affine, AffineKind::Qform),
            (None, None, _) => (self.in_mm(readers::base_affine(&self.pixdim, shape)), AffineKind::VoxelSizes),
        };
        let geometry = of_affine(affine, kind)?;
        if kind == AffineKind::VoxelSizes {
            let orientation = geometry.orientation;
            warnings.push(format!("the header has no orientation: {orientation} is assumed, as nibabel does"));
        }
        self.check_unit(&geometry)?;
        warnings.extend(readers::doubts(self, &geometry, shape));
        Ok((geometry, warnings))
    }

    /// Whether both affines mean one place; a qform that is no affine at all is no second opinion.
    fn agree(sform: &[[f64; 4]; 4], qform: &[[f64; 4]; 4], shape: [usize; 3]) -> Result<(), NoPlace> {
        let qform = of_affine(*qform, AffineKind::Qform);
        let sform = match (of_affine(*sform, AffineKind::Sform), &qform) {
            (Ok(sform), _) => sform,
            (Err(NoPlace::Unusable(problem)), Ok(qform)) => {
                return Err(NoPlace::Unusable(format!(
                    "{problem}; its qform has one: {qform}. If that is right, say `affine` = \"qform\" (in the manifest, or --affine \
                     of predict)"
                )));
            }
            (Err(problem), _) => return Err(problem),
        };
        let Ok(qform) = qform else { return Ok(()) };
        let apart = sform.largest_distance_voxels(&qform.affine, shape);
        // A qform knows only rotations: that of a tilted gantry is beside the sform wherever it is right.
        let tilted = sform.shear_degrees().iter().any(|&degrees| degrees > TILT_DEGREES);
        let straight = [Rotation::keeping_slices(&sform), Rotation::nearest(&sform)];
        let explained = || {
            let same =
                |rotation: &Rotation| qform.largest_distance_voxels(&rotation.affine(), shape) <= AFFINES_AGREE_VOXELS;
            straight.iter().flatten().any(same)
        };
        if apart <= AFFINES_AGREE_VOXELS || tilted || explained() {
            return Ok(());
        }
        Err(NoPlace::Disagree { voxels: apart, sform: sform.to_string(), qform: qform.to_string() })
    }

    fn check_unit(&self, geometry: &Geometry) -> Result<(), NoPlace> {
        let Some(unit) = self.unit_name() else { return Ok(()) };
        if geometry.spacing_mm.iter().all(|mm| VOXEL_SIZES_MM.contains(mm)) {
            return Ok(());
        }
        Err(NoPlace::Unusable(format!(
            "its header says that lengths are in {unit}, which makes voxels of {:?} mm, expected those of a CT; correct the unit \
             (xyzt_units, in nibabel header.set_xyzt_units)",
            geometry.spacing_mm
        )))
    }

    /// For a mask whose CT is no NIfTI: the affine as sform, and the rotation nearest to it that keeps the slices as qform, since
    /// SimpleITK takes no sform that is more than a rotation.
    pub fn of_geometry(geometry: &Geometry) -> Self {
        let [x, y, z, _] = geometry.affine;
        let mut forms = Self {
            sform_code: 1,
            qform_code: 0,
            srow: [x, y, z],
            bcd: [0.0; 3],
            offset: [0.0; 3],
            pixdim: [1.0; 4],
            unit: 2,
            version: 1,
        };
        if let Some(rotation) = Rotation::keeping_slices(geometry) {
            forms.set_qform(&rotation);
        }
        forms.rounded()
    }

    /// For a mask of a CT with these: as they are, since every reader then puts the mask where it puts the CT; but where one
    /// can't place the CT at all, so that it can place the mask.
    pub fn for_mask(self) -> Self {
        let mut forms = self.rounded();
        if forms.sform_code > 0 && forms.qform_code > 0 && forms.sform_is_empty() {
            let [x, y, z, _] = forms.qform(readers::nibabel_rounding(forms.version));
            (forms.srow, forms.sform_code) = ([x, y, z], forms.qform_code);
        }
        if forms.sform_code > 0 && forms.qform_code <= 0 && !readers::itk_takes_sform(&forms) {
            let sform = Geometry::of_affine(forms.sform(), AffineKind::Sform).ok();
            if let Some(rotation) = sform.and_then(|sform| Rotation::keeping_slices(&sform)) {
                forms.set_qform(&rotation);
            }
        }
        forms.version = 1;
        forms.rounded()
    }

    fn set_qform(&mut self, rotation: &Rotation) {
        let (handed, [_, b, c, d]) = rotation.quaternion();
        let [x, y, z] = rotation.sizes;
        self.pixdim = [handed, x, y, z];
        self.bcd = [b, c, d];
        self.offset = rotation.origin;
        self.qform_code = self.sform_code;
    }

    /// Whether ITK opens the file and gives it a place.
    pub fn itk_reads(&self) -> bool {
        self.version == 1 && readers::itk_affine(self).is_some()
    }

    /// What a person should know of a mask with these, of a CT that lies at `geometry`; nothing where it lies there for
    /// SimpleITK too.
    pub fn mask_doubt(&self, geometry: &Geometry, shape: [usize; 3]) -> Option<String> {
        let there = readers::itk_affine(self)?;
        let apart = geometry.largest_distance_voxels(&there, shape);
        (apart > readers::AGREE_VOXELS).then(|| {
            format!(
                "its slices are sheared, which no NIfTI file can tell every program: nibabel puts the mask where the CT is, but \
                 SimpleITK, 3D Slicer and ITK-SNAP stack its slices at right angles, which puts the farthest corner {} voxels \
                 from there",
                few_digits(apart)
            )
        })
    }
}

/// Axes at right angles: unit vectors in columns, their voxel sizes, and the place of voxel 0.
struct Rotation {
    axes: [[f64; 3]; 3],
    sizes: [f64; 3],
    origin: [f64; 3],
}

impl Rotation {
    /// The rotation that keeps rows and columns of the slices and stacks these along their normal. This is how SimpleITK stacks
    /// a DICOM series, sheared or not: the two lie on each other there.
    fn keeping_slices(geometry: &Geometry) -> Option<Self> {
        let slices = match geometry.affine_kind {
            // The third axis counts slices, whichever way they lie.
            AffineKind::Dicom => 2,
            _ => (0..3).find(|&axis| geometry.orientation.0[axis].world().0 == 2)?,
        };
        let unit = |axis: usize| [0, 1, 2].map(|row| geometry.affine[row][axis] / geometry.spacing_mm[axis]);
        let (i, j) = ((slices + 1) % 3, (slices + 2) % 3);
        let [u, v] = at_right_angles(unit(i), unit(j));
        let w = unit(slices);
        let normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
        let toward = (0..3).map(|row| normal[row] * w[row]).sum::<f64>().signum();
        let mut axes = [[0.0; 3]; 3];
        for row in 0..3 {
            axes[row][i] = u[row];
            axes[row][j] = v[row];
            axes[row][slices] = toward * normal[row];
        }
        Some(Self::with_axes(axes, geometry))
    }

    /// The rotation nearest to an affine in all of its axes, which nibabel and SimpleITK write in the place of a sheared one.
    fn nearest(geometry: &Geometry) -> Option<Self> {
        Some(Self::with_axes(nearest_rotation(&geometry.affine)?, geometry))
    }

    fn with_axes(axes: [[f64; 3]; 3], geometry: &Geometry) -> Self {
        Self { axes, sizes: geometry.spacing_mm, origin: [0, 1, 2].map(|row| geometry.affine[row][3]) }
    }

    fn affine(&self) -> [[f64; 4]; 4] {
        let row = |i: usize| {
            let [x, y, z] = [0, 1, 2].map(|axis| self.axes[i][axis] * self.sizes[axis]);
            [x, y, z, self.origin[i]]
        };
        [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]
    }

    /// The third axis' direction (-1 in a left-handed system) and the quaternion, whose first part is not negative.
    fn quaternion(&self) -> (f64, [f64; 4]) {
        let mut r = self.axes;
        let handed = determinant(&r).signum();
        for row in &mut r {
            row[2] *= handed;
        }
        // Each is four times the square of one part; the largest is far from 0, and the others follow from it (Shepperd 1978).
        let fourfold = [
            1.0 + r[0][0] + r[1][1] + r[2][2],
            1.0 + r[0][0] - r[1][1] - r[2][2],
            1.0 - r[0][0] + r[1][1] - r[2][2],
            1.0 - r[0][0] - r[1][1] + r[2][2],
        ];
        let largest = (0..4).fold(0, |best, part| if fourfold[part] > fourfold[best] { part } else { best });
        let products = match largest {
            0 => [fourfold[0], r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]],
            1 => [r[2][1] - r[1][2], fourfold[1], r[0][1] + r[1][0], r[0][2] + r[2][0]],
            2 => [r[0][2] - r[2][0], r[0][1] + r[1][0], fourfold[2], r[1][2] + r[2][1]],
            _ => [r[1][0] - r[0][1], r[0][2] + r[2][0], r[1][2] + r[2][1], fourfold[3]],
        };
        let sign = if products[0] < 0.0 { -1.0 } else { 1.0 };
        // No -0, which reads like a mistake.
        (handed, products.map(|product| sign * product / (2.0 * fourfold[largest].sqrt()) + 0.0))
    }
}

/// Two unit vectors, turned by equal and opposite angles until they are at right angles: bisectors of equal lengths are.
fn at_right_angles(u: [f64; 3], v: [f64; 3]) -> [[f64; 3]; 2] {
    let length = |a: [f64; 3]| a.iter().map(|part| part * part).sum::<f64>().sqrt();
    let unit = |a: [f64; 3]| a.map(|part| part / length(a));
    let sum = unit([0, 1, 2].map(|i| u[i] + v[i]));
    let difference = unit([0, 1, 2].map(|i| u[i] - v[i]));
    let half = std::f64::consts::FRAC_1_SQRT_2;
    [[0, 1, 2].map(|i| half * (sum[i] + difference[i])), [0, 1, 2].map(|i| half * (sum[i] - difference[i]))]
}

fn determinant(m: &[[f64; 3]; 3]) -> f64 {
    (0..3).map(|i| m[0][i] * (m[1][(i + 1) % 3] * m[2][(i + 2) % 3] - m[1][(i + 2) % 3] * m[2][(i + 1) % 3])).sum()
}

fn of_affine(affine: [[f64; 4]; 4], kind: AffineKind) -> Result<Geometry, NoPlace> {
    Geometry::of_affine(affine, kind)
        .map_err(|problem| NoPlace::Unusable(format!("its {} gives the affine {affine:?}, {problem}", kind.name())))
}
