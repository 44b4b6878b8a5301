//! What a strongly augmented copy of a slice should say of it.

use tch::{Kind, Reduction, Tensor};

/// The disagreement of a classifier on strongly augmented copies, logits `[B]`, with what it said of the slices themselves, probabilities
/// `[B]` without gradient. Without `confidence` the mean squared difference of the probabilities. With it (0.5 to 1) the binary cross-entropy
/// against what the slice is called (a pseudo-label), where the probability of that is at least `confidence`, divided by the number of
/// all slices (Sohn et al., 2020, "FixMatch").
pub fn consistency_loss(strong: &Tensor, weak: &Tensor, confidence: Option<f64>) -> Tensor {
    let Some(confidence) = confidence else {
        return strong.sigmoid().mse_loss(weak, Reduction::Mean);
    };
    let called = weak.gt(0.5).to_kind(Kind::Float);
    let sure = weak.maximum(&(1.0 - weak)).ge(confidence).to_kind(Kind::Float);
    strong.binary_cross_entropy_with_logits(&called, Some(&sure), None, Reduction::Mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_their_closed_forms() {
        let logit = |p: f64| (p / (1.0 - p)).ln() as f32;
        let strong = Tensor::from_slice(&[logit(0.5), logit(0.25), logit(0.9)]);
        let weak = Tensor::from_slice(&[0.8f32, 0.1, 0.6]);
        let squares = (0.3f64.powi(2) + 0.15f64.powi(2) + 0.3f64.powi(2)) / 3.0;
        assert!((consistency_loss(&strong, &weak, None).double_value(&[]) - squares).abs() < 1e-6);
        // The third slice is not sure enough.
        let entropy = -(0.5f64.ln() + 0.75f64.ln()) / 3.0;
        assert!((consistency_loss(&strong, &weak, Some(0.7)).double_value(&[]) - entropy).abs() < 1e-6);
    }
}
