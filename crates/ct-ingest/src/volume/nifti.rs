//! NIfTI-1 and NIfTI-2: single files and `.hdr`/`.img` pairs, gzipped or not, in both byte orders.
//!
//! The `nifti` crate parses the header of NIfTI-1. It knows no NIfTI-2, and its volumes are converted copies that it inflates
//! on the way; so the 540 bytes of NIfTI-2 are read here (nifti2.h), and voxels stay what the file has.

use super::content::{Content, Promise, Source};
use super::voxels::{ByteOrder, Scalar, Scaling, Voxels};
use super::{ReadOptions, Volume};
use crate::geometry::{Geometry, Quaternion, qform_affine, voxel_size_affine};
use crate::{AffineKind, IngestError, checksum};
use nifti::{Endianness, NiftiHeader};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a NIfTI-1 header.
pub(crate) const NIFTI_1_BYTES: usize = 348;
/// Bytes of a NIfTI-2 header.
const NIFTI_2_BYTES: usize = 540;

/// The header of a NIfTI-1 file.
pub(crate) type NiftiHeaderBytes = [u8; NIFTI_1_BYTES];

/// Two affines of one file mean the same place if no corner is further apart than this.
const AFFINES_AGREE_VOXELS: f64 = 1.0;

/// One of a NIfTI file's two affines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AffineChoice {
    /// The `sform` rows.
    Sform,
    /// The `qform` quaternion.
    Qform,
}

/// What both versions say.
struct Header {
    dim: [i64; 8],
    datatype: i16,
    order: ByteOrder,
    pixdim: [f64; 8],
    vox_offset: f64,
    scaling: Scaling,
    qform_code: i32,
    sform_code: i32,
    quaternion: Quaternion,
    srow: [[f64; 4]; 3],
    /// The voxels are in a file of their own.
    pair: bool,
    /// Where voxels of a single file begin at the earliest.
    earliest: u64,
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
        let shape = shape(&error, &header)?;
        Ok((shape, geometry(&error, &header, shape, options.affine)?.0))
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
    let (header, bytes) = parse(&error, source.head())?;
    let shape = shape(&error, &header)?;
    let scalar = scalar(&error, header.datatype)?;
    let (geometry, warnings) = geometry(&error, &header, shape, options.affine)?;
    let count = shape.iter().product::<usize>();
    let voxel_bytes = (count * scalar.bytes()) as u64;
    let (content, at, sha256) = match image {
        None => {
            let at = voxels_at(&error, &header)?;
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
    let nifti_header = bytes.filter(|_| image.is_none());
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
        patient_id: None,
    })
}

/// The header, and its bytes if it is NIfTI-1's.
fn parse(error: &Problem<'_>, head: &[u8]) -> Result<(Header, Option<NiftiHeaderBytes>), IngestError> {
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
        pixdim: header.pixdim.map(f64::from),
        vox_offset: f64::from(header.vox_offset),
        scaling: Scaling::new(f64::from(header.scl_slope), f64::from(header.scl_inter)),
        qform_code: i32::from(header.qform_code),
        sform_code: i32::from(header.sform_code),
        quaternion: Quaternion {
            bcd: [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from),
            offset: [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from),
            rounding: f64::from(f32::EPSILON),
        },
        srow: [header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from)),
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
        pixdim: std::array::from_fn(|i| real(104 + 8 * i)),
        vox_offset: long(168) as f64,
        scaling: Scaling::new(real(176), real(184)),
        qform_code: int(344),
        sform_code: int(348),
        quaternion: Quaternion {
            bcd: std::array::from_fn(|i| real(352 + 8 * i)),
            offset: std::array::from_fn(|i| real(376 + 8 * i)),
            rounding: f64::EPSILON,
        },
        srow: std::array::from_fn(|row| std::array::from_fn(|column| real(400 + 32 * row + 8 * column))),
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
fn shape(error: &Problem<'_>, header: &Header) -> Result<[usize; 3], IngestError> {
    let rank = header.dim[0];
    if !(1..=7).contains(&rank) {
        return Err(error.not_nifti(format!("its dim[0] is {rank}, expected 1 to 7")));
    }
    let lengths = &header.dim[1..=rank as usize];
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
fn scalar(error: &Problem<'_>, code: i16) -> Result<Scalar, IngestError> {
    let name = match code {
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
    let found = format!("voxels of {name} (datatype {code})");
    Err(error.unsupported(found, "integers of up to 64 bits or floats of 32 or 64 bits"))
}

/// The affine that counts, and what is doubtful about it. The standard's precedence: the sform, where its code is not 0,
/// else the qform, else the voxel sizes.
fn geometry(
    error: &Problem<'_>,
    header: &Header,
    shape: [usize; 3],
    choice: Option<AffineChoice>,
) -> Result<(Geometry, Vec<String>), IngestError> {
    let [x, y, z] = header.srow;
    let sform = (header.sform_code > 0).then_some([x, y, z, [0.0, 0.0, 0.0, 1.0]]);
    let qform = (header.qform_code > 0).then(|| qform_affine(&header.quaternion, &header.pixdim));
    let of = |affine, kind: AffineKind| {
        Geometry::of_affine(affine, kind).map_err(|problem| IngestError::Geometry {
            path: error.path.to_path_buf(),
            problem: format!("its {} gives the affine {affine:?}, {problem}", kind.name()),
        })
    };
    let (affine, kind) = match (sform, qform, choice) {
        (Some(sform), Some(qform), None) => {
            let sform = of(sform, AffineKind::Sform)?;
            // A qform that is no affine at all is no second opinion, nor is that of a tilted gantry: it knows only rotations.
            let tilted = sform.shear_degrees().iter().any(|&degrees| degrees > 0.1);
            if let (Ok(qform), false) = (Geometry::of_affine(qform, AffineKind::Qform), tilted) {
                let apart = sform.largest_distance_voxels(&qform, shape);
                if apart > AFFINES_AGREE_VOXELS {
                    return Err(IngestError::AffinesDisagree {
                        path: error.path.to_path_buf(),
                        voxels: apart,
                        sform: sform.to_string(),
                        qform: qform.to_string(),
                    });
                }
            }
            return Ok((sform, Vec::new()));
        }
        (Some(affine), _, None | Some(AffineChoice::Sform)) | (Some(affine), None, Some(AffineChoice::Qform)) => {
            (affine, AffineKind::Sform)
        }
        (_, Some(affine), _) => (affine, AffineKind::Qform),
        (None, None, _) => (voxel_size_affine(&header.pixdim, shape), AffineKind::VoxelSizes),
    };
    let geometry = of(affine, kind)?;
    let assumed = format!("the header has no orientation: {} is assumed, as nibabel does", geometry.orientation);
    let warnings = if kind == AffineKind::VoxelSizes { vec![assumed] } else { Vec::new() };
    Ok((geometry, warnings))
}

/// Where the voxels of a single file begin in its content.
fn voxels_at(error: &Problem<'_>, header: &Header) -> Result<u64, IngestError> {
    let offset = header.vox_offset;
    // Some writers leave it 0 and mean the usual place.
    let at = if offset == 0.0 { header.earliest as f64 } else { offset };
    if !(header.earliest as f64 - 4.0..1e9).contains(&at) {
        return Err(error.not_nifti(format!("its voxels begin at byte {offset}, expected {} or more", header.earliest)));
    }
    Ok(at as u64)
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

/// Makes errors about one file.
struct Problem<'a> {
    path: &'a Path,
}

impl Problem<'_> {
    fn not_nifti(&self, problem: String) -> IngestError {
        IngestError::NotNifti { path: self.path.to_path_buf(), problem }
    }

    fn unsupported(&self, found: String, expected: &'static str) -> IngestError {
        IngestError::Unsupported { path: self.path.to_path_buf(), found, expected }
    }

    fn short_header(&self, found: usize, expected: usize) -> IngestError {
        let (found, expected) = (found as u64, expected as u64);
        IngestError::Truncated { path: self.path.to_path_buf(), part: "header", found, expected }
    }
}
