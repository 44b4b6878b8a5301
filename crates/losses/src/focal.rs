//! The binary focal loss.

use tch::{Kind, Tensor};

/// Mean binary focal loss (Lin et al., 2017, eq. 5): `-α_t (1 − p_t)^γ log p_t`.
///
/// `logit` and `target` have one shape; `target` is 0 or 1; `positive_weight` (α, in `[0, 1]`) weighs the positive class
/// and `1 − α` the negative one. Computed from the logit, so that it stays finite where the sigmoid saturates.
pub fn focal_loss(logit: &Tensor, target: &Tensor, gamma: f64, positive_weight: f64) -> Tensor {
    let signed = logit * (target * 2.0 - 1.0);
    let log_p_t = signed.log_sigmoid();
    // (1 − p_t)^γ by its logarithm: the power itself has no slope at 0 for γ < 1, where the sigmoid saturates.
    let miss = ((-signed).log_sigmoid() * gamma).exp();
    let alpha = target * (2.0 * positive_weight - 1.0) + (1.0 - positive_weight);
    (-alpha * miss * log_p_t).mean(Kind::Float)
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

    /// The slope of the loss of a positive of that logit, α = 0.5.
    fn slope(logit: f32, gamma: f64) -> f64 {
        let logit = Tensor::from_slice(&[logit]).set_requires_grad(true);
        focal_loss(&logit, &Tensor::from_slice(&[1.0f32]), gamma, 0.5).backward();
        logit.grad().double_value(&[0])
    }

    #[test]
    fn loss_and_gradient_stay_finite_for_a_saturated_logit_and_any_gamma() {
        for gamma in [0.0, 0.25, 0.5, 1.0, 2.0, 5.0] {
            // Right and wrong, as a positive and as a negative.
            let logit = Tensor::from_slice(&[200.0f32, -200.0, 200.0, -200.0]).set_requires_grad(true);
            let loss = focal_loss(&logit, &Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0]), gamma, 0.5);
            loss.backward();
            // The wrong ones cost 200 each, and a step of 1 less costs 1 less; the right ones nothing.
            assert!((loss.double_value(&[]) - 0.5 * 200.0 / 2.0).abs() < 1e-3, "{gamma}: {loss:?}");
            let expected = [0.0, 0.0, 0.125, -0.125];
            for (i, expected) in expected.into_iter().enumerate() {
                let found = logit.grad().double_value(&[i as i64]);
                assert!((found - expected).abs() < 1e-6, "{gamma}, logit {i}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn the_gradient_is_its_closed_form() {
        // d/dx −½ (1 − p)^γ ln p = ½ (γ p (1 − p)^γ ln p − (1 − p)^(γ + 1)), p = sigmoid(x).
        for gamma in [0.0, 0.25, 0.5, 1.0, 2.0] {
            for x in [-4.0f64, -1.0, 0.0, 0.5, 3.0] {
                let p = 1.0 / (1.0 + (-x).exp());
                let miss = 1.0 - p;
                let expected = 0.5 * (gamma * p * miss.powf(gamma) * p.ln() - miss.powf(gamma + 1.0));
                let found = slope(x as f32, gamma);
                assert!((found - expected).abs() < 1e-6, "{gamma}, {x}: {found}, expected {expected}");
            }
        }
    }
}
