//! CT volumes to checked geometry to resized slices in a slice store, and masks back again.
//!
//! Invariant: an image and a mask meet only after [`check_same_geometry`] has compared them.

mod error;
mod geometry;
mod orientation;
mod resample;
mod slices;
mod volume;
mod write;

pub use error::IngestError;
pub use geometry::{AffineKind, Geometry, Grid, check_same_geometry};
pub use orientation::{Orientation, ParseOrientationError, Toward};
pub use slices::{SlicePlan, SlicePosition, image_slices, mask_slices};
pub use volume::{Volume, Voxels, read_volume};
pub use write::write_mask;
