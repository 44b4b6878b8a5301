//! What a job of a study does: trains a run, evaluates one, or writes the results. SLURM's signals come here: this program is the
//! job's, and the trainer its child.

use anyhow::{Context, Result, ensure};
use run_record::checkpoint::{self, Which};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::experiment::{Experiment, Job, Progress};
use super::super::{Embeddings, Grid, Means, Wanted, Work, evaluate, produce, provenance};
use super::jobs::{JobFile, What, folder};
use super::queue;
use crate::programs::{self, Programs, SAM_MIX};
use std::path::PathBuf;

pub const TASK_ABOUT: &str = "Do one job of a study: what the scripts that `--backend slurm` submits start";

#[derive(clap::Args)]
pub struct TaskArgs {
    /// What to do
    #[arg(value_enum)]
    what: What,
    #[command(flatten)]
    grid: Grid,
    #[command(flatten)]
    means: Means,
    /// The run, by the name of its folder
    #[arg(long, value_name = "RUN", required_if_eq_any([("what", "train"), ("what", "evaluate")]))]
    only: Option<String>,
    /// Folder of the results [default: RUNS/results]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write into --output though something else than earlier results of this study is there
    #[arg(long)]
    overwrite: bool,
}

pub fn task(args: &TaskArgs) -> Result<ExitCode> {
    let (threads, why) = threads(&args.means)?;
    let name = args.only.as_deref().unwrap_or("of the study");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let job = full_name().unwrap_or_else(|| "no job".into());
    println!("\n== {} {name}: {job}, {}, {}", args.what.name(), run_record::utc(now), why);
    let means = Means { threads: Some(threads), ..args.means };
    let mut experiment = Experiment::open(&args.grid, &means)?;
    let runs = args.grid.runs_folder(&experiment.file);
    let again = JobFile::load(&folder(&runs))?.command;
    if args.what == What::Table {
        let wanted = Wanted {
            work: Work::Written,
            command: again,
            output: args.output.clone().unwrap_or_else(|| runs.join("results")),
            runs,
            overwrite: args.overwrite,
            keeps_embeddings: means.embeddings == Embeddings::Kept,
            json: false,
        };
        return produce(&mut experiment, &wanted);
    }
    let programs = Programs::begin_in_job(&again)?;
    experiment.read_checksums(&programs)?;
    let only = args.only.as_deref().unwrap_or_default();
    let job = experiment.jobs.iter().find(|job| job.name() == only);
    let job = job.with_context(|| format!("the study '{}' has no run '{only}'", experiment.file.display()))?;
    if args.what == What::Train {
        train(&programs, &experiment, job)?;
    } else {
        ensure!(job.progress() == Progress::Finished, "'{}' is not finished: train it first", job.run.display());
        let failures = evaluate(&programs, &experiment, job)?;
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Trains until the end, or until SLURM says that the time is nearly over: then the task goes back into the queue.
fn train(programs: &Programs, experiment: &Experiment, job: &Job) -> Result<()> {
    let before = steps(job);
    let trained = programs.run("training", SAM_MIX, &experiment.training(job));
    // Who told us to end it wants no more of it, or begins it again himself: scancel, and SLURM where it takes a node away.
    if trained.is_ok() || !programs.time_is_up() || programs::told_to_end() || !programs::interrupted() {
        return trained;
    }
    ensure!(
        steps(job) > before,
        "the time was over before a step was done and saved (at step {before}): give a longer `time` in `[slurm]`, or \
         `signal_seconds` of less, which it has now before the end of that"
    );
    let Some(name) = full_name() else { return trained };
    println!("the time is nearly over: saved at step {}, requeued as {name}", steps(job));
    queue::requeue(&name).context("the run is saved, and goes on when the study is submitted again")?;
    // SLURM ends this job now.
    trained
}

/// Steps in the last checkpoint.
fn steps(job: &Job) -> usize {
    checkpoint::open(&job.run, Which::Last).map_or(0, |found| found.progress.steps)
}

/// The job's name, from which its number can't be told apart otherwise: one task of an array has the array's.
fn full_name() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok();
    match (variable("SLURM_ARRAY_JOB_ID"), variable("SLURM_ARRAY_TASK_ID")) {
        (Some(array), Some(task)) => Some(format!("{array}_{task}")),
        _ => variable("SLURM_JOB_ID"),
    }
}

/// How many threads a program has, and why.
fn threads(means: &Means) -> Result<(u32, String)> {
    if let Some(threads) = means.threads {
        return Ok((threads, format!("{} by --threads", slice_store::counted(threads as usize, "thread"))));
    }
    let usable = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let given = match std::env::var("SLURM_CPUS_ON_NODE") {
        Ok(text) => Some(text.parse().with_context(|| format!("SLURM_CPUS_ON_NODE is '{text}', expected a number"))?),
        Err(_) => None,
    };
    let threads = given.map_or(usable, |given: usize| given.clamp(1, usable));
    let given = given.map_or_else(|| "not set".into(), |given| given.to_string());
    let count = slice_store::counted(threads, "thread");
    Ok((
        threads as u32,
        format!("{count} ({usable} processors usable, SLURM_CPUS_ON_NODE {given}), {}", provenance::machine()),
    ))
}
