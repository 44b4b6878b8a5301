//! NIfTI-1 and NIfTI-2: single files and `.hdr`/`.img` pairs, gzipped or not, in both byte orders.
//!
//! The `nifti` crate's volumes are converted copies that it inflates on the way; here voxels stay what the file has.

mod forms;
mod header;
mod place;
mod readers;

use super::content::{Content, Promise, Source};
use super::voxels::Voxels;
use super::{ReadOptions, Volume};
use crate::{Geometry, IngestError, checksum};
use header::{Header, NIFTI_2_BYTES, Problem, parse};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use forms::AffineChoice;
pub(crate) use forms::Forms;

/// Bytes of a NIfTI-1 header.
pub(crate) const NIFTI_1_BYTES: usize = 348;

/// The header of a NIfTI-1 file.
pub(crate) type NiftiHeaderBytes = [u8; NIFTI_1_BYTES];

/// What a mask's header takes from its CT's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaskTemplate {
    /// All of it, if it is NIfTI-1's.
    pub bytes: Option<NiftiHeaderBytes>,
    /// Where the voxels are.
    pub forms: Forms,
}

/// Whether a file begins with the size of a NIfTI header.
pub(super) fn is_nifti(head: &[u8]) -> bool {
    let sizes = [NIFTI_1_BYTES as i32, NIFTI_2_BYTES as i32];
    head.first_chunk()
        .is_some_and(|size| sizes.contains(&i32::from_le_bytes(*size)) || sizes.contains(&i32::from_be_bytes(*size)))
}

/// Reads a volume whose header is at the head of `source`.
pub(super) fn read(path: &Path, source: Source<'_>, options: &ReadOptions) -> Result<Volume, IngestError> {
    let error = Problem { path };
    if stem(path, "img").is_some() {
        // The name of the voxels of a pair: the header beside it says what they are.
        let header = partner(path, "img", "hdr");
        if let Some(header) = header {
            return read_pair(&header, Source::open(&header)?, path, options);
        }
    }
    let (header, _) = parse(&error, source.head())?;
    if header.pair {
        let image = partner(path, "hdr", "img").ok_or_else(|| {
            error.unsupported("the header of a .hdr/.img pair".to_owned(), "the .img file of the same name beside it")
        })?;
        return read_pair(path, source, &image, options);
    }
    volume(path, source, None, options)
}

/// Shape and geometry of a file with a NIfTI header; `None` if it is something else.
pub(super) fn grid(
    path: &Path,
    source: &Source<'_>,
    options: &ReadOptions,
) -> Option<Result<([usize; 3], Geometry), IngestError>> {
    let error = Problem { path };
    let (header, _) = parse(&error, source.head()).ok()?;
    let grid = || {
        let shape = header.shape(&error)?;
        Ok((shape, header.geometry(&error, shape, options.affine)?.0))
    };
    Some(grid())
}

fn read_pair(path: &Path, source: Source<'_>, image: &Path, options: &ReadOptions) -> Result<Volume, IngestError> {
    volume(path, source, Some(image), options)
}

/// The files that a volume is read from, the header first; names alone decide.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let path_buf = path.to_path_buf();
    match (partner(path, "img", "hdr"), partner(path, "hdr", "img")) {
        (Some(header), _) => vec![header, path_buf],
        (None, Some(image)) => vec![path_buf, image],
        (None, None) => vec![path_buf],
    }
}

/// `source` has the header, and the voxels too if there is no file for them.
fn volume(path: &Path, source: Source<'_>, image: Option<&Path>, options: &ReadOptions) -> Result<Volume, IngestError> {
    let error = Problem { path };
    let (header, bytes): (Header, _) = parse(&error, source.head())?;
    let shape = header.shape(&error)?;
    let scalar = header.scalar(&error)?;
    let (geometry, warnings) = header.geometry(&error, shape, options.affine)?;
    let count = shape.iter().product::<usize>();
    let voxel_bytes = (count * scalar.bytes()) as u64;
    let (content, at, sha256) = match image {
        None => {
            let at = header.voxels_at(&error)?;
            let Content { bytes, sha256 } = source.read(Promise { at, bytes: voxel_bytes })?;
            (bytes, at, sha256)
        }
        Some(image) => {
            // In a pair the offset counts from the beginning of the image file.
            let at = if header.vox_offset.is_finite() { header.vox_offset.max(0.0) as u64 } else { 0 };
            let Content { bytes, sha256 } = Source::open(image)?.read(Promise { at, bytes: voxel_bytes })?;
            let header_sha256 = checksum::sha256_of_file(path)?;
            (bytes, at, checksum::combined([header_sha256.as_str(), sha256.as_str()]))
        }
    };
    let voxels = Voxels::new(Arc::new(content), at as usize, count, scalar, header.order, header.scaling);
    let nifti_header = Some(MaskTemplate { bytes, forms: header.forms });
    let intensity = options.intensity;
    Ok(Volume {
        path: path.to_path_buf(),
        shape,
        voxels,
        geometry,
        sha256,
        intensity,
        warnings,
        nifti_header,
        slices_apart_voxels: 0.0,
        patient_id: None,
        series_sha256: None,
    })
}

/// The other file of a pair: gzipped or not, in the case of letters that is there.
fn partner(path: &Path, from: &str, to: &str) -> Option<PathBuf> {
    let stem = stem(path, from)?;
    let upper = to.to_uppercase();
    let names =
        [format!("{stem}.{to}"), format!("{stem}.{to}.gz"), format!("{stem}.{upper}"), format!("{stem}.{upper}.GZ")];
    names.iter().map(|name| path.with_file_name(name)).find(|path| path.is_file())
}

/// A file's name without this extension and `.gz`, if it has it.
fn stem<'a>(path: &'a Path, extension: &str) -> Option<&'a str> {
    let name = path.file_name()?.to_str()?;
    let lower = name.to_lowercase();
    let ends = [format!(".{extension}"), format!(".{extension}.gz")];
    ends.iter().find_map(|end| name.get(..lower.strip_suffix(end.as_str())?.len()))
}
