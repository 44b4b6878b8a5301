//! The classifier's map against masks.

use tch::{Kind, Reduction, Tensor};

/// What masks `[B, 1, H, W]` say of the classifier's map of logits `[B, 1, h, w]`: mean binary cross-entropy and mean Dice
/// loss of the slices (smooth 1), against the masks' share of each place; places with a pixel of -1 count in neither.
pub fn map_loss(map: &Tensor, masks: &Tensor) -> Tensor {
    let size = map.size();
    let at_places = |of: &Tensor| of.adaptive_avg_pool2d([size[2], size[3]]);
    let counted = at_places(&masks.lt(0.0).to_kind(Kind::Float)).le(0.0).to_kind(Kind::Float);
    let share = at_places(&masks.clamp_min(0.0)) * &counted;
    let entropy = map.binary_cross_entropy_with_logits(&share, Some(&counted), None, Reduction::Mean);
    let probability = map.sigmoid() * &counted;
    let sum = |t: &Tensor| t.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float);
    let both: Tensor = sum(&probability) + sum(&share) + 1.0;
    let dice: Tensor = 1.0 - (sum(&(&probability * &share)) * 2.0 + 1.0) / both;
    entropy + dice.mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_compared_with_each_places_share_of_the_mask() {
        // Two places of 1 x 2 pixels: all and half of them are the target; probabilities 0.5 and 3/4.
        let masks = Tensor::from_slice(&[1.0f32, 1.0, 1.0, 0.0]).reshape([1, 1, 1, 4]);
        let map = Tensor::from_slice(&[0.0f32, 3f32.ln()]).reshape([1, 1, 1, 2]);
        let entropy = f64::midpoint(2f64.ln(), -0.5 * 0.75f64.ln() - 0.5 * 0.25f64.ln());
        let dice = 1.0 - (2.0 * (0.5 + 0.375) + 1.0) / (1.25 + 1.5 + 1.0);
        let found = map_loss(&map, &masks).double_value(&[]);
        assert!((found - entropy - dice).abs() < 1e-6, "{found}");
        // A place more, ignored in part: nothing of it counts, but in the mean.
        let masks = Tensor::from_slice(&[1.0f32, 1.0, 1.0, 0.0, -1.0, 1.0]).reshape([1, 1, 1, 6]);
        let map = Tensor::from_slice(&[0.0f32, 3f32.ln(), 5.0]).reshape([1, 1, 1, 3]);
        let found = map_loss(&map, &masks).double_value(&[]);
        assert!((found - entropy * 2.0 / 3.0 - dice).abs() < 1e-6, "{found}");
    }
}
