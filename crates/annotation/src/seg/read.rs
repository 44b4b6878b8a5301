//! DICOM-SEG onto a CT's grid.
//!
//! Invariant: a frame lies where its own position, orientation and pixel spacing put it; its number says nothing.

use super::pixels::Frames;
use crate::header::Header;
use crate::names::Named;
use crate::names::chosen;
use crate::segmentation::{ReadSegment, Segmentation};
use crate::{AnnotationError, Ct};
use ct_ingest::{AffineKind, Geometry, Grid};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject};
use std::collections::HashMap;
use std::path::Path;

/// What a pixel's number means.
#[derive(Clone, Copy)]
enum Meaning {
    /// The frame's segment is there, or not.
    Binary,
    /// So much of the frame's segment is there, of so much at most.
    Fractional { most: u32 },
    /// The segment of that number is there; this value, or 0, is the background.
    LabelMap { background: Option<u16> },
}

/// Reads the named segments.
pub(crate) fn read(
    path: &Path,
    object: &DefaultDicomObject,
    names: &[&str],
    ct: &Ct<'_>,
) -> Result<Segmentation, AnnotationError> {
    let invalid = |problem: String| AnnotationError::invalid(path, problem);
    ct.check_series(path, &referenced_series(object))?;
    ct.check_frame_of_reference(path, object.uid(tags::FRAME_OF_REFERENCE_UID).as_deref())?;
    let meaning = meaning(object).map_err(invalid)?;
    let (numbers, all) = segments(object, meaning).map_err(invalid)?;
    let chosen = chosen(path, names, &all)?;
    let mut masks: Vec<Vec<u8>> = names.iter().map(|_| vec![0; ct.voxels()]).collect();
    // A segment may be asked for twice.
    let wanted: Vec<u32> = chosen.iter().map(|&place| numbers[place]).collect();
    let masks_of = |number: u32| (0..wanted.len()).filter(|&mask| wanted[mask] == number).collect::<Vec<_>>();
    let known = |number: u32| numbers.contains(&number);

    let layout = Layout::of(object).map_err(invalid)?;
    let bits = bits(object, meaning).map_err(invalid)?;
    let frames = Frames::of(object, layout.frames.len(), layout.size, bits).map_err(invalid)?;
    // By segment (label maps: 0) and place.
    let mut seen: HashMap<(u32, usize), usize> = HashMap::new();
    for number in 0..layout.frames.len() {
        let of_frame =
            |problem: String| invalid(format!("is a DICOM segmentation whose frame {} {problem}", number + 1));
        let segment = match meaning {
            Meaning::LabelMap { .. } => 0,
            _ => layout.segment(number).ok_or_else(|| of_frame("has no ReferencedSegmentNumber".to_owned()))?,
        };
        if segment != 0 && masks_of(segment).is_empty() {
            if !known(segment) {
                return Err(of_frame(format!("is of segment {segment}, which is not described")));
            }
            continue;
        }
        let geometry = layout.geometry(number).map_err(of_frame)?;
        let [rows, columns] = layout.size;
        let part = Grid { path, shape: [columns, rows, 1], geometry: &geometry };
        let placement = ct.place(part, &format!("its frame {}", number + 1))?;
        if let Some(other) = seen.insert((segment, placement.place([0; 3])), number) {
            return Err(of_frame(format!("lies where its frame {} does, of the same segment", other + 1)));
        }
        let pixels = frames.frame(number).map_err(|problem| invalid(format!("{problem} (frame {})", number + 1)))?;
        for (place, &value) in pixels.iter().enumerate() {
            let value_of = match meaning {
                Meaning::Binary => segment * u32::from(value != 0),
                Meaning::Fractional { most } => segment * u32::from(2 * u32::from(value) >= most),
                Meaning::LabelMap { background } if background == Some(value) => 0,
                Meaning::LabelMap { .. } => u32::from(value),
            };
            if value_of == 0 {
                continue;
            }
            if !known(value_of) {
                return Err(of_frame(format!("has the value {value}, which is that of no segment")));
            }
            for mask in masks_of(value_of) {
                masks[mask][placement.place([place % columns, place / columns, 0])] = 1;
            }
        }
    }
    let name = |place: usize| all[place].name.clone();
    let segments = chosen.iter().zip(masks).map(|(&place, mask)| ReadSegment { name: name(place), mask }).collect();
    Ok(Segmentation { segments, warnings: Vec::new() })
}

fn meaning(object: &InMemDicomObject) -> Result<Meaning, String> {
    let found = object.text(tags::SEGMENTATION_TYPE);
    match found.as_deref() {
        Some("BINARY") => Ok(Meaning::Binary),
        Some("FRACTIONAL") => match object.whole(tags::MAXIMUM_FRACTIONAL_VALUE) {
            Some(most) if most > 0 => Ok(Meaning::Fractional { most }),
            _ => Err("is a fractional DICOM segmentation without a MaximumFractionalValue".to_owned()),
        },
        Some("LABELMAP") => {
            let background = object.whole(tags::PIXEL_PADDING_VALUE).and_then(|value| u16::try_from(value).ok());
            Ok(Meaning::LabelMap { background })
        }
        _ => Err("is a DICOM segmentation whose SegmentationType is not BINARY, FRACTIONAL or LABELMAP".to_owned()),
    }
}

fn bits(object: &InMemDicomObject, meaning: Meaning) -> Result<usize, String> {
    match (object.whole(tags::BITS_ALLOCATED), meaning) {
        (Some(1), Meaning::Binary) => Ok(1),
        (Some(8), _) => Ok(8),
        (Some(16), Meaning::LabelMap { .. }) => Ok(16),
        (found, _) => {
            let found = found.map_or_else(|| "none".to_owned(), |bits| bits.to_string());
            Err(format!(
                "is a DICOM segmentation whose BitsAllocated is {found}, expected 1 for BINARY, 8 for FRACTIONAL, 8 or 16 for LABELMAP"
            ))
        }
    }
}

/// The segments' numbers and names. The background of a label map, which is segment 0, is none of them.
fn segments(object: &InMemDicomObject, meaning: Meaning) -> Result<(Vec<u32>, Vec<Named>), String> {
    let (mut numbers, mut names) = (Vec::new(), Vec::new());
    for item in object.items(tags::SEGMENT_SEQUENCE) {
        let number =
            item.whole(tags::SEGMENT_NUMBER).ok_or("is a DICOM segmentation with a segment without a number")?;
        let is_background = match meaning {
            Meaning::LabelMap { background } => number == 0 || background.map(u32::from) == Some(number),
            _ => false,
        };
        if is_background {
            continue;
        }
        if number == 0 || numbers.contains(&number) {
            return Err(format!(
                "is a DICOM segmentation with a segment of number {number}, which is 0 or another's too"
            ));
        }
        let code = item.items(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE).first();
        numbers.push(number);
        names.push(Named {
            name: item.text(tags::SEGMENT_LABEL).unwrap_or_default(),
            meaning: code.and_then(|code| code.text(tags::CODE_MEANING)),
        });
    }
    Ok((numbers, names))
}

/// The series that it refers to, in its own study and in others.
fn referenced_series(object: &InMemDicomObject) -> Vec<String> {
    let others = object.items(tags::STUDIES_CONTAINING_OTHER_REFERENCED_INSTANCES_SEQUENCE);
    let series = |object: &InMemDicomObject| -> Vec<String> {
        let items = object.items(tags::REFERENCED_SERIES_SEQUENCE);
        items.iter().filter_map(|item| item.uid(tags::SERIES_INSTANCE_UID)).collect()
    };
    series(object).into_iter().chain(others.iter().flat_map(series)).collect()
}

/// Where frames lie: functional groups of all frames and of each (PS3.3, C.7.6.16).
struct Layout<'a> {
    /// Rows and columns.
    size: [usize; 2],
    shared: Option<&'a InMemDicomObject>,
    frames: &'a [InMemDicomObject],
}

impl<'a> Layout<'a> {
    fn of(object: &'a InMemDicomObject) -> Result<Self, String> {
        let size = |tag| object.whole(tag).filter(|&size| (1..=1 << 16).contains(&size)).map(|size| size as usize);
        let (Some(rows), Some(columns)) = (size(tags::ROWS), size(tags::COLUMNS)) else {
            return Err("is a DICOM segmentation without valid Rows and Columns".to_owned());
        };
        let frames = object.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        let number = object.whole(tags::NUMBER_OF_FRAMES);
        if frames.is_empty() || number != Some(frames.len() as u32) {
            let number = number.map_or_else(|| "no number of".to_owned(), |number| number.to_string());
            return Err(format!("is a DICOM segmentation with {number} frames, but places of {}", frames.len()));
        }
        Ok(Self {
            size: [rows, columns],
            shared: object.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first(),
            frames,
        })
    }

    /// The item of a functional group that holds for a frame.
    fn group(&self, frame: usize, tag: Tag) -> Option<&'a InMemDicomObject> {
        self.frames[frame].items(tag).first().or_else(|| self.shared?.items(tag).first())
    }

    fn segment(&self, frame: usize) -> Option<u32> {
        self.group(frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE)?.whole(tags::REFERENCED_SEGMENT_NUMBER)
    }

    /// A frame as a grid of one slice: its pixels are what counts, its thickness is not.
    fn geometry(&self, frame: usize) -> Result<Geometry, String> {
        let missing = |what: &str| format!("has no valid {what}, so that its place is not known");
        let group = |tag, what: &str| self.group(frame, tag).ok_or_else(|| missing(what));
        let position = group(tags::PLANE_POSITION_SEQUENCE, "PlanePositionSequence")?
            .vector::<3>(tags::IMAGE_POSITION_PATIENT)
            .ok_or_else(|| missing("ImagePositionPatient"))?;
        let [a, b, c, d, e, f] = group(tags::PLANE_ORIENTATION_SEQUENCE, "PlaneOrientationSequence")?
            .vector::<6>(tags::IMAGE_ORIENTATION_PATIENT)
            .ok_or_else(|| missing("ImageOrientationPatient"))?;
        let [between_rows, between_columns] = group(tags::PIXEL_MEASURES_SEQUENCE, "PixelMeasuresSequence")?
            .vector::<2>(tags::PIXEL_SPACING)
            .ok_or_else(|| missing("PixelSpacing"))?;
        let (row, column) = ([a, b, c], [d, e, f]);
        let normal = [b * f - c * e, c * d - a * f, a * e - b * d];
        let axes = [row.map(|x| x * between_columns), column.map(|x| x * between_rows), normal, position];
        // DICOM's left and posterior are right and anterior with the other sign; adding zero makes negative zeros positive.
        let line = |world: usize, sign: f64| axes.map(|axis| sign * axis[world] + 0.0);
        let affine = [line(0, -1.0), line(1, -1.0), line(2, 1.0), [0.0, 0.0, 0.0, 1.0]];
        Geometry::of_affine(affine, AffineKind::Dicom)
            .map_err(|problem| format!("has the place {:?}, {problem}", [position, row, column]))
    }
}
