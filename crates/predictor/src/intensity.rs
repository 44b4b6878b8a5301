//! From HU to what the stages see.

use crate::config::{IntensityConfig, Normalization};
use crate::host::HostBatch;
use rayon::prelude::*;
use slice_store::{Slices, Window};
use tch::{Device, Tensor};

/// HU to the stages' intensities.
#[derive(Clone, Debug)]
pub struct Intensity(IntensityConfig);

impl Intensity {
    /// As configured.
    pub fn new(config: &IntensityConfig) -> Self {
        Self(config.clone())
    }

    /// The CT window.
    pub fn window(&self) -> Window {
        self.0.window
    }

    /// One intensity.
    pub fn of(&self, hu: f32) -> f32 {
        let window = self.0.window;
        match self.0.normalization {
            Normalization::Window => window.unit(hu),
            Normalization::Authors => {
                let clipped = hu.clamp(window.low(), window.high());
                half_precision((clipped + 3055.0) / 8866.0)
            }
        }
    }

    /// The window, as loops over pixels want it: its choice made before them, so that they are vector code.
    fn unit(&self) -> impl Fn(f32) -> f32 + use<> {
        let (low, width) = (self.0.window.low(), self.0.window.width);
        move |hu| ((hu - low) / width).clamp(0.0, 1.0)
    }

    /// A stored slice.
    pub fn stored(&self, hu: &[i16], to: &mut [f32]) {
        match self.0.normalization {
            Normalization::Window => {
                let unit = self.unit();
                to.iter_mut().zip(hu).for_each(|(to, &hu)| *to = unit(f32::from(hu)));
            }
            Normalization::Authors => to.iter_mut().zip(hu).for_each(|(to, &hu)| *to = self.of(f32::from(hu))),
        }
    }

    /// A slice that was changed, in place.
    pub fn changed(&self, hu: &mut [f32]) {
        let unit = self.unit();
        for v in hu {
            *v = match self.0.normalization {
                Normalization::Window => unit(*v),
                Normalization::Authors => self.of(*v),
            };
        }
    }

    /// A slice as a picture or a stage of one's own wants it.
    pub fn slice(&self, hu: &[i16]) -> Vec<f32> {
        let mut to = vec![0.0; hu.len()];
        self.stored(hu, &mut to);
        to
    }

    /// Rows of a store as `[n, 1, H, W]`.
    pub fn rows(&self, store: &Slices, rows: &[usize], device: Device) -> Tensor {
        let mut batch = HostBatch::new(rows.len(), store.slice_size(), device);
        batch.images().zip(rows).for_each(|(to, &row)| self.stored(store.image(row), to));
        batch.on(device)
    }
}

/// Rounds to 11 significant bits, as a half-precision float of normal range stores it.
fn half_precision(value: f32) -> f32 {
    let step = 2f32.powi(value.log2().floor() as i32 - 10);
    (value / step).round_ties_even() * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_normalisation_has_the_levels_of_their_script() {
        let authors =
            Intensity::new(&IntensityConfig { normalization: Normalization::Authors, ..IntensityConfig::default() });
        let mut levels: Vec<u32> = (-1024..=3071).map(|hu| authors.of(hu as f32).to_bits()).collect();
        levels.sort_unstable();
        levels.dedup();
        // The method's notes counted 186 distinct levels in 0.327–0.372.
        assert_eq!(levels.len(), 186);
        let bounds = [f32::from_bits(levels[0]), f32::from_bits(levels[185])];
        assert!((bounds[0] - 0.3265).abs() < 5e-4 && (bounds[1] - 0.3717).abs() < 5e-4, "{bounds:?}");
    }
}
