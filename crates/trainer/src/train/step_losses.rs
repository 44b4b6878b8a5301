//! What a step gave.

use stage_api::Embedding;
use tch::Tensor;

/// What a step gave; a part that it didn't have is absent. Numbers are of the whole step, tensors of this rank's share.
pub(super) struct StepLosses {
    pub total: Option<Tensor>,
    /// Whether the whole of it is.
    pub finite: bool,
    pub classifier: Option<f64>,
    pub segmentation: Option<f64>,
    pub score: Option<f64>,
    /// What the encoder made of the labelled slices: after the backward pass the gradient goes on from there.
    pub embeddings: Vec<Embedding>,
}
