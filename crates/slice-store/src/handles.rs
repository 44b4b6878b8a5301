//! Who may read masks: training those that were paid for, evaluation all.
//!
//! Invariant: nothing that has a [`TrainingSlices`] and not the store gets at a mask outside of its list, or at a number that
//! was counted in one; and what it read is counted.

use crate::{IGNORED, Presence, SliceId, SliceLabel, SliceStore, Slices, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

/// A store as training sees it: images and records of all slices, masks of those that are in the label budget or empty by their label.
pub struct TrainingSlices<'a> {
    store: &'a SliceStore,
    /// By row.
    is_paid: Vec<bool>,
    /// The mask of a slice without the target.
    empty: Vec<u8>,
    read: Mutex<Read>,
}

/// What was asked for, by row.
#[derive(Default)]
struct Read {
    masks: BTreeSet<usize>,
    crops: BTreeSet<(usize, Crop)>,
}

/// A square part of a slice, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Crop {
    /// Upper row.
    pub top: usize,
    /// Left column.
    pub left: usize,
    /// Rows, and columns.
    pub side: usize,
}

/// The annotation that training has read, beside image-level labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnotationsRead {
    /// Slices whose masks were read.
    pub masks: Vec<SliceId>,
    /// Slices of which crops were labelled, and how many crops of each.
    pub crops: Vec<(SliceId, usize)>,
}

/// A store as evaluation sees it: with every mask.
pub struct EvaluationSlices<'a> {
    store: &'a SliceStore,
    /// The mask of a slice without the target.
    empty: Vec<u8>,
}

impl SliceStore {
    /// The handle that training reads through: it gives the masks of the rows that are `paid` for (labelled and validation
    /// slices), and no other.
    ///
    /// # Errors
    /// The store has no mask of one of these slices. Panics where there is no such row.
    pub fn for_training(&self, paid: impl IntoIterator<Item = usize>) -> Result<TrainingSlices<'_>, StoreError> {
        let mut is_paid = vec![false; self.records().len()];
        for row in paid {
            let record = &self.records()[row];
            if !record.has_mask() {
                return Err(StoreError::NoMask { path: self.path().to_path_buf(), slice: record.id() });
            }
            is_paid[row] = true;
        }
        Ok(TrainingSlices { store: self, is_paid, empty: self.empty_mask(), read: Mutex::default() })
    }

    /// The handle that evaluation reads through.
    pub fn for_evaluation(&self) -> EvaluationSlices<'_> {
        EvaluationSlices { store: self, empty: self.empty_mask() }
    }

    fn empty_mask(&self) -> Vec<u8> {
        vec![0; self.slice_size().pow(2)]
    }
}

impl TrainingSlices<'_> {
    /// The mask in a row of the index: 1 is the target, [`IGNORED`] counts in no loss, `size * size` pixels, row by row. `None` where it is
    /// not paid for, but that of a slice which is known to be without the target is empty: its image-level label says so.
    /// Panics where there is no such row.
    pub fn mask(&self, row: usize) -> Option<&[u8]> {
        if !self.is_paid[row] {
            return (self.records()[row].presence() == Presence::Absent).then_some(self.empty.as_slice());
        }
        self.read(|read| read.masks.insert(row));
        self.store.masks.of(self.store, row)
    }

    /// Asks an annotator of one crop: what was answered already, or whether more than `share` of its area is the target in the slice's
    /// mask. That is a label of its own, which is
    /// counted, unless the slice's mask is paid for. `None` where nobody can say, as the store has no mask of the slice, or ignores a part of
    /// the crop. Panics
    /// where the crop does not lie in the slice.
    pub fn crop_shows_target(&self, row: usize, crop: Crop, share: f32) -> Option<bool> {
        let size = self.slice_size();
        if let (Some(shows), false) = (self.answered(row, crop), self.is_paid[row]) {
            self.read(|read| read.crops.insert((row, crop)));
            return Some(shows);
        }
        let mask = self.store.masks.of(self.store, row)?;
        self.read(|read| if self.is_paid[row] { read.masks.insert(row) } else { read.crops.insert((row, crop)) });
        let lines = (crop.top..crop.top + crop.side).map(|y| &mask[y * size + crop.left..][..crop.side]);
        let count = |wanted: u8| -> usize { lines.clone().flatten().map(|&value| usize::from(value == wanted)).sum() };
        let shows = count(1) as f32 > share * (crop.side * crop.side) as f32;
        (shows || count(IGNORED) == 0).then_some(shows)
    }

    /// What was read so far.
    pub fn annotations_read(&self) -> AnnotationsRead {
        let id = |row: usize| self.records()[row].id();
        self.read(|read| {
            let crops: Vec<usize> = read.crops.iter().map(|(row, _)| *row).collect();
            AnnotationsRead {
                masks: read.masks.iter().map(|&row| id(row)).collect(),
                crops: crops.chunk_by(|a, b| a == b).map(|rows| (id(rows[0]), rows.len())).collect(),
            }
        })
    }

    fn read<T>(&self, with: impl FnOnce(&mut Read) -> T) -> T {
        with(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl EvaluationSlices<'_> {
    /// The mask in a row of the index: 1 is the target, [`IGNORED`] counts in no metric, `size * size` pixels, row by row. `None` where the
    /// store has none.
    /// Panics where there is no such row.
    pub fn mask(&self, row: usize) -> Option<&[u8]> {
        self.store.masks.of(self.store, row)
    }

    /// What a prediction for the slice in a row of the index is compared with: its mask, or an empty one where a list says that it doesn't
    /// show the target. `None` of a slice that nobody has annotated, or of which it is only known that it shows the target. Panics where
    /// there is no such row.
    pub fn truth(&self, row: usize) -> Option<&[u8]> {
        let is_listed_absent = self.records()[row].label == SliceLabel::ListAbsent;
        self.mask(row).or_else(|| is_listed_absent.then_some(self.empty.as_slice()))
    }

    /// Pixels of the target in the mask; `None` where the store has none. Panics where there is no such row.
    pub fn target_pixels(&self, row: usize) -> Option<u32> {
        self.store.masks.target_pixels(row)
    }
}

impl Deref for TrainingSlices<'_> {
    type Target = Slices;

    fn deref(&self) -> &Slices {
        self.store
    }
}

impl Deref for EvaluationSlices<'_> {
    type Target = Slices;

    fn deref(&self) -> &Slices {
        self.store
    }
}
