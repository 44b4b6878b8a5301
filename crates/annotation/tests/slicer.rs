//! `.seg.nrrd` of 3D Slicer: what is written lies on the CT's voxels for every direction of its axes, and is read back by name.

mod common;

use annotation::{AnnotationError, Ct, Segment, read_segmentation, write_seg_nrrd};
use common::*;
use ct_ingest::{
    AffineKind, Geometry, GeometryTolerance, ReadOptions, SegmentLabels, check_same_geometry, read_volume,
};
use std::fs;
use whole_file::Existing;

/// The fixture's grid, turned obliquely and sheared as by a tilted gantry.
fn oblique() -> Made {
    let (sin, cos) = 20_f64.to_radians().sin_cos();
    let affine = [
        [-0.7 * cos, 0.8 * sin, 0.0, 12.5],
        [-0.7 * sin, -0.8 * cos, 0.9, -30.25],
        [0.0, 0.0, 2.5, 1.0 / 3.0],
        [0.0, 0.0, 0.0, 1.0],
    ];
    let geometry = Geometry::of_affine(affine, AffineKind::Sform).unwrap();
    Made { shape: [9, 11, 7], geometry, path: "made".into() }
}

#[test]
fn it_comes_back_equal_in_voxels_and_geometry_for_all_orientations_oblique_and_tilted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.seg.nrrd");
    let [liver, spleen] = [liver(), Segment::named("spleen", program())];
    for straight in [turned(ct().grid(), [0, 1, 2], [false; 3]).0, oblique()] {
        for (axes, flipped) in all_turns() {
            let (made, _) = turned(straight.grid(), axes, flipped);
            let (a, b) = (scattered(693, 3), scattered(693, 4));
            // Overlapping, or not.
            for overlap in [true, false] {
                let b: Vec<u8> = b.iter().zip(&a).map(|(b, a)| if overlap { *b } else { b & (1 - a) }).collect();
                let segments = [painted(&liver, &a), painted(&spleen, &b)];
                write_seg_nrrd(&path, made.grid(), &segments, Existing::Replaced).unwrap();
                let read = read_segmentation(&path, &["Spleen", "liver"], &Ct::of_grid(made.grid())).unwrap();
                assert!(read.segments[0].mask == b && read.segments[1].mask == a, "{axes:?} {flipped:?}");
                // ct-ingest by itself: the same voxels in the same order.
                let labels = SegmentLabels { values: vec![("Liver".into(), 1)], needed: vec!["Liver".into()] };
                let volume =
                    read_volume(&path, &ReadOptions { segments: Some(labels), ..ReadOptions::default() }).unwrap();
                assert_eq!((volume.shape, volume.geometry.affine), (made.shape, made.geometry.affine));
                assert!(volume.voxels.iter().zip(&a).all(|(found, &wanted)| found == f64::from(wanted)));
                let apart = check_same_geometry(made.grid(), volume.grid(), GeometryTolerance::default()).unwrap();
                assert!(apart < 1e-9);
            }
        }
    }
}

#[test]
fn its_header_says_what_slicer_wants_to_know() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.seg.nrrd");
    let (ct, liver) = (ct(), liver());
    let mut mask = vec![0; 693];
    for place in [2 + 9 * (3 + 11 * 4), 5 + 9 * (7 + 11 * 4), 4 + 9 * (6 + 11 * 5)] {
        mask[place] = 1;
    }
    let empty = Segment::named("Nothing", program());
    let segments = [painted(&liver, &mask), painted(&empty, &[0; 693])];
    write_seg_nrrd(&path, ct.grid(), &segments, Existing::Kept).unwrap();
    let bytes = fs::read(&path).unwrap();
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
    let header = String::from_utf8(bytes[..end].to_vec()).unwrap();
    for line in [
        "NRRD0004",
        "type: unsigned char",
        "sizes: 9 11 7",
        "space: left-posterior-superior",
        "space directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)",
        "space origin: (-50.5,-60.25,100)",
        "Segment0_Name:=Liver",
        "Segment0_LabelValue:=1",
        "Segment0_Layer:=0",
        "Segment0_Extent:=2 5 3 7 4 5",
        "Segment0_Color:=0.866667 0.509804 0.396078",
        "Segment1_Name:=Nothing",
        "Segment1_LabelValue:=2",
        "Segment1_Extent:=0 -1 0 -1 0 -1",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ] {
        assert!(header.lines().any(|found| found == line), "{line}\n{header}");
    }
    assert!(header.contains("~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~"), "{header}");
    assert_eq!(read(&path, "nothing", &ct.ct()), [0; 693]);
}

#[test]
fn a_segmentation_cut_to_its_extent_is_put_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.seg.nrrd");
    let (ct, liver) = (ct(), liver());
    // The last 4 columns, 5 rows and 3 slices.
    let mut affine = ct.grid().geometry.affine;
    let first = ct.grid().geometry.to_mm([5.0, 6.0, 4.0]);
    (0..3).for_each(|row| affine[row][3] = first[row]);
    let geometry = Geometry::of_affine(affine, AffineKind::Sform).unwrap();
    let part = Made { shape: [4, 5, 3], geometry, path: "made".into() };
    let mask = scattered(60, 5);
    write_seg_nrrd(&path, part.grid(), &[painted(&liver, &mask)], Existing::Kept).unwrap();
    let mut expected = vec![0; 693];
    for (place, &value) in mask.iter().enumerate() {
        expected[5 + place % 4 + 9 * (6 + place / 4 % 5 + 11 * (4 + place / 20))] = value;
    }
    assert_eq!(read(&path, "Liver", &ct.ct()), expected);
}

#[test]
fn what_is_not_the_cts_or_can_t_be_written_has_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.seg.nrrd");
    let (ct, liver, mask) = (ct(), liver(), scattered(693, 6));
    write_seg_nrrd(&path, ct.grid(), &[painted(&liver, &mask)], Existing::Kept).unwrap();
    let error = write_seg_nrrd(&path, ct.grid(), &[painted(&liver, &mask)], Existing::Kept).unwrap_err();
    assert!(matches!(error, AnnotationError::Place(_)), "{error}");
    let error = refusal(&path, "Spleen", &ct.ct()).to_string();
    assert!(error.contains("no segment with the name 'Spleen'; its segments: 'Liver'. Name"), "{error}");
    // Of the same shape, half a slice higher; and of another shape.
    let mut made = turned(ct.grid(), [0, 1, 2], [false; 3]).0;
    made.geometry.affine[2][3] += 1.25;
    let error = refusal(&path, "Liver", &Ct::of_grid(made.grid())).to_string();
    assert!(error.contains("differ in affine") && error.contains("0.5000 voxels apart"), "{error}");
    made.shape = [9, 11, 8];
    let error = refusal(&path, "Liver", &Ct::of_grid(made.grid())).to_string();
    assert!(
        error.contains("it has the shape [9, 11, 7]") && error.contains("voxel (0, 0, -0.5) to (8, 10, 5.5)"),
        "{error}"
    );
    let whole = fs::read(&path).unwrap();
    for end in [0, 5, 40, 300, whole.len() / 2, whole.len() - 12] {
        fs::write(&path, &whole[..end]).unwrap();
        let error = refusal(&path, "Liver", &ct.ct()).to_string();
        assert!(error.contains(&format!("'{}'", path.display())), "{error}");
    }
    let bare = folder.path().join("bare.nrrd");
    fs::write(&bare, "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 1 1 1\nencoding: raw\n\n\0").unwrap();
    let error = refusal(&bare, "Liver", &ct.ct()).to_string();
    assert!(
        error.contains("is an NRRD file without segments, expected a segmentation whose segments have names"),
        "{error}"
    );
    let line_break = Segment::named("Li\nver", program());
    let out = folder.path().join("new.seg.nrrd");
    let error = write_seg_nrrd(&out, ct.grid(), &[painted(&line_break, &mask)], Existing::Kept).unwrap_err();
    assert!(error.to_string().contains("a line break"), "{error}");
    assert!(!out.exists());
}
