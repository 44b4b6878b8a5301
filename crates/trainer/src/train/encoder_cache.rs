//! Encoder results that are kept between steps.

use super::Training;
use predictor::{Intensity, Model};
use stage_api::{Adapters, Embedding, Features, Mode, PromptedSegmenter};
use std::collections::HashMap;
use tch::Tensor;

/// Encoder results of the labelled and the validation slices: the frozen part for the whole run, embeddings while the
/// adapters rest. Bounded by (N + 32) × 12 MiB.
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

    pub fn embedding(&mut self, row: usize, image: &Tensor, model: &Model) -> Embedding {
        if !self.embeddings.contains_key(&row) {
            let embedding = model.segmenter.embed(self.features(row, image, model), Adapters::On, Mode::Eval);
            self.embeddings.insert(row, embedding);
        }
        let known = &self.embeddings[&row];
        Embedding::new(known.tensor.shallow_clone(), known.slice_size)
    }
}
