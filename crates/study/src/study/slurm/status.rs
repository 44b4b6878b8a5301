//! `study status` and `study cancel`: from the queue, the runs' own records and their logs, which are there without SLURM's
//! accounting too.

use anyhow::Result;
use run_record::{Metrics, RowKind, Status};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::super::experiment::{Experiment, Job, Progress};
use super::super::{Grid, Means};
use super::jobs::{JobFile, What, comment, folder, log};
use super::queue::{self, Entry};

pub const STATUS_ABOUT: &str = "Say how far a submitted study's runs are, and why some failed";

pub const STATUS_EXAMPLES: &str = "\
Reads SLURM's queue, the runs' records and their logs, RUNS/slurm/RUN.log; needs no accounting (sacct).

Examples:
  cargo xtask study status configs/studies/lits-mini.toml
  cargo xtask study status configs/studies/lits-mini.toml --models ours --json";

#[derive(clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    grid: Grid,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub const CANCEL_ABOUT: &str = "Take a study's jobs out of the queue; runs in training save";

pub const CANCEL_EXAMPLES: &str = "\
The jobs are those of the study's folder of runs, RUNS/slurm/jobs.json; with --models, --budgets or --seeds, those of these runs.

Examples:
  cargo xtask study cancel configs/studies/lits-mini.toml
  cargo xtask study cancel configs/studies/lits-mini.toml --models paper";

#[derive(clap::Args)]
pub struct CancelArgs {
    #[command(flatten)]
    grid: Grid,
}

/// How far a run is, or its evaluations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// Never given to SLURM, and not done.
    New,
    Pending,
    Running,
    /// Stopped in the middle, and saved: it is in the queue again, or goes on when the study is submitted again.
    Interrupted,
    Finished,
    Failed,
}

impl State {
    /// As in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Serialize)]
struct Line {
    run: String,
    state: State,
    /// In the queue.
    job: Option<String>,
    /// Done so far.
    step: usize,
    /// Of so many, where the run has begun.
    steps: Option<usize>,
    evaluation: State,
    /// Why it waits, or what became of it.
    why: Option<String>,
    log: PathBuf,
}

pub fn status(args: &StatusArgs) -> Result<ExitCode> {
    let experiment = Experiment::open(&args.grid, &Means::default())?;
    let runs = args.grid.runs_folder(&experiment.file);
    let file = JobFile::load(&folder(&runs))?;
    let queue = queue::of_study(&comment(&runs)?);
    let known = queue.as_deref().unwrap_or_default();
    let mut jobs: Vec<&Job> = experiment.jobs.iter().collect();
    jobs.sort_by_key(|job| (job.row, job.seed));
    let lines: Vec<Line> = jobs.into_iter().map(|job| line(&experiment, job, &runs, &file, known)).collect();
    let table = known.iter().find(|entry| file.what(&entry.job) == Some(What::Table));
    let no_queue = queue.as_ref().err().map(|error| format!("{error:#}"));
    if args.json {
        let table = table.map(|entry| json!({ "job": entry.job, "state": entry.state, "reason": entry.reason }));
        let value = json!({ "study": experiment.title, "queue_error": no_queue, "runs": lines, "table": table });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", words(&lines));
    match table {
        Some(entry) => println!("table: job {}, {} ({})", entry.job, entry.state.to_lowercase(), entry.reason),
        None => println!("table: no job in the queue; what the last one said: {}", log(&runs, "table").display()),
    }
    if let Some(error) = no_queue {
        println!("what is in the queue is not known: {error}");
    }
    Ok(ExitCode::SUCCESS)
}

fn words(lines: &[Line]) -> String {
    let mut text = format!("{:<28} {:<12} {:<10} {:>15}  {:<11} why\n", "run", "state", "job", "step", "evaluation");
    for it in lines {
        let steps = it.steps.map_or_else(|| "–".to_owned(), |steps| format!("{} of {steps}", it.step));
        let (state, evaluation) = (it.state.name(), it.evaluation.name());
        let (job, why) = (it.job.as_deref().unwrap_or("–"), it.why.as_deref().unwrap_or_default());
        let line = format!("{:<28} {state:<12} {job:<10} {steps:>15}  {evaluation:<11} {why}", it.run);
        // Writing to a text can't fail.
        let _ = writeln!(text, "{}", line.trim_end());
        if it.state == State::Failed || it.evaluation == State::Failed {
            let _ = writeln!(text, "    its log: {}", it.log.display());
        }
    }
    text
}

fn line(experiment: &Experiment, job: &Job, runs: &Path, file: &JobFile, queue: &[Entry]) -> Line {
    let (name, number) = (job.name(), file.known(&job.name()));
    let log = log(runs, &name);
    let entry =
        |what| queue.iter().find(|it| it.task.is_some() && it.task == number && file.what(&it.job) == Some(what));
    let was_submitted = |what| number.is_some_and(|number| file.was_submitted(what, number));
    let (training, evaluation) = (entry(What::Train), entry(What::Evaluate));
    let (progress, record) = (job.progress(), job.record());
    let state = match training {
        Some(entry) if !entry.is_pending() => State::Running,
        // SLURM has put it back, or the time was over.
        Some(_) if progress == Progress::Begun => State::Interrupted,
        Some(_) => State::Pending,
        None if progress == Progress::Finished => State::Finished,
        None if record.as_ref().is_some_and(|record| record.status == Status::Interrupted) => State::Interrupted,
        None if was_submitted(What::Train) => State::Failed,
        None if progress == Progress::Begun => State::Interrupted,
        None => State::New,
    };
    let evaluated = match evaluation {
        _ if progress == Progress::Finished && experiment.evaluations(job).is_empty() => State::Finished,
        Some(entry) if entry.is_pending() => State::Pending,
        Some(_) => State::Running,
        None if state == State::Finished && was_submitted(What::Evaluate) => State::Failed,
        None => State::New,
    };
    // The evaluation of a run that has just failed waits until SLURM takes it out.
    let current = training.or(evaluation.filter(|_| state == State::Finished));
    let why = match (current.filter(|entry| entry.is_pending()), state, evaluated) {
        (_, State::Running, _) | (_, _, State::Running) => None,
        (Some(entry), ..) => Some(waits(entry)),
        (None, State::Failed | State::Interrupted, _) => reason(&log, What::Train),
        (None, _, State::Failed) => reason(&log, What::Evaluate),
        _ => None,
    };
    // A damaged file is the trainer's to report.
    let metrics = Metrics::read(&job.run.join("metrics.csv")).ok().flatten();
    Line {
        run: name,
        state,
        job: current.map(Entry::name),
        step: metrics.map_or(0, |metrics| metrics.range(RowKind::Step).1 as usize),
        steps: record.and_then(|record| record.steps),
        evaluation: evaluated,
        why,
        log,
    }
}

/// What SLURM says, and what that means where it is no common word.
fn waits(entry: &Entry) -> String {
    let meaning = match entry.reason.as_str() {
        "BeginTime" => " (requeued: SLURM waits about two minutes before it goes on)",
        "Dependency" => " (after the jobs before it)",
        "DependencyNeverSatisfied" => " (what it waits for has failed: `study cancel`, then submit again)",
        "Priority" | "Resources" => " (others are before it)",
        _ => "",
    };
    format!("{}{meaning}", entry.reason)
}

/// Why a run ended, by its log: the last start of this kind has SLURM's own words (time, memory, scancel, a lost node), or the
/// first error of the programs.
pub fn reason(log: &Path, what: What) -> Option<String> {
    let text = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    // Each begins with a line of its own, before which SLURM may have said why it can't begin.
    let starts: Vec<&str> = text.split("\n== ").collect();
    let last = starts.iter().rfind(|start| start.starts_with(what.name())).and_then(|start| start.split_once('\n'));
    let mut lines = last.map_or(starts[0], |(_, lines)| lines).lines().map(str::trim);
    let slurms = lines.clone().rfind(|line| line.starts_with("slurmstepd") && line.contains("error:"));
    let own = slurms.or_else(|| lines.clone().find(|line| line.starts_with("error:")));
    let own = own.or_else(|| lines.rfind(|line| !line.is_empty()));
    let words = own.unwrap_or(if last.is_some() { "it ended without a word" } else { "SLURM did not begin it" });
    Some(words.split_once("error: ").map_or(words, |(_, words)| words).to_owned())
}

pub fn cancel(args: &CancelArgs) -> Result<ExitCode> {
    let experiment = Experiment::open(&args.grid, &Means::default())?;
    let runs = args.grid.runs_folder(&experiment.file);
    let file = JobFile::load(&folder(&runs))?;
    let picked: Vec<usize> = experiment.jobs.iter().filter_map(|job| file.known(&job.name())).collect();
    let queue = queue::of_study(&comment(&runs)?)?;
    // The results of the other runs are still wanted where a part is cancelled.
    let is_meant = |entry: &&Entry| entry.task.map_or(!experiment.is_part, |task| picked.contains(&task));
    let names: Vec<String> = queue.iter().filter(is_meant).map(Entry::name).collect();
    if names.is_empty() {
        println!("no job of these runs is in the queue");
    } else {
        queue::cancel(&names)?;
        println!("cancelled: {}; what is in training saves within SLURM's 30 s", names.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_why_the_last_start_ended() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a-0.log");
        let start = "\n== train a-0: 8_0, 2026-01-31 10:00 UTC\n\n> sam-mix train\n";
        let limit = "slurmstepd-a: error: *** JOB 8 ON a CANCELLED AT x DUE TO TIME LIMIT ***\n";
        for (text, train, evaluate) in [
            ("", "SLURM did not begin it", "SLURM did not begin it"),
            ("slurmstepd: error: no shell\n", "no shell", "no shell"),
            (
                &format!("{start}error: old\n{start}error: the store is gone\nerror: sam-mix failed\n"),
                "the store is gone",
                "SLURM did not begin it",
            ),
            (
                &format!("{start}error: interrupted\n{limit}"),
                "*** JOB 8 ON a CANCELLED AT x DUE TO TIME LIMIT ***",
                "SLURM did not begin it",
            ),
            (&format!("{start}error: one\n\n== evaluate a-0: 9_0\nerror: two\n"), "one", "two"),
            (&format!("{start}it went on\n"), "it went on", "SLURM did not begin it"),
        ] {
            fs::write(&log, text).unwrap();
            assert_eq!(reason(&log, What::Train).as_deref(), Some(train), "{text}");
            assert_eq!(reason(&log, What::Evaluate).as_deref(), Some(evaluate), "{text}");
        }
        assert_eq!(reason(&folder.path().join("none"), What::Train), None);
    }
}
