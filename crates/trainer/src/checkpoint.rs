//! Checkpoints of a run: `checkpoints/step-N/` holds what was trained, the optimiser's state and the place in the plan;
//! the small files `last` and `best` name one each. Everything else follows from the configuration and the seed.
//!
//! Invariant: a checkpoint is loaded only if its files have the sizes and SHA-256 that were recorded when it was saved.

use crate::files::{read_json, write_json, write_whole};
use crate::times::{Part, Times};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stage_api::NamedTensor;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use tch::{Tensor, no_grad};

/// What evaluation and prediction load.
pub const WEIGHTS: &str = "weights.safetensors";
/// The weights that training goes on from, where `WEIGHTS` has their average.
pub const TRAINING: &str = "training.safetensors";
/// The optimiser's state.
pub const OPTIMIZER: &str = "optimizer.safetensors";

/// The place in the plan and what was found so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The place in the plan: steps that were done, or left out by a phase that ended early.
    pub steps: usize,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The best validation Dice with CAM boxes, and after how many steps it was reached.
    pub best: Option<Best>,
    /// What each finished phase gave.
    pub phases: Vec<PhaseResult>,
    /// Seconds of the loop's parts, see [`Part`].
    #[serde(default)]
    pub times: Times,
    /// Training slices that went through a step, labelled ones included, crops not.
    #[serde(default)]
    pub slices: usize,
    /// The best validation Dice in the phase under way.
    #[serde(default)]
    pub phase_best: Option<f64>,
    /// Epochs of that phase since then.
    #[serde(default)]
    pub epochs_since_best: usize,
    /// Updates that were left out because a loss or a gradient was not finite.
    #[serde(default)]
    pub skipped_updates: usize,
    /// Those of them with which training arrived here.
    #[serde(default)]
    pub skipped_in_a_row: usize,
}

impl Progress {
    /// Training slices in a second, validation and waiting included.
    pub fn slices_per_second(&self) -> f64 {
        self.slices as f64 / self.seconds.max(f64::EPSILON)
    }

    /// The share of the time in which the loop waited for the loader, 0 to 1.
    pub fn wait_share(&self) -> f64 {
        self.times.of(Part::Wait) / self.seconds.max(f64::EPSILON)
    }
}

/// `progress.json`.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    progress: Progress,
    /// The files beside it, by name; empty in checkpoints of older programs, which can't be checked.
    #[serde(default)]
    files: BTreeMap<String, FileRecord>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct FileRecord {
    bytes: u64,
    sha256: String,
}

/// A checkpoint that was found to be whole.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its directory.
    pub directory: PathBuf,
    /// Its place in the plan.
    pub progress: Progress,
    /// What was wrong with the newer one instead of which it was taken.
    pub instead_of: Option<String>,
}

/// The best validation so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Mean Dice over the validation slices, CAM boxes.
    pub dice: f64,
    /// Steps that were done then.
    pub steps: usize,
}

/// What a phase gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseResult {
    /// Its name.
    pub name: String,
    /// Validation Dice (CAM boxes, all validation slices) at its end; absent where the segmenter was not trained.
    pub validation_dice: Option<f64>,
    /// Its duration in seconds.
    pub seconds: f64,
    /// Epochs until it ended; absent in records of older programs.
    #[serde(default)]
    pub epochs: Option<usize>,
}

/// Which checkpoint is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Last,
    /// The best by validation Dice.
    Best,
}

impl Which {
    fn file(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
        }
    }
}

/// Writes `step-N` whole, points `last` at it (and `best` if it is the best), and removes those that neither names but one.
pub fn write(run: &Path, files: &[(&str, Vec<(String, Tensor)>)], progress: &Progress, is_best: bool) -> Result<()> {
    let root = run.join("checkpoints");
    let name = format!("step-{:06}", progress.steps);
    let write = || -> Result<()> {
        std::fs::create_dir_all(&root)?;
        let temporary = tempfile::Builder::new().prefix(".writing-").tempdir_in(&root)?;
        let mut record = Record { progress: progress.clone(), files: BTreeMap::new() };
        for (file, tensors) in files {
            let path = temporary.path().join(file);
            save_tensors(&path, tensors)?;
            record.files.insert((*file).to_owned(), FileRecord::of(&path)?);
        }
        write_json(&temporary.path().join("progress.json"), &record)?;
        let target = root.join(&name);
        if target.exists() {
            std::fs::remove_dir_all(&target)?;
        }
        std::fs::rename(temporary.path(), &target)?;
        // The directory has its final name: nothing is left to delete.
        let _ = temporary.keep();
        Ok(())
    };
    write().with_context(|| {
        format!("cannot save checkpoint '{}'; the one before it is unharmed", root.join(&name).display())
    })?;
    write_whole(&root.join(Which::Last.file()), name.as_bytes())?;
    if is_best {
        write_whole(&root.join(Which::Best.file()), name.as_bytes())?;
    }
    prune(&root)
}

/// Keeps the two newest checkpoints and the best.
fn prune(root: &Path) -> Result<()> {
    let best = std::fs::read_to_string(root.join(Which::Best.file())).unwrap_or_default();
    for old in steps(root)?.iter().rev().skip(2).filter(|path| !path.ends_with(&best)) {
        std::fs::remove_dir_all(old)?;
    }
    Ok(())
}

/// The directories of all checkpoints, oldest first.
fn steps(root: &Path) -> Result<Vec<PathBuf>> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("step-"));
    let entries = std::fs::read_dir(root).with_context(|| format!("cannot read '{}'", root.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(named).collect();
    paths.sort();
    Ok(paths)
}

/// The directory of a checkpoint.
pub fn directory(run: &Path, which: Which) -> Result<PathBuf> {
    let root = run.join("checkpoints");
    let pointer = root.join(which.file());
    let name = std::fs::read_to_string(&pointer).with_context(|| {
        format!("'{}' has no {} checkpoint yet ('{}' is missing)", run.display(), which.file(), pointer.display())
    })?;
    Ok(root.join(name.trim()))
}

/// Finds a checkpoint that is whole. Where the newest is damaged, the newest before it is taken; where the best is, that
/// is an error, since no other is what was asked for.
pub fn open(run: &Path, which: Which) -> Result<Checkpoint> {
    let named = directory(run, which)?;
    let damage = match check(&named) {
        Ok(progress) => return Ok(Checkpoint { directory: named, progress, instead_of: None }),
        Err(error) => format!("{error:#}"),
    };
    if which == Which::Best {
        bail!(
            "the best checkpoint of '{}' can't be used: {damage}. `evaluate --last` judges the newest",
            run.display()
        );
    }
    let mut older: Vec<PathBuf> = steps(&run.join("checkpoints"))?.into_iter().filter(|d| *d < named).collect();
    while let Some(directory) = older.pop() {
        if let Ok(progress) = check(&directory) {
            return Ok(Checkpoint { directory, progress, instead_of: Some(damage) });
        }
    }
    bail!(
        "no checkpoint of '{}' can be used: {damage}, and none before it is whole. Start anew with another --run",
        run.display()
    )
}

/// Compares a checkpoint's files with what was recorded of them.
fn check(directory: &Path) -> Result<Progress> {
    let record: Record = read_json(&directory.join("progress.json"))?;
    for (file, expected) in &record.files {
        let path = directory.join(file);
        let found = FileRecord::of(&path)?;
        if found.bytes != expected.bytes {
            bail!("'{}' has {} bytes, expected {}", path.display(), found.bytes, expected.bytes);
        }
        if found != *expected {
            bail!("'{}' has SHA-256 {}, expected {}", path.display(), found.sha256, expected.sha256);
        }
    }
    Ok(record.progress)
}

impl FileRecord {
    fn of(path: &Path) -> Result<Self> {
        let read = || -> std::io::Result<Self> {
            let (mut file, mut hash, mut bytes) = (std::fs::File::open(path)?, Sha256::new(), 0);
            let mut block = vec![0; 1 << 20];
            loop {
                let count = file.read(&mut block)?;
                if count == 0 {
                    break;
                }
                hash.update(&block[..count]);
                bytes += count as u64;
            }
            let sha256 = hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
            Ok(Self { bytes, sha256 })
        };
        read().with_context(|| format!("cannot read '{}'", path.display()))
    }
}

/// Puts a file's tensors into those of the same names.
pub fn load_weights(path: &Path, targets: &[NamedTensor]) -> Result<()> {
    let mut file: BTreeMap<String, Tensor> = read_tensors(path)?.into_iter().collect();
    for NamedTensor { name, tensor, .. } in targets {
        let Some(value) = file.remove(name) else { bail!("'{}' has no tensor `{name}`", path.display()) };
        if value.size() != tensor.size() {
            bail!("'{}': `{name}` has shape {:?}, expected {:?}", path.display(), value.size(), tensor.size());
        }
        no_grad(|| tensor.shallow_clone().copy_(&value));
    }
    if let Some(name) = file.keys().next() {
        bail!("'{}' has tensor `{name}`, which the configured model does not have", path.display());
    }
    Ok(())
}

/// Reads the optimiser's state.
pub fn optimizer_state(directory: &Path) -> Result<Vec<(String, Tensor)>> {
    read_tensors(&directory.join(OPTIMIZER))
}

fn save_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let host: Vec<(&str, Tensor)> =
        tensors.iter().map(|(n, t)| (n.as_str(), t.detach().to_device(tch::Device::Cpu).contiguous())).collect();
    Tensor::write_safetensors(&host, path)?;
    std::fs::File::open(path)?.sync_all()?;
    Ok(())
}

fn read_tensors(path: &Path) -> Result<Vec<(String, Tensor)>> {
    if !path.is_file() {
        bail!("'{}' is missing", path.display());
    }
    Tensor::read_safetensors(path)
        .with_context(|| format!("'{}' can't be read as safetensors; it may be cut short", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A run with checkpoints after 1, 2 and 3 steps, the second of which is the best.
    fn run() -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        for steps in 1..=3usize {
            let weights = vec![("w".to_owned(), Tensor::from_slice(&[steps as f32; 64]))];
            let progress = Progress { steps, ..Progress::default() };
            write(run.path(), &[(WEIGHTS, weights)], &progress, steps == 2).unwrap();
        }
        run
    }

    fn weights(run: &Path, step: usize) -> PathBuf {
        run.join(format!("checkpoints/step-{step:06}")).join(WEIGHTS)
    }

    #[test]
    fn a_damaged_checkpoint_is_recognised_and_the_one_before_it_taken() {
        let cut = |path: &Path| fs::write(path, &fs::read(path).unwrap()[..100]).unwrap();
        let changed = |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        };
        let gone = |path: &Path| fs::remove_file(path).unwrap();
        let without_record = |path: &Path| fs::write(path.with_file_name("progress.json"), "{\"steps\":").unwrap();
        for (damage, message) in [
            (cut as fn(&Path), "has 100 bytes, expected"),
            (changed, "has SHA-256"),
            (gone, "cannot read"),
            (without_record, "progress.json"),
        ] {
            let run = run();
            assert_eq!(open(run.path(), Which::Last).unwrap().progress.steps, 3);
            damage(&weights(run.path(), 3));
            let found = open(run.path(), Which::Last).unwrap();
            assert_eq!(found.progress.steps, 2);
            assert!(found.directory.ends_with("step-000002"));
            let reason = found.instead_of.unwrap();
            assert!(reason.contains(message) && reason.contains("step-000003"), "{reason}");
            // The best stands for itself.
            damage(&weights(run.path(), 2));
            let error = open(run.path(), Which::Best).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("--last"), "{error}");
            let error = open(run.path(), Which::Last).unwrap_err().to_string();
            assert!(error.contains("none before it is whole"), "{error}");
        }
    }

    #[test]
    fn a_checkpoint_of_an_older_program_is_loaded_unchecked() {
        let run = run();
        let record = r#"{"steps": 3, "seconds": 1.0, "best": null, "phases": []}"#;
        fs::write(weights(run.path(), 3).with_file_name("progress.json"), record).unwrap();
        let found = open(run.path(), Which::Last).unwrap();
        assert_eq!((found.progress.steps, found.instead_of), (3, None));
    }
}
