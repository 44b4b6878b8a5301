//! The training loop: both branches in one step.

use crate::checkpoint::{self, Best, PhaseResult, Progress, Which};
use crate::config::{Config, EncoderTraining, PhaseConfig};
use crate::loader::{self, Batch, Intensity};
use crate::losses::segmentation_loss;
use crate::metrics_log::{MetricsLog, Row};
use crate::model::Model;
use crate::optimizer::{Adam, schedule_factor};
use crate::plan::{Step, plan, stream};
use crate::progress::Ticker;
use crate::prompts::training_prompt;
use crate::registry::Registry;
use crate::run::{RunRecord, Status};
use anyhow::{Context, Result, bail, ensure};
use cam_classifier::focal_loss;
use slice_sampling::{Selection, stream_seed};
use slice_store::{SliceId, SliceStore};
use stage_api::{Adapters, Embedding, Features, Group, Mode, NamedTensor, PromptedSegmenter};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

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
        Model::new(self.config, self.registry, self.device).map(drop)
    }

    /// Trains from the start, or from the last checkpoint if the run has one.
    pub fn run(&self, record: &mut RunRecord) -> Result<Outcome> {
        let rows = Rows::of(self.store, self.selection)?;
        let steps = plan(self.config, &rows.train, &rows.labelled);
        let model = Model::new(self.config, self.registry, self.device)?;
        let mut state = State::new(self.config, &model);
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
                total.backward();
                let active: Vec<NamedTensor> = state.active(&batch, phase);
                let rate = |group: Group| self.learning_rate(group, &done, &totals);
                state.optimizer.step(&active, rate);
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

    /// The losses of one step; the graph hangs on `total`.
    fn losses(
        &self,
        batch: &Batch,
        phase: &PhaseConfig,
        model: &Model,
        cache: &mut EncoderCache,
        positive_weight: f64,
    ) -> Result<StepLosses> {
        let config = self.config;
        let mut losses = StepLosses::default();
        // L_cls: the step's slices with its labelled ones, and crops apart, because they have another size.
        let mut parts: Vec<(Tensor, f64)> = Vec::new();
        if let Some((slices, labels)) = &batch.slices {
            let (slices, labels) = match &batch.labelled {
                Some((labelled, _)) => {
                    let ones = Tensor::ones([labelled.size()[0]], (Kind::Float, self.device));
                    (Tensor::cat(&[slices, labelled], 0), Tensor::cat(&[labels, &ones], 0))
                }
                None => (slices.shallow_clone(), labels.shallow_clone()),
            };
            for (images, labels) in [(slices, labels)]
                .into_iter()
                .chain(batch.crops.as_ref().map(|(i, l)| (i.shallow_clone(), l.shallow_clone())))
            {
                let presence = model.classifier.forward(&images, Mode::Train);
                let loss = focal_loss(&presence.logit, &labels, config.classifier.focal_gamma, positive_weight);
                parts.push((loss, images.size()[0] as f64));
            }
        }
        let weight: f64 = parts.iter().map(|(_, n)| n).sum();
        let classifier = parts.into_iter().map(|(loss, n)| loss * (n / weight)).reduce(|a, b| a + b);
        losses.classifier = classifier.as_ref().map(|l| l.double_value(&[]));
        // L_seg, on the labelled slices only.
        let mut segmentation: Option<Tensor> = None;
        for (i, &row) in batch.step.labelled.iter().enumerate() {
            let Some((images, masks)) = &batch.labelled else {
                bail!("step {} has no labelled images", batch.step.index)
            };
            let image = images.narrow(0, i as i64, 1);
            let embedding = match phase.encoder {
                EncoderTraining::Frozen => cache.embedding(row, &image, model),
                EncoderTraining::Lora => {
                    model.segmenter.embed(cache.features(row, &image, model), Adapters::On, Mode::Train)
                }
            };
            let mut rng = stream(config.seed, &format!("prompt/{}/{i}", batch.step.index));
            let prompts = training_prompt(
                config,
                phase.prompts,
                model.classifier.as_ref(),
                &image,
                self.store.mask(row),
                &mut rng,
            );
            let found = model.segmenter.decode(&embedding, &prompts, model.segmenter.default_choice());
            let loss = segmentation_loss(&found, &masks.narrow(0, i as i64, 1), &config.segmentation_loss);
            losses.score = Some(loss.score.double_value(&[]));
            segmentation = Some(segmentation.map_or_else(|| loss.total.shallow_clone(), |s| s + &loss.total));
        }
        let segmentation = segmentation.map(|s| s / batch.step.labelled.len() as f64);
        losses.segmentation = segmentation.as_ref().map(|l| l.double_value(&[]));
        losses.total = [classifier, segmentation].into_iter().flatten().reduce(|a, b| a + b);
        Ok(losses)
    }

    /// Validates where the segmenter was trained; true if this is the best so far.
    #[expect(clippy::too_many_arguments, reason = "the loop's state, named at its one call")]
    fn end_epoch(
        &self,
        step: &Step,
        phase: &PhaseConfig,
        model: &Model,
        rows: &Rows,
        state: &mut State,
        cache: &mut EncoderCache,
        log: &mut MetricsLog,
        ticker: &Ticker,
    ) -> Result<bool> {
        let found = self.validate(phase, model, rows, cache);
        let guided = phase.labelled_passes > 0;
        log.epoch(
            &phase.name,
            step.epoch,
            state.progress.steps,
            state.progress.seconds,
            guided.then_some(found.dice),
            found.box_iou,
            found.auc,
        )?;
        let dice = if guided { format!("Dice {:.4} with CAM boxes, ", found.dice) } else { String::new() };
        let auc = found.auc.map_or("n/a".into(), |a| format!("{a:.3}"));
        ticker.line(&format!(
            "{} epoch {}/{}: validation {dice}box IoU {:.3}, called present {:.2}, AUC {auc}",
            phase.name,
            step.epoch + 1,
            phase.epochs,
            found.box_iou.unwrap_or(f64::NAN),
            found.called,
        ));
        state.last_validation = guided.then_some(found.dice);
        // Without validation slices nothing can choose, and the newest counts.
        let better = rows.validation.is_empty() || state.progress.best.as_ref().is_none_or(|b| found.dice > b.dice);
        if !guided || !better {
            return Ok(false);
        }
        state.progress.best = Some(Best { dice: found.dice, steps: state.progress.steps });
        Ok(true)
    }

    /// Dice with CAM boxes over the fixed validation slices, which are of training-side patients.
    fn validate(&self, phase: &PhaseConfig, model: &Model, rows: &Rows, cache: &mut EncoderCache) -> Validation {
        let predictor = model.predictor(self.config);
        let size = self.store.slice_size();
        let (mut dice, mut ious, mut scores, mut labels, mut called) = (0.0, Vec::new(), Vec::new(), Vec::new(), 0);
        for &row in &rows.validation {
            let image = cache.intensity.rows(self.store, &[row], self.device);
            let look = predictor.look(&image).remove(0);
            let truth = self.store.mask(row);
            if let Some(bounds) = stage_api::BoxPrompt::around(truth, size) {
                ious.push(f64::from(bounds.iou(&look.prompt.bounds)));
            }
            scores.push(look.probability);
            labels.push(self.store.records()[row].has_target());
            called += usize::from(look.present);
            if phase.labelled_passes == 0 {
                continue;
            }
            let mask = if look.present {
                let embedding = match phase.encoder {
                    EncoderTraining::Frozen => cache.embedding(row, &image, model),
                    EncoderTraining::Lora => {
                        model.segmenter.embed(cache.features(row, &image, model), Adapters::On, Mode::Eval)
                    }
                };
                predictor.segment(&embedding, &look.prompt)
            } else {
                vec![0; size * size]
            };
            let view = |m| seg_metrics::MaskView::new(m, size, size).expect("masks have the store's size");
            dice += seg_metrics::dice(view(&mask), view(truth));
        }
        let count = rows.validation.len().max(1) as f64;
        Validation {
            dice: dice / count,
            box_iou: (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64),
            auc: seg_metrics::auc(&scores, &labels),
            called: called as f64 / count,
        }
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

/// Rows of the store by use.
pub struct Rows {
    /// All training slices.
    pub train: Vec<usize>,
    /// The N labelled ones.
    pub labelled: Vec<usize>,
    /// The fixed validation slices.
    pub validation: Vec<usize>,
}

impl Rows {
    /// Looks the names up; a name that the store doesn't have means that it is another store.
    pub fn of(store: &SliceStore, selection: &Selection) -> Result<Self> {
        Ok(Self {
            train: rows_of(store, &selection.train)?,
            labelled: rows_of(store, &selection.labelled)?,
            validation: rows_of(store, &selection.validation)?,
        })
    }
}

/// Rows of slices by name.
pub fn rows_of(store: &SliceStore, ids: &[SliceId]) -> Result<Vec<usize>> {
    ids.iter()
        .map(|id| {
            store.position(id).with_context(|| {
                format!(
                    "the run uses slice '{id}', which the store '{}' doesn't have: it is another store",
                    store.path().display()
                )
            })
        })
        .collect()
}

#[derive(Default)]
struct StepLosses {
    total: Option<Tensor>,
    classifier: Option<f64>,
    segmentation: Option<f64>,
    score: Option<f64>,
}

struct Validation {
    dice: f64,
    box_iou: Option<f64>,
    auc: Option<f64>,
    called: f64,
}

/// What a checkpoint holds.
struct State {
    classifier: Vec<NamedTensor>,
    segmenter: Vec<NamedTensor>,
    optimizer: Adam,
    progress: Progress,
    last_validation: Option<f64>,
}

impl State {
    fn new(config: &Config, model: &Model) -> Self {
        Self {
            classifier: model.classifier.tensors(),
            segmenter: model.segmenter.tensors(),
            optimizer: Adam::new(&config.optimizer),
            progress: Progress::default(),
            last_validation: None,
        }
    }

    fn restore(&mut self, directory: &Path, device: Device) -> Result<()> {
        checkpoint::load_weights(directory, &self.classifier, &self.segmenter)?;
        let state = checkpoint::optimizer_state(directory)?;
        self.optimizer
            .restore(state, device)
            .with_context(|| format!("the optimiser's state in '{}' is incomplete", directory.display()))?;
        self.progress = checkpoint::progress(directory)?;
        Ok(())
    }

    fn save(&self, run: &Path, is_best: bool) -> Result<()> {
        let weights = checkpoint::saved(&self.classifier, &self.segmenter);
        checkpoint::write(run, &weights, &self.optimizer.state(), &self.progress, is_best)
    }

    /// The parameters that this step trains.
    fn active(&self, batch: &Batch, phase: &PhaseConfig) -> Vec<NamedTensor> {
        let classifier = self.classifier.iter().filter(|t| t.group == Group::Classifier && batch.slices.is_some());
        let segmenter = self.segmenter.iter().filter(|t| match t.group {
            Group::Lora => phase.encoder == EncoderTraining::Lora && batch.labelled.is_some(),
            Group::PromptEncoder | Group::Decoder => batch.labelled.is_some(),
            _ => false,
        });
        let same =
            |t: &NamedTensor| NamedTensor { name: t.name.clone(), group: t.group, tensor: t.tensor.shallow_clone() };
        // Names are unique within a stage only.
        let tagged =
            |tag: &'static str| move |t: &NamedTensor| NamedTensor { name: format!("{tag}.{}", t.name), ..same(t) };
        classifier.map(tagged("classifier")).chain(segmenter.map(tagged("segmenter"))).collect()
    }
}

/// In how many steps each group is trained: what the schedules run over.
#[derive(Clone, Copy, Default)]
struct GroupSteps {
    classifier: usize,
    decoder: usize,
    lora: usize,
}

impl GroupSteps {
    fn count(config: &Config, steps: &[Step]) -> Self {
        let mut count = Self::default();
        for step in steps {
            count.add(&config.phases[step.phase], step);
        }
        count
    }

    fn add(&mut self, phase: &PhaseConfig, step: &Step) {
        let guided = usize::from(!step.labelled.is_empty());
        self.classifier += usize::from(!step.slices.is_empty());
        self.decoder += guided;
        self.lora += if phase.encoder == EncoderTraining::Lora { guided } else { 0 };
    }
}

/// Encoder results of the labelled and the validation slices: the frozen part for the whole run, embeddings while the
/// adapters rest. Bounded by (N + 32) × 12 MiB.
struct EncoderCache {
    intensity: Intensity,
    features: HashMap<usize, Features>,
    embeddings: HashMap<usize, Embedding>,
}

impl EncoderCache {
    fn new(training: &Training) -> Self {
        let intensity = Intensity::new(&training.config.intensity);
        Self { intensity, features: HashMap::new(), embeddings: HashMap::new() }
    }

    fn features(&mut self, row: usize, image: &Tensor, model: &Model) -> &Features {
        self.features.entry(row).or_insert_with(|| model.segmenter.features(image))
    }

    fn embedding(&mut self, row: usize, image: &Tensor, model: &Model) -> Embedding {
        if !self.embeddings.contains_key(&row) {
            let embedding = model.segmenter.embed(self.features(row, image, model), Adapters::On, Mode::Eval);
            self.embeddings.insert(row, embedding);
        }
        let known = &self.embeddings[&row];
        Embedding { tensor: known.tensor.shallow_clone(), slice_size: known.slice_size }
    }
}
