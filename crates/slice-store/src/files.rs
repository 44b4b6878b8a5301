//! Writing files whole: temporary name in the same directory, flush, sync, rename.

use crate::StoreError;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Ends the names of files that are being written; what an interrupted process left under it is swept on the next start.
const TEMPORARY: &str = ".tmp";

/// Writes a file whole or not at all: to a temporary name beside it, then flushed, synced and renamed. A failure leaves
/// neither a new file nor a temporary one, and an old file untouched.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), StoreError> {
    let temporary = temporary_name(path);
    let attempt = || -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        write(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, path)
    };
    attempt().map_err(|reason| {
        let _ = fs::remove_file(&temporary);
        StoreError::Io { action: "write", path: path.to_path_buf(), reason }
    })
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
    for entry in fs::read_dir(directory).map_err(StoreError::io("list", directory))? {
        let path = entry.map_err(StoreError::io("list", directory))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(TEMPORARY) {
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
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

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{TEMPORARY}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary_one() {
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
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_are_swept_and_other_files_kept() {
        let directory = tempfile::tempdir().unwrap();
        for name in [".case.npy.tmp", "case.npy", ".hidden"] {
            fs::write(directory.path().join(name), b"").unwrap();
        }
        sweep_temporary_files(directory.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".hidden", "case.npy"]);
    }
}
