//! Rows of the store by name.

use anyhow::{Context, Result};
use slice_sampling::Selection;
use slice_store::{SliceId, SliceStore};

/// Rows of the store by use.
pub struct Rows {
    /// All training slices.
    pub train: Vec<usize>,
    /// The N labelled ones.
    pub labelled: Vec<usize>,
    /// The fixed validation slices.
    pub validation: Vec<usize>,
}

impl Rows {
    /// Looks the names up; a name that the store doesn't have means that it is another store.
    pub fn of(store: &SliceStore, selection: &Selection) -> Result<Self> {
        Ok(Self {
            train: rows_of(store, &selection.train)?,
            labelled: rows_of(store, &selection.labelled)?,
            validation: rows_of(store, &selection.validation)?,
        })
    }
}

/// Rows of slices by name.
pub fn rows_of(store: &SliceStore, ids: &[SliceId]) -> Result<Vec<usize>> {
    ids.iter()
        .map(|id| {
            store.position(id).with_context(|| {
                format!(
                    "the run uses slice '{id}', which the store '{}' doesn't have: it is another store",
                    store.path().display()
                )
            })
        })
        .collect()
}
