//! The prediction path: slices in, masks out.
//!
//! Invariant: no ground truth. Nothing here has a mask or a label to pass; evaluation with true boxes is elsewhere and has
//! `oracle` in its name.

use crate::config::PredictionConfig;
use crate::not_a_number::NotANumber;
use cam_classifier::{CamPrompt, PromptSettings, cam_prompts};
use stage_api::{BoxPrompt, Embedding, Mode, PresenceClassifier, PromptKinds, Prompts, Segmenter, sent};
use tch::{Device, Kind, Tensor};

/// Margin of the box around a mask when it prompts once more, in pixels.
const REFINEMENT_MARGIN_PX: f32 = 3.0;

/// Both branches, and how they work together.
pub struct Predictor<'a> {
    /// The classifier branch.
    pub classifier: &'a dyn PresenceClassifier,
    /// The SAM branch.
    pub segmenter: &'a dyn Segmenter,
    /// From activation map to prompt.
    pub prompt: &'a PromptSettings,
    /// Presence threshold, refinements, rules of the volume.
    pub prediction: &'a PredictionConfig,
}

/// What the classifier makes of a slice.
#[derive(Clone, Debug)]
pub struct Classification {
    /// Probability that the target is in the slice.
    pub probability: f64,
    /// Whether the slice is called to have the target.
    pub present: bool,
    /// The prompt of its activation map.
    pub prompt: CamPrompt,
    /// The activation map at the slice's size, row-major, ≥ 0.
    pub cam: Vec<f32>,
}

/// A predicted slice.
#[derive(Clone, Debug)]
pub struct SlicePrediction {
    /// What the classifier says.
    pub classification: Classification,
    /// Row-major, 0 or 1.
    pub mask: Vec<u8>,
    /// What the decoder thinks of the mask, and its probabilities; `None` where the slice is called empty.
    pub scored: Option<Scored>,
}

impl SlicePrediction {
    /// The share of the mask that is expected to be wrong by its own probabilities: `Σ min(p, 1 − p) / Σ p`, at most 1; of a slice that
    /// is called empty the classifier's `min(p, 1 − p)`.
    pub fn uncertainty(&self) -> f64 {
        let presence = self.classification.probability;
        self.scored.as_ref().map_or(presence.min(1.0 - presence), |scored| {
            let sum = |of: fn(u8) -> u8| scored.probabilities.iter().map(|&p| u64::from(of(p))).sum::<u64>() as f64;
            let (wrong, all) = (sum(|p| p.min(255 - p)), sum(|p| p));
            if all > 0.0 { (wrong / all).min(1.0) } else { 0.0 }
        })
    }

    /// The classifier's own region: its map above the prompt's threshold, where the slice is called to have the target.
    pub fn classifiers_region(&self) -> Option<&[u8]> {
        let classification = &self.classification;
        (classification.present && !classification.prompt.empty).then_some(classification.prompt.mask.as_slice())
    }
}

/// What the decoder thinks of a mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The intersection over union with the target that it expects; NaN where that or a logit of the mask is.
    pub score: f64,
    /// Row-major, in 255ths.
    pub probabilities: Vec<u8>,
}

/// A mask of the decoder, and what the decoder thinks of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredMask {
    /// Row-major, 0 or 1.
    pub mask: Vec<u8>,
    /// What the decoder thinks of it.
    pub scored: Scored,
}

impl Predictor<'_> {
    /// Runs the classifier on its own input, as [`PresenceClassifier::input`] says: slices `[B, 1, H, H]` or pretrained
    /// embeddings `[B, C, g, g]`. Prompts and maps are of slices of `size` pixels.
    ///
    /// # Errors
    /// A slice's logit is NaN: it is no "absent".
    pub fn classify(&self, input: &Tensor, size: usize) -> Result<Vec<Classification>, NotANumber> {
        let side = size as i64;
        let presence = tch::no_grad(|| self.classifier.forward(input, Mode::Eval));
        let probabilities = to_vec(&presence.logit.sigmoid());
        if let Some(slice) = probabilities.iter().position(|p| p.is_nan()) {
            let seen = input.narrow(0, slice as i64, 1);
            return Err(NotANumber::new(slice, "the classifier's presence", &self.classifier.tensors(), &seen));
        }
        let prompts = cam_prompts(&presence.cam, size, self.prompt);
        let maps = to_vec(&presence.cam.upsample_bilinear2d([side, side], false, None, None));
        let maps = maps.chunks_exact(size * size);
        let classifications = prompts
            .into_iter()
            .zip(probabilities.into_iter().zip(maps))
            .map(|(prompt, (p, cam))| {
                let probability = f64::from(p);
                let present = probability >= self.prediction.presence_threshold;
                Classification { probability, present, prompt, cam: cam.to_vec() }
            })
            .collect();
        Ok(classifications)
    }

    /// The mask of one embedded slice for a CAM's prompt, refined as configured; neighbouring slices have no say.
    pub fn segment(&self, embedding: &Embedding, prompt: &CamPrompt) -> Vec<u8> {
        let first = self.for_prompt(embedding, prompt);
        if self.prediction.refinements == 0 { first.mask } else { self.refined(embedding, prompt, first).mask }
    }

    /// The mask for the CAM's own box.
    pub(crate) fn for_prompt(&self, embedding: &Embedding, prompt: &CamPrompt) -> ScoredMask {
        if self.segmenter.prompts() == PromptKinds::None {
            return best_scored(self.segmenter, embedding, &Prompts::default());
        }
        scored_mask_for_box(self.segmenter, embedding, prompt.bounds, Some(cam_mask(embedding, prompt)))
    }

    /// The mask whose own box prompted once more, as often as configured.
    pub(crate) fn refined(&self, embedding: &Embedding, prompt: &CamPrompt, first: ScoredMask) -> ScoredMask {
        let [size, _] = embedding.slice_size; // A store's slices are square.
        let mut found = first;
        for _ in 0..self.prediction.refinements {
            let Some(bounds) = BoxPrompt::around(&found.mask, size) else { break };
            let bounds = bounds.enlarged(REFINEMENT_MARGIN_PX, size);
            found = scored_mask_for_box(self.segmenter, embedding, bounds, Some(cam_mask(embedding, prompt)));
        }
        found
    }
}

/// The best-scored mask of one embedded slice for one box, row-major, 0 or 1.
pub fn mask_for_box(
    segmenter: &dyn Segmenter,
    embedding: &Embedding,
    bounds: BoxPrompt,
    cam_mask: Option<Tensor>,
) -> Vec<u8> {
    scored_mask_for_box(segmenter, embedding, bounds, cam_mask).mask
}

/// The best-scored mask of one embedded slice for one box.
pub(crate) fn scored_mask_for_box(
    segmenter: &dyn Segmenter,
    embedding: &Embedding,
    bounds: BoxPrompt,
    cam_mask: Option<Tensor>,
) -> ScoredMask {
    best_scored(segmenter, embedding, &Prompts { boxes: Some(vec![bounds]), cam_mask, ..Prompts::default() })
}

fn best_scored(segmenter: &dyn Segmenter, embedding: &Embedding, prompts: &Prompts) -> ScoredMask {
    let masks = tch::no_grad(|| segmenter.decode(embedding, prompts, segmenter.default_choice()));
    let best = masks.scores.argmax(1, false).int64_value(&[0]);
    let logits = masks.logits.select(1, best);
    let is_known = logits.isnan().any().int64_value(&[]) == 0;
    let bytes = |values: &Tensor| {
        let flat = values.to_kind(Kind::Uint8).to_device(Device::Cpu).contiguous().view(-1);
        Vec::try_from(&flat).unwrap_or_default()
    };
    let probabilities = bytes(&(logits.sigmoid() * 255.0).round());
    let score = if is_known { masks.scores.double_value(&[0, best]) } else { f64::NAN };
    ScoredMask { mask: bytes(&logits.gt(0.0)), scored: Scored { score, probabilities } }
}

/// A mask as `[1, 1, H, H]`.
pub fn mask_tensor(mask: &[u8], size: usize, device: Device) -> Tensor {
    let side = size as i64;
    sent(&Tensor::from_slice(mask), device).reshape([1, 1, side, side]).to_kind(Kind::Float)
}

fn cam_mask(embedding: &Embedding, prompt: &CamPrompt) -> Tensor {
    mask_tensor(&prompt.mask, embedding.slice_size[0], embedding.tensor.device())
}

fn to_vec(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
    let mut values = vec![0.0; flat.numel()];
    let count = values.len();
    flat.copy_data(&mut values, count);
    values
}
