//! Wires the stages: loader (window, augmentation), training loop, checkpoints, evaluation, prediction.
//!
//! Invariants: the prediction path ([`predictor`]) takes no ground truth; one seed decides every random draw, whatever the
//! number of loader threads; no output is written in place.

pub mod average;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod device;
mod embedding_file;
pub mod evaluate;
pub mod export;
pub mod files;
pub mod loader;
pub mod losses;
pub mod memory;
pub mod metrics_log;
pub mod model;
pub mod optimizer;
pub mod overlay;
pub mod patterns;
pub mod plan;
pub mod predict;
pub mod predictor;
pub mod progress;
pub mod prompts;
pub mod registry;
pub mod rows;
pub mod run;
pub mod schedule;
pub mod tensorboard;
pub mod times;
pub mod train;
