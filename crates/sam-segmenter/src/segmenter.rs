//! The whole model behind the seam: slices and prompts in pixels of the slice, masks at the slice's size.

use std::collections::BTreeMap;
use std::path::Path;

use stage_api::{
    Adapters, Embedding, Features, Group, MaskChoice, Masks, Mode, NamedTensor, Precision, PromptedSegmenter, Prompts,
};
use tch::{Device, Kind, Tensor};

use crate::architecture::{EncoderArchitecture, Family, SamArchitecture};
use crate::checkpoint::{self, AdapterRecord, Record, Shapes, StateFile, Weights};
use crate::encoder::{ImageEncoder, Pass};
use crate::error::WeightsError;
use crate::mask_decoder::MaskDecoder;
use crate::preparation::{prepare, restore};
use crate::prompt_encoder::{CAM_EMBEDDING, PromptEncoder};
use crate::settings::{LoraTarget, SegmenterSettings};

/// Entries for other readers in the metadata of a file that is written, for example the CT window.
pub type Notes = BTreeMap<String, String>;

/// SAM with low-rank adapters in its encoder.
pub struct SamSegmenter {
    architecture: SamArchitecture,
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
    /// Builds the model that the tensors of a state dictionary (`.pth` or `.safetensors`) are of, and fills it.
    ///
    /// The encoder's own weights are frozen; adapters, prompt encoder and decoder ask for gradients.
    ///
    /// # Errors
    /// If the file cannot be read; if its family is neither stated nor known; if any tensor is missing, superfluous or of
    /// another shape: all are listed.
    pub fn load(weights: &Path, settings: &SegmenterSettings, device: Device) -> Result<Self, WeightsError> {
        settings.check().map_err(WeightsError::Settings)?;
        Self::build(StateFile::open(weights)?, settings, device)
    }

    pub(crate) fn build(file: StateFile, settings: &SegmenterSettings, device: Device) -> Result<Self, WeightsError> {
        let weights_sha256 = file.sha256().to_owned();
        let architecture = architecture(&file, settings)?;
        let mut weights = Weights::new(file, device);
        let encoder = ImageEncoder::take(&mut weights, &architecture, settings);
        let decoder = MaskDecoder::take(&mut weights);
        let prompt_encoder = PromptEncoder::take(&mut weights, &architecture, settings.dense_prompt);
        let tensors = weights.finish()?;
        let grid_encoding = tch::no_grad(|| prompt_encoder.grid_encoding());
        Ok(Self {
            architecture,
            encoder,
            prompt_encoder,
            decoder,
            grid_encoding,
            tensors,
            settings: settings.clone(),
            weights_sha256,
        })
    }

    /// Which SAM it is.
    pub fn architecture(&self) -> &SamArchitecture {
        &self.architecture
    }

    /// SHA-256 of the file of weights, in lower-case hexadecimal: what a run records of its frozen encoder.
    pub fn encoder_fingerprint(&self) -> &str {
        &self.weights_sha256
    }

    /// Writes the adapters alone as safetensors, tens of thousands of numbers beside millions, with a record of the
    /// model that they belong to.
    ///
    /// # Errors
    /// If the model has no adapters, or the file cannot be written.
    pub fn save_adapters(&self, path: &Path, notes: &Notes) -> Result<(), WeightsError> {
        let adapters = self.tensors.iter().filter(|t| t.group == Group::Lora);
        let adapters: Vec<_> = adapters.map(|t| (t.name.clone(), t.tensor.shallow_clone())).collect();
        if adapters.is_empty() {
            return Err(WeightsError::Settings("the model has no adapters to save (`lora_rank` is 0)".into()));
        }
        let record = Record { adapters: Some(self.adapter_record()), ..self.record(notes) };
        checkpoint::write_safetensors(path, &adapters, &record)
    }

    /// Replaces the adapters' values by those of a file that [`Self::save_adapters`] wrote for the same weights.
    ///
    /// # Errors
    /// If the file's record or tensors are not exactly those of this model's adapters: all differences are listed, and
    /// nothing is changed.
    pub fn load_adapters(&mut self, path: &Path) -> Result<(), WeightsError> {
        let file = StateFile::open(path)?;
        let Record { family, adapters: found, .. } = file.record().clone();
        let found = found.ok_or_else(|| WeightsError::no_adapters(path))?;
        let mut file = Weights::new(file, Device::Cpu);
        let own = self.architecture.family;
        if family != Some(own) {
            let family = family.map_or("unknown", Family::name);
            file.problem(format!("its adapters' family is {family}, expected {}", own.name()));
        }
        for difference in self.adapter_record().differences(&found) {
            file.problem(difference);
        }
        let adapters: Vec<&NamedTensor> = self.tensors.iter().filter(|t| t.group == Group::Lora).collect();
        let values: Vec<Tensor> =
            adapters.iter().map(|t| file.take(&t.name, &t.tensor.size(), Group::Buffer)).collect();
        file.finish()?;
        tch::no_grad(|| adapters.iter().zip(&values).try_for_each(|(t, value)| t.tensor.shallow_clone().f_copy_(value)))
            .map_err(WeightsError::torch(path))
    }

    fn record(&self, notes: &Notes) -> Record {
        Record { family: Some(self.architecture.family), adapters: None, notes: self.description(notes) }
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

    fn adapter_record(&self) -> AdapterRecord {
        let settings = &self.settings;
        AdapterRecord {
            architecture: self.architecture.encoder.name(),
            input_size: self.architecture.input_size,
            rank: settings.lora_rank,
            targets: LoraTarget::ALL.into_iter().filter(|t| settings.lora_targets.contains(t)).collect(),
            alpha: settings.lora_alpha,
            base_sha256: self.weights_sha256.clone(),
        }
    }

    /// The whole model under the official names, the adapters added into the weights that have them, a ViT's positions for
    /// the input size that the model has.
    ///
    /// The learned vector of [`DensePrompt::Embedding`](crate::DensePrompt::Embedding) has no place in that format.
    pub fn merged_state(&self) -> Vec<(String, Tensor)> {
        let adapted = tch::no_grad(|| self.encoder.merged_weights());
        let own = self.tensors.iter().filter(|t| t.group != Group::Lora && t.name != CAM_EMBEDDING);
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

    /// [`PromptedSegmenter::features`] of what the encoder itself wants to see, `[B, 1 or 3, S, S]`: to be compared with other
    /// implementations on the same numbers. One channel stands for three equal ones.
    pub fn features_of_input(&self, input: &Tensor) -> Features {
        let side = self.architecture.input_size as usize;
        Features { tensor: tch::no_grad(|| self.encoder.features(input)), slice_size: [side, side] }
    }

    /// What each layer of the encoder makes of the features, adapters on, without gradient: name and output, in order, to be
    /// compared with other implementations. Names and shapes are those of the official code's modules under `image_encoder`
    /// (`patch_embed` `[B, g, g, C]`, before positions are added; `blocks.N` `[B, g, g, C]`; `neck` `[B, 256, g, g]`).
    pub fn embed_by_layer(&self, features: &Features) -> Vec<(String, Tensor)> {
        let pass = Pass { adapters: Adapters::On, mode: Mode::Eval };
        tch::no_grad(|| self.encoder.by_layer(&features.tensor, pass))
    }

    /// The same model on the CPU, its adapters in its weights, in 32-bit floats, with nothing that asks for gradients.
    pub(crate) fn frozen_twin(&self) -> Result<Self, WeightsError> {
        let settings = SegmenterSettings {
            family: Some(self.architecture.family),
            input_size: Some(self.architecture.input_size),
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

    /// The settings that the model was built with.
    pub fn settings(&self) -> &SegmenterSettings {
        &self.settings
    }
}

impl PromptedSegmenter for SamSegmenter {
    fn features(&self, slices: &Tensor) -> Features {
        let (_, _, height, width) = slices.size4().expect("slices are [B, 1, H, W]");
        let tensor = tch::no_grad(|| self.encoder.features(&prepare(slices, &self.architecture)));
        Features { tensor, slice_size: [height as usize, width as usize] }
    }

    fn embed(&self, features: &Features, adapters: Adapters, mode: Mode) -> Embedding {
        let forward = || self.encoder.forward(&features.tensor, Pass { adapters, mode });
        let encoded = match mode {
            Mode::Train => forward(),
            Mode::Eval => tch::no_grad(forward),
        };
        Embedding { tensor: encoded.embedding, slice_size: features.slice_size, rest: encoded.rest }
    }

    fn decode(&self, embedding: &Embedding, prompts: &Prompts, choice: MaskChoice) -> Masks {
        let images = images_of_objects(prompts, embedding.tensor.size()[0]);
        let encoded = self.prompt_encoder.forward(prompts, images.len() as i64, embedding.slice_size);
        let (logits, scores) = self.decoder.forward(&embedding.tensor, &images, &self.grid_encoding, &encoded, choice);
        Masks { logits: restore(&logits, embedding.slice_size, self.architecture.input_size), scores }
    }

    fn default_choice(&self) -> MaskChoice {
        self.settings.masks.unwrap_or(self.architecture.family.masks())
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let copy =
            |t: &NamedTensor| NamedTensor { name: t.name.clone(), group: t.group, tensor: t.tensor.shallow_clone() };
        self.tensors.iter().map(copy).collect()
    }
}

/// For each object the image that it is in, of so many.
///
/// # Panics
/// If the prompts don't agree on how many objects there are, or an image is not there.
fn images_of_objects(prompts: &Prompts, batch: i64) -> Vec<i64> {
    let images: Vec<i64> = match &prompts.slices {
        Some(slices) => slices.iter().map(|&i| i as i64).collect(),
        None => (0..batch).collect(),
    };
    if let Some(image) = images.iter().find(|&&image| image >= batch) {
        panic!("an object is in slice {image}, but the embedding is of {batch} slices");
    }
    let rows = |tensor: &Tensor| tensor.size()[0];
    let counts = [
        ("boxes", prompts.boxes.as_ref().map(|boxes| boxes.len() as i64)),
        ("rows of points", prompts.points.as_ref().map(|(points, _)| rows(points))),
        ("rows of points' labels", prompts.points.as_ref().map(|(_, labels)| rows(labels))),
        ("CAM masks", prompts.cam_mask.as_ref().map(rows)),
        ("mask inputs", prompts.mask_logits.as_ref().map(rows)),
    ];
    let objects = images.len() as i64;
    let whence = if prompts.slices.is_some() { "the prompts' slices name" } else { "as many slices have" };
    for (what, count) in counts {
        assert!(
            count.is_none_or(|count| count == objects),
            "{} {what} for {objects} objects, which {whence}",
            count.unwrap_or_default()
        );
    }
    images
}

/// What the tensors are of, with the family as stated, as the file records it, or by its checksum.
fn architecture(file: &StateFile, settings: &SegmenterSettings) -> Result<SamArchitecture, WeightsError> {
    let path = file.path();
    let encoder = EncoderArchitecture::recognise(file.shapes())
        .ok_or_else(|| WeightsError::malformed(path, unknown_encoder(file.shapes())))?;
    let known = file.record().family.or_else(|| Family::of_file(file.sha256()));
    if let (Some(stated), Some(known)) = (settings.family, known)
        && stated != known
    {
        return Err(WeightsError::malformed(
            path,
            format!("it is a file of the family '{}', but '{}' was stated", known.name(), stated.name()),
        ));
    }
    let Some(family) = settings.family.or(known) else {
        let names: Vec<String> = encoder.families().iter().map(|f| format!("\"{}\"", f.name())).collect();
        return Err(WeightsError::UnknownFamily {
            path: path.to_owned(),
            encoder: encoder.name(),
            families: names.join(" or "),
            sha256: file.sha256().to_owned(),
        });
    };
    SamArchitecture::new(family, encoder, settings.input_size).map_err(|what| WeightsError::malformed(path, what))
}

/// As in configurations.
fn mask_choice_name(choice: MaskChoice) -> &'static str {
    match choice {
        MaskChoice::Single => "single",
        MaskChoice::Three => "three",
    }
}

fn unknown_encoder(shapes: &Shapes) -> String {
    let first: Vec<&str> = shapes.iter().map(|(name, _)| name).take(3).collect();
    format!(
        "its {} tensors (first: {}) are of no SAM that is known here: expected 'image_encoder.pos_embed' of a ViT or \
         'image_encoder.patch_embed.seq.2.c.weight' of a TinyViT",
        shapes.len(),
        first.join(", ")
    )
}
