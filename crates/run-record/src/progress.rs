//! How far training is: a part of each checkpoint's `progress.json`.

use crate::{Part, Times};
use serde::{Deserialize, Serialize};

/// The place in the plan and what was found so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The place in the plan: steps that were done, or left out by a phase that ended early.
    pub steps: usize,
    /// Seconds of training so far.
    pub seconds: f64,
    /// The best validation Dice with CAM boxes, and after how many steps it was reached.
    pub best: Option<Best>,
    /// What each finished phase gave.
    pub phases: Vec<PhaseResult>,
    /// Seconds of the loop's parts, see [`Part`].
    #[serde(default)]
    pub times: Times,
    /// Training slices that went through a step, labelled ones included, crops not.
    #[serde(default)]
    pub slices: usize,
    /// The best validation Dice in the phase under way.
    #[serde(default)]
    pub phase_best: Option<f64>,
    /// Epochs of that phase since then.
    #[serde(default)]
    pub epochs_since_best: usize,
    /// Updates that were left out because a loss or a gradient was not finite.
    #[serde(default)]
    pub skipped_updates: usize,
    /// Those of them with which training arrived here.
    #[serde(default)]
    pub skipped_in_a_row: usize,
}

impl Progress {
    /// Training slices in a second, validation and waiting included.
    pub fn slices_per_second(&self) -> f64 {
        self.slices as f64 / self.seconds.max(f64::EPSILON)
    }

    /// The share of the time in which the loop waited for the loader, 0 to 1.
    pub fn wait_share(&self) -> f64 {
        self.times.of(Part::Wait) / self.seconds.max(f64::EPSILON)
    }
}

/// The best validation so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Mean Dice over the validation slices, CAM boxes.
    pub dice: f64,
    /// Steps that were done then.
    pub steps: usize,
}

/// What a phase gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseResult {
    /// Its name.
    pub name: String,
    /// Validation Dice (CAM boxes, all validation slices) at its end; absent where the segmenter was not trained.
    pub validation_dice: Option<f64>,
    /// Its duration in seconds.
    pub seconds: f64,
    /// Epochs until it ended; absent in records of older programs.
    #[serde(default)]
    pub epochs: Option<usize>,
}
