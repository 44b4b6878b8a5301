//! What determines a data set: with equal settings and version, every byte is equal.

use crate::error::PhantomError;
use serde::{Deserialize, Serialize};

/// The settings of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhantomSettings {
    /// Number of patients, 1 to 10,000.
    pub patients: usize,
    /// Slices of each patient, 8 to 512. The range covered stays the same, so more slices are thinner slices.
    pub slices: usize,
    /// Rows and columns of a slice, 64 to 1024.
    pub size: usize,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for PhantomSettings {
    fn default() -> Self {
        Self { patients: 14, slices: 28, size: 256, seed: 0 }
    }
}

impl PhantomSettings {
    /// Checks the ranges.
    pub fn check(&self) -> Result<(), PhantomError> {
        let ranges =
            [("patients", self.patients, 1, 10_000), ("slices", self.slices, 8, 512), ("size", self.size, 64, 1024)];
        for (setting, found, low, high) in ranges {
            if !(low..=high).contains(&found) {
                return Err(PhantomError::OutOfRange { setting, found, low, high });
            }
        }
        Ok(())
    }
}
