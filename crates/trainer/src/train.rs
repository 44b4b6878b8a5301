//! The training loop: both branches in one step.

mod embedding_bank;
mod encoder_cache;
mod forward;
mod kinds;
mod non_finite;
mod state;
mod step_losses;
mod training_loop;
mod validate;

use crate::annotator;
use crate::config::{Config, EncoderTraining, PhaseConfig, WeakCrops};
use crate::loader::Loader;
use crate::plan::{Step, plan};
use crate::registry::Registry;
use crate::stopwatch::Stopwatch;
use anyhow::{Result, bail, ensure};
use data_parallel::Ranks;
use predictor::Model;
use run_record::checkpoint::{self, Which};
use run_record::{EarlierRun, MetricsLog, RunRecord, Status};
use slice_sampling::{Rows, Selection};
use slice_store::{Slices, TrainingSlices};
use stage_api::{ClassifierInput, PromptKinds, SharedBatch};
use state::State;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use tch::Device;
use training_loop::TrainingLoop;

/// The record of a run that begins.
pub fn new_record(
    run: &Path,
    config: &Config,
    store: &Slices,
    selection: &Selection,
    device: &str,
    threads: i32,
) -> Result<RunRecord> {
    let before = config.sampling.run.as_deref().map(RunRecord::load).transpose()?;
    let earlier = before.map(|of| EarlierRun { name: of.name, seed: of.seed, label_budget: of.label_budget });
    let budget = annotator::budget(config, store, selection, earlier.as_ref())?;
    let record = RunRecord::new(run, config.seed, store, budget, &selection.labelled, device, threads);
    Ok(RunRecord { earlier, ..record })
}

/// A run about to train.
pub struct Training<'a> {
    /// The resolved configuration.
    pub config: &'a Config,
    /// The stages that it can name.
    pub registry: &'a Registry,
    /// The prepared data, with the masks that are paid for: [`slice_sampling::for_training`].
    pub store: &'a TrainingSlices<'a>,
    /// The run directory, which exists and holds `run.json`, `config.toml` and `selection.json`.
    pub run: &'a Path,
    /// Patients and slices.
    pub selection: &'a Selection,
    /// Where to compute.
    pub device: Device,
    /// Threads that prepare batches; the results don't depend on it.
    pub loader_threads: usize,
    /// Wait for the GPU where the time is taken, so that each part's own work is counted with it.
    pub profile: bool,
    /// Folder that keeps the embeddings of a classifier that reads them for other runs; absent: the run's own, while it trains.
    pub embeddings: Option<&'a Path>,
    /// The processes that train it together.
    pub ranks: &'a Rc<Ranks>,
    /// Becomes true when the user wants to stop.
    pub stop: &'a AtomicBool,
}

/// How training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were done.
    Finished,
    /// The user stopped it; a checkpoint was saved, if there was anything to save.
    Interrupted,
}

impl Training<'_> {
    /// Whether the configuration fits the data; nothing is written.
    pub fn check(&self) -> Result<()> {
        let rows = annotator::rows(self.config, self.store, self.selection)?;
        self.check_negatives(&rows)?;
        ensure!(
            !self.config.classifier.bags || !rows.bags.is_empty(),
            "`classifier.bags` is set, but of no training volume it is only known that it shows the {}: give such volumes a row \
             `CASE,,,present` in the presence list, prepare again, or leave `bags` out",
            self.store.info().target
        );
        self.check_crops(&rows)?;
        let mut model = Model::new(&self.config.model(), &self.registry.models, self.device)?;
        self.share_batches(&mut model)?;
        self.check_input(model.classifier.input())?;
        self.check_phases(&model, &rows)?;
        self.check_own_classifier(&rows)?;
        let losses = self.config.segmentation_loss.of(&self.registry.losses)?;
        ensure!(
            !losses.need_batches() || model.segmenter.prompts() == PromptKinds::None,
            "a part of `segmentation_loss` is of all masks of a step at once, but the segmenter \"{}\" takes prompts, slice by slice: \
             take `dice` for `batch-dice`",
            self.config.segmenter.kind
        );
        ensure!(
            !losses.need_batches() || self.ranks.count() == 1,
            "a part of `segmentation_loss` is of all masks of a step at once, which {} ranks have each a part of: take `dice` for \
             `batch-dice`, or train it with one",
            self.ranks.count()
        );
        State::new(self.config, &model).map(drop)
    }

    /// Tells both stages that their batches are shares, where they are.
    fn share_batches(&self, model: &mut Model) -> Result<Option<Rc<SharedBatch>>> {
        let Some(shared) = self.ranks.shared_batch() else { return Ok(None) };
        let can = [
            ("classifier", &self.config.classifier.kind, model.classifier.share_batches(&shared)),
            ("segmenter", &self.config.segmenter.kind, model.segmenter.share_batches(&shared)),
        ];
        for (stage, kind, can) in can {
            ensure!(
                can,
                "the {stage} \"{kind}\" normalises by its whole batch, which ranks have shares of: train it with one"
            );
        }
        Ok(Some(shared))
    }

    /// Whether every phase that trains the segmenter leaves it something to learn.
    fn check_phases(&self, model: &Model, rows: &Rows) -> Result<()> {
        let promptless = model.segmenter.prompts() == PromptKinds::None;
        let frozen = |p: &&PhaseConfig| promptless && p.is_guided() && p.encoder == EncoderTraining::Frozen;
        if let Some(phase) = self.config.phases.iter().find(frozen) {
            bail!(
                "phase '{}' has `encoder = \"frozen\"`, but the segmenter \"{}\" has no encoder apart: `encoder = \"trained\"`",
                phase.name,
                self.config.segmenter.kind
            );
        }
        if let Some(phase) = self.config.phases.iter().find(|p| p.batch_absent > 0) {
            let (name, target) = (&phase.name, &self.store.info().target);
            ensure!(
                promptless,
                "phase '{name}' has `batch_absent`, for segmenters without prompts: there is no box where there is no {target}"
            );
            ensure!(
                !annotator::absent(self.store, rows).is_empty(),
                "phase '{name}' has `batch_absent = {}`, but no training slice is known to be without the {target}",
                phase.batch_absent
            );
        }
        Ok(())
    }

    fn steps(&self, rows: &Rows) -> Vec<Step> {
        plan(self.config, &rows.train, &rows.labelled, &rows.bags, &annotator::absent(self.store, rows))
    }

    /// A segmenter's own classifier learns in the segmenter's updates.
    fn check_own_classifier(&self, rows: &Rows) -> Result<()> {
        let steps = self.steps(rows);
        let alone = |step: &&Step| !step.slices.is_empty() && step.labelled.is_empty();
        if let Some(step) = steps.iter().find(alone).filter(|_| self.config.classifier.kind == "own") {
            let phase = &self.config.phases[step.phase];
            let batches = rows.train.len().div_ceil(self.config.classifier.batch_slices);
            bail!(
                "phase '{}' has steps without labelled slices, in which the segmenter's own classifier could not learn: \
                 `labelled_steps = {batches}` gives each step some",
                phase.name
            );
        }
        Ok(())
    }

    /// Whether the configuration asks for what a classifier with that input can do.
    fn check_input(&self, input: ClassifierInput) -> Result<()> {
        let classifier = &self.config.classifier;
        let kind = &classifier.kind;
        let asked = match input {
            ClassifierInput::Slices => vec![
                ("classifier.weak_crops", classifier.weak_crops != WeakCrops::Off),
                ("classifier.batch_masks", classifier.batch_masks > 0),
                ("augmented_copies.count", self.config.augmented_copies.count > 0),
                ("augmented_copies.slices", self.config.augmented_copies.slices > 0),
            ],
            ClassifierInput::Embedding => vec![
                ("classifier.crop_negatives", classifier.crop_negatives),
                ("classifier.consistency", classifier.consistency > 0.0),
                ("augmentation.labelled without augmented_copies.count", self.changes_without_copies()),
            ],
        };
        if let Some((key, _)) = asked.iter().find(|(_, is_asked)| *is_asked) {
            let (reads, other) = match input {
                ClassifierInput::Slices => ("slices", "embeddings (`classifier.kind = \"embedding\"`)"),
                ClassifierInput::Embedding => ("embeddings", "slices (`classifier.kind = \"resnet\"`)"),
            };
            bail!("`{key}` is for classifiers that read {other}, but the classifier \"{kind}\" reads {reads}");
        }
        Ok(())
    }

    fn changes_without_copies(&self) -> bool {
        self.config.augmented_copies.count == 0 && !self.config.augmentation.labelled.is_off()
    }

    /// Trains from the start, or from the last checkpoint if the run has one.
    pub fn run(&self, record: &mut RunRecord) -> Result<Outcome> {
        let mut config = self.config.model();
        if checkpoint::directory(self.run, Which::Last).is_ok() {
            config.segmenter = config.segmenter.of_checkpoint();
        }
        let mut model = Model::new(&config, &self.registry.models, self.device)?;
        let shared = self.share_batches(&mut model)?;
        let rows = annotator::rows(self.config, self.store, self.selection)?;
        let steps = self.steps(&rows);
        let mut state = State::new(self.config, &model)?;
        let weights = model.segmenter.pretrained_sha256();
        if let (Some(before), Some(found)) = (&record.weights_sha256, weights)
            && before != found
        {
            bail!(
                "the run '{}' began with pretrained weights of SHA-256 {before}, but '{}' has {found}: go on with that \
                 file (--weights FILE), or start anew with another --run",
                self.run.display(),
                predictor::weights_path(&self.config.segmenter)?.display()
            );
        }
        record.weights_sha256 = weights.map(str::to_owned);
        if checkpoint::directory(self.run, Which::Last).is_ok() {
            let found = checkpoint::open(self.run, Which::Last)?;
            if let Some(damage) = found.instead_of.as_ref().filter(|_| self.ranks.is_first()) {
                eprintln!("warning: {damage}: going on from '{}', the one before it", found.directory.display());
            }
            state.restore(found, self.device)?;
            if self.ranks.is_first() {
                eprintln!("resuming after step {} of {}", state.progress.steps, steps.len());
            }
        }
        (record.status, record.steps) = (Status::Running, Some(steps.len()));
        let log = if self.ranks.is_first() {
            record.save(self.run)?;
            MetricsLog::open(&self.run.join("metrics.csv"), state.progress.steps)?
        } else {
            MetricsLog::nowhere()
        };
        let outcome = TrainingLoop::new(self, &steps, (&model, shared), &rows, &mut state, log)?.run()?;
        record.status = match outcome {
            Outcome::Finished => Status::Finished,
            Outcome::Interrupted => Status::Interrupted,
        };
        record.finish(&state.progress);
        annotator::count_crops(record, self.config, self.store);
        if self.ranks.is_first() {
            record.save(self.run)?;
        }
        Ok(outcome)
    }

    /// Without slices that lack the target the classifier would learn to
    /// say yes to everything. Where crops stand for slices, that is seen when they are labelled.
    fn check_negatives(&self, rows: &Rows) -> Result<()> {
        if self.config.classifier.weak_crops == WeakCrops::OnePerSlice {
            return Ok(());
        }
        let negatives = rows.train.iter().filter(|&&r| !self.store.records()[r].has_target()).count();
        let learns = self.config.phases.iter().any(|p| p.train_classifier && p.epochs > 0);
        ensure!(
            negatives > 0 || self.config.classifier.crop_negatives || !learns,
            "all {} training slices show the {}: the classifier can't learn to tell them from slices without it. Ways out: \
             a wider `sampling.keep_rate` (now {}), data with slices above and below the {}, or \
             `classifier.crop_negatives = true` (crops of the labelled slices, whose labels follow from their masks), or, for \
             a classifier that reads embeddings, `classifier.weak_crops = \"one-per-slice\"` (one crop of each slice)",
            rows.train.len(),
            self.store.info().target,
            self.config.sampling.keep_rate,
            self.store.info().target,
        );
        Ok(())
    }

    /// Crops of both kinds must be there to be found.
    fn check_crops(&self, rows: &Rows) -> Result<()> {
        if !self.config.classifier.crop_negatives {
            return Ok(());
        }
        let (crop, size, target) =
            (self.config.classifier.crop_size, self.store.slice_size(), &self.store.info().target);
        ensure!(
            crop < size,
            "`classifier.crop_size` is {crop}, but slices have {size} pixels: a crop would be the whole slice, and show the \
             {target} as it does. Expected less than {size}, for example {}",
            size / 2
        );
        let loader = Loader::new(self.store, self.config, self.device, 1)?;
        for (want, what) in [(true, "shows"), (false, "lacks")] {
            ensure!(
                rows.labelled.iter().any(|&row| loader.has_crop(row, want)),
                "`classifier.crop_negatives` is set, but no crop of {crop} × {crop} pixels of the {} labelled slices {what} the \
                 {target}: set a smaller `classifier.crop_size` (slices have {size} pixels), or label more slices",
                rows.labelled.len()
            );
        }
        Ok(())
    }

    fn stopwatch(&self) -> Stopwatch {
        Stopwatch::start(self.device, self.profile)
    }

    fn positive_weight(&self, rows: &Rows) -> f64 {
        self.config.classifier.positive_weight.unwrap_or_else(|| {
            let positives = rows.train.iter().filter(|&&r| self.store.records()[r].has_target()).count();
            match (positives * 2).cmp(&rows.train.len()) {
                // With crops, both classes are drawn equally often.
                _ if self.config.classifier.crop_negatives => 0.5,
                std::cmp::Ordering::Less => 0.8,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Greater => 0.2,
            }
        })
    }
}
