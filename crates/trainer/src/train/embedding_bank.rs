//! What the pretrained encoder makes of every slice that training looks at, and of augmented copies of the labelled ones: made
//! once, kept as half-precision floats in two files that are mapped into memory, and read in every epoch. Runs on the same
//! training slices can share the first, whatever their labelled slices and their seed.
//!
//! A classifier that reads embeddings learns from it, and so does the decoder while the adapters rest: what a step costs then
//! has nothing to do with the size of the encoder. A place takes 2 MiB of disk for an embedding of 256 × 64 × 64, whatever the
//! number of epochs; memory is the system's page cache, which it can take back.

use super::Training;
use crate::annotator::sees_target;
use crate::config::WeakCrops;
use crate::loader::{Batch, Batches, Labelled, Loader, Slices, bounds_of, labels};
use crate::plan::{SliceCopy, Step, copies};
use anyhow::{Result, ensure};
use data_parallel::Share;
use predictor::Model;
use predictor::embedding_file::{identity, known_or_encoded};
use serde_json::json;
use slice_sampling::Rows;
use slice_store::TrainingSlices;
use stage_api::{Adapters, BoxPrompt, Mode, sent};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor, no_grad};

/// Where a run keeps its embeddings while it trains, if no other run shall have them.
pub(super) fn own_folder(run: &Path) -> PathBuf {
    run.join("embeddings")
}

/// Embeddings by copy, with what is known of each.
pub(super) struct EmbeddingBank {
    /// `[C, g, g]` each, half precision, on the host.
    embeddings: HashMap<SliceCopy, Tensor>,
    labelled: HashMap<SliceCopy, LabelledCopy>,
    /// Whether a training slice shows the target, by its row.
    shows_target: HashMap<usize, bool>,
    /// The one crop that stands for a training slice, by its row; `None`: each slice stands for itself.
    crops: Option<HashMap<usize, LabelledCrop>>,
    device: Device,
    share: Share,
}

/// Upper row and left column among the places of an embedding, and what an annotator says of it.
struct LabelledCrop {
    place: [usize; 2],
    shows_target: bool,
}

/// An image `[1, 1, H, W]` on the host, its mask, and the tight box around that.
struct LabelledCopy {
    image: Tensor,
    mask: Tensor,
    bounds: Option<BoxPrompt>,
}

impl EmbeddingBank {
    /// Encodes every training and validation slice and all copies of the labelled ones, or takes the files that have them;
    /// `None` if the user stopped it.
    pub fn build(training: &Training, model: &Model, rows: &Rows, loader: &Loader) -> Result<Option<Self>> {
        let config = training.config;
        let of_labelled = copies(&rows.labelled, config.augmented_copies.count);
        let labelled_copy = |&copy: &SliceCopy| {
            let [image, mask] = loader.labelled_copy(copy);
            let bounds = target_bounds(&mask);
            (copy, LabelledCopy { image, mask, bounds })
        };
        let labelled: HashMap<SliceCopy, LabelledCopy> = of_labelled.iter().map(labelled_copy).collect();
        let encoding = Encoding { training, model, loader, labelled: &labelled };
        let bags = rows.bags.iter().flatten();
        let mut slices: Vec<usize> = rows.train.iter().chain(&rows.validation).chain(bags).copied().collect();
        slices.sort_unstable();
        slices.dedup();
        let slices: Vec<SliceCopy> = slices.into_iter().map(SliceCopy::unchanged).collect();
        let changed: Vec<SliceCopy> = of_labelled.iter().filter(|copy| copy.copy > 0).copied().collect();
        let folder = model.kept_in(training.embeddings).map_or_else(|| own_folder(training.run), Path::to_path_buf);
        let mut embeddings = HashMap::new();
        for (label, copies, changed_by) in [
            ("encoding slices", slices, json!(null)),
            // Beside the slices these decide what is seen.
            (
                "encoding augmented copies",
                changed,
                json!({ "seed": config.seed, "augmentation": config.augmentation.labelled }),
            ),
        ] {
            if copies.is_empty() {
                continue;
            }
            let named: Vec<(usize, usize)> = copies.iter().map(|copy| (copy.row, copy.copy)).collect();
            let of = identity(&config.model(), model, training.store.checksum(), &named, &changed_by, training.device);
            let encode = |some: Range<usize>| encoding.encode(&copies[some]);
            let known = || known_or_encoded(&folder, &of, label, copies.len(), training.stop, &encode);
            // One rank encodes; the others find its file.
            let of_first = if training.ranks.is_first() { Some(known()?) } else { None };
            if training.ranks.any(matches!(of_first, Some(None))) {
                return Ok(None);
            }
            let Some(all) = of_first.map_or_else(known, Ok)? else { return Ok(None) };
            embeddings.extend(copies.into_iter().zip((0..).map(|place| all.get(place))));
        }
        let cells = embeddings.values().next().map_or(1, |embedding| embedding.size()[2] as usize);
        let records = training.store.records();
        check_crops(training, cells)?;
        let crops = (config.classifier.weak_crops == WeakCrops::OnePerSlice)
            .then(|| labelled_crops(training.store, &rows.train, loader, cells))
            .transpose()?;
        Ok(Some(Self {
            embeddings,
            labelled,
            shows_target: rows.train.iter().map(|&row| (row, records[row].has_target())).collect(),
            crops,
            device: training.device,
            share: training.ranks.share(),
        }))
    }

    /// What the pretrained encoder made of these, `[n, C, g, g]` on the device.
    pub fn embeddings(&self, of: impl IntoIterator<Item = SliceCopy>) -> Tensor {
        let all: Vec<_> = of.into_iter().map(|copy| self.embeddings[&copy].shallow_clone()).collect();
        self.together(&all, 1)
    }

    /// Embeddings or parts of them, of one `part`-th of their side, `[n, C, …, …]` on the device; there may be none.
    fn together(&self, all: &[Tensor], part: i64) -> Tensor {
        let any = self.embeddings.values().next().filter(|_| all.is_empty());
        let none = any.map(|any| {
            let [channels, side, _] = any.size()[..] else { unreachable!("embeddings are [C, g, g]") };
            Tensor::zeros([0, channels, side / part, side / part], (Kind::Half, Device::Cpu))
        });
        self.on_device(&none.unwrap_or_else(|| Tensor::stack(all, 0)))
    }

    fn on_device(&self, half: &Tensor) -> Tensor {
        sent(half, self.device).to_kind(Kind::Float)
    }

    fn batch(&self, whole: &Step) -> Batch {
        let step = &whole.share(self.share);
        Batch {
            slices: self.image_level(whole, step),
            crops: None,
            labelled: (!step.labelled.is_empty()).then(|| self.labelled(&step.labelled)),
            masks: (!whole.masks.is_empty()).then(|| {
                let inputs = self.embeddings(step.masks.iter().copied());
                let mut masks: Vec<&Tensor> = step.masks.iter().map(|v| &self.labelled[v].mask).collect();
                // A share may be of none.
                let none = self.labelled[&whole.masks[0]].mask.narrow(0, 0, 0);
                masks.push(&none);
                (inputs, sent(&Tensor::cat(&masks, 0), self.device))
            }),
            bags: step
                .bags
                .iter()
                .map(|rows| self.embeddings(rows.iter().map(|&row| SliceCopy::unchanged(row))))
                .collect(),
            step: whole.clone(),
            copy_seconds: 0.0,
        }
    }

    /// The share of the crops that show the target, where crops stand for the slices.
    pub fn share_with_target(&self) -> Option<f64> {
        let crops = self.crops.as_ref()?;
        Some(crops.values().filter(|crop| crop.shows_target).count() as f64 / crops.len() as f64)
    }

    /// The step's slices, or the crops that stand for them, with their image-level labels.
    fn image_level(&self, whole: &Step, step: &Step) -> Option<Slices> {
        if whole.slices.is_empty() {
            return None;
        }
        let Some(crops) = &self.crops else {
            let images = self.embeddings(step.slices.iter().map(|&row| SliceCopy::unchanged(row)));
            let shown: Vec<bool> = step.slices.iter().map(|row| self.shows_target[row]).collect();
            return Some(Slices { images, labels: labels(&shown, self.device), whole: None, strong: None });
        };
        if !whole.slices.iter().any(|row| crops.contains_key(row)) {
            return None;
        }
        let (parts, shown): (Vec<Tensor>, Vec<bool>) = step
            .slices
            .iter()
            .filter_map(|row| {
                let LabelledCrop { place: [y, x], shows_target } = *crops.get(row)?;
                let whole = &self.embeddings[&SliceCopy::unchanged(*row)];
                let side = whole.size()[2] / 2;
                Some((whole.narrow(1, y as i64, side).narrow(2, x as i64, side), shows_target))
            })
            .unzip();
        let images = self.together(&parts, 2);
        let whole = self.embeddings(step.slices.iter().map(|&row| SliceCopy::unchanged(row)));
        Some(Slices { images, labels: labels(&shown, self.device), whole: Some(whole), strong: None })
    }

    fn labelled(&self, of: &[SliceCopy]) -> Labelled {
        let known: Vec<&LabelledCopy> = of.iter().map(|copy| &self.labelled[copy]).collect();
        let together = |part: fn(&LabelledCopy) -> &Tensor| {
            let parts: Vec<&Tensor> = known.iter().map(|k| part(k)).collect();
            sent(&Tensor::cat(&parts, 0), self.device)
        };
        Labelled {
            images: together(|k| &k.image),
            masks: together(|k| &k.mask),
            boxes: known.iter().map(|k| k.bounds).collect(),
            pretrained: Some(self.embeddings(of.iter().copied())),
        }
    }
}

impl Batches for &EmbeddingBank {
    fn next(&mut self, step: &Step) -> Result<Batch> {
        Ok(self.batch(step))
    }
}

/// Whether weak crops can be cut from embeddings of so many places along each axis.
fn check_crops(training: &Training, cells: usize) -> Result<()> {
    let size = training.store.slice_size();
    ensure!(
        training.config.classifier.weak_crops == WeakCrops::Off || size.is_multiple_of(cells),
        "slices of {size} pixels don't fit the {cells} places of an embedding along each axis, from which weak crops are \
         cut: prepare slices of a multiple of {cells} pixels, or set `classifier.weak_crops = \"off\"`"
    );
    Ok(())
}

/// The crops that stand for the slices, and what an annotator says of each; a slice of which nobody can say has none.
fn labelled_crops(
    store: &TrainingSlices,
    rows: &[usize],
    loader: &Loader,
    cells: usize,
) -> Result<HashMap<usize, LabelledCrop>> {
    let grid = store.slice_size() / cells;
    let labelled = |&row: &usize| {
        let crop = loader.weak_crop(row, cells)?;
        let shows_target = sees_target(store, row, crop)?;
        Some((row, LabelledCrop { place: [crop.top / grid, crop.left / grid], shows_target }))
    };
    let crops: HashMap<usize, LabelledCrop> = rows.iter().filter_map(labelled).collect();
    let positive = crops.values().filter(|crop| crop.shows_target).count();
    ensure!(
        (1..crops.len()).contains(&positive),
        "of {} crops of the training slices, {positive} show the {}: the classifier learns from both kinds. Ways out: more \
         training slices, another `seed`, or `classifier.weak_crops = \"off\"`",
        crops.len(),
        store.info().target
    );
    Ok(crops)
}

/// What it takes to encode slices and copies.
struct Encoding<'a> {
    training: &'a Training<'a>,
    model: &'a Model,
    loader: &'a Loader<'a>,
    labelled: &'a HashMap<SliceCopy, LabelledCopy>,
}

impl Encoding<'_> {
    /// `[n, C, g, g]`
    fn encode(&self, copies: &[SliceCopy]) -> Result<Tensor> {
        let images: Vec<Tensor> = copies.iter().map(|copy| self.image(copy)).collect();
        let features = self.model.segmenter.features(&sent(&Tensor::cat(&images, 0), self.training.device));
        let embeddings = self.model.segmenter.embed(&features, Adapters::Off, Mode::Eval).tensor;
        // Before the rest is encoded.
        check_crops(self.training, embeddings.size()[3] as usize)?;
        Ok(embeddings)
    }

    fn image(&self, copy: &SliceCopy) -> Tensor {
        // Only labelled slices have augmented copies.
        self.labelled.get(copy).map_or_else(|| self.loader.slice(copy.row), |known| known.image.shallow_clone())
    }
}

fn target_bounds(mask: &Tensor) -> Option<BoxPrompt> {
    let mut values = vec![0f32; mask.numel()];
    let count = values.len();
    no_grad(|| mask.copy_data(&mut values, count));
    bounds_of(&values)
}
