//! Which patients are for training, validation and test, and which N slices are labelled.
//!
//! Invariants: no patient is in two splits; the records and the seed decide everything; the choice is written by slice name
//! and can be replayed, on the store that it was made on.

mod check;
mod error;
mod random;
mod rows;
mod select;
mod split;
mod subset;
mod worklist;

pub use error::SamplingError;
pub use random::stream_seed;
pub use rows::{Rows, for_training, rows_of};
pub use select::{All, LabelledCount, SamplingSettings, Selection, select};
pub use split::{Split, SplitRule, split_patients};
pub use subset::{
    Choice, DisagreeingSubset, KCenterSubset, NoSights, Pool, PredictedSlice, Sights, StratifiedSubset, SubsetStrategy,
    UncertainSubset, UniformSubset, keep_middle,
};
pub use worklist::{Purpose, Wanted, Worklist, worklist};
