//! RTSTRUCT for a CT that is a DICOM series.

use super::outline::outlines;
use crate::source::{Put, References, code, decimal, now, object, reference, save};
use crate::{Algorithm, AnnotationError, CtSeries, Painted};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use std::path::Path;
use whole_file::Existing;

/// Detached Study Management, which references to studies have as their class (PS3.3, C.8.8.5).
const STUDY_CLASS: &str = "1.2.840.10008.3.1.2.3.1";

/// Coordinates are written to a ten-thousandth of a millimetre, a hundredth of what outlines keep from pixels' edges and less.
const DIGITS: f64 = 1e4;

/// Writes segments as an RTSTRUCT: a region of interest each, with outlines along the edges of its pixels, on each slice that has any.
/// Read back, by the rule that pixels count whose centres are inside, they give exactly the masks.
///
/// # Errors
/// Masks of another length than the CT's; names that DICOM can't hold; what [`whole_file::check_place`] refuses; what the operating
/// system does.
pub fn write_rtstruct(
    path: &Path,
    ct: &CtSeries,
    segments: &[Painted<'_>],
    existing: Existing,
) -> Result<(), AnnotationError> {
    Painted::check(path, segments, ct.grid().shape)?;
    Painted::check_for_dicom(path, segments)?;
    let references = References::of(ct);
    let mut structures = object(ct, &references, uids::RT_STRUCTURE_SET_STORAGE, "RTSTRUCT", "Segmentation");
    let [date, time] = now();
    structures.put_text(tags::OPERATORS_NAME, VR::PN, "");
    structures.put_text(tags::STRUCTURE_SET_LABEL, VR::SH, "Segmentation");
    structures.put_text(tags::STRUCTURE_SET_DATE, VR::DA, &date);
    structures.put_text(tags::STRUCTURE_SET_TIME, VR::TM, &time);
    structures.put_text(tags::APPROVAL_STATUS, VR::CS, "UNAPPROVED");
    structures.put_text(tags::FRAME_OF_REFERENCE_UID, VR::UI, &references.frame_of_reference);
    structures.put_text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
    structures.put_items(tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE, vec![referenced(&references)]);
    let numbered = || segments.iter().enumerate().map(|(place, painted)| (place + 1, painted));
    let regions = numbered().map(|(number, painted)| region(number, painted, &references)).collect();
    structures.put_items(tags::STRUCTURE_SET_ROI_SEQUENCE, regions);
    let contours =
        numbered().map(|(number, painted)| contours(number, painted, ct, &references)).collect::<Result<_, _>>()?;
    structures.put_items(tags::ROI_CONTOUR_SEQUENCE, contours);
    let observations = numbered().map(|(number, painted)| observation(number, painted)).collect();
    structures.put_items(tags::RTROI_OBSERVATIONS_SEQUENCE, observations);
    // Implicit: lengths of texts have 16 bits in explicit little endian, and an outline of 2000 corners is longer.
    save(path, structures, uids::IMPLICIT_VR_LITTLE_ENDIAN, ct, existing)
}

/// The frame of reference, and the study and series in it.
fn referenced(references: &References<'_>) -> InMemDicomObject {
    let mut frame = InMemDicomObject::new_empty();
    frame.put_text(tags::FRAME_OF_REFERENCE_UID, VR::UI, &references.frame_of_reference);
    if let Some(uid) = &references.series {
        let mut series = InMemDicomObject::new_empty();
        series.put_text(tags::SERIES_INSTANCE_UID, VR::UI, uid);
        series.put_items(tags::CONTOUR_IMAGE_SEQUENCE, references.all());
        let mut study = reference([STUDY_CLASS, &references.study]);
        study.put_items(tags::RT_REFERENCED_SERIES_SEQUENCE, vec![series]);
        frame.put_items(tags::RT_REFERENCED_STUDY_SEQUENCE, vec![study]);
    }
    frame
}

fn region(number: usize, painted: &Painted<'_>, references: &References<'_>) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    item.put_text(tags::ROI_NUMBER, VR::IS, &number.to_string());
    item.put_text(tags::REFERENCED_FRAME_OF_REFERENCE_UID, VR::UI, &references.frame_of_reference);
    item.put_text(tags::ROI_NAME, VR::LO, painted.segment.name.trim());
    if !painted.segment.description.is_empty() {
        item.put_text(tags::ROI_DESCRIPTION, VR::ST, &painted.segment.description);
    }
    match &painted.segment.algorithm {
        Algorithm::Automatic { name, version } => {
            item.put_text(tags::ROI_GENERATION_ALGORITHM, VR::CS, "AUTOMATIC");
            item.put_text(tags::ROI_GENERATION_DESCRIPTION, VR::LO, format!("{name} {version}").trim());
        }
        Algorithm::Manual => item.put_text(tags::ROI_GENERATION_ALGORITHM, VR::CS, "MANUAL"),
    }
    item
}

/// A region's colour and outlines.
fn contours(
    number: usize,
    painted: &Painted<'_>,
    ct: &CtSeries,
    references: &References<'_>,
) -> Result<InMemDicomObject, AnnotationError> {
    let [columns, rows, slices] = ct.grid().shape;
    let mut item = InMemDicomObject::new_empty();
    let colour = painted.segment.colour.map(|part| part.to_string());
    item.put(DataElement::new(tags::ROI_DISPLAY_COLOR, VR::IS, PrimitiveValue::Strs(colour.as_slice().into())));
    let mut all = Vec::new();
    for slice in 0..slices {
        let mask = &painted.mask[slice * columns * rows..][..columns * rows];
        let place = ct.pixels_of(slice)?;
        for outline in outlines(|column, row| mask[column + columns * row] != 0, [columns, rows]) {
            let rounded = |mm: f64| decimal((mm * DIGITS).round() / DIGITS);
            let texts: Vec<String> = outline.iter().flat_map(|&point| place(point)).map(rounded).collect();
            let mut contour = InMemDicomObject::new_empty();
            if let Some(image) = references.slice(slice) {
                contour.put_items(tags::CONTOUR_IMAGE_SEQUENCE, vec![image]);
            }
            contour.put_text(tags::CONTOUR_GEOMETRIC_TYPE, VR::CS, "CLOSED_PLANAR");
            contour.put_text(tags::NUMBER_OF_CONTOUR_POINTS, VR::IS, &outline.len().to_string());
            contour.put_text(tags::CONTOUR_NUMBER, VR::IS, &(all.len() + 1).to_string());
            contour.put(DataElement::new(tags::CONTOUR_DATA, VR::DS, PrimitiveValue::Strs(texts.into())));
            all.push(contour);
        }
    }
    if !all.is_empty() {
        item.put_items(tags::CONTOUR_SEQUENCE, all);
    }
    item.put_text(tags::REFERENCED_ROI_NUMBER, VR::IS, &number.to_string());
    Ok(item)
}

fn observation(number: usize, painted: &Painted<'_>) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    item.put_text(tags::OBSERVATION_NUMBER, VR::IS, &number.to_string());
    item.put_text(tags::REFERENCED_ROI_NUMBER, VR::IS, &number.to_string());
    item.put_items(tags::RTROI_IDENTIFICATION_CODE_SEQUENCE, vec![code(&painted.segment.kind)]);
    item.put_text(tags::RTROI_INTERPRETED_TYPE, VR::CS, "");
    item.put_text(tags::ROI_INTERPRETER, VR::PN, "");
    item
}
