//! Settings of the network, by hand or by a plan.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::settings::{demand, each_within};

/// Settings of [`super::NnUNet`]; by default those of a plan for slices of 256².
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NnUNetSettings {
    /// Channels of 2 to 10 stages, from full resolution downwards, 1 to 2048 each.
    pub features: Vec<i64>,
    /// For each stage, by how much its first convolution makes rows and columns fewer, 1 or 2; the first stage has `[1, 1]`.
    pub strides: Vec<[i64; 2]>,
    /// For each stage, rows and columns of its kernels, 1 or 3.
    pub kernels: Vec<[i64; 2]>,
    /// Rows and columns of the tiles that inference goes by: multiples of all strides together, up to 4096.
    pub patch: [i64; 2],
    /// Whether inference takes the mean over the slice and its three mirrored copies.
    pub mirrored: bool,
}

impl Default for NnUNetSettings {
    fn default() -> Self {
        let below = |first: [i64; 2], others| std::iter::once(first).chain(std::iter::repeat_n(others, 6)).collect();
        Self {
            features: vec![32, 64, 128, 256, 512, 512, 512],
            strides: below([1, 1], [2, 2]),
            kernels: vec![[3, 3]; 7],
            patch: [256, 256],
            mirrored: true,
        }
    }
}

impl From<&Plan> for NnUNetSettings {
    fn from(plan: &Plan) -> Self {
        Self {
            features: plan.features.clone(),
            strides: plan.strides.clone(),
            kernels: plan.kernels.clone(),
            patch: plan.patch,
            mirrored: true,
        }
    }
}

impl NnUNetSettings {
    pub(super) fn check(&self) -> Result<()> {
        let stages = self.features.len();
        demand((2..=10).contains(&stages), "features", format_args!("a list of {stages}"), "2 to 10 stages")?;
        each_within("features", &self.features, &(1..=2048), "1 to 2048 channels each")?;
        for (key, pairs, values) in [("strides", &self.strides, [1, 2]), ("kernels", &self.kernels, [1, 3])] {
            let of = format!("{stages} pairs, as there are features");
            demand(pairs.len() == stages, key, format_args!("a list of {}", pairs.len()), &of)?;
            let holds = pairs.iter().flatten().all(|value| values.contains(value));
            demand(holds, key, format_args!("{pairs:?}"), &format!("{} or {} each", values[0], values[1]))?;
        }
        demand(self.strides[0] == [1, 1], "strides", format_args!("{:?}", self.strides), "[1, 1] as the first")?;
        let multiples = self.multiples();
        let fits = |(side, multiple): (&i64, i64)| (1..=4096).contains(side) && side % multiple == 0;
        let expected = format!("multiples of {multiples:?} (the strides' product), up to 4096");
        demand(self.patch.iter().zip(multiples).all(fits), "patch", format_args!("{:?}", self.patch), &expected)
    }

    /// By how many pixels rows and columns of the lowest resolution are apart.
    pub(super) fn multiples(&self) -> [i64; 2] {
        self.strides.iter().fold([1, 1], |[rows, columns], [r, c]| [rows * r, columns * c])
    }
}
