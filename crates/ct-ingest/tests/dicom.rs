//! DICOM series against what SimpleITK reads (`fixtures/make_dicom_fixtures.py`), and series that are no volume.

mod common;

use common::{Nifti, test_data};
use ct_ingest::{
    GeometryTolerance, Manifest, PrepareOptions, ReadOptions, Scalar, SlicePlan, Volume, Would, check,
    check_same_geometry, image_slices, mask_slices, preferred_dicom_series, prepare, read_grid, read_volume,
};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, Tag, open_file};
use proptest::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use slice_store::StoreSettings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What the fixtures' headers say of the invented patient, and must not be seen anywhere.
const SECRETS: [&str; 5] = ["DOE", "JANE", "4711", "19810203", "19310405"];

const SERIES: &str = "1.2.826.0.1.3680043.10.999.1";

#[derive(Deserialize)]
struct Expected {
    affine: [[f64; 4]; 4],
    exact: bool,
    hu: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct RealSeries {
    shape: [usize; 3],
    affine: [[f64; 4]; 4],
    positions: Vec<[f64; 3]>,
    sha256_of_int16_hu: String,
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dicom")).join(name)
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

fn true_hu() -> Vec<f64> {
    json::<BTreeMap<String, Expected>>("expected.json").remove("explicit_little").unwrap().hu.unwrap()
}

fn read(folder: &Path) -> Volume {
    let volume = read_volume(folder, &ReadOptions::default()).unwrap();
    let seen = format!("{volume:?}");
    assert!(!SECRETS.iter().any(|secret| seen.contains(secret)));
    volume
}

fn refusal(folder: &Path) -> String {
    refusal_of(folder, None)
}

fn refusal_of(folder: &Path, series: Option<&str>) -> String {
    refusal_with(folder, &ReadOptions { series: series.map(str::to_owned), ..ReadOptions::default() })
}

/// What is wrong with a case by a manifest that hides names: no UID may be shown.
fn hidden_refusal_of(folder: &Path, series: Option<&str>) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    std::fs::create_dir_all(data.join("case")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), data.join("case").join(entry.file_name())).unwrap();
    }
    std::fs::write(data.join("case.nii.gz"), "no mask").unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data-manifests/dicom.json");
    let mut manifest = Manifest::read(Path::new(shipped)).unwrap();
    manifest.series = series.map(|series| ("case".to_owned(), series.to_owned())).into_iter().collect();
    let (store, settings) = (scratch.path().join("store"), StoreSettings::default());
    let options = PrepareOptions {
        data,
        store,
        manifest,
        settings,
        jobs: 1,
        strict: false,
        redo: false,
        shard: None,
        merge: Vec::new(),
    };
    let mut checked = check(&options, &AtomicBool::new(false), &|_| {}).unwrap();
    let Would::Refuse(message) = checked.cases.remove(0).would else { panic!("it is refused") };
    assert!(!message.contains("1.2.826.0.1"), "{message}");
    assert!(!SECRETS.iter().any(|secret| message.contains(secret)), "{message}");
    message
}

fn refusal_with(folder: &Path, options: &ReadOptions) -> String {
    let error = read_volume(folder, options).unwrap_err();
    let (message, debug) = (error.to_string(), format!("{error:?}"));
    for text in [&message, &debug] {
        assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "{text}");
    }
    message
}

/// Six slices at 100, 102.5 ... 112.5 mm in that order, uncompressed.
fn slices() -> Vec<DefaultDicomObject> {
    let files = std::fs::read_dir(fixture("explicit_little")).unwrap().map(|entry| entry.unwrap().path());
    let mut slices: Vec<DefaultDicomObject> = files.map(|file| open_file(file).unwrap()).collect();
    slices.sort_by_key(|slice| slice.get(tags::INSTANCE_NUMBER).unwrap().to_int::<u32>().unwrap());
    slices
}

fn set(slice: &mut DefaultDicomObject, tag: Tag, vr: VR, value: impl Into<PrimitiveValue>) {
    slice.put(DataElement::new(tag, vr, value.into()));
}

fn set_text(slice: &mut DefaultDicomObject, tag: Tag, value: &str) {
    set(slice, tag, VR::LO, PrimitiveValue::from(value));
}

fn set_numbers(slice: &mut DefaultDicomObject, tag: Tag, values: &[f64]) {
    let texts: Vec<String> = values.iter().map(f64::to_string).collect();
    set(slice, tag, VR::DS, PrimitiveValue::from(texts.join("\\").as_str()));
}

fn set_short(slice: &mut DefaultDicomObject, tag: Tag, value: u16) {
    set(slice, tag, VR::US, PrimitiveValue::from(value));
}

fn set_position(slice: &mut DefaultDicomObject, position: [f64; 3]) {
    set_numbers(slice, tags::IMAGE_POSITION_PATIENT, &position);
}

/// A folder of these slices, whose files are named after the patient.
fn folder(slices: &[DefaultDicomObject]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (index, slice) in slices.iter().enumerate() {
        slice
            .write_to_file(folder.path().join(format!("DOE^JANE{}{}", (index * 5 + 3) % 17, "x".repeat(index / 17))))
            .unwrap();
    }
    folder
}

/// The refusal of the six slices after a change to all of them.
fn refusal_after(change: impl Fn(usize, &mut DefaultDicomObject)) -> String {
    refusal(changed(change).path())
}

fn changed(change: impl Fn(usize, &mut DefaultDicomObject)) -> tempfile::TempDir {
    let mut slices = slices();
    slices.iter_mut().enumerate().for_each(|(index, slice)| change(index, slice));
    folder(&slices)
}

fn hu(volume: &Volume) -> Vec<f64> {
    volume.voxels.iter().collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn assert_affine(volume: &Volume, expected: [[f64; 4]; 4]) {
    for (ours, theirs) in volume.geometry.affine.iter().flatten().zip(expected.iter().flatten()) {
        assert!((ours - theirs).abs() < 1e-6, "{:?} {expected:?}", volume.geometry.affine);
    }
}

#[test]
fn every_transfer_syntax_gives_the_voxels_and_the_affine_that_simpleitk_gives() {
    let truth = true_hu();
    let expected: BTreeMap<String, Expected> = json("expected.json");
    assert_eq!(expected.len(), 13);
    for (name, Expected { affine, exact, hu: theirs }) in expected {
        let volume = read(&fixture(&name));
        let ours = hu(&volume);
        assert_eq!(volume.shape[..2], [10, 12], "{name}");
        assert_eq!(volume.voxels.scalar(), Scalar::I16, "{name}");
        assert_eq!(ours.len(), 120 * volume.shape[2]);
        assert_affine(&volume, affine);
        assert!(volume.warnings.is_empty(), "{name}: {:?}", volume.warnings);
        let theirs = theirs.unwrap_or_else(|| truth[..ours.len()].to_vec());
        assert!(exact == (theirs == truth[..ours.len()]), "{name}");
        // The irreversible transform is in floats, which may be rounded otherwise.
        let tolerance = if name == "jpeg_2000_lossy" { 1.0 } else { 0.0 };
        let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart <= tolerance, "{name}: {apart} HU");
    }
}

#[test]
fn the_real_series_is_simpleitks_voxel_by_voxel_and_place_by_place() {
    let test = "the_real_series_is_simpleitks_voxel_by_voxel_and_place_by_place";
    let Some(data) = test_data(test, "totalsegmentator-example") else { return };
    let RealSeries { shape, affine, positions, sha256_of_int16_hu } = json("real_series.json");
    let volume = read(&data.join("dicom"));
    assert_eq!(volume.shape, shape);
    assert_affine(&volume, affine);
    for (slice, expected) in positions.into_iter().enumerate() {
        let ours = volume.geometry.to_mm([0.0, 0.0, slice as f64]);
        assert!(ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{ours:?} {expected:?}");
    }
    let bytes: Vec<u8> = volume.voxels.iter().flat_map(|hu| (hu as i16).to_le_bytes()).collect();
    assert_eq!(sha256(&bytes), sha256_of_int16_hu);
}

#[test]
fn liver_voxels_of_the_real_series_have_the_hu_of_a_liver() {
    let test = "liver_voxels_of_the_real_series_have_the_hu_of_a_liver";
    let Some(data) = test_data(test, "totalsegmentator-example") else { return };
    let volume = read(&data.join("dicom"));
    let mask = read_volume(&data.join("example_seg_dicom.nii.gz"), &ReadOptions::default()).unwrap();
    assert_eq!(volume.geometry.orientation.to_string(), "LPS");
    assert_eq!(mask.geometry.orientation.to_string(), "LAS");
    check_same_geometry(volume.grid(), mask.grid(), GeometryTolerance::default()).unwrap();
    let settings = StoreSettings { slice_size: 512, ..StoreSettings::default() };
    let (images, plan) = image_slices(&volume, &settings).unwrap();
    let known: Vec<i32> = (0..256).collect();
    let masks = mask_slices(&[mask], &plan, &known, &[5]).unwrap();
    let mut liver: Vec<i16> = images.iter().zip(&masks).filter(|(_, mask)| **mask == 1).map(|(hu, _)| *hu).collect();
    liver.sort_unstable();
    let median = liver[liver.len() / 2];
    println!("liver: {} voxels, median {median} HU", liver.len());
    assert!(liver.len() > 10_000 && (20..150).contains(&median), "{} voxels, {median} HU", liver.len());
    // A mask upside down would have about as many voxels, but those of other organs among them.
    let soft = liver.iter().filter(|hu| (-50..250).contains(*hu)).count();
    assert!(soft as f64 > 0.97 * liver.len() as f64, "{soft} of {}", liver.len());
}

#[test]
fn neither_names_nor_instance_numbers_decide_the_order() {
    let truth = true_hu();
    let mut slices = slices();
    for (index, slice) in slices.iter_mut().enumerate() {
        set(slice, tags::INSTANCE_NUMBER, VR::IS, PrimitiveValue::from(["4", "1", "1", "9", "2", "3"][index]));
    }
    for turn in 0..6 {
        slices.rotate_left(1);
        assert_eq!(hu(&read(folder(&slices).path())), truth, "{turn}");
    }
    // From superior to inferior along the normal: the columns run the other way.
    let down =
        changed(|_, slice| set_numbers(slice, tags::IMAGE_ORIENTATION_PATIENT, &[1.0, 0.0, 0.0, 0.0, -1.0, 0.0]));
    let volume = read(down.path());
    assert_eq!(volume.geometry.orientation.to_string(), "LAI");
    let last_first: Vec<f64> = truth.chunks_exact(120).rev().flatten().copied().collect();
    assert_eq!(hu(&volume), last_first);
}

#[test]
fn what_is_no_ct_slice_is_left_out_wherever_it_lies() {
    let folder = folder(&slices());
    let below = folder.path().join("DOE^JANE/19810203");
    std::fs::create_dir_all(&below).unwrap();
    let one = folder.path().join("DOE^JANE3");
    std::fs::rename(one, below.join("x")).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "DOE^JANE, born 19310405, was here. ".repeat(20)).unwrap();
    std::fs::write(folder.path().join("LICENSE"), "short").unwrap();
    let other = |change: &dyn Fn(&mut DefaultDicomObject), name: &str| {
        let mut slice = slices().remove(0);
        set_text(&mut slice, tags::SOP_INSTANCE_UID, &format!("1.2.3.{}", name.len()));
        change(&mut slice);
        slice.write_to_file(folder.path().join(name)).unwrap();
    };
    other(&|slice| set_text(slice, tags::MODALITY, "MR"), "mr");
    other(&|slice| set(slice, tags::IMAGE_TYPE, VR::CS, PrimitiveValue::from("ORIGINAL\\PRIMARY\\LOCALIZER")), "scout");
    other(
        &|slice| {
            // A protocol that was photographed: secondary capture, which lies nowhere.
            set_text(slice, tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.7");
            slice.remove_element(tags::IMAGE_POSITION_PATIENT);
        },
        "protocol",
    );
    let volume = read(folder.path());
    assert_eq!((hu(&volume), volume.warnings.len()), (true_hu(), 0));
    // An empty file may have been a slice, and so may one that begins like nothing that is known.
    std::fs::write(folder.path().join("empty"), "").unwrap();
    assert!(read(folder.path()).warnings[0].contains("1 file is empty"));
    std::fs::write(folder.path().join("unknown"), [7, 0, 7, 0, 7, 0].repeat(500)).unwrap();
    assert!(read(folder.path()).warnings[1].contains("1 file is no DICOM and was left out"));
}

#[test]
fn of_several_series_one_is_chosen_by_its_uid() {
    let folder = folder(&slices());
    for entry in std::fs::read_dir(fixture("rle")).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), folder.path().join("rle_".to_owned() + entry.file_name().to_str().unwrap()))
            .unwrap();
    }
    let message = refusal(folder.path());
    let lines: Vec<&str> = message.lines().collect();
    assert!(lines[0].contains("holds 2 CT series, expected one") && lines[0].contains("--series of predict"));
    assert_eq!(lines[1], "  1.2.826.0.1.3680043.10.999.1: 6 slices of 12 x 10, 2.5 mm apart");
    assert_eq!(lines[2], "  1.2.826.0.1.3680043.10.999.10: 3 slices of 12 x 10, 2.5 mm apart");
    let options = |uid: &str| ReadOptions { series: Some(uid.to_owned()), ..ReadOptions::default() };
    assert_eq!(read_volume(folder.path(), &options(SERIES)).unwrap().shape, [10, 12, 6]);
    let rle = read_volume(folder.path(), &options("1.2.826.0.1.3680043.10.999.10")).unwrap();
    assert_eq!((rle.shape, hu(&rle)), ([10, 12, 3], true_hu()[..360].to_vec()));
    let message = refusal_of(folder.path(), Some("1.2.3"));
    assert!(message.contains("holds no CT series '1.2.3', but 2"), "{message}");
}

#[test]
fn anonymised_slices_without_a_series_uid_are_one_series() {
    let without = changed(|_, slice| {
        slice.remove_element(tags::SERIES_INSTANCE_UID);
        set_text(slice, tags::SOP_CLASS_UID, "");
    });
    assert_eq!(hu(&read(without.path())), true_hu());
    std::fs::copy(fixture("rle").join("00.dcm"), without.path().join("rle")).unwrap();
    let message = refusal(without.path());
    assert!(message.contains("\n  without a UID (put it into a folder of its own): 6 slices"), "{message}");
}

#[test]
fn folders_without_a_ct_series_say_what_they_hold() {
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(empty.path()).contains("holds no CT series: found no file at all"));
    std::fs::write(empty.path().join("a.txt"), "a text").unwrap();
    let mut slices = slices();
    for slice in &mut slices {
        set_text(slice, tags::MODALITY, "PT");
    }
    slices[0].write_to_file(empty.path().join("b")).unwrap();
    slices[1].write_to_file(empty.path().join("c")).unwrap();
    let message = refusal(empty.path());
    let expected =
        "found 2 DICOM objects of modality PT (CT Image Storage), 1 file that is no DICOM; expected the slices of a CT";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn what_lies_in_a_cts_place_is_named_as_what_it_is() {
    for (modality, class, expected, as_file) in [
        (
            "SEG",
            "1.2.840.10008.5.1.4.1.1.66.4",
            "of modality SEG (Segmentation Storage); convert it to NIfTI",
            "' holds a DICOM segmentation (SEG), expected",
        ),
        (
            "RTSTRUCT",
            "1.2.840.10008.5.1.4.1.1.481.3",
            "of modality RTSTRUCT (RT Structure Set Storage); convert its contours",
            "' holds a DICOM structure set (RTSTRUCT), expected",
        ),
        (
            "US",
            "1.2.840.10008.5.1.4.1.1.6.1",
            "of modality US (Ultrasound Image Storage); expected the slices of a CT",
            "' is a DICOM object of the class Ultrasound Image Storage; expected the slices of a CT",
        ),
        // No words of the standard: none of them is shown.
        (
            "JANE",
            "1.2.826.0.1.4711",
            "DICOM object of an unknown kind; expected the slices of a CT",
            "' is a single DICOM file, expected a series",
        ),
    ] {
        let mut one = slices().remove(0);
        set_text(&mut one, tags::MODALITY, modality);
        set_text(&mut one, tags::SOP_CLASS_UID, class);
        one.update_meta(|meta| class.clone_into(&mut meta.media_storage_sop_class_uid));
        let folder = folder(&[one]);
        let message = refusal(folder.path());
        assert!(
            message.contains("holds no CT series: found 1 DICOM object") && message.contains(expected),
            "{message}"
        );
        // As a file, in the place of a volume or of a mask.
        let file = folder.path().join("plain.dcm");
        std::fs::rename(folder.path().join("DOE^JANE3"), &file).unwrap();
        let message = refusal(&file);
        assert!(message.contains(as_file), "{message}");
    }
}

/// What follows the file meta information, whose length is in its first element.
fn data_set(file: &[u8]) -> &[u8] {
    &file[144 + u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize..]
}

#[test]
fn slices_without_preamble_or_file_meta_information_are_read() {
    type Cut = fn(&[u8]) -> &[u8];
    let cuts: [(&str, Cut); 3] = [
        ("data set", data_set),
        ("from the file meta information", |file| &file[132..]),
        ("from DICM", |file| &file[128..]),
    ];
    let truth = true_hu();
    for name in ["explicit_little", "implicit_little"] {
        for (what, cut) in cuts {
            let folder = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(fixture(name)).unwrap().map(Result::unwrap) {
                let bytes = std::fs::read(entry.path()).unwrap();
                std::fs::write(folder.path().join(entry.file_name()), cut(&bytes)).unwrap();
            }
            let volume = read(folder.path());
            assert_eq!(hu(&volume), truth[..120 * volume.shape[2]], "{name}, {what}");
            assert_eq!(volume.geometry, read(&fixture(name)).geometry);
            assert!(volume.warnings.is_empty());
            assert!(
                refusal(&folder.path().join("00.dcm")).contains("is a single DICOM file, expected a series"),
                "{what}"
            );
        }
    }
}

#[test]
fn a_bare_data_set_that_ends_early_is_refused() {
    let folder = folder(&slices());
    let whole = std::fs::read(fixture("implicit_little").join("00.dcm")).unwrap();
    let bare = data_set(&whole);
    for end in (200..bare.len() - 4).step_by(31) {
        std::fs::write(folder.path().join("bare"), &bare[..end]).unwrap();
        let message = refusal(folder.path());
        let known = ["can't be read", "has no valid", "holds 2 CT series", "ends before its last pixel"];
        assert!(known.iter().any(|known| message.contains(known)), "{end}: {message}");
    }
}

#[test]
fn series_are_listed_by_what_tells_phases_apart() {
    let mut slices = slices();
    for (index, slice) in slices.iter_mut().enumerate() {
        let (number, description, kernel) =
            [("2", "ABD ART 5.0", "B30f"), ("3", "ABD PV 5.0\u{1b}[2J", "B60f")][index % 2];
        set(slice, tags::SERIES_NUMBER, VR::IS, PrimitiveValue::from(number));
        set_text(slice, tags::SERIES_DESCRIPTION, description);
        set_text(slice, tags::CONVOLUTION_KERNEL, kernel);
        set(slice, tags::SERIES_INSTANCE_UID, VR::UI, PrimitiveValue::from(format!("{SERIES}.{}", index % 2)));
    }
    let two = folder(&slices);
    let lines = |message: String| message.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        lines(refusal(two.path())),
        [
            "  1.2.826.0.1.3680043.10.999.1.0: number 2, 'ABD ART 5.0', kernel B30f, 3 slices of 12 x 10, 5 mm apart",
            // What a terminal would obey is gone.
            "  1.2.826.0.1.3680043.10.999.1.1: number 3, 'ABD PV 5.0[2J', kernel B60f, 3 slices of 12 x 10, 5 mm apart",
        ]
    );
    // Neither UIDs nor free text where names are hidden; pseudonym or number is enough to choose.
    let hidden = lines(hidden_refusal_of(two.path(), None));
    let (pseudonyms, rest): (Vec<&str>, Vec<&str>) = hidden.iter().map(|line| line.split_once(": ").unwrap()).unzip();
    assert_eq!(
        rest,
        [
            "number 2, kernel B30f, 3 slices of 12 x 10, 5 mm apart",
            "number 3, kernel B60f, 3 slices of 12 x 10, 5 mm apart"
        ]
    );
    for name in ["2", "3", pseudonyms[0].trim(), pseudonyms[1].trim(), &format!("{SERIES}.1")] {
        let message = hidden_refusal_of(two.path(), Some(name));
        assert!(message.contains("'mask of "), "{name} is read, its mask isn't: {message}");
    }
    let chosen = |series: &str| {
        read_volume(two.path(), &ReadOptions { series: Some(series.to_owned()), ..ReadOptions::default() })
    };
    let (by_number, by_uid) = (chosen("3").unwrap(), chosen(&format!("{SERIES}.1")).unwrap());
    assert_eq!(hu(&by_number), hu(&by_uid));
    assert_eq!(by_number.geometry.to_mm([0.0; 3])[2], 102.5);
    assert!(hidden_refusal_of(two.path(), Some("4")).contains("holds no CT series '4', but 2"));
    assert!(hidden_refusal_of(two.path(), Some(&format!("{SERIES}.7"))).contains("', but 2"));
    for slice in &mut slices {
        set(slice, tags::SERIES_NUMBER, VR::IS, PrimitiveValue::from("2"));
    }
    assert!(refusal_of(folder(&slices).path(), Some("2")).contains("holds 2 CT series of that number, expected one"));
}

#[test]
fn of_a_studys_series_the_rules_take_one_and_say_why_not_the_others() {
    let mut slices = slices();
    for (index, slice) in slices.iter_mut().enumerate() {
        let (number, kernel) = [("2", "B60f"), ("3", "B30f")][index % 2];
        set(slice, tags::SERIES_NUMBER, VR::IS, PrimitiveValue::from(number));
        set_text(slice, tags::CONVOLUTION_KERNEL, kernel);
        set(slice, tags::SERIES_INSTANCE_UID, VR::UI, PrimitiveValue::from(format!("{SERIES}.{}", index % 2)));
    }
    let two = folder(&slices);
    let preferred = preferred_dicom_series(two.path()).unwrap().unwrap();
    assert_eq!(preferred.name, format!("{SERIES}.1"));
    assert!(preferred.chosen.contains("number 3"), "{}", preferred.chosen);
    let [(other, why)] = &preferred.others[..] else { panic!("{:?}", preferred.others) };
    assert!(other.contains("number 2") && *why == "its kernel is for bone or lung");
    let chosen = ReadOptions { series: Some(preferred.name), ..ReadOptions::default() };
    assert_eq!(read_volume(two.path(), &chosen).unwrap().shape[2], 3);
    // One slice less, and the kernel has no say.
    let fewer = folder(&slices[..5]);
    let preferred = preferred_dicom_series(fewer.path()).unwrap().unwrap();
    assert_eq!((preferred.name, preferred.others[0].1), (format!("{SERIES}.0"), "it has fewer slices"));
    // Sagittal slices are not taken, however many there are.
    for slice in slices.iter_mut().step_by(2) {
        set_numbers(slice, tags::IMAGE_ORIENTATION_PATIENT, &[0.0, 1.0, 0.0, 0.0, 0.0, -1.0]);
    }
    let preferred = preferred_dicom_series(folder(&slices[..5]).path()).unwrap().unwrap();
    assert_eq!((preferred.name, preferred.others[0].1), (format!("{SERIES}.1"), "its slices are not axial"));
    assert_eq!(preferred_dicom_series(folder(&slices[..1]).path()).unwrap(), None);
}

#[test]
fn where_names_are_hidden_no_message_has_a_uid() {
    type Change = fn(usize, &mut DefaultDicomObject);
    let mut doubled = slices();
    doubled.push(slices().remove(2));
    set_text(&mut doubled[6], tags::SOP_INSTANCE_UID, &format!("{SERIES}.99"));
    let message = hidden_refusal_of(folder(&doubled).path(), None);
    assert!(
        message.contains("at 105.00 mm (SOP instance ") && message.contains(", file 3 of 7 in the order"),
        "{message}"
    );
    let changes: [Change; 6] = [
        |index, slice| set_short(slice, tags::ROWS, if index == 2 { 10 } else { 12 }),
        |_, slice| set_short(slice, tags::BITS_ALLOCATED, 32),
        |index, slice| {
            set_position(slice, [if index == 4 { -49.0 } else { -50.5 }, -60.25, 100.0 + 2.5 * index as f64]);
        },
        |index, slice| {
            set_position(slice, [-50.5, -60.25, 100.0 + 2.5 * index as f64 + if index == 4 { 0.9 } else { 0.0 }]);
        },
        |_, slice| set(slice, tags::PIXEL_DATA, VR::OW, PrimitiveValue::from(7_u16)),
        |_, slice| {
            slice.remove_element(tags::ROWS);
        },
    ];
    for change in changes {
        hidden_refusal_of(changed(change).path(), None);
    }
}

#[test]
fn a_single_file_is_refused_and_the_folder_asked_for() {
    let message = refusal(&fixture("rle").join("00.dcm"));
    assert!(message.contains("00.dcm' is a single DICOM file") && message.contains("name the folder"), "{message}");
}

#[test]
fn doubled_slices_are_refused_and_copies_of_a_file_taken_once() {
    let mut twice = slices();
    twice.push(slices().remove(2));
    let volume = read(folder(&twice).path());
    assert_eq!(hu(&volume), true_hu());
    assert_eq!(volume.warnings, ["1 slice is there twice and was taken once"]);
    set_text(&mut twice[6], tags::SOP_INSTANCE_UID, "1.2.3.4");
    let message = refusal(folder(&twice).path());
    assert!(message.contains("7 slices with several in one place: at 105.00 mm (SOP instance 1.2."), "{message}");
    assert!(message.contains("SOP instance 1.2.3.4") && message.contains("several phases"), "{message}");
}

#[test]
fn missing_slices_are_named_by_the_gap() {
    let mut some = slices();
    some.remove(3);
    let message = refusal(folder(&some).path());
    assert!(message.contains("1 slice is missing (slices are 2.50 mm apart)"), "{message}");
    assert!(message.contains("between slices 3 (105.00 mm) and 4 (110.00 mm)"), "{message}");
    some.remove(3);
    assert!(refusal(folder(&some).path()).contains("2 slices are missing"));
}

/// Slices at these places along z.
fn slices_at(positions: &[f64]) -> tempfile::TempDir {
    let one = slices().remove(0);
    let at = |(index, z): (usize, &f64)| {
        let mut slice = one.clone();
        set_text(&mut slice, tags::SOP_INSTANCE_UID, &format!("{SERIES}.{}", index + 1));
        set_position(&mut slice, [-50.5, -60.25, *z]);
        slice
    };
    folder(&positions.iter().enumerate().map(at).collect::<Vec<_>>())
}

#[test]
fn positions_that_were_rounded_are_read() {
    for (spacing, digits) in [(1.25, 2), (1.25, 1), (0.625, 2), (2.5, 1), (0.7, 3), (2.0 / 3.0, 2), (5.0, 0)] {
        let unit = 10_f64.powi(-digits);
        let positions: Vec<f64> = (0..17).map(|k| ((-612.35 + spacing * f64::from(k)) / unit).round() * unit).collect();
        let volume = read(slices_at(&positions).path());
        // From the first to the last, as others have it.
        assert!(
            (volume.geometry.spacing_mm[2] - (positions[16] - positions[0]) / 16.0).abs() < 1e-6,
            "{spacing} {digits}"
        );
    }
}

#[test]
fn uneven_gaps_are_refused_beyond_a_twentieth_of_a_slice() {
    let moved = |by: f64| {
        let positions: Vec<f64> = (0..6).map(|k| 100.0 + 2.5 * f64::from(k) + if k == 4 { by } else { 0.0 }).collect();
        slices_at(&positions)
    };
    // Two lines that hold all are as far apart as the slice was moved: the best row is half of it from each.
    assert_eq!(read(moved(0.24).path()).geometry.spacing_mm[2], 2.5);
    let message = refusal(moved(0.3).path());
    assert!(message.contains("unevenly spaced: mostly 2.500 mm apart, but 2.800 mm between slices 4"), "{message}");
    assert!(
        message.contains("leaves slices 0.060 of that distance beside their places, expected at most 0.05"),
        "{message}"
    );
    assert!(message.contains("say `geometry_tolerance` = 0.061 in the manifest"), "{message}");
    // Even gaps along the normal, but one slice beside the others.
    let beside = changed(|index, slice| {
        set_position(slice, [if index == 4 { -49.0 } else { -50.5 }, -60.25, 100.0 + 2.5 * index as f64]);
    });
    let message = refusal(beside.path());
    assert!(message.contains("not on one line, most of all slice 5 of 6 (SOP instance"), "{message}");
    // 1.5 mm between two lines that hold all, in pixels of 0.7 mm, and half of it.
    assert!(message.contains("leaves slices 1.071 pixels beside it, expected at most 0.1;"), "{message}");
}

#[test]
fn a_tolerance_admits_whole_millimetres_but_no_missing_slice() {
    let tolerant = |folder: &tempfile::TempDir, voxels: f64| {
        let geometry_tolerance = voxels.try_into().unwrap();
        read_volume(folder.path(), &ReadOptions { geometry_tolerance, ..ReadOptions::default() })
            .map_err(|e| e.to_string())
    };
    let rounded: Vec<f64> = (0..40).map(|k| (-612.35 + 2.5 * f64::from(k)).round()).collect();
    let folder = slices_at(&rounded);
    let message = refusal(folder.path());
    // The fractions are .65, .15, .65, .15: rounding moves slices by 0.35 up and 0.15 down, which are 0.5 mm of 2.5 apart.
    assert!(message.contains("leaves slices 0.101 of that distance"), "{message}");
    assert_eq!(tolerant(&folder, 0.11).unwrap().shape, [10, 12, 40]);
    for (missing, of) in [(1, 4), (2, 4), (20, 40), (38, 40)] {
        let some: Vec<f64> = (0..of).filter(|&k| k != missing).map(|k| rounded[k]).collect();
        let message = tolerant(&slices_at(&some), 0.5).unwrap_err();
        assert!(message.contains("missing (slices are"), "{missing} of {of}: {message}");
    }
    let extra = [100.0, 102.5, 103.7, 105.0, 107.5, 110.0];
    assert!(tolerant(&slices_at(&extra), 0.5).unwrap_err().contains("unevenly spaced"));
}

#[test]
fn a_narrower_tolerance_leaves_out_the_series_that_it_no_longer_admits() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let tolerance = |voxels: f64| GeometryTolerance::try_from(voxels).unwrap();
    // Slices 2.5 mm apart; one is 0.4 mm from its place, which is 0.08 of that; or 0.2 mm beside the others, 0.07 pixels of 0.7 mm
    // twice, of which it may be twice as many.
    for (case, along, beside) in [("even", 0.0, 0.0), ("uneven", 0.4, 0.0), ("bent", 0.0, 0.2)] {
        let series = changed(|index, slice| {
            let (along, beside) = if index == 4 { (along, beside) } else { (0.0, 0.0) };
            set_position(slice, [-50.5 + beside, -60.25, 100.0 + 2.5 * index as f64 + along]);
        });
        std::fs::create_dir_all(&data).unwrap();
        let options = ReadOptions { geometry_tolerance: tolerance(0.1), ..ReadOptions::default() };
        let volume = read_volume(series.path(), &options).unwrap();
        let affine = [0, 1, 2].map(|row| volume.geometry.affine[row].map(|value| value as f32));
        Nifti { affine, ..Nifti::uint8(volume.shape, |_, _, z| u8::from(z > 2)) }
            .save(&data.join(format!("{case}.nii")));
        std::fs::create_dir(data.join(case)).unwrap();
        for entry in std::fs::read_dir(series.path()).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), data.join(case).join(entry.file_name())).unwrap();
        }
    }
    let prepared = |voxels: f64| {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data-manifests/dicom.json");
        let mut manifest = Manifest::read(Path::new(shipped)).unwrap();
        (manifest.patient, manifest.geometry_tolerance) = (None, tolerance(voxels));
        let (data, store) = (data.clone(), scratch.path().join("store"));
        let settings = StoreSettings { slice_size: 16, ..StoreSettings::default() };
        let options = PrepareOptions {
            data,
            store,
            manifest,
            settings,
            jobs: 1,
            strict: false,
            redo: false,
            shard: None,
            merge: Vec::new(),
        };
        prepare(&options, &AtomicBool::new(false), &|_| {}).unwrap()
    };
    let wide = prepared(0.1);
    assert_eq!((wide.prepared, wide.unchanged, wide.failed.len()), (3, 0, 0), "{:?}", wide.failed);
    assert_eq!(prepared(0.09).unchanged, 3);
    let narrow = prepared(0.05);
    assert_eq!((narrow.prepared, narrow.unchanged, narrow.left), (0, 1, vec!["bent".to_owned(), "uneven".to_owned()]));
    let reasons = narrow.failed.iter().map(|(_, reason)| reason.as_str()).collect::<String>();
    assert!(reasons.contains("leaves slices 0.080 of that") && reasons.contains("0.143 pixels"), "{reasons}");
    assert_eq!((prepared(0.1).prepared, prepared(0.1).unchanged), (0, 3));
}

#[test]
fn slices_of_several_kinds_are_no_volume() {
    let message = refusal_after(|index, slice| {
        let turned = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0];
        if index == 2 {
            set_numbers(slice, tags::IMAGE_ORIENTATION_PATIENT, &turned);
        }
    });
    assert!(message.contains("differ in orientation"), "{message}");
    let message = refusal_after(|index, slice| set_short(slice, tags::ROWS, if index == 2 { 10 } else { 12 }));
    assert!(message.contains("differ in size: 12 x 10 and 10 x 10 pixels"), "{message}");
    let message = refusal_after(|index, slice| {
        set_numbers(slice, tags::PIXEL_SPACING, &if index == 5 { [0.9, 0.7] } else { [0.8, 0.7] });
    });
    assert!(message.contains("differ in pixel spacing: [0.8, 0.7] and [0.9, 0.7] mm"), "{message}");
    let message = refusal_after(|index, slice| set_text(slice, tags::PATIENT_ID, ["4711", "JANE"][index % 2]));
    assert!(message.contains("differ in the patient's ID"), "{message}");
}

#[test]
fn a_tilted_gantry_shears_the_affine_and_is_a_warning() {
    let tilted = |by: f64| {
        changed(move |index, slice| {
            let z = 2.5 * index as f64;
            set_position(slice, [-50.5, -60.25 - by * z, 100.0 + z]);
        })
    };
    let volume = read(tilted(0.36).path());
    assert_affine(
        &volume,
        [[-0.7, 0.0, 0.0, 50.5], [0.0, -0.8, 0.36 * 2.5, 60.25], [0.0, 0.0, 2.5, 100.0], [0.0, 0.0, 0.0, 1.0]],
    );
    // The arc tangent of 0.36.
    assert!(volume.warnings[0].contains("tilted by 19.8 degrees"), "{:?}", volume.warnings);
    assert_eq!(hu(&volume), true_hu());
    assert!((SlicePlan::new(&volume.geometry, volume.shape, 12).positions()[1].slice_spacing_mm - 2.5).abs() < 1e-5);
    assert!(refusal(tilted(0.8).path()).contains("38.7 degrees from the slices' normal"));
}

#[test]
fn a_single_slice_is_as_thick_as_its_header_says() {
    let mut one = vec![slices().remove(1)];
    let volume = read(folder(&one).path());
    assert_eq!((volume.shape, volume.geometry.spacing_mm), ([10, 12, 1], [0.7, 0.8, 2.5]));
    assert!(volume.warnings[0].contains("one slice only; its header says that slices are 2.5 mm apart"));
    set_numbers(&mut one[0], tags::SPACING_BETWEEN_SLICES, &[3.0]);
    assert_eq!(read(folder(&one).path()).geometry.spacing_mm[2], 3.0);
    one[0].remove_element(tags::SPACING_BETWEEN_SLICES);
    one[0].remove_element(tags::SLICE_THICKNESS);
    assert!(refusal(folder(&one).path()).contains("one slice only (SOP instance"));
}

#[test]
fn each_slice_has_its_own_rescale_and_fractions_stay() {
    let truth = true_hu();
    let folder = changed(|index, slice| {
        set_numbers(slice, tags::RESCALE_SLOPE, &[if index == 1 { 0.5 } else { 1.0 }]);
        set_numbers(slice, tags::RESCALE_INTERCEPT, &[-1024.0 + 10.0 * index as f64]);
    });
    let volume = read(folder.path());
    assert_eq!(volume.voxels.scalar(), Scalar::F32);
    let expected = truth.iter().enumerate().map(|(at, hu)| {
        let (slice, stored) = (at / 120, hu + 1024.0);
        stored * if slice == 1 { 0.5 } else { 1.0 } - 1024.0 + 10.0 * slice as f64
    });
    assert_eq!(hu(&volume), expected.collect::<Vec<f64>>());
    // Whole numbers, but too large for 16 bits.
    let large = changed(|_, slice| set_numbers(slice, tags::RESCALE_SLOPE, &[100.0]));
    let volume = read(large.path());
    assert_eq!((volume.voxels.scalar(), volume.voxels.get(1)), (Scalar::F32, 4095.0 * 100.0 - 1024.0));
}

#[test]
fn doubtful_rescales_are_warnings() {
    let without = changed(|_, slice| {
        slice.remove_element(tags::RESCALE_SLOPE);
    });
    assert!(read(without.path()).warnings[0].contains("no rescale slope"));
    let other = changed(|_, slice| set_text(slice, tags::RESCALE_TYPE, "DOE^JANE"));
    assert!(read(other.path()).warnings[0].contains("its values are no HU"));
}

#[test]
fn images_that_are_no_ct_slices_say_what_they_are() {
    for (tag, value, expected) in [
        (tags::SAMPLES_PER_PIXEL, 3, "has 3 samples per pixel, expected 1"),
        (tags::BITS_ALLOCATED, 32, "has 32 bits a pixel"),
        (tags::BITS_STORED, 0, "0 of them stored"),
        (tags::BITS_STORED, 17, "17 of them stored"),
        (tags::HIGH_BIT, 16, "the highest of them bit 16"),
        (tags::ROWS, 0, "has no valid Rows"),
    ] {
        let message = refusal_after(|_, slice| set_short(slice, tag, value));
        assert!(message.contains(expected) && message.contains(SERIES), "{message}");
    }
    for (tag, value, expected) in [
        (tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME1", "MONOCHROME1 (an inverted picture), expected MONOCHROME2"),
        (tags::PHOTOMETRIC_INTERPRETATION, "DOE^JANE", "is a coloured picture"),
        (tags::NUMBER_OF_FRAMES, "20", "multi-frame (enhanced) CT object"),
        (tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.2.1", "multi-frame (enhanced) CT object"),
        (tags::IMAGE_POSITION_PATIENT, "DOE", "has no valid ImagePositionPatient"),
        (tags::IMAGE_POSITION_PATIENT, "1\\2", "has no valid ImagePositionPatient"),
        (tags::IMAGE_ORIENTATION_PATIENT, "1\\0\\0\\0\\0\\0", "expected two unit vectors"),
        (tags::IMAGE_ORIENTATION_PATIENT, "1\\0\\0\\1\\0\\0", "run the same way"),
        (tags::PIXEL_SPACING, "0\\1", "has no valid PixelSpacing"),
        (tags::RESCALE_SLOPE, "0", "has a RescaleSlope of 0"),
    ] {
        let message = refusal_after(|_, slice| set(slice, tag, VR::LO, PrimitiveValue::from(value)));
        assert!(message.contains(expected), "{message}");
    }
    let message = refusal_after(|_, slice| {
        slice.update_meta(|meta| "1.2.840.10008.1.2.4.51".clone_into(&mut meta.transfer_syntax));
    });
    assert!(message.contains("1.2.840.10008.1.2.4.51 (lossy JPEG), expected uncompressed"), "{message}");
}

#[test]
fn slices_that_cant_be_unpacked_name_a_program_that_can() {
    // Each was tried on the fixture of that coding; `dcmconv` leaves all of them packed or refuses.
    for (name, program) in [
        ("rle", Some("`dcmdrle` or `gdcmconv --raw`")),
        ("jpeg_lossless", Some("`dcmdjpeg` or `gdcmconv --raw`")),
        ("jpeg_ls", Some("`dcmdjpls` or `gdcmconv --raw`")),
        ("jpeg_2000", Some("decompress it with `gdcmconv --raw`")),
        ("explicit_little", None),
    ] {
        let files = std::fs::read_dir(fixture(name)).unwrap().map(|entry| open_file(entry.unwrap().path()).unwrap());
        let mut slices: Vec<DefaultDicomObject> = files.collect();
        for slice in &mut slices {
            set_short(slice, tags::ROWS, 4_000);
        }
        let message = refusal(folder(&slices).path());
        assert_eq!(message.contains("decompress"), program.is_some(), "{message}");
        assert!(program.is_none_or(|program| message.contains(program)) && !message.contains("`dcmconv"), "{message}");
    }
    for (syntax, program) in
        [("50", "`dcmdjpeg` or `gdcmconv --raw`"), ("201", "pydicom and pylibjpeg-openjpeg"), ("110", "with pydicom")]
    {
        let message = refusal_after(|_, slice| {
            slice.update_meta(|meta| meta.transfer_syntax = format!("1.2.840.10008.1.2.4.{syntax}"));
        });
        assert!(message.contains(program), "{message}");
    }
}

#[test]
fn sizes_that_the_pixels_dont_bear_out_ask_for_no_memory() {
    for name in ["explicit_little", "rle", "jpeg_lossless", "jpeg_ls", "jpeg_2000"] {
        let mut slices: Vec<DefaultDicomObject> =
            std::fs::read_dir(fixture(name)).unwrap().map(|entry| open_file(entry.unwrap().path()).unwrap()).collect();
        for slice in &mut slices {
            set_short(slice, tags::ROWS, 4_000);
            set_short(slice, tags::COLUMNS, 4_000);
        }
        let message = refusal(folder(&slices).path());
        assert!(message.contains("has a slice that") && message.contains("slice 1 of"), "{name}: {message}");
        for slice in &mut slices {
            set_short(slice, tags::COLUMNS, 65_000);
        }
        assert!(refusal(folder(&slices).path()).contains("expected at most 16777216"), "{name}");
    }
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    for name in ["explicit_little", "implicit_little", "deflated", "rle", "jpeg_lossless_sv1", "jpeg_ls", "jpeg_2000"] {
        let files: Vec<(String, Vec<u8>)> = std::fs::read_dir(fixture(name))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .collect();
        // The middle one of three, or one of the middle ones of six.
        let (middle, whole) = files.iter().find(|(name, _)| name == "00.dcm").unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in &files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        for end in (0..whole.len() - 1).step_by(7).chain([whole.len() - 2]) {
            std::fs::write(folder.path().join(middle), &whole[..end]).unwrap();
            let read = read_volume(folder.path(), &ReadOptions::default());
            match read {
                Err(error) => {
                    let message = error.to_string();
                    assert!(!SECRETS.iter().any(|secret| message.contains(secret)), "{message}");
                }
                // What is left of it isn't DICOM any more.
                Ok(volume) if end <= 132 => assert!(volume.warnings[0].contains("1 file is empty or ends before")),
                // Padding, and what follows the pixels.
                Ok(_) => assert!(end + 12 >= whole.len(), "{name}: {end} of {} bytes", whole.len()),
            }
        }
    }
}

#[test]
fn the_grid_is_known_without_the_pixels() {
    let folder = changed(|_, slice| set(slice, tags::PIXEL_DATA, VR::OW, PrimitiveValue::from(7_u16)));
    let (shape, geometry) = read_grid(folder.path(), &ReadOptions::default()).unwrap();
    assert_eq!((shape, geometry), ([10, 12, 6], read(&fixture("explicit_little")).geometry));
}

#[test]
fn the_checksum_is_that_of_all_files_in_the_order_of_their_paths() {
    let folder = folder(&slices()[..2]);
    std::fs::create_dir(folder.path().join("a")).unwrap();
    std::fs::write(folder.path().join("a/notes"), "of any kind").unwrap();
    let of = |name: &str| sha256(&std::fs::read(folder.path().join(name)).unwrap());
    let lines = format!("{}\n{}\n{}\n", of("DOE^JANE3"), of("DOE^JANE8"), of("a/notes"));
    assert_eq!(read(folder.path()).sha256, sha256(lines.as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_damage_makes_the_reader_panic_or_show_the_patient(
        name in prop::sample::select(vec![
            "explicit_little", "implicit_little", "explicit_big", "deflated", "rle", "jpeg_lossless", "jpeg_ls",
            "jpeg_2000", "jpeg_2000_lossy",
        ]),
        changes in prop::collection::vec((132_usize..1500, any::<u8>()), 1..6),
    ) {
        let folder = tempfile::tempdir().unwrap();
        for (index, entry) in std::fs::read_dir(fixture(name)).unwrap().map(Result::unwrap).enumerate() {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            for &(at, byte) in changes.iter().filter(|_| index == 0) {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            std::fs::write(folder.path().join(entry.file_name()), bytes).unwrap();
        }
        if let Err(error) = read_volume(folder.path(), &ReadOptions::default()) {
            let message = error.to_string();
            prop_assert!(!SECRETS.iter().any(|secret| message.contains(secret)), "{}", message);
        }
    }
}
