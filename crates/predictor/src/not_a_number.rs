//! Predictions that are no numbers. A comparison takes one for "no", so that a damaged model would find nothing anywhere, and say
//! nothing: they are errors.

use stage_api::NamedTensor;
use tch::Tensor;

/// What is predicted of a slice is not a number. What the slice is called is for the caller to say.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not a number (NaN): {cause}")]
pub struct NotANumber {
    /// The slice's place among those that were given, from 0.
    pub slice: usize,
    what: &'static str,
    cause: String,
}

impl NotANumber {
    /// Of a stage with these tensors, which saw this.
    pub(crate) fn new(slice: usize, what: &'static str, tensors: &[NamedTensor], input: &Tensor) -> Self {
        let cause = if let Some(damaged) = tensors.iter().find(|named| !is_finite(&named.tensor)) {
            format!(
                "the weights '{}' are not finite; take another checkpoint of the run, or train it anew",
                damaged.name
            )
        } else if is_finite(input) {
            "its input and the weights are finite, so the computation left the range of its numbers; compute with \
             precision \"f32\", or train anew with smaller learning rates"
                .to_owned()
        } else {
            "its input is not finite: what the encoder made of the slice, or the slice's intensities; compute with precision \
             \"f32\", or compare the pretrained weights with their source"
                .to_owned()
        };
        Self { slice, what, cause }
    }

    /// Of the same slice among more, of which so many come before those that it was one of.
    pub(crate) fn behind(self, before: usize) -> Self {
        Self { slice: before + self.slice, ..self }
    }
}

pub(crate) fn is_finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) == 1
}
