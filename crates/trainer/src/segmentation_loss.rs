//! The losses of the segmenter, each with its weight; one whose weight is 0 is not computed.

use crate::config::SegmentationLossConfig;
use anyhow::Result;
use predictor::known;
use stage_api::{MaskLoss, Masks};
use std::collections::BTreeMap;
use tch::{Kind, Reduction, Tensor};

/// The logit of a probability that is 0 in 32 bits.
const SURE_BACKGROUND: f64 = -1e4;

/// The parts of a configuration's segmentation loss, which are added.
pub struct SegmentationLosses {
    parts: Vec<(f64, MaskLoss)>,
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
    /// # Errors
    /// If a weight has a name that is not registered.
    pub fn new(config: &SegmentationLossConfig, registered: &BTreeMap<String, MaskLoss>) -> Result<Self> {
        let mut parts = Vec::new();
        for (name, &weight) in config.parts() {
            let loss = *known("a key of `[segmentation_loss]`", registered, name)?;
            if weight > 0.0 {
                parts.push((weight, loss));
            }
        }
        Ok(Self { parts, score: config.score() })
    }

    /// `truth`: `[B, 1, H, W]`, 1 or 0; pixels of -1 are sure background to every part, and so count in none. Of several candidate masks the one with the lowest loss is trained (Kirillov et al., 2023,
    /// section 3); every score learns the true IoU of its mask.
    pub fn of(&self, masks: &Masks, truth: &Tensor) -> SegmentationLoss {
        let [batch, count, ..] = masks.logits.size()[..] else { unreachable!("masks are [B, M, H, W]") };
        let all_logits = &masks.logits.masked_fill(&truth.lt(0.0), SURE_BACKGROUND);
        let truth = &truth.clamp_min(0.0);
        let per_mask: Vec<Tensor> = (0..batch)
            .flat_map(|b| {
                let truth = truth.get(b).get(0);
                (0..count).map(move |m| self.of_one(&all_logits.get(b).get(m), &truth))
            })
            .collect();
        let truth = truth.expand_as(all_logits);
        let best = Tensor::stack(&per_mask, 0).reshape([batch, count]).amin([1i64].as_slice(), false).mean(Kind::Float);
        let iou = tch::no_grad(|| {
            let predicted = all_logits.gt(0.0).to_kind(Kind::Float);
            let sum = |t: &Tensor| t.sum_dim_intlist([2i64, 3].as_slice(), false, Kind::Float);
            let shared = sum(&(&predicted * &truth));
            let union = sum(&predicted) + sum(&truth) - &shared;
            shared / union.clamp_min(1.0)
        });
        let score = masks.scores.mse_loss(&iou, Reduction::Mean);
        SegmentationLoss { total: best + &score * self.score, score: score.detach() }
    }

    fn of_one(&self, logits: &Tensor, truth: &Tensor) -> Tensor {
        let weighted = self.parts.iter().map(|(weight, loss)| loss(logits, truth) * *weight);
        weighted.reduce(|a, b| a + b).unwrap_or_else(|| logits.sum(Kind::Float) * 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use losses::MASK_LOSSES;
    use tch::Device;

    /// Of these parts alone.
    fn losses(parts: &[(&str, f64)]) -> SegmentationLosses {
        let registered = MASK_LOSSES.into_iter().map(|(name, loss)| (name.to_owned(), loss)).collect();
        SegmentationLosses::new(&SegmentationLossConfig::only(parts), &registered).unwrap()
    }

    #[test]
    fn of_three_masks_the_best_is_trained_and_every_score_learns_its_iou() {
        let truth = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0]).reshape([1, 1, 2, 2]);
        let logits = Tensor::cat(
            &[&truth * 20.0 - 10.0, &truth * -20.0 + 10.0, Tensor::ones([1, 1, 2, 2], (Kind::Float, Device::Cpu))],
            1,
        )
        .set_requires_grad(true);
        let masks =
            Masks { logits: logits.shallow_clone(), scores: Tensor::from_slice(&[1.0f32, 0.0, 0.5]).unsqueeze(0) };
        let loss = losses(&[("dice", 0.6), ("focal", 0.4), ("score", 0.1)]).of(&masks, &truth);
        assert!(loss.total.double_value(&[]) < 1e-3);
        assert!(loss.score.double_value(&[]) < 1e-6, "IoUs are 1, 0 and 2/4");
        loss.total.backward();
        assert_eq!(logits.grad().select(1, 1).abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_pixel_that_is_ignored_counts_in_no_loss_and_gets_no_gradient() {
        let row = |values: &[f32]| Tensor::from_slice(values).reshape([1, 1, 1, values.len() as i64]);
        let parts = [("dice", 1.0), ("focal", 1.0), ("iou", 1.0), ("ce", 1.0), ("boundary", 1.0), ("score", 1.0)];
        let of = |logits: &[f32], truth: &[f32]| {
            let logits = row(logits).set_requires_grad(true);
            let scores = Tensor::zeros([1, 1], (Kind::Float, Device::Cpu));
            let loss = losses(&parts).of(&Masks { logits: logits.shallow_clone(), scores }, &row(truth));
            loss.total.backward();
            let gradient = Vec::<f32>::try_from(logits.grad().view(-1)).unwrap();
            (loss.total.double_value(&[]), gradient)
        };
        let truth = [1.0, 0.0, -1.0];
        let (loss, gradient) = of(&[0.5, -0.5, 7.0], &truth);
        assert_eq!((loss, gradient[2]), (of(&[0.5, -0.5, -7.0], &truth).0, 0.0));
        // As a pixel that is found to be background with certainty.
        assert!((loss - of(&[0.5, -0.5, -200.0], &[1.0, 0.0, 0.0]).0).abs() < 1e-6);
        assert!(gradient[..2].iter().all(|slope| *slope != 0.0));
    }

    #[test]
    fn weights_are_factors_and_parts_are_added() {
        let row = |values: [f32; 2]| Tensor::from_slice(&values).reshape([1, 1, 1, 2]);
        // Probabilities 0.5 and 3/4: shared 0.5, union 1.75; distances 0 and 1.
        let scores = Tensor::zeros([1, 1], (Kind::Float, Device::Cpu));
        let masks = Masks { logits: row([0.0, 3f32.ln()]), scores };
        let loss = losses(&[("iou", 0.5), ("boundary", 0.25)]).of(&masks, &row([1.0, 0.0])).total.double_value(&[]);
        assert!((loss - 0.5 * (1.0 - 1.5 / 2.75) - 0.25 * 0.375).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn a_part_that_is_not_registered_is_refused_with_those_that_are() {
        let error = SegmentationLosses::new(&SegmentationLossConfig::only(&[("tversky", 1.0)]), &BTreeMap::new());
        assert!(error.map(drop).unwrap_err().to_string().contains("\"tversky\""));
    }
}
