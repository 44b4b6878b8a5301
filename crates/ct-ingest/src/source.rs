//! Where a volume comes from: one file, a pair, or a folder; and whether it has changed.

use crate::checksum::{combined, files_below, sha256_of_file};
use crate::{CaseFiles, IngestError, volume};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The files that a volume is read from, in the order of their checksums.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, IngestError> {
    if path.is_dir() { files_below(path) } else { Ok(volume::files(path)) }
}

/// SHA-256 (hexadecimal) of a source as its volume has it: of a file, its own; of several, of the lines of theirs.
pub fn sha256_of(path: &Path) -> Result<String, IngestError> {
    let sums = files_of(path)?.iter().map(|file| sha256_of_file(file)).collect::<Result<Vec<_>, _>>()?;
    Ok(combined(sums.iter().map(String::as_str)))
}

/// A source's size and time of its last change: enough to see that nobody has touched it.
pub(crate) struct Stamp {
    bytes: u64,
    modified_unix_ns: u64,
}

impl Stamp {
    pub fn of(path: &Path) -> Result<Self, IngestError> {
        let mut stamp = Self { bytes: 0, modified_unix_ns: 0 };
        for path in files_of(path)? {
            let file = fs::metadata(&path).map_err(IngestError::io("read", &path))?;
            let modified = file.modified().map_err(IngestError::io("read", &path))?;
            let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            stamp.bytes += file.len();
            stamp.modified_unix_ns = stamp.modified_unix_ns.max(since.as_nanos() as u64);
        }
        Ok(stamp)
    }

    /// Bytes of all files of a case; of those that can't be read, none.
    pub fn bytes_of(files: &CaseFiles) -> u64 {
        let sources = std::iter::once(&files.image).chain(&files.masks);
        sources.filter_map(|path| Self::of(path).ok()).map(|stamp| stamp.bytes).sum()
    }

    pub fn json(&self, sha256: &str) -> Value {
        json!({ "bytes": self.bytes, "modified_unix_ns": self.modified_unix_ns, "sha256": sha256 })
    }

    pub fn agrees(&self, remembered: &Value) -> bool {
        remembered["bytes"] == self.bytes && remembered["modified_unix_ns"] == self.modified_unix_ns
    }
}
