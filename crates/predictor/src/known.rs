//! What the pretrained encoder makes of the slices, where a folder keeps it: several runs then encode them once.

use crate::config::ModelConfig;
use crate::embedding_file::{identity, known_or_encoded};
use crate::intensity::Intensity;
use crate::model::Model;
use anyhow::Result;
use serde_json::json;
use slice_store::Slices;
use stage_api::{Adapters, Embedding, Mode, sent};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind, Tensor};

/// Pretrained embeddings by row.
pub struct KnownEmbeddings {
    /// `[n, C, g, g]`, half precision, on the host.
    embeddings: Tensor,
    places: HashMap<usize, i64>,
    size: usize,
    device: Device,
}

impl KnownEmbeddings {
    /// On the device. Panics for a row that it wasn't opened with.
    pub fn of(&self, row: usize) -> Embedding {
        let half = self.embeddings.narrow(0, self.places[&row], 1);
        Embedding::new(sent(&half, self.device).to_kind(Kind::Float), [self.size; 2])
    }

    /// The embeddings of these rows, of the folder or encoded now; `None` if it was stopped.
    ///
    /// # Errors
    /// The folder's file is damaged or can't be written.
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
