//! Validation at an epoch's end: Dice with CAM boxes over the fixed validation slices, which are of training-side patients.

use super::encoder_cache::EncodedRow;
use super::training_loop::TrainingLoop;
use crate::config::PhaseConfig;
use crate::plan::{SliceCopy, Step};
use anyhow::{Context, Result};
use evaluation::overlay::{self, Overlay};
use predictor::Classification;
use run_record::{Best, EpochRow, MetricsLog, Picture};
use slice_store::{counted_of, target_of};
use stage_api::{BoxPrompt, Mode, PromptKinds};

/// Validation slices whose overlays TensorBoard shows, the same in every epoch.
const PICTURES: usize = 3;

struct Validation {
    /// Where the segmenter was trained.
    dice: Option<f64>,
    /// Of segmenters that take a box.
    box_iou: Option<f64>,
    /// Of a classifier, if there is one.
    auc: Option<f64>,
    called: Option<f64>,
}

impl std::fmt::Display for Validation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let with_boxes = if self.box_iou.is_some() { " with CAM boxes" } else { "" };
        let auc = self.auc.map_or("n/a".into(), |auc| format!("{auc:.3}"));
        let parts = [
            self.dice.map(|dice| format!("Dice {dice:.4}{with_boxes}")),
            self.box_iou.map(|iou| format!("box IoU {iou:.3}")),
            self.called.map(|called| format!("called present {called:.2}, AUC {auc}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

impl TrainingLoop<'_> {
    /// Validates where the segmenter was trained, by the average of the weights if there is one; true if this is the best
    /// so far.
    pub(super) fn end_epoch(&mut self, step: &Step) -> Result<bool> {
        let phase = &self.training.config.phases[step.phase];
        self.state.swap_average();
        let found = self.validate(phase);
        self.state.swap_average();
        let found = found?;
        let progress = &mut self.state.progress;
        self.log.epoch(&EpochRow {
            phase: &phase.name,
            epoch: step.epoch,
            step: progress.steps,
            seconds: progress.seconds,
            dice: found.dice,
            box_iou: found.box_iou,
            auc: found.auc,
        })?;
        self.ticker.line(&format!("{} epoch {}/{}: validation {found}", phase.name, step.epoch + 1, phase.epochs));
        self.state.last_validation = found.dice;
        if found.dice.is_some_and(|dice| progress.phase_best.is_none_or(|best| dice > best)) {
            (progress.phase_best, progress.epochs_since_best) = (found.dice, 0);
        } else {
            progress.epochs_since_best += 1;
        }
        let Some(dice) = found.dice else { return Ok(false) };
        // Without validation slices nothing can choose, and the newest counts.
        let better = self.rows.validation.is_empty() || progress.best.as_ref().is_none_or(|b| dice > b.dice);
        if better {
            progress.best = Some(Best { dice, steps: progress.steps });
        }
        Ok(better)
    }

    /// Dice with CAM boxes over the fixed validation slices, which are of training-side patients.
    fn validate(&mut self, phase: &PhaseConfig) -> Result<Validation> {
        let steps = self.state.progress.steps;
        let shown: Vec<usize> = (0..PICTURES)
            .filter_map(|i| self.rows.validation.get((2 * i + 1) * self.rows.validation.len() / (2 * PICTURES)))
            .copied()
            .collect();
        let (training, model, rows, cache) = (self.training, self.model, self.rows, &mut self.cache);
        let (bank, adapted) = (&self.bank, self.adapted);
        let predictor = model.predictor(&training.config.prompt, &training.config.prediction);
        let takes_prompts = model.segmenter.prompts() != PromptKinds::None;
        let has_classifier = training.config.classifier.kind != "none";
        let size = training.store.slice_size();
        // Each rank fills in what it looks at; pictures are the first one's, which writes them.
        let (ranks, mut found) = (training.ranks, vec![[0.0; 5]; rows.validation.len()]);
        let is_own = |i, row| if shown.contains(&row) { ranks.is_first() } else { ranks.share().has(i) };
        let all = rows.validation.iter().copied().zip(&mut found).enumerate();
        for (_, (row, [dice, probability, called, has_box, iou])) in all.filter(|(i, (row, _))| is_own(*i, *row)) {
            let image = cache.intensity.rows(training.store, &[row], training.device);
            let pretrained = bank.as_ref().map(|bank| bank.embeddings([SliceCopy::unchanged(row)]));
            let id = || training.store.records()[row].id();
            let classification = predictor.classify(pretrained.as_ref().unwrap_or(&image), size);
            let classification = classification.with_context(|| format!("validation slice '{}'", id()))?.remove(0);
            let truth = training.store.mask(row).expect("validation slices are paid for");
            let target = target_of(truth);
            if let Some(bounds) = BoxPrompt::around(&target, size).filter(|_| takes_prompts) {
                (*has_box, *iou) = (1.0, f64::from(bounds.iou(&classification.prompt.bounds)));
            }
            *probability = classification.probability;
            *called = f64::from(u8::from(classification.present));
            if !phase.is_guided() {
                continue;
            }
            let mask = if classification.present {
                let row = EncodedRow { row, image, pretrained, is_same: true, mode: Mode::Eval };
                let embedding = cache.embedding(&row, phase.encoder, adapted, model);
                predictor.segment(&embedding, &classification.prompt)
            } else {
                vec![0; size * size]
            };
            let view = |m| seg_metrics::MaskView::new(m, size, size).expect("masks have the store's size");
            *dice = seg_metrics::dice(view(&counted_of(&mask, truth)), view(&target));
            if shown.contains(&row) {
                let values = cache.intensity.slice(training.store.image(row));
                let slice = id().to_string();
                let bounds = takes_prompts.then_some(classification.prompt.bounds);
                show(&mut self.log, steps, &slice, &values, (&classification, bounds), &mask, &target)?;
            }
        }
        ranks.sum(found.as_flattened_mut());
        let mean = |i: usize, of: f64| found.iter().map(|slice| slice[i]).sum::<f64>() / of;
        let (count, boxes) = (rows.validation.len().max(1) as f64, mean(3, 1.0));
        let scores: Vec<_> = found.iter().map(|slice| slice[1]).collect();
        let labels: Vec<bool> = rows.validation.iter().map(|&row| training.store.records()[row].has_target()).collect();
        Ok(Validation {
            dice: phase.is_guided().then(|| mean(0, count)),
            box_iou: (boxes > 0.0).then(|| mean(4, boxes)),
            auc: seg_metrics::auc(&scores, &labels).filter(|_| has_classifier),
            called: has_classifier.then(|| mean(2, count)),
        })
    }
}

/// A slice with its prompt, the predicted mask and the true one, for TensorBoard.
fn show(
    log: &mut MetricsLog,
    step: usize,
    slice: &str,
    image: &[f32],
    (classification, bounds): (&Classification, Option<BoxPrompt>),
    mask: &[u8],
    truth: &[u8],
) -> Result<()> {
    let size = image.len().isqrt();
    let png = overlay::draw(&Overlay { image, cam: &classification.cam, bounds, mask, truth, size })?;
    let side = overlay::side(size);
    Ok(log.picture(step, &format!("validation/{slice}"), &Picture { png: &png, width: side, height: side })?)
}
