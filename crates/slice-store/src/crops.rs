//! `crops.json`: what annotators said of crops of slices, for data in which every slice shows the target.
//!
//! Invariant: the file is replaced whole; of two answers about one crop the later one counts.

use crate::{Crop, SliceId, SliceRecord, Slices, StoreError, StoreWriter, files};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Whether a crop shows the target, as an annotator who saw only the crop said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnsweredCrop {
    /// The slice.
    pub slice: SliceId,
    /// The part of it.
    #[serde(flatten)]
    pub crop: Crop,
    /// The answer.
    pub shows_target: bool,
}

/// Answers that came in together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answers {
    /// Who gave them, when, from which file.
    origin: Value,
    crops: Vec<AnsweredCrop>,
}

/// By row and crop.
pub(crate) type Crops = HashMap<usize, HashMap<Crop, bool>>;

impl StoreWriter {
    /// Adds answers about crops; the masks and labels of the store stay as they are. Of the crops of slices that the store doesn't have, or that
    /// don't lie in them, nothing is said here: the caller compares.
    ///
    /// # Errors
    /// The file is damaged, or can't be written; it is as it was then.
    pub fn import_crops(&self, crops: Vec<AnsweredCrop>, origin: Value) -> Result<(), StoreError> {
        let mut all = read(self.path())?;
        all.push(Answers { origin, crops });
        files::replace_json(&path_of(self.path()), &all)
    }

    /// Takes the last answers back, and says how many they were; `None` if there are none.
    ///
    /// # Errors
    /// As [`Self::import_crops`].
    pub fn undo_crops(&self) -> Result<Option<usize>, StoreError> {
        let mut all = read(self.path())?;
        let Some(last) = all.pop() else { return Ok(None) };
        files::replace_json(&path_of(self.path()), &all)?;
        Ok(Some(last.crops.len()))
    }
}

impl Slices {
    /// What an annotator said of a crop; `None` if nobody was asked. Panics where there is no such row.
    pub fn answered(&self, row: usize, crop: Crop) -> Option<bool> {
        self.crops.get(&row)?.get(&crop).copied()
    }

    /// Whether anybody was asked about a crop of the slice.
    pub fn has_answers(&self, row: usize) -> bool {
        self.crops.contains_key(&row)
    }
}

/// The answers of a store by row; those about slices that have left it are passed over. And the file's digest, if it says anything.
pub(crate) fn open(store: &Path, records: &[SliceRecord]) -> Result<(Crops, Option<String>), StoreError> {
    let answers = read(store)?;
    if answers.iter().all(|of| of.crops.is_empty()) {
        return Ok((Crops::new(), None));
    }
    let rows: HashMap<SliceId, usize> = records.iter().enumerate().map(|(row, record)| (record.id(), row)).collect();
    let mut crops = Crops::new();
    for answer in answers.into_iter().flat_map(|of| of.crops) {
        if let Some(&row) = rows.get(&answer.slice) {
            crops.entry(row).or_default().insert(answer.crop, answer.shows_target);
        }
    }
    files::sha256_of_file(&path_of(store)).map(|digest| (crops, Some(digest)))
}

/// Whether anybody was asked about a crop of the case; of a damaged file it isn't known, and nothing is to be lost.
pub(crate) fn has_answers_of(store: &Path, case: &str) -> bool {
    read(store).map_or(true, |all| all.iter().flat_map(|of| &of.crops).any(|answer| answer.slice.case == case))
}

fn read(store: &Path) -> Result<Vec<Answers>, StoreError> {
    let path = path_of(store);
    if path.exists() { files::read_json(&path) } else { Ok(Vec::new()) }
}

pub(crate) fn path_of(store: &Path) -> PathBuf {
    store.join("crops.json")
}
