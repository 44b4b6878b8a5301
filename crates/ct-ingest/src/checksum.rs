//! SHA-256 of files, and of sources that are several files.

use crate::IngestError;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// SHA-256 (hexadecimal) of bytes in memory.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 (hexadecimal) of a file.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String, IngestError> {
    let file = File::open(path).map_err(IngestError::io("read", path))?;
    HashingReader::new(file).finish().map_err(IngestError::io("read", path))
}

/// One checksum for several: of a single one, itself.
pub(crate) fn combined<'a>(checksums: impl IntoIterator<Item = &'a str>) -> String {
    let checksums: Vec<&str> = checksums.into_iter().collect();
    match checksums.as_slice() {
        [one] => (*one).to_owned(),
        several => sha256(several.iter().flat_map(|line| [line, "\n"]).collect::<String>().as_bytes()),
    }
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Passes a file on and computes its SHA-256.
pub(crate) struct HashingReader {
    inner: File,
    hash: Sha256,
}

impl HashingReader {
    pub fn new(inner: File) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// Reads what is left, so that the sum is the whole file's.
    pub fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(hex(&self.hash.finalize()))
    }
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
