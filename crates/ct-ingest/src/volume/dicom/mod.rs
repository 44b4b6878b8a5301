//! CT series of DICOM slices: a folder in, one volume out.
//!
//! Invariant: of what a header says about the patient, only the ID goes further, and nothing of it into a text. Slices are
//! named by their place and SOP instance UID, never by their file's name, which may be the patient's. Where identifiers are
//! hidden, no UID but a pseudonym and no free text (a series' description) is in a message either.

mod codec;
mod coding;
mod element;
mod entry;
mod frame;
mod header;
mod kind;
mod lengths;
mod objects;
mod pixels;
mod place;
mod scan;
mod series;

pub use objects::{
    DicomPixels, DicomSeries, open_dicom, open_dicom_series, preferred_dicom_series, unpack_dicom_frame,
};
pub use series::PreferredSeries;

use super::{ReadOptions, Volume};
use crate::names::Pseudonyms;
use crate::{AffineKind, Geometry, IngestError};
use frame::Frame;
use header::{Image, Plane};
use place::Placed;
use std::path::Path;

/// Tilts below this are rounding of the positions, not the gantry.
const TILT_WORTH_A_WORD_DEGREES: f64 = 0.1;

/// Whether a file begins as DICOM does, with a preamble or without.
pub(super) fn is_dicom(head: &[u8]) -> bool {
    Frame::of(head).is_some()
}

/// The error for a single DICOM file: a slice of a series, or something else.
pub(super) fn is_a_file(path: &Path, head: &[u8]) -> IngestError {
    let kind = Frame::of(head).map(|frame| frame.kind()).filter(|kind| !kind.may_be_ct());
    let what = kind.map_or_else(
        || "is a single DICOM file, expected a series: name the folder that holds its slices".to_owned(),
        |kind| format!("is a DICOM object{kind}; {}", kind.way_out()),
    );
    problem(path, what)
}

/// Reads the CT series in a folder: the one that `options.series` names, or the only one. Where `hidden` stands for
/// identifiers, UIDs are exchanged and free texts dropped as soon as they are read, so that nothing here can tell them.
pub(super) fn read(folder: &Path, options: &ReadOptions, hidden: Option<&Pseudonyms>) -> Result<Volume, IngestError> {
    let series = SeriesInPlace::of(folder, options, hidden)?;
    let voxels = pixels::read(folder, &series.slices)?;
    let (shape, SeriesInPlace { slices, geometry, apart_voxels, sha256, warnings }) = (series.shape(), series);
    // A pseudonym is no UID.
    let uid = slices[0].series.uid.as_ref().filter(|_| hidden.is_none());
    let series_sha256 = uid.map(|uid| crate::checksum::sha256(uid.as_str().as_bytes()));
    Ok(Volume {
        path: folder.to_path_buf(),
        shape,
        voxels,
        geometry,
        sha256,
        intensity: options.intensity,
        warnings,
        nifti_header: None,
        slices_apart_voxels: apart_voxels,
        patient_id: slices.into_iter().next().and_then(|slice| slice.patient),
        series_sha256,
    })
}

/// Shape and geometry of the series in a folder; no pixel is read.
pub(super) fn grid(
    folder: &Path,
    options: &ReadOptions,
    hidden: Option<&Pseudonyms>,
) -> Result<([usize; 3], Geometry), IngestError> {
    let series = SeriesInPlace::of(folder, options, hidden)?;
    Ok((series.shape(), series.geometry))
}

/// A series whose slices are in order and make a volume.
struct SeriesInPlace {
    slices: Vec<Image<Plane>>,
    geometry: Geometry,
    /// As [`Placed`] has it.
    apart_voxels: f64,
    sha256: String,
    warnings: Vec<String>,
}

impl SeriesInPlace {
    fn of(folder: &Path, options: &ReadOptions, hidden: Option<&Pseudonyms>) -> Result<Self, IngestError> {
        let scan::Found { images, sha256, mut warnings } = scan::scan(folder, hidden)?;
        let images = series::choose(folder, images, options.series.as_deref(), hidden)?;
        let placed = place::place(folder, images, options.geometry_tolerance.voxels())?;
        let Placed { slices, affine, apart_voxels, warnings: of_places } = placed;
        warnings.extend(of_places);
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
        Ok(Self { slices, geometry, apart_voxels, sha256, warnings })
    }

    fn shape(&self) -> [usize; 3] {
        [self.slices[0].plane.columns, self.slices[0].plane.rows, self.slices.len()]
    }
}

fn problem(folder: &Path, problem: String) -> IngestError {
    IngestError::Dicom { path: folder.to_path_buf(), problem }
}

/// `1 slice`, `2 slices`.
fn count(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}
