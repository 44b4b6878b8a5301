//! Checkpoints of a run: `checkpoints/step-N/` holds what was trained, the optimiser's state and the place in the plan;
//! the small files `last` and `best` name one each. Everything else follows from the configuration and the seed.

use crate::files::{read_json, write_whole};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use stage_api::NamedTensor;
use std::collections::BTreeMap;
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
        for (file, tensors) in files {
            save_tensors(&temporary.path().join(file), tensors)?;
        }
        write_whole(&temporary.path().join("progress.json"), serde_json::to_string_pretty(progress)?.as_bytes())?;
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
    let mut names: Vec<String> = std::fs::read_dir(root)?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| n.starts_with("step-"))
        .collect();
    names.sort();
    for old in names.iter().rev().skip(2).filter(|n| **n != best) {
        std::fs::remove_dir_all(root.join(old))?;
    }
    Ok(())
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

/// Reads a checkpoint's progress.
pub fn progress(directory: &Path) -> Result<Progress> {
    read_json(&directory.join("progress.json"))
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
