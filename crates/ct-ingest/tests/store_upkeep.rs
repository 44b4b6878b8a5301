//! What becomes of a store whose sources, manifest or place are no longer what they were, and how its pixels are verified.

mod common;

use common::scratch::{PROGRAM, Scratch, content, text};
use common::{Nifti, patient};
use serde_json::{Value, json};
use slice_store::SliceStore;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const SHAPE: [usize; 3] = [40, 36, 6];

fn cases(scratch: &Scratch, store: &str) -> BTreeSet<String> {
    SliceStore::open(&scratch.store(store)).unwrap().records().iter().map(|record| record.case.clone()).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn a_case_whose_files_are_gone_leaves_the_store_named_and_with_a_status() {
    let scratch = Scratch::with_cases(3, SHAPE);
    let whole = scratch.prepared("store", &[]).checksum().to_owned();
    for name in ["volume-1.nii", "segmentation-1.nii.gz"] {
        fs::rename(scratch.data().join(name), scratch.directory.path().join(name)).unwrap();
    }
    let before = content(&scratch.store("store"));
    let check = scratch.prepare("store", &["--check"]);
    let words = text(&check.stdout);
    assert!(words.contains("would be left out of the store's index: 1: its files are no longer there"), "{words}");
    assert_eq!(check.status.code(), Some(1));
    assert_eq!(content(&scratch.store("store")), before);

    let output = scratch.prepare("store", &[]);
    let words = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains("left out: 1: its files are no longer there") && !words.contains("nothing to do"),
        "{words}"
    );
    assert!(
        words.contains("0 cases prepared, 2 unchanged, 1 left out") && words.contains("2 cases of 2 patients"),
        "{words}"
    );
    assert_eq!(cases(&scratch, "store"), names(["0", "2"]));
    let inspect = Command::new(PROGRAM).arg("inspect").arg(scratch.store("store")).output().unwrap();
    let words = text(&inspect.stdout);
    assert!(words.contains("1                is not in the index"), "{words}");
    // It is said once; then the store is as its sources are.
    assert!(scratch.prepare("store", &["--check"]).status.success());
    assert!(text(&scratch.prepare("store", &[]).stdout).contains("nothing to do: all 2 cases"));
    // And when the files are back, nothing is prepared twice.
    for name in ["volume-1.nii", "segmentation-1.nii.gz"] {
        fs::rename(scratch.directory.path().join(name), scratch.data().join(name)).unwrap();
    }
    let summary: Value = serde_json::from_slice(&scratch.prepare("store", &["--json"]).stdout).unwrap();
    assert_eq!((&summary["prepared"], &summary["unchanged"], &summary["left"]), (&json!(0), &json!(3), &json!([])));
    assert_eq!(SliceStore::open(&scratch.store("store")).unwrap().checksum(), whole);
}

#[test]
fn a_case_that_now_fails_does_not_keep_its_old_version() {
    let scratch = Scratch::with_cases(3, SHAPE);
    scratch.prepared("store", &[]);
    fs::write(scratch.data().join("volume-0.nii"), b"no volume").unwrap();
    fs::remove_file(scratch.data().join("segmentation-2.nii.gz")).unwrap();
    let check: Value = serde_json::from_slice(&scratch.prepare("store", &["--check", "--json"]).stdout).unwrap();
    assert_eq!(check["would_leave"], json!(["0", "2"]));
    let output = scratch.prepare("store", &[]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stdout);
    assert!(
        words.contains("left out: 0: it can't be prepared now") && words.contains("left out: 2: it can't"),
        "{words}"
    );
    assert_eq!(cases(&scratch, "store"), names(["1"]));
    // Not even where no case is left.
    fs::write(scratch.data().join("volume-1.nii"), b"no volume").unwrap();
    assert_eq!(scratch.prepare("store", &[]).status.code(), Some(1));
    assert!(SliceStore::open(&scratch.store("store")).is_err());
}

#[test]
fn a_check_has_the_status_that_the_preparation_would_have() {
    let scratch = Scratch::with_cases(2, SHAPE);
    scratch.prepared("store", &[]);
    assert_eq!(scratch.prepare("store", &["--check"]).status.code(), Some(0));
    fs::create_dir_all(scratch.store("mine")).unwrap();
    fs::write(scratch.store("mine").join("thesis.txt"), "years of work").unwrap();
    for (store, more, reason) in [
        ("store", &["--size", "64"][..], "`settings.slice_size` = 32, now it is 64"),
        ("store", &["--spacing-untrusted"], "`manifest.spacing_trusted` = true, now it is false"),
        ("mine", &[], "is neither empty nor a slice store"),
        ("mine", &["--redo"], "is neither empty nor a slice store"),
        ("mine", &["--size", "native"], "is neither empty nor a slice store"),
    ] {
        let prepared = scratch.prepare(store, more);
        assert!(text(&prepared.stderr).contains(reason), "{}", text(&prepared.stderr));
        let checked = scratch.prepare(store, &[more, &["--check"]].concat());
        assert!(text(&checked.stdout).contains(reason), "{}", text(&checked.stdout));
        assert_eq!((prepared.status.code(), checked.status.code()), (Some(1), Some(1)));
    }
    assert!(scratch.prepare("store", &["--size", "64", "--redo", "--check"]).status.success());
    // A whole check of a store that isn't there yet is no refusal.
    assert!(scratch.prepare("new", &["--check"]).status.success());
}

#[test]
fn a_directory_of_other_things_is_no_place_for_a_store_and_nothing_is_swept_there() {
    let scratch = Scratch::with_cases(1, SHAPE);
    let home = scratch.store("home");
    fs::create_dir_all(home.join("images")).unwrap();
    for name in [".editor.tmp", "images/.scan.npy.tmp", "images/mine.npy"] {
        fs::write(home.join(name), "mine").unwrap();
    }
    for more in [&["--store", "."][..], &["--store", ".", "--redo"]] {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests/lits.json");
        let mut command = Command::new(PROGRAM);
        command.current_dir(&home).arg("prepare").arg("--data").arg(scratch.data()).arg("--manifest").arg(manifest);
        let output = command.args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(
            message.contains("'.' is neither empty nor a slice store") && message.contains("choose another"),
            "{message}"
        );
    }
    for name in [".editor.tmp", "images/.scan.npy.tmp", "images/mine.npy"] {
        assert_eq!(fs::read(home.join(name)).unwrap(), b"mine");
    }
    assert_eq!(fs::read_dir(&home).unwrap().count(), 2, "nothing was added");
    // Nor is the data set's own directory.
    let message = text(&scratch.prepare("data", &[]).stderr);
    assert!(message.contains("is neither empty nor a slice store"), "{message}");
}

#[test]
fn an_entry_of_the_manifest_redoes_the_case_that_it_concerns_and_no_other() {
    let scratch = Scratch::with_cases(3, SHAPE);
    let plain = scratch.manifest("plain", |_| ());
    scratch.prepared("store", &["--manifest", &plain]);
    let mut checksums = BTreeSet::new();
    let steps = [
        ("orientation", json!({ "1": "LAI" })),
        ("orientation", json!({ "1": "RAS" })),
        ("patient", json!({ "map": { "0": "0", "1": "p", "2": "2" } })),
        ("patient", json!("case")),
    ];
    for (name, value) in steps {
        let manifest = scratch.manifest(name, |manifest| manifest[name] = value.clone());
        let before = content(&scratch.store("store"));
        let check: Value =
            serde_json::from_slice(&scratch.prepare("store", &["--manifest", &manifest, "--check", "--json"]).stdout)
                .unwrap();
        let would: Vec<&Value> = check["cases"].as_array().unwrap().iter().map(|case| &case["would"]).collect();
        assert_eq!(would, ["keep", "prepare", "keep"], "{name}");
        let output = scratch.prepare("store", &["--manifest", &manifest, "--json"]);
        let summary: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        assert_eq!((&summary["prepared"], &summary["unchanged"]), (&json!(1), &json!(2)), "{name}");
        let after = content(&scratch.store("store"));
        for kind in ["images/0.npy", "images/2.npy", "cases/0.json", "cases/2.json"] {
            assert_eq!(before[Path::new(kind)], after[Path::new(kind)]);
        }
        let again = scratch.prepare("store", &["--manifest", &manifest]);
        assert!(text(&again.stdout).contains("nothing to do"), "{}", text(&again.stdout));
        checksums.insert(SliceStore::open(&scratch.store("store")).unwrap().checksum().to_owned());
    }
    assert_eq!(checksums.len(), 4);
    // What holds for all cases is still refused.
    let labels = scratch.manifest("labels", |manifest| manifest["target_labels"] = json!(["liver"]));
    let message = text(&scratch.prepare("store", &["--manifest", &labels]).stderr);
    assert!(message.contains("`manifest.target_labels` = ") && message.contains("all 3 cases"), "{message}");
}

#[test]
fn a_store_made_case_by_case_has_the_bytes_of_one_made_at_once() {
    let scratch = Scratch::with_cases(2, SHAPE);
    scratch.prepared("store", &[]);
    let manifest = scratch.manifest("turned", |manifest| manifest["orientation"] = json!({ "1": "LAI" }));
    scratch.prepared("store", &["--manifest", &manifest]);
    scratch.prepared("new", &["--manifest", &manifest]);
    assert_eq!(content(&scratch.store("store")), content(&scratch.store("new")));
}

#[test]
fn grey_levels_of_another_window_are_another_store() {
    let scratch = Scratch::with_cases(1, SHAPE);
    let checksum = |name: &str, level: i32, width: i32| {
        let manifest = scratch.manifest(name, |manifest| {
            manifest["intensity"] = json!({ "kind": "grey8", "level": level, "width": width });
        });
        scratch.prepared(name, &["--manifest", &manifest]).checksum().to_owned()
    };
    let grey = |value: fn(usize) -> u8| {
        let [image, _] = patient(SHAPE, 0);
        let data = (0..SHAPE.iter().product()).map(value).collect();
        Nifti { data_type: 2, bits: 8, data, ..image }.save(&scratch.data().join("volume-0.nii"));
    };
    grey(|i| (i % 251) as u8);
    let first = checksum("a", 40, 400);
    assert_ne!(first, checksum("b", 50, 350));
    assert_eq!(first, checksum("c", 40, 400));
}

#[test]
fn inspect_verify_finds_a_flipped_bit_of_an_image_and_of_a_mask() {
    let scratch = Scratch::with_cases(2, SHAPE);
    scratch.prepared("store", &[]);
    let verify = |more: &[&str]| {
        let store = scratch.store("store");
        Command::new(PROGRAM).arg("inspect").arg(store).arg("--verify").args(more).output().unwrap()
    };
    let output = verify(&[]);
    assert!(output.status.success() && text(&output.stdout).contains("all are what was written"));
    for name in ["images/1.npy", "masks/0.npy"] {
        let path = scratch.store("store").join(name);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[200] ^= 1;
        fs::write(&path, flipped).unwrap();
        let output = verify(&[]);
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(message.contains(&format!("{name}' has changed since it was written")), "{message}");
        let found: Value = serde_json::from_slice(&verify(&["--json"]).stdout).unwrap();
        assert_eq!(
            (&found["verified"]["arrays"], found["verified"]["changed"].as_array().unwrap().len()),
            (&json!(4), 1)
        );
        // The way out that the message tells.
        fs::remove_file(&path).unwrap();
        let summary: Value = serde_json::from_slice(&scratch.prepare("store", &["--json"]).stdout).unwrap();
        assert_eq!((&summary["prepared"], &summary["unchanged"]), (&json!(1), &json!(1)));
        assert!(fs::read(&path).unwrap() == whole && verify(&[]).status.success());
    }
    // A store of format 1 has nothing to compare with, and says so.
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("../slice-store/tests/fixtures/format1");
    let output = Command::new(PROGRAM).arg("inspect").arg(&old).arg("--verify").output().unwrap();
    assert!(!output.status.success() && text(&output.stderr).contains("keeps no digests"), "{}", text(&output.stderr));
    assert!(Command::new(PROGRAM).arg("inspect").arg(&old).output().unwrap().status.success());
}

#[test]
fn parts_that_several_machines_prepared_become_the_store_that_one_would_have_made() {
    let scratch = Scratch::with_cases(5, SHAPE);
    scratch.prepared("whole", &[]);
    let parts = ["1/3", "2/3", "3/3"];
    for (shard, expected) in parts.iter().zip([names(["0", "3"]), names(["1", "4"]), names(["2"; 1])]) {
        let store = format!("part-{}", &shard[..1]);
        scratch.prepared(&store, &["--shard", shard]);
        assert_eq!(cases(&scratch, &store), expected);
    }
    let merge: Vec<String> = (1..=3)
        .flat_map(|part| ["--merge".to_owned(), scratch.store(&format!("part-{part}")).display().to_string()])
        .collect();
    let merge: Vec<&str> = merge.iter().map(String::as_str).collect();
    let json = |store: &str, more: &[&str]| -> Value {
        let output = scratch.prepare(store, &[more, &["--json"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let merged = json("merged", &merge);
    assert_eq!((&merged["prepared"], &merged["merged"]), (&json!(0), &json!(5)));
    assert_eq!(content(&scratch.store("merged")), content(&scratch.store("whole")));
    // A part that nobody made is prepared then.
    let some = json("some", &merge[..4]);
    assert_eq!((&some["prepared"], &some["merged"]), (&json!(1), &json!(4)));
    assert_eq!(content(&scratch.store("some")), content(&scratch.store("whole")));
    // One after the other into one store: nothing that was there leaves it.
    for shard in parts {
        scratch.prepared("in-turn", &["--shard", shard]);
    }
    assert_eq!(content(&scratch.store("in-turn")), content(&scratch.store("whole")));
}

#[test]
fn a_part_that_does_not_belong_or_is_damaged_is_refused_and_leaves_nothing() {
    let scratch = Scratch::with_cases(2, SHAPE);
    scratch.prepared("part", &[]);
    let refused = |more: &[&str], expected: &str| {
        let output = scratch.prepare("store", more);
        let words = text(&output.stderr);
        assert!(!output.status.success() && words.contains(expected), "{words}");
    };
    let (part, absent) = (scratch.store("part").display().to_string(), scratch.store("absent").display().to_string());
    refused(&["--shard", "3/2"], "is no part of a whole");
    refused(&["--merge", &absent], "absent");
    refused(&["--merge", &part, "--hu", "-500:500"], "stored_hu");
    assert!(!scratch.store("store").exists());
    // A byte of the pixels is another one.
    let path = scratch.store("part").join("images/1.npy");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    refused(&["--merge", &part], "its bytes are not those that were written");
    assert!(
        !scratch.store("store").join("images/1.npy").exists() && !scratch.store("store").join("cases/1.json").exists()
    );
    // Without that part it is made from its files.
    let store = scratch.prepared("store", &[]);
    assert_eq!(store.checksum(), scratch.prepared("again", &[]).checksum());
}
