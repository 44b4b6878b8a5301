//! What is known of slices where not every one has a mask: partial masks, cases without any, lists of image-level labels.

mod common;

use SliceLabel::{ListAbsent, ListPresent, MaskAbsent, MaskPresent, Unknown, VolumePresent};
use common::patient;
use common::scratch::{PROGRAM, Scratch, content, text};
use serde_json::{Value, json};
use slice_store::{SliceLabel, SliceStore};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// Slices 2 to 5 show the liver.
const SHAPE: [usize; 3] = [40, 36, 6];

/// Case 0 has a mask of its slices 3 and 4 alone, case 1 has none, case 2 has a whole one.
fn partly_labelled() -> Scratch {
    let scratch = Scratch::with_cases(3, SHAPE);
    let [_, mut mask] = patient(SHAPE, 0);
    let pixels = SHAPE[0] * SHAPE[1];
    for slice in [2, 5] {
        mask.data[slice * pixels..(slice + 1) * pixels].fill(0);
    }
    mask.save(&scratch.data().join("segmentation-0.nii.gz"));
    fs::remove_file(scratch.data().join("segmentation-1.nii.gz")).unwrap();
    scratch
}

fn list(scratch: &Scratch, rows: &str) -> String {
    let path = scratch.directory.path().join("presence.csv");
    fs::write(&path, format!("case,first,last,presence\n{rows}")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn labels(store: &SliceStore) -> BTreeMap<String, Vec<SliceLabel>> {
    let mut labels: BTreeMap<String, Vec<SliceLabel>> = BTreeMap::new();
    for record in store.records() {
        labels.entry(record.case.clone()).or_default().push(record.label);
    }
    labels
}

#[test]
fn each_slice_has_the_label_that_somebody_gave_it_and_no_other() {
    let scratch = partly_labelled();
    let path = list(&scratch, "0,0,1,absent\n1,,,absent\n1,2,4,present\n1,5,5,unknown\n");
    let store = scratch.prepared("store", &["--mask-coverage", "painted", "--presence", &path]);
    let found = labels(&store);
    assert_eq!(found["0"], [ListAbsent, ListAbsent, Unknown, MaskPresent, MaskPresent, Unknown]);
    assert_eq!(found["1"], [ListAbsent, ListAbsent, ListPresent, ListPresent, ListPresent, Unknown]);
    // Its empty slices are not painted.
    assert_eq!(found["2"], [Unknown, Unknown, MaskPresent, MaskPresent, MaskPresent, MaskPresent]);
    // A mask is that of its own slice, and nothing else has one.
    let whole = Scratch::with_cases(3, SHAPE);
    let whole = whole.prepared("store", &[]);
    let (masks, all) = (store.for_evaluation(), whole.for_evaluation());
    for (row, record) in store.records().iter().enumerate() {
        match record.label {
            MaskPresent => assert_eq!((masks.mask(row), masks.truth(row)), (all.mask(row), all.mask(row))),
            ListAbsent => assert_eq!((masks.mask(row), masks.truth(row)), (None, Some(&vec![0; 32 * 32][..]))),
            _ => assert_eq!((masks.mask(row), masks.truth(row)), (None, None)),
        }
    }
    let inspect = Command::new(PROGRAM).arg("inspect").arg(scratch.store("store")).arg("--json").output().unwrap();
    let inspect: Value = serde_json::from_slice(&inspect.stdout).unwrap();
    let counts = |of: &Value| (of["slices"].clone(), of["presence"].clone(), of["masks"].clone());
    let expected = |[slices, present, absent, unknown, masks]: [u32; 5]| {
        (json!(slices), json!({ "present": present, "absent": absent, "unknown": unknown }), json!(masks))
    };
    assert_eq!(counts(&inspect), expected([18, 9, 4, 5, 6]));
    assert_eq!(counts(&inspect["cases"][0]), expected([6, 2, 2, 2, 2]));
    assert_eq!(counts(&inspect["cases"][1]), expected([6, 3, 2, 1, 0]));
    // What a check takes for annotated is what is prepared.
    let check = scratch.prepare("new", &["--mask-coverage", "painted", "--presence", &path, "--check", "--json"]);
    let check: Value = serde_json::from_slice(&check.stdout).unwrap();
    for (checked, inspected) in check["cases"].as_array().unwrap().iter().zip(inspect["cases"].as_array().unwrap()) {
        assert_eq!(counts(&checked["found"]), counts(inspected));
    }
}

#[test]
fn an_annotated_slice_that_is_empty_is_said_by_a_list_of_slices() {
    let scratch = partly_labelled();
    let manifest =
        |slices: Value| scratch.manifest("m", |manifest| manifest["mask_coverage"] = json!({ "slices": slices }));
    let path = manifest(json!({ "0": [1, 3, 4], "2": [0, 1, 2, 3, 4, 5] }));
    let found = labels(&scratch.prepared("store", &["--manifest", &path]));
    assert_eq!(found["0"], [Unknown, MaskAbsent, Unknown, MaskPresent, MaskPresent, Unknown]);
    assert_eq!(found["1"], [Unknown; 6]);
    assert_eq!(found["2"], [MaskAbsent, MaskAbsent, MaskPresent, MaskPresent, MaskPresent, MaskPresent]);
    // Who looked at which slices is a part of the labels: only the case of which it changes is prepared anew.
    let path = manifest(json!({ "0": [0, 1, 3, 4], "2": [0, 1, 2, 3, 4, 5] }));
    let again: Value =
        serde_json::from_slice(&scratch.prepare("store", &["--manifest", &path, "--json"]).stdout).unwrap();
    assert_eq!((&again["prepared"], &again["unchanged"]), (&json!(1), &json!(2)));
    let path = manifest(json!({ "0": [3], "2": [0, 1, 2, 3, 4, 5] }));
    let refused = scratch.prepare("store", &["--manifest", &path]);
    let message = text(&refused.stderr);
    assert!(message.contains("case '0': its mask is painted in slice 4 of its file"), "{message}");
    let path = manifest(json!({ "0": [3, 4], "O2": [0], "2": [0, 1, 2, 3, 4, 5] }));
    let refused = scratch.prepare("store", &["--manifest", &path]);
    let message = text(&refused.stderr);
    assert!(message.contains("case 'O2': `mask_coverage.slices` of the manifest lists it, but"), "{message}");
}

#[test]
fn a_case_without_a_mask_is_refused_until_it_is_said_that_there_are_such() {
    let scratch = partly_labelled();
    let refused = scratch.prepare("store", &[]);
    assert_eq!(refused.status.code(), Some(1));
    let message = text(&refused.stderr);
    assert!(message.contains("case '1': it has no mask") && message.contains("--mask-coverage"), "{message}");
    assert_eq!(labels(&scratch.prepared("all", &["--mask-coverage", "all"]))["1"], [Unknown; 6]);
}

#[test]
fn a_changed_row_prepares_its_case_anew_and_no_other() {
    let scratch = partly_labelled();
    let prepare = |rows: &str| {
        let path = list(&scratch, rows);
        let output = scratch.prepare("store", &["--mask-coverage", "painted", "--presence", &path, "--json"]);
        let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
        (
            summary["prepared"].as_u64().unwrap(),
            SliceStore::open(&scratch.store("store")).unwrap().checksum().to_owned(),
        )
    };
    let (prepared, first) = prepare("1,0,1,absent\n");
    assert_eq!(prepared, 3);
    assert_eq!(prepare("# a remark\n1,0,1,absent\n"), (0, first.clone()));
    let (prepared, second) = prepare("1,0,1,absent\n1,2,2,present\n");
    assert_eq!(prepared, 1);
    assert_ne!(first, second, "labels are a part of what training depends on");
    // That some slice shows the liver is a label of no slice; it is remembered.
    let (prepared, _) = prepare("1,0,1,absent\n1,,,present\n");
    assert_eq!(prepared, 1);
    let case: Value = serde_json::from_slice(&fs::read(scratch.store("store").join("cases/1.json")).unwrap()).unwrap();
    assert_eq!(case["manifest"]["presence"][1], json!({ "of": "volume", "presence": "present" }));
}

#[test]
fn lists_that_contradict_masks_or_name_what_is_not_there_change_nothing() {
    let scratch = partly_labelled();
    let painted = |rows: &str| {
        let path = list(&scratch, rows);
        scratch.prepare("store", &["--mask-coverage", "painted", "--presence", &path])
    };
    assert!(painted("1,0,1,absent\n").status.success());
    let before = content(&scratch.store("store"));
    for (rows, expected) in [
        ("9,0,1,absent\n", "line 2: it names a case that isn't there"),
        ("1,0,6,absent\n", "line 2: it names slice 6, but the case has 6 slices"),
        ("1,0,1,absent\n1,0,1,liver\n", "line 3: `presence` is 'liver'"),
        ("1,0,3,absent\n1,2,5,present\n", "line 3: it says 'present' of slices of which line 2 says 'absent'"),
    ] {
        let refused = painted(rows);
        assert!(text(&refused.stderr).contains(expected), "{rows}: {}", text(&refused.stderr));
        assert_eq!((refused.status.code(), content(&scratch.store("store"))), (Some(1), before.clone()));
    }
    let message = text(&painted("0,3,3,absent\n").stderr);
    assert!(message.contains("case '0': slice 3 of its file is 'absent' by the presence list"), "{message}");
}

#[test]
fn voxels_of_the_ignore_label_are_kept_as_such_and_speak_for_nothing() {
    let scratch = Scratch::with_cases(1, SHAPE);
    let whole = scratch.prepared("whole", &[]);
    let [_, mut mask] = patient(SHAPE, 0);
    let pixels = SHAPE[0] * SHAPE[1];
    // Half of each slice from 1 to 3: slice 1 has no liver, 2 and 3 have.
    for slice in 1..4 {
        mask.data[slice * pixels..slice * pixels + pixels / 2].fill(9);
    }
    mask.save(&scratch.data().join("segmentation-0.nii.gz"));
    let refused = scratch.prepare("refused", &[]);
    assert!(
        text(&refused.stderr).contains("voxel of 9") || text(&refused.stderr).contains("value 9"),
        "{}",
        text(&refused.stderr)
    );
    let manifest = scratch.manifest("ignore", |manifest| manifest["labels"]["ignore"] = json!(9));
    let mut command = Command::new(PROGRAM);
    command.args(["prepare", "--size", "32", "--manifest", &manifest]);
    let output = command.arg("--data").arg(scratch.data()).arg("--store").arg(scratch.store("store")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let store = SliceStore::open(&scratch.store("store")).unwrap();
    assert_eq!(labels(&store)["0"], [MaskAbsent, Unknown, MaskPresent, MaskPresent, MaskPresent, MaskPresent]);
    let (found, all) = (store.for_evaluation(), whole.for_evaluation());
    for row in [2, 3] {
        let (found, all) = (found.mask(row).unwrap(), all.mask(row).unwrap());
        assert!(found.contains(&1) && found.contains(&255));
        let differ = found.iter().zip(all).filter(|(found, all)| found != all);
        assert!(differ.clone().all(|(found, _)| *found == 255), "what is not ignored is as it was");
        assert_eq!(
            store.for_evaluation().target_pixels(row).unwrap() as usize,
            found.iter().map(|&value| usize::from(value == 1)).sum::<usize>()
        );
    }
    assert_eq!(found.mask(1), None);
    // A crop that is ignored in part shows the target or says nothing.
    let training = store.for_training([]).unwrap();
    let crop = |left| slice_store::Crop { top: 0, left, side: 32 };
    assert_eq!(training.crop_shows_target(2, crop(0), 0.01), Some(true));
    assert_eq!(training.crop_shows_target(2, crop(0), 0.9), None);
}

#[test]
fn a_volume_that_is_said_to_show_the_liver_somewhere_is_a_label_of_no_slice() {
    let scratch = partly_labelled();
    let path = list(&scratch, "1,,,present\n0,,,present\n0,0,0,absent\n");
    let store = scratch.prepared("store", &["--mask-coverage", "painted", "--presence", &path]);
    let found = labels(&store);
    assert_eq!(found["1"], [VolumePresent; 6]);
    assert_eq!(found["0"], [ListAbsent, VolumePresent, VolumePresent, MaskPresent, MaskPresent, VolumePresent]);
    assert!(store.records().iter().all(|record| record.label != VolumePresent || !record.has_target()));
    // It comes back out of the index, and is another store than one of which nobody said so.
    let path = list(&scratch, "0,0,0,absent\n");
    let silent = scratch.prepared("silent", &["--mask-coverage", "painted", "--presence", &path]);
    assert_eq!(labels(&silent)["1"], [Unknown; 6]);
    assert_ne!(silent.checksum(), store.checksum());
    let path = list(&scratch, "1,,,present\n1,0,5,absent\n");
    let refused = scratch.prepare("other", &["--mask-coverage", "painted", "--presence", &path]);
    assert!(
        text(&refused.stderr).contains("each of its slices is annotated as without it"),
        "{}",
        text(&refused.stderr)
    );
}
