//! Named random streams: every draw belongs to a stream that is known by the seed and a name, so that neither the order
//! of work nor the number of threads can change a patient.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// A stream of draws.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream `name` of `seed`.
    pub(crate) fn stream(seed: u64, name: &str) -> Self {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name.as_bytes()).finalize();
        Self(ChaCha8Rng::from_seed(digest.into()))
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.random::<f32>()
    }

    /// Uniform in `[-spread, spread)`.
    pub(crate) fn around(&mut self, spread: f32) -> f32 {
        self.within(-spread, spread)
    }

    /// Uniform in the box around `center` with the half sides `spread`.
    pub(crate) fn near(&mut self, center: [f32; 3], spread: [f32; 3]) -> [f32; 3] {
        std::array::from_fn(|i| center[i] + self.around(spread[i]))
    }

    /// A direction, uniform on the sphere.
    pub(crate) fn direction(&mut self) -> [f32; 3] {
        loop {
            let v = self.near([0.0; 3], [1.0; 3]);
            let length = v.iter().map(|c| c * c).sum::<f32>().sqrt();
            if (0.1..=1.0).contains(&length) {
                return v.map(|c| c / length);
            }
        }
    }

    /// True with the given probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.0.random::<f32>() < probability
    }

    /// An integer in `low..=high`.
    pub(crate) fn count(&mut self, low: usize, high: usize) -> usize {
        self.0.random_range(low..=high)
    }

    /// Nearly Gaussian noise, mean 0 and standard deviation 1: the sum of a word's four bytes. It is filtered afterwards,
    /// which makes it Gaussian, and it costs a tenth of Box-Muller.
    pub(crate) fn noise(&mut self) -> f32 {
        let sum: u32 = self.0.random::<u32>().to_le_bytes().iter().map(|&b| u32::from(b)).sum();
        (sum as f32 - 510.0) / 147.8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_mean_zero_and_unit_deviation() {
        let mut draw = Draw::stream(1, "noise");
        let values: Vec<f32> = (0..100_000).map(|_| draw.noise()).collect();
        let mean = values.iter().sum::<f32>() / 1e5;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }

    #[test]
    fn streams_of_other_names_and_seeds_differ() {
        let first = |seed, name| Draw::stream(seed, name).within(0.0, 1.0);
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
    }
}
