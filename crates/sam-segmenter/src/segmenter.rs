//! The whole model behind the seam: slices and prompts in pixels of the slice, masks at the slice's size.

use std::path::Path;

use stage_api::{
    Adapters, Embedding, Features, Group, MaskChoice, Masks, Mode, NamedTensor, PromptedSegmenter, Prompts,
};
use tch::{Device, Tensor};

use crate::checkpoint::{self, Weights};
use crate::encoder::{INPUT_SIZE, ImageEncoder};
use crate::error::WeightsError;
use crate::mask_decoder::MaskDecoder;
use crate::prompt_encoder::{CAM_EMBEDDING, PromptEncoder};
use crate::settings::SegmenterSettings;

/// SAM with a TinyViT encoder, as LiteMedSAM has it, and low-rank adapters in the encoder.
pub struct SamSegmenter {
    encoder: ImageEncoder,
    prompt_encoder: PromptEncoder,
    decoder: MaskDecoder,
    /// The positional encoding of the embedding grid; nothing that can be trained enters into it.
    grid_encoding: Tensor,
    tensors: Vec<NamedTensor>,
    settings: SegmenterSettings,
    weights_sha256: String,
}

impl SamSegmenter {
    /// Builds the model and fills it from a LiteMedSAM state dictionary (`.pth` or `.safetensors`).
    ///
    /// The encoder's own weights are frozen; adapters, prompt encoder and decoder ask for gradients.
    ///
    /// # Errors
    /// If the file cannot be read, or if any tensor is missing, superfluous or of another shape; all are listed.
    pub fn load(weights: &Path, settings: &SegmenterSettings, device: Device) -> Result<Self, WeightsError> {
        let mut file = Weights::read(weights, device)?;
        let weights_sha256 = file.sha256().to_owned();
        let encoder = ImageEncoder::take(&mut file, settings);
        let decoder = MaskDecoder::take(&mut file);
        let prompt_encoder = PromptEncoder::take(&mut file, settings.dense_prompt);
        let tensors = file.finish()?;
        let grid_encoding = tch::no_grad(|| prompt_encoder.grid_encoding());
        Ok(Self {
            encoder,
            prompt_encoder,
            decoder,
            grid_encoding,
            tensors,
            settings: settings.clone(),
            weights_sha256,
        })
    }

    /// SHA-256 of the file of weights, in lower-case hexadecimal: what a run records of its frozen encoder.
    pub fn encoder_fingerprint(&self) -> &str {
        &self.weights_sha256
    }

    /// Writes the adapters alone as safetensors: tens of thousands of numbers beside millions.
    pub fn save_adapters(&self, path: &Path) -> Result<(), WeightsError> {
        let adapters = self.tensors.iter().filter(|t| t.group == Group::Lora);
        let adapters: Vec<_> = adapters.map(|t| (t.name.clone(), t.tensor.shallow_clone())).collect();
        checkpoint::write_safetensors(path, &adapters)
    }

    /// Replaces the adapters' values by those of a file that [`Self::save_adapters`] wrote for the same rank.
    ///
    /// # Errors
    /// If the file's tensors are not exactly this model's adapters; then nothing is changed.
    pub fn load_adapters(&mut self, path: &Path) -> Result<(), WeightsError> {
        let mut file = Weights::read(path, Device::Cpu)?;
        let adapters: Vec<&NamedTensor> = self.tensors.iter().filter(|t| t.group == Group::Lora).collect();
        let values: Vec<Tensor> =
            adapters.iter().map(|t| file.take(&t.name, &t.tensor.size(), Group::Buffer)).collect();
        file.finish()?;
        tch::no_grad(|| adapters.iter().zip(&values).try_for_each(|(t, value)| t.tensor.shallow_clone().f_copy_(value)))
            .map_err(WeightsError::torch(path))
    }

    /// The whole model under LiteMedSAM's own names, the adapters added into the weights of q and v.
    ///
    /// The learned vector of [`DensePrompt::Embedding`](crate::DensePrompt::Embedding) has no place in that format.
    pub fn merged_state(&self) -> Vec<(String, Tensor)> {
        let adapted = tch::no_grad(|| self.encoder.adapted_weights());
        let own = self.tensors.iter().filter(|t| t.group != Group::Lora && t.name != CAM_EMBEDDING);
        own.map(|t| {
            let adapted = adapted.iter().find(|(name, _)| *name == t.name);
            (t.name.clone(), adapted.map_or(&t.tensor, |(_, merged)| merged).detach())
        })
        .collect()
    }

    /// Writes [`Self::merged_state`] as safetensors, which [`Self::load`] reads with rank 0 to the same model.
    pub fn save_merged(&self, path: &Path) -> Result<(), WeightsError> {
        checkpoint::write_safetensors(path, &self.merged_state())
    }

    /// The settings that the model was built with.
    pub fn settings(&self) -> &SegmenterSettings {
        &self.settings
    }
}

impl PromptedSegmenter for SamSegmenter {
    fn features(&self, slices: &Tensor) -> Features {
        let slice_size = slices.size()[3] as usize;
        Features { tensor: tch::no_grad(|| self.encoder.features(&prepare(slices))), slice_size }
    }

    fn embed(&self, features: &Features, adapters: Adapters, mode: Mode) -> Embedding {
        let forward = || self.encoder.forward(&features.tensor, adapters);
        let tensor = match mode {
            Mode::Train => forward(),
            Mode::Eval => tch::no_grad(forward),
        };
        Embedding { tensor, slice_size: features.slice_size }
    }

    fn decode(&self, embedding: &Embedding, prompts: &Prompts, choice: MaskChoice) -> Masks {
        let batch = embedding.tensor.size()[0];
        let encoded = self.prompt_encoder.forward(prompts, batch, embedding.slice_size);
        let (logits, scores) = self.decoder.forward(&embedding.tensor, &self.grid_encoding, &encoded, choice);
        let size = embedding.slice_size as i64;
        let logits =
            if size == INPUT_SIZE { logits } else { logits.upsample_bilinear2d([size, size], false, None, None) };
        Masks { logits, scores }
    }

    fn default_choice(&self) -> MaskChoice {
        self.settings.masks.unwrap_or(MaskChoice::Single)
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let copy =
            |t: &NamedTensor| NamedTensor { name: t.name.clone(), group: t.group, tensor: t.tensor.shallow_clone() };
        self.tensors.iter().map(copy).collect()
    }
}

/// LiteMedSAM's preparation: the encoder's input size, then each slice stretched from its own range to `[0, 1]`.
///
/// A constant slice becomes zero.
fn prepare(slices: &Tensor) -> Tensor {
    let size = INPUT_SIZE;
    let slices = match slices.size()[2..] {
        [h, w] if (h, w) == (size, size) => slices.shallow_clone(),
        _ => slices.internal_upsample_bilinear2d_aa([size, size], false, None, None),
    };
    let low = slices.amin([1, 2, 3], true);
    let range = (slices.amax([1, 2, 3], true) - &low).clamp_min(1e-8);
    (slices - low) / range
}
