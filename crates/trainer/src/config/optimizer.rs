//! `[optimizer]`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The optimiser and its learning rates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Which one.
    pub kind: OptimizerKind,
    /// Learning rate of the classifier.
    pub classifier_lr: f64,
    /// Learning rate of prompt encoder and mask decoder.
    pub decoder_lr: f64,
    /// Learning rate of the adapters.
    pub lora_lr: f64,
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

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            classifier_lr: 1e-3,
            decoder_lr: 1e-4,
            lora_lr: 1e-3,
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
