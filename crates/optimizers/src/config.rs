//! `[optimizer]`.

use crate::patterns::matches;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The optimiser and its learning rates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Which one.
    pub kind: OptimizerKind,
    /// Learning rates by the name of the parameters' group (`classifier`, `lora`, `prompt_encoder`, `decoder`; another stage has
    /// its own), or by a pattern of names; the longest that fits counts.
    #[serde(deserialize_with = "over_default")]
    pub lr: BTreeMap<String, f64>,
    /// Weight decay, on everything but biases and normalisation: decoupled in `adamw`, added to the gradient in the others.
    pub weight_decay: f64,
    /// Exponential decay of the two moments of `adamw` and `adam`.
    pub betas: [f64; 2],
    /// Momentum of `sgd`.
    pub momentum: f64,
    /// Whether `sgd` looks ahead.
    pub nesterov: bool,
    /// The schedule of each group over the steps in which it is trained.
    pub schedule: Schedule,
    /// Updates of linear warm-up of each group.
    pub warmup_steps: usize,
    /// Steps whose mean gradient makes one update.
    pub accumulate_steps: usize,
    /// The longest gradient, by the norm over all that an update trains; 0: any.
    pub clip_norm: f64,
    /// Decay of the weights' average, which validation and prediction then use; 0: there is none.
    pub ema_decay: f64,
    /// Patterns of names of parameters that don't learn.
    pub freeze: Vec<String>,
    /// Factors of the learning rates of the parameters whose names fit a pattern; several multiply.
    pub lr_scale: BTreeMap<String, f64>,
}

impl OptimizerConfig {
    /// The learning rate of a group.
    pub fn rate(&self, group: &str) -> f64 {
        let fitting = self.lr.iter().filter(|(pattern, _)| matches(pattern, group));
        fitting.max_by_key(|(pattern, _)| pattern.len()).map_or(0.0, |(_, rate)| *rate)
    }
}

fn default_rates() -> BTreeMap<String, f64> {
    [("classifier", 1e-3), ("lora", 1e-3), ("*", 1e-4)].map(|(name, rate)| (name.to_owned(), rate)).into()
}

/// Groups that are left out keep their default.
fn over_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let mut all = default_rates();
    all.extend(BTreeMap::<String, f64>::deserialize(deserializer)?);
    Ok(all)
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            lr: default_rates(),
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            momentum: 0.9,
            nesterov: false,
            schedule: Schedule::Cosine,
            warmup_steps: 20,
            accumulate_steps: 1,
            clip_norm: 0.0,
            ema_decay: 0.0,
            freeze: Vec::new(),
            lr_scale: BTreeMap::new(),
        }
    }
}

/// Which optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam (Kingma & Ba, 2015) with decoupled weight decay (Loshchilov & Hutter, 2019).
    AdamW,
    /// Adam, whose weight decay is added to the gradient.
    Adam,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

/// A learning rate's course after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// No change.
    Constant,
    /// Half a cosine down to 2 % at the last update.
    Cosine,
    /// `(1 − share)^0.9`, which would be 0 at the update after the last.
    Poly,
    /// Multiplied by `factor` after each `period` updates.
    Step {
        /// More than 0.
        factor: f64,
        /// Updates of the group.
        period: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_or_pattern_that_fits_a_group_decides_its_rate() {
        let config: OptimizerConfig = toml::from_str("lr = { \"unet.*\" = 3e-4, decoder = 2e-4 }").unwrap();
        let rates = ["classifier", "lora", "decoder", "prompt_encoder", "unet.down", "other"].map(|g| config.rate(g));
        assert_eq!(rates, [1e-3, 1e-3, 2e-4, 1e-4, 3e-4, 1e-4]);
    }
}
