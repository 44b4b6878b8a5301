//! CT volumes to checked geometry to resized slices in a slice store, and masks back again.
//!
//! Invariant: an image and a mask meet only after [`check_same_geometry`] has compared them.

mod case;
mod check;
mod checksum;
mod coverage;
mod discover;
mod error;
mod folder;
mod geometry;
mod inspect;
mod intensity;
mod manifest;
mod montage;
mod names;
mod native;
mod orientation;
mod part;
mod prepare;
mod presence;
mod resample;
mod slices;
mod source;
mod stored;
mod volume;
mod workers;
mod write;

pub use check::{Check, CheckedCase, Found, Would, check};
pub use checksum::sha256 as sha256_of_bytes;
pub use coverage::MaskCoverage;
pub use discover::{CaseFiles, Discovery, Pattern, discover};
pub use error::IngestError;
pub use folder::{volume_name, volumes_in};
pub use geometry::{AffineKind, Geometry, GeometryTolerance, Grid, check_same_geometry};
pub use inspect::{CaseSummary, StoreSummary, Verified, summarise, verify};
pub use intensity::{Intensity, ParseIntensityError};
pub use manifest::{Manifest, OneOrMore, PatientRule};
pub use montage::{Tile, write_crops, write_montage, write_preview, write_sheet};
pub use native::{NativeMasks, NativePair};
pub use orientation::{Orientation, ParseOrientationError, Toward};
pub use part::Placement;
pub use prepare::{Event, Outcome, PrepareOptions, Shard, Summary, prepare};
pub use slice_store::StoreSettings;
pub use slices::{SlicePlan, SlicePosition, image_slices, mask_slices};
pub use source::sha256_of as sha256_of_file;
pub use stored::{CutMask, StoredCt};
pub use volume::{
    AffineChoice, DicomPixels, DicomSeries, PreferredSeries, ReadOptions, Scalar, SegmentLabels, Volume, Voxels,
    is_dicom_file, open_dicom, open_dicom_series, preferred_dicom_series, read_grid, read_volume, unpack_dicom_frame,
};
pub use write::{mask_doubt, write_mask, write_mask_on_grid, write_probabilities};
