//! Rows of the store by name.

use crate::{SamplingError, Selection};
use slice_store::{SliceId, SliceStore, Slices, TrainingSlices};

/// Rows of the store by use.
pub struct Rows {
    /// All training slices.
    pub train: Vec<usize>,
    /// The N labelled ones.
    pub labelled: Vec<usize>,
    /// The fixed validation slices.
    pub validation: Vec<usize>,
    /// Slices of training volumes of which it is only known that one of them shows the target, where that is taught.
    pub bags: Vec<Vec<usize>>,
}

impl Rows {
    /// Looks the names up; a name that the store doesn't have means that it is another store.
    pub fn of(store: &Slices, selection: &Selection) -> Result<Self, SamplingError> {
        Ok(Self {
            train: rows_of(store, &selection.train)?,
            labelled: rows_of(store, &selection.labelled)?,
            validation: rows_of(store, &selection.validation)?,
            bags: Vec::new(),
        })
    }

    /// Leaves at most `count` training slices beside the labelled ones, evenly spaced; 0: all.
    pub fn thin_out(&mut self, count: usize) {
        let others = self.train.len().saturating_sub(self.labelled.len());
        if count == 0 || others <= count {
            return;
        }
        let mut seen = 0;
        self.train.retain(|row| {
            if self.labelled.contains(row) {
                return true;
            }
            seen += 1;
            // One more of `count` falls due with this one of the `others`.
            seen * count / others > (seen - 1) * count / others
        });
    }
}

/// The store as a run sees it: with the masks of its labelled and validation slices.
pub fn for_training<'a>(store: &'a SliceStore, selection: &Selection) -> Result<TrainingSlices<'a>, SamplingError> {
    let Rows { labelled, validation, .. } = Rows::of(store, selection)?;
    Ok(store.for_training(labelled.into_iter().chain(validation))?)
}

/// Rows of slices by name.
pub fn rows_of(store: &Slices, ids: &[SliceId]) -> Result<Vec<usize>, SamplingError> {
    ids.iter()
        .map(|id| {
            store
                .position(id)
                .ok_or_else(|| SamplingError::UnknownSlice { slice: id.clone(), store: store.path().to_owned() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_evenly_spaced_and_has_all_labelled_slices() {
        let rows =
            || Rows { train: (10..20).collect(), labelled: vec![11, 12], validation: Vec::new(), bags: Vec::new() };
        let thinned = |count| {
            let mut rows = rows();
            rows.thin_out(count);
            rows.train
        };
        assert_eq!(thinned(4), [11, 12, 13, 15, 17, 19]);
        assert_eq!(thinned(0), rows().train);
        assert_eq!(thinned(8), rows().train);
    }
}
