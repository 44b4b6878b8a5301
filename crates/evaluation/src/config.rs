//! `[evaluation]`

use serde::{Deserialize, Serialize};

/// What evaluation compares with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Pixels by which the true box is enlarged for the oracle rows.
    pub oracle_margin_px: f32,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { oracle_margin_px: 3.0 }
    }
}
