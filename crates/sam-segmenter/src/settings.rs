//! How the segmenter is built: what is adapted, and what becomes of the prompts.

use std::path::Path;

use serde::{Deserialize, Serialize};
use stage_api::{MaskChoice, Precision};

use crate::checkpoint::StateFile;
use crate::error::WeightsError;
use crate::family::Family;
use crate::lora_target::LoraTarget;

/// Settings of [`SamSegmenter`](crate::SamSegmenter).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmenterSettings {
    /// What the file was trained as; `None` where its SHA-256 or its own record says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Side of the encoder's input in pixels; `None`: as the weights have it. A ViT's positions are resized to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<i64>,
    /// What training changes of the image encoder.
    pub encoder: EncoderPart,
    /// Rank of the adapters in the encoder; 0 for none.
    pub lora_rank: usize,
    /// The maps of every attention block that have adapters.
    pub lora_targets: Vec<LoraTarget>,
    /// α: what an adapter adds is multiplied by α / rank; `None`: by 1, as in SAMed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_alpha: Option<f64>,
    /// Share of an adapter's inputs that a training step leaves out.
    pub lora_dropout: f64,
    /// How the adapters' first factor is drawn; the second is zero.
    pub lora_init: LoraInit,
    /// What a training step keeps of the encoder's forward pass.
    pub memory: Memory,
    /// What becomes of [`Prompts::cam_mask`](stage_api::Prompts::cam_mask).
    pub dense_prompt: DensePrompt,
    /// Which masks [`default_choice`](stage_api::Segmenter::default_choice) names; `None` leaves it to the
    /// checkpoint's family. LiteMedSAM's decoder was trained with the single-mask token.
    #[serde(with = "mask_choice", skip_serializing_if = "Option::is_none")]
    pub masks: Option<MaskChoice>,
    /// In which numbers the encoder computes; the decoder, which is small, computes in 32-bit floats.
    pub precision: Precision,
    /// Seed of the adapters' random values.
    pub seed: u64,
}

impl SegmenterSettings {
    /// With the adapters that a file holds, for the encoder and input that they belong to; what is stated stays.
    ///
    /// # Errors
    /// If the file can't be read, or is not one that [`save_adapters`](crate::SamSegmenter::save_adapters) wrote.
    pub fn for_adapters(self, path: &Path) -> Result<Self, WeightsError> {
        let record = StateFile::open(path)?.record().clone();
        let adapters = record.adapters.ok_or_else(|| WeightsError::no_adapters(path))?;
        Ok(Self {
            family: self.family.or(record.family),
            input_size: self.input_size.or(record.input_size),
            lora_rank: adapters.rank,
            lora_targets: adapters.targets,
            lora_alpha: adapters.alpha,
            ..self
        })
    }

    /// The first value that makes no sense, with what was expected.
    pub fn check(&self) -> Result<(), String> {
        if self.encoder == EncoderPart::Whole && (self.lora_rank > 0 || self.memory != Memory::Keep) {
            return Err(format!(
                "`encoder` is \"whole\", which trains the encoder's own weights without adapters: expected `lora_rank = 0` (now {}) \
                 and `memory = \"keep\"`",
                self.lora_rank
            ));
        }
        if self.lora_rank > 0 && self.lora_targets.is_empty() {
            return Err(format!(
                "`lora_rank` is {}, but `lora_targets` is empty: rank 0 means no adapters",
                self.lora_rank
            ));
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return Err(format!("`lora_dropout` is {}, expected 0 or more, less than 1", self.lora_dropout));
        }
        if let Some(alpha) = self.lora_alpha.filter(|a| !a.is_finite() || *a <= 0.0) {
            return Err(format!("`lora_alpha` is {alpha}, expected a number above 0"));
        }
        Ok(())
    }
}

impl Default for SegmenterSettings {
    fn default() -> Self {
        Self {
            family: None,
            input_size: None,
            encoder: EncoderPart::Adapters,
            lora_rank: 8,
            lora_targets: vec![LoraTarget::Q, LoraTarget::V],
            lora_alpha: None,
            lora_dropout: 0.0,
            lora_init: LoraInit::Gaussian,
            memory: Memory::Keep,
            dense_prompt: DensePrompt::Embedding,
            masks: None,
            precision: Precision::F32,
            seed: 0,
        }
    }
}

/// What training changes of the image encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EncoderPart {
    /// The adapters; its own weights are frozen, and their first layers' results can be kept.
    Adapters,
    /// Its own weights, all of them; running statistics stay as the file has them. The pretrained encoder then is gone: no
    /// classifier can read its embeddings.
    Whole,
}

/// What a training step keeps of the encoder's forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// Everything that the backward pass needs.
    Keep,
    /// The input of each block; the backward pass computes the rest again.
    Recompute,
}

/// The distribution of the adapters' first factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoraInit {
    /// N(0, 0.01²).
    Gaussian,
    /// Kaiming uniform as PyTorch initialises linear layers and SAMed its adapters: U(±1/√width).
    Kaiming,
}

/// The way of the CAM's mask into the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DensePrompt {
    /// Averaged over the areas of the embedding grid's cells, times a learned 256-vector that starts at zero, and added
    /// to the image embedding beside SAM's own `no_mask_embed`.
    Embedding,
    /// Through SAM's mask input, as logits of `strength · (2 · mask − 1)`.
    MaskInput {
        /// The logit of a pixel inside the mask; outside it is the negative.
        strength: f32,
    },
    /// Not used.
    None,
}

/// [`MaskChoice`] in configuration files: `"single"` or `"three"`.
mod mask_choice {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use stage_api::MaskChoice;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Name {
        Single,
        Three,
    }

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(choice: &Option<MaskChoice>, serializer: S) -> Result<S::Ok, S::Error> {
        let name = choice.map(|choice| match choice {
            MaskChoice::Single => Name::Single,
            MaskChoice::Three => Name::Three,
        });
        name.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MaskChoice>, D::Error> {
        let name = Option::<Name>::deserialize(deserializer)?;
        Ok(name.map(|name| match name {
            Name::Single => MaskChoice::Single,
            Name::Three => MaskChoice::Three,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_and_read_by_their_names() {
        let settings = SegmenterSettings {
            lora_init: LoraInit::Kaiming,
            dense_prompt: DensePrompt::MaskInput { strength: 8.0 },
            masks: Some(MaskChoice::Three),
            ..SegmenterSettings::default()
        };
        let json = r#"{"encoder":"adapters","lora_rank":8,"lora_targets":["q","v"],"lora_dropout":0.0,"lora_init":"kaiming","memory":"keep","dense_prompt":{"mask-input":{"strength":8.0}},"masks":"three","precision":"f32","seed":0}"#;
        assert_eq!(serde_json::to_string(&settings).expect("plain data"), json);
        assert_eq!(serde_json::from_str::<SegmenterSettings>(json).expect("the same"), settings);
    }

    #[test]
    fn absent_keys_have_defaults_and_unknown_ones_are_errors() {
        let read = serde_json::from_str::<SegmenterSettings>;
        assert_eq!(read("{}").expect("all defaults"), SegmenterSettings::default());
        assert_eq!(read(r#"{"dense_prompt":"none"}"#).expect("a name").dense_prompt, DensePrompt::None);
        assert!(read(r#"{"lora_rang":4}"#).is_err());
    }
}
