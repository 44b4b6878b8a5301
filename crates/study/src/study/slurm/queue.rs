//! SLURM's programs: what is in the queue, and how jobs get into it and out. `sacct` is not among them: where there is no
//! accounting, it knows nothing.

use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::process::Command;

/// A job of ours that waits or runs, or a task of an array.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The array's number, or the job's.
    pub job: String,
    pub task: Option<usize>,
    /// `PENDING`, `RUNNING`, `COMPLETING`, …
    pub state: String,
    /// Why it waits.
    pub reason: String,
}

impl Entry {
    /// By which SLURM knows it. Never the task's own number: one task of an array has the array's, which means all of them.
    pub fn name(&self) -> String {
        self.task.map_or_else(|| self.job.clone(), |task| format!("{}_{task}", self.job))
    }

    pub fn is_pending(&self) -> bool {
        self.state == "PENDING"
    }
}

/// The user's jobs with this comment, which names the study's folder of runs.
pub fn of_study(comment: &str) -> Result<Vec<Entry>> {
    let text = said("squeue", ["--me", "--array", "--noheader", "--format=%F|%K|%T|%r|%k"])?;
    Ok(parse(&text, comment))
}

fn parse(text: &str, comment: &str) -> Vec<Entry> {
    let entries = text.lines().filter_map(|line| {
        let mut fields = line.splitn(5, '|');
        let [job, task, state, reason] = [(); 4].map(|()| fields.next().unwrap_or_default().trim().to_owned());
        (fields.next() == Some(comment)).then(|| Entry { job, task: task.parse().ok(), state, reason })
    });
    entries.collect()
}

/// Submits a script; the job's number.
pub fn submit<S: AsRef<OsStr>>(arguments: &[S]) -> Result<String> {
    let text = said("sbatch", arguments)?;
    // Where there are several clusters, `;` and the cluster's name follow.
    let number = text.trim().split(';').next().unwrap_or_default();
    ensure!(!number.is_empty(), "sbatch gave no number, but: {text}");
    Ok(number.to_owned())
}

pub fn cancel(names: &[String]) -> Result<()> {
    said("scancel", names).map(drop)
}

pub fn requeue(name: &str) -> Result<()> {
    said("scontrol", ["requeue", name]).map(drop)
}

/// What a program of SLURM prints.
fn said<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    // A job that is submitted from a job would take that one's for its own. `SQUEUE_…` would choose among the jobs.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SLURM_") && text != "SLURM_CONF" || text.starts_with("SQUEUE_") {
            command.env_remove(&name);
        }
    }
    let output = command.output().with_context(|| {
        format!("cannot start {program}: SLURM's programs are on the machines from which its jobs are submitted")
    })?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {}", error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_named_by_their_array() {
        let text = "8|2|PENDING|BeginTime|/runs/a|b\n9|N/A|RUNNING|None|/runs/a|b\n10|1|RUNNING|None|/runs/a\n11|1|PENDING|(null)|(null)\n";
        let entries = parse(text, "/runs/a|b");
        let names: Vec<String> = entries.iter().map(Entry::name).collect();
        assert_eq!((names, entries[0].is_pending()), (vec!["8_2".to_owned(), "9".to_owned()], true));
        assert_eq!(parse(text, "/runs/a")[0].name(), "10_1");
    }
}
