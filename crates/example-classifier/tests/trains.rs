//! A run with the swapped classifier trains both branches.

use slice_store::{CaseData, SliceLabel, SliceRecord, SliceStore, StoreInfo, StoreSettings, StoreWriter};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tch::Device;
use trainer::config::Config;
use trainer::train::{Outcome, Training};

const SIZE: usize = 64;

const CONFIG: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[classifier]
kind = "tiny-convnet"
settings = { width = 4 }
[[phase]]
name = "joint"
epochs = 1
encoder = "frozen"
"#;

/// Four patients of four slices, two of which show a bright square.
fn store(path: &Path) -> SliceStore {
    let settings = StoreSettings { slice_size: SIZE, ..StoreSettings::default() };
    let info = StoreInfo {
        format_version: slice_store::FORMAT_VERSION,
        dataset: "squares".into(),
        target: "liver".into(),
        settings,
        tool_version: "test".into(),
        manifest: serde_json::Value::Null,
    };
    let writer = StoreWriter::create(path, info).unwrap();
    for patient in 0..4usize {
        let inside = |slice: usize, i: usize| {
            slice % 2 == 1 && (20..40).contains(&(i / SIZE)) && (10 + patient..30).contains(&(i % SIZE))
        };
        let masks: Vec<u8> = (0..4).flat_map(|s| (0..SIZE * SIZE).map(move |i| u8::from(inside(s, i)))).collect();
        let images: Vec<i16> = masks.iter().enumerate().map(|(i, &m)| i16::from(m) * 80 + (i % 7) as i16).collect();
        let records = (0..4u32)
            .map(|index| SliceRecord {
                case: patient.to_string(),
                patient: patient.to_string(),
                index,
                position_mm: index as f32,
                row_spacing_mm: 1.0,
                column_spacing_mm: 1.0,
                slice_spacing_mm: 1.0,
                spacing_valid: true,
                label: SliceLabel::of_mask(masks.chunks(SIZE * SIZE).nth(index as usize).unwrap()),
                source_sha256: patient.to_string(),
            })
            .collect();
        let case = patient.to_string();
        writer
            .write_case(CaseData {
                case: &case,
                patient: &case,
                images: &images,
                masks: &masks,
                records,
                manifest: serde_json::Value::Null,
                provenance: serde_json::Value::Null,
            })
            .unwrap();
    }
    writer.finish(["0", "1", "2", "3"]).unwrap();
    SliceStore::open(path).unwrap()
}

#[test]
fn a_run_with_the_swapped_classifier_trains_both_branches() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/weights/lite_medsam.pth");
    if !weights.is_file() {
        println!(
            "skipped: a_run_with_the_swapped_classifier_trains_both_branches needs the weights (cargo xtask setup)"
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory.path().join("store"));
    let mut config = Config::parse(CONFIG, &[]).unwrap();
    config.segmenter.weights = Some(weights);
    let selection = slice_sampling::select(store.records(), &config.sampling, 0).unwrap();
    let store = trainer::rows::for_training(&store, &selection, &config).unwrap();
    let run = directory.path().join("run");
    std::fs::create_dir_all(&run).unwrap();
    let registry = example_classifier::registry();
    let stop = AtomicBool::new(false);
    let training = Training {
        config: &config,
        registry: &registry,
        store: &store,
        run: &run,
        selection: &selection,
        device: Device::Cpu,
        loader_threads: 2,
        profile: false,
        embeddings: None,
        stop: &stop,
    };
    let mut record = trainer::train::new_record(&run, &config, &store, &selection, "cpu", 1);
    assert_eq!(training.run(&mut record).unwrap(), Outcome::Finished);
    let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let columns: Vec<Vec<&str>> =
        log.lines().skip(1).filter(|l| l.starts_with("step")).map(|l| l.split(',').collect()).collect();
    assert_eq!(columns.len(), 2, "eight training slices in batches of four");
    assert!(columns.iter().all(|c| !c[5].is_empty() && !c[6].is_empty()), "both losses in every step:\n{log}");
    let checkpoint = run_record::checkpoint::directory(&run, run_record::checkpoint::Which::Best).unwrap();
    let saved = tch::Tensor::read_safetensors(checkpoint.join("weights.safetensors")).unwrap();
    assert!(
        saved.iter().any(|(name, _)| name == "classifier.conv3.weight")
            && saved.iter().any(|(name, _)| name.starts_with("segmenter.mask_decoder"))
    );
}
