//! A stopped and resumed run ends with the weights of an uninterrupted one, bit for bit.

mod common;

use common::{CONFIG, store, weights};
use slice_store::SliceStore;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tch::{Device, Tensor};
use trainer::checkpoint::{Which, directory};
use trainer::config::Config;
use trainer::registry::Registry;
use trainer::run::RunRecord;
use trainer::train::{Outcome, Training};

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let Some(weights) = weights("a_resumed_run_ends_with_the_same_bits") else { return };
    let place = tempfile::tempdir().unwrap();
    let store = SliceStore::open(&store(place.path())).unwrap();
    let mut config = Config::parse(CONFIG, &[]).unwrap();
    config.segmenter.weights = Some(weights);
    let selection = slice_sampling::select(store.records(), &config.sampling, 0).unwrap();
    let registry = Registry::default();
    let train = |run: &Path, stop: bool| {
        std::fs::create_dir_all(run).unwrap();
        let stop = AtomicBool::new(stop);
        let mut record = RunRecord::new(run, &config, &store, &selection, "cpu", 1);
        let (registry, selection) = (&registry, &selection);
        let training =
            Training { config: &config, registry, store: &store, run, selection, device: Device::Cpu, stop: &stop };
        training.run(&mut record).unwrap()
    };
    let whole = place.path().join("whole");
    assert_eq!(train(&whole, false), Outcome::Finished);
    // Stopped after each of its first steps, in both phases.
    let stopped = place.path().join("stopped");
    let mut stops = 0;
    while stops < 5 && train(&stopped, true) == Outcome::Interrupted {
        stops += 1;
    }
    assert!(stops >= 3, "the run has too few steps to be stopped: {stops}");
    assert_eq!(train(&stopped, false), Outcome::Finished);
    for file in ["weights.safetensors", "optimizer.safetensors"] {
        let read = |run: &Path| {
            let mut tensors = Tensor::read_safetensors(directory(run, Which::Last).unwrap().join(file)).unwrap();
            tensors.sort_by(|a, b| a.0.cmp(&b.0));
            tensors
        };
        let (a, b) = (read(&whole), read(&stopped));
        assert!(a.len() == b.len() && a.len() > 10);
        for ((name, x), (other, y)) in a.iter().zip(&b) {
            assert!(name == other && x.equal(y), "`{name}` differs");
        }
    }
    let steps = |run: &Path| {
        std::fs::read_to_string(run.join("metrics.csv")).unwrap().lines().filter(|l| l.starts_with("step")).count()
    };
    assert_eq!(steps(&whole), steps(&stopped), "each step is logged once");
}
