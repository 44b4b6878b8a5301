#![doc = include_str!("../README.md")]

mod architecture;
mod checkpoint;
mod encoder;
mod error;
mod layers;
mod mask_decoder;
mod preparation;
mod prompt_encoder;
mod segmenter;
mod settings;
mod torchscript;
mod tracing;
mod transformer;

pub use self::architecture::{
    EncoderArchitecture, Family, InputNormalization, SamArchitecture, TinyVitArchitecture, VitArchitecture,
};
pub use self::error::WeightsError;
pub use self::segmenter::{Notes, SamSegmenter};
pub use self::settings::{DensePrompt, LoraInit, LoraTarget, Memory, SegmenterSettings};
pub use self::torchscript::{TORCHSCRIPT_DECODER, TORCHSCRIPT_ENCODER};
