//! The losses of one mask: `[H, W]` logits and the truth, 0 or 1, as large.

use crate::focal_loss;
use seg_metrics::{MaskView, Spacing, distance_transform};
use stage_api::{MaskLoss, sent};
use tch::{Device, Kind, Reduction, Tensor};

/// All of them, by the name that a configuration has for them.
pub const MASK_LOSSES: [(&str, MaskLoss); 6] = [
    ("boundary", boundary),
    ("ce", cross_entropy),
    ("dice", dice),
    ("focal", focal),
    ("iou", jaccard),
    ("weighted-iou", weighted_jaccard),
];

/// Those of all masks of a step, `[B · H, W]`.
pub const BATCH_LOSSES: [(&str, MaskLoss); 1] = [("batch-dice", batch_dice)];

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

/// Dice loss of a batch as one mask, as nnU-Net has it (smooth 1e-5): slices without the target then don't weigh as much as others.
fn batch_dice(logits: &Tensor, truth: &Tensor) -> Tensor {
    let (shared, both) = shared_and_both(logits, truth);
    1.0 - (shared * 2.0 + 1e-5) / (both + 1e-5)
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

/// Soft Jaccard loss (smooth 1) in which pixels weigh 1 to 6: 1 + 5 · |share of the target among the 31 × 31 pixels around − whether it is
/// the target's|, so those at its edge most (Wei et al., 2020, "F³Net"; padding counts as pixels without the target).
fn weighted_jaccard(logits: &Tensor, truth: &Tensor) -> Tensor {
    let [height, width] = truth.size()[..] else { unreachable!("a mask is [H, W]") };
    let around = truth.view([1, 1, height, width]).avg_pool2d([31, 31], [1, 1], [15, 15], false, true, None);
    let weight = (around.view([height, width]) - truth).abs() * 5.0 + 1.0;
    let probability = logits.sigmoid();
    let shared = (&probability * truth * &weight).sum(Kind::Float);
    let both = ((probability + truth) * weight).sum(Kind::Float);
    1.0 - (&shared + 1.0) / (both - &shared + 1.0)
}

/// Boundary loss: the mean of probability × signed distance from the target's edge in pixels.
fn boundary(logits: &Tensor, truth: &Tensor) -> Tensor {
    (logits.sigmoid() * signed_distance(truth)).mean(Kind::Float)
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

    /// A loss of a mask of one row.
    fn loss(name: &str, logits: &[f32], truth: &[f32]) -> f64 {
        let row = |values: &[f32]| Tensor::from_slice(values).reshape([1, values.len() as i64]);
        let (_, loss) = MASK_LOSSES.into_iter().find(|(known, _)| *known == name).unwrap();
        loss(&row(logits), &row(truth)).double_value(&[])
    }

    #[test]
    fn each_part_is_its_closed_form() {
        // Probabilities 0.5 and 3/4.
        let (logits, truth) = ([0.0, 3f32.ln()], [1.0, 0.0]);
        let close = |name: &str, expected: f64| {
            let found = loss(name, &logits, &truth);
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}: {name}");
        };
        // Shared 0.5, sum of both 1.25 + 1, union 1.75; each with 1 added to both sides of the fraction.
        close("dice", 1.0 - 2.0 / 3.25);
        close("iou", 1.0 - 1.5 / 2.75);
        // Of 31 × 31 pixels around each, one is the target's: weights 1 + 5 · 960/961 and 1 + 5/961.
        let (inner, outer) = (1.0 + 5.0 * 960.0 / 961.0, 1.0 + 5.0 / 961.0);
        close("weighted-iou", 1.0 - (0.5 * inner + 1.0) / (inner + 0.75 * outer + 1.0));
        // −ln of the probability of what is true: 1/2 and 1/4.
        close("ce", f64::midpoint(2f64.ln(), 4f64.ln()));
        close("focal", 0.5 * (0.25 * 2f64.ln() + 0.75 * 0.75 * 4f64.ln()) / 2.0);
        // Distances 0 (the target's outermost pixel) and 1.
        close("boundary", f64::midpoint(0.5 * 0.0, 0.75 * 1.0));
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
        let truth = [0.0, 0.0, 1.0, 1.0, 1.0];
        let good = loss("boundary", &[-9.0, -9.0, 9.0, 9.0, 9.0], &truth);
        let bad = loss("boundary", &[9.0, -9.0, -9.0, 9.0, 9.0], &truth);
        assert!(good < bad, "{good} {bad}");
    }
}
