//! DICOM-SEG: those of other programs onto a CT's grid, ours back again, and every one that can't be a mask of the CT.

mod common;

use annotation::{
    AnnotationError, Ct, DicomSegType, Painted, Segment, read_segmentation, write_dicom_seg, write_seg_nrrd,
};
use common::*;
use ct_ingest::{ReadOptions, open_dicom, read_volume};
use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, FileMetaTableBuilder, InMemDicomObject, open_file};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use whole_file::Existing;

const VOXELS: usize = 9 * 11 * 7;

#[test]
fn frames_lie_where_their_positions_say_whoever_wrote_them() {
    let ct = ct();
    for (file, second) in [
        ("binary.dcm", "Segment_2"),
        ("binary_deflated.dcm", "Segment_2"),
        ("labelmap.dcm", "Segment_2"),
        ("labelmap_rle.dcm", "Segment_2"),
        ("fractional.dcm", "Segment_2"),
    ] {
        // From the head down, without empty frames.
        let read = read_segmentation(&fixture(file), &[second, "LIVER"], &ct.ct()).unwrap();
        assert_eq!(read.segments[1].name, "Liver");
        assert!(read.segments[1].mask == expected("Liver", VOXELS), "{file}");
        assert!(read.segments[0].mask == expected("Segment_2", VOXELS), "{file}");
    }
    // By what its code means, since no label is called so.
    assert_eq!(read(&fixture("binary.dcm"), "spleen", &ct.ct()), expected("Segment_2", VOXELS));
    // dcmqi was given slices 2 to 4.
    let mut liver = expected("Liver", VOXELS);
    for (place, value) in liver.iter_mut().enumerate() {
        *value *= u8::from((2..5).contains(&(place / 99)));
    }
    assert_eq!(read(&fixture("dcmqi.dcm"), "Liver", &ct.ct()), liver);
}

#[test]
fn a_grid_may_be_turned_any_way_and_larger() {
    let ct = ct();
    let expected = expected("Liver", VOXELS);
    for (axes, flipped) in all_turns() {
        let (grid, places) = turned(ct.grid(), axes, flipped);
        for file in ["binary.dcm", "labelmap.dcm"] {
            let found = read(&fixture(file), "Liver", &Ct::of_grid(grid.grid()));
            let wanted: Vec<u8> = places.iter().map(|&place| expected[place]).collect();
            assert!(found == wanted, "{file} {axes:?} {flipped:?}");
        }
    }
    // Two columns, one row and three slices more before the first.
    let mut made = turned(ct.grid(), [0, 1, 2], [false; 3]).0;
    let mut affine = made.geometry.affine;
    let first = made.geometry.to_mm([-2.0, -1.0, -3.0]);
    (0..3).for_each(|row| affine[row][3] = first[row]);
    made.geometry = ct_ingest::Geometry::of_affine(affine, ct_ingest::AffineKind::Sform).unwrap();
    made.shape = [14, 12, 10];
    let found = read(&fixture("binary.dcm"), "Liver", &Ct::of_grid(made.grid()));
    let inside = |place: usize| {
        let [x, y, z] = [place % 14, place / 14 % 12, place / 14 / 12];
        let within = (2..11).contains(&x) && y >= 1 && z >= 3;
        if within { expected[x - 2 + 9 * (y - 1 + 11 * (z - 3))] } else { 0 }
    };
    assert_eq!(found, (0..14 * 12 * 10).map(inside).collect::<Vec<_>>());
}

#[test]
fn what_is_written_is_read_back_for_every_kind_of_series_and_type() {
    let folder = tempfile::tempdir().unwrap();
    let [liver, other] = [liver(), Segment::named("Läsion 1", program())];
    for (name, ct) in series_of_every_kind(folder.path()) {
        let (a, mut b) = (scattered(VOXELS, 1), scattered(VOXELS, 2));
        for kind in [DicomSegType::Binary, DicomSegType::LabelMap] {
            if kind == DicomSegType::LabelMap {
                b.iter_mut().zip(&a).for_each(|(b, a)| *b &= 1 - a);
            }
            let path = folder.path().join("out.dcm");
            let segments = [painted(&liver, &a), painted(&other, &b)];
            write_dicom_seg(&path, &ct, &segments, kind, Existing::Replaced).unwrap();
            let read = read_segmentation(&path, &["läsion 1", "liver"], &ct.ct()).unwrap();
            assert!(read.segments[0].mask == b && read.segments[1].mask == a, "{name} {kind:?}");
        }
    }
}

#[test]
fn more_segments_than_a_byte_can_number_are_written_with_two() {
    let folder = tempfile::tempdir().unwrap();
    let ct = ct();
    let segments: Vec<Segment> = (0..300).map(|i| Segment::named(&format!("segment {i}"), program())).collect();
    let masks: Vec<Vec<u8>> = (0..300).map(|i| (0..VOXELS).map(|voxel| u8::from(voxel / 2 == i)).collect()).collect();
    let all: Vec<Painted<'_>> = segments.iter().zip(&masks).map(|(segment, mask)| painted(segment, mask)).collect();
    let [dcm, nrrd] = ["out.dcm", "out.seg.nrrd"].map(|name| folder.path().join(name));
    write_dicom_seg(&dcm, &ct, &all, DicomSegType::LabelMap, Existing::Kept).unwrap();
    write_seg_nrrd(&nrrd, ct.grid(), &all, Existing::Kept).unwrap();
    for path in [dcm, nrrd] {
        let read = read_segmentation(&path, &["segment 299", "segment 0", "segment 255"], &ct.ct()).unwrap();
        for (segment, number) in read.segments.iter().zip([299, 0, 255]) {
            assert!(segment.mask == masks[number], "{} {number}", path.display());
        }
    }
}

#[test]
fn a_written_segmentation_says_whose_it_is_and_of_which_slices() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.dcm");
    let (ct, liver) = (ct(), liver());
    let mask = expected("Liver", VOXELS);
    write_dicom_seg(&path, &ct, &[painted(&liver, &mask)], DicomSegType::Binary, Existing::Kept).unwrap();
    let seg = open_file(&path).unwrap();
    let source = open_file(fixture("ct/1.dcm")).unwrap();
    let text = |object: &InMemDicomObject, tag| object.get(tag).unwrap().to_str().unwrap().into_owned();
    for tag in [
        tags::PATIENT_NAME,
        tags::PATIENT_ID,
        tags::PATIENT_BIRTH_DATE,
        tags::PATIENT_SEX,
        tags::STUDY_INSTANCE_UID,
        tags::STUDY_DATE,
        tags::STUDY_TIME,
        tags::STUDY_ID,
        tags::ACCESSION_NUMBER,
        tags::FRAME_OF_REFERENCE_UID,
    ] {
        assert_eq!(text(&seg, tag), text(&source, tag), "{tag}");
    }
    assert_eq!(text(&seg, tags::PATIENT_NAME), "Müller^Jörg");
    for tag in [tags::SOP_INSTANCE_UID, tags::SERIES_INSTANCE_UID] {
        assert!(text(&seg, tag).starts_with("2.25."));
    }
    assert_eq!(text(&seg, tags::SOP_INSTANCE_UID), seg.meta().media_storage_sop_instance_uid());
    let series = &seg.get(tags::REFERENCED_SERIES_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!(text(series, tags::SERIES_INSTANCE_UID), text(&source, tags::SERIES_INSTANCE_UID));
    assert_eq!(series.get(tags::REFERENCED_INSTANCE_SEQUENCE).unwrap().items().unwrap().len(), 7);
    let frames = seg.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap().items().unwrap();
    assert_eq!((frames.len(), text(&seg, tags::NUMBER_OF_FRAMES)), (7, "7".to_owned()));
    for (index, frame) in frames.iter().enumerate() {
        let first = |object: &InMemDicomObject, tag| object.get(tag).unwrap().items().unwrap()[0].clone();
        let slice = open_file(fixture("ct").join(format!("{}.dcm", index + 1))).unwrap();
        let of = first(&first(frame, tags::DERIVATION_IMAGE_SEQUENCE), tags::SOURCE_IMAGE_SEQUENCE);
        assert_eq!(text(&of, tags::REFERENCED_SOP_INSTANCE_UID), text(&slice, tags::SOP_INSTANCE_UID));
        let position =
            |object: &InMemDicomObject| object.get(tags::IMAGE_POSITION_PATIENT).unwrap().to_multi_float64().unwrap();
        assert_eq!(position(&first(frame, tags::PLANE_POSITION_SEQUENCE)), position(&slice));
    }
    let segment = &seg.get(tags::SEGMENT_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!(text(segment, tags::SEGMENT_DESCRIPTION), "Leber, ohne Gefäße");
    assert_eq!(text(segment, tags::SEGMENT_ALGORITHM_TYPE), "AUTOMATIC");
    assert_eq!(text(segment, tags::SEGMENT_ALGORITHM_NAME), "a model");
    for (tag, value) in [
        (tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, "123037004"),
        (tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, "10200004"),
    ] {
        let code = &segment.get(tag).unwrap().items().unwrap()[0];
        assert_eq!([text(code, tags::CODE_VALUE), text(code, tags::CODING_SCHEME_DESIGNATOR)], [value, "SCT"]);
    }
    // One bit a voxel, over frames of 99 pixels: 693 bits.
    assert_eq!(seg.get(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().len(), 88);
}

#[test]
fn nothing_is_written_over_a_file_unasked_nor_over_the_ct() {
    let folder = tempfile::tempdir().unwrap();
    let ct = changed_series(&folder.path().join("ct"), |_, _| {});
    let (liver, mask) = (liver(), scattered(VOXELS, 1));
    let segments = [painted(&liver, &mask)];
    let path = folder.path().join("there.dcm");
    fs::write(&path, "a user's").unwrap();
    let write = |path: &Path, existing| write_dicom_seg(path, &ct, &segments, DicomSegType::Binary, existing);
    assert!(matches!(write(&path, Existing::Kept).unwrap_err(), AnnotationError::Place(_)));
    assert_eq!(fs::read(&path).unwrap(), b"a user's");
    let slice = folder.path().join("ct/3.dcm");
    let before = fs::read(&slice).unwrap();
    let error = write(&slice, Existing::Replaced).unwrap_err().to_string();
    assert!(error.contains("is the input"), "{error}");
    assert_eq!(fs::read(&slice).unwrap(), before);
    write(&path, Existing::Replaced).unwrap();
    assert_eq!(read(&path, "Liver", &ct.ct()), mask);
}

#[test]
fn what_cant_be_written_is_refused_before_a_file_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.dcm");
    let (ct, liver, mask) = (ct(), liver(), scattered(VOXELS, 1));
    let refused = |segments: &[Painted<'_>], kind| {
        let error = write_dicom_seg(&path, &ct, segments, kind, Existing::Kept).unwrap_err().to_string();
        assert!(!path.exists());
        error
    };
    let binary = DicomSegType::Binary;
    let error = refused(&[painted(&liver, &mask[1..])], binary);
    assert!(error.contains("the mask of 'Liver' has 692 voxels, the CT has 693"), "{error}");
    let error = refused(&[painted(&liver, &mask), painted(&liver, &mask)], binary);
    assert!(error.contains("two of its segments have the name 'Liver'"), "{error}");
    let other = Segment::named("Spleen", program());
    let error = refused(&[painted(&liver, &mask), painted(&other, &mask)], DicomSegType::LabelMap);
    assert!(error.contains("its segments 'Liver' and 'Spleen' overlap, which a label map can't hold"), "{error}");
    let long = Segment::named(&"x".repeat(65), program());
    assert!(refused(&[painted(&long, &mask)], binary).contains("expected at most 64 characters"));
    assert!(refused(&[], binary).contains("no segment is given"));
    let nowhere = folder.path().join("none/out.dcm");
    let error = write_dicom_seg(&nowhere, &ct, &[painted(&liver, &mask)], binary, Existing::Kept).unwrap_err();
    assert!(matches!(error, AnnotationError::Write { .. }), "{error}");
}

#[test]
fn a_series_without_uids_is_written_for_and_doubted() {
    let folder = tempfile::tempdir().unwrap();
    let (liver, mask) = (liver(), scattered(VOXELS, 1));
    assert!(ct().doubts().is_empty());
    let bare = changed_series(&folder.path().join("ct"), |_, slice| {
        for tag in [tags::FRAME_OF_REFERENCE_UID, tags::SERIES_INSTANCE_UID, tags::STUDY_INSTANCE_UID] {
            put(slice, tag, VR::UI, "");
        }
        slice.remove_element(tags::SOP_INSTANCE_UID);
    });
    // The instance's UID is in the file meta information as well.
    let doubts = bare.doubts().join("");
    assert!(
        doubts.contains("no valid StudyInstanceUID, SeriesInstanceUID, FrameOfReferenceUID: a DICOM seg"),
        "{doubts}"
    );
    let path = folder.path().join("out.dcm");
    write_dicom_seg(&path, &bare, &[painted(&liver, &mask)], DicomSegType::Binary, Existing::Kept).unwrap();
    assert_eq!(read(&path, "Liver", &bare.ct()), mask);
    let seg = open_file(&path).unwrap();
    for tag in [tags::FRAME_OF_REFERENCE_UID, tags::STUDY_INSTANCE_UID] {
        assert!(seg.get(tag).unwrap().to_str().unwrap().starts_with("2.25."));
    }
    assert!(seg.get(tags::REFERENCED_SERIES_SEQUENCE).is_none());
}

/// `binary.dcm`, changed.
fn changed(folder: &Path, change: impl FnOnce(&mut DefaultDicomObject)) -> PathBuf {
    let mut object = open_file(fixture("binary.dcm")).unwrap();
    change(&mut object);
    let path = folder.join("changed.dcm");
    object.write_to_file(&path).unwrap();
    path
}

fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, text: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(text)));
}

/// Changes the items of a sequence.
fn items(object: &mut InMemDicomObject, tag: Tag, change: impl Fn(usize, &mut InMemDicomObject)) {
    object.update_value(tag, |value| {
        for (index, item) in value.items_mut().unwrap().iter_mut().enumerate() {
            change(index, item);
        }
    });
}

#[test]
fn every_segmentation_that_is_not_the_cts_has_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let ct = ct();
    let error = |change: &dyn Fn(&mut DefaultDicomObject)| {
        refusal(&changed(folder.path(), |object| change(object)), "Liver", &ct.ct()).to_string()
    };
    let says = |error: String, words: &[&str]| {
        assert!(words.iter().all(|word| error.contains(word)), "{error}\nexpected {words:?}");
    };
    // Of another series, and in another frame of reference.
    let other = series(&fixture("ct_square"));
    let found = refusal(&fixture("binary.dcm"), "Liver", &other.ct());
    assert!(matches!(found, AnnotationError::OtherSeries { .. }), "{found}");
    says(found.to_string(), &["was made of the series 1.2.826.0.1.3680043.10.999.70.1,", "10.999.70.2: take"]);
    let found = error(&|object| put(object, tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.3"));
    says(found, &["has the frame of reference 1.2.3, the CT", "10.999.70.2000.1, so that"]);
    // Names.
    let found = refusal(&fixture("binary.dcm"), "Pancreas", &ct.ct()).to_string();
    says(found, &["no segment with the name 'Pancreas'; its segments: 'Liver', 'Segment_2' (Spleen). Name"]);
    let found = error(&|object| {
        items(object, tags::SEGMENT_SEQUENCE, |_, item| put(item, tags::SEGMENT_LABEL, VR::LO, "liver"));
    });
    says(found, &["has 2 segments with the name 'Liver', expected one (its segments: 'liver', 'liver' (Spleen))"]);
    // Places.
    let shift = |mm: f64| {
        move |object: &mut DefaultDicomObject| {
            items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, |_, frame| {
                items(frame, tags::PLANE_POSITION_SEQUENCE, |_, item| {
                    let mut at = item.get(tags::IMAGE_POSITION_PATIENT).unwrap().to_multi_float64().unwrap();
                    at[0] += mm;
                    let text = format!("{}\\{}\\{}", at[0], at[1], at[2]);
                    put(item, tags::IMAGE_POSITION_PATIENT, VR::DS, &text);
                });
            });
        }
    };
    // 0.04 voxels of 0.7 mm are within the tolerance, 0.06 are not.
    assert_eq!(read(&changed(folder.path(), shift(0.028)), "Liver", &ct.ct()), expected("Liver", VOXELS));
    let found = error(&shift(0.042));
    says(
        found,
        &["does not lie on the grid of the CT", "its frame 1 has the shape [9, 11, 1] and the affine", "(0.06, 0, 6)"],
    );
    let found = error(&shift(7.0));
    says(
        found,
        &["reaches from the CT's voxel (10, 0, 6) to (18, 10, 6); the CT has the shape [9, 11, 7] and the affine"],
    );
    let found = error(&|object| {
        items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, |_, frame| {
            items(frame, tags::PLANE_POSITION_SEQUENCE, |_, item| {
                put(item, tags::IMAGE_POSITION_PATIENT, VR::DS, "-50.5\\-60.25\\105");
            });
        });
    });
    says(found, &["whose frame 2 lies where its frame 1 does, of the same segment"]);
    let found = error(&|object| {
        items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, |_, frame| {
            frame.remove_element(tags::PLANE_POSITION_SEQUENCE);
        });
    });
    says(found, &["whose frame 1 has no valid PlanePositionSequence, so that its place is not known"]);
    // Pixels.
    let found = error(&|object| {
        let bytes = PrimitiveValue::U8(vec![0; 122].into());
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, bytes));
    });
    says(found, &["has 122 bytes of pixels, expected 124: 10 frames of 11 x 9 pixels of 1 bits without padding"]);
    let found = error(&|object| put(object, tags::NUMBER_OF_FRAMES, VR::IS, "12"));
    says(found, &["with 12 frames, but places of 10"]);
    let found = error(&|object| put(object, tags::SEGMENTATION_TYPE, VR::CS, "SURFACE"));
    says(found, &["whose SegmentationType is not BINARY, FRACTIONAL or LABELMAP"]);
    let found = error(&|object| {
        items(object, tags::SEGMENT_SEQUENCE, |_, item| {
            item.put(DataElement::new(tags::SEGMENT_NUMBER, VR::US, PrimitiveValue::from(7_u16)));
        });
    });
    says(found, &["with a segment of number 7, which is 0 or another's too"]);
}

#[test]
fn a_label_maps_value_without_a_segment_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut object = open_file(fixture("labelmap.dcm")).unwrap();
    let mut pixels = object.get(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned();
    pixels[5] = 9;
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(pixels.into())));
    let path = folder.path().join("a.dcm");
    object.write_to_file(&path).unwrap();
    let error = refusal(&path, "Liver", &ct().ct()).to_string();
    assert!(error.contains("whose frame 1 has the value 9, which is that of no segment"), "{error}");
}

#[test]
fn deflated_frames_begin_with_a_byte_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut object = open_file(fixture("binary.dcm")).unwrap().into_inner();
    let bytes = object.get(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned();
    let bit = |bit: usize| bytes[bit / 8] >> (bit % 8) & 1;
    let frame = |frame: usize| {
        let mut packed = vec![0; 99_usize.div_ceil(8)];
        (0..99).for_each(|i| packed[i / 8] |= bit(99 * frame + i) << (i % 8));
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&packed).unwrap();
        let mut deflated = encoder.finish().unwrap();
        deflated.resize(deflated.len().next_multiple_of(2), 0);
        deflated
    };
    let fragments: Vec<Vec<u8>> = (0..10).map(frame).collect();
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PixelFragmentSequence::new_fragments(fragments)));
    let path = folder.path().join("deflated.dcm");
    let meta = FileMetaTableBuilder::new().transfer_syntax("1.2.840.10008.1.2.8.1");
    object.clone().with_meta(meta).unwrap().write_to_file(&path).unwrap();
    assert_eq!(read(&path, "Liver", &ct().ct()), expected("Liver", VOXELS));
    let meta = FileMetaTableBuilder::new().transfer_syntax("1.2.840.10008.1.2.5");
    object.with_meta(meta).unwrap().write_to_file(&path).unwrap();
    let error = refusal(&path, "Liver", &ct().ct()).to_string();
    assert!(
        error.contains("packed one-bit pixels of the transfer syntax 1.2.840.10008.1.2.5; decompress it"),
        "{error}"
    );
}

#[test]
fn a_cut_file_is_an_error_wherever_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let ct = ct();
    for file in ["binary.dcm", "labelmap_rle.dcm", "fractional.dcm"] {
        let whole = fs::read(fixture(file)).unwrap();
        let path = folder.path().join(file);
        for end in (0..whole.len() - 8).step_by(37) {
            fs::write(&path, &whole[..end]).unwrap();
            let error = refusal(&path, "Liver", &ct.ct()).to_string();
            assert!(error.starts_with(&format!("'{}' ", path.display())), "{error}");
        }
    }
}

#[test]
fn what_is_no_segmentation_is_named_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let ct = ct();
    let error = refusal(&fixture("ct/1.dcm"), "Liver", &ct.ct()).to_string();
    assert!(
        error.contains("is a DICOM object of modality CT, class 1.2.840.10008.5.1.4.1.1.2, expected a seg"),
        "{error}"
    );
    let text = folder.path().join("a.txt");
    fs::write(&text, "liver").unwrap();
    let error = refusal(&text, "Liver", &ct.ct());
    assert!(matches!(error, AnnotationError::NoSegmentation { .. }), "{error}");
    let error = refusal(&folder.path().join("none"), "Liver", &ct.ct()).to_string();
    assert!(error.starts_with("cannot read '"), "{error}");
}

#[test]
fn a_segmentation_and_a_volume_made_by_others_of_real_ct_are_equal() {
    let Some(data) = test_data("a_segmentation_and_a_volume_made_by_others_of_real_ct_are_equal", "dcmqi-ct-3slice")
    else {
        return;
    };
    let ct = series(&data.join("ct-3slice"));
    let seg = read(&data.join("liver.dcm"), "liver", &ct.ct());
    let nrrd = read_volume(&data.join("liver_seg.nrrd"), &ReadOptions::default()).unwrap();
    let nrrd: Vec<u8> = nrrd.voxels.iter().map(|value| u8::from(value != 0.0)).collect();
    assert_eq!(nrrd.iter().map(|&value| usize::from(value)).sum::<usize>(), 107_098);
    assert!(seg == nrrd);
    let folder = tempfile::tempdir().unwrap();
    let (path, liver) = (folder.path().join("out.dcm"), liver());
    for kind in [DicomSegType::Binary, DicomSegType::LabelMap] {
        write_dicom_seg(&path, &ct, &[painted(&liver, &seg)], kind, Existing::Replaced).unwrap();
        assert!(read(&path, "Liver", &ct.ct()) == seg, "{kind:?}");
    }
}

#[test]
fn a_mask_of_a_real_series_goes_out_and_comes_back() {
    let Some(data) = test_data("a_mask_of_a_real_series_goes_out_and_comes_back", "totalsegmentator-example") else {
        return;
    };
    let ct = series(&data.join("dicom"));
    let labels = read_volume(&data.join("example_seg_dicom.nii.gz"), &ReadOptions::default()).unwrap();
    let placement =
        ct_ingest::Placement::of(labels.grid(), ct.grid(), ct_ingest::GeometryTolerance::default()).unwrap();
    let [columns, rows, slices] = labels.shape;
    let mut mask = vec![0; columns * rows * slices];
    for (voxel, value) in labels.voxels.iter().enumerate() {
        mask[placement.place([voxel % columns, voxel / columns % rows, voxel / columns / rows])] =
            u8::from(value == 5.0);
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, liver) = (folder.path().join("out.dcm"), liver());
    write_dicom_seg(&path, &ct, &[painted(&liver, &mask)], DicomSegType::Binary, Existing::Kept).unwrap();
    assert!(read(&path, "Liver", &ct.ct()) == mask);
    // Onto the grid of the volume, whose columns run the other way.
    let back = read(&path, "Liver", &Ct::of_grid(labels.grid()));
    assert!(back.iter().zip(labels.voxels.iter()).all(|(&found, label)| (found == 1) == (label == 5.0)));
    // And the object is one that our own reader of DICOM takes.
    assert!(open_dicom(&path, ct_ingest::DicomPixels::Read).unwrap().is_some());
}
