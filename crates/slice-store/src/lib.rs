//! The data seam: a prepared data set on disk, its index, its reader and its writer. No tensors.
//!
//! A store is a directory of plain files that NumPy, pandas and DuckDB open without this crate:
//!
//! | file | content |
//! | --- | --- |
//! | `store.json` | [`StoreInfo`]: format version, data set, target, settings, tool version, manifest |
//! | `images/<case>.npy` | int16 HU, `[slices, size, size]` |
//! | `masks/<case>.npy` | uint8, 0, 1 or 255 (ignored), `[slices with a mask, size, size]`; absent where the case has none |
//! | `cases/<case>.json` | the case's records, the slices of its masks, digests and provenance; written last: its presence means that the case is whole |
//! | `labels/<case>/before-NNNN.npy` | masks that imported ones took the place of |
//! | `crops.json` | what annotators said of crops of slices; absent where nobody was asked |
//! | `index.sha256` | the SHA-256 of the next |
//! | `index.parquet` | a row for each slice ([`SliceRecord`]); its presence means that the store is whole |
//!
//! That is format 2. Format 1, where each slice has a mask, is read and no longer written.
//!
//! Slices are in LPS display order: rows run to posterior, columns to the patient's left, slice 0 is the most inferior.
//!
//! Invariants: every file is written under a temporary name, synced and renamed; no file changes in place. Who has no handle
//! made for it ([`TrainingSlices`], [`EvaluationSlices`]) gets no mask.

mod crops;
mod error;
mod files;
mod format1;
mod handles;
mod import;
mod index;
mod mmap;
mod natural;
mod npy;
mod place;
mod record;
mod settings;
mod store;
mod writer;

pub use crops::AnsweredCrop;
pub use error::StoreError;
pub use files::replace_file;
pub use handles::{AnnotationsRead, Crop, EvaluationSlices, TrainingSlices};
pub use import::Relabelled;
pub use mmap::map_file;
pub use natural::natural_order;
pub use record::{
    IGNORED, LabelCounts, Presence, PresenceCounts, PresenceSource, SliceId, SliceLabel, SliceRecord, counted,
    counted_of, target_of,
};
pub use settings::{FORMAT_VERSION, MaskResize, Scale, StoreInfo, StoreSettings, Window, WindowAt};
pub use store::{SliceStore, Slices, StoredArray};
pub use writer::{CaseData, Import, KnownCase, StoreWriter, cases_in, settings_of};

#[cfg(target_endian = "big")]
compile_error!("slice stores are little-endian and memory-mapped: big-endian machines can't read them");

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
