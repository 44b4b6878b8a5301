//! DICOM objects for others: behind the same checks as a CT's slices, so that no damaged length asks for memory and no panic gets out.

use super::codec::{self, Picture};
use super::coding::Coding;
use super::entry::parse;
use super::frame::Frame;
use super::series::{self, PreferredSeries};
use super::{SeriesInPlace, problem, scan};
use crate::volume::ReadOptions;
use crate::{Geometry, IngestError};
use dicom_object::DefaultDicomObject;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Whether an object's pixel data are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DicomPixels {
    /// They are.
    Read,
    /// The object ends before them.
    Left,
}

/// Reads a DICOM object of any kind: with preamble and file meta information, or without them. Nothing behind the pixel data is read.
/// `None` if the file is no DICOM.
///
/// # Errors
/// The operating system's; a file that is damaged, ends early or has an unknown transfer syntax. None quotes what it says.
pub fn open_dicom(path: &Path, pixels: DicomPixels) -> Result<Option<DefaultDicomObject>, IngestError> {
    let file = File::open(path).map_err(IngestError::io("read", path))?;
    // An empty file can't be mapped everywhere.
    let length = file.metadata().map_err(IngestError::io("read", path))?.len();
    if length == 0 {
        return Ok(None);
    }
    let bytes = slice_store::map_file(&file).map_err(IngestError::io("read", path))?;
    let Some(frame) = Frame::of(&bytes) else { return Ok(None) };
    let object = parse(&frame, pixels == DicomPixels::Read);
    object.map(Some).ok_or_else(|| {
        let rest = "is damaged, ends early or has an unknown transfer syntax: copy it again";
        problem(path, format!("is a DICOM object{} that {rest}", frame.kind()))
    })
}

/// A CT series that is a volume, and the files of its slices.
#[derive(Clone, Debug)]
pub struct DicomSeries {
    /// Columns, rows, slices.
    pub shape: [usize; 3],
    /// Where the voxels are.
    pub geometry: Geometry,
    /// In the order of the slices. Names of files may be the patient's: they belong into no message.
    pub files: Vec<PathBuf>,
}

/// The series of a folder, as [`read_volume`](crate::read_volume) reads it; no pixel is read.
pub fn open_dicom_series(folder: &Path, options: &ReadOptions) -> Result<DicomSeries, IngestError> {
    let series = SeriesInPlace::of(folder, options, None)?;
    let shape = series.shape();
    let files = series.slices.into_iter().map(|slice| slice.file).collect();
    Ok(DicomSeries { shape, geometry: series.geometry, files })
}

/// The series of a study that is taken where nobody names one, by [`PreferredSeries`]' rules; `None` if there is only one.
///
/// # Errors
/// The folder has no CT series, or none of axial slices.
pub fn preferred_dicom_series(folder: &Path) -> Result<Option<PreferredSeries>, IngestError> {
    series::preferred(folder, scan::scan(folder, None)?.images)
}

/// Unpacks one frame of an object with this transfer syntax: `[rows, columns]` pixels of `bytes` bytes each, row by row.
///
/// # Errors
/// What is wrong with it, as the end of a sentence whose subject is the object.
pub fn unpack_dicom_frame(
    syntax: &str,
    [rows, columns]: [usize; 2],
    bytes: usize,
    packed: &[u8],
) -> Result<Vec<u16>, String> {
    codec::decode(&Picture { coding: Coding::of(syntax)?, rows, columns, bytes }, packed)
}
