//! What other programs make of a header's affines, so that a person hears of it where they differ: ITK (SimpleITK, 3D Slicer,
//! ITK-SNAP) and nibabel (MONAI, nnU-Net).
//!
//! As measured with SimpleITK 2.5.7 and nibabel 5.4.2; `tests/readers.rs` compares them with the programs themselves.

use super::forms::Forms;
use crate::Geometry;
use crate::geometry::few_digits;

/// Two readers mean the same place if no corner is further apart than this.
pub(super) const AGREE_VOXELS: f64 = 0.05;

/// Below this, what is left of a quaternion's first part, squared, is rounding for ITK.
const ITK_ROUNDING: f64 = 1e-7;

/// Axes of an sform are at right angles for ITK if their cosines are below this.
const ITK_RIGHT_ANGLE: f64 = 1e-4;

/// nibabel takes a code above this for 0.
const LAST_CODE: i32 = 5;

/// Below this, what is left of a quaternion's first part, squared, is rounding for nibabel: three times that of the numbers.
pub(super) fn nibabel_rounding(version: u8) -> f64 {
    3.0 * if version == 1 { f64::from(f32::EPSILON) } else { f64::EPSILON }
}

/// What a person should know: who puts the volume elsewhere than at `ours`, how far, and why.
pub(super) fn doubts(forms: &Forms, ours: &Geometry, shape: [usize; 3]) -> Vec<String> {
    let taken = ours.affine_kind.name();
    let doubt = |program: &str, theirs: Option<[[f64; 4]; 4]>, why: String| {
        let apart = ours.largest_distance_voxels(&theirs?, shape);
        (apart > AGREE_VOXELS).then(|| {
            let apart = few_digits(apart);
            format!(
                "{program} puts its farthest corner {apart} voxels elsewhere: it takes {why}; here the {taken} counts"
            )
        })
    };
    // SimpleITK reads no NIfTI-2.
    let itk = itk_affine(forms).filter(|_| forms.version == 1);
    let itk = doubt("SimpleITK (3D Slicer, ITK-SNAP)", itk, itk_reason(forms, ours));
    let nibabel = doubt("nibabel (MONAI, nnU-Net)", Some(nibabel_affine(forms, shape)), nibabel_reason(forms));
    itk.into_iter().chain(nibabel).collect()
}

/// Where ITK puts it, mm; `None` where it refuses to. It takes directions and origin from the sform, if that is a rotation and its
/// code is 1 or there is no qform; else from the qform; the spacing is always that of `pixdim`.
pub(super) fn itk_affine(forms: &Forms) -> Option<[[f64; 4]; 4]> {
    let mut affine = match itk_form(forms) {
        ItkForm::Sform => forms.sform(),
        ItkForm::Qform => Forms { pixdim: [forms.pixdim[0], 1.0, 1.0, 1.0], ..*forms }.qform(ITK_ROUNDING),
        ItkForm::None => [[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]],
        ItkForm::Refused => return None,
    };
    for axis in 0..3 {
        // Where there is no size it takes 1.
        let size = Some(forms.pixdim[axis + 1]).filter(|size| size.is_finite() && *size != 0.0).unwrap_or(1.0);
        let norm = (0..3).map(|row| affine[row][axis].powi(2)).sum::<f64>().sqrt();
        for row in affine.iter_mut().take(3) {
            row[axis] *= size / norm;
        }
    }
    Some(forms.in_mm(affine))
}

/// Whether ITK opens a file that has this sform and no qform.
pub(super) fn itk_takes_sform(forms: &Forms) -> bool {
    let norm = |axis: usize| forms.srow.iter().map(|row| row[axis].powi(2)).sum::<f64>().sqrt();
    let cosine = |(a, b): (usize, usize)| {
        let dot: f64 = forms.srow.iter().map(|row| row[a] * row[b]).sum();
        (dot / (norm(a) * norm(b))).abs()
    };
    [(0, 1), (1, 2), (0, 2)].into_iter().all(|axes| cosine(axes) < ITK_RIGHT_ANGLE)
}

enum ItkForm {
    Sform,
    Qform,
    None,
    Refused,
}

fn itk_form(forms: &Forms) -> ItkForm {
    let (sform, qform) = (forms.sform_code > 0, forms.qform_code > 0);
    match (sform, qform) {
        (true, _) if itk_takes_sform(forms) && (forms.sform_code == 1 || !qform) => ItkForm::Sform,
        (_, true) => ItkForm::Qform,
        (true, false) => ItkForm::Refused,
        (false, false) => ItkForm::None,
    }
}

fn itk_reason(forms: &Forms, ours: &Geometry) -> String {
    let reason = match itk_form(forms) {
        ItkForm::Sform | ItkForm::Refused => "the sform".to_owned(),
        ItkForm::Qform if forms.sform_code <= 0 => "the qform".to_owned(),
        ItkForm::Qform if itk_takes_sform(forms) => {
            format!("the qform, because the sform's code is {} and not 1", forms.sform_code)
        }
        ItkForm::Qform => "the qform, because the sform is no rotation".to_owned(),
        ItkForm::None => "the axes to run to left, posterior and superior, and voxel 0 for the origin".to_owned(),
    };
    let sizes = [1, 2, 3].map(|axis| forms.pixdim[axis]);
    let in_mm = forms.in_mm([[sizes[0], sizes[1], sizes[2], 0.0]; 4])[0];
    if (0..3).any(|axis| (in_mm[axis] / ours.spacing_mm[axis] - 1.0).abs() > 1e-5) {
        return format!("{reason}, with the spacing {sizes:?} of pixdim");
    }
    reason
}

/// Where nibabel puts it, in what it takes for mm: it leaves the unit to its user.
fn nibabel_affine(forms: &Forms, shape: [usize; 3]) -> [[f64; 4]; 4] {
    let known = |code: i32| (1..=LAST_CODE).contains(&code);
    // It takes 1 where there is no size.
    let pixdim = forms.pixdim.map(|size| if size == 0.0 { 1.0 } else { size });
    if known(forms.sform_code) {
        forms.sform()
    } else if known(forms.qform_code) {
        Forms { pixdim, ..*forms }.qform(nibabel_rounding(forms.version))
    } else {
        base_affine(&pixdim, shape)
    }
}

fn nibabel_reason(forms: &Forms) -> String {
    let known = |code: i32| (1..=LAST_CODE).contains(&code);
    match (forms.unit_name(), known(forms.sform_code), known(forms.qform_code)) {
        (Some(unit), ..) => format!("{unit} for millimetres"),
        (None, true, _) => "the sform".to_owned(),
        (None, false, true) => "the qform".to_owned(),
        (None, false, false) => "voxel sizes only".to_owned(),
    }
}

/// nibabel's affine of a file without any: the first axis runs to the left, the origin is in the middle.
pub(super) fn base_affine(pixdim: &[f64; 4], shape: [usize; 3]) -> [[f64; 4]; 4] {
    let mut affine = [[0.0; 4]; 4];
    affine[3][3] = 1.0;
    for axis in 0..3 {
        let sign = if axis == 0 { -1.0 } else { 1.0 };
        affine[axis][axis] = sign * pixdim[axis + 1].abs();
        affine[axis][3] = -affine[axis][axis] * (shape[axis] as f64 - 1.0) / 2.0;
    }
    affine
}
