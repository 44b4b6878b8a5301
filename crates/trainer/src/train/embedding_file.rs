//! Embeddings in a file that is mapped into memory: half-precision floats, one after another, and beside it, in JSON, what
//! they are of. It gets its name when it is whole: a file of that name without a description is somebody else's.

use crate::files::{read_json, write_json};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// What lies beside a file of embeddings.
#[derive(Serialize, Deserialize)]
struct Description {
    /// Whatever decides what they are.
    of: Value,
    /// `[n, C, g, g]`.
    shape: Vec<i64>,
}

/// A file of embeddings under way.
pub(super) struct EmbeddingWriter {
    file: File,
    path: PathBuf,
    count: i64,
    /// Of one embedding.
    shape: Vec<i64>,
}

impl EmbeddingWriter {
    /// An empty file.
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder of '{}'", path.display()))?;
        }
        let part = part_of(path);
        let file = File::create(&part).with_context(|| format!("cannot write '{}'", part.display()))?;
        Ok(Self { file, path: path.into(), count: 0, shape: Vec::new() })
    }

    /// Adds `[n, C, g, g]`.
    pub fn append(&mut self, embeddings: &Tensor) -> Result<()> {
        let half = embeddings.to_kind(Kind::Half).to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; half.numel() * 2];
        half.copy_data_u8(&mut bytes, half.numel());
        self.file.write_all(&bytes).with_context(|| format!("cannot write embeddings to '{}'", self.path.display()))?;
        self.count += half.size()[0];
        self.shape = half.size()[1..].to_vec();
        Ok(())
    }

    /// Completes it with its description, and maps it.
    pub fn finish(self, of: &Value) -> Result<Tensor> {
        let shape = [vec![self.count], self.shape].concat();
        write_json(&description_of(&self.path), &Description { of: of.clone(), shape: shape.clone() })?;
        std::fs::rename(part_of(&self.path), &self.path)
            .with_context(|| format!("cannot complete '{}'", self.path.display()))?;
        mapped(&self.path, &shape)
    }
}

/// The embeddings `[n, C, g, g]` of a complete file; `None` if there is none.
///
/// # Errors
/// If they are of something else, or the file is none of embeddings.
pub(super) fn open(path: &Path, of: &Value) -> Result<Option<Tensor>> {
    let description = description_of(path);
    if !path.exists() {
        return Ok(None);
    }
    ensure!(
        description.is_file(),
        "'{}' is there, but '{}', which says what embeddings it has, is not: name another file, or remove this one",
        path.display(),
        description.display()
    );
    let found: Description = read_json(&description)?;
    // Numbers as they come back from a file, which can be off by a last bit.
    let of: &Value = &serde_json::from_str(&of.to_string())?;
    let differing = || {
        let keys = of.as_object().into_iter().flatten().filter(|(key, value)| found.of.get(key) != Some(value));
        keys.map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ")
    };
    ensure!(
        found.of == *of,
        "the embeddings in '{}' are of something else (they differ in: {}): name another file, or remove this one",
        path.display(),
        differing()
    );
    let (expected, length) = (found.shape.iter().product::<i64>() as u64 * 2, path.metadata()?.len());
    ensure!(
        length == expected,
        "'{}' has {length} bytes, expected {expected}: it is damaged, remove it",
        path.display()
    );
    mapped(path, &found.shape).map(Some)
}

/// Removes the file and its description, whole or not.
pub(super) fn remove(path: &Path) {
    let _ = std::fs::remove_file(part_of(path));
    let _ = std::fs::remove_file(description_of(path));
    let _ = std::fs::remove_file(path);
}

/// Where it is written.
fn part_of(path: &Path) -> PathBuf {
    path.with_added_extension("part")
}

fn description_of(path: &Path) -> PathBuf {
    path.with_added_extension("json")
}

/// The file as a tensor that is read where it lies.
fn mapped(path: &Path, shape: &[i64]) -> Result<Tensor> {
    let name = path.to_str().with_context(|| format!("'{}' is not UTF-8", path.display()))?;
    let numbers: i64 = shape.iter().product();
    let flat = Tensor::f_from_file(name, false, numbers, (Kind::Half, Device::Cpu))
        .with_context(|| format!("cannot map '{}'", path.display()))?;
    Ok(flat.reshape(shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn embeddings_come_back_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.f16");
        let of = json!({ "seed": 0, "views": 2, "scale": 0.4f32, "low": 0.1 });
        assert!(open(&path, &of).unwrap().is_none());
        let values = Tensor::from_slice(&[0.5f32, -2.0, 1.0, 3.0]).reshape([2, 2, 1, 1]);
        let mut writer = EmbeddingWriter::create(&path).unwrap();
        writer.append(&values).unwrap();
        assert!(open(&path, &of).unwrap().is_none(), "without a description it is not complete");
        assert_eq!(writer.finish(&of).unwrap().size(), [2, 2, 1, 1]);
        let found = open(&path, &of).unwrap().unwrap().to_kind(Kind::Float);
        assert_eq!(found, values);
        let error =
            open(&path, &json!({ "seed": 1, "views": 2, "scale": 0.4f32, "low": 0.1 })).unwrap_err().to_string();
        assert!(error.contains("differ in: seed"), "{error}");
        std::fs::write(&path, [0u8; 6]).unwrap();
        assert!(open(&path, &of).unwrap_err().to_string().contains("6 bytes, expected 8"));
        remove(&path);
        std::fs::write(&path, "somebody's").unwrap();
        assert!(open(&path, &of).unwrap_err().to_string().contains("name another file"));
        std::fs::remove_file(&path).unwrap();
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
