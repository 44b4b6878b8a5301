#![doc = include_str!("../README.md")]

mod checkpoint;
mod encoder;
mod error;
mod layers;
mod mask_decoder;
mod prompt_encoder;
mod segmenter;
mod settings;
mod transformer;

pub use self::error::WeightsError;
pub use self::segmenter::SamSegmenter;
pub use self::settings::{DensePrompt, LoraInit, SegmenterSettings};
