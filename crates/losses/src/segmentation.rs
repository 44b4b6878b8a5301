//! The losses of a segmenter, each with its weight; one whose weight is 0 is not computed.

use crate::deep_supervision_weights;
use stage_api::{MaskLoss, Masks};
use tch::{Kind, Reduction, Tensor};

/// The logit of a probability that is 0 in 32 bits.
const SURE_BACKGROUND: f64 = -1e4;

/// A part of the segmentation loss.
#[derive(Clone, Copy)]
pub enum SegmentationPart {
    /// Of one mask `[H, W]`; a batch's is the mean over its slices.
    OfMask(MaskLoss),
    /// Of all masks of a step at once, `[B · H, W]`: for segmenters without prompts, which give one mask a slice.
    OfBatch(MaskLoss),
}

/// Parts that are added, by their weights.
pub struct SegmentationLosses {
    of_masks: Vec<(f64, MaskLoss)>,
    of_batch: Vec<(f64, MaskLoss)>,
    /// Weight of the score head's squared error.
    score: f64,
}

/// The loss of a batch and its part from the score head.
pub struct SegmentationLoss {
    /// All of it, a scalar.
    pub total: Tensor,
    /// The score head's squared error, unweighted.
    pub score: Tensor,
}

impl SegmentationLosses {
    /// Of parts with their weights, and of the score head's squared error with its own.
    pub fn new(parts: impl IntoIterator<Item = (f64, SegmentationPart)>, score: f64) -> Self {
        let (mut of_masks, mut of_batch) = (Vec::new(), Vec::new());
        for (weight, part) in parts.into_iter().filter(|(weight, _)| *weight > 0.0) {
            match part {
                SegmentationPart::OfMask(loss) => of_masks.push((weight, loss)),
                SegmentationPart::OfBatch(loss) => of_batch.push((weight, loss)),
            }
        }
        Self { of_masks, of_batch, score }
    }

    /// Whether some part is of all masks of a step.
    pub fn need_batches(&self) -> bool {
        !self.of_batch.is_empty()
    }

    /// `truth`: `[B, 1, H, W]`, 1 or 0; pixels of -1 are sure background to every part, and so count in none. Of several
    /// candidate masks the one with the lowest loss is trained (Kirillov et al., 2023, section 3); every score learns the true IoU of its mask. Coarser resolutions weigh half as much each as the one before, the
    /// last nothing, against the truth at their own (nearest pixels): deep supervision as nnU-Net has it.
    ///
    /// # Panics
    /// If parts are of batches and there are several candidate masks.
    pub fn of(&self, masks: &Masks, truth: &Tensor) -> SegmentationLoss {
        let mut finest = self.of_resolution(&masks.logits, &masks.scores, truth);
        let weights = deep_supervision_weights(1 + masks.coarser.len());
        finest.total *= weights[0];
        for (logits, &weight) in masks.coarser.iter().zip(&weights[1..]).filter(|(_, weight)| **weight > 0.0) {
            let truth = truth.internal_upsample_nearest_exact2d(&logits.size()[2..], None, None);
            finest.total += self.of_resolution(logits, &masks.scores, &truth).total * weight;
        }
        finest
    }

    fn of_resolution(&self, logits: &Tensor, scores: &Tensor, truth: &Tensor) -> SegmentationLoss {
        let [batch, count, ..] = logits.size()[..] else { unreachable!("masks are [B, M, H, W]") };
        let all_logits = &logits.masked_fill(&truth.lt(0.0), SURE_BACKGROUND);
        let truth = &truth.clamp_min(0.0);
        let per_mask: Vec<Tensor> = (0..batch)
            .flat_map(|b| {
                let truth = truth.get(b).get(0);
                (0..count).map(move |m| sum_of(&self.of_masks, &all_logits.get(b).get(m), &truth))
            })
            .collect();
        let truth = truth.expand_as(all_logits);
        let mut best =
            Tensor::stack(&per_mask, 0).reshape([batch, count]).amin([1i64].as_slice(), false).mean(Kind::Float);
        if self.need_batches() {
            assert_eq!(count, 1, "losses of batches are of segmenters that give one mask a slice");
            let together = |masks: &Tensor| masks.reshape([-1, masks.size()[3]]);
            best += sum_of(&self.of_batch, &together(all_logits), &together(&truth));
        }
        let iou = tch::no_grad(|| {
            let predicted = all_logits.gt(0.0).to_kind(Kind::Float);
            let sum = |t: &Tensor| t.sum_dim_intlist([2i64, 3].as_slice(), false, Kind::Float);
            let shared = sum(&(&predicted * &truth));
            let union = sum(&predicted) + sum(&truth) - &shared;
            shared / union.clamp_min(1.0)
        });
        let score = scores.mse_loss(&iou, Reduction::Mean);
        SegmentationLoss { total: best + &score * self.score, score: score.detach() }
    }
}

fn sum_of(parts: &[(f64, MaskLoss)], logits: &Tensor, truth: &Tensor) -> Tensor {
    let weighted = parts.iter().map(|(weight, loss)| loss(logits, truth) * *weight);
    weighted.reduce(|a, b| a + b).unwrap_or_else(|| logits.sum(Kind::Float) * 0.0)
}
