//! A file of segmentations onto a CT's grid, whatever its format.

use crate::header::Header;
use crate::segmentation::Segmentation;
use crate::{AnnotationError, Ct, rtstruct, seg, slicer};
use ct_ingest::{DicomPixels, IngestError, open_dicom};
use dicom_dictionary_std::{tags, uids};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads the segments of these names from a DICOM-SEG, an RTSTRUCT or a `.seg.nrrd`, known by their content, onto the CT's grid.
///
/// A name is a segment's label (an RTSTRUCT's: ROI name), letter case apart; in a DICOM-SEG without such a label, the meaning of the code
/// of what it shows. Voxels outside of the file's own grid are 0.
///
/// # Errors
/// A file of another kind, or damaged; a name that no segment has, or several have; a grid that is neither the CT's nor a part of it;
/// another series or frame of reference than the CT's; contours that are no outlines on the CT's slices.
pub fn read_segmentation(path: &Path, names: &[&str], ct: &Ct<'_>) -> Result<Segmentation, AnnotationError> {
    if is_nrrd(path)? {
        return slicer::read(path, names, ct);
    }
    let Some(object) = open_dicom(path, DicomPixels::Read)? else {
        return Err(AnnotationError::NoSegmentation {
            path: path.to_path_buf(),
            found: "is no DICOM and no NRRD".to_owned(),
        });
    };
    let class = object.uid(tags::SOP_CLASS_UID);
    match class.as_deref() {
        Some(uids::SEGMENTATION_STORAGE | uids::LABEL_MAP_SEGMENTATION_STORAGE) => seg::read(path, &object, names, ct),
        Some(uids::RT_STRUCTURE_SET_STORAGE) => rtstruct::read(path, &object, names, ct),
        _ => {
            let modality = object.text(tags::MODALITY).filter(|text| text.bytes().all(|b| b.is_ascii_uppercase()));
            let modality = modality.map_or_else(String::new, |modality| format!(" of modality {modality}"));
            let found = format!("is a DICOM object{modality}, class {}", class.as_deref().unwrap_or("unknown"));
            Err(AnnotationError::NoSegmentation { path: path.to_path_buf(), found })
        }
    }
}

fn is_nrrd(path: &Path) -> Result<bool, AnnotationError> {
    let io = |reason| IngestError::Io { action: "read", path: path.to_path_buf(), reason };
    let mut head = Vec::new();
    File::open(path).map_err(io)?.take(7).read_to_end(&mut head).map_err(io)?;
    Ok(head == b"NRRD000")
}
