//! What the untouched encoder makes of every slice that training looks at, and of changed views of the labelled ones: made
//! once, kept as half-precision floats in a file that is mapped into memory, and read in every epoch.
//!
//! A classifier that reads embeddings learns from it, and so does the decoder while the adapters rest: what a step costs then
//! has nothing to do with the size of the encoder. A place takes 2 MiB of disk for an embedding of 256 × 64 × 64, whatever the
//! number of epochs; memory is the system's page cache, which it can take back.

use super::Training;
use crate::config::WeakCrops;
use crate::loader::{Batch, Labelled, Loader, Slices, labels};
use crate::model::Model;
use crate::plan::{Step, View, views};
use crate::progress::Ticker;
use crate::rows::Rows;
use anyhow::{Context, Result};
use stage_api::{Adapters, BoxPrompt, Mode, PromptedSegmenter, sent};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use tch::{Device, Kind, Tensor, no_grad};

/// Slices that are encoded together.
const BATCH: usize = 4;

/// Embeddings by view, with what is known of each.
pub(super) struct ViewBank {
    /// `[n, C, g, g]`, half precision, on the host.
    embeddings: Tensor,
    places: HashMap<View, i64>,
    labelled: HashMap<View, LabelledView>,
    /// Whether a training slice shows the target, by its row.
    shows_target: HashMap<usize, bool>,
    /// The one crop that stands for a training slice, by its row; `None`: each slice stands for itself.
    crops: Option<HashMap<usize, ([usize; 2], bool)>>,
    device: Device,
    path: PathBuf,
}

/// An image `[1, 1, H, W]` on the host, its mask, and the tight box around that.
struct LabelledView {
    image: Tensor,
    mask: Tensor,
    bounds: Option<BoxPrompt>,
}

impl Drop for ViewBank {
    fn drop(&mut self) {
        // It is made anew when the run goes on.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl ViewBank {
    /// Encodes every training and validation slice and all views of the labelled ones; `None` if the user stopped it.
    pub fn build(training: &Training, model: &Model, rows: &Rows, loader: &Loader) -> Result<Option<Self>> {
        let config = training.config;
        let as_it_is = |&row: &usize| View { row, change: 0 };
        let labelled_views = views(&rows.labelled, config.views.count);
        let mut all: Vec<View> = rows.train.iter().chain(&rows.validation).map(as_it_is).collect();
        all.extend(labelled_views.iter().filter(|v| v.change > 0));
        let mut labelled: HashMap<View, LabelledView> = HashMap::new();
        let path = training.run.join("embeddings.f16");
        let mut file = File::create(&path).with_context(|| format!("cannot write '{}'", path.display()))?;
        let mut ticker = Ticker::new("embedding views", all.len(), 0);
        let mut shape = Vec::new();
        for chunk in all.chunks(BATCH) {
            if training.stop.load(Ordering::Relaxed) {
                let _ = std::fs::remove_file(&path);
                return Ok(None);
            }
            let pairs: Vec<[Tensor; 2]> = chunk.iter().map(|&view| loader.labelled_view(view)).collect();
            let images: Vec<&Tensor> = pairs.iter().map(|[image, _]| image).collect();
            let images = sent(&Tensor::cat(&images, 0), training.device);
            let features = model.segmenter.features(&images);
            let embedding = model.segmenter.embed(&features, Adapters::Off, Mode::Eval).tensor;
            shape = embedding.size();
            append(&mut file, &path, &embedding)?;
            for (&view, [image, mask]) in chunk.iter().zip(pairs) {
                if rows.labelled.contains(&view.row) {
                    let bounds = bounds_of(&mask);
                    labelled.insert(view, LabelledView { image, mask, bounds });
                }
                ticker.tick("");
            }
        }
        drop(ticker);
        let cells = shape.last().copied().unwrap_or(0) as usize;
        let crops = (config.classifier.weak_crops == WeakCrops::OnePerSlice)
            .then(|| rows.train.iter().filter_map(|&row| Some((row, loader.weak_crop(row, cells)?))).collect());
        let records = training.store.records();
        if let Some(first) = shape.first_mut() {
            *first = all.len() as i64;
        }
        Ok(Some(Self {
            embeddings: mapped(&path, &shape)?,
            places: all.into_iter().zip(0..).collect(),
            labelled,
            shows_target: rows.train.iter().map(|&row| (row, records[row].has_target())).collect(),
            crops,
            device: training.device,
            path,
        }))
    }

    /// What the untouched encoder made of these, `[n, C, g, g]` on the device.
    pub fn embeddings(&self, of: impl IntoIterator<Item = View>) -> Tensor {
        let places: Vec<i64> = of.into_iter().map(|view| self.places[&view]).collect();
        self.on_device(&self.embeddings.index_select(0, &Tensor::from_slice(&places)))
    }

    fn on_device(&self, half: &Tensor) -> Tensor {
        sent(half, self.device).to_kind(Kind::Float)
    }

    /// The batch of one step.
    pub fn batch(&self, step: &Step) -> Batch {
        Batch {
            slices: self.image_level(step),
            crops: None,
            labelled: (!step.labelled.is_empty()).then(|| self.labelled(&step.labelled)),
            masks: (!step.masks.is_empty()).then(|| {
                let inputs = self.embeddings(step.masks.iter().copied());
                let masks: Vec<&Tensor> = step.masks.iter().map(|v| &self.labelled[v].mask).collect();
                (inputs, sent(&Tensor::cat(&masks, 0), self.device))
            }),
            step: step.clone(),
            copy_seconds: 0.0,
        }
    }

    /// The step's slices, or the crops that stand for them, with their one bit each.
    fn image_level(&self, step: &Step) -> Option<Slices> {
        if step.slices.is_empty() {
            return None;
        }
        let Some(crops) = &self.crops else {
            let images = self.embeddings(step.slices.iter().map(|&row| View { row, change: 0 }));
            let shown: Vec<bool> = step.slices.iter().map(|row| self.shows_target[row]).collect();
            return Some(Slices { images, labels: labels(&shown, self.device), strong: None });
        };
        let side = self.embeddings.size()[3] / 2;
        let (parts, shown): (Vec<Tensor>, Vec<bool>) = step
            .slices
            .iter()
            .filter_map(|row| {
                let &([y, x], shows) = crops.get(row)?;
                let whole = self.embeddings.get(self.places[&View { row: *row, change: 0 }]);
                Some((whole.narrow(1, y as i64, side).narrow(2, x as i64, side), shows))
            })
            .unzip();
        let images = (!parts.is_empty()).then(|| self.on_device(&Tensor::stack(&parts, 0)))?;
        Some(Slices { images, labels: labels(&shown, self.device), strong: None })
    }

    fn labelled(&self, of: &[View]) -> Labelled {
        let known: Vec<&LabelledView> = of.iter().map(|view| &self.labelled[view]).collect();
        let together = |part: fn(&LabelledView) -> &Tensor| {
            let parts: Vec<&Tensor> = known.iter().map(|k| part(k)).collect();
            sent(&Tensor::cat(&parts, 0), self.device)
        };
        let shown: Vec<bool> = known.iter().map(|k| k.bounds.is_some()).collect();
        Labelled {
            images: together(|k| &k.image),
            masks: together(|k| &k.mask),
            labels: labels(&shown, self.device),
            boxes: known.iter().map(|k| k.bounds).collect(),
            untouched: Some(self.embeddings(of.iter().copied())),
        }
    }
}

fn append(file: &mut File, path: &Path, embedding: &Tensor) -> Result<()> {
    let half = embedding.to_kind(Kind::Half).to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0u8; half.numel() * 2];
    half.copy_data_u8(&mut bytes, half.numel());
    file.write_all(&bytes).with_context(|| format!("cannot write the embeddings to '{}'", path.display()))
}

/// The file as a tensor that is read where it lies.
fn mapped(path: &Path, shape: &[i64]) -> Result<Tensor> {
    let name = path.to_str().with_context(|| format!("'{}' is not UTF-8", path.display()))?;
    let numbers: i64 = shape.iter().product();
    let flat = Tensor::f_from_file(name, false, numbers, (Kind::Half, Device::Cpu))
        .with_context(|| format!("cannot map '{}'", path.display()))?;
    Ok(flat.reshape(shape))
}

fn bounds_of(mask: &Tensor) -> Option<BoxPrompt> {
    let mut values = vec![0f32; mask.numel()];
    let count = values.len();
    no_grad(|| mask.copy_data(&mut values, count));
    BoxPrompt::around(&values, values.len().isqrt())
}
