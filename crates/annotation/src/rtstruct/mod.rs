//! RTSTRUCT (PS3.3, A.19): regions of interest as closed planar contours.
//!
//! Pixel rule: a pixel counts if its centre is inside the outlines of its slice (even-odd, over all contours of the region) or on one of
//! them.

mod fill;
mod outline;
mod read;
mod write;

pub(crate) use read::read;
pub use write::write_rtstruct;

/// A closed polygon on a slice: columns and rows, pixels' centres at whole numbers.
type Polygon = Vec<[f64; 2]>;
