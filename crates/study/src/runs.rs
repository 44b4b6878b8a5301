//! `sam-mix-study runs`: the runs below a folder with their best figures.

use anyhow::{Context, Result, ensure};
use run_record::{Evaluation, RunRecord, read_json};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::located;

pub const ABOUT: &str = "List runs with their best metrics";

pub const EXAMPLES: &str = "\
Reads run.json and evaluation/*.json of every run. No program is started.

Examples:
  cargo xtask runs
  cargo xtask runs ~/experiments --json";

#[derive(clap::Args)]
pub struct Args {
    /// Folder that holds the runs, at any depth
    #[arg(default_value = "runs")]
    folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How deep below the folder runs are looked for.
const DEEPEST: usize = 4;

pub fn run(args: &Args) -> Result<ExitCode> {
    let folder = located(&args.folder, Path::new("."));
    ensure!(folder.is_dir(), "'{}' is no folder; runs are written where `train --run` says", args.folder.display());
    let mut found = Vec::new();
    find(&folder, &folder, 0, &mut found)?;
    found.sort_by_key(|run| run.record.started_unix);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found.iter().map(Run::summary).collect::<Vec<_>>())?);
    } else {
        print!("{}", table(&found));
    }
    Ok(ExitCode::SUCCESS)
}

/// A run below the folder.
struct Run {
    name: String,
    record: RunRecord,
    /// By the name of their file: the split, or the data set.
    evaluations: BTreeMap<String, Evaluation>,
}

fn find(top: &Path, folder: &Path, depth: usize, found: &mut Vec<Run>) -> Result<()> {
    if folder.join("run.json").is_file() {
        found.push(Run::read(folder, folder.strip_prefix(top).unwrap_or(folder))?);
        return Ok(());
    }
    if depth < DEEPEST {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot list '{}'", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                find(top, &path, depth + 1, found)?;
            }
        }
    }
    Ok(())
}

impl Run {
    fn read(run: &Path, name: &Path) -> Result<Self> {
        let record = RunRecord::load(run)?;
        let mut evaluations = BTreeMap::new();
        for entry in fs::read_dir(run.join("evaluation")).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let split = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                evaluations.insert(split, read_json(&path)?);
            }
        }
        Ok(Self { name: name.to_string_lossy().into_owned(), record, evaluations })
    }

    /// What is worth a line: of `run.json`, and of each evaluation.
    fn summary(&self) -> Value {
        let Self { name, record, evaluations } = self;
        let short = |it: &Evaluation| {
            json!({
                "cam_box": it.cam_box,
                "oracle_box_dice_liver": it.oracle_box.as_ref().and_then(|row| row.dice_liver),
                "control_whole_image_dice_liver": it.control_whole_image.as_ref().and_then(|row| row.dice_liver),
                "classifier": it.classifier,
            })
        };
        json!({
            "run": name,
            "status": record.status,
            "dataset": record.store.dataset,
            "labelled_slices": record.labelled.len(),
            "label_budget": record.label_budget.counts(),
            "seed": record.seed,
            "commit": record.commit,
            "device": record.device,
            "started_unix": record.started_unix,
            "seconds": record.seconds,
            "best_validation_dice": record.best_validation_dice,
            "evaluation": evaluations.iter().map(|(split, it)| (split.clone(), short(it))).collect::<BTreeMap<_, _>>(),
        })
    }
}

fn table(runs: &[Run]) -> String {
    let figure = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.4}"));
    let mut text = format!(
        "{:<28} {:<12} {:<16} {:>3} {:>5} {:>7} {:>10} {:>9} {:>9}\n",
        "run", "status", "data set", "N", "seed", "min", "validation", "test", "oracle"
    );
    for Run { name, record, evaluations } in runs {
        let test = evaluations.get("test");
        // Writing to a text can't fail.
        let _ = writeln!(
            text,
            "{:<28} {:<12} {:<16} {:>3} {:>5} {:>7.1} {:>10} {:>9} {:>9}",
            name,
            record.status.name(),
            record.store.dataset,
            record.labelled.len(),
            record.seed,
            record.seconds / 60.0,
            figure(record.best_validation_dice),
            figure(test.and_then(|it| it.cam_box.dice_liver)),
            figure(test.and_then(|it| it.oracle_box.as_ref()?.dice_liver)),
        );
    }
    text + "validation, test: Dice over slices with the target, CAM boxes; oracle: with true boxes, on the test split\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_at_any_depth_and_listed_by_their_start() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &Value| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value.to_string()).unwrap();
        };
        // What `report` is tested with too: a whole record, and a whole evaluation.
        let record = |start: u64, dice: f64| {
            let mut record: Value =
                serde_json::from_str(include_str!("../../report/tests/fixtures/run/run.json")).unwrap();
            (record["started_unix"], record["best_validation_dice"]) = (start.into(), dice.into());
            (record["seconds"], record["seed"]) = (90.0.into(), 1.into());
            record
        };
        let evaluation = include_str!("../../report/tests/fixtures/run/evaluation/test.json");
        write("study/late/run.json", &record(20, 0.5));
        write("early/run.json", &record(10, 0.25));
        write("early/evaluation/test.json", &serde_json::from_str(evaluation).unwrap());
        let mut found = Vec::new();
        find(folder.path(), folder.path(), 0, &mut found).unwrap();
        found.sort_by_key(|run| run.record.started_unix);
        assert_eq!(found[1].summary()["run"], "study/late");
        let text = table(&found);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["early", "finished", "lits", "14", "1", "1.5", "0.2500", "0.9000", "0.9540"]);
        assert_eq!(lines[2][7..], ["–", "–"]);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("run.json"), "{").unwrap();
        let error = find(folder.path(), folder.path(), 0, &mut Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains("in '") && format!("{error:#}").contains("run.json'"));
    }
}
