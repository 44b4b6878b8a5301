//! How much each resolution of a network with deep supervision counts.

/// Weights of so many resolutions, the full one first: 1, 1/2, 1/4, …, the last 0, of sum 1, as nnU-Net has them. A single one counts
/// whole.
pub fn deep_supervision_weights(resolutions: usize) -> Vec<f64> {
    if resolutions < 2 {
        return vec![1.0; resolutions];
    }
    let mut weights: Vec<f64> = (0..resolutions).map(|i| 0.5_f64.powi(i as i32)).collect();
    weights[resolutions - 1] = 0.0;
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}
