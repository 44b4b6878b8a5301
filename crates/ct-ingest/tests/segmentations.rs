//! Segmentations of 3D Slicer as masks: segments by name, layers, grids that are a part of the image's; and other masks of a part.

mod common;

use common::scratch::{Scratch, text};
use common::{Nifti, gzip, patient};
use serde_json::json;
use slice_store::SliceStore;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const SHAPE: [usize; 3] = [40, 36, 6];

/// A segment: its name, its value, its layer.
type Segment<'a> = (&'a str, u8, usize);

/// A `.seg.nrrd` of the voxels from `first` on, `layers` of them, `value` by layer and place; axes and spacing as [`Nifti`]'s are.
fn seg_nrrd(
    path: &Path,
    (first, shape): ([usize; 3], [usize; 3]),
    segments: &[Segment],
    layers: usize,
    value: impl Fn(usize, [usize; 3]) -> u8,
) {
    let spacing = [0.8, 0.8, 2.0];
    // LPS: x and y of the NIfTI affine change their signs.
    let corner = [-100.0, -90.0, -400.0];
    let origin: Vec<String> = (0..3).map(|i| format!("{}", corner[i] + spacing[i] * first[i] as f64)).collect();
    let directions = format!("({},0,0) (0,{},0) (0,0,{})", spacing[0], spacing[1], spacing[2]);
    let [x, y, z] = shape;
    let (dimension, sizes, directions, kinds) = if layers == 1 {
        (3, format!("{x} {y} {z}"), directions, "domain domain domain".to_owned())
    } else {
        (4, format!("{layers} {x} {y} {z}"), format!("none {directions}"), "list domain domain domain".to_owned())
    };
    let mut header = format!(
        "NRRD0004\ntype: unsigned char\ndimension: {dimension}\nspace: left-posterior-superior\nsizes: {sizes}\n\
         space directions: {directions}\nkinds: {kinds}\nencoding: gzip\nspace origin: ({})\n",
        origin.join(",")
    );
    for (number, (name, value, layer)) in segments.iter().enumerate() {
        let _ = write!(header, "Segment{number}_ID:=Segment_{number}\nSegment{number}_LabelValue:={value}\n");
        let _ = write!(header, "Segment{number}_Layer:={layer}\nSegment{number}_Name:={name}\n");
    }
    let _ = write!(header, "Segmentation_ReferenceImageExtentOffset:={} {} {}\n\n", first[0], first[1], first[2]);
    let mut voxels = Vec::new();
    for k in 0..z {
        for j in 0..y {
            for i in 0..x {
                voxels.extend((0..layers).map(|layer| value(layer, [first[0] + i, first[1] + j, first[2] + k])));
            }
        }
    }
    fs::write(path, [header.into_bytes(), gzip(&voxels)].concat()).unwrap();
}

/// A data set of one case, and the value of its mask at a voxel.
fn one_case() -> (Scratch, impl Fn([usize; 3]) -> u8) {
    let scratch = Scratch::with_cases(1, SHAPE);
    let [_, mask] = patient(SHAPE, 0);
    (scratch, move |[x, y, z]: [usize; 3]| mask.data[x + SHAPE[0] * (y + SHAPE[1] * z)])
}

/// The store of the case with the segmentation in the place of its mask.
fn prepared(scratch: &Scratch, name: &str) -> SliceStore {
    let manifest = manifest(scratch);
    scratch.prepared(name, &["--manifest", &manifest])
}

fn manifest(scratch: &Scratch) -> String {
    let _ = fs::remove_file(scratch.data().join("segmentation-0.nii.gz"));
    scratch.manifest("slicer", |manifest| {
        manifest["mask"] = json!("segmentation-{case}.seg.nrrd");
        manifest["labels"] = json!({ "background": 0, "liver": 1, "spleen": 2 });
        manifest["target_labels"] = json!(["liver"]);
    })
}

fn refusal(scratch: &Scratch) -> String {
    let manifest = manifest(scratch);
    let output = scratch.prepare("refused", &["--manifest", &manifest]);
    assert_eq!(output.status.code(), Some(1));
    text(&output.stderr)
}

/// The masks that the case's own NIfTI mask gives, whose labels 1 and 2 are the target.
fn expected(scratch: &Scratch) -> Vec<Vec<u8>> {
    masks(&scratch.prepared("expected", &[]))
}

fn masks(store: &SliceStore) -> Vec<Vec<u8>> {
    let all = store.for_evaluation();
    (0..store.records().len()).map(|row| all.mask(row).unwrap_or_default().to_vec()).collect()
}

#[test]
fn segments_go_by_their_names_whatever_their_values() {
    let (scratch, value) = one_case();
    let expected = expected(&scratch);
    let path = scratch.data().join("segmentation-0.seg.nrrd");
    let liver = |at| value(at) > 0;
    // The spleen of this file has the value that the manifest gives the liver.
    for (name, spleen, of_liver) in [("a", 1, 2), ("b", 7, 250)] {
        let segments = [("Spleen", spleen, 0), ("Liver ", of_liver, 0)];
        seg_nrrd(&path, ([0; 3], SHAPE), &segments, 1, |_, at| match at {
            at if liver(at) => of_liver,
            [x, ..] if x >= 30 => spleen,
            _ => 0,
        });
        assert_eq!(masks(&prepared(&scratch, name)), expected, "{name}");
    }
}

#[test]
fn a_segmentation_that_is_cut_down_to_what_is_painted_lies_where_its_image_is() {
    let (scratch, value) = one_case();
    let expected = expected(&scratch);
    let path = scratch.data().join("segmentation-0.seg.nrrd");
    let part = ([3, 5, 2], [20, 24, 4]);
    let inside = |at: [usize; 3]| (0..3).all(|i| (part.0[i]..part.0[i] + part.1[i]).contains(&at[i]));
    for z in 0..SHAPE[2] {
        let paint = (0..SHAPE[0] * SHAPE[1]).map(|i| [i % SHAPE[0], i / SHAPE[0], z]).filter(|&at| value(at) > 0);
        assert!(paint.into_iter().all(inside), "the test's part holds all of the liver");
    }
    seg_nrrd(&path, part, &[("liver", 1, 0)], 1, |_, at| u8::from(value(at) > 0));
    assert_eq!(masks(&prepared(&scratch, "cut")), expected);
    // One voxel's tenth off is no place of the image.
    let moved = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    assert!(moved.contains("space origin: (-97.6,"));
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|window| window == b"-97.6").unwrap();
    fs::write(&path, [&bytes[..at], b"-97.52", &bytes[at + 5..]].concat()).unwrap();
    assert!(refusal(&scratch).contains("differ in shape"), "{}", refusal(&scratch));
}

#[test]
fn overlapping_segments_are_read_from_their_layers() {
    let (scratch, value) = one_case();
    let expected = expected(&scratch);
    let path = scratch.data().join("segmentation-0.seg.nrrd");
    // Another organ lies over the liver, in a layer of its own; a third shares the liver's layer.
    let segments = [("spleen", 1, 0), ("liver", 1, 1), ("kidney", 2, 1)];
    seg_nrrd(&path, ([0; 3], SHAPE), &segments, 2, |layer, at| match (layer, at) {
        (0, [x, ..]) if (10..20).contains(&x) => 1,
        (1, at) if value(at) > 0 => 1,
        (1, [x, ..]) if x >= 35 => 2,
        _ => 0,
    });
    assert_eq!(masks(&prepared(&scratch, "layers")), expected);
}

#[test]
fn files_without_the_named_segment_or_with_two_are_refused_with_the_list() {
    let (scratch, value) = one_case();
    let path = scratch.data().join("segmentation-0.seg.nrrd");
    let write = |segments: &[Segment]| {
        seg_nrrd(&path, ([0; 3], SHAPE), segments, 1, |_, at| u8::from(value(at) > 0));
        refusal(&scratch)
    };
    let message = write(&[("Segment_1", 1, 0), ("kidney", 2, 0)]);
    assert!(message.contains("no segment with the name 'liver'; its segments: 'Segment_1', 'kidney'"), "{message}");
    let message = write(&[("liver", 1, 0), ("Liver", 2, 0)]);
    assert!(message.contains("several segments with the name 'liver' (its segments: 'liver', 'Liver')"), "{message}");
    let message = write(&[("liver", 3, 0)]);
    assert!(message.contains("has the value 1 in layer 0, which is that of no segment"), "{message}");
    let message = write(&[("liver", 1, 2)]);
    assert!(message.contains("its segment 'liver' is in layer 2, but there are 1"), "{message}");
}

#[test]
fn a_mask_with_fewer_slices_or_turned_axes_is_put_on_its_images_grid() {
    let (scratch, value) = one_case();
    let expected = expected(&scratch);
    // The slices with the liver alone, from the top down, columns before rows.
    let slices = 4;
    let mut part = Nifti::uint8([SHAPE[1], SHAPE[0], slices], |y, x, k| value([x, y, SHAPE[2] - 1 - k]));
    let [[right, ..], [_, back, ..], [.., up, bottom]] = Nifti::uint8(SHAPE, |_, _, _| 0).affine;
    let top = bottom + up * (SHAPE[2] - 1) as f32;
    part.affine = [[0.0, right, 0.0, 100.0], [back, 0.0, 0.0, 90.0], [0.0, 0.0, -up, top]];
    part.save(&scratch.data().join("segmentation-0.nii.gz"));
    let output = scratch.prepare("part", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("a part of the image's [40, 36, 6]"), "{}", text(&output.stderr));
    assert_eq!(masks(&SliceStore::open(&scratch.store("part")).unwrap()), expected);
}
