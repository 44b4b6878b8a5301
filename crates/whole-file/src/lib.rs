//! Files that are whole or not there: written under a temporary name in the same folder, synced, renamed.
//!
//! Invariant: whatever fails, a file that was there before is as it was, and nothing else is left behind.

mod place;

pub use place::{Existing, PlaceError, check_place, is_same};

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// Begins the names of files and folders that are being written.
const PART: &str = ".sam-mix-part-";

/// Large enough that a volume is written in few calls.
const BUFFER: usize = 1 << 20;

/// A file under way; it is removed unless it is finished.
#[derive(Debug)]
pub struct Unfinished {
    part: NamedTempFile,
    path: PathBuf,
}

impl Unfinished {
    /// An empty file in the folder of the one that it will be. Its temporary name ends as that one's does.
    ///
    /// # Errors
    /// If the path names no file, or its folder is not there or can't be written.
    pub fn beside(path: &Path) -> io::Result<Self> {
        Ok(Self { part: builder(&end_of(path)?, 0o666).tempfile_in(folder_of(path))?, path: path.to_owned() })
    }

    /// Its temporary name, for a library that opens files by name.
    pub fn path(&self) -> &Path {
        self.part.path()
    }

    /// Syncs it and gives it its name; a file of that name is replaced.
    ///
    /// # Errors
    /// As the operating system has them; the temporary file is gone then.
    pub fn finish(self) -> io::Result<()> {
        // By name: a library may have put another file in its place.
        File::open(self.part.path())?.sync_all()?;
        self.part.into_temp_path().persist(&self.path).map_err(|error| error.error)
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.part.flush()
    }
}

/// Replaces a file by what `write` writes, or leaves it as it was.
///
/// # Errors
/// What `write` gives, or as the operating system has them.
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<Unfinished>) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(BUFFER, Unfinished::beside(path)?);
    write(&mut file)?;
    file.into_inner().map_err(IntoInnerError::into_error)?.finish()
}

/// Replaces a folder by one that `fill` fills, or leaves it as it was. Files in it are synced by whoever writes them.
///
/// # Errors
/// What `fill` gives, or as the operating system has them.
pub fn replace_folder<E: From<io::Error>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let part = builder(&end_of(path)?, 0o777).tempdir_in(folder_of(path))?;
    fill(part.path())?;
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    fs::rename(part.path(), path)?;
    // It has its own name now: nothing is left to remove.
    let _ = part.keep();
    Ok(())
}

/// Whether a name is that of a file or folder that is being written, or was when its process was killed.
pub fn is_unfinished(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(PART)
}

/// Removes what a killed process left in a folder. Nobody else may write there meanwhile.
///
/// # Errors
/// The path at fault, and what the operating system says of it.
pub fn sweep(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        if !is_unfinished(path.file_name().unwrap_or_default()) {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(at(&path))?;
    }
    Ok(())
}

/// So many bytes of the own name, at most, end the temporary one: names have a limit.
const END: usize = 40;

/// The end of the temporary name, extensions included.
fn end_of(path: &Path) -> io::Result<String> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    let name = name.to_string_lossy();
    let from = (name.len().saturating_sub(END)..=name.len()).find(|&at| name.is_char_boundary(at)).unwrap_or_default();
    Ok(format!("-{}", &name[from..]))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `mode` as any other file or folder has it, less what the process's mask takes away, and not for its owner alone.
fn builder(end: &str, mode: u32) -> Builder<'static, '_> {
    let mut builder = Builder::new();
    builder.prefix(PART).suffix(end);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        replace(&path, |file| file.write_all(b"old")).unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.json"]);
        replace(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_failed_folder_leaves_the_old_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step-1");
        replace_folder::<io::Error>(&path, |part| fs::write(part.join("a"), "old")).unwrap();
        let failed = replace_folder::<io::Error>(&path, |part| {
            fs::write(part.join("b"), "new")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(failed.is_err());
        assert_eq!((names(folder.path()), names(&path)), (vec!["step-1".to_owned()], vec!["a".to_owned()]));
        replace_folder::<io::Error>(&path, |part| fs::write(part.join("b"), "new")).unwrap();
        assert_eq!((names(folder.path()), names(&path)), (vec!["step-1".to_owned()], vec!["b".to_owned()]));
    }

    #[test]
    fn temporary_names_keep_the_extension_and_fit_whatever_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}ä.nii.gz", "x".repeat(240));
        let file = Unfinished::beside(&folder.path().join(&long)).unwrap();
        assert!(file.path().to_str().unwrap().ends_with("ä.nii.gz"));
        file.finish().unwrap();
        assert_eq!(names(folder.path()), [long]);
        assert_eq!(Unfinished::beside(Path::new("..")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[cfg(unix)]
    #[test]
    fn files_have_the_permissions_of_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        fs::write(folder.path().join("plain"), "").unwrap();
        replace(&folder.path().join("whole"), |_| Ok(())).unwrap();
        assert_eq!(mode("whole"), mode("plain"));
    }

    #[test]
    fn only_our_own_leftovers_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let left = format!("{PART}x-case.npy");
        for name in [left.as_str(), "case.npy", ".other.tmp", ".hidden"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        fs::create_dir(folder.path().join(format!("{PART}y-step-1"))).unwrap();
        sweep(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [".hidden", ".other.tmp", "case.npy"]);
    }
}
