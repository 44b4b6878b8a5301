//! What the pretrained encoder makes of the slices, where a folder keeps it: evaluations of several runs then encode them once.

use anyhow::Result;
use predictor::embedding_file::{identity, known_or_encoded};
use predictor::{EncodedSlice, Intensity, Model, ModelConfig};
use serde_json::json;
use slice_store::Slices;
use stage_api::{Adapters, Embedding, Mode, sent};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind, Tensor};

/// Pretrained embeddings by row.
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

    /// The embeddings of these rows, of the folder or encoded now; `None` if it was stopped.
    pub fn open(
        folder: &Path,
        (config, model): (&ModelConfig, &Model),
        store: &Slices,
        rows: &[usize],
        device: Device,
        stop: &AtomicBool,
    ) -> Result<Option<Self>> {
        let views: Vec<(usize, usize)> = rows.iter().map(|&row| (row, 0)).collect();
        let of = identity(config, model, store.checksum(), &views, &json!(null), device);
        let intensity = Intensity::new(&config.intensity);
        let encode = |some: Range<usize>| {
            let features = model.segmenter.features(&intensity.rows(store, &rows[some], device));
            Ok(model.segmenter.embed(&features, Adapters::Off, Mode::Eval).tensor)
        };
        let embeddings = known_or_encoded(folder, &of, "encoding slices", rows.len(), stop, &encode)?;
        Ok(embeddings.map(|embeddings| {
            let places = rows.iter().copied().zip(0..).collect();
            Self { embeddings, places, size: store.slice_size(), device }
        }))
    }
}

/// A slice on its way through the encoder.
pub(crate) fn encoded<'a>(model: &'a Model, row: usize, image: Tensor, known: Option<&Known>) -> EncodedSlice<'a> {
    let segmenter = model.segmenter.as_ref();
    let encoded = EncodedSlice::new(segmenter, segmenter.is_adapted(), image);
    match known {
        Some(known) => encoded.with_pretrained(known.of(row)),
        None => encoded,
    }
}
