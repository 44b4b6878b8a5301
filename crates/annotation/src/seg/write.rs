//! DICOM-SEG for a CT that is a DICOM series: every slice of it is a frame, in its order and its grid.
//!
//! Slices without the segment have frames too: programs that take frames for evenly spaced slices (ITK) put a segmentation with a gap
//! in a wrong place.

use super::pixels::packed;
use crate::source::{Put, References, code, new_uid, now, object, save};
use crate::{Algorithm, AnnotationError, Code, CtSeries, Painted};
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use std::path::Path;
use whole_file::Existing;

/// How the pixels of a DICOM-SEG are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DicomSegType {
    /// One bit a pixel, frames of their own for each segment: what every program reads. Segments may overlap.
    #[default]
    Binary,
    /// A segment's number a pixel (Supplement 243, 2023): smaller and quicker where there are many segments, which must not overlap.
    LabelMap,
}

/// Writes segments as a DICOM-SEG, with references to the CT's series and slices and with its patient and study.
///
/// # Errors
/// Masks of another length than the CT's, or that overlap in a label map; names that DICOM
/// can't hold; what [`whole_file::check_place`] refuses; what the operating system does.
pub fn write_dicom_seg(
    path: &Path,
    ct: &CtSeries,
    segments: &[Painted<'_>],
    kind: DicomSegType,
    existing: Existing,
) -> Result<(), AnnotationError> {
    Painted::check(path, segments, ct.grid().shape)?;
    Painted::check_for_dicom(path, segments)?;
    let references = References::of(ct);
    let pixels = match kind {
        DicomSegType::Binary => {
            let bits = segments.iter().flat_map(|painted| painted.mask.iter().map(|&value| value != 0));
            packed(bits, segments.len() * ct.grid().shape.iter().product::<usize>())
        }
        DicomSegType::LabelMap => label_map(path, segments)?,
    };
    let wide = kind == DicomSegType::LabelMap && segments.len() > usize::from(u8::MAX);
    let (class, name) = match kind {
        DicomSegType::Binary => (uids::SEGMENTATION_STORAGE, "BINARY"),
        DicomSegType::LabelMap => (uids::LABEL_MAP_SEGMENTATION_STORAGE, "LABELMAP"),
    };
    let mut seg = object(ct, &references, class, "SEG", "Segmentation");
    describe_image(&mut seg, ct, kind, wide);
    seg.put_text(tags::FRAME_OF_REFERENCE_UID, VR::UI, &references.frame_of_reference);
    seg.put_text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
    if let Some(uid) = &references.series {
        let mut series = InMemDicomObject::new_empty();
        series.put_items(tags::REFERENCED_INSTANCE_SEQUENCE, references.all());
        series.put_text(tags::SERIES_INSTANCE_UID, VR::UI, uid);
        seg.put_items(tags::REFERENCED_SERIES_SEQUENCE, vec![series]);
    }
    seg.put_text(tags::SEGMENTATION_TYPE, VR::CS, name);
    let background = (kind == DicomSegType::LabelMap).then(background);
    let described = segments.iter().enumerate().map(|(place, painted)| description(place, painted));
    seg.put_items(tags::SEGMENT_SEQUENCE, background.into_iter().chain(described).collect());
    describe_frames(&mut seg, ct, &references, segments.len(), kind);
    let (vr, pixels) = if wide {
        let words: Vec<u16> = pixels.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        (VR::OW, PrimitiveValue::U16(words.into()))
    } else {
        (VR::OB, PrimitiveValue::U8(pixels.into()))
    };
    seg.put(DataElement::new(tags::PIXEL_DATA, vr, pixels));
    save(path, seg, uids::EXPLICIT_VR_LITTLE_ENDIAN, ct, existing)
}

/// The number of each voxel's segment, of one byte or two; 0 is the background.
fn label_map(path: &Path, segments: &[Painted<'_>]) -> Result<Vec<u8>, AnnotationError> {
    let width = if segments.len() > usize::from(u8::MAX) { 2 } else { 1 };
    let mut bytes = vec![0; (segments[0].mask.len() * width).next_multiple_of(2)];
    for (place, painted) in segments.iter().enumerate() {
        let label = (place as u16 + 1).to_le_bytes();
        for (voxel, _) in painted.mask.iter().enumerate().filter(|(_, value)| **value != 0) {
            let to = &mut bytes[voxel * width..][..width];
            if to.iter().any(|&byte| byte != 0) {
                let other = segments[..place].iter().find(|other| other.mask[voxel] != 0).unwrap_or(painted);
                let [a, b] = [other, painted].map(|painted| painted.segment.name.escape_debug());
                let problem =
                    format!("its segments '{a}' and '{b}' overlap, which a label map can't hold: write it as BINARY");
                return Err(AnnotationError::Masks { path: path.to_path_buf(), problem });
            }
            to.copy_from_slice(&label[..width]);
        }
    }
    Ok(bytes)
}

/// Pixels, and what it is altogether.
fn describe_image(seg: &mut InMemDicomObject, ct: &CtSeries, kind: DicomSegType, wide: bool) {
    let [columns, rows, _] = ct.grid().shape;
    let bits = match (kind, wide) {
        (DicomSegType::Binary, _) => 1,
        (DicomSegType::LabelMap, false) => 8,
        (DicomSegType::LabelMap, true) => 16,
    };
    let [date, time] = now();
    seg.put(DataElement::new(tags::IMAGE_TYPE, VR::CS, dicom_value!(Strs, ["DERIVED", "PRIMARY"])));
    seg.put_text(tags::CONTENT_DATE, VR::DA, &date);
    seg.put_text(tags::CONTENT_TIME, VR::TM, &time);
    seg.put_text(tags::CONTENT_LABEL, VR::CS, "SEGMENTATION");
    seg.put_text(tags::CONTENT_DESCRIPTION, VR::LO, "Segmentation of a CT series");
    seg.put_text(tags::CONTENT_CREATOR_NAME, VR::PN, "");
    seg.put_text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00");
    seg.put_short(tags::SAMPLES_PER_PIXEL, 1);
    seg.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    seg.put_short(tags::ROWS, rows as u16);
    seg.put_short(tags::COLUMNS, columns as u16);
    seg.put_short(tags::BITS_ALLOCATED, bits);
    seg.put_short(tags::BITS_STORED, bits);
    seg.put_short(tags::HIGH_BIT, bits - 1);
    seg.put_short(tags::PIXEL_REPRESENTATION, 0);
    if kind == DicomSegType::LabelMap {
        seg.put_short(tags::PIXEL_PADDING_VALUE, 0);
    }
}

/// A segment as an item of the Segment Sequence.
fn description(place: usize, painted: &Painted<'_>) -> InMemDicomObject {
    let segment = painted.segment;
    let mut item = InMemDicomObject::new_empty();
    item.put_items(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, vec![code(&segment.category)]);
    item.put_short(tags::SEGMENT_NUMBER, place as u16 + 1);
    item.put_text(tags::SEGMENT_LABEL, VR::LO, segment.name.trim());
    if !segment.description.is_empty() {
        item.put_text(tags::SEGMENT_DESCRIPTION, VR::ST, &segment.description);
    }
    match &segment.algorithm {
        Algorithm::Automatic { name, version } => {
            item.put_text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
            item.put_text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, name);
            let mut algorithm = InMemDicomObject::new_empty();
            let family = Code::dcm("123110", "Artificial Intelligence");
            algorithm.put_items(tags::ALGORITHM_FAMILY_CODE_SEQUENCE, vec![code(&family)]);
            algorithm.put_text(tags::ALGORITHM_VERSION, VR::LO, version);
            algorithm.put_text(tags::ALGORITHM_NAME, VR::LO, name);
            item.put_items(tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE, vec![algorithm]);
        }
        Algorithm::Manual => item.put_text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "MANUAL"),
    }
    let colour = PrimitiveValue::U16(cie_lab(segment.colour).as_slice().into());
    item.put(DataElement::new(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, VR::US, colour));
    item.put_items(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, vec![code(&segment.kind)]);
    item
}

/// Segment 0 of a label map.
fn background() -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    let of = Code::dcm("125040", "Background");
    item.put_items(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, vec![code(&of)]);
    item.put_short(tags::SEGMENT_NUMBER, 0);
    item.put_text(tags::SEGMENT_LABEL, VR::LO, "Background");
    item.put_text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "MANUAL");
    item.put_items(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, vec![code(&of)]);
    item
}

/// Where frames lie, and which slices they were made of.
fn describe_frames(
    seg: &mut InMemDicomObject,
    ct: &CtSeries,
    references: &References<'_>,
    segments: usize,
    kind: DicomSegType,
) {
    let slices = references.len();
    let of_segments = match kind {
        DicomSegType::Binary => segments,
        DicomSegType::LabelMap => 1,
    };
    seg.put_text(tags::NUMBER_OF_FRAMES, VR::IS, &(slices * of_segments).to_string());
    let organization = new_uid();
    let mut uid = InMemDicomObject::new_empty();
    uid.put_text(tags::DIMENSION_ORGANIZATION_UID, VR::UI, &organization);
    seg.put_items(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![uid.clone()]);
    let dimension = |pointer, group, label: &str| {
        let mut item = uid.clone();
        for (tag, value) in [(tags::DIMENSION_INDEX_POINTER, pointer), (tags::FUNCTIONAL_GROUP_POINTER, group)] {
            item.put(DataElement::new(tag, VR::AT, PrimitiveValue::from(value)));
        }
        item.put_text(tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, label);
        item
    };
    let by_segment =
        dimension(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE, "ReferencedSegmentNumber");
    let by_place = dimension(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE, "ImagePositionPatient");
    let dimensions = match kind {
        DicomSegType::Binary => vec![by_segment, by_place],
        DicomSegType::LabelMap => vec![by_place],
    };
    seg.put_items(tags::DIMENSION_INDEX_SEQUENCE, dimensions);
    seg.put_items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared(ct)]);
    let mut frames = Vec::with_capacity(slices * of_segments);
    for segment in 1..=of_segments {
        for slice in 0..slices {
            let mut frame = InMemDicomObject::new_empty();
            if let Some(mut source) = references.slice(slice) {
                let purpose = Code::dcm("121322", "Source image for image processing operation");
                source.put_items(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![code(&purpose)]);
                source.put_text(tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES");
                frame.nest(tags::DERIVATION_IMAGE_SEQUENCE, |item| {
                    item.put_items(tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
                    let derivation = Code::dcm("113076", "Segmentation");
                    item.put_items(tags::DERIVATION_CODE_SEQUENCE, vec![code(&derivation)]);
                });
            }
            let place = slice as u32 + 1;
            let indices = match kind {
                DicomSegType::Binary => vec![segment as u32, place],
                DicomSegType::LabelMap => vec![place],
            };
            frame.nest(tags::FRAME_CONTENT_SEQUENCE, |item| {
                let indices = PrimitiveValue::U32(indices.into());
                item.put(DataElement::new(tags::DIMENSION_INDEX_VALUES, VR::UL, indices));
            });
            frame.nest(tags::PLANE_POSITION_SEQUENCE, |item| {
                item.put_decimals(tags::IMAGE_POSITION_PATIENT, &ct.slices[slice].position);
            });
            if kind == DicomSegType::Binary {
                frame.nest(tags::SEGMENT_IDENTIFICATION_SEQUENCE, |item| {
                    item.put_short(tags::REFERENCED_SEGMENT_NUMBER, segment as u16);
                });
            }
            frames.push(frame);
        }
    }
    seg.put(DataElement::new(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, VR::SQ, DataSetSequence::from(frames)));
}

/// What holds for every frame: as the CT's own headers have it.
fn shared(ct: &CtSeries) -> InMemDicomObject {
    let mut shared = InMemDicomObject::new_empty();
    let copy = |item: &mut InMemDicomObject, tag| {
        if let Some(element) = ct.header.get(tag) {
            item.put(DataElement::new(tag, VR::DS, element.value().clone()));
        }
    };
    shared.nest(tags::PLANE_ORIENTATION_SEQUENCE, |item| copy(item, tags::IMAGE_ORIENTATION_PATIENT));
    // Along the slices' normal, which is not the slice axis where a gantry was tilted.
    let geometry = ct.grid().geometry;
    let [_, tilt] = geometry.shear_degrees();
    let between = geometry.spacing_mm[2] * tilt.to_radians().cos();
    shared.nest(tags::PIXEL_MEASURES_SEQUENCE, |item| {
        copy(item, tags::PIXEL_SPACING);
        item.put_decimals(tags::SLICE_THICKNESS, &[between]);
        item.put_decimals(tags::SPACING_BETWEEN_SLICES, &[between]);
    });
    shared
}

/// A sequence of one item.
trait Nest {
    fn nest(&mut self, tag: dicom_core::Tag, fill: impl FnOnce(&mut InMemDicomObject));
}

impl Nest for InMemDicomObject {
    fn nest(&mut self, tag: dicom_core::Tag, fill: impl FnOnce(&mut InMemDicomObject)) {
        let mut item = InMemDicomObject::new_empty();
        fill(&mut item);
        self.put_items(tag, vec![item]);
    }
}

/// A colour of sRGB as DICOM codes CIE L*a*b* (PS3.3, C.10.7.1.1), with the white point D50 of its profile connection space. sRGB by
/// IEC 61966-2-1, adapted from D65 by Bradford's matrix.
fn cie_lab(colour: [u8; 3]) -> [u16; 3] {
    let linear = colour.map(|part| {
        let part = f64::from(part) / 255.0;
        if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    });
    let rows = [
        [0.436_074_7, 0.385_064_9, 0.143_080_4],
        [0.222_504_5, 0.716_878_6, 0.060_616_9],
        [0.013_932_2, 0.097_104_5, 0.714_173_3],
    ];
    let white = [0.964_22, 1.0, 0.825_21];
    let [x, y, z] = [0, 1, 2].map(|i: usize| {
        let value = (0..3).map(|j| rows[i][j] * linear[j]).sum::<f64>() / white[i];
        if value > (6.0_f64 / 29.0).powi(3) {
            value.cbrt()
        } else {
            value * (29.0_f64 / 6.0).powi(2) / 3.0 + 4.0 / 29.0
        }
    });
    let (l, a, b) = (116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z));
    let coded = |value: f64, least: f64, range: f64| ((value - least) / range * 65535.0).round() as u16;
    [coded(l, 0.0, 100.0), coded(a, -128.0, 255.0), coded(b, -128.0, 255.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_the_standard_scheme() {
        // White is L* = 100; a* = b* = 0 is 0x8080.
        assert_eq!(cie_lab([0; 3]), [0, 0x8080, 0x8080]);
        let white = cie_lab([255; 3]);
        assert!(white[0] == 0xffff && white[1..].iter().all(|part| part.abs_diff(0x8080) <= 20), "{white:?}");
        // Pure sRGB red: L* 54.29, a* 80.81, b* 69.89 (D50).
        let [l, a, b] = cie_lab([255, 0, 0]).map(f64::from);
        let found = [l / 655.35, a / 257.0 - 128.0, b / 257.0 - 128.0];
        assert!(found.iter().zip([54.29, 80.81, 69.89]).all(|(a, b)| (a - b).abs() < 0.05), "{found:?}");
    }
}
