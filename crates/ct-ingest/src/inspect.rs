//! What a store holds, in numbers, and whether its pixels are still those that were written.

use crate::IngestError;
use rayon::prelude::*;
use serde::Serialize;
use slice_store::{LabelCounts, SliceStore, StoreSettings};
use std::collections::HashSet;

/// A store in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreSummary {
    /// The manifest's name.
    pub dataset: String,
    /// The organ that the masks show.
    pub target: String,
    /// How the slices were made.
    pub settings: StoreSettings,
    /// The version that made the store.
    pub tool_version: String,
    /// The store's checksum.
    pub checksum: String,
    /// Patients.
    pub patients: usize,
    /// What is known of its slices.
    #[serde(flatten)]
    pub labels: LabelCounts,
    /// Lowest and highest HU; `None` if there are no slices.
    pub hu_range: Option<[i16; 2]>,
    /// The cases in natural order.
    pub cases: Vec<CaseSummary>,
    /// Cases whose slices are in the store's folders, but which have left its index.
    pub left_out: Vec<String>,
}

/// A case in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseSummary {
    /// Its name.
    pub case: String,
    /// The patient's key.
    pub patient: String,
    /// What is known of its slices.
    #[serde(flatten)]
    pub labels: LabelCounts,
    /// Pixels of the target in all slices.
    pub target_pixels: u64,
    /// Row, column and slice spacing of the stored slices in mm.
    pub spacing_mm: [f32; 3],
    /// Whether they may be trusted.
    pub spacing_valid: bool,
}

/// Counts everything in a store; every pixel is read for the HU range.
pub fn summarise(store: &SliceStore) -> Result<StoreSummary, IngestError> {
    let info = store.info();
    let records = store.records();
    let masks = store.for_evaluation();
    let mut target_pixels = (0..records.len()).map(|row| u64::from(masks.target_pixels(row).unwrap_or(0)));
    let mut case = |rows: &[slice_store::SliceRecord]| CaseSummary {
        case: rows[0].case.clone(),
        patient: rows[0].patient.clone(),
        labels: LabelCounts::of(rows),
        target_pixels: target_pixels.by_ref().take(rows.len()).sum(),
        spacing_mm: [rows[0].row_spacing_mm, rows[0].column_spacing_mm, rows[0].slice_spacing_mm],
        spacing_valid: rows[0].spacing_valid,
    };
    let range = |range: Option<[i16; 2]>, row: usize| {
        store.image(row).iter().fold(range, |range, &hu| {
            let [low, high] = range.unwrap_or([hu, hu]);
            Some([low.min(hu), high.max(hu)])
        })
    };
    Ok(StoreSummary {
        dataset: info.dataset.clone(),
        target: info.target.clone(),
        settings: info.settings.clone(),
        tool_version: info.tool_version.clone(),
        checksum: store.checksum().to_owned(),
        patients: records.iter().map(|record| &record.patient).collect::<HashSet<_>>().len(),
        labels: LabelCounts::of(records),
        hu_range: (0..records.len()).fold(None, range),
        cases: records.chunk_by(|a, b| a.case == b.case).map(&mut case).collect(),
        left_out: store.left_out()?,
    })
}

/// What a comparison of a store's pixels with their digests found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files that were read; 0 in a store of format 1, which has no digests.
    pub arrays: usize,
    /// Those that are not what was written, and why.
    pub changed: Vec<String>,
}

/// Reads all images and masks of a store and compares each with its digest.
pub fn verify(store: &SliceStore) -> Verified {
    let arrays = store.arrays();
    let changed = arrays.par_iter().filter_map(|array| array.verify().err()).map(|error| error.to_string()).collect();
    Verified { arrays: arrays.len(), changed }
}
