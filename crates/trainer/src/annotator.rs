//! Stands in for the annotator: what training asks of people, and what each answer costs.
//!
//! Invariant: beside masks that are paid for, an answer about one crop at a time is all that is taken from a mask, and each
//! is counted: in [`slice_store::TrainingSlices`], which alone can open it.

use crate::config::{Config, WeakCrops};
use anyhow::Result;
use run_record::{Annotation, EarlierRun, LabelBudget, RunRecord};
use slice_sampling::Rows;
use slice_sampling::Selection;
use slice_sampling::rows_of;
use slice_store::{Crop, Presence, SliceId, SliceLabel, Slices, TrainingSlices};
use std::collections::BTreeSet;

/// An annotator who is shown a crop is taken to see the target if it covers more than this share of it: in a crop of 128
/// pixels, 13 × 13 of them.
pub const SEEN_SHARE: f32 = 0.01;

/// Whether the crop shows the target; `None` where nobody can say.
pub fn sees_target(store: &TrainingSlices, row: usize, crop: Crop) -> Option<bool> {
    store.crop_shows_target(row, crop, SEEN_SHARE)
}

/// The slices of a run: of the training slices those of which something is known that can be taught, and of these as many as are
/// wanted.
pub fn rows(config: &Config, store: &Slices, selection: &Selection) -> Result<Rows> {
    let mut rows = Rows::of(store, selection)?;
    match config.classifier.weak_crops {
        WeakCrops::Off => rows.train.retain(|&row| is_known(store, row)),
        // Only where there is a mask, or the answer itself, can the annotator's answer be had.
        WeakCrops::OnePerSlice => rows.train.retain(|&row| store.records()[row].has_mask() || store.has_answers(row)),
    }
    if config.classifier.bags {
        rows.bags = bags(store, &rows_of(store, &selection.train)?);
    }
    rows.thin_out(config.augmented_copies.slices);
    Ok(rows)
}

/// Volumes of these rows that are said to show the target somewhere, where nobody has said it of a slice: all of their slices that may,
/// whichever share of the volume training keeps.
fn bags(store: &Slices, train: &[usize]) -> Vec<Vec<usize>> {
    let records = store.records();
    let cases: BTreeSet<&str> = train.iter().map(|&row| records[row].case.as_str()).collect();
    let rows: Vec<usize> = (0..records.len()).filter(|&row| cases.contains(records[row].case.as_str())).collect();
    let volumes = rows.chunk_by(|&a, &b| records[a].case == records[b].case);
    let is_open = |volume: &&[usize]| volume.iter().all(|&row| !records[row].has_target());
    let may = |row: &&usize| records[**row].label == SliceLabel::VolumePresent;
    let bags = volumes.filter(is_open).map(|volume| volume.iter().filter(may).copied().collect());
    bags.filter(|bag: &Vec<usize>| !bag.is_empty()).collect()
}

/// Training slices that are known to be without the target.
pub fn absent(store: &Slices, rows: &Rows) -> Vec<usize> {
    rows.train.iter().copied().filter(|&row| store.records()[row].presence() == Presence::Absent).collect()
}

/// Whether anybody has said whether a slice shows the target.
fn is_known(store: &Slices, row: usize) -> bool {
    store.records()[row].presence() != Presence::Unknown
}

/// What a run will read, before it reads anything: of crops, at most.
pub fn budget(
    config: &Config,
    store: &Slices,
    selection: &Selection,
    earlier: Option<&EarlierRun>,
) -> Result<LabelBudget> {
    let rows = rows(config, store, selection)?;
    let ids = |rows: &[usize]| -> Vec<SliceId> { rows.iter().map(|&row| store.records()[row].id()).collect() };
    let unmasked = |ids: &[SliceId]| -> Vec<SliceId> {
        ids.iter().filter(|id| !selection.labelled.contains(id)).cloned().collect()
    };
    let learns = config.classifier.kind != "none" && config.phases.iter().any(|p| p.train_classifier && p.epochs > 0);
    let with_absent = config.phases.iter().any(|p| p.batch_absent > 0);
    let taught = match (learns, with_absent) {
        (true, _) => unmasked(&ids(&rows.train)),
        (false, true) => ids(&absent(store, &rows)),
        (false, false) => Vec::new(),
    };
    let mut budget = LabelBudget::default();
    budget.set(Annotation::Masks, selection.labelled.clone());
    budget.set(Annotation::ValidationMasks, selection.validation.clone());
    let is_by_crops = config.classifier.weak_crops == WeakCrops::OnePerSlice;
    // Whether they show the target is known of the slices that the labelled ones were chosen among.
    let mut chosen_among = unmasked(&selection.train);
    chosen_among.retain(|id| store.position(id).is_some_and(|row| is_known(store, row)));
    if is_by_crops {
        budget.set(Annotation::CropLabels, taught);
    } else {
        chosen_among.retain(|id| !taught.contains(id));
        budget.set(Annotation::ImageLevelLabels, taught);
    }
    budget.set(Annotation::SelectionLabels, chosen_among);
    if learns {
        let first = |bag: &Vec<usize>| store.records()[bag[0]].id();
        budget.set(Annotation::VolumeLabels, rows.bags.iter().map(first).collect());
    }
    complete(&mut budget, config, earlier);
    Ok(budget)
}

/// Adds what the run read that this one began with, and what all of it takes.
fn complete(budget: &mut LabelBudget, config: &Config, earlier: Option<&EarlierRun>) {
    if let Some(before) = earlier {
        // One seed places the crops of all runs alike.
        budget.include(&before.label_budget, before.seed == config.seed);
    }
    budget.set_seconds(config.label_seconds);
}

/// In the place of what was expected of crops, what was read, once some was.
pub fn count_crops(record: &mut RunRecord, config: &Config, store: &TrainingSlices) {
    let crops = store.annotations_read().crops;
    if !crops.is_empty() {
        let slices = crops.into_iter().flat_map(|(id, count)| std::iter::repeat_n(id, count));
        record.label_budget.set(Annotation::CropLabels, slices.collect());
        complete(&mut record.label_budget, config, record.earlier.as_ref());
    }
}
