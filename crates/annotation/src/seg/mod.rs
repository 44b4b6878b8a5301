//! DICOM-SEG (PS3.3, A.51 and, for label maps, A.51.6 of Supplement 243).

mod pixels;
mod read;
mod write;

pub(crate) use read::read;
pub use write::{DicomSegType, write_dicom_seg};
