//! Where the time of training goes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A part of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Waiting for the loader.
    Wait,
    /// The host's share of copies to the device. The loader makes them while a step runs: not a part of its time.
    Copy,
    /// The classifier's forward pass and loss.
    Classifier,
    /// The encoder's forward pass, where its result was not kept.
    Encoder,
    /// Prompt, decoder and segmentation loss.
    Decoder,
    /// Gradients of all of it.
    Backward,
    /// Clipping, optimiser and the weights' average.
    Update,
    /// Validation at the end of epochs.
    Validation,
    /// Saving checkpoints.
    Checkpoint,
}

/// Seconds by part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Times(BTreeMap<Part, f64>);

impl Times {
    /// So many more seconds were spent on `part`.
    pub fn add(&mut self, part: Part, seconds: f64) {
        *self.0.entry(part).or_default() += seconds;
    }

    /// Seconds spent on `part`.
    pub fn of(&self, part: Part) -> f64 {
        self.0.get(&part).copied().unwrap_or(0.0)
    }
}

/// A line for each part, with its share of all parts.
impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: f64 = self.0.iter().filter(|(part, _)| **part != Part::Copy).map(|(_, seconds)| seconds).sum();
        for (part, seconds) in &self.0 {
            write!(f, "{:<12}{seconds:>10.1} s ", format!("{part:?}"))?;
            match part {
                Part::Copy => writeln!(f, "  beside the loop")?,
                _ => writeln!(f, "{:>5.1} %", 100.0 * seconds / all)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_listed_in_the_order_of_a_step_with_their_shares() {
        let times: Times = serde_json::from_str(r#"{"backward": 30.0, "copy": 5.0, "wait": 10.0}"#).unwrap();
        assert_eq!(
            times.to_string(),
            "Wait              10.0 s  25.0 %\nCopy               5.0 s   beside the loop\nBackward          30.0 s  75.0 %\n"
        );
        assert_eq!((times.of(Part::Wait), times.of(Part::Update)), (10.0, 0.0));
    }
}
