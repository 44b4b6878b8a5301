//! Networks that SAM-Mix is compared with. Each is a [`stage_api::SliceNetwork`]: it takes slices and no prompts.
//!
//! Invariant: names and shapes of the parameters are those of the reference that a test compares with, so that its weights can be read.

mod layers;
mod linear;
mod multi_mix;
pub mod nnunet;
mod settings;
mod trans_unet;
mod unet;

pub use multi_mix::{MultiMix, MultiMixSettings};
pub use nnunet::{NnUNet, NnUNetSettings};
pub use trans_unet::{TransUnet, TransUnetSettings};
pub use unet::{UNet, UNetNorm, UNetSettings};
