//! The losses of the segmenter, each with its weight; one whose weight is 0 is not computed.

use crate::config::SegmentationLossConfig;
use anyhow::Result;
use cam_classifier::focal_loss;
use predictor::known;
use seg_metrics::{MaskView, Spacing, distance_transform};
use stage_api::{MaskLoss, Masks, sent};
use std::collections::BTreeMap;
use tch::{Device, Kind, Reduction, Tensor};

/// Those of this workspace, by name; each is of one mask `[H, W]`.
pub(crate) const PARTS: [(&str, MaskLoss); 5] =
    [("boundary", boundary), ("ce", cross_entropy), ("dice", dice), ("focal", focal), ("iou", jaccard)];

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

    /// `truth`: `[B, 1, H, W]`. Of several candidate masks the one with the lowest loss is trained (Kirillov et al., 2023,
    /// section 3); every score learns the true IoU of its mask.
    pub fn of(&self, masks: &Masks, truth: &Tensor) -> SegmentationLoss {
        let [batch, count, ..] = masks.logits.size()[..] else { unreachable!("masks are [B, M, H, W]") };
        let per_mask: Vec<Tensor> = (0..batch)
            .flat_map(|b| {
                let truth = truth.get(b).get(0);
                (0..count).map(move |m| self.of_one(&masks.logits.get(b).get(m), &truth))
            })
            .collect();
        let truth = truth.expand_as(&masks.logits);
        let best = Tensor::stack(&per_mask, 0).reshape([batch, count]).amin([1i64].as_slice(), false).mean(Kind::Float);
        let iou = tch::no_grad(|| {
            let predicted = masks.logits.gt(0.0).to_kind(Kind::Float);
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

/// Shared pixels and the sum of both, softly.
fn shared_and_both(logits: &Tensor, truth: &Tensor) -> (Tensor, Tensor) {
    let probability = logits.sigmoid();
    ((&probability * truth).sum(Kind::Float), probability.sum(Kind::Float) + truth.sum(Kind::Float))
}

/// Dice loss (smooth 1, on the sigmoid).
fn dice(logits: &Tensor, truth: &Tensor) -> Tensor {
    let (shared, both) = shared_and_both(logits, truth);
    1.0 - (shared * 2.0 + 1.0) / (both + 1.0)
}

/// Focal loss of the pixels (γ = 2, α = 0.5).
fn focal(logits: &Tensor, truth: &Tensor) -> Tensor {
    focal_loss(logits, truth, 2.0, 0.5)
}

/// Binary cross-entropy of the pixels.
fn cross_entropy(logits: &Tensor, truth: &Tensor) -> Tensor {
    logits.binary_cross_entropy_with_logits::<Tensor>(truth, None, None, Reduction::Mean)
}

/// Soft Jaccard loss (smooth 1, on the sigmoid).
fn jaccard(logits: &Tensor, truth: &Tensor) -> Tensor {
    let (shared, both) = shared_and_both(logits, truth);
    1.0 - (&shared + 1.0) / (both - &shared + 1.0)
}

/// Boundary loss: the mean of probability × signed distance from the target's edge in pixels.
fn boundary(logits: &Tensor, truth: &Tensor) -> Tensor {
    (logits.sigmoid() * signed_distance(truth)).mean(Kind::Float)
}

/// What masks `[B, 1, H, W]` say of the classifier's map of logits `[B, 1, h, w]`: mean binary cross-entropy and mean Dice
/// loss of the slices (smooth 1), against the masks' share of each place.
pub fn map_loss(map: &Tensor, masks: &Tensor) -> Tensor {
    let size = map.size();
    let share = masks.adaptive_avg_pool2d([size[2], size[3]]);
    let entropy = map.binary_cross_entropy_with_logits::<Tensor>(&share, None, None, Reduction::Mean);
    let probability = map.sigmoid();
    let sum = |t: &Tensor| t.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float);
    let both: Tensor = sum(&probability) + sum(&share) + 1.0;
    let dice: Tensor = 1.0 - (sum(&(&probability * &share)) * 2.0 + 1.0) / both;
    entropy + dice.mean(Kind::Float)
}

/// Distance in pixels of each pixel of a mask `[H, W]` from the other side of its edge: outside the target from the
/// nearest pixel of it, inside 1 less than from the nearest pixel without it, negative. So it is 0 on the target's own
/// outermost pixels, as in the code of Kervadec et al. (2019), "Boundary loss for highly unbalanced segmentation". All 0
/// where there is no edge.
fn signed_distance(truth: &Tensor) -> Tensor {
    let [height, width] = truth.size()[..] else { unreachable!("a mask is [H, W]") };
    let host = truth.gt(0.5).to_kind(Kind::Uint8).to_device(Device::Cpu).contiguous();
    let mut inside = vec![0u8; host.numel()];
    host.copy_data(&mut inside, host.numel());
    let outside: Vec<u8> = inside.iter().map(|&m| 1 - m).collect();
    let to = |mask: &[u8]| {
        let view = MaskView::new(mask, height as usize, width as usize).expect("as many pixels as the tensor has");
        distance_transform(view, Spacing::PIXELS)
    };
    let (to_target, to_background) = (to(&inside), to(&outside));
    let signed: Vec<f32> = std::iter::zip(&to_target, &to_background)
        .map(|(&t, &b)| match (t.is_finite() && b.is_finite(), t > 0.0) {
            (false, _) => 0.0,
            (true, true) => t as f32,
            (true, false) => 1.0 - b as f32,
        })
        .collect();
    sent(&Tensor::from_slice(&signed), truth.device()).reshape([height, width])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of these parts alone.
    fn losses(parts: &[(&str, f64)]) -> SegmentationLosses {
        let registered = PARTS.into_iter().map(|(name, loss)| (name.to_owned(), loss)).collect();
        SegmentationLosses::new(&SegmentationLossConfig::only(parts), &registered).unwrap()
    }

    /// The loss of one mask in one row.
    fn loss(parts: &[(&str, f64)], logits: &[f32], truth: &[f32]) -> f64 {
        let row = |values: &[f32]| Tensor::from_slice(values).reshape([1, 1, 1, values.len() as i64]);
        let masks = Masks { logits: row(logits), scores: Tensor::zeros([1, 1], (Kind::Float, Device::Cpu)) };
        losses(parts).of(&masks, &row(truth)).total.double_value(&[])
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
    fn a_map_is_compared_with_each_places_share_of_the_mask() {
        // Two places of 1 x 2 pixels: all and half of them are the target; probabilities 0.5 and 3/4.
        let masks = Tensor::from_slice(&[1.0f32, 1.0, 1.0, 0.0]).reshape([1, 1, 1, 4]);
        let map = Tensor::from_slice(&[0.0f32, 3f32.ln()]).reshape([1, 1, 1, 2]);
        let entropy = f64::midpoint(2f64.ln(), -0.5 * 0.75f64.ln() - 0.5 * 0.25f64.ln());
        let dice = 1.0 - (2.0 * (0.5 + 0.375) + 1.0) / (1.25 + 1.5 + 1.0);
        let found = map_loss(&map, &masks).double_value(&[]);
        assert!((found - entropy - dice).abs() < 1e-6, "{found}");
    }

    #[test]
    fn each_part_is_its_closed_form() {
        // Probabilities 0.5 and 3/4.
        let (logits, truth) = ([0.0, 3f32.ln()], [1.0, 0.0]);
        let close = |parts: &[(&str, f64)], expected: f64| {
            let found = loss(parts, &logits, &truth);
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}: {parts:?}");
        };
        // Shared 0.5, sum of both 1.25 + 1, union 1.75; each with 1 added to both sides of the fraction.
        close(&[("dice", 1.0)], 1.0 - 2.0 / 3.25);
        close(&[("iou", 1.0)], 1.0 - 1.5 / 2.75);
        // −ln of the probability of what is true: 1/2 and 1/4.
        close(&[("ce", 1.0)], f64::midpoint(2f64.ln(), 4f64.ln()));
        close(&[("focal", 1.0)], 0.5 * (0.25 * 2f64.ln() + 0.75 * 0.75 * 4f64.ln()) / 2.0);
        // Distances 0 (the target's outermost pixel) and 1.
        close(&[("boundary", 1.0)], f64::midpoint(0.5 * 0.0, 0.75 * 1.0));
        // Weights are factors, parts are added.
        close(&[("iou", 0.5), ("boundary", 0.25)], 0.5 * (1.0 - 1.5 / 2.75) + 0.25 * 0.375);
    }

    #[test]
    fn distances_are_negative_inside_and_count_from_the_targets_outermost_pixels() {
        #[rustfmt::skip]
        let truth = Tensor::from_slice(&[0.0f32, 0.0, 0.0, 0.0, 0.0,
                                         0.0,    1.0, 1.0, 1.0, 0.0,
                                         0.0,    1.0, 1.0, 1.0, 0.0,
                                         0.0,    1.0, 1.0, 1.0, 0.0]).reshape([4, 5]);
        let found = signed_distance(&truth);
        let d = 2f64.sqrt();
        // The image's own border is no edge: the lowest row of the target is taken to go on beyond it.
        #[rustfmt::skip]
        let expected = [d,   1.0, 1.0,  1.0, d,
                        1.0, 0.0, 0.0,  0.0, 1.0,
                        1.0, 0.0, -1.0, 0.0, 1.0,
                        1.0, 0.0, -1.0, 0.0, 1.0];
        for (i, &e) in expected.iter().enumerate() {
            let at = found.double_value(&[i as i64 / 5, i as i64 % 5]);
            assert!((at - e).abs() < 1e-6, "pixel {i}: {at}, expected {e}");
        }
        for level in [0.0, 1.0] {
            let all = Tensor::full([3, 3], level, (Kind::Float, Device::Cpu));
            assert_eq!(signed_distance(&all).abs().max().double_value(&[]), 0.0);
        }
    }

    #[test]
    fn the_boundary_part_falls_where_probability_moves_into_the_target() {
        let boundary = [("boundary", 1.0)];
        let truth = [0.0, 0.0, 1.0, 1.0, 1.0];
        let good = loss(&boundary, &[-9.0, -9.0, 9.0, 9.0, 9.0], &truth);
        let bad = loss(&boundary, &[9.0, -9.0, -9.0, 9.0, 9.0], &truth);
        assert!(good < bad, "{good} {bad}");
    }

    #[test]
    fn a_part_that_is_not_registered_is_refused_with_those_that_are() {
        let error = SegmentationLosses::new(&SegmentationLossConfig::only(&[("tversky", 1.0)]), &BTreeMap::new());
        assert!(error.map(drop).unwrap_err().to_string().contains("\"tversky\""));
    }
}
