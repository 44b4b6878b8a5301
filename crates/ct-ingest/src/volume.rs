//! NIfTI-1 volumes, `.nii` or gzipped, read with every length checked before memory is asked for.
//!
//! The header is parsed by the `nifti` crate; voxels are decoded as they are read, so that a volume is in memory once.

use crate::{Geometry, IngestError};
use flate2::read::MultiGzDecoder;
use nifti::{Endianness, NiftiHeader, NiftiType};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// Bytes of a NIfTI-1 header; in a single file, voxels begin at 352 or later.
pub(crate) const HEADER_BYTES: usize = 348;

/// Deflate can't pack more than 1032 bytes into one.
const MOST_COMPRESSION: u64 = 1032;

/// A volume in the voxel order of its file: the first axis runs fastest.
#[derive(Clone, Debug)]
pub struct Volume {
    /// The file.
    pub path: PathBuf,
    /// Voxels along each axis.
    pub shape: [usize; 3],
    /// Values after the header's scaling: HU for a CT, labels for a mask.
    pub voxels: Voxels,
    /// Where the voxels are.
    pub geometry: Geometry,
    /// SHA-256 (hexadecimal) of the file as it is on disk.
    pub sha256: String,
    /// The header's bytes, so that a mask can be written with the same geometry, whatever else it says.
    pub(crate) header: [u8; HEADER_BYTES],
}

/// Voxel values; 16-bit integers stay what they are, everything else becomes `f32`.
#[derive(Clone, Debug, PartialEq)]
pub enum Voxels {
    /// Unscaled integers of up to 16 bits.
    I16(Vec<i16>),
    /// Everything else.
    F32(Vec<f32>),
}

impl Voxels {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::I16(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One value. Panics where there is none.
    pub fn get(&self, index: usize) -> f32 {
        match self {
            Self::I16(values) => f32::from(values[index]),
            Self::F32(values) => values[index],
        }
    }
}

impl Volume {
    /// What is compared before two volumes meet.
    pub fn grid(&self) -> crate::Grid<'_> {
        crate::Grid { path: &self.path, shape: self.shape, geometry: &self.geometry }
    }
}

/// Reads a three-dimensional NIfTI-1 volume of real numbers; gzip is recognised by its content. A fourth dimension may
/// have the length 1.
///
/// # Errors
/// Everything else has an error of its own: NIfTI-2, `.hdr`/`.img` pairs, colours, complex numbers, time series,
/// files that end too early, damaged compression, an affine that flattens space.
pub fn read_volume(path: &Path) -> Result<Volume, IngestError> {
    let mut file = File::open(path).map_err(IngestError::io("read", path))?;
    let file_bytes = file.metadata().map_err(IngestError::io("read", path))?.len();
    let mut magic = Vec::new();
    (&file).take(2).read_to_end(&mut magic).map_err(IngestError::io("read", path))?;
    file.rewind().map_err(IngestError::io("read", path))?;
    let source = BufReader::with_capacity(1 << 18, HashingReader { inner: file, hash: Sha256::new() });
    if magic == [0x1f, 0x8b] {
        let most = file_bytes.saturating_mul(MOST_COMPRESSION);
        let decoder = BufReader::with_capacity(1 << 18, MultiGzDecoder::new(source));
        let (mut volume, decoder) = read_stream(path, decoder, most)?;
        volume.sha256 = decoder.into_inner().into_inner().into_inner().finish(path)?;
        Ok(volume)
    } else {
        let (mut volume, source) = read_stream(path, source, file_bytes)?;
        volume.sha256 = source.into_inner().finish(path)?;
        Ok(volume)
    }
}

/// Reads a stream to its end (a gzip stream's checksum comes last); `most_bytes` is what it can't be longer than.
fn read_stream<R: Read>(path: &Path, mut stream: R, most_bytes: u64) -> Result<(Volume, R), IngestError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    (&mut stream).take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(|error| read_error(path, error))?;
    let bytes: [u8; HEADER_BYTES] = bytes.try_into().map_err(|bytes: Vec<u8>| IngestError::Truncated {
        path: path.to_path_buf(),
        part: "header",
        found: bytes.len() as u64,
        expected: HEADER_BYTES as u64,
    })?;
    let header = parse_header(path, &bytes)?;
    let shape = shape(path, &header)?;
    let data_type = data_type(path, &header)?;
    let geometry = Geometry::of_header(&header, shape, path)?;

    let voxels_at = voxels_at(path, &header)?;
    let count = shape.iter().product::<usize>();
    let voxel_bytes = (count * data_type.size_of()) as u64;
    let truncated =
        |found: u64| IngestError::Truncated { path: path.to_path_buf(), part: "voxels", found, expected: voxel_bytes };
    if voxels_at + voxel_bytes > most_bytes {
        return Err(truncated(most_bytes.saturating_sub(voxels_at)));
    }
    let between = voxels_at - HEADER_BYTES as u64;
    let skipped =
        io::copy(&mut (&mut stream).take(between), &mut io::sink()).map_err(|error| read_error(path, error))?;
    if skipped < between {
        return Err(truncated(0));
    }
    let mut decoder = Decoder { path, stream, count, scaling: Scaling::of(&header), endianness: header.endianness };
    let voxels = decoder.voxels(data_type)?;
    if voxels.len() < count {
        return Err(truncated((voxels.len() * data_type.size_of()) as u64));
    }
    let mut stream = decoder.stream;
    io::copy(&mut stream, &mut io::sink()).map_err(|error| read_error(path, error))?;
    let path = path.to_path_buf();
    Ok((Volume { path, shape, voxels, geometry, sha256: String::new(), header: bytes }, stream))
}

/// Checks what the `nifti` crate doesn't: the size field tells NIfTI-1 from NIfTI-2 and from anything else.
fn parse_header(path: &Path, bytes: &[u8; HEADER_BYTES]) -> Result<NiftiHeader, IngestError> {
    let not_nifti = |problem: String| IngestError::NotNifti { path: path.to_path_buf(), problem };
    let size = [bytes[0], bytes[1], bytes[2], bytes[3]];
    match (i32::from_le_bytes(size), i32::from_be_bytes(size)) {
        (348, _) | (_, 348) => {}
        (540, _) | (_, 540) => {
            let found = "a NIfTI-2 header".to_owned();
            let expected = "NIfTI-1; convert it, for example with nibabel";
            return Err(IngestError::Unsupported { path: path.to_path_buf(), found, expected });
        }
        (little, _) => return Err(not_nifti(format!("its header begins with {little}, expected 348"))),
    }
    match &bytes[344..348] {
        b"n+1\0" => {}
        b"ni1\0" => {
            let found = "the header of a .hdr/.img pair".to_owned();
            let expected = "a single .nii or .nii.gz file; convert it, for example with nibabel";
            return Err(IngestError::Unsupported { path: path.to_path_buf(), found, expected });
        }
        other => {
            return Err(not_nifti(format!("its magic is {:?}, expected \"n+1\\0\"", other.escape_ascii().to_string())));
        }
    }
    let header = NiftiHeader::from_reader(&bytes[..]).map_err(|error| not_nifti(error.to_string()))?;
    if header.sizeof_hdr != 348 {
        return Err(not_nifti(format!("its dim[0] is {}, expected 1 to 7", header.dim[0].swap_bytes())));
    }
    Ok(header)
}

fn shape(path: &Path, header: &NiftiHeader) -> Result<[usize; 3], IngestError> {
    let dim =
        header.dim().map_err(|error| IngestError::NotNifti { path: path.to_path_buf(), problem: error.to_string() })?;
    if dim.len() < 2 || dim.iter().skip(3).any(|&length| length != 1) {
        let found = format!("{} dimensions of {dim:?}", dim.len());
        let expected = "three, or more if the others have length 1";
        return Err(IngestError::Unsupported { path: path.to_path_buf(), found, expected });
    }
    // The format's dimensions are signed 16-bit numbers, which the crate reads as unsigned ones.
    if let Some(&length) = dim.iter().find(|&&length| length > i16::MAX as u16) {
        let problem = format!("it has a dimension of {}, expected a number above 0", length as i16);
        return Err(IngestError::NotNifti { path: path.to_path_buf(), problem });
    }
    let length = |axis: usize| dim.get(axis).map_or(1, |&length| length as usize);
    Ok([length(0), length(1), length(2)])
}

/// The voxel type, if it is one of real numbers.
fn data_type(path: &Path, header: &NiftiHeader) -> Result<NiftiType, IngestError> {
    use NiftiType::{Float32, Float64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
    let data_type = match header.data_type() {
        Ok(known) if matches!(known, Uint8 | Int8 | Uint16 | Int16 | Uint32 | Int32 | Uint64 | Int64) => known,
        Ok(known) if matches!(known, Float32 | Float64) => known,
        other => {
            let found = match other {
                Ok(known) => format!("voxels of type {known:?}"),
                Err(_) => format!("voxels of the unknown type {}", header.datatype),
            };
            let expected = "integers of up to 64 bits or floats of 32 or 64 bits";
            return Err(IngestError::Unsupported { path: path.to_path_buf(), found, expected });
        }
    };
    Ok(data_type)
}

/// Where the voxels begin in the decompressed file.
fn voxels_at(path: &Path, header: &NiftiHeader) -> Result<u64, IngestError> {
    let offset = header.vox_offset;
    // Some writers leave it 0 and mean the usual place.
    let at = if offset == 0.0 { 352.0 } else { offset };
    if !(HEADER_BYTES as f32..1e9).contains(&at) {
        let problem = format!("its voxels begin at byte {offset}, expected 352 or more");
        return Err(IngestError::NotNifti { path: path.to_path_buf(), problem });
    }
    Ok(at as u64)
}

/// `scl_slope` and `scl_inter`; a slope of 0 or NaN means that there is none.
#[derive(Clone, Copy)]
struct Scaling {
    slope: f64,
    inter: f64,
}

impl Scaling {
    fn of(header: &NiftiHeader) -> Self {
        let [slope, inter] = [header.scl_slope, header.scl_inter].map(f64::from);
        match (slope != 0.0 && slope.is_finite(), inter.is_finite()) {
            (true, true) => Self { slope, inter },
            (true, false) => Self { slope, inter: 0.0 },
            (false, _) => Self { slope: 1.0, inter: 0.0 },
        }
    }

    fn is_none(self) -> bool {
        self.slope == 1.0 && self.inter == 0.0
    }
}

/// Turns bytes into numbers, a block at a time.
struct Decoder<'a, R> {
    path: &'a Path,
    stream: R,
    count: usize,
    scaling: Scaling,
    endianness: Endianness,
}

impl<R: Read> Decoder<'_, R> {
    /// All voxels, or fewer if the stream ends too early.
    fn voxels(&mut self, data_type: NiftiType) -> Result<Voxels, IngestError> {
        let Scaling { slope, inter } = self.scaling;
        let scaled = move |value: f64| (value * slope + inter) as f32;
        Ok(match data_type {
            NiftiType::Int16 if self.scaling.is_none() => Voxels::I16(self.read(i16::from_le_bytes)?),
            NiftiType::Uint8 if self.scaling.is_none() => Voxels::I16(self.read(|[byte]| i16::from(byte))?),
            NiftiType::Int8 if self.scaling.is_none() => Voxels::I16(self.read(|[byte]| i16::from(byte as i8))?),
            NiftiType::Uint8 => Voxels::F32(self.read(|[byte]| scaled(f64::from(byte)))?),
            NiftiType::Int8 => Voxels::F32(self.read(|[byte]| scaled(f64::from(byte as i8)))?),
            NiftiType::Int16 => Voxels::F32(self.read(|b| scaled(f64::from(i16::from_le_bytes(b))))?),
            NiftiType::Uint16 => Voxels::F32(self.read(|b| scaled(f64::from(u16::from_le_bytes(b))))?),
            NiftiType::Int32 => Voxels::F32(self.read(|b| scaled(f64::from(i32::from_le_bytes(b))))?),
            NiftiType::Uint32 => Voxels::F32(self.read(|b| scaled(f64::from(u32::from_le_bytes(b))))?),
            NiftiType::Int64 => Voxels::F32(self.read(|b| scaled(i64::from_le_bytes(b) as f64))?),
            NiftiType::Uint64 => Voxels::F32(self.read(|b| scaled(u64::from_le_bytes(b) as f64))?),
            NiftiType::Float32 => Voxels::F32(self.read(|b| scaled(f64::from(f32::from_le_bytes(b))))?),
            _ => Voxels::F32(self.read(|b| scaled(f64::from_le_bytes(b)))?),
        })
    }

    fn read<const N: usize, T>(&mut self, number: impl Fn([u8; N]) -> T) -> Result<Vec<T>, IngestError> {
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(self.count).map_err(|_| IngestError::OutOfMemory {
            path: self.path.to_path_buf(),
            bytes: (self.count * size_of::<T>()) as u64,
        })?;
        let mut block = Vec::with_capacity(1 << 16);
        while numbers.len() < self.count {
            let wanted = ((self.count - numbers.len()) * N).min(1 << 16);
            block.clear();
            (&mut self.stream)
                .take(wanted as u64)
                .read_to_end(&mut block)
                .map_err(|error| read_error(self.path, error))?;
            let (elements, _) = block.as_chunks_mut::<N>();
            if self.endianness == Endianness::Big {
                for element in elements.iter_mut() {
                    element.reverse();
                }
            }
            numbers.extend(elements.iter().map(|element| number(*element)));
            if block.len() < wanted {
                break;
            }
        }
        Ok(numbers)
    }
}

/// Decoders of damaged gzip data say so by these kinds; everything else is the operating system's.
fn read_error(path: &Path, reason: io::Error) -> IngestError {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    let path = path.to_path_buf();
    if matches!(reason.kind(), InvalidData | InvalidInput | UnexpectedEof) {
        IngestError::Gzip { path, reason }
    } else {
        IngestError::Io { action: "read", path, reason }
    }
}

/// Passes a file on and computes its SHA-256.
struct HashingReader {
    inner: File,
    hash: Sha256,
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

impl HashingReader {
    /// Reads what is left, so that the sum is the whole file's.
    fn finish(mut self, path: &Path) -> Result<String, IngestError> {
        io::copy(&mut self, &mut io::sink()).map_err(IngestError::io("read", path))?;
        Ok(hex(&self.hash.finalize()))
    }
}

/// SHA-256 (hexadecimal) of a file.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String, IngestError> {
    let inner = File::open(path).map_err(IngestError::io("read", path))?;
    HashingReader { inner, hash: Sha256::new() }.finish(path)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
