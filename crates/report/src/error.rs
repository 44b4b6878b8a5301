//! What can be wrong with a run directory.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Every run has a run.json from its first moment on.
    #[error("'{}' is not a run directory: it has no run.json (runs are written by `cargo xtask train`)", path.display())]
    NotARun {
        /// The directory asked for.
        path: PathBuf,
    },
    /// A file is there but cannot be read.
    #[error("cannot read '{}': {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// A line of a file is not what it should be.
    #[error("cannot read '{}', line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What was found and what was expected.
        message: String,
    },
    /// A file is not what a run writes.
    #[error(transparent)]
    Record(#[from] run_record::RecordError),
    /// The page cannot be written.
    #[error("cannot write '{}': {reason}", path.display())]
    Write {
        /// The page's file.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
}

/// The bytes of a file; `None` where it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, ReportError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(ReportError::Read { path: path.to_owned(), reason }),
    }
}

/// The text of a file; `None` where it does not exist.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, ReportError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        ReportError::Malformed { path: path.to_owned(), line, message: "this is not UTF-8 text".into() }
    })?;
    Ok(Some(text))
}

/// A JSON file as `T`; `None` where it does not exist.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, ReportError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        // Its line is told before it.
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message).to_owned();
        ReportError::Malformed { path: path.to_owned(), line: error.line().max(1), message }
    })
}
