//! Wires the stages: loader (window, augmentation), training loop, checkpoints, evaluation, prediction.
//!
//! Invariants: the prediction path ([`predictor`]) takes no ground truth; one seed decides every random draw, whatever the
//! number of loader threads; no output is written in place.

pub mod annotator;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod loader;
pub mod plan;
pub mod planned;
pub mod prompts;
pub mod registry;
pub mod stopwatch;
pub mod train;

pub use optimizers::{average, optimizer, patterns, schedule};
