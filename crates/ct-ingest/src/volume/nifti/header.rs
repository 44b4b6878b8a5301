//! The headers of NIfTI-1 and NIfTI-2 as one.
//!
//! The `nifti` crate parses the header of NIfTI-1. It knows no NIfTI-2, so those 540 bytes are read here (nifti2.h).

use super::forms::Forms;
use super::place::NoPlace;
use super::{AffineChoice, NIFTI_1_BYTES, NiftiHeaderBytes};
use crate::volume::voxels::{ByteOrder, Scalar, Scaling};
use crate::{Geometry, IngestError};
use nifti::{Endianness, NiftiHeader};
use std::path::Path;

/// Bytes of a NIfTI-2 header.
pub(super) const NIFTI_2_BYTES: usize = 540;

/// Of `xyzt_units`, what is about lengths.
const UNIT_BITS: u8 = 7;

/// What both versions say.
pub(super) struct Header {
    dim: [i64; 8],
    datatype: i16,
    pub order: ByteOrder,
    pub vox_offset: f64,
    pub scaling: Scaling,
    pub forms: Forms,
    /// The voxels are in a file of their own.
    pub pair: bool,
    /// Where voxels of a single file begin at the earliest.
    earliest: u64,
}

impl Header {
    pub fn shape(&self, error: &Problem<'_>) -> Result<[usize; 3], IngestError> {
        let rank = self.dim[0];
        if !(1..=7).contains(&rank) {
            return Err(error.not_nifti(format!("its dim[0] is {rank}, expected 1 to 7")));
        }
        let lengths = &self.dim[1..=rank as usize];
        if let Some(length) = lengths.iter().find(|&&length| length < 1) {
            return Err(error.not_nifti(format!("it has a dimension of {length}, expected a number above 0")));
        }
        if lengths.len() < 2 || lengths.iter().skip(3).any(|&length| length != 1) {
            let found = format!("{rank} dimensions of {lengths:?}");
            return Err(error.unsupported(found, "three, or more if the others have length 1"));
        }
        let length = |axis: usize| lengths.get(axis).map_or(1, |&length| length as usize);
        let shape = [length(0), length(1), length(2)];
        // Larger than any memory: products of what follows must not overflow.
        let voxels = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
        if voxels.is_none_or(|voxels| voxels > 1 << 48) {
            return Err(error.not_nifti(format!("its shape is {shape:?}, which no file can hold")));
        }
        Ok(shape)
    }

    /// The voxel type by its code, if it is one of real numbers.
    pub fn scalar(&self, error: &Problem<'_>) -> Result<Scalar, IngestError> {
        let name = match self.datatype {
            2 => return Ok(Scalar::U8),
            4 => return Ok(Scalar::I16),
            8 => return Ok(Scalar::I32),
            16 => return Ok(Scalar::F32),
            64 => return Ok(Scalar::F64),
            256 => return Ok(Scalar::I8),
            512 => return Ok(Scalar::U16),
            768 => return Ok(Scalar::U32),
            1024 => return Ok(Scalar::I64),
            1280 => return Ok(Scalar::U64),
            1 => "single bits",
            32 | 1792 | 2048 => "complex numbers",
            128 | 2304 => "colours (RGB or RGBA)",
            1536 => "floats of 128 bits",
            _ => "an unknown type",
        };
        let found = format!("voxels of {name} (datatype {})", self.datatype);
        Err(error.unsupported(found, "integers of up to 64 bits or floats of 32 or 64 bits"))
    }

    /// The affine that counts, and what is doubtful about it.
    pub fn geometry(
        &self,
        error: &Problem<'_>,
        shape: [usize; 3],
        choice: Option<AffineChoice>,
    ) -> Result<(Geometry, Vec<String>), IngestError> {
        let path = error.path.to_path_buf();
        self.forms.geometry(shape, choice).map_err(|no_place| match no_place {
            NoPlace::Unusable(problem) => IngestError::Geometry { path, problem },
            NoPlace::Disagree { voxels, sform, qform } => IngestError::AffinesDisagree { path, voxels, sform, qform },
        })
    }

    /// Where the voxels of a single file begin in its content.
    pub fn voxels_at(&self, error: &Problem<'_>) -> Result<u64, IngestError> {
        let offset = self.vox_offset;
        // Some writers leave it 0 and mean the usual place.
        let at = if offset == 0.0 { self.earliest as f64 } else { offset };
        if !(self.earliest as f64 - 4.0..1e9).contains(&at) {
            return Err(
                error.not_nifti(format!("its voxels begin at byte {offset}, expected {} or more", self.earliest))
            );
        }
        Ok(at as u64)
    }
}

/// The header, and its bytes if it is NIfTI-1's.
pub(super) fn parse(error: &Problem<'_>, head: &[u8]) -> Result<(Header, Option<NiftiHeaderBytes>), IngestError> {
    let Some(size) = head.first_chunk::<4>() else { return Err(error.short_header(head.len(), NIFTI_1_BYTES)) };
    match (i32::from_le_bytes(*size), i32::from_be_bytes(*size)) {
        (348, _) | (_, 348) => {
            let bytes = head.first_chunk().ok_or_else(|| error.short_header(head.len(), NIFTI_1_BYTES))?;
            Ok((parse_1(error, bytes)?, Some(*bytes)))
        }
        (540, _) => parse_2(error, head, ByteOrder::Little).map(|header| (header, None)),
        (_, 540) => parse_2(error, head, ByteOrder::Big).map(|header| (header, None)),
        _ if head.len() < NIFTI_1_BYTES => Err(error.short_header(head.len(), NIFTI_1_BYTES)),
        (little, _) => Err(error.not_nifti(format!("its header begins with {little}, expected 348 or 540"))),
    }
}

fn parse_1(error: &Problem<'_>, bytes: &NiftiHeaderBytes) -> Result<Header, IngestError> {
    let pair = match &bytes[344..348] {
        b"n+1\0" => false,
        b"ni1\0" => true,
        [0, 0, 0, 0] => {
            let found = "an Analyze 7.5 header, which does not say where the patient's left is".to_owned();
            return Err(error.unsupported(found, "NIfTI; convert it with a program that knows its orientation"));
        }
        other => {
            return Err(error.not_nifti(format!(
                "its magic is {:?}, expected \"n+1\\0\" or \"ni1\\0\"",
                other.escape_ascii().to_string()
            )));
        }
    };
    let header = NiftiHeader::from_reader(&bytes[..]).map_err(|problem| error.not_nifti(problem.to_string()))?;
    if header.sizeof_hdr != 348 {
        return Err(error.not_nifti(format!("its dim[0] is {}, expected 1 to 7", header.dim[0].swap_bytes())));
    }
    Ok(Header {
        // The format's dimensions are signed 16-bit numbers, which the crate reads as unsigned ones.
        dim: header.dim.map(|length| i64::from(length as i16)),
        datatype: header.datatype,
        order: if header.endianness == Endianness::Big { ByteOrder::Big } else { ByteOrder::Little },
        vox_offset: f64::from(header.vox_offset),
        scaling: Scaling::new(f64::from(header.scl_slope), f64::from(header.scl_inter)),
        forms: Forms {
            sform_code: i32::from(header.sform_code),
            qform_code: i32::from(header.qform_code),
            srow: [header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from)),
            bcd: [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from),
            offset: [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from),
            pixdim: [0, 1, 2, 3].map(|i| f64::from(header.pixdim[i])),
            unit: header.xyzt_units & UNIT_BITS,
            version: 1,
        },
        pair,
        earliest: 352,
    })
}

/// Byte offsets are those of nifti2.h.
fn parse_2(error: &Problem<'_>, head: &[u8], order: ByteOrder) -> Result<Header, IngestError> {
    let bytes: &[u8; NIFTI_2_BYTES] =
        head.first_chunk().ok_or_else(|| error.short_header(head.len(), NIFTI_2_BYTES))?;
    let pair = match &bytes[4..12] {
        b"n+2\0\r\n\x1a\n" => false,
        b"ni2\0\r\n\x1a\n" => true,
        other => {
            let found = other.escape_ascii().to_string();
            return Err(error.not_nifti(format!(
                "its magic is {found:?}, expected \"n+2\\0\\r\\n\\x1a\\n\": a file that was copied as text is damaged"
            )));
        }
    };
    let long = |at: usize| i64::from_le_bytes(field(bytes, at, order));
    let real = |at: usize| f64::from_le_bytes(field(bytes, at, order));
    let int = |at: usize| i32::from_le_bytes(field(bytes, at, order));
    Ok(Header {
        dim: std::array::from_fn(|i| long(16 + 8 * i)),
        datatype: i16::from_le_bytes(field(bytes, 12, order)),
        order,
        vox_offset: long(168) as f64,
        scaling: Scaling::new(real(176), real(184)),
        forms: Forms {
            sform_code: int(348),
            qform_code: int(344),
            srow: std::array::from_fn(|row| std::array::from_fn(|i| real(400 + 32 * row + 8 * i))),
            bcd: std::array::from_fn(|i| real(352 + 8 * i)),
            offset: std::array::from_fn(|i| real(376 + 8 * i)),
            pixdim: std::array::from_fn(|i| real(104 + 8 * i)),
            unit: int(500) as u8 & UNIT_BITS,
            version: 2,
        },
        pair,
        earliest: 544,
    })
}

/// A number of NIfTI-2, in little-endian order.
fn field<const N: usize>(bytes: &[u8; NIFTI_2_BYTES], at: usize, order: ByteOrder) -> [u8; N] {
    let mut field: [u8; N] = std::array::from_fn(|i| bytes[at + i]);
    if order == ByteOrder::Big {
        field.reverse();
    }
    field
}

/// Makes errors about one file.
pub(super) struct Problem<'a> {
    pub path: &'a Path,
}

impl Problem<'_> {
    pub fn not_nifti(&self, problem: String) -> IngestError {
        IngestError::NotNifti { path: self.path.to_path_buf(), problem }
    }

    pub fn unsupported(&self, found: String, expected: &'static str) -> IngestError {
        IngestError::Unsupported { path: self.path.to_path_buf(), found, expected }
    }

    fn short_header(&self, found: usize, expected: usize) -> IngestError {
        let (found, expected) = (found as u64, expected as u64);
        IngestError::Truncated { path: self.path.to_path_buf(), part: "header", found, expected }
    }
}
