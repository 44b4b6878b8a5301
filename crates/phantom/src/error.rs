//! What can go wrong while a phantom is written.

use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum PhantomError {
    /// A setting that no phantom can be made with.
    #[error("cannot make a phantom with {setting} = {found}: expected {low} to {high}")]
    OutOfRange {
        /// Name of the setting.
        setting: &'static str,
        /// Its value.
        found: usize,
        /// Smallest allowed value.
        low: usize,
        /// Largest allowed value.
        high: usize,
    },
    /// The output directory holds a phantom of other settings.
    #[error(
        "cannot write to '{}': it holds a phantom with {found}, asked for was {expected}; choose another directory or delete this one", path.display()
    )]
    OtherPhantom {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// A file that the phantom would replace, in a directory that holds none.
    #[error("'{}' is there already and is no phantom's ('phantom.json' is missing): choose another directory", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
    },
    /// `phantom.json` is not one of ours.
    #[error("cannot read '{}': {reason}; delete it to write the phantom anew", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: serde_json::Error,
    },
    /// A volume could not be written.
    #[error("cannot write '{}': {reason}", path.display())]
    Nifti {
        /// The file.
        path: PathBuf,
        /// What the writer says.
        reason: nifti::NiftiError,
    },
    /// The picture could not be encoded.
    #[error("cannot write '{}': {reason}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What the encoder says.
        reason: png::EncodingError,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {action} '{}': {reason}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
}

impl PhantomError {
    /// For `map_err`: an I/O error with what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |reason| Self::Io { action, path: path.to_owned(), reason }
    }
}
