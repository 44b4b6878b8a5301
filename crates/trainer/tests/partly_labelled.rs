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
    store_with(directory, "0,0,1,absent\n3,0,1,absent\n", None)
}

/// The same with another list, and without the mask of a patient.
fn store_with(directory: &Path, rows: &str, without: Option<usize>) -> PathBuf {
    let settings = PhantomSettings { patients: 4, slices: 12, size: 64, seed: 0 };
    phantom::write_data_set(&directory.join("data"), &settings).unwrap();
    let list = directory.join("presence.csv");
    fs::write(&list, format!("case,first,last,presence\n{rows}")).unwrap();
    if let Some(case) = without {
        fs::remove_file(directory.join(format!("data/segmentation-{case}.nii.gz"))).unwrap();
    }
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
        shard: None,
        merge: Vec::new(),
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

    what_to_draw_next(&run, &first, &config, &weights);
}

/// By each strategy, without a mask being looked at; a run's masks of the slices lie beside the list.
fn what_to_draw_next(run: &Path, store: &Path, config: &Path, weights: &Path) {
    let known = SliceStore::open(store).unwrap();
    let drawn = |patients: &[&str]| {
        let of = |record: &&slice_store::SliceRecord| patients.contains(&record.patient.as_str());
        known.records().iter().filter(of).filter(|record| record.has_mask() && record.has_target()).count()
    };
    let budget = (drawn(&["0", "1"]) + 3).to_string();
    let validation = (drawn(&["2"]) + 1).to_string();
    let weights = format!("segmenter.weights={}", text(weights));
    let choose = |strategy: &str, more: &[&str]| -> Vec<Value> {
        let output = run.with_file_name(format!("worklist-{strategy}"));
        let place = ["choose", "--store", text(store), "--config", text(config), "--output", text(&output)];
        let how =
            ["--strategy", strategy, "--budget", &budget, "--validation", &validation, "--set", &weights, "--json"];
        serde_json::from_slice(&sam_mix(&[&place[..], &how, more].concat()).stdout).unwrap()
    };
    for strategy in ["uniform", "stratified", "k-center"] {
        let lines = choose(strategy, &[]);
        assert_eq!(lines.len(), 4, "{strategy}");
        assert!(!run.with_file_name(format!("worklist-{strategy}")).join("proposals").exists());
    }
    for strategy in ["uncertainty", "disagreement"] {
        let lines = choose(strategy, &["--run", text(run)]);
        let folder = run.with_file_name(format!("worklist-{strategy}"));
        for line in &lines {
            let id: slice_store::SliceId = line["slice"].as_str().unwrap().parse().unwrap();
            assert!(!known.records()[known.position(&id).unwrap()].has_mask(), "{id}");
            for ending in ["nii.gz", "seg.nrrd"] {
                let path = folder.join("proposals").join(format!("{}.{ending}", id.case));
                let volume = ct_ingest::read_volume(&path, &ct_ingest::ReadOptions::default()).unwrap();
                assert_eq!(volume.shape, [64, 64, 12]);
                // Only what is on the list: the rest would come back as if somebody had drawn it.
                let listed: Vec<u64> = lines
                    .iter()
                    .filter(|line| line["case"] == id.case.as_str())
                    .map(|line| line["file_slice"].as_u64().unwrap())
                    .collect();
                let painted = volume.voxels.iter().enumerate().filter(|(_, value)| *value > 0.0);
                assert!(painted.map(|(at, _)| (at / (64 * 64)) as u64).all(|slice| listed.contains(&slice)));
            }
        }
    }
}

/// A classifier on embeddings, small.
const EMBEDDING: &str = "classifier={kind=\"embedding\", batch_slices=4, settings={channels=16}}";
const ONE_PHASE: &str = "phase=[{name=\"classifier\", epochs=1, labelled_passes=0}]";

#[test]
fn a_volume_that_shows_the_liver_somewhere_teaches_as_a_bag() {
    let Some(weights) = weights("a_volume_that_shows_the_liver_somewhere_teaches_as_a_bag") else { return };
    let place = tempfile::tempdir().unwrap();
    // Of patient 1 nobody has drawn anything.
    let store = store_with(place.path(), "0,0,1,absent\n1,,,present\n", Some(1));
    let config = place.path().join("config.toml");
    fs::write(&config, CONFIG).unwrap();
    for classifier in ["classifier={settings={block=\"basic\",blocks=[1,1,1,1],width=4}}", EMBEDDING] {
        let run = |bags: bool| {
            let run = place.path().join(format!("{}-{bags}", classifier.len()));
            let bags = format!("classifier.bags={bags}");
            let set = ["--set", classifier, "--set", &bags, "--set", ONE_PHASE];
            let place =
                ["--config", text(&config), "--store", text(&store), "--run", text(&run), "--weights", text(&weights)];
            sam_mix(&[&["train"], &place[..], &set].concat());
            let record: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
            let losses = fs::read_to_string(run.join("metrics.csv")).unwrap();
            let losses: Vec<String> = losses
                .lines()
                .filter(|line| line.starts_with("step"))
                .map(|line| line.split(',').nth(5).unwrap().to_owned())
                .collect();
            (record["label_budget"].clone(), losses)
        };
        let ((with, with_losses), (without, without_losses)) = (run(true), run(false));
        assert_eq!((&with["volume_labels"]["count"], &without["volume_labels"]), (&1.into(), &Value::Null));
        assert_eq!(with["image_level_labels"], without["image_level_labels"]);
        assert_eq!(with_losses.len(), without_losses.len());
        assert_ne!(with_losses, without_losses, "the bag teaches");
    }
}

#[test]
fn crops_that_were_answered_are_what_training_asks_for() {
    let Some(weights) = weights("crops_that_were_answered_are_what_training_asks_for") else { return };
    let place = tempfile::tempdir().unwrap();
    let (first, config, folder) = (store(place.path()), place.path().join("config.toml"), place.path().join("crops"));
    fs::write(&config, CONFIG).unwrap();
    let by_crops = EMBEDDING.replace("batch_slices", "weak_crops=\"one-per-slice\", batch_slices");
    let at = format!("segmenter.weights={}", text(&weights));
    let choose = ["choose", "--store", text(&first), "--config", text(&config), "--set", &by_crops, "--set", &at];
    sam_mix(&[&choose[..], &["--crops", "7", "--output", text(&folder)]].concat());
    assert!(fs::read(folder.join("page-01.png")).unwrap().starts_with(b"\x89PNG"));
    // An annotator who says yes and no in turn.
    let mut table = csv::Reader::from_path(folder.join("crops.csv")).unwrap();
    let header = table.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 7);
    let mut answered = csv::Writer::from_path(place.path().join("answered.csv")).unwrap();
    answered.write_record(&header).unwrap();
    for (at, row) in rows.iter().enumerate() {
        let mut fields: Vec<&str> = row.iter().collect();
        *fields.last_mut().unwrap() = ["yes", "no"][at % 2];
        answered.write_record(&fields).unwrap();
    }
    answered.flush().unwrap();
    let known = SliceStore::open(&first).unwrap();
    let masked =
        known.records().iter().filter(|record| ["0", "1"].contains(&record.patient.as_str()) && record.has_mask());
    let masked = masked.count();
    drop(known);
    assert_eq!(annotation::import_crops(&first, &place.path().join("answered.csv"), None).unwrap(), [4, 3]);
    let run = place.path().join("run");
    let train =
        ["train", "--config", text(&config), "--store", text(&first), "--run", text(&run), "--weights", text(&weights)];
    sam_mix(
        &[&train[..], &["--set", &by_crops, "--set", ONE_PHASE, "--set", "prompt={threshold=0.5,absolute=true}"]]
            .concat(),
    );
    let record: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    // Of slices with a mask that is not paid for the annotator is played by it; of the others exactly the answers count.
    let crops = &record["label_budget"]["crop_labels"];
    assert_eq!(crops["count"], masked - 2 + 7);
    let slices: Vec<&str> = crops["slices"].as_array().unwrap().iter().map(|slice| slice.as_str().unwrap()).collect();
    assert!(rows.iter().all(|row| slices.contains(&&row[4])), "{slices:?}");
    // What was answered is not asked again.
    let again = place.path().join("again");
    sam_mix(&[&choose[..], &["--crops", "100", "--output", text(&again)]].concat());
    let mut table = csv::Reader::from_path(again.join("crops.csv")).unwrap();
    let next: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert!(!next.is_empty() && next.iter().all(|row| rows.iter().all(|before| before[4] != row[4])));
}
