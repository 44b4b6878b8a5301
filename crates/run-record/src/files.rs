//! Files of a run directory: written whole or not at all, read with errors that name them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// What can be wrong with a file of a run directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It can't be read.
    #[error("cannot read '{}': {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// It can't be written; what is not appended to is as it was.
    #[error("cannot write '{}': {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// It is not what it should be.
    #[error("in '{}': {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where, what was found and what was expected.
        reason: serde_json::Error,
    },
    /// A checkpoint can't be used.
    #[error("{0}")]
    Checkpoint(String),
    /// A line of it is not what it should be.
    #[error("cannot read '{}', line {line}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What was found and what was expected.
        problem: String,
    },
}

impl RecordError {
    /// What makes a failed writing of `path` into an error.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |reason| Self::Write { path, reason }
    }
}

/// Replaces `path` by `bytes`, or leaves it as it was. Missing folders are made.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let write = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        whole_file::replace(path, |file| file.write_all(bytes))
    };
    write().map_err(RecordError::write(path))
}

/// As [`write_whole`], indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    let text = serde_json::to_string_pretty(value);
    let mut text = text.map_err(|reason| RecordError::Json { path: path.to_owned(), reason })?;
    text.push('\n');
    write_whole(path, text.as_bytes())
}

/// Reads JSON.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    serde_json::from_str(&read_text(path)?).map_err(|reason| RecordError::Json { path: path.to_owned(), reason })
}

/// Reads UTF-8 text.
pub fn read_text(path: &Path) -> Result<String, RecordError> {
    std::fs::read_to_string(path).map_err(|reason| RecordError::Read { path: path.to_owned(), reason })
}

/// SHA-256 (hexadecimal) of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// SHA-256 (hexadecimal) and length of a file, which is read a block at a time.
pub fn sha256_of_file(path: &Path) -> Result<(String, u64), RecordError> {
    let digest = || -> std::io::Result<_> {
        let (mut file, mut hash, mut bytes) = (File::open(path)?, Sha256::new(), 0);
        let mut block = vec![0; 1 << 18];
        loop {
            match file.read(&mut block)? {
                0 => return Ok((hexadecimal(&hash.finalize()), bytes)),
                count => {
                    hash.update(&block[..count]);
                    bytes += count as u64;
                }
            }
        }
    };
    digest().map_err(|reason| RecordError::Read { path: path.to_owned(), reason })
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sha_256_of_a_file_is_that_of_fips_180_4() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        // Examples B.1 and B.3, the latter of several blocks.
        for (bytes, expected) in [
            (b"abc".to_vec(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (vec![b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        ] {
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(sha256_of_file(&path).unwrap(), (expected.to_owned(), bytes.len() as u64));
            assert_eq!(sha256(&bytes), expected);
        }
        let missing = folder.path().join("missing");
        let message = sha256_of_file(&missing).unwrap_err().to_string();
        assert!(message.starts_with(&format!("cannot read '{}'", missing.display())), "{message}");
    }
}
