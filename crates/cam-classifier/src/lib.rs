//! The classifier branch of SAM-Mix: a network says whether a slice contains the target, and its class activation map
//! becomes SAM's prompt (a box and a mask). Two of them: a ResNet on slices, as the paper has it, and a few convolutions on
//! the embedding that SAM's pretrained encoder makes of a slice.
//!
//! Invariant: a prompt is made of the image alone; no function here takes a mask or a label.

mod embedding;
mod groups;
mod norm;
mod prompt;
mod resnet;

pub use embedding::{EmbeddingClassifier, EmbeddingSettings};
pub use prompt::{CamPrompt, EmptyMap, PromptSettings, cam_prompt, cam_prompts};
pub use resnet::{BlockKind, ResNetClassifier, ResNetSettings, SettingsError};
