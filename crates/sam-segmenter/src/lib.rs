#![doc = include_str!("../README.md")]

mod architecture;
mod checkpoint;
mod encoder;
mod error;
mod family;
pub mod groups;
mod layers;
mod lora_target;
mod mask_decoder;
mod preparation;
mod prompt_encoder;
mod segmenter;
mod settings;
mod torchscript;
mod tracing;
mod transformer;

pub use self::architecture::{EncoderArchitecture, SamArchitecture, TinyVitArchitecture, VitArchitecture};
pub use self::error::WeightsError;
pub use self::family::{Family, InputNormalization};
pub use self::lora_target::LoraTarget;
pub use self::segmenter::{Notes, SamSegmenter};
pub use self::settings::{DensePrompt, EncoderPart, LoraInit, Memory, SegmenterSettings};
pub use self::torchscript::{TORCHSCRIPT_DECODER, TORCHSCRIPT_ENCODER};
