//! What happens in which step, decided before training by the configuration, the selection and the seed alone: so any step
//! can be prepared ahead, by any number of threads, and a resumed run continues as if nothing had happened.

use crate::config::{Config, PhaseConfig};
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

/// All steps of a run. `train` and `labelled` are rows of the store.
///
/// An epoch passes once over all training slices and `labelled_passes` times over the labelled ones; the shorter of the
/// two sequences is spread evenly over the longer. With `labelled_steps` it passes over the labelled slices' copies, as often
/// as so many steps need.
pub fn plan(config: &Config, train: &[usize], labelled: &[usize]) -> Vec<Step> {
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
                    labelled: guided[share(i, guided.len())].concat(),
                    masks,
                });
            }
        }
    }
    steps
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(passes: usize) -> Config {
        let text = format!(
            "[sampling]\nlabelled = 5\n[classifier]\nbatch_slices = 4\n[[phase]]\nname = \"a\"\nepochs = 2\nlabelled_passes = {passes}\n"
        );
        Config::parse(&text, &[]).unwrap()
    }

    #[test]
    fn every_epoch_sees_each_slice_once_and_each_labelled_slice_as_often_as_asked() {
        let (train, labelled): (Vec<usize>, Vec<usize>) = ((0..30).collect(), vec![3, 8, 9, 20, 29]);
        for passes in [0, 1, 7] {
            let steps = plan(&config(passes), &train, &labelled);
            for epoch in 0..2 {
                let mut seen = [0; 30];
                let mut guided = [0; 30];
                for step in steps.iter().filter(|s| s.epoch == epoch) {
                    step.slices.iter().for_each(|&r| seen[r] += 1);
                    step.labelled.iter().for_each(|v| guided[v.row] += 1);
                }
                assert_eq!(seen, [1; 30]);
                assert!((0..30).all(|r| guided[r] == if labelled.contains(&r) { passes } else { 0 }));
            }
            assert_eq!(steps.iter().filter(|s| s.ends_epoch).count(), 2);
            assert!(steps.iter().enumerate().all(|(i, s)| s.index == i && s.labelled.len() <= 1 + passes / 7));
        }
    }

    #[test]
    fn an_update_takes_as_many_steps_as_asked_or_are_left_in_the_epoch() {
        let rows: Vec<usize> = (0..28).collect();
        let mut config = config(1);
        config.optimizer.accumulate_steps = 3;
        // Seven batches of four in each of two epochs: updates of 3, 3 and 1 steps.
        let steps = plan(&config, &rows, &rows[..5]);
        let found: Vec<(usize, bool)> = steps.iter().map(|s| (s.accumulates, s.updates)).collect();
        let epoch = [(3, false), (3, false), (3, true), (3, false), (3, false), (3, true), (1, true)];
        assert_eq!(found, [epoch, epoch].concat());
    }

    #[test]
    fn views_are_shared_evenly_and_so_many_steps_see_them_equally_often() {
        let found: Vec<(usize, usize)> = copies(&[4, 9], 3).iter().map(|c| (c.row, c.copy)).collect();
        assert_eq!(found, [(4, 0), (4, 1), (4, 2), (9, 0), (9, 1)]);
        let mut config = config(1);
        config.augmented_copies.count = 3;
        let phase = &mut config.phases[0];
        (phase.labelled_steps, phase.batch_labelled, phase.train_classifier) = (5, 2, false);
        let steps: Vec<Step> =
            plan(&config, &[4, 9], &[4, 9]).into_iter().filter(|s| s.phase == 0 && s.epoch == 0).collect();
        assert!(steps.len() == 5 && steps.iter().all(|s| s.labelled.len() == 2));
        let mut seen: Vec<SliceCopy> = steps.iter().flat_map(|s| s.labelled.clone()).collect();
        seen.sort();
        seen.dedup_by(|a, b| a == b);
        assert_eq!(seen, copies(&[4, 9], 3));
    }

    #[test]
    fn the_seed_decides_the_plan() {
        let rows: Vec<usize> = (0..20).collect();
        let a = plan(&config(1), &rows, &rows[..5]);
        assert_eq!(a, plan(&config(1), &rows, &rows[..5]));
        let mut other = config(1);
        other.seed = 1;
        assert_ne!(a, plan(&other, &rows, &rows[..5]));
    }
}
