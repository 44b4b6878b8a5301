//! What happens in which step, decided before training by the configuration, the selection and the seed alone: so any step
//! can be prepared ahead, by any number of threads, and a resumed run continues as if nothing had happened.

use crate::config::{Config, PhaseConfig};
use data_parallel::Share;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use slice_sampling::stream_seed;

/// The random stream of that name.
pub fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(stream_seed(seed, name))
}

/// One step: losses and gradients of one batch. An update moves the parameters by the mean gradient of
/// `optimizer.accumulate_steps` steps, or of those that are left in the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// From 0, over the whole run.
    pub index: usize,
    /// Index of the phase.
    pub phase: usize,
    /// Epoch within the phase, from 0.
    pub epoch: usize,
    /// Whether an epoch ends with this step.
    pub ends_epoch: bool,
    /// Steps of the update that this one belongs to.
    pub accumulates: usize,
    /// Whether the update is made after this step.
    pub updates: bool,
    /// Rows of the store for the classifier; empty where the step has no classifier batch.
    pub slices: Vec<usize>,
    /// Crops for the classifier: the row of a labelled slice, and whether the crop shows the target.
    pub crops: Vec<(usize, bool)>,
    /// Labelled slices for the segmentation loss.
    pub labelled: Vec<SliceCopy>,
    /// Labelled slices whose masks teach the classifier's map.
    pub masks: Vec<SliceCopy>,
    /// Slices of a volume each, one of which shows the target.
    pub bags: Vec<Vec<usize>>,
}

impl Step {
    /// The part of it that is a share's.
    #[must_use]
    pub fn share(&self, share: Share) -> Self {
        Self {
            slices: share.of(&self.slices),
            crops: share.of(&self.crops),
            labelled: share.of(&self.labelled),
            masks: share.of(&self.masks),
            bags: share.of(&self.bags),
            ..*self
        }
    }
}

/// A labelled slice as it is, or one of its augmented copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SliceCopy {
    /// Row of the store.
    pub row: usize,
    /// 0: as it is.
    pub copy: usize,
}

impl SliceCopy {
    /// A slice as it is.
    pub fn unchanged(row: usize) -> Self {
        Self { row, copy: 0 }
    }
}

/// The copies of the labelled slices: each as it is, and `count` augmented ones shared evenly among them.
pub fn copies(labelled: &[usize], count: usize) -> Vec<SliceCopy> {
    let slices = labelled.len().max(1);
    let of = |i: usize| count / slices + usize::from(i < count % slices);
    labelled.iter().enumerate().flat_map(|(i, &row)| (0..=of(i)).map(move |copy| SliceCopy { row, copy })).collect()
}

/// All steps of a run. `train`, `labelled`, `bags` and `absent` (slices without the target) are rows of the store.
///
/// An epoch passes once over all training slices and `labelled_passes` times over the labelled ones; the shorter of the
/// two sequences is spread evenly over the longer. Of each bag it takes as many slices, once, as a step has. With `labelled_steps` it passes over the labelled slices' copies, as often
/// as so many steps need.
pub fn plan(config: &Config, train: &[usize], labelled: &[usize], bags: &[Vec<usize>], absent: &[usize]) -> Vec<Step> {
    let copies = copies(labelled, config.augmented_copies.count);
    let mut steps = Vec::new();
    for (phase, settings) in config.phases.iter().enumerate() {
        for epoch in 0..settings.epochs {
            let mut rng = stream(config.seed, &format!("order/{phase}/{epoch}"));
            let mut order = if settings.train_classifier { train.to_vec() } else { Vec::new() };
            order.shuffle(&mut rng);
            let batches: Vec<&[usize]> = order.chunks(config.classifier.batch_slices).collect();
            let guided = guided(settings, labelled, &copies, &mut rng);
            let guided: Vec<&[SliceCopy]> = guided.chunks(settings.batch_labelled).collect();
            let bags = if settings.train_classifier { bags_of(bags, config, (phase, epoch)) } else { Vec::new() };
            let mut of_absent = stream(config.seed, &format!("absent/{phase}/{epoch}"));
            let count = batches.len().max(guided.len());
            // Of `total` things, those that fall to step `i` when they are spread evenly.
            let share = |i: usize, total: usize| i * total / count..(i + 1) * total / count;
            for i in 0..count {
                let slices: Vec<usize> = batches[share(i, batches.len())].concat();
                let crops = if config.classifier.crop_negatives && !slices.is_empty() {
                    (0..config.classifier.batch_crops)
                        .map(|k| (labelled[rng.random_range(0..labelled.len())], k % 2 == 0))
                        .collect()
                } else {
                    Vec::new()
                };
                let mut guided = guided[share(i, guided.len())].concat();
                if !guided.is_empty() {
                    let drawn = |_| SliceCopy::unchanged(absent[of_absent.random_range(0..absent.len())]);
                    guided.extend((0..settings.batch_absent).map(drawn));
                }
                let masks = if slices.is_empty() { 0 } else { config.classifier.batch_masks };
                let masks = (0..masks).map(|_| copies[rng.random_range(0..copies.len())]).collect();
                let accumulate = config.optimizer.accumulate_steps;
                let first = i / accumulate * accumulate;
                let accumulates = accumulate.min(count - first);
                steps.push(Step {
                    index: steps.len(),
                    phase,
                    epoch,
                    ends_epoch: i + 1 == count,
                    accumulates,
                    updates: i + 1 == first + accumulates,
                    slices,
                    crops,
                    labelled: guided,
                    masks,
                    bags: bags[share(i, bags.len())].to_vec(),
                });
            }
        }
    }
    steps
}

/// The bags of an epoch in their order, of each as many slices as a step has, at even distances.
fn bags_of(bags: &[Vec<usize>], config: &Config, (phase, epoch): (usize, usize)) -> Vec<Vec<usize>> {
    let mut rng = stream(config.seed, &format!("bags/{phase}/{epoch}"));
    let mut drawn = |bag: &Vec<usize>| {
        let count = config.classifier.batch_slices.min(bag.len());
        let offset = rng.random_range(0..bag.len().max(1));
        (0..count).map(|i| bag[(i * bag.len() + offset) / count]).collect()
    };
    let mut drawn: Vec<Vec<usize>> = bags.iter().map(&mut drawn).collect();
    drawn.shuffle(&mut rng);
    drawn
}

/// The labelled slices of an epoch in their order.
fn guided(phase: &PhaseConfig, labelled: &[usize], copies: &[SliceCopy], rng: &mut ChaCha8Rng) -> Vec<SliceCopy> {
    let shuffled = |of: &[SliceCopy], rng: &mut ChaCha8Rng| {
        let mut pass = of.to_vec();
        pass.shuffle(rng);
        pass
    };
    let mut guided = Vec::new();
    if phase.labelled_steps > 0 {
        let wanted = phase.labelled_steps * phase.batch_labelled;
        while guided.len() < wanted && !copies.is_empty() {
            guided.extend(shuffled(copies, rng));
        }
        guided.truncate(wanted);
        return guided;
    }
    let as_they_are: Vec<SliceCopy> = labelled.iter().map(|&row| SliceCopy::unchanged(row)).collect();
    for _ in 0..phase.labelled_passes {
        guided.extend(shuffled(&as_they_are, rng));
    }
    guided
}
