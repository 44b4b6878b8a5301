//! RTSTRUCT: contours of others to masks by the stated rule, ours to the very masks that they were made of, and every one that is no
//! outline on the CT's slices.

mod common;

use annotation::{AnnotationError, Ct, CtSeries, Segment, read_segmentation, write_rtstruct};
use common::*;
use ct_ingest::{ReadOptions, read_volume};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{InMemDicomObject, open_file};
use std::path::{Path, PathBuf};
use whole_file::Existing;

/// 24 columns and rows of 0.7 mm, 4 slices.
fn square() -> CtSeries {
    series(&fixture("ct_square"))
}

const SQUARE: usize = 24 * 24 * 4;

#[test]
fn contours_through_the_centres_of_edge_pixels_give_the_mask_they_were_drawn_from() {
    let ct = square();
    let read = read_segmentation(&fixture("rt_utils.dcm"), &["liver"], &ct.ct()).unwrap();
    assert_eq!(read.segments[0].name, "Liver");
    assert!(read.segments[0].mask == expected("ring", SQUARE));
    // Also on a grid that is turned.
    for (axes, flipped) in all_turns() {
        let (grid, places) = turned(ct.grid(), axes, flipped);
        let wanted: Vec<u8> = places.iter().map(|&place| read.segments[0].mask[place]).collect();
        assert!(
            common::read(&fixture("rt_utils.dcm"), "Liver", &Ct::of_grid(grid.grid())) == wanted,
            "{axes:?} {flipped:?}"
        );
    }
}

#[test]
fn what_is_written_is_read_back_for_every_kind_of_series() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.dcm");
    let [liver, other] = [liver(), Segment::named("Läsion 1", program())];
    for (name, ct) in series_of_every_kind(folder.path()) {
        // Scattered pixels: outlines with many holes, and pixels that touch in corners.
        let (a, b) = (scattered(693, 7), scattered(693, 8).iter().map(|value| 1 - value).collect::<Vec<_>>());
        write_rtstruct(&path, &ct, &[painted(&liver, &a), painted(&other, &b)], Existing::Replaced).unwrap();
        let read = read_segmentation(&path, &["läsion 1", "liver"], &ct.ct()).unwrap();
        assert!(read.segments[0].mask == b && read.segments[1].mask == a, "{name}");
        assert!(read.warnings.is_empty());
    }
    let ct = ct();
    write_rtstruct(&path, &ct, &[painted(&liver, &[0; 693])], Existing::Replaced).unwrap();
    let read = read_segmentation(&path, &["liver"], &ct.ct()).unwrap();
    assert_eq!(read.segments[0].mask, [0; 693]);
    assert!(read.warnings[0].contains("'Liver' has no contours: its mask is empty"));
}

#[test]
fn a_written_structure_set_says_whose_it_is_and_on_which_slices() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.dcm");
    let (ct, liver) = (square(), liver());
    let mask = expected("ring", SQUARE);
    write_rtstruct(&path, &ct, &[painted(&liver, &mask)], Existing::Kept).unwrap();
    let found = open_file(&path).unwrap();
    let text = |object: &InMemDicomObject, tag| object.get(tag).unwrap().to_str().unwrap().into_owned();
    assert_eq!(text(&found, tags::PATIENT_NAME), "Müller^Jörg");
    assert_eq!(text(&found, tags::MODALITY), "RTSTRUCT");
    let contours = &found.get(tags::ROI_CONTOUR_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!(contours.get(tags::ROI_DISPLAY_COLOR).unwrap().to_multi_int::<u8>().unwrap(), [221, 130, 101]);
    let contours = contours.get(tags::CONTOUR_SEQUENCE).unwrap().items().unwrap();
    // Two slices, and the hole is part of its outline.
    assert_eq!(contours.len(), 2);
    for (contour, slice) in contours.iter().zip([2, 3]) {
        let slice = open_file(fixture("ct_square").join(format!("{slice}.dcm"))).unwrap();
        let image = &contour.get(tags::CONTOUR_IMAGE_SEQUENCE).unwrap().items().unwrap()[0];
        assert_eq!(text(image, tags::REFERENCED_SOP_INSTANCE_UID), text(&slice, tags::SOP_INSTANCE_UID));
        let points = contour.get(tags::CONTOUR_DATA).unwrap().to_multi_float64().unwrap();
        let z = slice.get(tags::IMAGE_POSITION_PATIENT).unwrap().to_multi_float64().unwrap()[2];
        assert!(points.as_chunks::<3>().0.iter().all(|point| point[2] == z));
    }
    assert!(matches!(
        write_rtstruct(&path, &ct, &[painted(&liver, &mask)], Existing::Kept).unwrap_err(),
        AnnotationError::Place(_)
    ));
}

/// `rt_utils.dcm`, with the first contour of its first region changed.
fn changed(folder: &Path, change: impl Fn(&mut InMemDicomObject)) -> PathBuf {
    let mut object = open_file(fixture("rt_utils.dcm")).unwrap();
    let change = &change;
    first_item(&mut object, tags::ROI_CONTOUR_SEQUENCE, |region| {
        first_item(region, tags::CONTOUR_SEQUENCE, |contour| change(contour));
    });
    let path = folder.join("changed.dcm");
    object.write_to_file(&path).unwrap();
    path
}

fn first_item(object: &mut InMemDicomObject, tag: Tag, change: impl Fn(&mut InMemDicomObject)) {
    object.update_value(tag, |value| change(&mut value.items_mut().unwrap()[0]));
}

fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, text: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(text)));
}

/// Moves a contour's points.
fn moved(contour: &mut InMemDicomObject, by: impl Fn(usize) -> [f64; 3]) {
    let numbers = contour.get(tags::CONTOUR_DATA).unwrap().to_multi_float64().unwrap();
    let text: Vec<String> =
        numbers.iter().enumerate().map(|(i, value)| format!("{:.6}", value + by(i / 3)[i % 3])).collect();
    put(contour, tags::CONTOUR_DATA, VR::DS, &text.join("\\"));
}

#[test]
fn every_contour_that_is_no_outline_on_the_cts_slices_has_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let ct = square();
    let error = |change: &dyn Fn(&mut InMemDicomObject)| {
        refusal(&changed(folder.path(), change), "Liver", &ct.ct()).to_string()
    };
    let says = |error: String, words: &[&str]| {
        assert!(words.iter().all(|word| error.contains(word)), "{error}\nexpected {words:?}");
    };
    // 2.5 mm between slices: 0.1 mm are 0.04 of it.
    let near = changed(folder.path(), |contour| moved(contour, |_| [0.0, 0.0, 0.1]));
    assert!(read(&near, "Liver", &ct.ct()) == expected("ring", SQUARE));
    let found = error(&|contour| moved(contour, |_| [0.0, 0.0, 0.2]));
    says(
        found,
        &[
            "contour 1 of 'Liver' lies at 1.08 among the CT's 4 slices",
            "0.08 beside the nearest, expected at most 0.05",
        ],
    );
    let found = error(&|contour| moved(contour, |point| [0.0, 0.0, 2.0 * f64::from(u8::from(point == 3))]));
    says(found, &["contour 1 of 'Liver' lies from 1.00 to 1.80 among"]);
    let found = error(&|contour| moved(contour, |_| [0.0, 0.0, -5.0]));
    says(found, &["lies at -1 among the CT's 4 slices (counted from 0), outside of them"]);
    let found = error(&|contour| moved(contour, |_| [12.0, 0.0, 0.0]));
    says(found, &["reaches out of the CT, to its voxel (", "; the CT has the shape [24, 24, 4]"]);
    let found = error(&|contour| put(contour, tags::CONTOUR_GEOMETRIC_TYPE, VR::CS, "OPEN_PLANAR"));
    says(found, &["is of the type 'OPEN_PLANAR', expected CLOSED_PLANAR"]);
    let found = error(&|contour| put(contour, tags::CONTOUR_DATA, VR::DS, "1\\2\\3\\4"));
    says(found, &["has 4 coordinates, expected three of each of 8 points: it was cut"]);
    let found = refusal(&fixture("rt_utils.dcm"), "Spleen", &ct.ct()).to_string();
    says(found, &["no segment with the name 'Spleen'; its segments: 'Liver', 'Other'. Name"]);
    let found = refusal(&fixture("rt_utils.dcm"), "Liver", &common::ct().ct());
    assert!(matches!(found, AnnotationError::OtherSeries { .. }), "{found}");
    let other = Ct { frame_of_reference: Some("1.2.3"), ..ct.ct() };
    let found = refusal(&fixture("rt_utils.dcm"), "Liver", &other);
    assert!(matches!(found, AnnotationError::OtherFrameOfReference { .. }), "{found}");
    let dot = changed(folder.path(), |contour| {
        put(contour, tags::CONTOUR_DATA, VR::DS, "-45\\-55\\102.5");
        put(contour, tags::NUMBER_OF_CONTOUR_POINTS, VR::IS, "1");
    });
    let warnings = read_segmentation(&dot, &["Liver"], &ct.ct()).unwrap().warnings;
    assert_eq!(warnings, ["'Liver': 1 contours of one or two points, which enclose nothing"]);
    let whole = std::fs::read(fixture("rt_utils.dcm")).unwrap();
    let path = folder.path().join("cut.dcm");
    for end in (0..whole.len() - 8).step_by(41) {
        std::fs::write(&path, &whole[..end]).unwrap();
        let error = read_segmentation(&path, &["Liver"], &ct.ct());
        assert!(error.is_err(), "cut to {end} bytes of {}", whole.len());
    }
}

#[test]
fn real_livers_go_out_as_contours_and_come_back_as_they_were() {
    let name = "real_livers_go_out_as_contours_and_come_back_as_they_were";
    let Some(data) = test_data(name, "dcmqi-ct-3slice") else { return };
    let ct = series(&data.join("ct-3slice"));
    let nrrd = read_volume(&data.join("liver_spine_seg.nrrd"), &ReadOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.dcm");
    for label in [1.0, 2.0] {
        let mask: Vec<u8> = nrrd.voxels.iter().map(|value| u8::from(value == label)).collect();
        assert!(mask.contains(&1));
        let segment = liver();
        write_rtstruct(&path, &ct, &[painted(&segment, &mask)], Existing::Replaced).unwrap();
        assert!(read(&path, "Liver", &ct.ct()) == mask, "{label}");
    }
}
