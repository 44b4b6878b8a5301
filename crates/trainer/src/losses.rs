//! The loss of the SAM branch.

use crate::config::SegmentationLossConfig;
use cam_classifier::focal_loss;
use stage_api::Masks;
use tch::{Kind, Reduction, Tensor};

/// The loss of a batch and its part from the score head.
pub struct SegmentationLoss {
    /// All of it, a scalar.
    pub total: Tensor,
    /// The score head's squared error, unweighted.
    pub score: Tensor,
}

/// `truth`: `[B, 1, H, W]`. Of several candidate masks the one with the lowest loss is trained (Kirillov et al., 2023,
/// section 3); every score learns the true IoU of its mask.
pub fn segmentation_loss(masks: &Masks, truth: &Tensor, config: &SegmentationLossConfig) -> SegmentationLoss {
    let [batch, count, ..] = masks.logits.size()[..] else { unreachable!("masks are [B, M, H, W]") };
    let truth = truth.expand_as(&masks.logits);
    let per_mask: Vec<Tensor> = (0..batch)
        .flat_map(|b| (0..count).map(move |m| (b, m)))
        .map(|(b, m)| pixel_loss(&masks.logits.get(b).get(m), &truth.get(b).get(m), config))
        .collect();
    let best = Tensor::stack(&per_mask, 0).reshape([batch, count]).amin([1i64].as_slice(), false).mean(Kind::Float);
    let iou = tch::no_grad(|| {
        let predicted = masks.logits.gt(0.0).to_kind(Kind::Float);
        let sum = |t: &Tensor| t.sum_dim_intlist([2i64, 3].as_slice(), false, Kind::Float);
        let shared = sum(&(&predicted * &truth));
        let union = sum(&predicted) + sum(&truth) - &shared;
        shared / union.clamp_min(1.0)
    });
    let score = masks.scores.mse_loss(&iou, Reduction::Mean);
    SegmentationLoss { total: best + &score * config.score, score: score.detach() }
}

/// Of one mask `[H, W]`.
fn pixel_loss(logits: &Tensor, truth: &Tensor, config: &SegmentationLossConfig) -> Tensor {
    let probability = logits.sigmoid();
    let shared = (&probability * truth).sum(Kind::Float);
    let dice = 1.0 - (shared * 2.0 + 1.0) / (probability.sum(Kind::Float) + truth.sum(Kind::Float) + 1.0);
    let mut total = dice * config.dice;
    if config.focal > 0.0 {
        total += focal_loss(logits, truth, 2.0, 0.5) * config.focal;
    }
    if config.ce > 0.0 {
        total += logits.binary_cross_entropy_with_logits::<Tensor>(truth, None, None, Reduction::Mean) * config.ce;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

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
        let loss = segmentation_loss(&masks, &truth, &SegmentationLossConfig::default());
        assert!(loss.total.double_value(&[]) < 1e-3);
        assert!(loss.score.double_value(&[]) < 1e-6, "IoUs are 1, 0 and 2/4");
        loss.total.backward();
        assert_eq!(logits.grad().select(1, 1).abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn dice_part_is_its_closed_form() {
        let config = SegmentationLossConfig { dice: 1.0, focal: 0.0, ce: 0.0, score: 0.0 };
        let truth = Tensor::from_slice(&[1.0f32, 0.0]).reshape([1, 1, 1, 2]);
        let masks = Masks {
            logits: Tensor::zeros([1, 1, 1, 2], (Kind::Float, Device::Cpu)),
            scores: Tensor::zeros([1, 1], (Kind::Float, Device::Cpu)),
        };
        // Probabilities 0.5: 1 − (2·0.5 + 1) / (1 + 1 + 1).
        assert!((segmentation_loss(&masks, &truth, &config).total.double_value(&[]) - 1.0 / 3.0).abs() < 1e-6);
    }
}
