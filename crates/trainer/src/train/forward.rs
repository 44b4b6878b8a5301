//! The losses of one step.

use super::encoder_cache::EncodedRow;
use super::step_losses::StepLosses;
use super::training_loop::TrainingLoop;
use crate::config::EncoderTraining;
use crate::loader::{Batch, Labelled};
use crate::plan::stream;
use crate::prompts::training_prompt;
use anyhow::{Context, Result, bail};
use losses::{consistency_loss, focal_loss, map_loss};
use run_record::Part;
use stage_api::{Adapters, Mode, PromptKinds, Prompts};
use tch::{Kind, Tensor};

impl TrainingLoop<'_> {
    /// The losses of one step; the graph hangs on `total`.
    pub(super) fn losses(&mut self, batch: &Batch) -> Result<StepLosses> {
        let (config, model, cache) = (self.training.config, self.model, &mut self.cache);
        let (phase, ranks, shared) = (&config.phases[batch.step.phase], self.training.ranks, self.shared.as_deref());
        // Of the whole step, so that the losses and gradients of all ranks add up to those of one that has all of it.
        let share_of = |own: i64, whole: usize| own as f64 / whole as f64;
        let times = &mut self.state.progress.times;
        let mut watch = self.training.stopwatch();
        // L_cls: the step's slices with its labelled ones, and crops apart, because they have another size.
        let mut parts: Vec<(Tensor, f64)> = Vec::new();
        let mut consistency = None;
        if let Some(slices) = &batch.slices {
            let (all, labels) = (slices.images.shallow_clone(), slices.labels.shallow_clone());
            // Inference is on whole slices, and so are the running statistics that it goes by.
            let mode = if slices.whole.is_some() { Mode::TrainUntracked } else { Mode::Train };
            slices.whole.iter().for_each(|whole| model.classifier.track(whole));
            let crops = batch.crops.as_ref().map(|(i, l)| (i.shallow_clone(), l.shallow_clone(), Mode::TrainUntracked));
            for (i, (images, labels, mode)) in [(all, labels, mode)].into_iter().chain(crops).enumerate() {
                let presence = model.classifier.forward(&images, mode);
                let count = images.size()[0];
                if count > 0 {
                    let (gamma, weight) = (config.classifier.focal_gamma, self.positive_weight);
                    parts.push((focal_loss(&presence.logit, &labels, gamma, weight), count as f64));
                }
                // The first batch is that of the slices: what it says of them is what their strongly augmented copies should say.
                if let (Some(strong), 0) = (&slices.strong, i) {
                    let own = strong.size()[0];
                    let weak = presence.logit.narrow(0, 0, own).sigmoid().detach();
                    let strong = model.classifier.forward(strong, Mode::TrainUntracked).logit;
                    let weight = config.classifier.consistency * share_of(own, batch.step.slices.len());
                    let confidence = config.classifier.pseudo_label_confidence;
                    consistency = (own > 0).then(|| consistency_loss(&strong, &weak, confidence) * weight);
                }
            }
        }
        for bag in &batch.bags {
            // The mean over all bags of a step weighs as a slice each.
            let forward = || model.classifier.forward(bag, Mode::TrainUntracked).logit.max().view(1);
            let surest = shared.map_or_else(forward, |shared| shared.alone(forward));
            let (gamma, shown) = (config.classifier.focal_gamma, surest.ones_like());
            parts.push((focal_loss(&surest, &shown, gamma, self.positive_weight), 1.0));
        }
        let by_masks = batch.masks.as_ref().map(|(inputs, masks)| {
            let presence = model.classifier.forward(inputs, Mode::TrainUntracked);
            let map = presence.map.context("`classifier.batch_masks` needs a classifier that gives a map of logits")?;
            let (own, weight) = (inputs.size()[0], config.classifier.mask_weight);
            anyhow::Ok((own > 0).then(|| map_loss(&map, masks) * (weight * share_of(own, batch.step.masks.len()))))
        });
        let mut weight = [parts.iter().map(|(_, n)| n).sum::<f64>()];
        ranks.sum(&mut weight);
        let weighted = parts.into_iter().map(|(loss, n)| loss * (n / weight[0]));
        let classifier = weighted.chain(consistency).chain(by_masks.transpose()?.flatten()).reduce(|a, b| a + b);
        watch.lap(times, Part::Classifier);
        // L_seg, on the labelled slices only.
        let mut embeddings = Vec::new();
        let (mut segmentation, mut score): (Option<Tensor>, Option<Tensor>) = (None, None);
        let takes_prompts = model.segmenter.prompts() != PromptKinds::None;
        // Without prompts a step's slices go together, as batch normalisation and losses of batches want them.
        if let (false, Some(labelled)) = (takes_prompts, &batch.labelled) {
            let features = model.segmenter.features(&labelled.images);
            let embedding = model.segmenter.embed(&features, Adapters::On, Mode::Train);
            watch.lap(times, Part::Encoder);
            let found = model.segmenter.decode(&embedding, &Prompts::default(), model.segmenter.default_choice());
            let loss = self.segmentation_losses.of(&found, &labelled.masks);
            embeddings.push(embedding);
            (segmentation, score) = (Some(loss.total), Some(loss.score));
            watch.lap(times, Part::Decoder);
        }
        let own = ranks.share().of(&batch.step.labelled);
        for (i, copy) in own.iter().enumerate().filter(|_| takes_prompts) {
            let Some(Labelled { images, masks, boxes, pretrained, .. }) = &batch.labelled else {
                bail!("step {} has no labelled images", batch.step.index)
            };
            let image = images.narrow(0, i as i64, 1);
            let pretrained = pretrained.as_ref().map(|u| u.narrow(0, i as i64, 1));
            let mode = match phase.encoder {
                EncoderTraining::Frozen => Mode::Eval,
                EncoderTraining::Lora => Mode::Train,
            };
            // What the encoder makes of a slice can be kept only if the slice is the same each time.
            let is_same = copy.copy == 0 && (pretrained.is_some() || config.augmentation.labelled.is_off());
            let row = EncodedRow { row: copy.row, image, pretrained, is_same, mode };
            let embedding = cache.embedding(&row, phase.encoder, self.adapted, model);
            watch.lap(times, Part::Encoder);
            let mut rng = stream(config.seed, &format!("prompt/{}/{}", batch.step.index, ranks.share().place(i)));
            let seen = (row.pretrained.as_ref().unwrap_or(&row.image), embedding.slice_size[0]);
            let prompts = training_prompt(config, phase.prompts, model.classifier.as_ref(), seen, boxes[i], &mut rng);
            let found = model.segmenter.decode(&embedding, &prompts, model.segmenter.default_choice());
            let loss = self.segmentation_losses.of(&found, &masks.narrow(0, i as i64, 1));
            score = Some(score.map_or_else(|| loss.score.shallow_clone(), |s| s + &loss.score));
            embeddings.push(embedding);
            watch.lap(times, Part::Decoder);
            segmentation = Some(segmentation.map_or_else(|| loss.total.shallow_clone(), |s| s + &loss.total));
        }
        // Without prompts the mean over the share's slices stands there already.
        let decoded = batch.step.labelled.len() as f64 / if takes_prompts { 1.0 } else { own.len() as f64 };
        let [segmentation, score] = [segmentation, score].map(|sum| sum.map(|s| s / decoded));
        let total = [&classifier, &segmentation].into_iter().flatten().map(Tensor::shallow_clone).reduce(|a, b| a + b);
        let read = read_together([&classifier, &segmentation, &score, &total]);
        watch.lap(times, if score.is_some() { Part::Decoder } else { Part::Classifier });
        // A part is there if any rank has it.
        let mut numbers =
            [read.map(Option::unwrap_or_default), read.map(|v| f64::from(u8::from(v.is_some())))].concat();
        ranks.sum(&mut numbers);
        let [classifier, segmentation, score, sum] = [0, 1, 2, 3].map(|i| (numbers[i + 4] > 0.0).then_some(numbers[i]));
        Ok(StepLosses { total, finite: sum.is_none_or(f64::is_finite), classifier, segmentation, score, embeddings })
    }
}

/// The values of those scalars that are there, in one transfer: on a GPU, each reading of its own would keep the host from
/// asking for the next kernels until all that it asked for before was done.
fn read_together<const N: usize>(scalars: [&Option<Tensor>; N]) -> [Option<f64>; N] {
    let there: Vec<Tensor> = scalars.into_iter().flatten().map(Tensor::detach).collect();
    let mut values = vec![0f64; there.len()];
    if !there.is_empty() {
        Tensor::stack(&there, 0).to_kind(Kind::Double).copy_data(&mut values, there.len());
    }
    let mut values = values.into_iter();
    scalars.map(|scalar| scalar.as_ref().and_then(|_| values.next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_read_together_keep_their_places() {
        let scalar = |v: f32| Some(Tensor::from(v));
        assert_eq!(
            read_together([&None, &scalar(0.5), &scalar(f32::INFINITY)]),
            [None, Some(0.5), Some(f64::INFINITY)]
        );
        assert_eq!(read_together([&None]), [None]);
    }
}
