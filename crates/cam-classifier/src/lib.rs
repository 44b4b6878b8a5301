//! The classifier branch of SAM-Mix: a ResNet says whether a slice contains the target, and its class activation map
//! becomes SAM's prompt (a box and a mask).
//!
//! Invariant: a prompt is made of the image alone; no function here takes a mask or a label, but for the loss.

mod focal;
mod prompt;
mod resnet;

pub use focal::focal_loss;
pub use prompt::{CamPrompt, PromptSettings, cam_prompt, cam_prompts};
pub use resnet::{BlockKind, ResNetClassifier, ResNetSettings, SettingsError};
