//! A file's content: memory-mapped as it is, or inflated whole where it is gzipped.
//!
//! Invariant: memory is asked for only when the file is long enough to hold what its header promises.

use super::members::GzipMembers;
use crate::IngestError;
use crate::checksum::{HashingReader, sha256};
use flate2::read::ZlibDecoder;
use libdeflater::{DecompressionError, Decompressor};
use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Deref;
use std::path::Path;

/// What is read to recognise a file and to parse its header.
const HEAD_BYTES: u64 = 1 << 16;

/// A header of text may be as long as this: segmentations of 3D Slicer describe each of hundreds of segments there.
pub(super) const LONGEST_TEXT_HEADER: u64 = 1 << 20;

/// Deflate can't pack more than 1032 bytes into one.
pub(super) const MOST_COMPRESSION: u64 = 1032;

/// What may follow the last voxel of a file that is inflated in one go.
const LARGEST_TAIL: u64 = 1 << 20;

/// Gzip files above this size are inflated as a stream, so that they are not in memory beside what they become.
const STREAMED_ABOVE: u64 = 1 << 31;

/// Bytes in memory, wherever they came from.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// A file on disk.
    Mapped(Mmap),
    /// Inflated from a file, or made by a decoder.
    Inflated(MmapMut),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Inflated(map) => map,
        }
    }
}

/// A file that was opened and looked at.
pub(crate) struct Source<'a> {
    path: &'a Path,
    file: File,
    file_bytes: u64,
    gzipped: bool,
    head: Vec<u8>,
}

/// A file's bytes (inflated) and the SHA-256 (hexadecimal) of the file as it is on disk.
pub(crate) struct Content {
    pub bytes: Bytes,
    pub sha256: String,
}

/// A stretch of a content that a header promises.
#[derive(Clone, Copy)]
pub(crate) struct Promise {
    /// Where the voxels begin.
    pub at: u64,
    /// Their length in bytes.
    pub bytes: u64,
}

impl<'a> Source<'a> {
    /// Opens a file; gzip is recognised by its content.
    pub fn open(path: &'a Path) -> Result<Self, IngestError> {
        let file = File::open(path).map_err(IngestError::io("read", path))?;
        let file_bytes = file.metadata().map_err(IngestError::io("read", path))?.len();
        let mut head = Vec::new();
        (&file).take(HEAD_BYTES).read_to_end(&mut head).map_err(IngestError::io("read", path))?;
        let gzipped = head.starts_with(&[0x1f, 0x8b]);
        let mut source = Self { path, file, file_bytes, gzipped, head };
        if gzipped {
            source.read_head(HEAD_BYTES)?;
        }
        Ok(source)
    }

    /// Reads the first bytes of the content again, so many at most.
    fn read_head(&mut self, bytes: u64) -> Result<(), IngestError> {
        self.file.rewind().map_err(IngestError::io("read", self.path))?;
        self.head.clear();
        if !self.gzipped {
            (&self.file).take(bytes).read_to_end(&mut self.head).map_err(IngestError::io("read", self.path))?;
            return Ok(());
        }
        // What goes wrong behind the header is found when all of it is read.
        let read = GzipMembers::new(io::BufReader::new(&self.file)).take(bytes).read_to_end(&mut self.head);
        match read {
            Err(error) if self.head.is_empty() => Err(read_error(self.path, error)),
            _ => Ok(()),
        }
    }

    /// Reads on, where the head is one of text that may go on behind it: up to [`LONGEST_TEXT_HEADER`] bytes.
    pub fn lengthen_head(&mut self) -> Result<(), IngestError> {
        if self.head.len() as u64 == HEAD_BYTES { self.read_head(LONGEST_TEXT_HEADER) } else { Ok(()) }
    }

    /// Opens a file whose bytes mean what they are, even if they look like gzip.
    pub fn open_as_it_is(path: &'a Path) -> Result<Self, IngestError> {
        let file = File::open(path).map_err(IngestError::io("read", path))?;
        let file_bytes = file.metadata().map_err(IngestError::io("read", path))?.len();
        Ok(Self { path, file, file_bytes, gzipped: false, head: Vec::new() })
    }

    /// Whether the content is what a gzip file holds.
    pub fn is_gzipped(&self) -> bool {
        self.gzipped
    }

    /// The first bytes of the content: 64 KiB at most, unless more were asked for.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// All of it, at least as long as the promise; a gzip stream's checksum is compared.
    pub fn read(mut self, promise: Promise) -> Result<Content, IngestError> {
        let most = if self.gzipped { self.file_bytes.saturating_mul(MOST_COMPRESSION) } else { self.file_bytes };
        if promise.at.saturating_add(promise.bytes) > most {
            return Err(promise.broken(self.path, most));
        }
        let io = |error| IngestError::Io { action: "read", path: self.path.to_path_buf(), reason: error };
        if !self.gzipped {
            let map = slice_store::map_file(&self.file).map_err(io)?;
            let sha256 = sha256(&map);
            return Ok(Content { bytes: Bytes::Mapped(map), sha256 });
        }
        self.file.rewind().map_err(io)?;
        if self.file_bytes > STREAMED_ABOVE {
            let mut hashing = HashingReader::new(self.file);
            let bytes = inflate_stream(self.path, GzipMembers::new(io::BufReader::new(&mut hashing)), promise)?;
            let sha256 = hashing.finish().map_err(IngestError::io("read", self.path))?;
            return Ok(Content { bytes, sha256 });
        }
        let packed = slice_store::map_file(&self.file).map_err(io)?;
        let sha256 = sha256(&packed);
        Ok(Content { bytes: inflate_gzip(self.path, &packed, promise)?, sha256 })
    }
}

impl Promise {
    /// The error for a content of `length` bytes.
    pub(super) fn broken(self, path: &Path, length: u64) -> IngestError {
        let (part, found, expected) = ("voxels", length.saturating_sub(self.at), self.bytes);
        IngestError::Truncated { path: path.to_path_buf(), part, found, expected }
    }

    fn length(self) -> u64 {
        self.at + self.bytes
    }
}

/// Inflates a gzip file that is in memory: in one go by libdeflate (twice as fast as a stream), if it has one member whose
/// length at its end agrees with the promise; else as a stream, which also finds the words for what is wrong with it.
pub(crate) fn inflate_gzip(path: &Path, packed: &[u8], promise: Promise) -> Result<Bytes, IngestError> {
    let stated = packed.last_chunk().map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
    if (promise.length()..=promise.length() + LARGEST_TAIL).contains(&stated) {
        let mut bytes = memory(path, stated)?;
        if Decompressor::new().gzip_decompress(packed, &mut bytes).is_ok_and(|written| written as u64 == stated) {
            return Ok(Bytes::Inflated(bytes));
        }
    }
    inflate_stream(path, GzipMembers::new(packed), promise)
}

/// Inflates a zlib stream that is in memory.
pub(crate) fn inflate_zlib(path: &Path, packed: &[u8], promise: Promise) -> Result<Bytes, IngestError> {
    let mut bytes = memory(path, promise.length())?;
    match Decompressor::new().zlib_decompress(packed, &mut bytes) {
        Ok(written) if written == bytes.len() => Ok(Bytes::Inflated(bytes)),
        // More than was promised, or less.
        Ok(_) | Err(DecompressionError::InsufficientSpace) => inflate_stream(path, ZlibDecoder::new(packed), promise),
        Err(DecompressionError::BadData) => {
            inflate_stream(path, ZlibDecoder::new(packed), promise)?;
            // The decoder of streams passes over a checksum that is not there.
            let reason = io::Error::new(io::ErrorKind::UnexpectedEof, "the checksum at its end is missing");
            Err(IngestError::Gzip { path: path.to_path_buf(), reason })
        }
    }
}

/// Inflates a stream to its end, because its checksum comes last; what follows the promise is dropped.
fn inflate_stream(path: &Path, mut stream: impl Read, promise: Promise) -> Result<Bytes, IngestError> {
    let mut bytes = memory(path, promise.length())?;
    let mut filled = 0;
    while filled < bytes.len() {
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Err(promise.broken(path, filled as u64)),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(path, error)),
        }
    }
    io::copy(&mut stream, &mut io::sink()).map_err(|error| read_error(path, error))?;
    Ok(Bytes::Inflated(bytes))
}

/// The most that is asked for at once, whatever a file says: four times a CT of 1024 × 1024 × 1000.
pub(crate) const MOST_BYTES: u64 = 8 << 30;

/// Zeroed memory that goes back to the system as soon as it is dropped.
pub(crate) fn memory(path: &Path, bytes: u64) -> Result<MmapMut, IngestError> {
    if bytes > MOST_BYTES {
        let found = format!("{bytes} bytes of voxels in compressed form");
        let expected = "at most 8 GiB; unpack the file, which is then read without a copy, or cut it into parts";
        return Err(IngestError::Unsupported { path: path.to_path_buf(), found, expected });
    }
    let error = |_| IngestError::OutOfMemory { path: path.to_path_buf(), bytes };
    let memory = MmapMut::map_anon(bytes.max(1) as usize).map_err(error)?;
    // Fewer page faults; a system that has no huge pages goes without.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
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
