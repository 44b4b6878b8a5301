//! SHA-256 of files, and of sources that are several files.

use crate::IngestError;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// SHA-256 (hexadecimal) of bytes in memory.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 (hexadecimal) of a file.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String, IngestError> {
    let file = File::open(path).map_err(IngestError::io("read", path))?;
    HashingReader::new(file).finish().map_err(IngestError::io("read", path))
}

/// All regular files below a folder (links to files count, links to folders don't), sorted by path, component by component.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<PathBuf>, IngestError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    // Errors name the folder that was asked for: those below it may be named after patients.
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).map_err(IngestError::io("list", folder))? {
            let entry = entry.map_err(IngestError::io("list", folder))?;
            if entry.file_type().map_err(IngestError::io("list", folder))?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
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
