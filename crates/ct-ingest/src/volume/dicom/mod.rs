//! CT series of DICOM slices: a folder in, one volume out.
//!
//! Invariant: of what a header says about the patient, only the ID goes further, and nothing of it into a text. Slices are
//! named by their place and SOP instance UID, never by their file's name, which may be the patient's.

mod codec;
mod header;
mod lengths;
mod pixels;
mod place;
mod scan;
mod series;

use super::{ReadOptions, Volume};
use crate::names::Pseudonyms;
use crate::{AffineKind, Geometry, IngestError};
use place::Placed;
use std::path::Path;

/// Tilts below this are rounding of the positions, not the gantry.
const TILT_WORTH_A_WORD_DEGREES: f64 = 0.1;

/// Whether a file begins as DICOM does (PS3.10, section 7.1).
pub(super) fn is_dicom(head: &[u8]) -> bool {
    head.get(128..132) == Some(b"DICM")
}

/// The error for a single file of a series.
pub(super) fn is_a_file(path: &Path) -> IngestError {
    problem(path, "is a single DICOM file, expected a series: name the folder that holds its slices".to_owned())
}

/// Reads the CT series in a folder: the one that `options.series` names, or the only one. Where `hidden` stands for
/// identifiers, UIDs are exchanged as soon as they are read, so that nothing here can tell them.
pub(super) fn read(folder: &Path, options: &ReadOptions, hidden: Option<&Pseudonyms>) -> Result<Volume, IngestError> {
    let scan::Found { images, sha256, warnings: mut found } = scan::scan(folder, hidden)?;
    let images = series::choose(folder, images, options.series.as_deref(), hidden)?;
    let Placed { slices, affine, mut warnings } = place::place(folder, images)?;
    found.append(&mut warnings);
    let mut warnings = found;

    let (rows, columns) = (slices[0].plane.rows, slices[0].plane.columns);
    let shape = [columns, rows, slices.len()];
    let geometry = Geometry::of_affine(affine, AffineKind::Dicom).map_err(|problem| IngestError::Geometry {
        path: folder.to_path_buf(),
        problem: format!("the positions of its DICOM slices give the affine {affine:?}, {problem}"),
    })?;
    let [_, tilt] = geometry.shear_degrees();
    if tilt > TILT_WORTH_A_WORD_DEGREES {
        warnings.push(format!(
            "its gantry was tilted by {tilt:.1} degrees: slices are cut as they were taken, which shears the volume"
        ));
    }
    let voxels = pixels::read(folder, &slices)?;
    Ok(Volume {
        path: folder.to_path_buf(),
        shape,
        voxels,
        geometry,
        sha256,
        intensity: options.intensity,
        warnings,
        nifti_header: None,
        patient_id: slices.into_iter().next().and_then(|slice| slice.patient),
    })
}

fn problem(folder: &Path, problem: String) -> IngestError {
    IngestError::Dicom { path: folder.to_path_buf(), problem }
}

/// `1 slice`, `2 slices`.
fn count(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}
