//! What can go wrong with a store: where, what was found, what was expected, the way out.

use crate::SliceId;
use std::io;
use std::path::{Path, PathBuf};

/// An error of the slice store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused a file operation.
    #[error("cannot {action} '{}': {reason}{}", path.display(), disk_advice(reason))]
    Io {
        /// What was tried, as a verb: "read", "write", …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        reason: io::Error,
    },
    /// There is no `store.json`.
    #[error("'{}' is not a slice store: it has no store.json; `cargo xtask prepare` makes one", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The index or its checksum is missing: the preparation was interrupted.
    #[error("the slice store '{}' is unfinished: it has no {missing}; run `cargo xtask prepare`, or `import-labels` if that was under way, again to finish it", path.display())]
    Unfinished {
        /// The store.
        path: PathBuf,
        /// The file.
        missing: &'static str,
    },
    /// The store was written by another version of the format.
    #[error(
        "the slice store '{}' has format version {found}, expected 1 or {expected}; read it with the version of this program that made it, or prepare it again",
        path.display()
    )]
    FormatVersion {
        /// The store.
        path: PathBuf,
        /// The version in `store.json`.
        found: u64,
        /// The newest version that this program reads.
        expected: u32,
    },
    /// A JSON file does not say what it should.
    #[error("'{}' is not as expected: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: serde_json::Error,
    },
    /// A file of the store contradicts its format or the index.
    #[error("'{}' is damaged: {problem}; delete the store and prepare it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// The pixels of a file are no longer those that were written.
    #[error(
        "'{}' has changed since it was written: its SHA-256 is {found}, expected {expected}; delete this file and run \
         `cargo xtask prepare` again, which makes this case anew",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its SHA-256.
        found: String,
        /// The SHA-256 that it was written with.
        expected: String,
    },
    /// A slice's mask is needed, and the store has none.
    #[error("the slice store '{}' has no mask of slice '{slice}', which is among the slices whose masks are to be read", path.display())]
    NoMask {
        /// The store.
        path: PathBuf,
        /// The slice.
        slice: SliceId,
    },
    /// A directory in which a store is to be made has something else in it.
    #[error(
        "'{}' is neither empty nor a slice store (it has '{found}' and no store.json of one); nothing was changed in it: choose \
         another directory for the store",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// The index could not be encoded.
    #[error("cannot write '{}': {problem}", path.display())]
    WriteIndex {
        /// The index file.
        path: PathBuf,
        /// The Parquet writer's message.
        problem: String,
    },
    /// A setting is out of its range.
    #[error("store setting `{key}` is {found}, expected {expected}")]
    Setting {
        /// The key in `store.json`.
        key: &'static str,
        /// Its value.
        found: String,
        /// Its range.
        expected: &'static str,
    },
    /// The store was prepared with other settings.
    #[error(
        "the slice store '{}' was prepared with `{key}` = {found}, now it is {expected}; \
         all {cases} cases would be prepared again: --redo does so; or choose another store directory",
        path.display()
    )]
    SettingsDiffer {
        /// The store.
        path: PathBuf,
        /// Dotted key, for example `settings.slice_size`.
        key: String,
        /// The value in the store.
        found: String,
        /// The value that was asked for.
        expected: String,
        /// Cases in the store.
        cases: usize,
    },
    /// Another process is writing to the store.
    #[error("another process is writing to the slice store '{}'; wait for it to end", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// A case has a name that can't be a file name.
    #[error("'{case}' can't name a case: expected a file name without '/', '\\', control characters or a leading '.'")]
    CaseName {
        /// The name.
        case: String,
    },
    /// The data given for a case contradict themselves.
    #[error("cannot store case '{case}': {problem}")]
    CaseData {
        /// The case.
        case: String,
        /// What was found and what was expected.
        problem: String,
    },
}

impl StoreError {
    /// Whether the disk (or a quota, or a file-size limit) is exhausted, so that trying other cases is pointless.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { reason, .. } if disk_full(reason))
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |reason| Self::Io { action, path, reason }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), problem: problem.into() }
    }
}

fn disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn disk_advice(error: &io::Error) -> &'static str {
    if disk_full(error) { "; free some space, then run the command again: it resumes" } else { "" }
}
