//! `sam-mix-study study`: trains and evaluates a grid of models, label budgets and seeds on data sets, and writes what came of it
//! as tables, plots and data. What is there already is not done again.

mod comparison;
mod document;
mod experiment;
mod file;
mod leaks;
mod output;
mod page;
mod plan;
mod plots;
mod provenance;
mod results;
mod store;
mod table;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::programs::{self, DATA, Programs, SAM_MIX};
use document::Document;
use experiment::{Experiment, Job, runs_folder};
use file::Budget;
use results::RowResults;

pub const ABOUT: &str = "Train and evaluate a grid of models, budgets and seeds, and write tables and plots";

pub const EXAMPLES: &str = "\
The study is a TOML file: data sets, and a `[[model]]` for each model with `key`, `name`, `config` and `set`, a list of \
overrides; see configs/studies. Its runs are RUNS/KEY-BUDGET-SEED. Results are written after every run, and the same command goes \
on where it was stopped: finished runs are not trained again, and evaluations that are newer than their checkpoint are kept. A \
run that fails is reported, the others go on, and the exit code is 1.

Examples:
  cargo xtask study configs/studies/lits-mini.toml --plan
  cargo xtask study configs/studies/lits-mini.toml --output results
  cargo xtask study configs/studies/paper-table.toml --models sam-mix --budgets 5,50 --seeds 1 --json";

#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct Args {
    /// The study (TOML)
    #[arg(value_name = "STUDY")]
    study: PathBuf,
    /// Print the runs, how far they are, what they will cost and what is missing; start nothing
    #[arg(long, conflicts_with = "json")]
    plan: bool,
    /// With --plan: the commands instead, as they would be given by hand
    #[arg(long, requires = "plan")]
    commands: bool,
    /// Look for slices that are near-duplicates though they are of other patients or data sets, as is done before the first run
    #[arg(long, conflicts_with = "plan")]
    check_leaks: bool,
    /// Keys of the models to work on, and to write [default: all]
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    models: Vec<String>,
    /// Numbers of labelled slices (or `all`) to work on, and to write [default: as the study says]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    budgets: Vec<Budget>,
    /// Runs of each row, with seeds from 0 [default: as the study says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Folder of the runs [default: runs/ and the name of the study file]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Folder of the results [default: RUNS/results]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write into --output though something else than earlier results of this study is there
    #[arg(long)]
    overwrite: bool,
    /// What becomes of the embeddings of slices and augmented copies in RUNS/embeddings, 2 MiB each
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Embeddings::Shared)]
    embeddings: Embeddings,
    /// Print the results as JSON at the end, in the place of Markdown
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Embeddings {
    /// Runs share them, and they are removed when all runs of the study are done
    Shared,
    /// Runs share them, and they are kept
    Kept,
    /// Every run encodes by itself what it reads: slower, but without the disk space
    Unshared,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut experiment = Experiment::open(args)?;
    if args.plan {
        print!("{}", if args.commands { plan::commands(&experiment) } else { plan::plan(&experiment) });
        return Ok(ExitCode::SUCCESS);
    }
    let runs = runs_folder(args, &experiment.file);
    let paths: Vec<&Path> = experiment.stores.iter().map(|store| store.path.as_path()).collect();
    if args.check_leaks {
        println!("{}", leaks::find(&paths, &runs.join("leaks.json"))?.words());
        return Ok(ExitCode::SUCCESS);
    }
    let missing = experiment.missing();
    ensure!(missing.is_empty(), "the study can't begin:\n- {}", missing.join("\n- "));
    let output = args.output.clone().unwrap_or_else(|| runs.join("results"));
    output::check_place(&output, &experiment.title, args.overwrite)?;
    // A warning: the slices may look the same by chance.
    let leaks = match leaks::find(&paths, &runs.join("leaks.json")) {
        Ok(leaks) => leaks.words(),
        Err(error) => format!("Near-duplicates between patients or data sets were not looked for: {error:#}."),
    };
    eprintln!("{leaks}");
    let command = plan::shown("cargo xtask", std::env::args_os().skip(1));
    let programs = Programs::begin(&command)?;
    for store in &mut experiment.stores {
        store.checksum = Some(checksum(&programs, &store.path)?);
    }
    let mut document = Document {
        command,
        commit: provenance::commit(Some(&output)),
        machine: provenance::machine(),
        date: provenance::today(),
        leaks,
        experiment: &experiment,
        results: Vec::new(),
        failures: Vec::new(),
    };
    work(&programs, &mut document, &output)?;
    // A run that failed, or a row that was left out, may read them.
    if let Some(embeddings) = &experiment.embeddings {
        if args.embeddings == Embeddings::Shared && document.failures.is_empty() && !experiment.is_part {
            remove_embeddings(embeddings);
        } else if embeddings.is_dir() {
            eprintln!("embeddings are kept for further runs: {}", embeddings.display());
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&document.json())?);
    } else {
        print!("{}", document.markdown());
    }
    eprintln!("results: {}", output.display());
    for failure in &document.failures {
        eprintln!("failed: {failure}");
    }
    Ok(if document.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Goes through the runs; what fails is noted, an interruption is an error.
fn work(programs: &Programs, document: &mut Document, output: &Path) -> Result<()> {
    let experiment = document.experiment;
    let mut done = vec![false; experiment.jobs.len()];
    for (index, job) in experiment.jobs.iter().enumerate() {
        eprintln!("\n[{}/{}] {}", index + 1, experiment.jobs.len(), job.run.display());
        let trained = programs.run("training", SAM_MIX, &experiment.training(job));
        stop_if_interrupted(&trained)?;
        match trained {
            Ok(()) => done[index] = true,
            Err(error) => document.failures.push(format!("training of '{}': {error:#}", job.run.display())),
        }
        if done[index] {
            evaluate(programs, document, job)?;
        }
        document.date = provenance::today();
        document.results = RowResults::of(experiment, &done);
        output::write(document, output)?;
    }
    Ok(())
}

fn evaluate(programs: &Programs, document: &mut Document, job: &Job) -> Result<()> {
    for arguments in document.experiment.evaluations(job) {
        let evaluated = programs.run("evaluation", SAM_MIX, &arguments);
        stop_if_interrupted(&evaluated)?;
        if let Err(error) = evaluated {
            let store = Path::new(&arguments[4]).display();
            document.failures.push(format!("evaluation of '{}' on '{store}': {error:#}", job.run.display()));
        }
    }
    Ok(())
}

fn stop_if_interrupted(outcome: &Result<()>) -> Result<()> {
    match outcome {
        Err(error) if programs::interrupted() => Err(anyhow::anyhow!("{error:#}")),
        _ => Ok(()),
    }
}

/// What a store holds, by its checksum.
fn checksum(programs: &Programs, store: &Path) -> Result<String> {
    let output = programs.command(DATA).arg("inspect").arg(store).arg("--json").output();
    let output = output.with_context(|| format!("cannot start {DATA}"))?;
    ensure!(
        output.status.success(),
        "the store '{}' can't be read: {}",
        store.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let summary: Value = serde_json::from_slice(&output.stdout).context("`inspect --json` printed no JSON")?;
    Ok(summary["checksum"].as_str().context("`inspect --json` printed no checksum")?.to_owned())
}

/// What the trainer left in a folder, and the folder if that was all.
fn remove_embeddings(folder: &Path) {
    // Not there where nothing was left to encode.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if [".f16", ".f16.json"].iter().any(|end| name.to_string_lossy().ends_with(end)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
