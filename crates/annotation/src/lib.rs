//! Segmentations as people have them: DICOM-SEG, RTSTRUCT and 3D Slicer's `.seg.nrrd`, read onto a CT's grid and written for one.
//!
//! Invariant: a segment is known by its name, a voxel by its place in the patient; numbers of segments and orders of frames say
//! nothing.

mod crops;
mod ct;
mod error;
mod folder;
mod header;
mod import;
mod names;
mod outputs;
mod read;
mod rtstruct;
mod seg;
mod segment;
mod segmentation;
mod slicer;
mod source;
mod worklist;

pub use crops::{import_crops, undo_crops, write_crop_sheet};
pub use ct::{Ct, CtSeries};
pub use error::AnnotationError;
pub use folder::FirstPicture;
pub use import::{ImportCoverage, ImportError, ImportOptions, Imported, ImportedCase, import_labels, undo_import};
pub use outputs::{Beside, MaskFormat, MaskJob, Wanted, mask_jobs};
pub use read::read_segmentation;
pub use rtstruct::write_rtstruct;
pub use seg::{DicomSegType, write_dicom_seg};
pub use segment::{Algorithm, Code, Painted, Segment};
pub use segmentation::{ReadSegment, Segmentation};
pub use slicer::write_seg_nrrd;
pub use worklist::{Proposals, WorklistLine, check_worklist_place, worklist_lines, write_worklist};
