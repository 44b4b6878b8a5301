//! Checkpoints of a run: `checkpoints/step-N/` holds what was trained, the optimiser's state and the place in the plan;
//! the small files `last` and `best` name one each. Everything else follows from the configuration and the seed.
//!
//! Invariant: a checkpoint is loaded only if its files have the sizes and SHA-256 that were recorded when it was saved.

use crate::{Progress, RecordError, read_json, sha256_of_file, write_json, write_whole};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What evaluation and prediction load.
pub const WEIGHTS: &str = "weights.safetensors";
/// The weights that training goes on from, where `WEIGHTS` has their average.
pub const TRAINING: &str = "training.safetensors";
/// The optimiser's state.
pub const OPTIMIZER: &str = "optimizer.safetensors";

/// `progress.json`.
#[derive(Serialize, Deserialize)]
struct CheckpointRecord {
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
/// `fill` writes the files into a folder and syncs them.
pub fn write<E: From<RecordError> + From<std::io::Error>>(
    run: &Path,
    progress: &Progress,
    is_best: bool,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let root = run.join("checkpoints");
    let name = format!("step-{:06}", progress.steps);
    std::fs::create_dir_all(&root)?;
    whole_file::replace_folder::<E>(&root.join(&name), |folder| {
        fill(folder)?;
        let mut record = CheckpointRecord { progress: progress.clone(), files: BTreeMap::new() };
        for path in files_in(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            record.files.insert(name, FileRecord::of(&path)?);
        }
        Ok(write_json(&folder.join("progress.json"), &record)?)
    })?;
    write_whole(&root.join(Which::Last.file()), name.as_bytes())?;
    if is_best {
        write_whole(&root.join(Which::Best.file()), name.as_bytes())?;
    }
    Ok(prune(&root)?)
}

fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// Keeps the two newest checkpoints and the best.
fn prune(root: &Path) -> Result<(), RecordError> {
    // There is none before the first validation.
    let best = std::fs::read_to_string(root.join(Which::Best.file())).ok().map(|name| root.join(name.trim()));
    for old in steps(root)?.iter().rev().skip(2).filter(|path| Some(*path) != best.as_ref()) {
        std::fs::remove_dir_all(old).map_err(|reason| RecordError::Write { path: old.clone(), reason })?;
    }
    Ok(())
}

/// The directories of all checkpoints, oldest first.
fn steps(root: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let entries = std::fs::read_dir(root).map_err(|reason| RecordError::Read { path: root.to_owned(), reason })?;
    let mut paths: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((step_of(&path)?, path))
        })
        .collect();
    paths.sort();
    Ok(paths.into_iter().map(|(_, path)| path).collect())
}

/// How many steps were done: names have six digits, and more where that is not enough, so that as text they are in no order.
fn step_of(directory: &Path) -> Option<u64> {
    directory.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// The directory of a checkpoint.
pub fn directory(run: &Path, which: Which) -> Result<PathBuf, RecordError> {
    let root = run.join("checkpoints");
    let pointer = root.join(which.file());
    let name = std::fs::read_to_string(&pointer).map_err(|reason| {
        let (run, which, pointer) = (run.display(), which.file(), pointer.display());
        RecordError::Checkpoint(format!("'{run}' has no {which} checkpoint yet (cannot read '{pointer}': {reason})"))
    })?;
    Ok(root.join(name.trim()))
}

/// Finds a checkpoint that is whole. Where the newest is damaged, the newest before it is taken; where the best is, that
/// is an error, since no other is what was asked for.
pub fn open(run: &Path, which: Which) -> Result<Checkpoint, RecordError> {
    let named = directory(run, which)?;
    let damage = match check(&named) {
        Ok(progress) => return Ok(Checkpoint { directory: named, progress, instead_of: None }),
        Err(error) => error.to_string(),
    };
    if which == Which::Best {
        return Err(RecordError::Checkpoint(format!(
            "the best checkpoint of '{}' can't be used: {damage}. `evaluate --last` takes the newest",
            run.display()
        )));
    }
    let is_older = |directory: &PathBuf| step_of(directory) < step_of(&named);
    let mut older: Vec<PathBuf> = steps(&run.join("checkpoints"))?.into_iter().filter(is_older).collect();
    while let Some(directory) = older.pop() {
        if let Ok(progress) = check(&directory) {
            return Ok(Checkpoint { directory, progress, instead_of: Some(damage) });
        }
    }
    Err(RecordError::Checkpoint(format!(
        "no checkpoint of '{}' can be used: {damage}, and none before it is whole. Start anew with another --run",
        run.display()
    )))
}

/// Compares a checkpoint's files with what was recorded of them.
fn check(directory: &Path) -> Result<Progress, RecordError> {
    let record: CheckpointRecord = read_json(&directory.join("progress.json"))?;
    for (file, expected) in &record.files {
        let path = directory.join(file);
        let found = FileRecord::of(&path)?;
        if found.bytes != expected.bytes {
            let problem = format!("'{}' has {} bytes, expected {}", path.display(), found.bytes, expected.bytes);
            return Err(RecordError::Checkpoint(problem));
        }
        if found != *expected {
            let problem = format!("'{}' has SHA-256 {}, expected {}", path.display(), found.sha256, expected.sha256);
            return Err(RecordError::Checkpoint(problem));
        }
    }
    Ok(record.progress)
}

impl FileRecord {
    fn of(path: &Path) -> Result<Self, RecordError> {
        let (sha256, bytes) = sha256_of_file(path)?;
        Ok(Self { bytes, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A run with checkpoints after 1, 2 and 3 steps, the second of which is the best.
    fn run() -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        for steps in 1..=3 {
            save(run.path(), steps, steps == 2);
        }
        run
    }

    fn save(run: &Path, steps: usize, is_best: bool) {
        let progress = Progress { steps, ..Progress::default() };
        let fill = |folder: &Path| Ok(write_whole(&folder.join(WEIGHTS), &[steps as u8; 256])?);
        write::<Box<dyn std::error::Error>>(run, &progress, is_best, fill).unwrap();
    }

    fn kept(run: &Path) -> Vec<String> {
        let paths = steps(&run.join("checkpoints")).unwrap();
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn two_checkpoints_are_kept_where_none_is_the_best_yet() {
        let run = tempfile::tempdir().unwrap();
        for steps in 1..=4 {
            save(run.path(), steps, false);
        }
        assert_eq!(kept(run.path()), ["step-000003", "step-000004"]);
    }

    #[test]
    fn the_newest_of_a_million_steps_is_kept_and_the_one_before_it_found() {
        let run = tempfile::tempdir().unwrap();
        for (steps, is_best) in [(800_000, true), (999_998, false), (999_999, false), (1_000_000, false)] {
            save(run.path(), steps, is_best);
        }
        assert_eq!(kept(run.path()), ["step-800000", "step-999999", "step-1000000"]);
        assert_eq!(open(run.path(), Which::Last).unwrap().progress.steps, 1_000_000);
        fs::remove_file(weights(run.path(), 1_000_000)).unwrap();
        assert_eq!(open(run.path(), Which::Last).unwrap().progress.steps, 999_999);
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
