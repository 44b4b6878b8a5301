//! The classifier's map against masks.

use tch::{Kind, Reduction, Tensor};

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
    }
}
