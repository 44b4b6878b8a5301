//! The training loop: both branches in one step.

mod encoder_cache;
mod forward;
mod state;
mod validate;

use crate::checkpoint::{self, PhaseResult, Which};
use crate::config::Config;
use crate::loader::{self, Batch};
use crate::metrics_log::{MetricsLog, Row};
use crate::model::Model;
use crate::plan::{Step, plan};
use crate::progress::Ticker;
use crate::registry::Registry;
use crate::rows::Rows;
use crate::run::{RunRecord, Status};
use crate::schedule::schedule_factor;
use anyhow::{Context, Result, ensure};
use encoder_cache::EncoderCache;
use slice_sampling::{Selection, stream_seed};
use slice_store::SliceStore;
use stage_api::Group;
use state::{GroupSteps, State};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::Device;

/// A run about to train.
pub struct Training<'a> {
    /// The resolved configuration.
    pub config: &'a Config,
    /// The stages that it can name.
    pub registry: &'a Registry,
    /// The prepared data.
    pub store: &'a SliceStore,
    /// The run directory, which exists and holds `run.json`, `config.toml` and `selection.json`.
    pub run: &'a Path,
    /// Patients and slices.
    pub selection: &'a Selection,
    /// Where to compute.
    pub device: Device,
    /// Becomes true when the user wants to stop.
    pub stop: &'a AtomicBool,
}

/// How training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were done.
    Finished,
    /// The user stopped it; a checkpoint was saved.
    Interrupted,
}

impl Training<'_> {
    /// Whether the configuration fits the data; nothing is written.
    pub fn check(&self) -> Result<()> {
        self.check_negatives(&Rows::of(self.store, self.selection)?)?;
        State::new(self.config, &Model::new(self.config, self.registry, self.device)?).map(drop)
    }

    /// Trains from the start, or from the last checkpoint if the run has one.
    pub fn run(&self, record: &mut RunRecord) -> Result<Outcome> {
        let rows = Rows::of(self.store, self.selection)?;
        let steps = plan(self.config, &rows.train, &rows.labelled);
        let model = Model::new(self.config, self.registry, self.device)?;
        let mut state = State::new(self.config, &model)?;
        record.weights_sha256 = Some(model.segmenter.encoder_fingerprint().to_owned());
        if let Ok(directory) = checkpoint::directory(self.run, Which::Last) {
            state.restore(&directory, self.device)?;
            eprintln!("resuming after step {} of {}", state.progress.steps, steps.len());
        }
        record.status = Status::Running;
        record.save(self.run)?;
        let mut log = MetricsLog::open(&self.run.join("metrics.csv"), state.progress.steps)?;
        let outcome = std::thread::scope(|scope| {
            let remaining = &steps[state.progress.steps.min(steps.len())..];
            let batches = loader::start(scope, self.store, self.config, remaining, self.device);
            self.steps(&steps, &batches, &model, &rows, &mut state, &mut log)
        })?;
        record.status = match outcome {
            Outcome::Finished => Status::Finished,
            Outcome::Interrupted => Status::Interrupted,
        };
        record.finish(&state.progress);
        record.save(self.run)?;
        Ok(outcome)
    }

    /// Without slices that lack the target the classifier would learn to say yes to everything.
    fn check_negatives(&self, rows: &Rows) -> Result<()> {
        let negatives = rows.train.iter().filter(|&&r| !self.store.records()[r].has_target()).count();
        let learns = self.config.phases.iter().any(|p| p.train_classifier && p.epochs > 0);
        ensure!(
            negatives > 0 || self.config.classifier.crop_negatives || !learns,
            "all {} training slices show the {}: the classifier can't learn to tell them from slices without it. Ways out: \
             a wider `sampling.keep_rate` (now {}), data with slices above and below the {}, or \
             `classifier.crop_negatives = true` (crops of the labelled slices, whose labels follow from their masks)",
            rows.train.len(),
            self.store.info().target,
            self.config.sampling.keep_rate,
            self.store.info().target,
        );
        Ok(())
    }

    fn steps(
        &self,
        steps: &[Step],
        batches: &crossbeam::channel::Receiver<Batch>,
        model: &Model,
        rows: &Rows,
        state: &mut State,
        log: &mut MetricsLog,
    ) -> Result<Outcome> {
        let positive_weight = self.positive_weight(rows);
        let totals = GroupSteps::count(self.config, steps);
        let mut done = GroupSteps::count(self.config, &steps[..state.progress.steps.min(steps.len())]);
        let mut cache = EncoderCache::new(self);
        let mut ticker = Ticker::new("training", steps.len(), state.progress.steps);
        let begun = Instant::now();
        let seconds_before = state.progress.seconds;
        let mut phase_begun = Instant::now();
        while state.progress.steps < steps.len() {
            let batch = batches.recv().context("the loader ended before the plan did")?;
            let phase = &self.config.phases[batch.step.phase];
            tch::manual_seed((stream_seed(self.config.seed, &format!("torch/{}", batch.step.index)) >> 1) as i64);
            let losses = self.losses(&batch, phase, model, &mut cache, positive_weight)?;
            if let Some(total) = &losses.total {
                ensure!(
                    total.double_value(&[]).is_finite(),
                    "the loss of step {} is not finite (classifier {:?}, segmentation {:?}); the run's last checkpoint is \
                     unharmed. A lower learning rate is the usual way out",
                    batch.step.index,
                    losses.classifier,
                    losses.segmentation,
                );
                // With everything frozen there is nothing to learn.
                if total.requires_grad() {
                    total.backward();
                }
                let active = state.active(&batch, phase);
                state.update(&active, |group| self.learning_rate(group, &done, &totals));
            }
            done.add(phase, &batch.step);
            state.progress.steps += 1;
            state.progress.seconds = seconds_before + begun.elapsed().as_secs_f64();
            log.step(&Row {
                phase: &phase.name,
                epoch: batch.step.epoch,
                step: state.progress.steps,
                seconds: state.progress.seconds,
                losses: [losses.classifier, losses.segmentation, losses.score],
                lr: self.learning_rate(Group::Decoder, &done, &totals),
            })?;
            ticker.tick(&format!(
                "{} epoch {}/{}{}{}",
                phase.name,
                batch.step.epoch + 1,
                phase.epochs,
                losses.classifier.map_or(String::new(), |l| format!("  classifier {l:.3}")),
                losses.segmentation.map_or(String::new(), |l| format!("  segmentation {l:.3}")),
            ));
            let stop = self.stop.load(Ordering::Relaxed);
            if batch.step.ends_epoch || stop {
                let last_of_phase = batch.step.ends_epoch && batch.step.epoch + 1 == phase.epochs;
                let is_best = if batch.step.ends_epoch {
                    self.end_epoch(&batch.step, phase, model, rows, state, &mut cache, log, &ticker)?
                } else {
                    false
                };
                if last_of_phase {
                    let dice = state.last_validation.take();
                    state.progress.phases.push(PhaseResult {
                        name: phase.name.clone(),
                        validation_dice: dice,
                        seconds: phase_begun.elapsed().as_secs_f64(),
                    });
                    phase_begun = Instant::now();
                    cache.embeddings.clear();
                }
                state.progress.seconds = seconds_before + begun.elapsed().as_secs_f64();
                state.save(self.run, is_best)?;
                if stop && state.progress.steps < steps.len() {
                    return Ok(Outcome::Interrupted);
                }
            }
        }
        Ok(Outcome::Finished)
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

    fn learning_rate(&self, group: Group, done: &GroupSteps, total: &GroupSteps) -> f64 {
        let o = &self.config.optimizer;
        let (base, done, total) = match group {
            Group::Classifier => (o.classifier_lr, done.classifier, total.classifier),
            Group::Lora => (o.lora_lr, done.lora, total.lora),
            _ => (o.decoder_lr, done.decoder, total.decoder),
        };
        base * schedule_factor(o, done, total)
    }
}
