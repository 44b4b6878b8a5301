//! What a strategy that chooses slices to label can look at: images, embeddings and a run's predictions. No mask of the store.

use crate::config::ModelConfig;
use crate::intensity::Intensity;
use crate::known::KnownEmbeddings;
use crate::model::Model;
use crate::predictor::SlicePrediction;
use crate::progress::Ticker;
use crate::registry::ModelRegistry;
use crate::volume::VolumeSlices;
use anyhow::{Context, Result, bail};
use run_record::checkpoint::Which;
use slice_sampling::{PredictedSlice, SamplingError, Sights};
use slice_store::{SliceId, SliceRecord, Slices};
use stage_api::{Adapters, Embedding, Mode};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind, Tensor};

/// Slices that are encoded together.
const TOGETHER: usize = 4;

/// A run that predicts.
pub struct OfRun {
    /// Its directory.
    pub run: PathBuf,
    /// How it predicts.
    pub config: ModelConfig,
    /// Its labelled slices.
    pub labelled: Vec<SliceId>,
}

/// The slices of a store, seen by an encoder and, if there is one, by a run.
pub struct StoreSights<'a> {
    /// The slices.
    pub store: &'a Slices,
    /// Stages by name.
    pub registry: &'a ModelRegistry,
    /// Whose pretrained encoder makes the embeddings.
    pub config: &'a ModelConfig,
    /// Who predicts.
    pub of_run: Option<&'a OfRun>,
    /// Where to compute.
    pub device: Device,
    /// Folder that keeps embeddings, for other choices and evaluations; absent: nothing is kept.
    pub embeddings: Option<&'a Path>,
    /// Becomes true when the user wants to stop.
    pub stop: &'a AtomicBool,
}

impl StoreSights<'_> {
    /// What the run predicts of whole volumes: of all slices in each case that `rows` has one of. `each` gets a case's rows and what
    /// is predicted of them.
    ///
    /// # Errors
    /// There is no run, it can't be read, what it predicts is not a number, or it was stopped.
    pub fn predict(&self, rows: &[usize], each: &mut dyn FnMut(&[usize], Vec<SlicePrediction>)) -> Result<()> {
        let Some(OfRun { run, config, .. }) = self.of_run else { bail!("there is no run that predicts: name one") };
        let model = Model::from_run(run, Which::Best, config, self.registry, self.device)?;
        let records = self.store.records();
        let wanted: HashSet<&str> = rows.iter().map(|&row| records[row].case.as_str()).collect();
        let all: Vec<usize> = (0..records.len()).filter(|&row| wanted.contains(records[row].case.as_str())).collect();
        let known = model.kept_in(self.embeddings).map(|folder| {
            let known = KnownEmbeddings::open(folder, (config, &model), self.store, &all, self.device, self.stop)?;
            known.context("stopped")
        });
        let known = known.transpose()?;
        let intensity = Intensity::new(&config.intensity);
        let mut ticker = Ticker::new("predicting", all.len(), 0);
        for volume in all.chunk_by(|&a, &b| records[a].case == records[b].case) {
            let slices = |range: Range<usize>| intensity.rows(self.store, &volume[range], self.device);
            let pretrained = known.as_ref().map(|known| |at: usize| known.of(volume[at]));
            let pretrained = pretrained.as_ref().map(|of| of as &dyn Fn(usize) -> Embedding);
            let slices =
                VolumeSlices { count: volume.len(), size: self.store.slice_size(), slices: &slices, pretrained };
            let predictor = model.predictor(&config.prompt, &config.prediction);
            let predicted = predictor.volume(&slices, self.stop, &mut |_, _, _| ticker.tick("")).map_err(|error| {
                let slice = records[volume[error.slice]].id();
                anyhow::Error::new(error).context(format!("slice '{slice}' of the store"))
            })?;
            each(volume, predicted.context("stopped")?.slices);
        }
        Ok(())
    }

    fn rows(&self, slices: &[&SliceRecord]) -> Result<Vec<usize>> {
        let row = |slice: &&SliceRecord| {
            self.store.position(&slice.id()).with_context(|| format!("the store has no slice '{}'", slice.id()))
        };
        slices.iter().map(row).collect()
    }

    fn pooled(&self, rows: &[usize]) -> Result<Vec<Vec<f32>>> {
        let model = Model::new(self.config, self.registry, self.device)?;
        if model.segmenter.embedding_shape().is_none() {
            bail!("the segmenter \"{}\" has no embeddings", self.config.segmenter.kind);
        }
        let mean = |embedding: &Tensor| -> Result<Vec<f32>> {
            let mean = embedding.mean_dim([2i64, 3].as_slice(), false, Kind::Float).to_device(Device::Cpu).view(-1);
            Ok(Vec::try_from(&mean)?)
        };
        if let Some(folder) = model.kept_in(self.embeddings) {
            let of = (self.config, &model);
            let known = KnownEmbeddings::open(folder, of, self.store, rows, self.device, self.stop)?;
            let known = known.context("stopped")?;
            return rows.iter().map(|&row| mean(&known.of(row).tensor)).collect();
        }
        let (intensity, mut pooled) = (Intensity::new(&self.config.intensity), Vec::with_capacity(rows.len()));
        let mut ticker = Ticker::new("encoding slices", rows.len(), 0);
        for some in rows.chunks(TOGETHER) {
            if self.stop.load(Ordering::Relaxed) {
                bail!("stopped");
            }
            let features = model.segmenter.features(&intensity.rows(self.store, some, self.device));
            let embeddings = model.segmenter.embed(&features, Adapters::Off, Mode::Eval).tensor;
            for at in 0..some.len() {
                pooled.push(mean(&embeddings.narrow(0, at as i64, 1))?);
                ticker.tick("");
            }
        }
        Ok(pooled)
    }

    fn predicted(&self, rows: &[usize]) -> Result<Vec<PredictedSlice>> {
        let size = self.store.slice_size();
        let mut found: HashMap<usize, PredictedSlice> = HashMap::new();
        self.predict(rows, &mut |volume, slices| {
            found.extend(volume.iter().copied().zip(slices.iter().map(|slice| summary(slice, size))));
        })?;
        Ok(rows.iter().map(|row| found[row]).collect())
    }
}

/// What a strategy sees of a predicted slice.
fn summary(slice: &SlicePrediction, size: usize) -> PredictedSlice {
    let nothing = vec![0; size * size];
    let view = |mask| seg_metrics::MaskView::new(mask, size, size).expect("masks have the store's size");
    let dice = seg_metrics::dice(view(slice.classifiers_region().unwrap_or(&nothing)), view(&slice.mask));
    PredictedSlice {
        probability: slice.classification.probability,
        uncertainty: slice.uncertainty(),
        disagreement: 1.0 - dice,
    }
}

impl Sights for StoreSights<'_> {
    fn image(&self, slice: &SliceRecord) -> Result<&[i16], SamplingError> {
        let row = self.rows(&[slice]).map_err(|error| sight(&error))?[0];
        Ok(self.store.image(row))
    }

    fn embeddings(&self, slices: &[&SliceRecord]) -> Result<Vec<Vec<f32>>, SamplingError> {
        self.rows(slices).and_then(|rows| self.pooled(&rows)).map_err(|error| sight(&error))
    }

    fn predictions(&self, slices: &[&SliceRecord]) -> Result<Vec<PredictedSlice>, SamplingError> {
        if self.of_run.is_none() {
            return slice_sampling::NoSights.predictions(slices);
        }
        self.rows(slices).and_then(|rows| self.predicted(&rows)).map_err(|error| sight(&error))
    }

    fn drawn(&self) -> &[SliceId] {
        self.of_run.map_or(&[], |of| &of.labelled)
    }
}

fn sight(error: &anyhow::Error) -> SamplingError {
    SamplingError::Sight(format!("{error:#}"))
}
