//! What a NIfTI header says of place: units, an empty sform, two affines, and who reads them otherwise. Numbers of other programs
//! are those that SimpleITK 2.5.7 and nibabel 5.4.2 gave for these headers; `readers.rs` asks the programs themselves.

mod common;

use common::scratch::{Scratch, text};
use common::{Nifti, Place, patient};
use ct_ingest::{AffineChoice, IngestError, ReadOptions, Volume, mask_doubt, read_volume, write_mask};
use slice_store::SliceStore;
use std::path::Path;

fn read_as(place: Place, affine: Option<AffineChoice>) -> Result<Volume, IngestError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ct.nii");
    std::fs::write(&path, place.bytes(&Nifti::int16([4, 5, 6], |x, y, z| (x + y + z) as i16))).unwrap();
    read_volume(&path, &ReadOptions { affine, ..ReadOptions::default() })
}

fn read(place: Place) -> Volume {
    read_as(place, None).unwrap()
}

fn assert_affine(volume: &Volume, expected: [[f64; 4]; 3]) {
    for (ours, theirs) in volume.geometry.affine.iter().flatten().zip(expected.iter().flatten()) {
        assert!((ours - theirs).abs() < 1e-5, "{:?} {expected:?}", volume.geometry.affine);
    }
}

const USUAL: [[f64; 4]; 3] = [[-0.8, 0.0, 0.0, 10.0], [0.0, -0.8, 0.0, 20.0], [0.0, 0.0, 5.0, 30.0]];

fn in_unit(unit: u8, part: f32) -> Place {
    let usual = Place::default();
    Place {
        unit,
        srow: usual.srow.map(|row| row.map(|value| value * part)),
        offset: usual.offset.map(|value| value * part),
        pixdim: [1.0, 0.8 * part, 0.8 * part, 5.0 * part],
        ..usual
    }
}

#[test]
fn metres_and_micrometres_become_millimetres_and_no_unit_is_millimetres() {
    for (unit, part) in [(0, 1.0), (2, 1.0), (10, 1.0), (1, 1e-3), (9, 1e-3), (3, 1e3)] {
        for codes in [(1, 1), (1, 0), (0, 1)] {
            let volume = read(Place { sform_code: codes.0, qform_code: codes.1, ..in_unit(unit, part) });
            assert_affine(&volume, USUAL);
            assert_eq!(volume.warnings.is_empty(), part == 1.0, "unit {unit}: {:?}", volume.warnings);
            if part != 1.0 {
                let word =
                    if part < 1.0 { "it takes metres for millimetres" } else { "it takes micrometres for millimetres" };
                let said = &volume.warnings[0];
                assert!(said.starts_with("nibabel (MONAI, nnU-Net) puts") && said.contains(word), "{said}");
            }
        }
    }
}

#[test]
fn a_unit_that_makes_voxels_of_no_ct_is_an_error_that_says_how_to_correct_it() {
    for (unit, found) in [(1, "metres, which makes voxels of [800"), (3, "micrometres, which makes voxels of [0.0008")]
    {
        let message = read_as(in_unit(unit, 1.0), None).unwrap_err().to_string();
        assert!(message.contains(&format!("lengths are in {found}")), "{message}");
        assert!(message.contains("correct the unit (xyzt_units"), "{message}");
    }
}

#[test]
fn an_empty_sform_gives_way_to_the_qform_and_the_mask_has_both() {
    let volume = read(Place { srow: [[0.0; 4]; 3], sform_code: 2, ..Place::default() });
    assert_affine(&volume, USUAL);
    assert!(volume.warnings[0].contains("its sform (code 2) is empty: the qform is taken, as SimpleITK does"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mask.nii");
    write_mask(&path, &[0; 120], &volume).unwrap();
    for choice in [AffineChoice::Sform, AffineChoice::Qform] {
        let options = ReadOptions { affine: Some(choice), ..ReadOptions::default() };
        assert_affine(&read_volume(&path, &options).unwrap(), USUAL);
    }
    // Without a qform there is nothing to take.
    let message =
        read_as(Place { srow: [[0.0; 4]; 3], qform_code: 0, ..Place::default() }, None).unwrap_err().to_string();
    assert!(message.contains("its sform gives the affine") && message.contains("flattens space"), "{message}");
}

#[test]
fn an_sform_that_no_ct_has_names_the_qform_as_the_way_out() {
    // Registered to an atlas with a shear of 0.3, as affine registrations do.
    let registered =
        Place { srow: [[-0.8, 0.24, 0.0, 0.0], [0.0, -0.8, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0]], ..Place::default() };
    let message = read_as(registered, None).unwrap_err().to_string();
    assert!(message.contains("rows and columns are") && message.contains("say `affine` = \"qform\""), "{message}");
    assert_affine(&read_as(registered, Some(AffineChoice::Qform)).unwrap(), USUAL);
}

#[test]
fn programs_that_put_the_volume_elsewhere_are_named_with_the_distance() {
    let usual = Place::default();
    assert!(read(usual).warnings.is_empty());
    // 0.4 mm of 0.8: SimpleITK takes the sform of code 1, and the qform beside one of code 2.
    let moved = Place { offset: [10.4, 20.0, 30.0], ..usual };
    assert!(read(moved).warnings.is_empty());
    let warnings = read(Place { sform_code: 2, ..moved }).warnings;
    assert_eq!(
        warnings,
        [
            "SimpleITK (3D Slicer, ITK-SNAP) puts its farthest corner 0.5000 voxels elsewhere: it takes the qform, because the sform's \
          code is 2 and not 1; here the sform counts"
        ]
    );
    // Its spacing is that of pixdim: 5 steps of 3 mm in the place of 5 mm are two steps of 5 mm short.
    let warnings = read(Place { pixdim: [1.0, 0.8, 0.8, 3.0], qform_code: 0, ..usual }).warnings;
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("corner 2.0 voxels elsewhere: it takes the sform, with the spacing [0.8"),
        "{warnings:?}"
    );
    // A sheared sform is none to it.
    let drift = Place { srow: [usual.srow[0], [0.0, -0.8, -0.05, 20.0], usual.srow[2]], ..usual };
    let warnings = read(drift).warnings;
    assert!(warnings[0].contains("the qform, because the sform is no rotation"), "{warnings:?}");
    assert!(warnings[0].contains("corner 0.3125 voxels"), "5 slices of 0.05 mm, columns of 0.8: {warnings:?}");
    // Without codes, one begins at the first voxel and runs to posterior, the other is centred and runs to anterior.
    let warnings = read(Place { sform_code: 0, qform_code: 0, ..usual }).warnings;
    assert!(warnings[0].contains("the header has no orientation: LAS is assumed, as nibabel does"), "{warnings:?}");
    // Rows from -1.6 to 1.6 mm here and from 0 to -3.2 mm there: the last is 4.8 mm off, which is 6 voxels.
    assert!(
        warnings[1].contains("corner 6.0 voxels elsewhere: it takes the axes to run to left, posterior"),
        "{warnings:?}"
    );
}

/// Bytes of the header as numbers.
fn short(bytes: &[u8], at: usize) -> i16 {
    i16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[test]
fn a_mask_has_the_header_of_its_ct_unless_simpleitk_could_not_open_it() {
    let directory = tempfile::tempdir().unwrap();
    let written = |place: Place| {
        let path = directory.path().join("mask.nii");
        let volume = read(place);
        write_mask(&path, &[0; 120], &volume).unwrap();
        (volume, std::fs::read(path).unwrap())
    };
    let usual = Place::default();
    let sform_only = Place { qform_code: 0, bcd: [0.0; 3], offset: [0.0; 3], ..usual };
    let as_it_is =
        [usual, sform_only, Place { sform_code: 0, ..usual }, Place { sform_code: 0, qform_code: 0, ..usual }];
    for place in as_it_is {
        let (volume, bytes) = written(place);
        assert_eq!(bytes[76..92], place.bytes(&Nifti::uint8([4, 5, 6], |_, _, _| 0))[76..92], "{place:?}");
        assert_eq!(bytes[252..328], place.bytes(&Nifti::uint8([4, 5, 6], |_, _, _| 0))[252..328], "{place:?}");
        assert_eq!(mask_doubt(&volume), None);
    }
    // 0.005 mm of drift in 5 mm are 0.001 rad: SimpleITK refuses the sform from 0.0001 rad on.
    let drift = Place { srow: [usual.srow[0], [0.0, -0.8, -0.005, 20.0], usual.srow[2]], ..sform_only };
    let (volume, bytes) = written(drift);
    assert_eq!((short(&bytes, 252), short(&bytes, 254)), (1, 1));
    assert_eq!(mask_doubt(&volume), None, "5 slices of 0.005 mm are 0.03 of a column");
    let path = directory.path().join("mask.nii");
    let qform = ReadOptions { affine: Some(AffineChoice::Qform), ..ReadOptions::default() };
    assert_affine(&read_volume(&path, &qform).unwrap(), USUAL);
    let again = read_volume(&path, &ReadOptions::default()).unwrap();
    assert_eq!(again.geometry, volume.geometry);
    // A tilt of 12 degrees is more than any rotation can say.
    let (sin, cos) = 12_f32.to_radians().sin_cos();
    let tilted = [usual.srow[0], [0.0, -0.8 * cos, 0.0, 20.0], [0.0, -0.8 * sin, 5.0, 30.0]];
    let (volume, _) = written(Place { srow: tilted, ..sform_only });
    let doubt = mask_doubt(&volume).unwrap();
    // Five slices further, 25 mm along the patient; at right angles to the slices that is 25 sin 12° = 5.2 mm further down the
    // columns and 25 (1 - cos 12°) = 0.5 mm off along the normal: by sheared axes 25 tan 12° / 0.8 = 6.6 columns.
    assert!(doubt.contains("nibabel puts the mask where the CT is") && doubt.contains("corner 6.6 voxels"), "{doubt}");
    assert_eq!(read_volume(Path::new(&path), &ReadOptions::default()).unwrap().geometry, volume.geometry);
}

#[test]
fn a_wider_tolerance_adds_the_cases_that_it_lets_in_and_a_narrower_one_leaves_them_out() {
    let scratch = Scratch::with_cases(2, [40, 36, 6]);
    // A fifth of a column of 0.8 mm.
    let [_, mut mask] = patient([40, 36, 6], 1);
    mask.affine[0][3] += 0.16;
    mask.save(&scratch.data().join("segmentation-1.nii.gz"));
    let usual = scratch.prepare("store", &[]);
    let message = text(&usual.stdout) + &text(&usual.stderr);
    assert!(!usual.status.success() && message.contains(", 0.2000 voxels apart"), "{message}");
    let wide = scratch.manifest("wide", |manifest| manifest["geometry_tolerance"] = 0.25.into());
    let added = text(&scratch.prepare("store", &["--manifest", &wide]).stdout);
    assert!(
        added.contains("1 cases prepared, 1 unchanged") || added.contains("1 case prepared, 1 unchanged"),
        "{added}"
    );
    assert!(scratch.prepare("store", &["--manifest", &wide, "--check"]).status.success());
    let narrow = scratch.prepare("store", &[]);
    assert!(!narrow.status.success());
    let cases: Vec<String> =
        SliceStore::open(&scratch.store("store")).unwrap().records().iter().map(|record| record.case.clone()).collect();
    assert!(cases.len() == 6 && cases.iter().all(|case| case == "0"), "{cases:?}");
}
