//! What can go wrong with a file of weights: where, what was found, what was expected, and the way out.

use std::path::{Path, PathBuf};

/// A file of weights could not be read, written, or does not fit the model.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system refused.
    #[error("cannot access weights '{path}': {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: std::io::Error,
    },
    /// The file is none of the formats that are read here.
    #[error(
        "cannot load weights from '{path}': {found}, expected a PyTorch zip archive (.pth, .pt) or .safetensors; {way_out}"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like.
        found: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// The format is known, but the content breaks its rules (truncated, inconsistent, hostile).
    #[error("cannot load weights from '{path}': {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The rule that was broken, with the numbers.
        what: String,
    },
    /// The file holds other tensors than the model has.
    #[error("cannot load weights from '{path}'{}:{}", how(read), list(problems))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Where in it the tensors are and by which names, if not alone under the model's.
        read: String,
        /// Every tensor that is missing, superfluous or of another shape; one sentence each.
        problems: Vec<String>,
    },
    /// Nothing says what the file was trained as.
    #[error(
        "cannot load weights from '{path}': it holds a {encoder}, but its family is not known by its SHA-256 ({sha256}). The \
         family decides how slices are prepared, and tensors don't tell it: state `segmenter.settings.family` = {families}"
    )]
    UnknownFamily {
        /// The file.
        path: PathBuf,
        /// Its encoder.
        encoder: String,
        /// The families that have this encoder.
        families: String,
        /// SHA-256 of the file.
        sha256: String,
    },
    /// A tensor operation failed while the weights were put in place.
    #[error("cannot place the weights of '{path}': {reason}")]
    Torch {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: tch::TchError,
    },
    /// The settings ask for something impossible.
    #[error("cannot build the segmenter: {0}")]
    Settings(String),
}

impl WeightsError {
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        move |reason| Self::Io { path: path.to_owned(), reason }
    }

    pub(crate) fn torch(path: &Path) -> impl Fn(tch::TchError) -> Self + '_ {
        move |reason| Self::Torch { path: path.to_owned(), reason }
    }

    /// A file of other things where adapters are needed.
    pub(crate) fn no_adapters(path: &Path) -> Self {
        Self::malformed(path, "it has no record of adapters, expected a file that `export --to adapters` wrote")
    }

    pub(crate) fn malformed(path: &Path, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into() }
    }
}

fn how(read: &str) -> String {
    if read.is_empty() { String::new() } else { format!(" (read{read})") }
}

fn list(problems: &[String]) -> String {
    problems.iter().fold(String::new(), |text, problem| text + "\n  " + problem)
}
