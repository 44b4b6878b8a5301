//! A small phantom data set, prepared as a store, and a configuration that trains on it in seconds.

// Each test file uses its own part.
#![allow(dead_code)]

use phantom::PhantomSettings;
use predictor::Model;
use run_record::RunRecord;
use run_record::checkpoint::{Which, directory};
use slice_store::{SliceStore, StoreSettings};
use stage_trial::{Trial, random_numbers};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tch::{Device, Tensor};
use trainer::config::Config;
use trainer::registry::Registry;
use trainer::train::Outcome;

/// A classifier of a few thousand parameters; both encoder modes.
pub const CONFIG: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[classifier]
batch_slices = 8
settings = { block = "basic", blocks = [1, 1, 1, 1], width = 4 }
[[phase]]
name = "decoder"
epochs = 1
encoder = "frozen"
prompts = "mix"
[[phase]]
name = "lora"
epochs = 1
encoder = "lora"
prompts = "cam"
"#;

/// The pretrained weights, or `None` with a line that says what was skipped.
pub fn weights(test: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/weights/lite_medsam.pth");
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: {test} needs the pretrained weights (cargo xtask setup)");
    None
}

/// Phantom volumes in `directory/data`, prepared into `directory/store`.
pub fn store(directory: &Path) -> PathBuf {
    store_of(directory, 64)
}

/// The same, of slices of so many pixels.
pub fn store_of(directory: &Path, slice_size: usize) -> PathBuf {
    let settings = PhantomSettings { patients: 4, slices: 12, size: 64, seed: 0 };
    phantom::write_data_set(&directory.join("data"), &settings).unwrap();
    let options = ct_ingest::PrepareOptions {
        data: directory.join("data"),
        store: directory.join("store"),
        manifest: ct_ingest::Manifest::load("phantom", Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap(),
        settings: StoreSettings { slice_size, ..StoreSettings::default() },
        jobs: 2,
        strict: false,
        redo: false,
        shard: None,
        merge: Vec::new(),
    };
    let summary = ct_ingest::prepare(&options, &AtomicBool::new(false), &|_| ()).unwrap();
    assert_eq!(summary.prepared, 4);
    SliceStore::open(&options.store).unwrap();
    options.store
}

/// Trains on one store within this process.
pub struct Bench {
    config: &'static str,
    store: SliceStore,
    weights: PathBuf,
    /// The stages; a test can add its own.
    pub registry: Registry,
    /// Threads that prepare batches.
    pub loader_threads: usize,
    /// Where embeddings are kept between runs.
    pub embeddings: Option<PathBuf>,
}

impl Bench {
    /// `config` is a configuration's text.
    pub fn new(config: &'static str, store: &Path, weights: PathBuf) -> Self {
        Self {
            config,
            store: SliceStore::open(store).unwrap(),
            weights,
            registry: Registry::default(),
            loader_threads: 2,
            embeddings: None,
        }
    }

    fn config(&self, set: &[&str]) -> anyhow::Result<Config> {
        let set: Vec<String> = set.iter().map(|&s| s.to_owned()).collect();
        let mut config = Config::parse(self.config, &set)?;
        config.segmenter.weights = Some(self.weights.clone());
        Ok(config)
    }

    /// Trains from the run's last checkpoint to the end.
    pub fn train(&self, run: &Path, set: &[&str]) -> anyhow::Result<RunRecord> {
        self.train_until(run, set, &AtomicBool::new(false)).map(|(record, _)| record)
    }

    /// Trains until `stop`, if that is set, which it can be from the start: then after one update.
    pub fn train_until(&self, run: &Path, set: &[&str], stop: &AtomicBool) -> anyhow::Result<(RunRecord, Outcome)> {
        let config = self.config(set)?;
        let trial = Trial {
            loader_threads: self.loader_threads,
            embeddings: self.embeddings.as_deref(),
            ..Trial::new(&self.registry, &config, &self.store)
        };
        trial.train_until(run, stop)
    }

    /// What a checkpoint would hold before the first step.
    pub fn untrained(&self) -> BTreeMap<String, Tensor> {
        let _held = random_numbers();
        let model = Model::new(&self.config(&[]).unwrap().model(), &self.registry.models, Device::Cpu).unwrap();
        model.tensors().into_iter().map(|t| (t.name, t.tensor.detach().copy())).collect()
    }
}

/// A file of the run's last checkpoint.
pub fn weights_of(run: &Path, file: &str) -> BTreeMap<String, Tensor> {
    let directory = directory(run, Which::Last).unwrap();
    Tensor::read_safetensors(directory.join(file)).unwrap().into_iter().collect()
}

/// Everything that a checkpoint holds is the same in both runs, and each step was logged once.
pub fn assert_same_end(a: &Path, b: &Path, files: &[&str]) {
    for file in files {
        let (x, y) = (weights_of(a, file), weights_of(b, file));
        assert!(x.keys().eq(y.keys()) && x.len() > 10, "{file} holds other tensors");
        for (name, tensor) in &x {
            assert!(tensor.equal(&y[name]), "`{name}` of {file} differs");
        }
    }
    // All columns but the time.
    let log = |run: &Path| {
        let text = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
        let columns =
            |line: &str| line.split(',').enumerate().filter(|(i, _)| *i != 4).map(|(_, c)| c.to_owned()).collect();
        text.lines().map(columns).collect::<Vec<Vec<String>>>()
    };
    assert_eq!(log(a), log(b));
}
