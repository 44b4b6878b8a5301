//! The model on its way to other programs, and adapters back from a file.

use crate::groups::{BUFFER, LORA};
use std::collections::BTreeMap;
use std::path::Path;

use stage_api::{Adapters, MaskChoice, Mode, NamedTensor, Precision, Segmenter};
use tch::{Device, Kind, Tensor};

use super::SamSegmenter;
use crate::checkpoint::{self, AdapterRecord, Record, StateFile, Weights};
use crate::encoder::{ImageEncoder, Pass};
use crate::error::WeightsError;
use crate::lora_target::LoraTarget;
use crate::preparation::prepare;
use crate::prompt_encoder::CAM_EMBEDDING;
use crate::settings::{EncoderPart, SegmenterSettings};

/// Entries for other readers in the metadata of a file that is written, for example the CT window.
pub type Notes = BTreeMap<String, String>;

impl SamSegmenter {
    /// Writes the adapters alone as safetensors, tens of thousands of numbers beside millions, with a record of the
    /// model that they belong to.
    ///
    /// # Errors
    /// If the model has no adapters, or the file cannot be written.
    pub fn save_adapters(&self, path: &Path, notes: &Notes) -> Result<(), WeightsError> {
        let adapters = self.tensors.iter().filter(|t| t.group == LORA);
        let adapters: Vec<_> = adapters.map(|t| (t.name.clone(), t.tensor.shallow_clone())).collect();
        if adapters.is_empty() {
            return Err(WeightsError::Settings("the model has no adapters to save (`lora_rank` is 0)".into()));
        }
        checkpoint::write_safetensors(
            path,
            &adapters,
            &Record { notes: self.description(notes), ..self.adapter_record() },
        )
    }

    /// Replaces the adapters' values by those of a file that [`Self::save_adapters`] wrote for the same weights.
    ///
    /// # Errors
    /// If the file's record or tensors are not exactly those of this model's adapters: all differences are listed, and
    /// nothing is changed.
    pub fn load_adapters(&mut self, path: &Path) -> Result<(), WeightsError> {
        let file = StateFile::open(path)?;
        let differences =
            self.adapter_record().differences(file.record()).ok_or_else(|| WeightsError::no_adapters(path))?;
        let mut file = Weights::new(file, Device::Cpu);
        for difference in differences {
            file.problem(difference);
        }
        let adapters: Vec<&NamedTensor> = self.tensors.iter().filter(|t| t.group == LORA).collect();
        let values: Vec<Tensor> = adapters.iter().map(|t| file.take(&t.name, &t.tensor.size(), BUFFER)).collect();
        file.finish()?;
        tch::no_grad(|| adapters.iter().zip(&values).try_for_each(|(t, value)| t.tensor.shallow_clone().f_copy_(value)))
            .map_err(WeightsError::torch(path))
    }

    fn record(&self, notes: &Notes) -> Record {
        Record {
            family: Some(self.architecture.family),
            input_size: Some(self.architecture.input_size),
            adapters: None,
            notes: self.description(notes),
        }
    }

    /// What a reader without this program needs to know, and `notes`.
    pub(crate) fn description(&self, notes: &Notes) -> Notes {
        let own = [
            ("family", self.architecture.family.name().to_owned()),
            ("architecture", self.architecture.encoder.name()),
            ("input_size", self.architecture.input_size.to_string()),
            ("normalization", self.architecture.family.normalization().name().to_owned()),
            ("masks", mask_choice_name(self.default_choice()).to_owned()),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
        own.chain(notes.iter().map(|(key, value)| (key.clone(), value.clone()))).collect()
    }

    fn adapter_record(&self) -> Record {
        let settings = &self.settings;
        let adapters = AdapterRecord {
            architecture: self.architecture.encoder.name(),
            rank: settings.lora_rank,
            targets: LoraTarget::ALL.into_iter().filter(|t| settings.lora_targets.contains(t)).collect(),
            alpha: settings.lora_alpha,
            base_sha256: self.weights_sha256.clone(),
        };
        Record { adapters: Some(adapters), ..self.record(&Notes::new()) }
    }

    /// The whole model under the official names, the adapters added into the weights that have them, a ViT's positions for
    /// the input size that the model has.
    ///
    /// The learned vector of [`DensePrompt::Embedding`](crate::DensePrompt::Embedding) has no place in that format.
    pub fn merged_state(&self) -> Vec<(String, Tensor)> {
        let adapted = tch::no_grad(|| self.encoder.merged_weights());
        let own = self.tensors.iter().filter(|t| t.group != LORA && t.name != CAM_EMBEDDING);
        own.map(|t| {
            let adapted = adapted.iter().find(|(name, _)| *name == t.name).map(|(_, merged)| merged.shallow_clone());
            let changed = adapted.or_else(|| ImageEncoder::resized(&t.name, &t.tensor, &self.architecture));
            (t.name.clone(), changed.unwrap_or_else(|| t.tensor.shallow_clone()).detach())
        })
        .collect()
    }

    /// Whether the model has learnt something that [`Self::merged_state`] leaves out.
    pub fn has_trained_cam_vector(&self) -> bool {
        let vector = self.tensors.iter().find(|t| t.name == CAM_EMBEDDING);
        vector.is_some_and(|t| t.tensor.abs().max().double_value(&[]) > 0.0)
    }

    /// Writes [`Self::merged_state`] as safetensors, which [`Self::load`] reads with rank 0 to the same model.
    pub fn save_merged(&self, path: &Path, notes: &Notes) -> Result<(), WeightsError> {
        checkpoint::write_safetensors(path, &self.merged_state(), &self.record(notes))
    }

    /// The same model on the CPU, its adapters in its weights, in 32-bit floats, with nothing that asks for gradients.
    pub(crate) fn frozen_twin(&self) -> Result<Self, WeightsError> {
        let settings = SegmenterSettings {
            family: Some(self.architecture.family),
            input_size: Some(self.architecture.input_size),
            encoder: EncoderPart::Adapters,
            lora_rank: 0,
            precision: Precision::F32,
            masks: Some(self.default_choice()),
            ..self.settings.clone()
        };
        let state = StateFile::of_model(
            Path::new("the model"),
            self.merged_state(),
            &self.weights_sha256,
            self.record(&Notes::new()),
        );
        let twin = Self::build(state, &settings, Device::Cpu)?;
        let vector =
            |model: &Self| model.tensors.iter().find(|t| t.name == CAM_EMBEDDING).map(|t| t.tensor.shallow_clone());
        if let (Some(mut own), Some(vector)) = (vector(&twin), vector(self)) {
            tch::no_grad(|| own.copy_(&vector));
        }
        for t in &twin.tensors {
            let _ = t.tensor.set_requires_grad(false);
        }
        Ok(twin)
    }

    /// `[1, 1, S, S]` in `[0, 1]` to the embedding, for tracing.
    pub(crate) fn encode_traced(&self, slice: &Tensor) -> Tensor {
        let pass = Pass { adapters: Adapters::Off, mode: Mode::Eval };
        self.encoder.forward(&self.encoder.features(&prepare(slice, &self.architecture)), pass).embedding
    }

    /// `[1, 256, g, g]` and boxes `[P, 4]` in pixels of the input to logits `[P, M, 4g, 4g]` and scores `[P, M]`.
    pub(crate) fn decode_traced(&self, embedding: &Tensor, boxes: &Tensor, cam_mask: Option<&Tensor>) -> [Tensor; 2] {
        let prompts = self.prompt_encoder.forward_traced(boxes, cam_mask);
        let image = embedding.index_select(0, &boxes.select(1, 0).zeros_like().to_kind(Kind::Int64));
        let choice = self.default_choice();
        self.decoder.forward_traced(&image, &self.grid_encoding, &prompts, choice).into()
    }
}

/// As in configurations.
fn mask_choice_name(choice: MaskChoice) -> &'static str {
    match choice {
        MaskChoice::Single => "single",
        MaskChoice::Three => "three",
    }
}
