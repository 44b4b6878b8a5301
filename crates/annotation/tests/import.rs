//! Masks that people drew, into a store: the same as if they had been beside the CT from the beginning.

mod common;

use annotation::{Algorithm, Painted, Segment, write_seg_nrrd};
use common::{expected, fixture};
use ct_ingest::{Manifest, MaskCoverage, PrepareOptions, ReadOptions, StoreSettings, prepare, read_volume};
use phantom::{PhantomSettings, write_data_set};
use slice_store::{Scale, SliceId, SliceLabel, SliceStore};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;
use whole_file::Existing;

/// Three patients whose masks are all known (`full`), and the same without any (`bare`).
struct Scratch {
    directory: tempfile::TempDir,
    full: SliceStore,
}

fn prepared(data: &Path, store: &Path, manifest: Manifest) -> SliceStore {
    let options = PrepareOptions {
        data: data.to_owned(),
        store: store.to_owned(),
        manifest,
        settings: StoreSettings { slice_size: 48, ..StoreSettings::default() },
        jobs: 1,
        strict: true,
        redo: false,
        shard: None,
        merge: Vec::new(),
    };
    prepare(&options, &AtomicBool::new(false), &|_| ()).unwrap();
    SliceStore::open(store).unwrap()
}

fn shipped(name: &str) -> Manifest {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        write_data_set(&data, &PhantomSettings { patients: 3, slices: 20, size: 64, seed: 3 }).unwrap();
        let full = prepared(&data, &directory.path().join("full"), shipped("phantom.json"));
        let drawn = directory.path().join("masks");
        fs::create_dir(&drawn).unwrap();
        for case in 0..3 {
            let name = format!("segmentation-{case}.nii.gz");
            fs::rename(data.join(&name), drawn.join(&name)).unwrap();
        }
        // Slice 0 of case 2 is known to be without the liver.
        fs::write(data.join("presence.csv"), "case,first,last,presence\n2,0,0,absent\n").unwrap();
        let manifest = Manifest {
            mask_coverage: Some(MaskCoverage::Painted),
            presence: Some("presence.csv".into()),
            ..shipped("phantom.json")
        };
        prepared(&data, &directory.path().join("bare"), manifest);
        fs::create_dir(directory.path().join("drawn")).unwrap();
        Self { directory, full }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn open(&self) -> SliceStore {
        SliceStore::open(&self.path("bare")).unwrap()
    }

    fn import(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sam-mix-labels"));
        command.arg("import").arg("--store").arg(self.path("bare")).args(more);
        command.output().unwrap()
    }

    fn import_drawn(&self, more: &[&str]) -> Output {
        let drawn = self.path("drawn");
        self.import(&[&["--from", drawn.to_str().unwrap()], more].concat())
    }

    /// A case's liver as 3D Slicer saves it, in some of its file's slices.
    fn draw_slicer(&self, case: usize, name: &str, slices: &[usize]) -> PathBuf {
        let source = self.path(&format!("masks/segmentation-{case}.nii.gz"));
        let volume = read_volume(&source, &ReadOptions::default()).unwrap();
        let pixels = volume.shape[0] * volume.shape[1];
        let drawn = |(voxel, value): (usize, f64)| u8::from(value > 0.0 && slices.contains(&(voxel / pixels)));
        let mask: Vec<u8> = volume.voxels.iter().enumerate().map(drawn).collect();
        let segment = Segment::named(name, Algorithm::Manual);
        let path = self.path(&format!("drawn/{case}.seg.nrrd"));
        write_seg_nrrd(&path, volume.grid(), &[Painted { segment: &segment, mask: &mask }], Existing::Replaced)
            .unwrap();
        path
    }
}

fn id(case: &str, index: u32) -> SliceId {
    SliceId { case: case.to_owned(), index }
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every file of a store but its lock.
fn content(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["", "images", "masks", "cases", "labels", "labels/0", "labels/1", "labels/2"] {
        let Ok(entries) = fs::read_dir(store.join(folder)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file() && !path.ends_with(".lock"))
        {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn what_was_drawn_later_counts_as_what_lay_beside_the_ct() {
    let scratch = Scratch::new();
    let before = scratch.open().checksum().to_owned();
    // Case 0: three slices in 3D Slicer, and one that was looked at and is empty. Case 1: a whole mask as NIfTI.
    let full = scratch.full.for_evaluation();
    let row = |store: &SliceStore, id: &SliceId| store.position(id).unwrap();
    let shows = |case: &str, index| full.mask(row(&scratch.full, &id(case, index))).unwrap().contains(&1);
    let numbers: Vec<usize> = (0..20).collect();
    let liver: Vec<u32> = (0..20).filter(|&index| shows("0", index)).collect();
    let empty = (0..20).find(|&index| !shows("0", index)).unwrap();
    // The stored order is the file's or its reverse: drawing needs the file's number.
    let known = slice_store::KnownCase::read(&scratch.path("bare"), scratch.full.info(), "0").unwrap();
    let plan = ct_ingest::StoredCt::of(scratch.full.info(), "0", &known).unwrap().plan().numbers();
    assert!(plan == numbers || plan.iter().rev().copied().collect::<Vec<_>>() == numbers);
    let drawn = [liver[0], liver[liver.len() / 2], liver[liver.len() - 1]];
    scratch.draw_slicer(0, "LIVER", &drawn.map(|slice| plan[slice as usize]));
    fs::copy(scratch.path("masks/segmentation-1.nii.gz"), scratch.path("drawn/1.nii.gz")).unwrap();
    let worklist = scratch.path("worklist.csv");
    fs::write(&worklist, format!("number,slice\n1,{}\n", id("0", empty))).unwrap();
    let output = scratch.import_drawn(&["--worklist", worklist.to_str().unwrap(), "--annotator", "reader 1", "--json"]);
    assert!(output.status.success(), "{}", error(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["cases"][0]["masks"], &told["cases"][0]["empty"]),
        (&4.into(), &serde_json::json!([empty])),
        "{told}"
    );

    let store = scratch.open();
    assert_ne!(store.checksum(), before);
    let all = store.for_evaluation();
    for record in scratch.full.records() {
        let (id, at) = (record.id(), row(&scratch.full, &record.id()));
        let now = row(&store, &id);
        assert_eq!(store.image(now), scratch.full.image(at));
        let is_drawn = match id.case.as_str() {
            "0" => drawn.contains(&id.index) || id.index == empty,
            "1" => shows("1", id.index),
            _ => false,
        };
        if is_drawn {
            assert!(all.mask(now) == full.mask(at), "{id}");
        } else {
            let listed = id.case == "2" && store.records()[now].label == SliceLabel::ListAbsent;
            assert!(listed || store.records()[now].label == SliceLabel::Unknown, "{id}");
        }
    }
    let case = fs::read_to_string(scratch.path("bare/cases/0.json")).unwrap();
    assert!(case.contains("reader 1") && !case.contains("seg.nrrd"), "a file's name may be a patient's");

    // Drawn anew, and taken back.
    scratch.draw_slicer(0, "liver", &[plan[drawn[1] as usize], plan[drawn[2] as usize]]);
    fs::remove_file(scratch.path("drawn/1.nii.gz")).unwrap();
    let output = scratch.import_drawn(&[]);
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("case '0': 2 masks, 2 with the target, 2 in the place of another")
    );
    for _ in 0..2 {
        let output = scratch.import(&["--undo", "0"]);
        assert!(output.status.success(), "{}", error(&output));
    }
    assert!(scratch.import(&["--undo", "1"]).status.success());
    assert_eq!(scratch.open().checksum(), before);
    let nothing = scratch.import(&["--undo", "1"]);
    assert!(error(&nothing).contains("nothing was imported into case '1'"), "{}", error(&nothing));
}

#[test]
fn files_that_do_not_fit_change_nothing() {
    let scratch = Scratch::new();
    let before = content(&scratch.path("bare"));
    let refused = |more: &[&str], message: &str| {
        let output = scratch.import_drawn(more);
        assert!(error(&output).contains(message), "expected {message:?}: {}", error(&output));
        assert_eq!((output.status.code(), content(&scratch.path("bare")) == before), (Some(1), true), "{message}");
    };
    let drawn = |name: &str| scratch.path("drawn").join(name);
    let clear = || {
        for entry in fs::read_dir(scratch.path("drawn")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    };
    refused(&[], "has no files");
    // A good file does not go in beside a bad one.
    fs::copy(scratch.path("masks/segmentation-1.nii.gz"), drawn("1.nii.gz")).unwrap();
    scratch.draw_slicer(0, "Leber", &[9, 10]);
    refused(&[], "case '0':");
    refused(&[], "no segment with the name 'liver'");
    fs::write(drawn("notes.txt"), "").unwrap();
    refused(&["--segment", "Leber"], "'notes.txt' in");
    fs::remove_file(drawn("notes.txt")).unwrap();
    fs::copy(scratch.path("masks/segmentation-1.nii.gz"), drawn("0.nii.gz")).unwrap();
    refused(&["--segment", "Leber"], "case '0' has two files");
    clear();
    scratch.draw_slicer(0, "liver", &[]);
    refused(&[], "nothing is painted in it");
    // Cut off.
    let path = scratch.draw_slicer(0, "liver", &[9]);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 40]).unwrap();
    refused(&[], "case '0':");
    clear();
    // Another patient's grid.
    let volume = read_volume(&scratch.path("masks/segmentation-0.nii.gz"), &ReadOptions::default()).unwrap();
    let mut moved = volume.geometry.clone();
    moved.affine[2][3] += 1.0;
    let segment = Segment::named("liver", Algorithm::Manual);
    let mask = vec![1; volume.shape.iter().product()];
    let grid = ct_ingest::Grid { geometry: &moved, ..volume.grid() };
    let painted = [Painted { segment: &segment, mask: &mask }];
    write_seg_nrrd(&drawn("0.seg.nrrd"), grid, &painted, Existing::Replaced).unwrap();
    refused(&[], "case '0':");
    // A list that says otherwise: every slice of case 2 is painted.
    clear();
    let other = read_volume(&scratch.path("masks/segmentation-2.nii.gz"), &ReadOptions::default()).unwrap();
    write_seg_nrrd(&drawn("2.seg.nrrd"), other.grid(), &painted, Existing::Replaced).unwrap();
    refused(&[], "slice 0 of its file is 'absent' by the presence list, but its mask says 'present'");
    let worklist = scratch.path("worklist.csv");
    fs::write(&worklist, "number,slice\n1,nobody/0003\n").unwrap();
    refused(&["--worklist", worklist.to_str().unwrap()], "line 2: the store has no case 'nobody'");
    refused(&["--case", "2"], "holds no CT series");
    let output = scratch.import(&["--from", drawn("2.seg.nrrd").to_str().unwrap(), "--case", "7"]);
    assert!(error(&output).contains("there is no case '7'"), "{}", error(&output));
}

#[test]
fn a_dicom_seg_goes_to_the_slices_that_its_frames_lie_on() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs::create_dir_all(data.join("a")).unwrap();
    for slice in 1..=7 {
        fs::copy(fixture(&format!("ct/{slice}.dcm")), data.join(format!("a/{slice}.dcm"))).unwrap();
    }
    // A target of two labels, of which the file has one. The fixture's values are small numbers; without a secret the case has its own name.
    let rescale = serde_json::json!({ "kind": "rescale", "slope": 100.0, "intercept": -300.0 });
    let manifest = Manifest {
        patient: Some(ct_ingest::PatientRule::Case),
        mask_coverage: Some(MaskCoverage::Painted),
        intensity: serde_json::from_value(rescale).unwrap(),
        labels: shipped("lits.json").labels,
        target_labels: shipped("lits.json").target_labels,
        ..shipped("dicom.json")
    };
    let store = directory.path().join("store");
    let options = PrepareOptions {
        data,
        store: store.clone(),
        manifest,
        settings: StoreSettings { slice_size: 11, scale: Scale::Native, ..StoreSettings::default() },
        jobs: 1,
        strict: true,
        redo: false,
        shard: None,
        merge: Vec::new(),
    };
    prepare(&options, &AtomicBool::new(false), &|_| ()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam-mix-labels"));
    command.arg("import").arg("--store").arg(&store).args(["--case", "a", "--from"]).arg(fixture("labelmap.dcm"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", error(&output));
    let store = SliceStore::open(&store).unwrap();
    let (all, mask) = (store.for_evaluation(), expected("Liver", 9 * 11 * 7));
    let count: u32 = (0..7).filter_map(|row| all.target_pixels(row)).sum();
    assert_eq!(count, mask.iter().map(|&value| u32::from(value)).sum::<u32>());
    // Head first and supine: columns run to the left, rows to posterior, as in the store.
    let slices: Vec<Vec<u8>> = (0..7)
        .filter_map(|row| Some(all.mask(row)?.chunks_exact(11).flat_map(|line| &line[..9]).copied().collect()))
        .collect();
    let known = slice_store::KnownCase::read(store.path(), store.info(), "a").unwrap();
    let numbers = ct_ingest::StoredCt::of(store.info(), "a", &known).unwrap().plan().numbers();
    let of_file: Vec<&[u8]> = mask.chunks_exact(99).collect();
    let painted: Vec<&[u8]> =
        numbers.iter().map(|&number| of_file[number]).filter(|slice| slice.contains(&1)).collect();
    assert_eq!(slices, painted);
    let reversed: Vec<&[u8]> = painted.iter().rev().copied().collect();
    assert_ne!(painted, reversed, "the order can be seen");
}

/// A picture of gray values, row by row.
fn write_png(path: &Path, [rows, columns]: [usize; 2], pixels: &[u8]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), columns as u32, rows as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
}

#[test]
fn a_folder_of_pictures_is_a_mask_of_every_slice() {
    let scratch = Scratch::new();
    let known = slice_store::KnownCase::read(&scratch.path("bare"), scratch.full.info(), "1").unwrap();
    let ct = ct_ingest::StoredCt::of(scratch.full.info(), "1", &known).unwrap();
    let mask = read_volume(&scratch.path("masks/segmentation-1.nii.gz"), &ReadOptions::default()).unwrap();
    let folder = scratch.path("pictures");
    fs::create_dir(&folder).unwrap();
    // The lowest slice last, and names whose text is in another order than their numbers.
    let draw = |slice: usize, value: u8| {
        let pixel = |voxel| if mask.voxels.get(voxel) > 0.0 { value } else { 0 };
        let pixels: Vec<u8> = ct.plan().plane(slice).map(pixel).collect();
        write_png(&folder.join(format!("liver_{}.png", 19 - slice)), ct.plan().native_size(), &pixels);
    };
    (0..20).for_each(|slice| draw(slice, 255));
    let from = ["--from", folder.to_str().unwrap(), "--case", "1", "--mask-coverage", "all"];
    let refused = |more: &[&str], message: &str| {
        let output = scratch.import(&[&from, more].concat());
        assert!(!output.status.success() && error(&output).contains(message), "{message}: {}", error(&output));
    };
    refused(&[], "is the first one the lowest slice or the highest? --first-picture");
    let highest = ["--first-picture", "highest"];
    fs::rename(folder.join("liver_3.png"), scratch.path("aside.png")).unwrap();
    refused(&highest, "has 19 PNG pictures, but the CT has 20 slices");
    fs::rename(scratch.path("aside.png"), folder.join("liver_3.png")).unwrap();
    draw(10, 128);
    refused(&highest, "has pixels of 2 values beside black");
    draw(10, 255);
    write_png(&folder.join("liver_3.png"), [3, 2], &[0; 6]);
    refused(&highest, "has 2 x 3 pixels, but the CT's slices have 64 x 64");
    draw(16, 255);
    let output = scratch.import(&[&from[..], &highest].concat());
    assert!(output.status.success(), "{}", error(&output));
    let (store, full) = (scratch.open(), scratch.full.for_evaluation());
    let (found, row) = (store.for_evaluation(), |index| store.position(&id("1", index)).unwrap());
    for index in 0..20 {
        assert_eq!(found.mask(row(index)), full.mask(row(index)), "slice {index}");
    }
}

#[test]
fn another_grid_is_taken_where_it_is_asked_for_and_by_the_nearest_voxel() {
    let scratch = Scratch::new();
    let mask = read_volume(&scratch.path("masks/segmentation-0.nii.gz"), &ReadOptions::default()).unwrap();
    // Every second slice, twice as thick: those that are kept are where they were.
    let [columns, rows, slices] = mask.shape;
    let mut affine = mask.geometry.affine;
    affine.iter_mut().take(3).for_each(|row| row[2] *= 2.0);
    let geometry = ct_ingest::Geometry::of_affine(affine, mask.geometry.affine_kind).unwrap();
    let kept = (0..slices).step_by(2).flat_map(|z| z * rows * columns..(z + 1) * rows * columns);
    let kept: Vec<u8> = kept.map(|voxel| u8::from(mask.voxels.get(voxel) > 0.0)).collect();
    let path = scratch.path("drawn/0.nii.gz");
    let grid = ct_ingest::Grid { path: &path, shape: [columns, rows, slices / 2], geometry: &geometry };
    ct_ingest::write_mask_on_grid(&path, &kept, grid).unwrap();
    let refused = scratch.import_drawn(&[]);
    assert!(error(&refused).contains("shape differs") || error(&refused).contains("shape"), "{}", error(&refused));
    let output = scratch.import_drawn(&["--resample", "nearest"]);
    assert!(output.status.success(), "{}", error(&output));
    let known = slice_store::KnownCase::read(&scratch.path("bare"), scratch.full.info(), "0").unwrap();
    let numbers = ct_ingest::StoredCt::of(scratch.full.info(), "0", &known).unwrap().plan().numbers();
    let (store, full) = (scratch.open(), scratch.full.for_evaluation());
    let (found, row) = (store.for_evaluation(), |index: usize| store.position(&id("0", index as u32)).unwrap());
    let mut compared = 0;
    for (index, number) in numbers.iter().enumerate().filter(|(_, number)| *number % 2 == 0) {
        let truth = full.mask(row(index)).unwrap();
        if truth.contains(&1) {
            assert_eq!(found.mask(row(index)), Some(truth), "slice {number} of the file");
            compared += 1;
        }
    }
    assert!(compared > 2);
}

#[test]
fn masks_that_are_a_models_proposal_are_taken_with_a_warning() {
    let scratch = Scratch::new();
    let drawn = scratch.draw_slicer(0, "liver", &[9, 10]);
    let proposals = scratch.path("worklist/proposals");
    fs::create_dir_all(&proposals).unwrap();
    fs::copy(&drawn, proposals.join("0.seg.nrrd")).unwrap();
    let digest = ct_ingest::sha256_of_file(&drawn).unwrap();
    fs::write(proposals.join("proposals.sha256"), format!("{digest}  0.seg.nrrd\n")).unwrap();
    let worklist = scratch.path("worklist/worklist.csv");
    let known = slice_store::KnownCase::read(&scratch.path("bare"), scratch.full.info(), "0").unwrap();
    let numbers = ct_ingest::StoredCt::of(scratch.full.info(), "0", &known).unwrap().plan().numbers();
    let at = |number| numbers.iter().position(|&known| known == number).unwrap() as u32;
    fs::write(&worklist, format!("number,slice\n1,{}\n2,{}\n", id("0", at(9)), id("0", at(10)))).unwrap();
    let said = error(&scratch.import_drawn(&["--worklist", worklist.to_str().unwrap()]));
    assert!(said.contains("2 of 2 masks equal the model's proposal to the pixel"), "{said}");
    scratch.draw_slicer(0, "liver", &[9]);
    let said = error(&scratch.import_drawn(&["--worklist", worklist.to_str().unwrap()]));
    assert!(said.contains("1 of 2 masks equal"), "{said}");
    // Saved over what was opened: nobody proposed that.
    fs::copy(scratch.path("drawn/0.seg.nrrd"), proposals.join("0.seg.nrrd")).unwrap();
    let said = error(&scratch.import_drawn(&["--worklist", worklist.to_str().unwrap()]));
    assert!(!said.contains("proposal"), "{said}");
    let place = annotation::check_worklist_place(&scratch.path("worklist"), Existing::Replaced);
    assert!(place.unwrap_err().to_string().contains("somebody has drawn in it"));
}

/// A store of the fixture's series with whatever is changed in its slices.
fn store_of_series(directory: &Path, change: &dyn Fn(&mut dicom_object::DefaultDicomObject)) -> PathBuf {
    let data = directory.join("data");
    fs::create_dir_all(data.join("a")).unwrap();
    for slice in 1..=7 {
        let mut object = dicom_object::open_file(fixture(&format!("ct/{slice}.dcm"))).unwrap();
        change(&mut object);
        object.write_to_file(data.join(format!("a/{slice}.dcm"))).unwrap();
    }
    let rescale = serde_json::json!({ "kind": "rescale", "slope": 100.0, "intercept": -300.0 });
    let manifest = Manifest {
        patient: Some(ct_ingest::PatientRule::Case),
        mask_coverage: Some(MaskCoverage::Painted),
        intensity: serde_json::from_value(rescale).unwrap(),
        ..shipped("dicom.json")
    };
    let options = PrepareOptions {
        data,
        store: directory.join("store"),
        manifest,
        settings: StoreSettings { slice_size: 11, scale: Scale::Native, ..StoreSettings::default() },
        jobs: 1,
        strict: true,
        redo: false,
        shard: None,
        merge: Vec::new(),
    };
    prepare(&options, &AtomicBool::new(false), &|_| ()).unwrap();
    options.store
}

fn import_into(store: &Path, from: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam-mix-labels"));
    command.arg("import").arg("--store").arg(store).args(["--case", "a", "--from"]).arg(from).output().unwrap()
}

#[test]
fn a_seg_of_another_series_is_refused_where_it_lies_in_the_same_place() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_of_series(directory.path(), &|slice| {
        let uid = dicom_core::PrimitiveValue::from("1.2.826.0.1.3680043.10.999.77");
        slice.put(dicom_core::DataElement::new(
            dicom_dictionary_std::tags::SERIES_INSTANCE_UID,
            dicom_core::VR::UI,
            uid,
        ));
    });
    let before = content(&store);
    let output = import_into(&store, &fixture("labelmap.dcm"));
    assert!(error(&output).contains("was made of the series"), "{}", error(&output));
    assert!(!output.status.success() && content(&store) == before);
}

#[test]
fn dicom_images_of_a_mask_go_to_the_slices_that_they_lie_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_of_series(directory.path(), &|_| ());
    let ct = read_volume(&directory.path().join("data/a"), &ReadOptions::default()).unwrap();
    let mut values: Vec<f64> = ct.voxels.iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values[values.len() / 2];
    // Stored numbers grow with the values: the same half of them is painted.
    let stored = |object: &dicom_object::DefaultDicomObject| -> Vec<u16> {
        let bytes = object.element(dicom_dictionary_std::tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
        bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    };
    let open = |slice: usize| dicom_object::open_file(fixture(&format!("ct/{slice}.dcm"))).unwrap();
    let mut all: Vec<u16> = (1..=7).flat_map(|slice| stored(&open(slice))).collect();
    all.sort_unstable();
    let limit = all[all.len() / 2];
    let masks = directory.path().join("masks");
    fs::create_dir(&masks).unwrap();
    for slice in 1..=7 {
        let mut object = open(slice);
        let pixels = stored(&object).into_iter().map(|value| if value > limit { 255u16 } else { 0 });
        let bytes: Vec<u8> = pixels.flat_map(u16::to_le_bytes).collect();
        object.put(dicom_core::DataElement::new(
            dicom_dictionary_std::tags::PIXEL_DATA,
            dicom_core::VR::OW,
            dicom_core::PrimitiveValue::from(bytes),
        ));
        object.write_to_file(masks.join(format!("image_{slice}"))).unwrap();
    }
    let output = import_into(&store, &masks);
    assert!(output.status.success(), "{}", error(&output));
    let store = SliceStore::open(&store).unwrap();
    let found: u32 = (0..7).filter_map(|row| store.for_evaluation().target_pixels(row)).sum();
    let expected = ct.voxels.iter().filter(|value| *value > middle).count();
    assert_eq!(found as usize, expected);
    // Head first and supine: rows and columns of the store are those of the images.
    let known = slice_store::KnownCase::read(store.path(), store.info(), "a").unwrap();
    let numbers = ct_ingest::StoredCt::of(store.info(), "a", &known).unwrap().plan().numbers();
    let masks = store.for_evaluation();
    for (row, number) in numbers.iter().enumerate() {
        let Some(mask) = masks.mask(row) else { continue };
        let of_slice = (0..99).map(|at| u8::from(ct.voxels.get(number * 99 + at) > middle));
        let stored: Vec<u8> = mask.chunks_exact(11).flat_map(|line| &line[..9]).copied().collect();
        assert_eq!(stored, of_slice.collect::<Vec<u8>>(), "slice {number}");
    }
    // More than a mask's two values.
    let output =
        import_into(&store_of_series(&directory.path().join("other"), &|_| ()), &directory.path().join("data/a"));
    assert!(error(&output).contains("more than two values"), "{}", error(&output));
}

#[test]
fn answers_about_crops_count_and_can_be_taken_back() {
    let scratch = Scratch::new();
    let (before, table) = (scratch.open().checksum().to_owned(), scratch.path("crops.csv"));
    let header = "number,page,row,column,slice,top,left,side,shows_target\n";
    let import = |lines: &str| {
        fs::write(&table, format!("{header}{lines}")).unwrap();
        scratch.import(&["--crops", table.to_str().unwrap(), "--annotator", "reader 1"])
    };
    for (lines, message) in [
        ("1,1,1,1,0/0003,0,0,16,\n", "no line has an answer"),
        ("1,1,1,1,0/0003,0,0,16,perhaps\n", "line 2: `shows_target` is 'perhaps', expected yes, no or nothing"),
        ("1,1,1,1,0/0003,0,40,16,yes\n", "line 2: the crop doesn't lie in a slice of 48 x 48 pixels"),
        ("1,1,1,1,0/0003,0,0,16,yes\n2,1,1,2,7/0003,0,0,16,no\n", "line 3: the store has no slice '7/0003'"),
    ] {
        let output = import(lines);
        assert!(error(&output).contains(message) && !output.status.success(), "{message}: {}", error(&output));
    }
    assert_eq!(scratch.open().checksum(), before);
    let output = import("1,1,1,1,0/0003,0,0,16,yes\n2,1,1,2,0/0004,8,16,16,No\n3,1,1,3,1/0000,0,0,16,\n");
    assert!(output.status.success(), "{}", error(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("2 crops answered: 1 show the target, 1 don't"), "{said}");
    let store = scratch.open();
    assert_ne!(store.checksum(), before, "training notices");
    let row = |index| store.position(&id("0", index)).unwrap();
    let crop = |top, left| slice_store::Crop { top, left, side: 16 };
    assert_eq!(store.answered(row(3), crop(0, 0)), Some(true));
    assert_eq!(store.answered(row(4), crop(8, 16)), Some(false));
    assert_eq!((store.answered(row(4), crop(0, 0)), store.has_answers(row(5))), (None, false));
    let training = store.for_training([]).unwrap();
    assert_eq!(training.crop_shows_target(row(4), crop(8, 16), 0.01), Some(false));
    assert_eq!(training.crop_shows_target(row(4), crop(0, 0), 0.01), None, "nobody was asked");
    assert_eq!(training.annotations_read().crops, [(id("0", 4), 1)]);
    // Preparing the case anew would leave answers about other pixels.
    assert!(slice_store::StoreWriter::open(&scratch.path("bare")).unwrap().has_imports("0"));
    assert!(scratch.import(&["--undo-crops"]).status.success());
    assert_eq!(scratch.open().checksum(), before);
    assert!(error(&scratch.import(&["--undo-crops"])).contains("nothing was imported about crops"));
}
