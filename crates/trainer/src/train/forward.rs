//! The losses of one step.

use super::training_loop::TrainingLoop;
use crate::config::EncoderTraining;
use crate::loader::Batch;
use crate::losses::segmentation_loss;
use crate::plan::stream;
use crate::prompts::training_prompt;
use crate::times::Part;
use anyhow::{Result, bail};
use cam_classifier::focal_loss;
use stage_api::{Adapters, Mode, PromptedSegmenter};
use std::time::Instant;
use tch::{Kind, Tensor};

/// What a step gave; a part that it didn't have is absent.
#[derive(Default)]
pub(super) struct StepLosses {
    pub total: Option<Tensor>,
    pub classifier: Option<f64>,
    pub segmentation: Option<f64>,
    pub score: Option<f64>,
}

impl TrainingLoop<'_> {
    /// The losses of one step; the graph hangs on `total`.
    pub(super) fn losses(&mut self, batch: &Batch) -> Result<StepLosses> {
        let (config, model, cache) = (self.training.config, self.model, &mut self.cache);
        let phase = &config.phases[batch.step.phase];
        let times = &mut self.state.progress.times;
        let mut losses = StepLosses::default();
        let begun = Instant::now();
        // L_cls: the step's slices with its labelled ones, and crops apart, because they have another size.
        let mut parts: Vec<(Tensor, f64)> = Vec::new();
        if let Some((slices, labels)) = &batch.slices {
            let (slices, labels) = match &batch.labelled {
                Some((labelled, _)) => {
                    let ones = Tensor::ones([labelled.size()[0]], (Kind::Float, self.training.device));
                    (Tensor::cat(&[slices, labelled], 0), Tensor::cat(&[labels, &ones], 0))
                }
                None => (slices.shallow_clone(), labels.shallow_clone()),
            };
            for (images, labels) in [(slices, labels)]
                .into_iter()
                .chain(batch.crops.as_ref().map(|(i, l)| (i.shallow_clone(), l.shallow_clone())))
            {
                let presence = model.classifier.forward(&images, Mode::Train);
                let loss = focal_loss(&presence.logit, &labels, config.classifier.focal_gamma, self.positive_weight);
                parts.push((loss, images.size()[0] as f64));
            }
        }
        let weight: f64 = parts.iter().map(|(_, n)| n).sum();
        let classifier = parts.into_iter().map(|(loss, n)| loss * (n / weight)).reduce(|a, b| a + b);
        losses.classifier = classifier.as_ref().map(|l| l.double_value(&[]));
        times.add(Part::Classifier, begun);
        // L_seg, on the labelled slices only.
        let mut segmentation: Option<Tensor> = None;
        for (i, &row) in batch.step.labelled.iter().enumerate() {
            let Some((images, masks)) = &batch.labelled else {
                bail!("step {} has no labelled images", batch.step.index)
            };
            let image = images.narrow(0, i as i64, 1);
            let begun = Instant::now();
            let embedding = match phase.encoder {
                EncoderTraining::Frozen => cache.embedding(row, &image, model),
                EncoderTraining::Lora => {
                    model.segmenter.embed(cache.features(row, &image, model), Adapters::On, Mode::Train)
                }
            };
            times.add(Part::Encoder, begun);
            let begun = Instant::now();
            let mut rng = stream(config.seed, &format!("prompt/{}/{i}", batch.step.index));
            let prompts = training_prompt(
                config,
                phase.prompts,
                model.classifier.as_ref(),
                &image,
                self.training.store.mask(row),
                &mut rng,
            );
            let found = model.segmenter.decode(&embedding, &prompts, model.segmenter.default_choice());
            let loss = segmentation_loss(&found, &masks.narrow(0, i as i64, 1), &config.segmentation_loss);
            losses.score = Some(loss.score.double_value(&[]));
            times.add(Part::Decoder, begun);
            segmentation = Some(segmentation.map_or_else(|| loss.total.shallow_clone(), |s| s + &loss.total));
        }
        let segmentation = segmentation.map(|s| s / batch.step.labelled.len() as f64);
        losses.segmentation = segmentation.as_ref().map(|l| l.double_value(&[]));
        losses.total = [classifier, segmentation].into_iter().flatten().reduce(|a, b| a + b);
        Ok(losses)
    }
}
