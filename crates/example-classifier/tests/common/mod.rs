//! A store of a few small slices, and a run on it.

// Each test file uses its own part.
#![allow(dead_code)]

use slice_sampling::UniformSubset;
use slice_store::{CaseData, SliceLabel, SliceRecord, SliceStore, StoreInfo, StoreSettings, StoreWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tch::Device;
use trainer::config::Config;
use trainer::registry::Registry;
use trainer::train::{Outcome, Training};

pub const SIZE: usize = 64;

/// Which slices and patients are for what.
pub const SAMPLING: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
"#;

/// Four patients of four slices, two of which show a bright square.
pub fn store(path: &Path) -> SliceStore {
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

/// Trains to the end on a store in `directory`; the run directory.
pub fn train(directory: &Path, registry: &Registry, config: &Config) -> (SliceStore, PathBuf) {
    let (store, run) = (store(&directory.join("store")), directory.join("run"));
    let strategy = registry.strategies.get(&config.sampling.strategy).map_or(&UniformSubset as _, AsRef::as_ref);
    let selection = slice_sampling::select(store.records(), &config.sampling, strategy, 0).unwrap();
    let slices = slice_sampling::for_training(&store, &selection).unwrap();
    std::fs::create_dir_all(&run).unwrap();
    let stop = AtomicBool::new(false);
    let training = Training {
        config,
        registry,
        store: &slices,
        run: &run,
        selection: &selection,
        device: Device::Cpu,
        loader_threads: 2,
        profile: false,
        embeddings: None,
        stop: &stop,
    };
    training.check().unwrap();
    selection.save(&run.join("selection.json")).unwrap();
    let mut record = trainer::train::new_record(&run, config, &slices, &selection, "cpu", 1).unwrap();
    assert_eq!(training.run(&mut record).unwrap(), Outcome::Finished);
    drop(slices);
    (store, run)
}
