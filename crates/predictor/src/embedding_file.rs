//! Embeddings in a file that is mapped into memory: half-precision floats, one after another, and beside it, in JSON, what
//! they are of. Its name follows from that, so that a folder of them serves runs that share some and not others; and it gets
//! it when it is whole.

use crate::config::ModelConfig;
use crate::model::Model;
use crate::progress::Ticker;
use anyhow::{Context, Result, ensure};
use run_record::read_json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind, Tensor};
use whole_file::Unfinished;

/// Slices that are encoded together.
const BATCH: usize = 4;

/// To be raised where the encoder or the changes of slices come to give other embeddings for the same settings.
const FORMAT: u32 = 2;

/// What decides the embeddings of a store's slices and their views, each a row of the store and the number of its change (0: the
/// slice as it is). `changed_by` decides what the changed views are.
pub fn identity(
    config: &ModelConfig,
    model: &Model,
    store_checksum: &str,
    views: &[(usize, usize)],
    changed_by: &Value,
    device: Device,
) -> Value {
    json!({
        "format": FORMAT,
        "encoder": model.segmenter.encoder_identity(),
        // A GPU rounds in another way.
        "device": if device.is_cuda() { "cuda" } else { "cpu" },
        "store": store_checksum,
        "intensity": config.intensity,
        "views": views,
        "changed_by": changed_by,
    })
}

/// The embeddings `[count, C, g, g]`, half precision, on the host: those of the folder's file for them, or encoded now, a few at
/// a time, and kept there. `None` if it was stopped. `label` is what the progress bar says.
///
/// # Errors
/// If the file is damaged, or can't be written, or if `encode` fails.
pub fn known_or_encoded(
    folder: &Path,
    of: &Value,
    label: &'static str,
    count: usize,
    stop: &AtomicBool,
    encode: &dyn Fn(Range<usize>) -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    let path = path_in(folder, of);
    // It is mapped by its name.
    ensure!(path.to_str().is_some(), "'{}' is not UTF-8: name another folder", path.display());
    if let Some(known) = open(&path, of)? {
        return Ok(Some(known));
    }
    let mut writer = EmbeddingWriter::create(&path)?;
    let mut ticker = Ticker::new(label, count, 0);
    for start in (0..count).step_by(BATCH) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let together = start..count.min(start + BATCH);
        writer.append(&encode(together.clone())?)?;
        for _ in together {
            ticker.tick("");
        }
    }
    drop(ticker);
    writer.finish(of).map(Some)
}

/// What lies beside a file of embeddings.
#[derive(Serialize, Deserialize)]
struct Description {
    /// Whatever decides what they are.
    of: Value,
    /// `[n, C, g, g]`.
    shape: Vec<i64>,
}

/// The file in a folder for embeddings of this.
fn path_in(folder: &Path, of: &Value) -> PathBuf {
    let digest = run_record::sha256(of.to_string().as_bytes());
    folder.join(format!("{}.f16", &digest[..16]))
}

/// A file of embeddings under way; it is removed if it isn't finished. Several runs may write the same at once.
struct EmbeddingWriter {
    part: Unfinished,
    path: PathBuf,
    count: i64,
    /// Of one embedding.
    shape: Vec<i64>,
}

impl EmbeddingWriter {
    /// An empty file.
    fn create(path: &Path) -> Result<Self> {
        Ok(Self { part: part_of(path)?, path: path.into(), count: 0, shape: Vec::new() })
    }

    /// Adds `[n, C, g, g]`.
    fn append(&mut self, embeddings: &Tensor) -> Result<()> {
        let half = embeddings.to_kind(Kind::Half).to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; half.numel() * 2];
        half.copy_data_u8(&mut bytes, half.numel());
        self.part.write_all(&bytes).with_context(|| format!("cannot write embeddings to '{}'", self.path.display()))?;
        self.count += half.size()[0];
        self.shape = half.size()[1..].to_vec();
        Ok(())
    }

    /// Completes it with its description, and maps it.
    fn finish(self, of: &Value) -> Result<Tensor> {
        let shape = [vec![self.count], self.shape].concat();
        let cannot = || format!("cannot complete '{}'", self.path.display());
        if self.path.exists() {
            // Another run was faster.
            return mapped(&self.path, &shape);
        }
        // Under a name of its own too: of several runs that finish at once the last one's is kept, and they are the same.
        let mut description = part_of(&description_of(&self.path))?;
        serde_json::to_writer_pretty(&mut description, &Description { of: of.clone(), shape: shape.clone() })?;
        description.finish().with_context(cannot)?;
        self.part.finish().with_context(cannot)?;
        mapped(&self.path, &shape)
    }
}

/// A file under way in the folder of the one that it will be, which is made if it isn't there.
fn part_of(path: &Path) -> Result<Unfinished> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
    Unfinished::beside(path).with_context(|| format!("cannot write to '{}'", folder.display()))
}

/// The embeddings `[n, C, g, g]` of a file; `None` if there is none.
///
/// # Errors
/// If it is damaged.
fn open(path: &Path, of: &Value) -> Result<Option<Tensor>> {
    if !path.exists() {
        return Ok(None);
    }
    let description = description_of(path);
    let found: Description =
        read_json(&description).with_context(|| format!("'{}' is damaged: remove it", path.display()))?;
    // Numbers as they come back from a file, which can be off by a last bit.
    let of: &Value = &serde_json::from_str(&of.to_string())?;
    ensure!(found.of == *of, "'{}' is of other embeddings than its name says: remove it", path.display());
    let (expected, length) = (found.shape.iter().product::<i64>() as u64 * 2, path.metadata()?.len());
    ensure!(
        length == expected,
        "'{}' has {length} bytes, expected {expected}: it is damaged, remove it",
        path.display()
    );
    mapped(path, &found.shape).map(Some)
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
    fn embeddings_come_back_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let of = json!({ "seed": 0, "views": 2, "scale": 0.4f32, "low": 0.1 });
        let path = path_in(folder.path(), &of);
        assert_ne!(path, path_in(folder.path(), &json!({ "seed": 1, "views": 2, "scale": 0.4f32, "low": 0.1 })));
        assert!(open(&path, &of).unwrap().is_none());
        let values = Tensor::from_slice(&[0.5f32, -2.0, 1.0, 3.0]).reshape([2, 2, 1, 1]);
        let begun = || {
            let mut writer = EmbeddingWriter::create(&path).unwrap();
            writer.append(&values).unwrap();
            writer
        };
        drop(begun());
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "what is not finished leaves nothing");
        assert_eq!(begun().finish(&of).unwrap().size(), [2, 2, 1, 1]);
        assert_eq!(open(&path, &of).unwrap().unwrap().to_kind(Kind::Float), values);
        assert!(open(&path, &json!({ "seed": 1 })).unwrap_err().to_string().contains("other embeddings"));
        std::fs::write(&path, [0u8; 6]).unwrap();
        assert!(open(&path, &of).unwrap_err().to_string().contains("6 bytes, expected 8"));
        std::fs::write(description_of(&path), "{").unwrap();
        assert!(open(&path, &of).unwrap_err().to_string().contains("damaged"));
    }
}
