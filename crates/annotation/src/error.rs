//! What can go wrong between a segmentation's file and a CT's grid: where, what was found, what was expected, the way out.

use ct_ingest::IngestError;
use std::io;
use std::path::{Path, PathBuf};
use whole_file::PlaceError;

/// An error of reading or writing segmentations.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotationError {
    /// The CT, or the file as one of its format.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// Nothing may be written there.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The operating system refused it; nothing was left behind.
    #[error("cannot write '{}': {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// What is to be written, and where, doesn't fit together.
    #[error("{0}")]
    Outputs(String),
    /// It is no segmentation of a kind that is read.
    #[error(
        "'{}' {found}, expected a segmentation whose segments have names: DICOM-SEG, RTSTRUCT, or .seg.nrrd of 3D Slicer",
        path.display()
    )]
    NoSegmentation {
        /// The file.
        path: PathBuf,
        /// What it is, as the end of a sentence.
        found: String,
    },
    /// It is one that contradicts itself, lacks something or is coded in a way that is not read.
    #[error("'{}' {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected and the way out.
        problem: String,
    },
    /// It has no segment of that name.
    #[error(
        "'{}' has no segment with the name '{name}'; its segments: {list}. Name one of them, or rename the one that is meant",
        path.display()
    )]
    NoSegment {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// What there is.
        list: String,
    },
    /// It has several of that name.
    #[error(
        "'{}' has {number} segments with the name '{name}', expected one (its segments: {list}); rename the others",
        path.display()
    )]
    SeveralSegments {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// How many are called so.
        number: usize,
        /// What there is.
        list: String,
    },
    /// It was made of another series than the CT's.
    #[error(
        "'{}' was made of the series {found}, but the CT '{}' is {expected}: take the segmentation of this series",
        path.display(), ct.display()
    )]
    OtherSeries {
        /// The segmentation.
        path: PathBuf,
        /// The CT.
        ct: PathBuf,
        /// The UIDs that it refers to.
        found: String,
        /// What the CT is.
        expected: String,
    },
    /// Its positions are counted from another origin than the CT's.
    #[error(
        "'{}' has the frame of reference {found}, the CT '{}' has {expected}, so that their positions can't be compared: take the \
         segmentation of this CT",
        path.display(), ct.display()
    )]
    OtherFrameOfReference {
        /// The segmentation.
        path: PathBuf,
        /// The CT.
        ct: PathBuf,
        /// Its UID.
        found: String,
        /// The CT's UID.
        expected: String,
    },
    /// Its voxels are not the CT's, nor some of them.
    #[error(
        "'{}' does not lie on the grid of the CT '{}': {found}; the CT has {expected}. Whole voxels are expected, within {tolerance} of \
         one: take the segmentation of this CT, or resample it onto the CT's grid",
        path.display(), ct.display()
    )]
    OtherGrid {
        /// The segmentation.
        path: PathBuf,
        /// The CT.
        ct: PathBuf,
        /// Which of its frames, its shape and its affine, and where that is in the CT's voxels.
        found: String,
        /// The CT's shape and affine.
        expected: String,
        /// Voxels.
        tolerance: f64,
    },
    /// A contour can't be a part of a mask of the CT.
    #[error("'{}' has a contour that is no outline on a slice of the CT '{}': contour {number} of '{name}' {problem}", path.display(), ct.display())]
    Contour {
        /// The RTSTRUCT.
        path: PathBuf,
        /// The CT.
        ct: PathBuf,
        /// The region of interest.
        name: String,
        /// Counted from 1 in the order of the file.
        number: usize,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// What is to be written is no segmentation of the CT.
    #[error("cannot write '{}': {problem}", path.display())]
    Masks {
        /// The file that was to be written.
        path: PathBuf,
        /// What is wrong with the masks or the segments.
        problem: String,
    },
}

impl AnnotationError {
    pub(crate) fn invalid(path: &Path, problem: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |reason| Self::Write { path, reason }
    }
}
