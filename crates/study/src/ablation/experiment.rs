//! What an ablation comes to: stores, runs in their order, and the arguments of the programs that make them.

use anyhow::{Context, Result};
use run_record::{Evaluation, RunRecord, Status, read_json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::store::{Store, check_names};
use super::table::{Row, Table};
use super::{Args, Embeddings};
use crate::located;

/// All that was checked before anything runs.
pub struct Experiment {
    pub rows: Vec<Row>,
    /// The runs in the order in which they are made: finished ones first, then seed by seed.
    pub jobs: Vec<Job>,
    /// The one that is trained on, then those across.
    pub stores: Vec<Store>,
    pub seeds: u64,
    /// The row whose steps of inference are shown.
    pub steps_of: usize,
    /// Where runs that encode the same slices or augmented copies find what came of it, if they shall. Large.
    pub embeddings: Option<PathBuf>,
}

/// One run.
pub struct Job {
    /// Its place in the table.
    pub row: usize,
    pub seed: u64,
    pub run: PathBuf,
    config: PathBuf,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    New,
    Begun,
    Finished,
}

impl Experiment {
    /// Reads and checks what the arguments name. Nothing is built, started or written.
    pub fn open(args: &Args) -> Result<Self> {
        let file = located(&args.table, Path::new("."));
        let table = Table::load(&file, &args.rows)?;
        let steps_of = match &args.steps_of {
            Some(key) => table.rows.iter().position(|row| row.key == *key).with_context(|| {
                let known: Vec<&str> = table.rows.iter().map(|row| row.key.as_str()).collect();
                format!("--steps-of {key}: there is no such row, only: {}", known.join(", "))
            })?,
            None => 0,
        };
        let mut configs = Vec::new();
        for row in &table.rows {
            let path = located(table.config(row), file.parent().unwrap_or(Path::new("")));
            let text = fs::read_to_string(&path)
                .with_context(|| format!("row `{}`: cannot read its configuration '{}'", row.key, path.display()))?;
            text.parse::<toml::Table>().with_context(|| format!("in '{}': this is not TOML", path.display()))?;
            configs.push(path);
        }
        let stores: Vec<Store> =
            std::iter::once(&args.store).chain(&args.across).map(|path| Store::open(path)).collect::<Result<_>>()?;
        check_names(&stores)?;
        let mut jobs = Vec::new();
        for seed in 0..args.seeds {
            let of_seed = table.rows.iter().zip(&configs).enumerate().map(|(index, (row, config))| Job {
                row: index,
                seed,
                run: args.runs.join(format!("{}-{seed}", row.key)),
                config: config.clone(),
            });
            jobs.extend(of_seed);
        }
        jobs.sort_by_key(|job| job.progress() != Progress::Finished);
        let embeddings = (args.embeddings != Embeddings::Unshared).then(|| args.runs.join("embeddings"));
        Ok(Self { rows: table.rows, jobs, stores, seeds: args.seeds, steps_of, embeddings })
    }

    /// Arguments of `sam-mix` that train a run, or go on with it. A finished run's configuration and store are compared with
    /// what is asked, and that is all.
    pub fn training(&self, job: &Job) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["train".into()];
        let mut add = |option: &str, value: OsString| arguments.extend([option.into(), value]);
        add("--config", job.config.clone().into());
        add("--store", self.stores[0].path.clone().into());
        add("--run", job.run.clone().into());
        add("--set", format!("seed={}", job.seed).into());
        for item in &self.rows[job.row].set {
            add("--set", item.into());
        }
        arguments.extend(self.sharing());
        if job.progress() != Progress::New {
            arguments.push("--resume".into());
        }
        arguments
    }

    /// The evaluations that a run lacks, as arguments of `sam-mix`.
    pub fn evaluations(&self, job: &Job) -> Vec<Vec<OsString>> {
        let lacking = (0..self.stores.len()).filter(|&store| self.evaluation(job, store).is_none());
        let arguments = lacking.map(|store| {
            let split = if store == 0 { "test" } else { "all" };
            let (run, path) = (job.run.clone().into(), self.stores[store].path.clone().into());
            let arguments =
                ["evaluate".into(), "--run".into(), run, "--store".into(), path, "--split".into(), split.into()];
            arguments.into_iter().chain(self.sharing()).collect()
        });
        arguments.collect()
    }

    fn sharing(&self) -> impl Iterator<Item = OsString> {
        self.embeddings.iter().flat_map(|folder| ["--embeddings".into(), folder.into()])
    }

    /// What a finished run is worth on a store; `None` if that was not evaluated, or by a checkpoint that the run has no more.
    pub fn evaluation(&self, job: &Job, store: usize) -> Option<Evaluation> {
        let Store { dataset, checksum, .. } = &self.stores[store];
        let name = if store == 0 { "test" } else { dataset };
        let path = job.run.join("evaluation").join(format!("{name}.json"));
        let changed = |path: &Path| path.metadata().and_then(|of| of.modified()).ok();
        let (evaluated, saved) = (changed(&path)?, changed(&job.run.join("checkpoints/best"))?);
        let it: Evaluation = read_json(&path).ok()?;
        let is_of_store =
            it.dataset == *dataset && checksum.as_ref().is_none_or(|checksum| it.store_checksum == *checksum);
        (evaluated >= saved && job.progress() == Progress::Finished && is_of_store).then_some(it)
    }
}

impl Job {
    pub fn progress(&self) -> Progress {
        match self.record() {
            Some(record) if record.status == Status::Finished => Progress::Finished,
            // A damaged record is the trainer's to report.
            None if !self.run.join("run.json").exists() => Progress::New,
            _ => Progress::Begun,
        }
    }

    /// The run's own record; `None` if it is not there, or none.
    pub fn record(&self) -> Option<RunRecord> {
        RunRecord::load(&self.run).ok()
    }
}
