//! What the untouched encoder makes of the slices, where a folder keeps it: evaluations of several runs then encode them once.

use crate::evaluator::Evaluator;
use anyhow::Result;
use predictor::embedding_file::{identity, known_or_encoded};
use predictor::{EncodedSlice, Intensity};
use serde_json::json;
use stage_api::{Adapters, Embedding, Mode, PromptedSegmenter, sent};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Untouched embeddings by row.
pub(crate) struct Known {
    /// `[n, C, g, g]`, half precision, on the host.
    embeddings: Tensor,
    places: HashMap<usize, i64>,
    size: usize,
    device: Device,
}

impl Known {
    /// On the device.
    pub fn of(&self, row: usize) -> Embedding {
        let half = self.embeddings.narrow(0, self.places[&row], 1);
        Embedding::new(sent(&half, self.device).to_kind(Kind::Float), [self.size; 2])
    }
}

impl Evaluator<'_> {
    /// The embeddings of these rows, of the folder or encoded now; `None` if it was stopped.
    pub(crate) fn known(&self, folder: &Path, rows: &[usize]) -> Result<Option<Known>> {
        let views: Vec<(usize, usize)> = rows.iter().map(|&row| (row, 0)).collect();
        let of = identity(self.config, self.model, self.store.checksum(), &views, &json!(null), self.device);
        let intensity = Intensity::new(&self.config.intensity);
        let encode = |some: Range<usize>| {
            let segmenter = &self.model.segmenter;
            let features = segmenter.features(&intensity.rows(self.store, &rows[some], self.device));
            Ok(segmenter.embed(&features, Adapters::Off, Mode::Eval).tensor)
        };
        let embeddings = known_or_encoded(folder, &of, "encoding slices", rows.len(), self.stop, &encode)?;
        Ok(embeddings.map(|embeddings| {
            let places = rows.iter().copied().zip(0..).collect();
            Known { embeddings, places, size: self.store.slice_size(), device: self.device }
        }))
    }

    /// A slice on its way through the encoder.
    pub(crate) fn encoded(&self, row: usize, image: Tensor, known: Option<&Known>) -> EncodedSlice<'_> {
        let segmenter = &self.model.segmenter;
        let encoded = EncodedSlice::new(segmenter, segmenter.is_adapted(), image);
        match known {
            Some(known) => encoded.with_untouched(known.of(row)),
            None => encoded,
        }
    }
}
