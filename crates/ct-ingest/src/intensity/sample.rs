//! What an image's values are like: quantiles and shares of a sample of them.

use crate::Voxels;

/// Voxels that are looked at; all of a smaller image's. A share of half a percent then is known to a tenth of it.
const MOST: usize = 1 << 16;

/// Below it lies no tissue and no air, but what stands outside of the scanned circle.
const PADDING_BELOW: f64 = -1300.0;

/// The least share of an image's voxels that have exactly the same value if that is padding.
const PADDING_HEAP: f64 = 0.001;

/// Numbers of an image in order, those of its padding left out.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    values: Vec<f64>,
    /// How many at the beginning are padding.
    padding: usize,
}

impl Sample {
    /// Of an image that has two different values at least; what is not a number, or infinite, is left out.
    pub fn of(voxels: &Voxels) -> Self {
        let count = voxels.len();
        let value = |index: usize| voxels.get(index);
        let values: Vec<f64> = if count <= MOST {
            (0..count).map(value).collect()
        } else {
            // Multiples of the golden ratio lie evenly and keep step with no row and no slice.
            let place = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (0..MOST).map(|i| value(((u128::from(place(i)) * count as u128) >> 64) as usize)).collect()
        };
        Self::new(values.into_iter().filter(|value| value.is_finite()).collect())
    }

    fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let mut sample = Self { values, padding: 0 };
        // One value outside of the circle, and one outside of what was rotated or joined.
        for _ in 0..2 {
            let rest = &sample.values[sample.padding..];
            let Some(&least) = rest.first().filter(|value| **value < PADDING_BELOW) else { break };
            let heap = rest.partition_point(|&value| value == least);
            if heap < rest.len() && heap > 1 && heap as f64 >= PADDING_HEAP * sample.values.len() as f64 {
                sample.padding += heap;
            }
        }
        // Air of a noiseless scan, in other units, is heaped in the same way; but padding surrounds tissue.
        let large = sample.padding as f64 > 0.3 * sample.values.len() as f64;
        if large && sample.share(-200.0, 300.0) < 0.3 {
            sample.padding = 0;
        }
        sample
    }

    /// The same image with `value * slope + intercept` in the place of each value; the slope is above 0.
    pub fn rescaled(&self, slope: f64, intercept: f64) -> Self {
        Self::new(self.values.iter().map(|value| value * slope + intercept).collect())
    }

    fn of_image(&self) -> &[f64] {
        &self.values[self.padding..]
    }

    /// The value that `share` of the values are below.
    pub fn quantile(&self, share: f64) -> f64 {
        let values = self.of_image();
        let at = (share * values.len() as f64) as usize;
        values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    /// The share of values from `low` to `high`.
    pub fn share(&self, low: f64, high: f64) -> f64 {
        let values = self.of_image();
        let below = |limit: f64| values.partition_point(|&value| value < limit);
        let through = values.partition_point(|&value| value <= high);
        through.saturating_sub(below(low)) as f64 / values.len().max(1) as f64
    }

    /// Mean and standard deviation.
    pub fn moments(&self) -> [f64; 2] {
        let values = self.of_image();
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        [mean, variance.sqrt()]
    }

    /// Least and largest, padding included.
    pub fn range(&self) -> [f64; 2] {
        [self.values.first(), self.values.last()].map(|value| value.copied().unwrap_or(f64::NAN))
    }
}
