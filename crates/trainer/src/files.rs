//! Files that are whole or not there, as the slice store writes them.

use anyhow::{Context, Result};
use slice_store::replace_file;
use std::io::Write;
use std::path::Path;

/// Replaces `path` by `bytes`, or leaves it as it was. Missing folders are made.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the folder of '{}'", path.display()))?;
    }
    Ok(replace_file(path, |file| file.write_all(bytes))?)
}

/// As [`write_whole`], indented JSON.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_whole(path, text.as_bytes())
}

/// Reads JSON; the error names the file.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read '{}'", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("in '{}'", path.display()))
}
