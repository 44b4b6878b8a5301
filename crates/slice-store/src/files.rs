//! Files with errors that name them: written whole or not at all, read, removed.

use crate::StoreError;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use whole_file::Unfinished;

/// Replaces a file by what `write` writes, or leaves it as it was.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<Unfinished>) -> io::Result<()>,
) -> Result<(), StoreError> {
    whole_file::replace(path, write).map_err(StoreError::io("write", path))
}

/// The same; gives the SHA-256 (hexadecimal) of what was written, made while it was.
pub(crate) fn replace_file_hashed(
    path: &Path,
    write: impl FnOnce(&mut Hashing<&mut BufWriter<Unfinished>>) -> io::Result<()>,
) -> Result<String, StoreError> {
    let mut digest = String::new();
    replace_file(path, |file| {
        let mut file = Hashing { inner: file, hash: Sha256::new() };
        write(&mut file)?;
        digest = crate::hex(&file.hash.finalize());
        Ok(())
    })?;
    Ok(digest)
}

/// Passes on what is written and hashes it.
pub(crate) struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// SHA-256 (hexadecimal) of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    crate::hex(&Sha256::digest(bytes))
}

/// SHA-256 (hexadecimal) of a file.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("read", path))?;
    let mut hashing = Hashing { inner: io::sink(), hash: Sha256::new() };
    io::copy(&mut file, &mut hashing).map_err(StoreError::io("read", path))?;
    Ok(crate::hex(&hashing.hash.finalize()))
}

/// Writes a value as indented JSON, whole or not at all.
pub(crate) fn replace_json(path: &Path, value: &impl serde::Serialize) -> Result<(), StoreError> {
    replace_file(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

/// Reads a JSON file; unknown and missing keys are errors of the type read.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let text = fs::read(path).map_err(StoreError::io("read", path))?;
    serde_json::from_slice(&text).map_err(|reason| StoreError::Json { path: path.to_path_buf(), reason })
}

/// Removes what an interrupted writer left in a directory.
pub(crate) fn sweep_temporary_files(directory: &Path) -> Result<(), StoreError> {
    if !directory.is_dir() {
        return Ok(());
    }
    whole_file::sweep(directory).map_err(|(path, reason)| StoreError::Io { action: "remove", path, reason })
}

/// Removes a directory's files with that extension; other files stay.
pub(crate) fn remove_files(directory: &Path, extension: &str) -> Result<(), StoreError> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(directory).map_err(StoreError::io("list", directory))? {
        let path = entry.map_err(StoreError::io("list", directory))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        replace_file(&path, |file| file.write_all(b"old")).unwrap();
        let error = replace_file(&path, |file| {
            file.write_all(b"new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        let error = error.unwrap_err();
        assert!(error.is_disk_full());
        assert!(error.to_string().ends_with("free some space, then run the command again: it resumes"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
