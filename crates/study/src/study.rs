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
mod slurm;
mod slurm_settings;
mod store;
mod table;
#[cfg(test)]
mod tests;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::programs::{self, DATA, Programs, SAM_MIX};
use document::Document;
use experiment::{Experiment, Job, Progress};
use file::Budget;
use results::RowResults;

pub const ABOUT: &str = "Train and evaluate a grid of models, budgets and seeds, and write tables and plots";

pub const EXAMPLES: &str = "\
The study is a TOML file: data sets, and a `[[model]]` for each model with `key`, `name`, `config` and `set`, a list of \
overrides; see configs/studies. Its runs are RUNS/KEY-BUDGET-SEED. Results are written after every run, and the same command goes \
on where it was stopped: finished runs are not trained again, and evaluations that are newer than their checkpoint are kept. A \
run that fails is reported, the others go on, and the exit code is 1. With `--backend slurm` the runs become jobs of a cluster: \
`study status STUDY` says how far they are, `study cancel STUDY` ends them.

Examples:
  cargo xtask study configs/studies/lits-mini.toml --plan
  cargo xtask study configs/studies/lits-mini.toml --output results
  cargo xtask study configs/studies/paper-table.toml --models sam-mix --budgets 5,50 --seeds 1 --json
  cargo xtask study configs/studies/lits-mini.toml --backend slurm --slurm time=4:00:00
  cargo xtask study status configs/studies/lits-mini.toml";

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Line {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    study: Args,
}

/// What else there is to do with a study that SLURM works on.
#[derive(clap::Subcommand)]
enum Other {
    #[command(about = slurm::STATUS_ABOUT, after_help = slurm::STATUS_EXAMPLES)]
    Status(slurm::StatusArgs),
    #[command(about = slurm::CANCEL_ABOUT, after_help = slurm::CANCEL_EXAMPLES)]
    Cancel(slurm::CancelArgs),
    #[command(about = slurm::TASK_ABOUT, hide = true)]
    Task(slurm::TaskArgs),
}

/// A study, or a part of it.
#[derive(Clone, clap::Args)]
pub struct Grid {
    /// The study (TOML)
    // Absent beside `status` and `cancel` alone, which have their own.
    #[arg(value_name = "STUDY", required = true)]
    study: Option<PathBuf>,
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
}

/// How runs are made.
#[derive(Clone, Copy, Default, clap::Args)]
pub struct Means {
    /// What becomes of the embeddings of slices and augmented copies in RUNS/embeddings, 2 MiB each
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Embeddings::Shared)]
    embeddings: Embeddings,
    /// Threads of training and evaluation, on which results depend [default: all cores; in a job, those that it was given]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct Args {
    #[command(flatten)]
    grid: Grid,
    /// Print the runs, how far they are, what they will cost and what is missing; start nothing. With `--backend slurm`: what would
    /// be submitted
    #[arg(long, conflicts_with = "json")]
    plan: bool,
    /// With --plan: the commands instead, as they would be given by hand
    #[arg(long, requires = "plan")]
    commands: bool,
    /// Look for slices that are near-duplicates though they are of other patients or data sets, as is done before the first run
    #[arg(long, conflicts_with = "plan")]
    check_leaks: bool,
    /// Who makes the runs
    #[arg(long, value_name = "WHO", value_enum, default_value_t = Backend::Local)]
    backend: Backend,
    /// With --backend slurm, a key of the study's `[slurm]`: partition, account, time, evaluation_time, mem, cpus, gres,
    /// signal_seconds, at_once, options
    #[arg(long, value_name = "KEY=VALUE")]
    slurm: Vec<String>,
    /// Folder of the results [default: RUNS/results]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write into --output though something else than earlier results of this study is there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    means: Means,
    /// Print the results as JSON at the end, in the place of Markdown
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Backend {
    /// This machine, one after another, while the command runs
    Local,
    /// A cluster: jobs are submitted, and the command ends
    Slurm,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Embeddings {
    /// Runs share them, and they are removed when all runs of the study are done
    #[default]
    Shared,
    /// Runs share them, and they are kept
    Kept,
    /// Every run encodes by itself what it reads: slower, but without the disk space
    Unshared,
}

pub fn run(line: &Line) -> Result<ExitCode> {
    match &line.other {
        Some(Other::Status(args)) => slurm::status(args),
        Some(Other::Cancel(args)) => slurm::cancel(args),
        Some(Other::Task(args)) => slurm::task(args),
        None => study(&line.study),
    }
}

fn study(args: &Args) -> Result<ExitCode> {
    let mut experiment = Experiment::open(&args.grid, &args.means)?;
    let runs = args.grid.runs_folder(&experiment.file);
    if args.check_leaks {
        println!("{}", leaks::find(&experiment.store_paths(), &runs.join("leaks.json"))?.words());
        return Ok(ExitCode::SUCCESS);
    }
    if args.backend == Backend::Slurm {
        return slurm::submit(args, &mut experiment);
    }
    ensure!(args.slurm.is_empty(), "--slurm is for jobs: give --backend slurm too");
    if args.plan {
        print!("{}", if args.commands { plan::commands(&experiment) } else { plan::plan(&experiment) });
        return Ok(ExitCode::SUCCESS);
    }
    slurm::check_none(&runs)?;
    let wanted = Wanted {
        work: Work::All,
        command: command(),
        output: args.results(&runs),
        runs,
        overwrite: args.overwrite,
        keeps_embeddings: args.means.embeddings == Embeddings::Kept,
        json: args.json,
    };
    produce(&mut experiment, &wanted)
}

/// This command, as it was given.
fn command() -> String {
    plan::shown("cargo xtask", std::env::args_os().skip(1))
}

impl Args {
    /// Folder of the results.
    fn results(&self, runs: &Path) -> PathBuf {
        self.output.clone().unwrap_or_else(|| runs.join("results"))
    }
}

impl Means {
    /// As they are typed.
    fn arguments(self) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        if let Some(value) = self.embeddings.to_possible_value().filter(|_| self.embeddings != Embeddings::Shared) {
            all.extend(["--embeddings".into(), value.get_name().into()]);
        }
        if let Some(threads) = self.threads {
            all.extend(["--threads".into(), threads.to_string().into()]);
        }
        all
    }
}

impl Grid {
    /// Where the runs are.
    fn runs_folder(&self, file: &Path) -> PathBuf {
        self.runs.clone().unwrap_or_else(|| Path::new("runs").join(file.file_stem().unwrap_or_default()))
    }

    /// As they are typed.
    fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = self.study.iter().map(OsString::from).collect();
        let mut add = |option: &str, value: OsString| all.extend([option.into(), value]);
        if !self.models.is_empty() {
            add("--models", self.models.join(",").into());
        }
        if !self.budgets.is_empty() {
            let budgets: Vec<String> = self.budgets.iter().map(ToString::to_string).collect();
            add("--budgets", budgets.join(",").into());
        }
        if let Some(seeds) = self.seeds {
            add("--seeds", seeds.to_string().into());
        }
        if let Some(runs) = &self.runs {
            add("--runs", runs.into());
        }
        all
    }
}
/// What results are to be of, and where they go.
struct Wanted {
    work: Work,
    /// The command that they are called after.
    command: String,
    runs: PathBuf,
    output: PathBuf,
    overwrite: bool,
    keeps_embeddings: bool,
    /// Printed at the end, in the place of Markdown.
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Train and evaluate what is not done.
    All,
    /// That was done by jobs: look at what there is, and say what is not.
    Written,
}

/// Makes the runs and writes their results.
fn produce(experiment: &mut Experiment, wanted: &Wanted) -> Result<ExitCode> {
    let missing = experiment.missing();
    ensure!(missing.is_empty(), "the study can't begin:\n- {}", missing.join("\n- "));
    let output = &wanted.output;
    output::check_place(output, &experiment.title, wanted.overwrite)?;
    // A warning: the slices may look the same by chance.
    let leaks = match leaks::find(&experiment.store_paths(), &wanted.runs.join("leaks.json")) {
        Ok(leaks) => leaks.words(),
        Err(error) => format!("Near-duplicates between patients or data sets were not looked for: {error:#}."),
    };
    eprintln!("{leaks}");
    let programs = Programs::begin(&wanted.command)?;
    experiment.read_checksums(&programs)?;
    let mut document = Document {
        command: wanted.command.clone(),
        commit: provenance::commit(Some(output)),
        machine: provenance::machine(),
        date: provenance::today(),
        leaks,
        experiment,
        results: Vec::new(),
        failures: Vec::new(),
    };
    work(&programs, &mut document, wanted)?;
    // A run that failed, or a row that was left out, may read them.
    if let Some(embeddings) = &experiment.embeddings {
        if !wanted.keeps_embeddings && document.failures.is_empty() && !experiment.is_part {
            remove_embeddings(embeddings);
        } else if embeddings.is_dir() {
            eprintln!("embeddings are kept for further runs: {}", embeddings.display());
        }
    }
    if wanted.json {
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
fn work(programs: &Programs, document: &mut Document, wanted: &Wanted) -> Result<()> {
    let experiment = document.experiment;
    let mut done = vec![false; experiment.jobs.len()];
    for (index, job) in experiment.jobs.iter().enumerate() {
        eprintln!("\n[{}/{}] {}", index + 1, experiment.jobs.len(), job.run.display());
        if wanted.work == Work::All || job.progress() == Progress::Finished {
            // A finished run's configuration and store are compared with the study's.
            let trained = programs.run("training", SAM_MIX, &experiment.training(job));
            stop_if_interrupted(&trained)?;
            match trained {
                Ok(()) => done[index] = true,
                Err(error) => document.failures.push(format!("training of '{}': {error:#}", job.run.display())),
            }
        }
        match wanted.work {
            Work::All if done[index] => document.failures.extend(evaluate(programs, experiment, job)?),
            Work::All => {}
            Work::Written => document.failures.extend(slurm::not_done(experiment, job, &wanted.runs)),
        }
        document.date = provenance::today();
        document.results = RowResults::of(experiment, &done);
        output::write(document, &wanted.output)?;
    }
    Ok(())
}

/// Makes the evaluations that a run lacks; gives what failed.
fn evaluate(programs: &Programs, experiment: &Experiment, job: &Job) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    for arguments in experiment.evaluations(job) {
        let evaluated = programs.run("evaluation", SAM_MIX, &arguments);
        stop_if_interrupted(&evaluated)?;
        if let Err(error) = evaluated {
            let store = Path::new(&arguments[4]).display();
            failures.push(format!("evaluation of '{}' on '{store}': {error:#}", job.run.display()));
        }
    }
    Ok(failures)
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
