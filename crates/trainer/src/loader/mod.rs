//! From the slice store to batches: the one place that turns HU into what the stages see, and the only one that augments.
//!
//! A thread walks the plan; a pool of threads prepares images in the memory where they stay; a channel hands over the
//! batches that are ready. Memory is bounded by the configured depth × one batch, and nothing depends on the number of
//! threads: each image has its own random stream.
//!
//! Batches are prepared in groups, with all threads at once. Where the step computes on the same cores, a loader thread
//! that takes one of them for a moment keeps the step's other threads waiting: few long moments on all cores cost it half
//! of what many short ones do.

mod crops;

use crate::config::Config;
use crate::plan::{SliceCopy, Step, stream};
use anyhow::{Context, Result};
use crops::CropSource;
use crossbeam::channel::bounded;
use data_parallel::Share;
use predictor::{HostBatch, Intensity};
use rand_chacha::ChaCha8Rng;
use rayon::ThreadPool;
use rayon::prelude::*;
use slice_augment::{Appearance, Augmentation, Geometry};
use slice_store::{Crop, IGNORED, TrainingSlices};
use stage_api::{BoxPrompt, sent};
use std::time::Instant;
use tch::{Device, Tensor};

/// Where a step's batch comes from. Every field of [`Batch`] means the same whatever it is.
pub trait Batches {
    /// The batch of the next step, which is this one.
    fn next(&mut self, step: &Step) -> Result<Batch>;
}

/// Batches that a [`Loader`] prepares ahead.
pub struct LoadedBatches(Box<dyn Iterator<Item = Batch>>);

impl Batches for LoadedBatches {
    fn next(&mut self, step: &Step) -> Result<Batch> {
        let batch = self.0.next().context("the loader ended before the plan did")?;
        anyhow::ensure!(batch.step == *step, "the loader is at step {}, training at {}", batch.step.index, step.index);
        Ok(batch)
    }
}

impl Iterator for LoadedBatches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        self.0.next()
    }
}

/// What a step works on, on its device; a share of it, which may be of no slices, where other processes have the rest.
pub struct Batch {
    /// The plan of the whole step.
    pub step: Step,
    /// What image-level labels teach: the step's slices, and behind them its labelled ones where the classifier reads slices.
    pub slices: Option<Slices>,
    /// The classifier's crops `[k, 1, c, c]` and whether each shows the target `[k]`.
    pub crops: Option<(Tensor, Tensor)>,
    /// The labelled slices.
    pub labelled: Option<Labelled>,
    /// What teaches the classifier's map: its own input, `[k, …]`, and masks `[k, 1, H, W]`, 1 or 0, or -1 where it counts in no loss.
    pub masks: Option<(Tensor, Tensor)>,
    /// What the classifier reads of slices of a volume each, one of which shows the target.
    pub bags: Vec<Tensor>,
    /// Seconds that the host spent on copies to the device.
    pub copy_seconds: f64,
}

/// Slices of which is known whether they show the target.
pub struct Slices {
    /// What the classifier reads: `[n, 1, H, W]`, or embeddings of slices or of crops of them.
    pub images: Tensor,
    /// `[n]`, 1 or 0.
    pub labels: Tensor,
    /// What `images` are crops of, where they are: embeddings of the whole slices, `[n, C, g, g]`.
    pub whole: Option<Tensor>,
    /// The strongly augmented copies of the same slices, where the configuration asks for them; their geometry is that of `images`.
    pub strong: Option<Tensor>,
}

impl Slices {
    /// With those labelled slices behind them of which it is known.
    fn with(self, labelled: &Labelled, presence: &[Option<bool>]) -> Self {
        let known: Vec<Tensor> = (0..)
            .zip(presence)
            .filter(|(_, shown)| shown.is_some())
            .map(|(i, _)| labelled.images.narrow(0, i, 1))
            .collect();
        let images: Vec<&Tensor> = std::iter::once(&self.images).chain(&known).collect();
        let shown: Vec<bool> = presence.iter().copied().flatten().collect();
        let labels = Tensor::cat(&[&self.labels, &labels(&shown, self.labels.device())], 0);
        Self { images: Tensor::cat(&images, 0), labels, ..self }
    }
}

/// Slices of which the mask is known.
pub struct Labelled {
    /// `[m, 1, H, W]`.
    pub images: Tensor,
    /// `[m, 1, H, W]`, 1 or 0, or -1 where it counts in no loss.
    pub masks: Tensor,
    /// The tight box around each mask; `None` where it is empty.
    pub boxes: Vec<Option<BoxPrompt>>,
    /// `[m, C, g, g]`, what the pretrained encoder made of each, where that is kept.
    pub pretrained: Option<Tensor>,
}

/// Prepares the batches of a plan.
pub struct Loader<'a> {
    store: &'a TrainingSlices<'a>,
    config: &'a Config,
    intensity: Intensity,
    device: Device,
    pool: ThreadPool,
    share: Share,
}

impl<'a> Loader<'a> {
    /// With a pool of `threads`.
    pub fn new(store: &'a TrainingSlices<'a>, config: &'a Config, device: Device, threads: usize) -> Result<Self> {
        let name = |i| format!("loader-{i}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
        let pool = pool.with_context(|| format!("cannot start {threads} loader threads"))?;
        Ok(Self { store, config, intensity: Intensity::new(&config.intensity), device, pool, share: Share::WHOLE })
    }

    /// Prepares that share of each batch.
    #[must_use]
    pub fn of_share(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Starts over `steps`; batches come in their order.
    ///
    /// `scope` ends when the iterator is dropped or the steps are over.
    pub fn start<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        steps: &'scope [Step],
    ) -> LoadedBatches {
        // A group is handed over when it is asked for: there is the one in use, and the next.
        let group = self.config.loader.prefetch.div_ceil(2).max(1);
        let (sender, receiver) = bounded::<Vec<Batch>>(0);
        scope.spawn(move || {
            for steps in steps.chunks(group) {
                let batches = self.pool.install(|| steps.par_iter().map(|step| self.load(step)).collect());
                if sender.send(batches).is_err() {
                    break;
                }
            }
        });
        LoadedBatches(Box::new(receiver.into_iter().flatten()))
    }

    /// The batch of one step.
    pub fn load(&self, whole: &Step) -> Batch {
        self.pool.install(|| {
            let step = &whole.share(self.share);
            let mut copy_seconds = 0.0;
            let mut copy = |batch: HostBatch| {
                let begun = Instant::now();
                let tensor = batch.on(self.device);
                copy_seconds += begun.elapsed().as_secs_f64();
                tensor
            };
            // A share may have none of them, but not the whole.
            let crops = (!whole.crops.is_empty()).then(|| self.crops(step, &mut copy));
            let crops = crops.filter(|(_, labels)| labels.numel() > 0 || !self.share.is_whole());
            let labelled = (!step.labelled.is_empty()).then(|| self.labelled(step, &mut copy));
            let slices = (!whole.slices.is_empty()).then(|| {
                let slices = self.slices(step, &mut copy);
                labelled.iter().fold(slices, |slices, (labelled, presence)| slices.with(labelled, presence))
            });
            let labelled = labelled.map(|(labelled, _)| labelled);
            let bags = step.bags.iter().enumerate().map(|(i, rows)| self.bag(step, i, rows, &mut copy)).collect();
            Batch { slices, crops, masks: None, labelled, bags, step: whole.clone(), copy_seconds }
        })
    }

    fn slices(&self, step: &Step, copy: &mut impl FnMut(HostBatch) -> Tensor) -> Slices {
        let (rows, weak) = (&step.slices, &self.config.augmentation.classifier);
        let mut images = self.empty(rows.len(), self.store.slice_size());
        let strong = if self.config.classifier.consistency > 0.0 {
            let mut strong = self.empty(rows.len(), self.store.slice_size());
            let copies = images.images().zip(strong.images()).zip(rows).enumerate();
            copies.for_each(|(i, ((to, strong_to), &row))| {
                let mut rng = self.random(step, "slice", self.share.place(i));
                let geometry = self.augmented(weak, row, to, &mut rng);
                geometry.image(self.store.image(row), strong_to);
                self.finish(&self.config.augmentation.strong, strong_to, self.store.slice_size(), &mut rng);
            });
            Some(copy(strong))
        } else {
            images.images().zip(rows).enumerate().for_each(|(i, (to, &row))| {
                self.augmented(weak, row, to, &mut self.random(step, "slice", self.share.place(i)));
            });
            None
        };
        let labels: Vec<bool> = rows.iter().map(|&row| self.store.records()[row].has_target()).collect();
        Slices { images: copy(images), labels: self.labels(&labels), whole: None, strong }
    }

    fn bag(&self, step: &Step, bag: usize, rows: &[usize], copy: &mut impl FnMut(HostBatch) -> Tensor) -> Tensor {
        let mut images = self.empty(rows.len(), self.store.slice_size());
        images.images().zip(rows).enumerate().for_each(|(i, (to, &row))| {
            let mut rng = self.random(step, &format!("bag/{}", self.share.place(bag)), i);
            self.augmented(&self.config.augmentation.classifier, row, to, &mut rng);
        });
        copy(images)
    }

    fn crops(&self, step: &Step, copy: &mut impl FnMut(HostBatch) -> Tensor) -> (Tensor, Tensor) {
        let augmentation = &self.config.augmentation.classifier;
        let side = self.config.classifier.crop_size;
        let drawn: Vec<(Vec<i16>, bool, ChaCha8Rng)> = step
            .crops
            .par_iter()
            .enumerate()
            .filter_map(|(i, &(row, want))| {
                let mut rng = self.random(step, "crop", self.share.place(i));
                let source = self.crop_source(row, side, 1);
                let place = source.draw(self.mask(row), want, &self.intensity, &mut rng)?;
                Some((source.crop(place), want, rng))
            })
            .collect();
        let labels: Vec<bool> = drawn.iter().map(|(_, want, _)| *want).collect();
        let mut images = self.empty(drawn.len(), side);
        images.images().zip(drawn).for_each(|(to, (crop, _, mut rng))| {
            self.changed(augmentation, &crop, side, to, &mut rng);
        });
        (copy(images), self.labels(&labels))
    }

    /// Whether a crop of that kind is found in a labelled slice.
    pub fn has_crop(&self, row: usize, with_target: bool) -> bool {
        let source = self.crop_source(row, self.config.classifier.crop_size, 1);
        let mut rng = stream(self.config.seed, &format!("has-crop/{row}"));
        source.draw(self.mask(row), with_target, &self.intensity, &mut rng).is_some()
    }

    /// The step's labelled slices, and whether each shows the target, which a change can move out of it.
    fn labelled(&self, step: &Step, copy: &mut impl FnMut(HostBatch) -> Tensor) -> (Labelled, Vec<Option<bool>>) {
        let (rows, size) = (&step.labelled, self.store.slice_size());
        let (mut images, mut masks) = (self.empty(rows.len(), size), self.empty(rows.len(), size));
        let (boxes, presence): (Vec<Option<BoxPrompt>>, Vec<Option<bool>>) = images
            .images()
            .zip(masks.images())
            .zip(rows)
            .enumerate()
            .map(|(i, ((to, mask_to), &SliceCopy { row, .. }))| {
                let mut rng = self.random(step, "labelled", self.share.place(i));
                let geometry = self.augmented(&self.config.augmentation.labelled, row, to, &mut rng);
                self.changed_mask(row, &geometry, mask_to);
                let bounds = bounds_of(mask_to);
                (bounds, presence_of(mask_to))
            })
            .unzip();
        (Labelled { images: copy(images), masks: copy(masks), boxes, pretrained: None }, presence)
    }

    /// A slice as it is, `[1, 1, H, W]` on the host: of any row, since no mask is looked at.
    pub fn slice(&self, row: usize) -> Tensor {
        let size = self.store.slice_size();
        let mut image = vec![0.0; size * size];
        self.intensity.stored(self.store.image(row), &mut image);
        Tensor::from_slice(&image).reshape([1, 1, size as i64, size as i64])
    }

    /// A copy of a labelled slice, the same each time, `[1, 1, H, W]` on the host, and its mask.
    pub fn labelled_copy(&self, copy: SliceCopy) -> [Tensor; 2] {
        let size = self.store.slice_size();
        let mut pair = [(); 2].map(|()| vec![0.0; size * size]);
        let [image, mask] = &mut pair;
        let geometry = if copy.copy == 0 {
            self.intensity.stored(self.store.image(copy.row), image);
            Geometry::identity(size)
        } else {
            let mut rng = stream(self.config.seed, &format!("view/{}/{}", copy.row, copy.copy));
            self.augmented(&self.config.augmentation.labelled, copy.row, image, &mut rng)
        };
        self.changed_mask(copy.row, &geometry, mask);
        pair.map(|values| Tensor::from_slice(&values).reshape([1, 1, size as i64, size as i64]))
    }

    /// The one crop, a quarter of the area, that stands for a slice, where its image shows a body, at places of a grid of
    /// `cells` along each axis. `None` if it is all air.
    pub fn weak_crop(&self, row: usize, cells: usize) -> Option<Crop> {
        let grid = self.store.slice_size() / cells;
        let source = self.crop_source(row, cells / 2 * grid, grid);
        // By its name: rows move when a case is added, and an answer is about this crop.
        let mut rng = stream(self.config.seed, &format!("weak-crop/{}", self.store.records()[row].id()));
        let [top, left] = source.draw_body(&self.intensity, &mut rng)?;
        Some(Crop { top, left, side: source.side })
    }

    fn crop_source(&self, row: usize, side: usize, grid: usize) -> CropSource<'_> {
        CropSource { hu: self.store.image(row), size: self.store.slice_size(), side, grid }
    }

    /// The mask of a changed slice: 1 is the target, -1 counts in no loss.
    fn changed_mask(&self, row: usize, geometry: &Geometry, to: &mut [f32]) {
        let mask = self.mask(row);
        geometry.mask(mask, to);
        if mask.contains(&IGNORED) {
            to.iter_mut().filter(|value| **value > 1.0).for_each(|value| *value = -1.0);
        }
    }

    /// Panics where the mask is not paid for: a plan takes masks of labelled slices only.
    fn mask(&self, row: usize) -> &[u8] {
        self.store.mask(row).unwrap_or_else(|| panic!("no mask is paid for in row {row}"))
    }

    /// A changed slice of the store, and where its pixels are from.
    fn augmented(&self, augmentation: &Augmentation, row: usize, to: &mut [f32], rng: &mut ChaCha8Rng) -> Geometry {
        self.changed(augmentation, self.store.image(row), self.store.slice_size(), to, rng)
    }

    fn changed(
        &self,
        augmentation: &Augmentation,
        hu: &[i16],
        size: usize,
        to: &mut [f32],
        rng: &mut ChaCha8Rng,
    ) -> Geometry {
        if augmentation.is_off() {
            self.intensity.stored(hu, to);
            return Geometry::identity(size);
        }
        let geometry = Geometry::draw(augmentation, size, rng);
        geometry.image(hu, to);
        self.finish(augmentation, to, size, rng);
        geometry
    }

    /// From moved HU to what the stages see.
    fn finish(&self, augmentation: &Augmentation, hu: &mut [f32], size: usize, rng: &mut ChaCha8Rng) {
        Appearance::draw(augmentation, rng).apply(hu, size, self.intensity.window());
        self.intensity.changed(hu);
    }

    /// The random stream of one image of a step.
    fn random(&self, step: &Step, part: &str, i: usize) -> ChaCha8Rng {
        stream(self.config.seed, &format!("augment/{}/{part}/{i}", step.index))
    }

    fn empty(&self, images: usize, size: usize) -> HostBatch {
        HostBatch::new(images, size, self.device)
    }

    fn labels(&self, positive: &[bool]) -> Tensor {
        labels(positive, self.device)
    }
}

/// The tight box around a square mask's target.
pub fn bounds_of(mask: &[f32]) -> Option<BoxPrompt> {
    let target: Vec<bool> = mask.iter().map(|&value| value > 0.0).collect();
    BoxPrompt::around(&target, target.len().isqrt())
}

/// Whether a mask shows the target; nobody knows where its only pixels that could be are ignored.
fn presence_of(mask: &[f32]) -> Option<bool> {
    if mask.iter().any(|&value| value > 0.0) {
        return Some(true);
    }
    mask.iter().all(|&value| value == 0.0).then_some(false)
}

/// `[n]`, 1 or 0.
pub fn labels(positive: &[bool], device: Device) -> Tensor {
    let values: Vec<f32> = positive.iter().map(|&p| f32::from(u8::from(p))).collect();
    sent(&Tensor::from_slice(&values), device)
}
