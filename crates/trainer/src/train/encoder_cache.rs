//! Encoder results that are kept between steps.

use super::Training;
use crate::config::EncoderTraining;
use predictor::{Intensity, Model};
use stage_api::{Adapters, Embedding, Features, Mode};
use std::collections::HashMap;
use tch::Tensor;

/// Encoder results of the labelled and the validation slices: the frozen part for the whole run, embeddings while the
/// adapters are frozen. Bounded by (N + 32) × 12 MiB.
pub(super) struct EncoderCache {
    pub intensity: Intensity,
    pub features: HashMap<usize, Features>,
    pub embeddings: HashMap<usize, Embedding>,
}

impl EncoderCache {
    pub fn new(training: &Training) -> Self {
        let intensity = Intensity::new(&training.config.intensity);
        Self { intensity, features: HashMap::new(), embeddings: HashMap::new() }
    }

    /// Of a slice that is the same each time.
    pub fn features(&mut self, row: usize, image: &Tensor, model: &Model) -> &Features {
        self.features.entry(row).or_insert_with(|| model.segmenter.features(image))
    }

    /// What decoding starts from in a phase. `adapted`: whether the adapters change anything.
    pub fn embedding(
        &mut self,
        slice: &EncodedRow,
        encoder: EncoderTraining,
        adapted: bool,
        model: &Model,
    ) -> Embedding {
        let EncodedRow { row, image, pretrained, is_same, mode } = slice;
        let embed = |features: &Features| model.segmenter.embed(features, Adapters::On, *mode);
        match (encoder, pretrained) {
            (EncoderTraining::Frozen, Some(known)) if !adapted => {
                let side = image.size()[2] as usize;
                Embedding::new(known.shallow_clone(), [side, side])
            }
            (EncoderTraining::Frozen, _) if *is_same => {
                if !self.embeddings.contains_key(row) {
                    let embedding = embed(self.features(*row, image, model));
                    self.embeddings.insert(*row, embedding);
                }
                let known = &self.embeddings[row];
                Embedding::new(known.tensor.shallow_clone(), known.slice_size)
            }
            (EncoderTraining::Lora, _) if *is_same => embed(self.features(*row, image, model)),
            _ => embed(&model.segmenter.features(image)),
        }
    }
}

/// A slice on its way into the encoder.
pub(super) struct EncodedRow {
    /// Of the store.
    pub row: usize,
    /// `[1, 1, H, W]`
    pub image: Tensor,
    /// What the pretrained encoder makes of it, where that is kept.
    pub pretrained: Option<Tensor>,
    /// Whether it is the same each time, so that what the encoder makes of it can be kept.
    pub is_same: bool,
    pub mode: Mode,
}
