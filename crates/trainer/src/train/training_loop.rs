//! The loop over the plan's steps.

use super::embedding_bank::{EmbeddingBank, own_folder};
use super::encoder_cache::EncoderCache;
use super::kinds::Kinds;
use super::state::{Branch, State, Trained, UpdateCounts, branch};
use super::step_losses::StepLosses;
use super::{Outcome, Training};
use crate::loader::{Batch, Batches, Loader};
use crate::optimizer::{clip, global_norm};
use crate::plan::Step;
use crate::schedule::schedule_factor;
use anyhow::Result;
use data_parallel::Gradient;
use losses::SegmentationLosses;
use predictor::{Model, Ticker};
use run_record::{MetricsLog, Part, PhaseResult, StepRow};
use slice_sampling::Rows;
use slice_sampling::stream_seed;
use slice_store::counted;
use stage_api::{ClassifierInput, Embedding, NamedTensor, SharedBatch};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tch::Tensor;

/// So many updates in a row that are not finite end the run: chance is not the reason any more.
pub(super) const TOO_MANY: usize = 3;

/// A run under way.
pub(super) struct TrainingLoop<'a> {
    pub training: &'a Training<'a>,
    pub steps: &'a [Step],
    pub model: &'a Model,
    pub rows: &'a Rows,
    pub state: &'a mut State,
    pub log: MetricsLog,
    pub cache: EncoderCache,
    /// Where the classifier reads embeddings: they and the labelled slices' augmented copies.
    pub bank: Option<Rc<EmbeddingBank>>,
    pub segmentation_losses: SegmentationLosses,
    /// Where other ranks have the rest of each batch.
    pub shared: Option<Rc<SharedBatch>>,
    /// Whether the adapters changed anything when the phase began.
    pub adapted: bool,
    pub ticker: Ticker,
    kinds: Kinds,
    /// α of the classifier's focal loss.
    pub positive_weight: f64,
    /// Updates of each group in the whole plan, and before the place in it.
    total: UpdateCounts,
    done: UpdateCounts,
    /// Whether the update under way is left out, because something in it was not finite.
    pub left_out: bool,
    /// The classifier's running statistics before the update under way.
    statistics: Vec<Tensor>,
    begun: Instant,
    seconds_before: f64,
}

impl<'a> TrainingLoop<'a> {
    /// At the place where `state` is.
    pub fn new(
        training: &'a Training<'a>,
        steps: &'a [Step],
        (model, shared): (&'a Model, Option<Rc<SharedBatch>>),
        rows: &'a Rows,
        state: &'a mut State,
        log: MetricsLog,
    ) -> Result<Self> {
        let place = state.progress.steps;
        let seconds_before = state.progress.seconds;
        let kinds = Kinds::of(steps);
        let left = kinds.count(&steps[place.min(steps.len())..]);
        let segmentation_losses = training.config.segmentation_loss.of(&training.registry.losses)?;
        Ok(Self {
            segmentation_losses,
            shared,
            training,
            steps,
            model,
            rows,
            state,
            log,
            cache: EncoderCache::new(training),
            bank: None,
            adapted: false,
            ticker: Ticker::of_kinds("training", steps.len(), place, &left),
            kinds,
            positive_weight: training.positive_weight(rows),
            total: UpdateCounts::of(training.config, steps),
            done: UpdateCounts::of(training.config, &steps[..place.min(steps.len())]),
            left_out: false,
            statistics: Vec::new(),
            begun: Instant::now(),
            seconds_before,
        })
    }

    /// Goes through what is left of the plan, with a loader for each phase.
    pub fn run(mut self) -> Result<Outcome> {
        let (steps, training) = (self.steps, self.training);
        let loader = Loader::new(training.store, training.config, training.device, training.loader_threads)?;
        let loader = loader.of_share(training.ranks.share());
        if self.model.classifier.input() == ClassifierInput::Embedding && self.state.progress.steps < steps.len() {
            let mut watch = training.stopwatch();
            self.bank = EmbeddingBank::build(training, self.model, self.rows, &loader)?.map(Rc::new);
            watch.lap(&mut self.state.progress.times, Part::Encoder);
            let Some(bank) = &self.bank else { return Ok(Outcome::Interrupted) };
            if let (Some(share), None) = (bank.share_with_target(), training.config.classifier.positive_weight) {
                // Crops of both kinds weigh the same together.
                self.positive_weight = 1.0 - share;
            }
        }
        self.ticker.begin();
        while let Some(next) = steps.get(self.state.progress.steps) {
            let end = steps.partition_point(|s| s.phase <= next.phase);
            self.adapted = self.model.segmenter.is_adapted();
            let outcome = match self.bank.clone() {
                Some(bank) => self.phase(&mut bank.as_ref(), end)?,
                None => std::thread::scope(|scope| {
                    let mut batches = loader.start(scope, &steps[next.index..end]);
                    self.phase(&mut batches, end)
                })?,
            };
            if outcome == Outcome::Interrupted {
                return Ok(outcome);
            }
        }
        // Not there unless the classifier reads embeddings that no other run shall have.
        if training.ranks.is_first() {
            let _ = std::fs::remove_dir_all(own_folder(training.run));
        }
        Ok(Outcome::Finished)
    }

    /// The steps before `end`, where the phase ends.
    fn phase(&mut self, batches: &mut dyn Batches, end: usize) -> Result<Outcome> {
        while self.state.progress.steps < end {
            let mut watch = self.training.stopwatch();
            let batch = batches.next(&self.steps[self.state.progress.steps])?;
            watch.lap(&mut self.state.progress.times, Part::Wait);
            self.step(&batch)?;
            // Between the steps of an update there are gradients, which a checkpoint doesn't hold.
            let stop = batch.step.updates && self.training.ranks.any(self.training.stop.load(Ordering::Relaxed));
            if batch.step.ends_epoch || stop {
                let mut watch = self.training.stopwatch();
                let is_best = batch.step.ends_epoch && self.end_epoch(&batch.step)?;
                watch.lap(&mut self.state.progress.times, Part::Validation);
                self.count_time();
                if self.state.progress.steps == end || batch.step.ends_epoch && self.patience_is_over(&batch.step) {
                    self.end_phase(&batch.step, end);
                }
                if self.training.ranks.is_first() {
                    self.state.save(self.training.run, is_best)?;
                }
                watch.lap(&mut self.state.progress.times, Part::Checkpoint);
                if batch.step.ends_epoch {
                    self.ticker.worked(self.kinds.validation(&batch.step));
                }
                if stop && self.state.progress.steps < self.steps.len() {
                    return Ok(Outcome::Interrupted);
                }
            }
        }
        Ok(Outcome::Finished)
    }

    /// Losses and gradients of one step, and the update that it may end.
    fn step(&mut self, batch: &Batch) -> Result<()> {
        let (step, config) = (&batch.step, self.training.config);
        let phase = &config.phases[step.phase];
        let of_rank = Some(self.training.ranks.rank()).filter(|rank| *rank > 0);
        let name = format!("torch/{}{}", step.index, of_rank.map_or_else(String::new, |rank| format!("/{rank}")));
        tch::manual_seed((stream_seed(config.seed, &name) >> 1) as i64);
        if self.statistics.is_empty() {
            self.statistics = self.state.statistics();
        }
        let mut losses = self.losses(batch)?;
        if !losses.finite && !self.left_out {
            self.leave_out(batch, &losses, "loss");
        }
        if self.left_out {
            self.shared.iter().for_each(|shared| shared.forget());
        } else {
            let mut watch = self.training.stopwatch();
            // With everything frozen nothing requires a gradient.
            if let Some(total) = losses.total.as_ref().filter(|total| total.requires_grad()) {
                (total / step.accumulates as f64).f_backward()?;
                losses.embeddings.drain(..).try_for_each(Embedding::backward)?;
            }
            self.shared.iter().try_for_each(|shared| shared.backward())?;
            watch.lap(&mut self.state.progress.times, Part::Backward);
        }
        let lr = self.shown_rate();
        let mut watch = self.training.stopwatch();
        let norm = step.updates.then(|| self.update(batch, &losses));
        watch.lap(&mut self.state.progress.times, Part::Update);
        let skipped = self.left_out;
        if skipped {
            // The classifier has seen it, but must not remember it, nor the steps before it in the same update.
            self.state.set_statistics(&self.statistics);
        }
        if step.updates {
            self.left_out = false;
            self.statistics.clear();
        }
        if self.training.device.is_cuda() {
            self.state.progress.times.add(Part::Copy, batch.copy_seconds);
        }
        self.state.progress.steps += 1;
        self.state.progress.slices += step.slices.len() + step.labelled.len();
        self.count_time();
        self.log.step(&StepRow {
            phase: &phase.name,
            epoch: step.epoch,
            step: self.state.progress.steps,
            seconds: self.state.progress.seconds,
            losses: [losses.classifier, losses.segmentation, losses.score],
            lr,
            gradient_norm: norm,
            skipped,
        })?;
        if skipped && self.state.progress.skipped_in_a_row == TOO_MANY {
            return Err(self.too_many(batch, &losses));
        }
        self.tick(step, &losses);
        Ok(())
    }

    /// Moves what the steps of this update train, or leaves it; gives the norm of the gradient before it was clipped.
    fn update(&mut self, batch: &Batch, losses: &StepLosses) -> f64 {
        let (config, last) = (self.training.config, &batch.step);
        let steps = &self.steps[last.index + 1 - last.accumulates..=last.index];
        let trained = Trained::by(&config.phases[last.phase], steps);
        let parameters = self.state.parameters(trained);
        let optimizer = &self.state.optimizer;
        let gradients = parameters.iter().map(|p| Gradient { parameter: &p.tensor, is_new: optimizer.has_gradient(p) });
        self.training.ranks.sum_gradients(&gradients.collect::<Vec<_>>());
        let parameters = optimizer.with_gradient(parameters);
        let norm = global_norm(&parameters);
        if !norm.is_finite() && !self.left_out {
            self.leave_out(batch, losses, "gradient");
        }
        if self.left_out {
            self.state.optimizer.clear(&parameters);
        } else {
            self.state.progress.skipped_in_a_row = 0;
            self.move_parameters(&parameters, norm, trained);
        }
        // An update that is left out counts: the schedules depend on the place in the plan only.
        self.done.add(trained);
        norm
    }

    fn move_parameters(&mut self, parameters: &[NamedTensor], norm: f64, trained: Trained) {
        let config = self.training.config;
        if config.optimizer.clip_norm > 0.0 {
            clip(parameters, norm, config.optimizer.clip_norm);
        }
        let rate = self.learning_rate();
        self.state.update(parameters, rate);
        let encoder_groups = self.state.encoder_groups();
        if let Some(average) = &mut self.state.average {
            let updates = |t: &NamedTensor| {
                let branch = branch(t, encoder_groups);
                trained.has(branch).then(|| self.done.branch(branch))
            };
            average.update(&self.state.tensors, updates);
        }
    }

    /// Of each parameter, at this place of the plan.
    fn learning_rate(&self) -> impl Fn(&NamedTensor) -> f64 + use<'a> {
        let (config, done, total) = (&self.training.config.optimizer, self.done, self.total);
        let encoder_groups = self.state.encoder_groups();
        move |tensor| {
            let branch = branch(tensor, encoder_groups);
            config.rate(tensor.group.name) * schedule_factor(config, done.branch(branch), total.branch(branch))
        }
    }

    /// The learning rate that the log shows: the segmenter's, its encoder's apart.
    fn shown_rate(&self) -> f64 {
        let of_segmenter = |t: &&NamedTensor| t.group.is_trainable() && self.state.branch(t) == Branch::Segmenter;
        self.state.tensors.iter().find(of_segmenter).map_or(0.0, self.learning_rate())
    }

    fn patience_is_over(&self, last: &Step) -> bool {
        let phase = &self.training.config.phases[last.phase];
        let over = phase.patience > 0 && self.state.progress.epochs_since_best >= phase.patience;
        if over {
            self.ticker.line(&format!(
                "{} ends after epoch {}/{}: no better validation Dice in {}",
                phase.name,
                last.epoch + 1,
                phase.epochs,
                counted(phase.patience, "epoch")
            ));
        }
        over
    }

    /// Goes on at `end`, whatever is left before it.
    fn end_phase(&mut self, last: &Step, end: usize) {
        let before: f64 = self.state.progress.phases.iter().map(|p| p.seconds).sum();
        let result = PhaseResult {
            name: self.training.config.phases[last.phase].name.clone(),
            validation_dice: self.state.last_validation.take(),
            seconds: self.state.progress.seconds - before,
            epochs: Some(last.epoch + 1),
        };
        let progress = &mut self.state.progress;
        progress.phases.push(result);
        (progress.phase_best, progress.epochs_since_best) = (None, 0);
        // Steps that are left out count for the schedules, which depend on the place in the plan only.
        let skipped = &self.steps[progress.steps.min(end)..end];
        progress.steps = end;
        self.done = UpdateCounts::of(self.training.config, &self.steps[..end]);
        self.ticker.skip(skipped.len(), skipped.iter().flat_map(|step| self.kinds.all(step)));
        self.cache.embeddings.clear();
    }

    fn count_time(&mut self) {
        self.state.progress.seconds = self.seconds_before + self.begun.elapsed().as_secs_f64();
    }

    fn tick(&mut self, step: &Step, losses: &StepLosses) {
        let phase = &self.training.config.phases[step.phase];
        self.ticker.tick_of(
            self.kinds.step(step),
            &format!(
                "{} epoch {}/{}{}{}  {:.1} slices/s, {:.0} % waiting",
                phase.name,
                step.epoch + 1,
                phase.epochs,
                losses.classifier.map_or(String::new(), |l| format!("  classifier {l:.3}")),
                losses.segmentation.map_or(String::new(), |l| format!("  segmentation {l:.3}")),
                self.state.progress.slices_per_second(),
                100.0 * self.state.progress.wait_share(),
            ),
        );
    }
}
