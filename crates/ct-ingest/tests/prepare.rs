//! `sam-mix-data` as a person uses it: prepare, repeat, interrupt, resume, and what happens when something is wrong.

mod common;

use common::scratch::{PROGRAM, Scratch, content, text};
use common::{Nifti, data_set, patient, test_data};
use serde_json::Value;
use slice_store::{SliceStore, StoreError};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SHAPE: [usize; 3] = [40, 36, 9];

fn times(store: &Path) -> Vec<std::time::SystemTime> {
    content(store).keys().map(|name| fs::metadata(store.join(name)).unwrap().modified().unwrap()).collect()
}

#[test]
fn a_data_set_becomes_a_store_with_the_tumour_in_the_liver() {
    let scratch = Scratch::with_cases(3, SHAPE);
    let store = scratch.prepared("store", &[]);
    assert_eq!(store.records().len(), 27);
    assert_eq!(store.info().dataset, "lits");
    for (row, record) in store.records().iter().enumerate() {
        assert_eq!(record.patient, record.case);
        assert_eq!(record.has_target(), record.index >= 3);
        assert!(record.spacing_valid);
        assert_eq!(record.position_mm, -400.0 + 2.0 * record.index as f32);
        // 40 columns of 0.8 mm became 32 of 1 mm, 36 rows 29.
        assert_eq!((record.column_spacing_mm, record.slice_spacing_mm), (1.0, 2.0));
        assert!((record.row_spacing_mm - 36.0 * 0.8 / 29.0).abs() < 1e-6);
        assert!(store.image(row)[29 * 32..].iter().all(|&hu| hu == -1024), "padding is air");
        if record.has_target() {
            let inside = 14 * 32 + 9;
            assert_eq!(store.for_evaluation().mask(row).unwrap()[inside], 1, "the lesion is liver");
            assert!((100..160).contains(&store.image(row)[inside]));
        }
    }
}

#[test]
fn a_repeated_run_changes_nothing_and_says_so() {
    let scratch = Scratch::with_cases(2, SHAPE);
    scratch.prepared("store", &[]);
    let before = times(&scratch.store("store"));
    let output = scratch.prepare("store", &[]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("nothing to do: all 2 cases are in"), "{}", text(&output.stdout));
    // A new date alone is no reason either: the content decides.
    let image = fs::File::options().write(true).open(scratch.data().join("volume-0.nii")).unwrap();
    image.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    assert!(text(&scratch.prepare("store", &[]).stdout).contains("nothing to do"));
    assert_eq!(times(&scratch.store("store")), before);
}

#[test]
fn a_changed_mask_is_prepared_anew_and_the_others_are_left_alone() {
    let scratch = Scratch::with_cases(3, SHAPE);
    let before = scratch.prepared("store", &[]).checksum().to_owned();
    Nifti::uint8(SHAPE, |x, _, _| u8::from(x < 4)).save(&scratch.data().join("segmentation-1.nii.gz"));
    let output = scratch.prepare("store", &["--json"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["prepared"], &summary["unchanged"]), (&1.into(), &2.into()));
    let store = SliceStore::open(&scratch.store("store")).unwrap();
    assert_ne!(store.checksum(), before);
    assert_eq!(summary["presence"]["present"], 6 + 9 + 6);
}

#[test]
fn a_bad_case_does_not_stop_the_others_and_is_listed_with_the_reason() {
    let scratch = Scratch::with_cases(6, SHAPE);
    let data = scratch.data();
    fs::write(data.join("volume-0.nii"), b"not a volume").unwrap();
    let packed = fs::read(data.join("segmentation-1.nii.gz")).unwrap();
    fs::write(data.join("segmentation-1.nii.gz"), &packed[..packed.len() / 2]).unwrap();
    Nifti::uint8([36, 40, 9], |_, _, _| 0).save(&data.join("segmentation-2.nii.gz"));
    fs::remove_file(data.join("segmentation-3.nii.gz")).unwrap();
    Nifti::uint8(SHAPE, |_, _, _| 7).save(&data.join("segmentation-4.nii.gz"));

    let output = scratch.prepare("store", &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut reasons: Vec<(&str, &str)> = summary["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failed| (failed["case"].as_str().unwrap(), failed["reason"].as_str().unwrap()))
        .collect();
    reasons.sort_unstable();
    let expected =
        ["holds a text", "", "differ in shape: [40, 36, 9] and [36, 40, 9]", "it has no mask", "the value 7"];
    for ((case, reason), (number, expected)) in reasons.iter().zip(expected.iter().enumerate()) {
        assert_eq!(*case, number.to_string());
        assert!(reason.contains(expected), "{reason}");
    }
    assert_eq!(reasons.len(), 5);
    let store = SliceStore::open(&scratch.store("store")).unwrap();
    assert_eq!(store.records().len(), 9);
    assert!(store.records().iter().all(|record| record.case == "5"));
}

#[test]
fn a_store_with_other_settings_is_refused_by_key() {
    let scratch = Scratch::with_cases(1, SHAPE);
    scratch.prepared("store", &[]);
    for (arguments, key) in [
        (["--window-at", "prepare"], "`settings.window_at` = \"load\", now it is \"prepare\""),
        (["--spacing-untrusted", "--json"], "`manifest.spacing_trusted` = true, now it is false"),
    ] {
        let output = scratch.prepare("store", &arguments);
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(message.contains(key) && message.contains("choose another store directory"), "{message}");
    }
}

#[test]
fn millimetres_are_not_valid_if_the_user_says_so_or_the_affine_is_the_identity() {
    let scratch = Scratch::with_cases(1, SHAPE);
    let valid = |store: &SliceStore| store.records()[0].spacing_valid;
    assert!(valid(&scratch.prepared("a", &[])));
    assert!(!valid(&scratch.prepared("b", &["--spacing-untrusted"])));
    let identity = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
    let [mut image, mut mask] = patient(SHAPE, 0);
    (image.affine, mask.affine) = (identity, identity);
    image.save(&scratch.data().join("volume-0.nii"));
    mask.save(&scratch.data().join("segmentation-0.nii.gz"));
    assert!(!valid(&scratch.prepared("c", &[])));
    assert!(text(&scratch.prepare("d", &[]).stderr).contains("warning: 0: its affine is the identity"));
}

#[test]
fn an_orientation_that_the_manifest_states_takes_the_headers_place() {
    let scratch = Scratch::with_cases(1, SHAPE);
    let as_told = scratch.prepared("told", &[]);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests/lits.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    // The file says LPS; the truth shall be head down and front to back.
    manifest["orientation"] = serde_json::json!({ "0": "LAI" });
    let path = scratch.directory.path().join("turned.json");
    fs::write(&path, manifest.to_string()).unwrap();
    let turned = scratch.prepared("turned", &["--size", "40", "--manifest", path.to_str().unwrap()]);
    drop(as_told);
    let as_told = scratch.prepared("told-40", &["--size", "40"]);
    let mut flipped: Vec<i16> = as_told.image(8)[..36 * 40].chunks_exact(40).rev().flatten().copied().collect();
    flipped.resize(1600, -1024);
    assert_eq!(turned.image(0), flipped);
}

#[test]
fn two_runs_give_the_same_bytes_whatever_the_number_of_workers() {
    let scratch = Scratch::with_cases(5, SHAPE);
    scratch.prepared("one", &["--jobs", "1"]);
    scratch.prepared("four", &["--jobs", "4"]);
    assert_eq!(content(&scratch.store("one")), content(&scratch.store("four")));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_no_half_case_and_resumes_to_the_same_bytes() {
    let scratch = Scratch::with_cases(24, [192, 192, 24]);
    scratch.prepared("whole", &[]);
    let mut interrupted = 0;
    // On a busy machine a run may end before it is stopped: then it begins anew, up to ten times.
    for _ in 0..10 {
        if interrupted == 2 {
            break;
        }
        let cases = scratch.store("stopped").join("cases");
        let count = || fs::read_dir(&cases).map_or(0, |entries| entries.flatten().count());
        let before = count();
        let mut child = scratch
            .command("stopped")
            .args(["--jobs", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() {
            // Not before it has done something itself: until then it may not listen to signals yet.
            if count() >= before + 2 {
                let id = child.id().to_string();
                assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let output = child.wait_with_output().unwrap();
        if output.status.code() == Some(130) {
            interrupted += 1;
            assert!(text(&output.stdout).contains("run the same command again to go on"), "{}", text(&output.stdout));
            assert!(matches!(SliceStore::open(&scratch.store("stopped")), Err(StoreError::Unfinished { .. })));
            for name in content(&scratch.store("stopped")).keys() {
                assert!(!name.to_string_lossy().starts_with(".sam-mix-part-"), "{}", name.display());
            }
        } else {
            assert!(output.status.success(), "{}", text(&output.stderr));
            fs::remove_dir_all(scratch.store("stopped")).unwrap();
        }
    }
    assert!(interrupted > 0, "no run was slow enough to be stopped");
    scratch.prepared("stopped", &[]);
    assert_eq!(content(&scratch.store("whole")), content(&scratch.store("stopped")));
}

#[cfg(unix)]
#[test]
fn killed_at_any_moment_and_run_again_a_store_has_the_bytes_of_an_uninterrupted_one() {
    let scratch = Scratch::with_cases(12, [160, 160, 24]);
    let begun = std::time::Instant::now();
    scratch.prepared("whole", &[]);
    let whole = begun.elapsed();
    let expected = content(&scratch.store("whole"));
    let mut killed = 0;
    for moment in 0..20_u32 {
        let store = format!("killed-{moment}");
        let mut child = scratch.command(&store).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Spread over the run, at steps that meet no rhythm of it.
        std::thread::sleep(whole.mul_f64(f64::from(moment * 7 % 20) / 20.0 + 0.013));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        if SliceStore::open(&scratch.store(&store)).is_ok() {
            assert_eq!(content(&scratch.store(&store)), expected, "a store that opens is whole");
        }
        scratch.prepared(&store, &[]);
        assert_eq!(content(&scratch.store(&store)), expected, "killed at moment {moment}");
        fs::remove_dir_all(scratch.store(&store)).unwrap();
    }
    assert!(killed >= 10, "only {killed} of 20 runs were killed before their end");
}

#[cfg(unix)]
#[test]
fn a_full_disk_ends_in_a_clear_error_and_leaves_no_half_case() {
    let scratch = Scratch::with_cases(3, SHAPE);
    // A limit of 8 blocks of 1024 bytes on a file's size stands for the full disk: the images of a case need 18 kB.
    let command = scratch.command("store");
    let arguments = command.get_args().map(|argument| format!("'{}'", argument.to_str().unwrap()));
    let line = format!("trap '' XFSZ; ulimit -f 8; exec '{PROGRAM}' {}", arguments.collect::<Vec<_>>().join(" "));
    let output = Command::new("bash").args(["-c", &line]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains("error: cannot write") && message.contains("free some space"), "{message}");
    assert_eq!(message.matches("os error").count(), 1, "{message}");
    let left: Vec<PathBuf> = content(&scratch.store("store")).into_keys().collect();
    assert_eq!(left, [PathBuf::from("store.json")]);
    assert_eq!(scratch.prepared("store", &[]).records().len(), 27);
}

#[test]
fn a_check_reads_everything_writes_nothing_and_says_what_would_be_done() {
    let scratch = Scratch::with_cases(4, SHAPE);
    scratch.prepared("store", &[]);
    Nifti::uint8(SHAPE, |x, _, _| u8::from(x < 4)).save(&scratch.data().join("segmentation-1.nii.gz"));
    let mut packed = fs::read(scratch.data().join("segmentation-2.nii.gz")).unwrap();
    let checksum = packed.len() - 6;
    packed[checksum] ^= 1;
    fs::write(scratch.data().join("segmentation-2.nii.gz"), packed).unwrap();
    fs::remove_file(scratch.data().join("segmentation-3.nii.gz")).unwrap();
    let before = content(&scratch.store("store"));
    let output = scratch.prepare("store", &["--check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["cases"][0]["would"], "keep");
    assert_eq!(found["cases"][0]["found"]["shape"], serde_json::json!(SHAPE));
    assert_eq!(
        (&found["cases"][0]["found"]["orientation"], &found["cases"][0]["found"]["slices"]),
        (&"LPS".into(), &9.into())
    );
    assert_eq!(found["cases"][1]["would"], "prepare");
    assert!(found["cases"][2]["would"]["refuse"].as_str().unwrap().contains("can't be decompressed"));
    assert!(found["cases"][3]["would"]["refuse"].as_str().unwrap().contains("it has no mask"));
    let words = text(&scratch.prepare("store", &["--check"]).stdout);
    assert!(words.contains("1 to prepare, 1 to keep, 2 to refuse"), "{words}");
    let words = text(&scratch.prepare("store", &["--check", "--size", "64"]).stdout);
    assert!(
        words.contains("`settings.slice_size` = 32, now it is 64") && words.contains("2 to prepare, 0 to keep"),
        "{words}"
    );
    assert_eq!(content(&scratch.store("store")), before);
    assert!(!scratch.store("new").exists() && scratch.prepare("new", &["--check"]).status.code() == Some(1));
    assert!(!scratch.store("new").exists());
}

#[test]
fn strict_stops_at_the_first_bad_case_and_a_later_run_goes_on() {
    let scratch = Scratch::with_cases(3, SHAPE);
    fs::write(scratch.data().join("volume-1.nii"), b"not a volume").unwrap();
    let output = scratch.prepare("store", &["--strict", "--jobs", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("case '1' can't be prepared, and --strict stops"),
        "{}",
        text(&output.stderr)
    );
    assert!(SliceStore::open(&scratch.store("store")).is_err());
    patient(SHAPE, 1)[0].save(&scratch.data().join("volume-1.nii"));
    assert_eq!(scratch.prepared("store", &["--strict"]).records().len(), 27);
}

#[test]
fn redo_replaces_a_store_of_other_settings_as_if_it_were_new() {
    let scratch = Scratch::with_cases(3, SHAPE);
    scratch.prepared("new", &["--size", "24"]);
    scratch.prepared("old", &[]);
    let message = text(&scratch.prepare("old", &["--size", "24"]).stderr);
    assert!(message.contains("all 3 cases would be prepared again: --redo does so"), "{message}");
    scratch.prepared("old", &["--size", "24", "--redo"]);
    assert_eq!(content(&scratch.store("old")), content(&scratch.store("new")));
}

#[test]
fn an_added_case_is_the_only_one_prepared() {
    let scratch = Scratch::with_cases(2, SHAPE);
    scratch.prepared("store", &[]);
    let before = content(&scratch.store("store"));
    data_set(&scratch.data(), 3, SHAPE);
    let summary: Value = serde_json::from_slice(&scratch.prepare("store", &["--json"]).stdout).unwrap();
    assert_eq!((&summary["prepared"], &summary["unchanged"]), (&1.into(), &2.into()));
    let after = content(&scratch.store("store"));
    let kept = |name: &&PathBuf| !name.starts_with("index.parquet") && !name.starts_with("index.sha256");
    assert!(before.keys().filter(kept).all(|name| before[name] == after[name]));
}

#[test]
fn native_size_is_that_of_the_largest_slice_and_nothing_is_scaled() {
    let scratch = Scratch::with_cases(1, SHAPE);
    let [image, mask] = patient([52, 20, 4], 9);
    image.save(&scratch.data().join("volume-1.nii"));
    mask.save(&scratch.data().join("segmentation-1.nii"));
    let store = scratch.prepared("store", &["--size", "native"]);
    assert_eq!(store.slice_size(), 52);
    assert_eq!((store.records()[0].row_spacing_mm, store.records()[0].column_spacing_mm), (0.8, 0.8));
    let first: Vec<i16> = image.data.chunks_exact(2).take(52).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    assert_eq!(store.image(9)[..52], first);
    // A larger one that comes later doesn't fit; the store stays as it is.
    let [image, mask] = patient([60, 20, 4], 9);
    image.save(&scratch.data().join("volume-2.nii"));
    mask.save(&scratch.data().join("segmentation-2.nii"));
    let output = scratch.prepare("store", &["--size", "native"]);
    assert!(text(&output.stderr).contains("do not fit into the store's 52 x 52"), "{}", text(&output.stderr));
    assert_eq!(scratch.prepared("store", &["--size", "native", "--redo"]).slice_size(), 60);
}

#[test]
fn several_masks_are_one_target() {
    let scratch = Scratch::with_cases(1, SHAPE);
    for (name, label) in [("liver", 1), ("lesion", 2)] {
        let [_, mask] = patient(SHAPE, 0);
        let data = mask.data.iter().map(|&value| u8::from(value == label)).collect();
        Nifti { data, ..mask }.save(&scratch.data().join(format!("{name}-0.nii.gz")));
    }
    let manifest = scratch.manifest("several", |manifest| {
        manifest["mask"] = serde_json::json!(["liver-{case}.nii.gz", "lesion-{case}.nii.gz"]);
        manifest["labels"] = serde_json::json!({ "background": 0, "organ": 1 });
        manifest["target_labels"] = serde_json::json!(["organ"]);
    });
    let one = scratch.prepared("one", &[]);
    let several = scratch.prepared("several", &["--manifest", &manifest]);
    let (one, several) = (one.for_evaluation(), several.for_evaluation());
    assert!((0..9).all(|row| one.mask(row).is_some() && one.mask(row) == several.mask(row)));
}

#[test]
fn grey_levels_are_refused_until_their_window_is_declared() {
    let scratch = Scratch::with_cases(1, SHAPE);
    let [image, _] = patient(SHAPE, 0);
    let hu = |bytes: &[u8]| f64::from(i16::from_le_bytes([bytes[0], bytes[1]])).clamp(-160.0, 240.0);
    let grey: Vec<u8> = image.data.chunks_exact(2).map(|b| ((hu(b) + 160.0) / 400.0 * 255.0).round() as u8).collect();
    let as_hu = scratch.prepared("hu", &["--window-at", "prepare"]);
    Nifti { data_type: 2, bits: 8, data: grey, ..image }.save(&scratch.data().join("volume-0.nii"));
    let message = text(&scratch.prepare("grey", &[]).stderr);
    assert!(
        message.contains("looks like 8-bit grey levels") && message.contains("--intensity grey8:40:400"),
        "{message}"
    );
    let manifest = scratch.manifest("grey", |manifest| {
        manifest["intensity"] = serde_json::json!({ "kind": "grey8", "level": 40, "width": 400 });
    });
    // A store without a case may still be made otherwise.
    let store = scratch.prepared("grey", &["--manifest", &manifest, "--window-at", "prepare"]);
    // A grey level is 1.57 HU.
    let apart = |row: usize| store.image(row).iter().zip(as_hu.image(row)).map(|(a, b)| (a - b).abs()).max();
    assert!((0..9).all(|row| apart(row).unwrap() <= 1));
}

#[test]
fn dicom_series_of_one_patient_share_a_hashed_key_and_leave_no_name() {
    let scratch = Scratch { directory: tempfile::tempdir().unwrap() };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dicom");
    for (case, syntax) in [("DOE^JANE first", "jpeg_ls"), ("DOE^JANE second", "explicit_little")] {
        let folder = scratch.data().join(case);
        fs::create_dir_all(&folder).unwrap();
        // Of the uncompressed series, the slices that the others have too: 01 and 06 are there for other tests.
        for file in ["00.dcm", "02.dcm", "05.dcm"] {
            fs::copy(fixtures.join(syntax).join(file), folder.join(file)).unwrap();
        }
        let volume = ct_ingest::read_volume(&folder, &ct_ingest::ReadOptions::default()).unwrap();
        let mask = vec![1; volume.voxels.len()];
        ct_ingest::write_mask(&scratch.data().join(format!("{case}.nii.gz")), &mask, &volume).unwrap();
    }
    let store = scratch.prepared("store", &["--manifest", "dicom"]);
    assert_eq!(store.records().len(), 6);
    let keys: Vec<&str> = store.records().iter().map(|record| record.patient.as_str()).collect();
    assert!(keys.iter().all(|key| *key == keys[0] && key.len() == 16), "one patient: {keys:?}");
    assert_ne!(store.records()[0].case, store.records()[5].case);
    assert!(store.records().iter().all(slice_store::SliceRecord::has_target));
    let output = scratch.prepare("store", &["--manifest", "dicom"]);
    assert!(text(&output.stdout).contains("nothing to do: all 2 cases"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("the manifest's secret is the one that everybody has"));
    for (name, bytes) in content(&scratch.store("store")) {
        for hidden in ["DOE", "JANE", "first", "replace this by"] {
            let words = text(&bytes);
            assert!(!words.contains(hidden), "{} tells {hidden}", name.display());
        }
    }
    // A changed slice is noticed behind its folder's name.
    let slice = scratch.data().join("DOE^JANE second/05.dcm");
    fs::write(&slice, &fs::read(&slice).unwrap()[..200]).unwrap();
    let message = text(&scratch.prepare("store", &["--manifest", "dicom"]).stderr);
    assert!(message.contains("failed") && !message.contains("DOE") && !message.contains("second"), "{message}");
}

#[test]
fn an_unknown_manifest_and_an_empty_directory_say_what_to_do() {
    let scratch = Scratch::with_cases(0, SHAPE);
    let output = scratch.prepare("store", &["--manifest", "lit"]);
    assert!(text(&output.stderr).contains("did you mean 'lits'?"), "{}", text(&output.stderr));
    fs::create_dir_all(scratch.data()).unwrap();
    let output = scratch.prepare("store", &[]);
    assert!(text(&output.stderr).contains("How to get the data: register at"), "{}", text(&output.stderr));
    assert!(!scratch.store("store").exists(), "nothing is made before there is something to prepare");
}

#[test]
fn inspect_counts_and_draws_a_montage() {
    let scratch = Scratch::with_cases(2, SHAPE);
    scratch.prepared("store", &[]);
    let picture = scratch.directory.path().join("montage.png");
    let started =
        |more: &[&str]| Command::new(PROGRAM).arg("inspect").arg(scratch.store("store")).args(more).output().unwrap();
    let inspect = |more: &[&str]| {
        let output = started(more);
        assert!(output.status.success(), "{}", text(&output.stderr));
        output
    };
    let summary: Value = serde_json::from_slice(&inspect(&["--json"]).stdout).unwrap();
    assert_eq!((&summary["slices"], &summary["presence"]["present"]), (&18.into(), &12.into()));
    assert_eq!(summary["cases"][1]["case"], "1");
    let words = text(&inspect(&["--montage", picture.to_str().unwrap()]).stdout);
    assert!(words.contains("2 cases of 2 patients, 18 slices, 12 with liver"), "{words}");
    assert!(words.contains("montage row 2, column 6: 1/0008"), "{words}");
    std::fs::write(&picture, "mine").unwrap();
    let refused = started(&["--montage", picture.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("montage.png' is there already"), "{}", text(&refused.stderr));
    assert_eq!(std::fs::read(&picture).unwrap(), b"mine");
    inspect(&["--montage", picture.to_str().unwrap(), "--overwrite"]);
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(&picture).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (6 * 32, 2 * 32));
    assert!(pixels.chunks_exact(3).any(|pixel| pixel == [255, 210, 0]), "the outline is drawn");
}

#[test]
fn real_livers_lie_at_the_images_left() {
    let Some(data) = test_data("real_livers_lie_at_the_images_left", "lits-mini") else { return };
    let scratch = Scratch { directory: tempfile::tempdir().unwrap() };
    fs::create_dir_all(scratch.data()).unwrap();
    for name in ["volume-0.nii.gz", "segmentation-0.nii.gz", "volume-1.nii.gz", "segmentation-1.nii.gz"] {
        fs::copy(data.join(name), scratch.data().join(name)).unwrap();
    }
    let store = scratch.prepared("store", &["--size", "256", "--spacing-untrusted"]);
    assert_eq!(store.records().len(), 28);
    let mut hu = [i16::MAX, i16::MIN];
    for row in 0..28 {
        hu = store.image(row).iter().fold(hu, |[low, high], &hu| [low.min(hu), high.max(hu)]);
        assert!(store.records()[row].has_target() && !store.records()[row].spacing_valid);
    }
    assert_eq!(hu, [-160, 240], "the pictures' window");
    let pixels: u64 = (0..28).filter_map(|row| store.for_evaluation().target_pixels(row)).map(u64::from).sum();
    // volumes.json: 7.515 % and 9.020 % of 14 slices each.
    let expected = (0.075_145_721 + 0.090_203_091) * 14.0 * 65_536.0;
    assert!((pixels as f64 / expected - 1.0).abs() < 0.002, "{pixels} {expected}");
    assert!(mean_column(&store) < 110.0, "{}", mean_column(&store));
}

#[test]
fn another_layout_orientation_and_type_leads_to_the_same_picture() {
    let Some(data) = test_data("another_layout_orientation_and_type", "totalsegmentator-layout") else { return };
    let scratch = Scratch { directory: tempfile::tempdir().unwrap() };
    let output = Command::new(PROGRAM)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["prepare", "--manifest", "totalsegmentator", "--data"])
        .arg(data)
        .arg("--store")
        .arg(scratch.store("store"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let store = SliceStore::open(&scratch.store("store")).unwrap();
    let with_liver: Vec<u32> =
        store.records().iter().filter(|record| record.has_target()).map(|record| record.index).collect();
    assert_eq!((store.records().len(), with_liver.len()), (112, 42));
    // The scan begins below the liver and ends in it.
    assert_eq!(with_liver, (70..112).collect::<Vec<_>>());
    assert!(mean_column(&store) < 110.0, "{}", mean_column(&store));
}

/// Of all liver pixels; the patient's right is at the image's left, columns below 128.
fn mean_column(store: &SliceStore) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for row in 0..store.records().len() {
        for (i, &value) in store.for_evaluation().mask(row).unwrap().iter().enumerate() {
            sum += f64::from(value) * (i % store.slice_size()) as f64;
            count += f64::from(value);
        }
    }
    sum / count
}

#[test]
fn a_detached_volume_is_prepared_and_prepared_again_when_its_voxels_change() {
    let scratch = Scratch::with_cases(1, SHAPE);
    let [image, mask] = patient(SHAPE, 7);
    let folder = scratch.data();
    let [x, y, z] = SHAPE;
    let header = |kind: &str, name: &str| {
        format!(
            "NRRD0004\ntype: {kind}\ndimension: 3\nspace: LPS\nsizes: {x} {y} {z}\n\
             space directions: (0.8,0,0) (0,0.8,0) (0,0,2)\nspace origin: (-100,-90,-400)\n\
             endian: little\nencoding: raw\ndata file: {name}\n"
        )
    };
    // A manifest asks for names; the content says what the files are.
    fs::write(folder.join("volume-9.nii"), header("short", "image.raw")).unwrap();
    fs::write(folder.join("segmentation-9.nii"), header("uchar", "mask.raw")).unwrap();
    fs::write(folder.join("image.raw"), &image.data).unwrap();
    fs::write(folder.join("mask.raw"), &mask.data).unwrap();
    let store = scratch.prepared("store", &[]);
    image.save(&folder.join("volume-9.nii"));
    mask.save(&folder.join("segmentation-9.nii"));
    let nifti = scratch.prepared("nifti", &[]);
    assert!(images(&scratch.store("store")) == images(&scratch.store("nifti")), "the same slices from both formats");
    drop((store, nifti));

    fs::write(folder.join("volume-9.nii"), header("short", "image.raw")).unwrap();
    fs::write(folder.join("segmentation-9.nii"), header("uchar", "mask.raw")).unwrap();
    drop(scratch.prepared("again", &[]));
    let before = images(&scratch.store("again"));
    let [other, _] = patient(SHAPE, 8);
    fs::write(folder.join("image.raw"), &other.data).unwrap();
    drop(scratch.prepared("again", &[]));
    assert!(images(&scratch.store("again")) != before, "the new voxels are in the store");
}

/// The stored images, whatever their volumes were.
fn images(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    content(store).into_iter().filter(|(path, _)| path.starts_with("images")).collect()
}
