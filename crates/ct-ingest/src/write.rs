//! Masks back to NIfTI, with the geometry of the volume that they belong to.

use crate::volume::{Forms, NiftiHeaderBytes};
use crate::{Grid, IngestError, Volume};
use flate2::{Compression, write::GzEncoder};
use slice_store::{StoreError, replace_file};
use std::io::Write;
use std::path::Path;

/// Writes a mask (the shape and voxel order of `like`) as NIfTI-1, unsigned bytes, gzipped if the name ends with `.gz`. (The
/// `nifti` crate's writer takes the file's name apart and loses what follows a dot in it.)
///
/// If `like` is NIfTI-1, the header is its own but for the data type, the scaling and the display range, so that every program
/// puts the two in the same place; a qform is added where ITK can't open the file without one. Else the header has `like`'s
/// affine as its sform, and as its qform the nearest rotation that keeps the slices' rows and columns (see [`mask_doubt`]).
///
/// # Errors
/// A mask of another length, or what the operating system refuses; then nothing is left behind.
pub fn write_mask(path: &Path, mask: &[u8], like: &Volume) -> Result<(), IngestError> {
    write_bytes(path, mask, like.grid(), &header_like(like, Levels::Labels))
}

/// The same for a grid alone, of a CT that isn't there.
///
/// # Errors
/// As [`write_mask`].
pub fn write_mask_on_grid(path: &Path, mask: &[u8], grid: Grid<'_>) -> Result<(), IngestError> {
    let header = fresh_header(grid.shape, MILLIMETRES);
    write_bytes(path, mask, grid, &mask_header(&header, &Forms::of_geometry(grid.geometry), Levels::Labels))
}

/// The same for probabilities in 255ths, which the header scales to 0 to 1.
///
/// # Errors
/// As [`write_mask`].
pub fn write_probabilities(path: &Path, probabilities: &[u8], like: &Volume) -> Result<(), IngestError> {
    write_bytes(path, probabilities, like.grid(), &header_like(like, Levels::Shares))
}

fn header_like(like: &Volume, levels: Levels) -> Vec<u8> {
    let bytes = like.nifti_header.and_then(|template| template.bytes).unwrap_or_else(|| {
        let unit = like.nifti_header.map_or(MILLIMETRES, |template| template.forms.unit);
        fresh_header(like.shape, unit)
    });
    mask_header(&bytes, &mask_forms(like), levels)
}

/// What the bytes of a written volume mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Levels {
    /// Themselves.
    Labels,
    /// 255ths.
    Shares,
}

/// The NIfTI code of the unit.
const MILLIMETRES: u8 = 2;

fn write_bytes(path: &Path, values: &[u8], grid: Grid<'_>, header: &[u8]) -> Result<(), IngestError> {
    let expected = grid.shape.iter().product::<usize>();
    if values.len() != expected {
        let problem = format!("its mask has {} voxels, '{}' has {expected}", values.len(), grid.path.display());
        return Err(StoreError::CaseData { case: path.display().to_string(), problem }.into());
    }
    if let Some(length) = grid.shape.iter().find(|&&length| length > i16::MAX as usize) {
        let (found, expected) =
            (format!("{length} voxels along an axis"), "at most 32767, which is what NIfTI-1 can hold");
        return Err(IngestError::Unsupported { path: grid.path.to_owned(), found, expected });
    }
    replace_file(path, |file| {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
            let mut encoder = GzEncoder::new(file, Compression::default());
            encoder.write_all(header)?;
            encoder.write_all(values)?;
            encoder.finish()?.flush()
        } else {
            file.write_all(header)?;
            file.write_all(values)
        }
    })?;
    Ok(())
}

/// What a person should know of the mask of a volume: that SimpleITK, 3D Slicer and ITK-SNAP put it more than 0.05 voxel from its
/// CT at the farthest corner, because the slices are sheared (a tilted gantry, a table that drifts) and NIfTI has no shear that
/// they read. Nothing where the CT itself is NIfTI that they read: the mask then lies on it, wherever that is.
pub fn mask_doubt(like: &Volume) -> Option<String> {
    if like.nifti_header.is_some_and(|template| template.forms.itk_reads()) {
        return None;
    }
    mask_forms(like).mask_doubt(&like.geometry, like.shape)
}

fn mask_forms(like: &Volume) -> Forms {
    like.nifti_header.map_or_else(|| Forms::of_geometry(&like.geometry), |template| template.forms.for_mask())
}

/// The header with what describes the voxels' type and their place replaced, and four zero bytes: no extensions follow. Byte
/// offsets are those of nifti1.h.
fn mask_header(like: &NiftiHeaderBytes, forms: &Forms, levels: Levels) -> Vec<u8> {
    let little = like[..4] == 348_i32.to_le_bytes();
    let mut header = like.to_vec();
    let mut put = |at: usize, value: &[u8]| {
        let mut value = value.to_vec();
        if !little {
            value.reverse();
        }
        header[at..at + value.len()].copy_from_slice(&value);
    };
    put(68, &0_i16.to_le_bytes()); // intent_code
    put(70, &2_i16.to_le_bytes()); // datatype: unsigned char
    put(72, &8_i16.to_le_bytes()); // bitpix
    put(108, &352_f32.to_le_bytes()); // vox_offset
    // 255 of them are no more than 1.
    let slope = if levels == Levels::Shares { (1.0_f32 / 255.0).next_down() } else { 1.0 };
    put(112, &slope.to_le_bytes()); // scl_slope
    put(116, &0_f32.to_le_bytes()); // scl_inter
    put(124, &0_f32.to_le_bytes()); // cal_max
    put(128, &0_f32.to_le_bytes()); // cal_min
    put(140, &0_i32.to_le_bytes()); // glmax
    put(144, &0_i32.to_le_bytes()); // glmin
    put(252, &(forms.qform_code as i16).to_le_bytes());
    put(254, &(forms.sform_code as i16).to_le_bytes());
    let quaternion = forms.bcd.into_iter().chain(forms.offset);
    let srow = forms.srow.into_iter().flatten();
    for (at, value) in (76..).step_by(4).zip(forms.pixdim).chain((256..).step_by(4).zip(quaternion.chain(srow))) {
        put(at, &(value as f32).to_le_bytes());
    }
    header[344..348].copy_from_slice(b"n+1\0");
    header.extend([0; 4]);
    header
}

/// A header with a volume's shape; offsets as above.
fn fresh_header(shape: [usize; 3], unit: u8) -> NiftiHeaderBytes {
    let mut header = [0; size_of::<NiftiHeaderBytes>()];
    let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
    put(0, &348_i32.to_le_bytes());
    put(40, &3_i16.to_le_bytes());
    for axis in 0..7 {
        let length = shape.get(axis).map_or(1, |&length| length as i16);
        put(42 + 2 * axis, &length.to_le_bytes());
    }
    // xyzt_units
    header[123] = unit;
    header
}
