//! What a study would do, what it would cost, and what it lacks. Starts nothing, writes nothing.

use run_record::{LabelSeconds, RunRecord};
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::experiment::{Experiment, Job, Progress};
use super::file::Budget;

/// Runs, costs and what is missing.
pub fn plan(experiment: &Experiment) -> String {
    let mut text =
        format!("{}\n\n{:<28} {:<9} {:>7} {:>9}  {}\n", experiment.title, "run", "state", "hours", "disk", "labels");
    let (mut hours, mut bytes, mut unknown) = (Hours::default(), 0, 0);
    for job in &experiment.jobs {
        let row = &experiment.rows[job.row];
        let lacking = experiment.evaluations(job).len();
        let state = match job.progress() {
            Progress::Finished if lacking == 0 => "done",
            Progress::Finished => "evaluate",
            Progress::Begun => "begun",
            Progress::New => "to do",
        };
        let costs = Costs::of(experiment, job);
        if job.progress() != Progress::Finished {
            match &costs {
                Some(costs) => {
                    hours.add(costs);
                    bytes += costs.bytes;
                }
                None => unknown += 1,
            }
        }
        let time = costs.as_ref().map_or("?".to_owned(), |costs| format!("{:.2}", costs.hours));
        let disk = costs.as_ref().map_or("?".to_owned(), |costs| megabytes(costs.bytes));
        let labels = labels(experiment, job.row);
        let name = job.name();
        // Writing to a text can't fail.
        let _ = writeln!(text, "{name:<28} {state:<9} {time:>7} {disk:>9}  {labels}");
        if let Some(note) = row.model.note.as_ref().filter(|_| job.seed == 0) {
            let _ = writeln!(text, "    {note}");
        }
    }
    let estimated = hours.words();
    let rest = match unknown {
        0 => String::new(),
        _ => format!(", and {unknown} of unknown cost: no run of their models is finished"),
    };
    let _ = writeln!(
        text,
        "\nhours and disk are those of the run, or the mean of the same model's finished ones\nstill to train: {estimated}, {}{rest}",
        megabytes(bytes)
    );
    for store in &experiment.stores {
        let there = if store.missing.is_none() { "is there" } else { "is missing" };
        let _ = writeln!(text, "store {}: {there}", store.label());
    }
    let missing = experiment.missing();
    if !missing.is_empty() {
        let _ = writeln!(text, "\nbefore it can begin:\n- {}", missing.join("\n- "));
    }
    text + "\nthe commands: --plan --commands\n"
}

/// The commands of all runs, as they would be given by hand.
pub fn commands(experiment: &Experiment) -> String {
    let mut text = String::new();
    // Writing to a text can't fail.
    let mut line = |line: String| writeln!(text, "{line}").unwrap_or_default();
    for job in &experiment.jobs {
        let progress = job.progress();
        let note = if progress == Progress::Finished { " (finished: its configuration is compared)" } else { "" };
        line(format!("# {}, seed {}{note}", experiment.rows[job.row].name(), job.seed));
        line(shown("cargo xtask", experiment.training(job)));
        for arguments in experiment.evaluations(job) {
            line(shown("cargo xtask", arguments));
        }
    }
    text
}

/// A command as a shell takes it.
pub fn shown(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    arguments.into_iter().fold(program.to_owned(), |text, argument| {
        let argument = argument.as_ref().to_string_lossy();
        let quoted = format!("'{}'", argument.replace('\'', r"'\''"));
        let argument = if !argument.is_empty() && argument.chars().all(is_plain) { &argument } else { &*quoted };
        text + " " + argument
    })
}

/// What a run costs.
struct Costs {
    hours: f64,
    /// Trained on a GPU.
    is_gpu: bool,
    bytes: u64,
}

impl Costs {
    /// Its own, or the mean of the finished runs of its row, or else of its model; `None` without any.
    fn of(experiment: &Experiment, job: &Job) -> Option<Self> {
        let key = |job: &Job| &experiment.rows[job.row].model.key;
        let finished = || experiment.jobs.iter().filter(|other| other.progress() == Progress::Finished);
        let own: Vec<&Job> = finished().filter(|other| other.run == job.run).collect();
        let of_row: Vec<&Job> = finished().filter(|other| other.row == job.row).collect();
        let of_model: Vec<&Job> = finished().filter(|other| key(other) == key(job)).collect();
        let known = [own, of_row, of_model].into_iter().find(|jobs| !jobs.is_empty())?;
        let records: Vec<RunRecord> = known.iter().filter_map(|job| job.record()).collect();
        let mean = |sum: f64| sum / records.len() as f64;
        Some(Self {
            hours: mean(records.iter().map(|record| record.seconds / 3600.0).sum()),
            is_gpu: records.iter().any(|record| record.device != "cpu"),
            bytes: known.iter().map(|job| size(&job.run)).sum::<u64>() / known.len() as u64,
        })
    }
}

#[derive(Default)]
struct Hours {
    cpu: f64,
    gpu: f64,
}

impl Hours {
    fn add(&mut self, costs: &Costs) {
        *(if costs.is_gpu { &mut self.gpu } else { &mut self.cpu }) += costs.hours;
    }

    fn words(&self) -> String {
        let parts = [(self.gpu, "GPU-hours"), (self.cpu, "hours on a CPU")];
        let parts: Vec<String> =
            parts.iter().filter(|(hours, _)| *hours > 0.0).map(|(hours, of)| format!("{hours:.2} {of}")).collect();
        if parts.is_empty() { "0 hours known".into() } else { parts.join(" and ") }
    }
}

/// What annotators have to say for a run of a row.
fn labels(experiment: &Experiment, row: usize) -> String {
    let known = experiment.jobs.iter().filter(|job| job.row == row).find_map(Job::record);
    match (known, experiment.rows[row].budget) {
        (Some(record), _) => format!("{}{}", record.label_budget, record.label_budget.time()),
        (None, Some(Budget::Slices(count))) => {
            let minutes = count as f64 * LabelSeconds::default().mask / 60.0;
            format!("{} ({minutes:.0} min) and what else the configuration reads", slice_store::counted(count, "mask"))
        }
        (None, Some(budget)) => budget.words(),
        (None, None) => "as its configuration has it".into(),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Of all files below a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.metadata().map_or(0, |of| if of.is_dir() { size(&entry.path()) } else { of.len() })).sum()
}
