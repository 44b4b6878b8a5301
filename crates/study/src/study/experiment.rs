//! What a study comes to: stores, runs in their order, and the arguments of the programs that make them.

use anyhow::{Context, Result, bail, ensure};
use run_record::{Evaluation, RunRecord, Status, read_json, read_settings};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::{Budget, Model, Study, run_name};
use super::slurm_settings::Settings;
use super::store::{Store, check_names};
use super::{Embeddings, Grid, Means, checksum};
use crate::located;
use crate::programs::Programs;

/// All that was checked before anything runs.
pub struct Experiment {
    pub title: String,
    /// The study file.
    pub file: PathBuf,
    pub rows: Vec<Row>,
    /// The runs in the order in which they are made: finished ones first, then seed by seed.
    pub jobs: Vec<Job>,
    /// The one that is trained on, then those across.
    pub stores: Vec<Store>,
    /// Where runs that encode the same slices or augmented copies find what came of it, if they shall. Large.
    pub embeddings: Option<PathBuf>,
    /// Whether rows of the study were left out.
    pub is_part: bool,
    /// Of training and evaluation; absent: all that there are.
    threads: Option<u32>,
    /// Of jobs.
    pub slurm: Settings,
}

/// A model with a number of labelled slices.
pub struct Row {
    pub model: Model,
    /// `None`: the configuration's own.
    pub budget: Option<Budget>,
    pub seeds: u64,
    pub config: PathBuf,
    /// The file of pretrained weights, where the configuration names one that is not there.
    pub missing_weights: Option<PathBuf>,
}

/// One run.
pub struct Job {
    /// Its place in the table.
    pub row: usize,
    pub seed: u64,
    pub run: PathBuf,
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
    pub fn open(args: &Grid, means: &Means) -> Result<Self> {
        let file = located(args.study.as_deref().context("no study was given")?, Path::new("."));
        let folder = file.parent().unwrap_or(Path::new(""));
        let study = Study::load(&file)?;
        if let Some(unknown) = args.models.iter().find(|key| study.models.iter().all(|model| model.key != **key)) {
            let known: Vec<&str> = study.models.iter().map(|model| model.key.as_str()).collect();
            bail!("--models: '{}' has no model `{unknown}`, only: {}", file.display(), known.join(", "));
        }
        let all: Vec<(&Model, Option<Budget>)> = study
            .models
            .iter()
            .flat_map(|model| study.rows_of(model).into_iter().map(move |budget| (model, budget)))
            .collect();
        for budget in &args.budgets {
            let known = all.iter().any(|(_, of)| *of == Some(*budget));
            ensure!(known, "--budgets: no model of '{}' has {}", file.display(), budget.words());
        }
        let is_picked = |(model, budget): &(&Model, Option<Budget>)| {
            (args.models.is_empty() || args.models.contains(&model.key))
                && (args.budgets.is_empty() || budget.is_some_and(|budget| args.budgets.contains(&budget)))
        };
        let picked: Vec<_> = all.iter().copied().filter(is_picked).collect();
        ensure!(!picked.is_empty(), "--models and --budgets leave nothing of the study '{}'", file.display());
        let seeds = |model: &Model| args.seeds.or(model.seeds).unwrap_or(study.seeds);
        let rows = picked.iter().map(|(model, budget)| {
            // `Study::load` has made sure that they are there.
            let of = model.oracle_of.as_ref().and_then(|of| study.models.iter().find(|other| other.key == *of));
            let of = of.unwrap_or(model);
            let config = of.config.as_ref().or(study.config.as_ref()).context("no configuration")?;
            Row::open((model, of), *budget, seeds(of), located(config, folder))
        });
        let rows: Vec<Row> = rows.collect::<Result<_>>()?;
        let stores: Vec<Store> =
            std::iter::once(&study.train).chain(&study.across).map(|of| Store::find(of, folder)).collect();
        check_names(&stores)?;
        let runs = args.runs_folder(&file);
        let mut jobs = Vec::new();
        for seed in 0..rows.iter().map(|row| row.seeds).max().unwrap_or_default() {
            let has_own = |row: &Row| seed < row.seeds && row.model.oracle_of.is_none();
            let of_seed = rows.iter().enumerate().filter(|(_, row)| has_own(row)).map(|(index, row)| Job {
                row: index,
                seed,
                run: runs.join(format!("{}-{seed}", row.key())),
            });
            jobs.extend(of_seed);
        }
        jobs.sort_by_key(|job| job.progress() != Progress::Finished);
        let embeddings = (means.embeddings != Embeddings::Unshared).then(|| runs.join("embeddings"));
        let whole = |row: &Row| row.seeds >= row.model.seeds.unwrap_or(study.seeds);
        let is_part = picked.len() < all.len() || !rows.iter().all(whole);
        let (threads, slurm) = (means.threads, study.slurm);
        Ok(Self { title: study.title, file, rows, jobs, stores, embeddings, is_part, threads, slurm })
    }

    pub fn store_paths(&self) -> Vec<&Path> {
        self.stores.iter().map(|store| store.path.as_path()).collect()
    }

    /// Asks what the stores hold.
    pub fn read_checksums(&mut self, programs: &Programs) -> Result<()> {
        for store in &mut self.stores {
            store.checksum = Some(checksum(programs, &store.path)?);
        }
        Ok(())
    }

    /// What must be there before anything runs, and is not; with what to do.
    pub fn missing(&self) -> Vec<String> {
        let mut all: Vec<String> = self.stores.iter().filter_map(|store| store.missing.clone()).collect();
        for row in &self.rows {
            let of = row.missing_weights.as_ref().map(|path| {
                format!(
                    "'{}' is missing, the pretrained weights that '{}' names: `cargo xtask setup` gets LiteMedSAM's, \
                     docs/how-to/other-checkpoints.md says where others are",
                    path.display(),
                    row.config.display()
                )
            });
            all.extend(of.filter(|line| !all.contains(line)));
        }
        all
    }

    /// Arguments of `sam-mix` that train a run, or go on with it. A finished run's configuration and store are compared with
    /// what is asked, and that is all.
    pub fn training(&self, job: &Job) -> Vec<OsString> {
        let row = &self.rows[job.row];
        let mut arguments: Vec<OsString> = vec!["train".into()];
        let mut add = |option: &str, value: OsString| arguments.extend([option.into(), value]);
        add("--config", row.config.clone().into());
        add("--store", self.stores[0].path.clone().into());
        add("--run", job.run.clone().into());
        add("--set", format!("seed={}", job.seed).into());
        for item in &row.set() {
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
            let Store { path, volumes, .. } = &self.stores[store];
            let (run, path) = (job.run.clone().into(), path.clone().into());
            let arguments =
                ["evaluate".into(), "--run".into(), run, "--store".into(), path, "--split".into(), split.into()];
            let volumes = volumes.iter().flat_map(|volumes| ["--volumes".into(), volumes.into()]);
            arguments.into_iter().chain(volumes).chain(self.sharing()).collect()
        });
        arguments.collect()
    }

    /// What training and evaluation have in common.
    fn sharing(&self) -> impl Iterator<Item = OsString> {
        let threads = self.threads.iter().flat_map(|threads| ["--threads".into(), threads.to_string().into()]);
        self.embeddings.iter().flat_map(|folder| ["--embeddings".into(), folder.into()]).chain(threads)
    }

    /// What a finished run is worth on a store; `None` if that was not evaluated, or not on its volumes' own voxels, or by a checkpoint that the run has no more.
    pub fn evaluation(&self, job: &Job, store: usize) -> Option<Evaluation> {
        let Store { dataset, checksum, volumes, .. } = &self.stores[store];
        let name = if store == 0 { "test" } else { dataset };
        let path = job.run.join("evaluation").join(format!("{name}.json"));
        let changed = |path: &Path| path.metadata().and_then(|of| of.modified()).ok();
        let (evaluated, saved) = (changed(&path)?, changed(&job.run.join("checkpoints/best"))?);
        let it: Evaluation = read_json(&path).ok()?;
        let is_of_store =
            it.dataset == *dataset && checksum.as_ref().is_none_or(|checksum| it.store_checksum == *checksum);
        let is_whole = volumes.is_none() || it.native.is_some();
        // Older programs kept the masks of a network without prompts as if they were embeddings, and gave them to other runs.
        let is_own = !it.kept_embeddings || it.oracle_box.is_some();
        (evaluated >= saved && is_whole && is_own && job.progress() == Progress::Finished && is_of_store).then_some(it)
    }
}

impl Row {
    /// Of a model, by the configuration of the one whose runs it shows.
    fn open((model, of): (&Model, &Model), budget: Option<Budget>, seeds: u64, config: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&config)
            .with_context(|| format!("model `{}`: cannot read its configuration '{}'", model.key, config.display()))?;
        let settings: toml::Table = read_settings(&text, &of.set)
            .with_context(|| format!("model `{}`, in '{}'", model.key, config.display()))?;
        let weights = settings.get("segmenter").and_then(|segmenter| segmenter.get("weights")?.as_str());
        // The trainer looks for it from here.
        let missing_weights = weights.map(PathBuf::from).filter(|path| !path.exists());
        let model = Model { set: of.set.clone(), ..model.clone() };
        Ok(Self { model, budget, seeds, config, missing_weights })
    }

    /// How the folders of its runs begin.
    pub fn key(&self) -> String {
        run_name(self.model.oracle_of.as_ref().unwrap_or(&self.model.key), self.budget)
    }

    /// As in tables.
    pub fn name(&self) -> String {
        let Some(budget) = self.budget else { return self.model.name.clone() };
        format!("{}, {}", self.model.name, budget.words())
    }

    /// Overrides of its configuration.
    pub fn set(&self) -> Vec<String> {
        let budget = self.budget.map(|budget| format!("sampling.labelled={budget}"));
        budget.into_iter().chain(self.model.set.iter().cloned()).collect()
    }

    /// The paper's figure, in domain or across.
    pub fn of_paper(&self, store: usize) -> Option<f64> {
        let figures = if store == 0 { &self.model.paper } else { &self.model.paper_across };
        figures.get(&self.budget?.to_string()).copied()
    }
}

impl Job {
    /// Of its folder.
    pub fn name(&self) -> String {
        self.run.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

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
