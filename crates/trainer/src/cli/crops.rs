//! `sam-mix choose --crops`: parts of slices that an annotator answers yes or no to.

use super::choosing::Choosing;
use crate::config::WeakCrops;
use crate::loader::Loader;
use annotation::write_crop_sheet;
use anyhow::{Context, Result, bail, ensure};
use predictor::Model;
use slice_sampling::{NoSights, Pool, SubsetStrategy, UniformSubset, keep_middle, split_patients};
use slice_store::{Crop, SliceRecord, SliceStore};
use std::path::Path;

/// Writes `count` crops of training slices that nobody has drawn or answered, those that training will ask for; how many there are.
pub(super) fn write(choosing: &Choosing, store: &SliceStore, count: usize, output: &Path) -> Result<usize> {
    let config = choosing.config;
    ensure!(
        config.classifier.weak_crops == WeakCrops::OnePerSlice,
        "--crops are what a classifier with `weak_crops = \"one-per-slice\"` learns from, but the configuration has `weak_crops = \"off\"`"
    );
    let model = Model::new(&config.model(), &choosing.registry.models, choosing.device)?;
    let [_, cells, _] =
        model.segmenter.embedding_shape().context("the segmenter has no embedding that crops are cut from")?;
    let (size, cells) = (store.slice_size(), cells as usize);
    ensure!(
        size.is_multiple_of(cells),
        "slices of {size} pixels don't fit the {cells} places of an embedding along each axis"
    );
    let patients = split_patients(store.records(), &config.sampling.split, config.seed)?.train;
    let of_patients: Vec<&SliceRecord> = store.records().iter().filter(|of| patients.contains(&of.patient)).collect();
    let pool = keep_middle(&of_patients, config.sampling.keep_rate);
    // No mask is paid for.
    let slices = store.for_training([])?;
    let loader = Loader::new(&slices, config, choosing.device, 1)?;
    let crop = |record: &SliceRecord| -> Option<(usize, Crop)> {
        let row = store.position(&record.id())?;
        let crop = loader.weak_crop(row, cells)?;
        (!record.has_mask() && store.answered(row, crop).is_none()).then_some((row, crop))
    };
    let crops: Vec<Option<(usize, Crop)>> = pool.iter().map(|record| crop(record)).collect();
    let candidates: Vec<usize> = (0..pool.len()).filter(|&place| crops[place].is_some()).collect();
    let all = Pool { slices: &pool, candidates: &candidates, drawn: &[], sights: &NoSights };
    let chosen = UniformSubset.choose(&all, count.min(candidates.len()), config.seed)?;
    let chosen: Vec<(usize, Crop)> = chosen.iter().filter_map(|choice| crops[choice.place]).collect();
    if chosen.is_empty() {
        bail!("nothing to answer: every training slice has a mask or an answer, or shows no body");
    }
    write_crop_sheet(output, store, &chosen)?;
    Ok(chosen.len())
}
