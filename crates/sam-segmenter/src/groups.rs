//! The names under which configurations know the parts of a SAM.

use stage_api::Group;

/// The low-rank adapters in the image encoder.
pub const LORA: Group = Group::trainable("lora");
/// The image encoder's own parameters, where adapters are trained in their place.
pub const ENCODER: Group = Group::frozen("encoder");
/// The same, where they are trained themselves.
pub const TRAINED_ENCODER: Group = Group::trainable("encoder");
/// The prompt encoder, with the dense CAM prompt's vector.
pub const PROMPT_ENCODER: Group = Group::trainable("prompt_encoder");
/// The mask decoder.
pub const DECODER: Group = Group::trainable("decoder");
/// What no training changes and no optimiser would: running statistics, the random frequencies of positions.
pub const BUFFER: Group = Group::frozen("buffer");
