//! The directory of a store: whether one may be made there, its lock, its whole cases, and what an interrupted process left in it.
//!
//! Invariant: nothing is touched in a directory that is neither empty nor a store.

use crate::{StoreError, files};
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::Path;

/// What is where a store shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing.
    Empty,
    /// A store, whole or not, of any version.
    Store,
}

/// What is at `path`.
///
/// # Errors
/// Something else is there.
pub(crate) fn of(path: &Path) -> Result<Place, StoreError> {
    if is_store(path) {
        return Ok(Place::Store);
    }
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Place::Empty),
        entries => entries.map_err(StoreError::io("list", path))?,
    };
    for entry in entries {
        let name = entry.map_err(StoreError::io("list", path))?.file_name();
        // A process that is killed early leaves these, and no `store.json`.
        if name != ".lock" && !whole_file::is_unfinished(&name) {
            let found = name.to_string_lossy().into_owned();
            return Err(StoreError::NotEmpty { path: path.to_path_buf(), found });
        }
    }
    Ok(Place::Empty)
}

/// A `store.json` with a version of the format; other programs may have files of that name.
fn is_store(path: &Path) -> bool {
    let info: Result<serde_json::Value, _> = files::read_json(&path.join("store.json"));
    info.is_ok_and(|info| info.get("format_version").is_some_and(serde_json::Value::is_u64))
}

/// Locks the store's directory, which is made if it isn't there, until the file is dropped.
pub(crate) fn lock(store: &Path) -> Result<File, StoreError> {
    fs::create_dir_all(store).map_err(StoreError::io("create", store))?;
    let path = store.join(".lock");
    let file = File::create(&path).map_err(StoreError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: store.to_path_buf() }),
        // Some network file systems know no locks.
        Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(reason)) => Err(StoreError::Io { action: "lock", path, reason }),
    }
}

/// Removes what an interrupted writer left in a store.
pub(crate) fn sweep(store: &Path) -> Result<(), StoreError> {
    ["", "images", "masks", "cases"].iter().try_for_each(|folder| files::sweep_temporary_files(&store.join(folder)))
}

/// Names of the whole cases of the store at `path`; none if there is no store.
pub(crate) fn whole_cases(path: &Path) -> Result<BTreeSet<String>, StoreError> {
    let directory = path.join("cases");
    let mut cases = BTreeSet::new();
    if directory.is_dir() {
        for entry in fs::read_dir(&directory).map_err(StoreError::io("list", &directory))? {
            let name = entry.map_err(StoreError::io("list", &directory))?.file_name();
            cases.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
        }
    }
    Ok(cases)
}
