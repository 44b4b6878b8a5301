//! The configurations of the paper and of the networks that it compares with: one update of each, at full size, SAM's on a ViT-B of random weights.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use run_record::RunRecord;
use run_record::checkpoint::{Which, directory};
use slice_store::SliceStore;
use stage_trial::{Trial, random_numbers, store_of};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tch::{Device, Tensor};
use trainer::config::{Config, EncoderTraining, OptimizerKind};
use trainer::registry::Registry;
use trainer::train::Outcome;

const SIZE: usize = 256;

/// An update takes the seconds of a whole ViT-B: all three in one test, on one file of weights, one after the other.
#[test]
fn each_configuration_of_the_paper_makes_an_update_of_a_whole_vit_b() {
    let place = tempfile::tempdir().unwrap();
    let weights = random_weights(place.path(), "vit_b");
    for labelled in [5, 50, 100] {
        let config = configuration(labelled, &weights);
        let store = store(&place.path().join(format!("store-{labelled}")), labelled);
        let run = place.path().join(format!("run-{labelled}"));
        let (record, before) = one_update(&config, &store, &run);
        assert_eq!((record.labelled.len(), record.status), (labelled, run_record::Status::Interrupted));

        let after =
            Tensor::read_safetensors(directory(&run, Which::Last).unwrap().join("weights.safetensors")).unwrap();
        let after: BTreeMap<String, Tensor> = after.into_iter().collect();
        let adapters: Vec<&String> = after.keys().filter(|name| name.contains("lora_")).collect();
        // Rank 8 on q and v of twelve blocks: 2 · 2 · 8 · 768 · 12.
        assert_eq!(adapters.iter().map(|name| after[*name].numel()).sum::<usize>(), 294_912);
        // B starts at 0, and Adam's first step moves a value by the learning rate, or less where the gradient is of the order
        // of its epsilon, as with random weights.
        for name in adapters.into_iter().filter(|name| name.contains("lora_b")) {
            let largest = after[name].abs().max().double_value(&[]);
            assert!(largest > 0.0 && largest < 1.01e-4, "{name} moved by {largest:.1e}");
        }
        for part in ["classifier.", "segmenter.mask_decoder.", "segmenter.prompt_encoder."] {
            let moved = after.iter().any(|(name, t)| name.starts_with(part) && *t != before[name]);
            assert!(moved, "nothing of {part} moved with {labelled} labelled slices");
        }
        let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
        let last: Vec<&str> = log.lines().rfind(|line| line.starts_with("step")).unwrap().split(',').collect();
        let losses: Vec<f64> = last[5..8].iter().map(|loss| loss.parse().unwrap()).collect();
        assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    }
}

/// Full-size networks take a second a slice: one slice a step.
#[test]
fn each_configuration_of_a_baseline_makes_an_update_that_moves_the_network() {
    let place = tempfile::tempdir().unwrap();
    let store = store(&place.path().join("store"), 5);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/baselines");
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let whole = Config::load(&file, &[]).unwrap();
        assert_eq!((whole.sampling.labelled, whole.phases.len()), (50.into(), 1), "{name}");
        let mut set = vec!["sampling.labelled=5".to_owned()];
        let is_sam = whole.segmenter.kind == "sam";
        if is_sam {
            let weights = random_weights(place.path(), "lite_medsam");
            set.extend([
                format!("segmenter.weights={}", weights.display()),
                "segmenter.settings.family=lite-medsam".to_owned(),
            ]);
        }
        let mut config = Config::load(&file, &set).unwrap();
        // Who plans has his plan from the command line, and else the settings for 256 x 256.
        config.segmenter.settings.remove("plan");
        config.phases[0].batch_labelled = 1;
        let run = place.path().join(&name);
        let (record, before) = one_update(&config, &store, &run);
        assert_eq!(record.labelled.len(), 5, "{name}");
        let after =
            Tensor::read_safetensors(directory(&run, Which::Last).unwrap().join("weights.safetensors")).unwrap();
        let has_moved = |(name, t): &&(String, Tensor)| *t != before[name];
        let (frozen, learning): (Vec<_>, Vec<_>) =
            { after.iter() }.partition(|(name, _)| is_sam && name.contains("mask_decoder"));
        assert_eq!(is_sam, !frozen.is_empty(), "{name}");
        assert!(!frozen.iter().any(has_moved), "{name}: the frozen mask decoder moved");
        let moved = learning.iter().filter(|of| has_moved(of)).count();
        // MultiMix has a convolution that nothing uses; through a SAM of random weights some gradients are far below Adam's epsilon.
        let share = if is_sam { 5 } else { 8 };
        assert!(moved * 10 > learning.len() * share, "{name}: {moved} of {} tensors moved", learning.len());
        assert!(after.iter().all(|(_, t)| t.isfinite().all().int64_value(&[]) == 1), "{name}");
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["multi-mix", "nnunet-2d", "sam-pp", "trans-unet", "unet", "unet-laboratory"]);
}

/// As in `configs/paper`, but for the file of weights; an update takes two steps, so that a labelled slice is among them.
fn configuration(labelled: usize, weights: &Path) -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../configs/paper/sam-mix-{labelled}.toml"));
    let as_it_is = Config::load(&file, &[]).unwrap();
    let (settings, phase) = (predictor::sam_settings(&as_it_is.segmenter).unwrap(), &as_it_is.phases[0]);
    assert_eq!((as_it_is.sampling.labelled, settings.lora_rank, settings.input_size), (labelled.into(), 8, Some(1024)));
    assert_eq!((phase.epochs, phase.encoder, as_it_is.phases.len()), (10, EncoderTraining::Lora, 1));
    assert_eq!((as_it_is.optimizer.kind, as_it_is.optimizer.rate("lora")), (OptimizerKind::Adam, 1e-4));
    let set = ["optimizer.accumulate_steps=2".to_owned(), format!("segmenter.weights={}", weights.display())];
    Config::load(&file, &set).unwrap()
}

/// Weights before, and the run's record after the first update.
fn one_update(config: &Config, store: &SliceStore, run: &Path) -> (RunRecord, BTreeMap<String, Tensor>) {
    let registry = Registry::default();
    let held = random_numbers();
    let before = predictor::Model::new(&config.model(), &registry.models, Device::Cpu).unwrap();
    drop(held);
    let before = before.tensors().into_iter().map(|t| (t.name, t.tensor.detach())).collect();
    let stopped = AtomicBool::new(true);
    let (record, outcome) = Trial::new(&registry, config, store).train_until(run, &stopped).unwrap();
    assert_eq!(outcome, Outcome::Interrupted);
    (record, before)
}

/// Names and shapes of an official checkpoint, values of N(0, 0.02²) or thereabouts, those of scales and variances around 1.
fn random_weights(directory: &Path, of: &str) -> PathBuf {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sam-segmenter/tests/fixtures/state_dicts.json");
    let shapes: BTreeMap<String, BTreeMap<String, Vec<i64>>> =
        serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    // One block of numbers serves all tensors, each from a place of its own; the largest has 3.1 million.
    let block = 4_000_000;
    let numbers: Vec<f32> = (0..block).map(|_| 0.035 * (2.0 * rng.random::<f32>() - 1.0)).collect();
    let numbers = Tensor::from_slice(&numbers);
    let tensors: Vec<(String, Tensor)> = shapes[of]
        .iter()
        .map(|(name, shape)| {
            let count = shape.iter().product::<i64>();
            let values = numbers.narrow(0, rng.random_range(0..=block - count), count).view(shape.as_slice());
            let is_norm = name.contains("norm") || name.contains("bn.");
            let is_scale = is_norm && name.ends_with("weight") || name.ends_with("running_var");
            (name.clone(), if is_scale { values + 1.0 } else { values })
        })
        .collect();
    let path = directory.join(format!("{of}.safetensors"));
    Tensor::write_safetensors(&tensors, &path).unwrap();
    path
}

/// Three patients, one for each split; of the middle share of each (`keep_rate = 0.3`) `labelled` slices show the target and
/// one doesn't.
fn store(path: &Path, labelled: usize) -> SliceStore {
    let patient = || patient(((labelled + 1) as f64 / 0.3).ceil() as usize);
    store_of(path, SIZE, [patient(), patient(), patient()]).unwrap()
}

/// Bright squares on a dark ground, with their masks; every slice but the middle one has one.
fn patient(slices: usize) -> (Vec<i16>, Vec<u8>) {
    let (mut images, mut masks) = (vec![-100_i16; slices * SIZE * SIZE], vec![0_u8; slices * SIZE * SIZE]);
    for slice in (0..slices).filter(|&slice| slice != slices / 2) {
        let side = 60;
        for row in 80..80 + side {
            let start = (slice * SIZE + row) * SIZE + 60;
            images[start..start + side].fill(110);
            masks[start..start + side].fill(1);
        }
    }
    (images, masks)
}
