//! `sam-mix-study ablation`: trains and evaluates every row of a table of experiments with several seeds, and writes what came of
//! it as a Markdown table. What is there already is not done again.

mod document;
mod experiment;
mod provenance;
mod results;
mod store;
mod table;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::programs::{self, DATA, Programs, SAM_MIX};
use document::Document;
use experiment::{Experiment, Job, Progress};
use results::RowResults;
use whole_file::{Existing, check_place};

pub const ABOUT: &str = "Train and evaluate a table of experiments with several seeds, and write the results";

pub const EXAMPLES: &str = "\
The table is a TOML file: `base`, a configuration, and a `[[row]]` for each experiment with `key`, `name`, and `set`, a list of \
overrides; see configs/ablation. A row's runs are RUNS/KEY-SEED. Results are written after every run, and the same command goes \
on where it was stopped: finished runs are not trained again, and evaluations that are newer than their checkpoint are kept. A \
run that fails is reported, the others go on, and the exit code is 1.

Examples:
  cargo xtask ablation --table configs/ablation/lits-mini.toml --store stores/lits-mini --dry-run
  cargo xtask ablation --table configs/ablation/lits-mini.toml --store stores/lits-mini \\
    --across stores/totalsegmentator --output ablation.md
  cargo xtask ablation --table configs/ablation/lits-mini.toml --store stores/lits-mini \\
    --rows ours,five --seeds 1 --json";

#[derive(clap::Args)]
pub struct Args {
    /// Table of experiments (TOML)
    #[arg(long, value_name = "FILE")]
    table: PathBuf,
    /// Prepared store to train on; its test patients are evaluated
    #[arg(long)]
    store: PathBuf,
    /// Prepared store of another data set, evaluated whole; repeatable
    #[arg(long, value_name = "STORE")]
    across: Vec<PathBuf>,
    /// Runs of each row, with seeds from 0
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Folder of the runs
    #[arg(long, default_value = "runs/ablation")]
    runs: PathBuf,
    /// Markdown file to write [default: printed at the end]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file of --output if something else than earlier results of this table is there
    #[arg(long, requires = "output")]
    overwrite: bool,
    /// Keys of the rows to work on, and to write [default: all]
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    rows: Vec<String>,
    /// The row whose steps of inference get a table of their own [default: the first]
    #[arg(long, value_name = "KEY")]
    steps_of: Option<String>,
    /// What becomes of the embeddings of slices and augmented copies in RUNS/embeddings, 2 MiB each
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Embeddings::Shared)]
    embeddings: Embeddings,
    /// Print the results as JSON at the end
    #[arg(long)]
    json: bool,
    /// Print the commands that would run, and start nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Embeddings {
    /// Runs share them, and they are removed when all runs of the table are done
    Shared,
    /// Runs share them, and they are kept
    Kept,
    /// Every run encodes by itself what it reads: slower, but without the disk space
    Unshared,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut experiment = Experiment::open(args)?;
    if args.dry_run {
        print!("{}", dry_run(&experiment));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(output) = &args.output {
        // The same command goes on where it was stopped.
        let is_own = fs::read_to_string(output).is_ok_and(|text| text.starts_with(&heading(args)));
        check_place(output, &[&args.table], Existing::by_switch(args.overwrite || is_own))?;
    }
    let command = shown("cargo xtask", std::env::args_os().skip(1));
    let programs = Programs::begin(&command)?;
    for store in &mut experiment.stores {
        store.checksum = Some(checksum(&programs, &store.path)?);
    }
    let mut document = Document {
        title: title(args),
        command,
        commit: provenance::commit(args.output.as_deref()),
        machine: provenance::machine(),
        date: provenance::today(),
        experiment: &experiment,
        results: Vec::new(),
        failures: Vec::new(),
    };
    work(&programs, &mut document, args.output.as_deref())?;
    // A run that failed, or a row that was left out, may read them.
    if let Some(embeddings) = &experiment.embeddings {
        if args.embeddings == Embeddings::Shared && document.failures.is_empty() && args.rows.is_empty() {
            remove_embeddings(embeddings);
        } else if embeddings.is_dir() {
            eprintln!("embeddings are kept for further runs: {}", embeddings.display());
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&document.json())?);
    } else if let Some(output) = &args.output {
        println!("results: {}", output.display());
    } else {
        print!("{}", document.markdown());
    }
    for failure in &document.failures {
        eprintln!("failed: {failure}");
    }
    Ok(if document.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn title(args: &Args) -> String {
    args.table.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// How the results of a table begin.
fn heading(args: &Args) -> String {
    format!("{}{}\n\n```sh\ncargo xtask ablation ", document::HEADING, title(args))
}

/// Goes through the runs; what fails is noted, an interruption is an error.
fn work(programs: &Programs, document: &mut Document, output: Option<&Path>) -> Result<()> {
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
        if let Some(output) = output {
            run_record::write_whole(output, document.markdown().as_bytes())?;
        }
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

/// The commands of all runs, as they would be given by hand.
fn dry_run(experiment: &Experiment) -> String {
    let mut text = String::new();
    // Writing to a text can't fail.
    let mut line = |line: String| writeln!(text, "{line}").unwrap_or_default();
    for job in &experiment.jobs {
        let progress = job.progress();
        let note = if progress == Progress::Finished { " (finished: its configuration is compared)" } else { "" };
        line(format!("# {}, seed {}{note}", experiment.rows[job.row].name, job.seed));
        line(shown("cargo xtask", experiment.training(job)));
        for arguments in experiment.evaluations(job) {
            line(shown("cargo xtask", arguments));
        }
    }
    text
}

/// A command as a shell takes it.
fn shown(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    arguments.into_iter().fold(program.to_owned(), |text, argument| {
        let argument = argument.as_ref().to_string_lossy();
        let quoted = format!("'{}'", argument.replace('\'', r"'\''"));
        let argument = if !argument.is_empty() && argument.chars().all(is_plain) { &argument } else { &*quoted };
        text + " " + argument
    })
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
