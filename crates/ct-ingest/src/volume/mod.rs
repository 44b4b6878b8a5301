//! Volumes of every format that can be read, behind one type.
//!
//! Formats are recognised by content, not by name. Each has a module that turns a header into a [`Geometry`] and the place
//! and type of its voxels; none converts voxels.

mod content;
mod dicom;
mod kind;
mod members;
mod metaimage;
mod nifti;
mod nrrd;
mod raster;
mod segments;
mod voxels;

pub(crate) use nifti::{Forms, MaskTemplate, NiftiHeaderBytes};
pub(crate) use voxels::{PlaneWalk, Scaling};
pub use voxels::{Scalar, Voxels};

use crate::names::Pseudonyms;
use crate::{Geometry, GeometryTolerance, IngestError, Intensity};
use content::Source;
use raster::Place;
use std::fmt;
use std::path::{Path, PathBuf};

pub use dicom::{
    DicomPixels, DicomSeries, PreferredSeries, open_dicom, open_dicom_series, preferred_dicom_series,
    unpack_dicom_frame,
};
pub use nifti::AffineChoice;
pub use segments::SegmentLabels;

/// A volume in the voxel order of its file: the first axis runs fastest.
#[derive(Clone, Debug)]
pub struct Volume {
    /// The file, or the folder of a DICOM series.
    pub path: PathBuf,
    /// Voxels along each axis.
    pub shape: [usize; 3],
    /// Values after the header's scaling: HU for a CT, labels for a mask.
    pub voxels: Voxels,
    /// Where the voxels are.
    pub geometry: Geometry,
    /// SHA-256 (hexadecimal) of the file as it is on disk; of several files, of the lines of their checksums.
    pub sha256: String,
    /// What the values mean.
    pub intensity: Intensity,
    /// What a person should know of it: doubtful, but no error.
    pub warnings: Vec<String>,
    /// Of NIfTI, what a mask's header says as well.
    pub(crate) nifti_header: Option<MaskTemplate>,
    /// The least [`ReadOptions::geometry_tolerance`] with which it is read; of a file, 0.
    pub(crate) slices_apart_voxels: f64,
    /// Whose it is, where the format says so (DICOM).
    patient_id: Option<PatientId>,
    /// SHA-256 (hexadecimal) of the DICOM series' UID, where nothing is hidden.
    pub(crate) series_sha256: Option<String>,
}

/// A patient's ID as DICOM has it. `Debug` doesn't show it, so that it gets into no log.
#[derive(Clone, PartialEq, Eq)]
struct PatientId(String);

impl fmt::Debug for PatientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PatientId(..)")
    }
}

/// How a file is to be understood where it doesn't say so itself, or says it wrongly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadOptions {
    /// What the voxels' values mean; it applies to images, not to masks.
    pub intensity: Intensity,
    /// Which of a NIfTI file's two affines counts where they disagree.
    pub affine: Option<AffineChoice>,
    /// The DICOM series where a folder has several: its instance UID, or its number.
    pub series: Option<String>,
    /// What the segments of a 3D Slicer segmentation become; absent: its values are what they are.
    pub segments: Option<SegmentLabels>,
    /// How far DICOM slices may be from the even grid that they make, in voxels.
    pub geometry_tolerance: GeometryTolerance,
}

impl Volume {
    /// What is compared before two volumes meet.
    pub fn grid(&self) -> crate::Grid<'_> {
        crate::Grid { path: &self.path, shape: self.shape, geometry: &self.geometry }
    }

    /// What a person should know of it before trusting what is made of it: [`Self::warnings`], millimetres that are not to be
    /// trusted, voxels that are no numbers, values that contradict their declaration. All voxels of floats are read.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = self.warnings.clone();
        if !self.geometry.spacing_valid {
            doubts.push(
                "its affine is the identity: its millimetres are not trusted; if slices look wrong, state its orientation in the manifest"
                    .to_owned(),
            );
        }
        if matches!(self.voxels.scalar(), Scalar::F32 | Scalar::F64) {
            let [mut none, mut infinite] = [0, 0];
            for value in self.voxels.iter() {
                none += usize::from(value.is_nan());
                infinite += usize::from(value.is_infinite());
            }
            let count = |number, one: &str, several: &str| match number {
                0 => None,
                1 => Some(format!("1 voxel {one}")),
                _ => Some(format!("{number} voxels {several}")),
            };
            doubts.extend(count(none, "is not a number and became air", "are not a number and became air"));
            doubts.extend(count(infinite, "is infinite and was clipped", "are infinite and were clipped"));
        }
        doubts.extend(self.intensity.doubt(self));
        doubts
    }

    /// DICOM's patient ID. It may be a person's number: it never goes anywhere but into a salted hash.
    pub(crate) fn patient_id(&self) -> Option<&str> {
        self.patient_id.as_ref().map(|id| id.0.as_str())
    }
}

/// Reads a three-dimensional volume of real numbers: a file, or a folder that holds a DICOM series of a CT.
///
/// # Errors
/// What can't be read has an error that says what it is: colours, complex numbers, time series, files that end too early,
/// damaged compression, an affine that flattens or shears space, DICOM slices that are missing, doubled or uneven.
pub fn read_volume(path: &Path, options: &ReadOptions) -> Result<Volume, IngestError> {
    read_volume_of(path, options, None)
}

/// The same where `hidden` stands for identifiers: errors name DICOM's UIDs by pseudonyms.
pub(crate) fn read_volume_of(
    path: &Path,
    options: &ReadOptions,
    hidden: Option<&Pseudonyms>,
) -> Result<Volume, IngestError> {
    let mut volume = read_any(path, options, hidden)?;
    volume.intensity = options.intensity;
    volume.voxels.rescale(options.intensity.scaling());
    Ok(volume)
}

/// Shape and geometry of a volume; of NIfTI and DICOM, only headers are read.
pub fn read_grid(path: &Path, options: &ReadOptions) -> Result<([usize; 3], Geometry), IngestError> {
    read_grid_of(path, options, None)
}

/// The same with pseudonyms, by which a manifest may name a series.
pub(crate) fn read_grid_of(
    path: &Path,
    options: &ReadOptions,
    hidden: Option<&Pseudonyms>,
) -> Result<([usize; 3], Geometry), IngestError> {
    if path.is_dir() {
        return dicom::grid(path, options, hidden);
    }
    if let Some(grid) = nifti::grid(path, &Source::open(path)?, options) {
        return grid;
    }
    read_any(path, options, hidden).map(|volume| (volume.shape, volume.geometry))
}

/// The files that a volume is read from, the header first. A file that can't be read stands for itself.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    let place = open(path).ok().and_then(|source| match source.head() {
        head if nrrd::is_nrrd(head) => nrrd::place(path, head).ok(),
        head if metaimage::is_metaimage(head) => metaimage::place(path, head).ok(),
        _ => None,
    });
    match place {
        Some(Place::Beside { data, .. }) => vec![path.to_path_buf(), data],
        Some(Place::Behind(_)) => vec![path.to_path_buf()],
        None => nifti::files(path),
    }
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A volume of a format that can be read.
    Volume,
    /// A DICOM file: a slice of a volume, if anything.
    Dicom,
    /// Anything else, or nothing that can be read.
    Other,
}

/// Looks at a file's first bytes.
pub(crate) fn content_of(path: &Path) -> Content {
    let Ok(source) = Source::open(path) else { return Content::Other };
    match source.head() {
        head if nifti::is_nifti(head) || nrrd::is_nrrd(head) || metaimage::is_metaimage(head) => Content::Volume,
        head if dicom::is_dicom(head) => Content::Dicom,
        _ => Content::Other,
    }
}

/// Whether a file is DICOM, by its first bytes.
pub fn is_dicom_file(path: &Path) -> bool {
    content_of(path) == Content::Dicom
}

fn read_any(path: &Path, options: &ReadOptions, hidden: Option<&Pseudonyms>) -> Result<Volume, IngestError> {
    if path.is_dir() {
        return dicom::read(path, options, hidden);
    }
    let source = open(path)?;
    match source.head() {
        // A NIfTI file has a number there; DICOM has a preamble that anything may be in, but hardly a NIfTI header.
        head if dicom::is_dicom(head) && !nifti::is_nifti(head) => {
            Err(kind::of_dicom(head).map_or_else(|| dicom::is_a_file(path, head), |kind| no_volume(path, kind)))
        }
        head if nrrd::is_nrrd(head) => nrrd::read(path, source, options),
        head if metaimage::is_metaimage(head) => metaimage::read(path, source, options),
        head => {
            let kind = kind::of(head);
            // Which of these it is matters only to the words of an error: the voxels of a pair may begin with any bytes.
            nifti::read(path, source, options).map_err(|error| match (error, kind) {
                (IngestError::NotNifti { .. } | IngestError::Truncated { part: "header", .. }, Some(kind)) => {
                    no_volume(path, kind)
                }
                (error, _) => error,
            })
        }
    }
}

fn no_volume(path: &Path, (found, expected): kind::Kind) -> IngestError {
    IngestError::Unsupported { path: path.to_path_buf(), found: found.to_owned(), expected }
}

/// A file with as much of its head as its format may need.
fn open(path: &Path) -> Result<Source<'_>, IngestError> {
    let mut source = Source::open(path)?;
    if nrrd::is_nrrd(source.head()) || metaimage::is_metaimage(source.head()) {
        source.lengthen_head()?;
    }
    Ok(source)
}
