//! The whole model behind the seam: slices and prompts in pixels of the slice, masks at the slice's size.

mod export;
mod unknown;

use std::path::Path;

use stage_api::{Adapters, Embedding, Features, MaskChoice, Masks, Mode, NamedTensor, PromptKinds, Prompts, Segmenter};
use tch::{Device, Tensor};

use crate::architecture::{EMBEDDING, EncoderArchitecture, SamArchitecture};
use crate::checkpoint::{Place, StateFile, Weights};
use crate::encoder::{ImageEncoder, Pass};
use crate::error::WeightsError;
use crate::family::Family;
use crate::groups::{LORA, TRAINED_ENCODER};
use crate::mask_decoder::MaskDecoder;
use crate::preparation::{prepare, restore};
use crate::prompt_encoder::PromptEncoder;
use crate::settings::{DensePrompt, EncoderPart, SegmenterSettings};

pub use self::export::Notes;
use self::unknown::unknown_encoder;

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
    place: Place,
}

impl SamSegmenter {
    /// Builds the model that the tensors of a state dictionary (`.pth` or `.safetensors`) are of, and fills it.
    ///
    /// Adapters, prompt encoder and decoder ask for gradients; the encoder's own weights do if the settings say so, and are frozen else.
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
        let place = file.place().clone();
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
            place,
        })
    }

    /// Which SAM it is.
    pub fn architecture(&self) -> &SamArchitecture {
        &self.architecture
    }

    /// Where in the file of weights the tensors were, and what was taken off their names; `None` where they stood alone,
    /// under the model's names. For a note to the user.
    pub fn read_from(&self) -> Option<String> {
        let place = self.place.to_string();
        (!place.is_empty()).then(|| format!("the weights were read{place}"))
    }

    /// [`Segmenter::features`] of what the encoder itself wants to see, `[B, 1 or 3, S, S]`: to be compared with other
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

    /// The settings that the model was built with.
    pub fn settings(&self) -> &SegmenterSettings {
        &self.settings
    }
}

impl Segmenter for SamSegmenter {
    fn prompts(&self) -> PromptKinds {
        if self.settings.dense_prompt == DensePrompt::None { PromptKinds::Box } else { PromptKinds::BoxAndMask }
    }

    fn features(&self, slices: &Tensor) -> Features {
        let (_, _, height, width) = slices.size4().expect("slices are [B, 1, H, W]");
        let tensor = tch::no_grad(|| self.encoder.features(&prepare(slices, &self.architecture)));
        Features { tensor, slice_size: [height as usize, width as usize] }
    }

    fn embed(&self, features: &Features, adapters: Adapters, mode: Mode) -> Embedding {
        let forward = || self.encoder.forward(&features.tensor, Pass { adapters, mode });
        let encoded = if mode.is_training() { forward() } else { tch::no_grad(forward) };
        Embedding { rest: encoded.rest, ..Embedding::new(encoded.embedding, features.slice_size) }
    }

    fn decode(&self, embedding: &Embedding, prompts: &Prompts, choice: MaskChoice) -> Masks {
        let images = images_of_objects(prompts, embedding.tensor.size()[0]);
        let encoded = self.prompt_encoder.forward(prompts, images.len() as i64, embedding.slice_size);
        let (logits, scores) = self.decoder.forward(&embedding.tensor, &images, &self.grid_encoding, &encoded, choice);
        let logits = restore(&logits, embedding.slice_size, self.architecture.input_size);
        Masks { logits, scores, coarser: Vec::new() }
    }

    fn default_choice(&self) -> MaskChoice {
        self.settings.masks.unwrap_or(self.architecture.family.masks())
    }

    fn is_adapted(&self) -> bool {
        // `A` is random from the start, `B` is 0 until it is trained.
        let mut second = self.tensors.iter().filter(|t| is_second_factor(t));
        second.any(|t| bool::try_from(t.tensor.ne(0.0).any()).unwrap_or(true))
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let copy =
            |t: &NamedTensor| NamedTensor { name: t.name.clone(), group: t.group, tensor: t.tensor.shallow_clone() };
        self.tensors.iter().map(copy).collect()
    }

    fn encoder_groups(&self) -> &'static [&'static str] {
        &[LORA.name, TRAINED_ENCODER.name]
    }

    fn embedding_shape(&self) -> Option<[i64; 3]> {
        let grid = self.architecture.grid();
        (self.settings.encoder == EncoderPart::Adapters).then_some([EMBEDDING, grid, grid])
    }

    fn pretrained_sha256(&self) -> Option<&str> {
        Some(&self.weights_sha256)
    }

    fn encoder_identity(&self) -> Option<String> {
        let SegmenterSettings { encoder, family, input_size, precision, .. } = &self.settings;
        let identity = || format!("{} {family:?} {input_size:?} {precision:?}", self.weights_sha256);
        (*encoder == EncoderPart::Adapters).then(identity)
    }

    /// The adapters, without effect in every new model, are interpolated by what they do, `W + share · s · B · A`: for that, `B`
    /// alone is scaled. Prompt encoder and decoder go value by value.
    ///
    /// # Panics
    /// If the values are of another model.
    fn interpolate(&self, pretrained: &[Tensor], share: f64) {
        assert_eq!(trainable(&self.tensors).count(), pretrained.len(), "values of another model");
        tch::no_grad(|| {
            for (t, before) in trainable(&self.tensors).zip(pretrained) {
                let mut tensor = t.tensor.shallow_clone();
                match t.group {
                    LORA if is_second_factor(t) => drop(tensor.g_mul_scalar_(share)),
                    LORA => {}
                    _ => drop(tensor.lerp_(before, 1.0 - share)),
                }
            }
        });
    }
}

/// Whether it is an adapter's `B`.
fn is_second_factor(t: &NamedTensor) -> bool {
    t.group == LORA && t.name.contains("lora_b")
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

/// What the tensors are of, with family and input size as stated or as the file records them; published files are known by
/// their checksum.
fn architecture(file: &StateFile, settings: &SegmenterSettings) -> Result<SamArchitecture, WeightsError> {
    let path = file.path();
    let encoder = EncoderArchitecture::recognise(file.shapes())
        .ok_or_else(|| WeightsError::malformed(path, unknown_encoder(file)))?;
    let known = file.record().family.or_else(|| Family::of_file(file.sha256()));
    if let (Some(stated), Some(known)) = (settings.family, known)
        && stated != known
    {
        return Err(WeightsError::malformed(
            path,
            format!(
                "it is a file of the family '{}', but '{}' was stated: leave `segmenter.settings.family` out, or name the file \
                 that was meant",
                known.name(),
                stated.name()
            ),
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
    let input_size = settings.input_size.or(file.record().input_size);
    let native = encoder.native_input_size();
    let has_positions = matches!(encoder, EncoderArchitecture::Vit(_));
    if settings.encoder == EncoderPart::Whole && has_positions && input_size.is_some_and(|size| size != native) {
        return Err(WeightsError::Settings(format!(
            "`encoder` is \"whole\", which trains the positions as the file has them, for an input of {native} pixels: leave \
             `input_size` out"
        )));
    }
    SamArchitecture::new(family, encoder, input_size).map_err(|what| WeightsError::malformed(path, what))
}

fn trainable(tensors: &[NamedTensor]) -> impl Iterator<Item = &NamedTensor> {
    tensors.iter().filter(|t| t.group.is_trainable())
}
