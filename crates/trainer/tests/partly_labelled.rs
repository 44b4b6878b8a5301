//! Training and evaluation on a store of which not every slice is annotated.

mod common;

use common::{CONFIG, weights};
use phantom::PhantomSettings;
use serde_json::Value;
use slice_store::{LabelCounts, Presence, SliceStore, StoreSettings};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

/// Masks of the slices that show the liver alone; a list says that the lowest two slices of patients 0 and 3 don't.
fn store(directory: &Path) -> PathBuf {
    let settings = PhantomSettings { patients: 4, slices: 12, size: 64, seed: 0 };
    phantom::write_data_set(&directory.join("data"), &settings).unwrap();
    let list = directory.join("presence.csv");
    fs::write(&list, "case,first,last,presence\n0,0,1,absent\n3,0,1,absent\n").unwrap();
    let manifest = ct_ingest::Manifest::load("phantom", Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let options = ct_ingest::PrepareOptions {
        data: directory.join("data"),
        store: directory.join("store"),
        manifest: ct_ingest::Manifest {
            mask_coverage: Some(ct_ingest::MaskCoverage::Painted),
            presence: Some(list),
            ..manifest
        },
        settings: StoreSettings { slice_size: 64, ..StoreSettings::default() },
        jobs: 2,
        strict: false,
        redo: false,
    };
    let summary = ct_ingest::prepare(&options, &AtomicBool::new(false), &|_| ()).unwrap();
    assert_eq!(summary.prepared, 4);
    options.store
}

/// A copy in which the images of unknown slices are others.
fn otherwise_unknown(store: &Path) -> PathBuf {
    let copy = store.with_file_name("other");
    for folder in ["", "images", "masks", "cases"] {
        fs::create_dir_all(copy.join(folder)).unwrap();
        for entry in fs::read_dir(store.join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_file() {
                fs::copy(&entry, copy.join(folder).join(entry.file_name().unwrap())).unwrap();
            }
        }
    }
    let known = SliceStore::open(store).unwrap();
    let slice_bytes = 2 * known.slice_size().pow(2);
    for record in known.records().iter().filter(|record| record.presence() == Presence::Unknown) {
        let path = copy.join("images").join(format!("{}.npy", record.case));
        let mut bytes = fs::read(&path).unwrap();
        let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        bytes[header + record.index as usize * slice_bytes..][..slice_bytes].fill(0);
        fs::write(&path, bytes).unwrap();
    }
    copy
}

fn sam_mix(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_sam-mix"))
        .args(arguments)
        .args(["--device", "cpu", "--threads", "1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn slices_of_which_nothing_is_known_are_in_no_loss_no_metric_and_no_budget() {
    let name = "slices_of_which_nothing_is_known_are_in_no_loss_no_metric_and_no_budget";
    let Some(weights) = weights(name) else { return };
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (first, config) = (store(place.path()), at("config.toml"));
    fs::write(&config, CONFIG).unwrap();
    let other = otherwise_unknown(&first);
    let train = |store: &Path, run: &Path| {
        let place =
            ["--config", text(&config), "--store", text(store), "--run", text(run), "--weights", text(&weights)];
        String::from_utf8(sam_mix(&[&["train"], &place[..]].concat()).stderr).unwrap()
    };
    let said = train(&first, &at("a"));
    train(&other, &at("b"));
    common::assert_same_end(&at("a"), &at("b"), &["weights.safetensors", "optimizer.safetensors"]);

    // Patients 0 and 1 train, 3 tests.
    let store = SliceStore::open(&first).unwrap();
    let of = |patients: &[&str]| {
        LabelCounts::of(store.records().iter().filter(|record| patients.contains(&record.patient.as_str())))
    };
    let (training, test) = (of(&["0", "1"]), of(&["3"]));
    assert!(training.presence.absent == 2 && training.presence.unknown > 2 && test.presence.unknown > 0);
    assert!(said.contains(&format!("of {} training slices nobody has said", training.presence.unknown)), "{said}");
    let record: Value = serde_json::from_slice(&fs::read(at("a").join("run.json")).unwrap()).unwrap();
    let known = training.presence.present + training.presence.absent;
    assert_eq!(record["label_budget"]["image_level_labels"]["count"], known - 2, "beside the two labelled ones");

    let run = at("a");
    let place = ["--run", text(&run), "--store", text(&first), "--split", "test", "--json"];
    let found: Value = serde_json::from_slice(&sam_mix(&[&["evaluate"], &place[..]].concat()).stdout).unwrap();
    let compared = test.presence.present + test.presence.absent;
    assert_eq!(
        (&found["counts"]["slices"], &found["counts"]["left_out"]),
        (&compared.into(), &test.presence.unknown.into())
    );
    assert_eq!(found["counts"]["liver_slices"], test.presence.present);
}
