//! Masks back to NIfTI, with the geometry of the volume that they belong to.

use crate::volume::NiftiHeaderBytes;
use crate::{IngestError, Volume};
use flate2::{Compression, write::GzEncoder};
use slice_store::{StoreError, replace_file};
use std::io::Write;
use std::path::Path;

/// Writes a mask (the shape and voxel order of `like`) as NIfTI-1, unsigned bytes, gzipped if the name ends with `.gz`. If
/// `like` is NIfTI-1, the header is its own but for the data type, the scaling and the display range, so that every program
/// puts the two in the same place; else the header has `like`'s affine as its sform. (The `nifti` crate's writer takes the
/// file's name apart and loses what follows a dot in it.)
///
/// # Errors
/// A mask of another length, or what the operating system refuses; then nothing is left behind.
pub fn write_mask(path: &Path, mask: &[u8], like: &Volume) -> Result<(), IngestError> {
    let expected = like.shape.iter().product::<usize>();
    if mask.len() != expected {
        let problem = format!("its mask has {} voxels, '{}' has {expected}", mask.len(), like.path.display());
        return Err(StoreError::CaseData { case: path.display().to_string(), problem }.into());
    }
    if let Some(length) = like.shape.iter().find(|&&length| length > i16::MAX as usize) {
        let (found, expected) =
            (format!("{length} voxels along an axis"), "at most 32767, which is what NIfTI-1 can hold");
        return Err(IngestError::Unsupported { path: like.path.clone(), found, expected });
    }
    let header = mask_header(&like.nifti_header.unwrap_or_else(|| fresh_header(like)));
    replace_file(path, |file| {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
            let mut encoder = GzEncoder::new(file, Compression::default());
            encoder.write_all(&header)?;
            encoder.write_all(mask)?;
            encoder.finish()?.flush()
        } else {
            file.write_all(&header)?;
            file.write_all(mask)
        }
    })?;
    Ok(())
}

/// The header with what describes the voxels' type replaced, and four zero bytes: no extensions follow. Byte offsets are
/// those of nifti1.h.
fn mask_header(like: &NiftiHeaderBytes) -> Vec<u8> {
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
    put(112, &1_f32.to_le_bytes()); // scl_slope
    put(116, &0_f32.to_le_bytes()); // scl_inter
    put(124, &0_f32.to_le_bytes()); // cal_max
    put(128, &0_f32.to_le_bytes()); // cal_min
    put(140, &0_i32.to_le_bytes()); // glmax
    put(144, &0_i32.to_le_bytes()); // glmin
    header[344..348].copy_from_slice(b"n+1\0");
    header.extend([0; 4]);
    header
}

/// A header with a volume's shape, spacing and affine; offsets as above.
fn fresh_header(like: &Volume) -> NiftiHeaderBytes {
    let mut header = [0; size_of::<NiftiHeaderBytes>()];
    let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
    put(0, &348_i32.to_le_bytes());
    put(40, &3_i16.to_le_bytes());
    put(76, &1_f32.to_le_bytes());
    for axis in 0..3 {
        put(42 + 2 * axis, &(like.shape[axis] as i16).to_le_bytes());
        put(80 + 4 * axis, &(like.geometry.spacing_mm[axis] as f32).to_le_bytes());
    }
    for axis in 3..7 {
        put(42 + 2 * axis, &1_i16.to_le_bytes());
    }
    header[123] = 2; // xyzt_units: millimetres
    let mut put = |at: usize, value: &[u8]| header[at..at + value.len()].copy_from_slice(value);
    put(254, &1_i16.to_le_bytes()); // sform_code: scanner
    for (row, values) in like.geometry.affine.iter().take(3).enumerate() {
        for (column, value) in values.iter().enumerate() {
            put(280 + 16 * row + 4 * column, &(*value as f32).to_le_bytes());
        }
    }
    header
}
