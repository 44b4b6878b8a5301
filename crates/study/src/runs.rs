//! `sam-mix-study runs`: the runs below a folder with their best figures.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
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
    found.sort_by_key(|run| run["started_unix"].as_u64().unwrap_or(0));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        print!("{}", table(&found));
    }
    Ok(ExitCode::SUCCESS)
}

fn find(top: &Path, folder: &Path, depth: usize, found: &mut Vec<Value>) -> Result<()> {
    if folder.join("run.json").is_file() {
        found.push(summary(folder, folder.strip_prefix(top).unwrap_or(folder))?);
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

/// What is worth a line of a run: of `run.json`, and of each evaluation.
fn summary(run: &Path, name: &Path) -> Result<Value> {
    let record = read(&run.join("run.json"))?;
    let mut evaluations = serde_json::Map::new();
    for entry in fs::read_dir(run.join("evaluation")).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let it = read(&path)?;
            let split = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let short = json!({
                "cam_box": it["cam_box"],
                "oracle_box_dice_liver": it["oracle_box"]["dice_liver"],
                "control_whole_image_dice_liver": it["control_whole_image"]["dice_liver"],
                "classifier": it["classifier"],
            });
            evaluations.insert(split, short);
        }
    }
    Ok(json!({
        "run": name.to_string_lossy(),
        "status": record["status"],
        "dataset": record["store"]["dataset"],
        "labelled_slices": record["label_budget"]["labelled_slices"],
        "seed": record["seed"],
        "commit": record["commit"],
        "device": record["device"],
        "started_unix": record["started_unix"],
        "seconds": record["seconds"],
        "best_validation_dice": record["best_validation_dice"],
        "evaluation": evaluations,
    }))
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read '{}'", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("'{}' is not JSON", path.display()))
}

fn table(runs: &[Value]) -> String {
    let figure = |value: &Value| value.as_f64().map_or("–".to_owned(), |v| format!("{v:.4}"));
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut text = format!(
        "{:<28} {:<12} {:<16} {:>3} {:>5} {:>7} {:>10} {:>9} {:>9}\n",
        "run", "status", "data set", "N", "seed", "min", "validation", "test", "oracle"
    );
    for run in runs {
        let test = &run["evaluation"]["test"];
        // Writing to a text can't fail.
        let _ = writeln!(
            text,
            "{:<28} {:<12} {:<16} {:>3} {:>5} {:>7.1} {:>10} {:>9} {:>9}",
            word(&run["run"]),
            word(&run["status"]),
            word(&run["dataset"]),
            run["labelled_slices"].to_string(),
            run["seed"].to_string(),
            run["seconds"].as_f64().unwrap_or(0.0) / 60.0,
            figure(&run["best_validation_dice"]),
            figure(&test["cam_box"]["dice_liver"]),
            figure(&test["oracle_box_dice_liver"]),
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
        let record = |start: u64, dice: f64| {
            json!({ "status": "finished", "seed": 1, "started_unix": start, "seconds": 90.0, "best_validation_dice": dice,
                "store": { "dataset": "lits" }, "label_budget": { "labelled_slices": 50 } })
        };
        write("study/late/run.json", &record(20, 0.5));
        write("early/run.json", &record(10, 0.25));
        write(
            "early/evaluation/test.json",
            &json!({ "cam_box": { "dice_liver": 0.875 }, "oracle_box": { "dice_liver": 0.9 } }),
        );
        let mut found = Vec::new();
        find(folder.path(), folder.path(), 0, &mut found).unwrap();
        found.sort_by_key(|run| run["started_unix"].as_u64());
        assert_eq!(found[1]["run"], "study/late");
        let text = table(&found);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["early", "finished", "lits", "50", "1", "1.5", "0.2500", "0.8750", "0.9000"]);
        assert_eq!(lines[2][7..], ["–", "–"]);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("run.json"), "{").unwrap();
        let error = find(folder.path(), folder.path(), 0, &mut Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains("run.json' is not JSON"));
    }
}
