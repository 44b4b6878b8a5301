//! `RUNS/slurm` and `jobs.json` in it: the jobs that were submitted, and which run each task of their arrays is.

use anyhow::{Context, Result};
use run_record::{read_json, write_json};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where scripts, logs and the job file of a study are.
pub fn folder(runs: &Path) -> PathBuf {
    runs.join("slurm")
}

/// By this comment the queue's jobs are known as the study's, whatever became of the job file.
pub fn comment(runs: &Path) -> Result<String> {
    let path = std::path::absolute(runs).with_context(|| format!("cannot find '{}'", runs.display()))?;
    // The current folder may be named in several ways, the folder itself may not be there yet.
    let path = path.canonicalize().unwrap_or(path);
    let is_plain = |path: &str| !path.contains(['\n', '%']);
    let path = path.to_str().filter(|path| is_plain(path)).map(str::to_owned);
    path.with_context(|| format!("'{}' has characters that SLURM can't have: name another --runs", runs.display()))
}

/// A run's log, and what SLURM writes into it.
pub fn log(runs: &Path, run: &str) -> PathBuf {
    folder(runs).join(format!("{run}.log"))
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Trains a run, or goes on with it
    Train,
    /// Makes the evaluations that a run lacks
    Evaluate,
    /// Writes the results of what is done, and names what is not
    Table,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Evaluate => "evaluate",
            Self::Table => "table",
        }
    }
}

/// A job, or an array of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub id: String,
    pub what: What,
    /// Numbers of runs; none of a table.
    pub tasks: Vec<usize>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct JobFile {
    /// The command that submitted last.
    pub command: String,
    /// Runs by their numbers, which they keep: a task of any array has its run's number, and so has its log.
    pub runs: Vec<String>,
    /// In the order in which they were submitted.
    pub jobs: Vec<Job>,
}

impl JobFile {
    /// Empty where there is none.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = Self::path(folder);
        if path.exists() { Ok(read_json(&path)?) } else { Ok(Self::default()) }
    }

    pub fn save(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&Self::path(folder), self)?)
    }

    pub fn path(folder: &Path) -> PathBuf {
        folder.join("jobs.json")
    }

    /// A run's number, if it has one.
    pub fn known(&self, run: &str) -> Option<usize> {
        self.runs.iter().position(|known| known == run)
    }

    /// A run's number, the next one if it has none.
    pub fn number(&mut self, run: &str) -> usize {
        self.known(run).unwrap_or_else(|| {
            self.runs.push(run.to_owned());
            self.runs.len() - 1
        })
    }

    /// What a job of the queue does, if it is known here.
    pub fn what(&self, id: &str) -> Option<What> {
        self.jobs.iter().find(|job| job.id == id).map(|job| job.what)
    }

    /// Whether a run was given to SLURM for this.
    pub fn was_submitted(&self, what: What, number: usize) -> bool {
        self.jobs.iter().any(|job| job.what == what && job.tasks.contains(&number))
    }
}
