//! The binary focal loss.

use tch::{Kind, Tensor};

/// Mean binary focal loss (Lin et al., 2017, eq. 5): `-α_t (1 − p_t)^γ log p_t`.
///
/// `logit` and `target` have one shape; `target` is 0 or 1; `positive_weight` (α, in `[0, 1]`) weighs the positive class
/// and `1 − α` the negative one. Computed from the logit, so that it stays finite where the sigmoid saturates.
pub fn focal_loss(logit: &Tensor, target: &Tensor, gamma: f64, positive_weight: f64) -> Tensor {
    let probability = logit.sigmoid();
    let signed = logit * (target * 2.0 - 1.0);
    let log_p_t = signed.log_sigmoid();
    let miss = (target - &probability).abs();
    let alpha = target * (2.0 * positive_weight - 1.0) + (1.0 - positive_weight);
    (-alpha * miss.pow_tensor_scalar(gamma) * log_p_t).mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn focal_loss_is_its_closed_form() {
        // p = 0.8 for a positive, 0.3 for a negative; γ = 2, α = 0.8.
        let logit = Tensor::from_slice(&[(0.8f64 / 0.2).ln(), (0.3f64 / 0.7).ln()]).to_kind(Kind::Float);
        let target = Tensor::from_slice(&[1.0f32, 0.0]);
        let expected = f64::midpoint(-0.8 * 0.2f64.powi(2) * 0.8f64.ln(), -0.2 * 0.3f64.powi(2) * 0.7f64.ln());
        let found = focal_loss(&logit, &target, 2.0, 0.8).double_value(&[]);
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }

    #[test]
    fn focal_loss_and_its_gradient_stay_finite_for_a_saturated_logit() {
        let logit = Tensor::from_slice(&[200.0f32, -200.0]).set_requires_grad(true);
        let loss = focal_loss(&logit, &Tensor::from_slice(&[0.0f32, 1.0]), 2.0, 0.5);
        loss.backward();
        assert!(loss.double_value(&[]).is_finite() && bool::try_from(logit.grad().isfinite().all()).unwrap());
    }
}
