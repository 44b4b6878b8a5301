//! Honest evaluation of a run: what counts are the CAM's own boxes over all slices of patients that training never saw.
//!
//! Invariant: true masks are compared with predictions and make the prompts of rows named `oracle`; nothing of them reaches a
//! prediction.

mod config;
mod evaluator;
mod native;
pub mod overlay;
mod pictures;
mod slice_result;
mod summary;
mod text;

pub use config::EvaluationConfig;
pub use evaluator::Evaluator;
pub use text::table;
