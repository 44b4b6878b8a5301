//! A run's segmenter in formats that other programs read, by the program as it is used.

mod common;

use common::{CONFIG, store, weights};
use predictor::Model;
use run_record::checkpoint::Which;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tch::{Device, Tensor};
use trainer::config::Config;
use trainer::registry::Registry;

fn sam_mix(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sam-mix")).args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What it said on standard error.
fn export(arguments: &[&str]) -> String {
    let output = sam_mix(&[&["export"], arguments].concat());
    assert!(output.status.success(), "{}", error_of(&output));
    error_of(&output)
}

fn refused(arguments: &[&str]) -> String {
    let output = sam_mix(&[&["export"], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "{}", error_of(&output));
    error_of(&output)
}

/// The metadata of a safetensors file.
fn metadata(path: &Path) -> BTreeMap<String, String> {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    serde_json::from_value(header["__metadata__"].clone()).unwrap()
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

/// A run of two short phases; the last trains adapters.
fn trained(directory: &Path, weights: &Path) -> PathBuf {
    let (store, run, config) = (store(directory), directory.join("run"), directory.join("config.toml"));
    std::fs::write(&config, CONFIG).unwrap();
    let trained = sam_mix(&[
        "train",
        "--config",
        text(&config),
        "--store",
        text(&store),
        "--run",
        text(&run),
        "--weights",
        text(weights),
        "--device",
        "cpu",
        "--threads",
        "2",
    ]);
    assert!(trained.status.success(), "{}", error_of(&trained));
    run
}

#[test]
fn a_run_becomes_sam_weights_adapters_and_torchscript_while_it_has_a_checkpoint() {
    let Some(weights) = weights("a_run_becomes_sam_weights_adapters_and_torchscript_while_it_has_a_checkpoint") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let run = trained(directory.path(), &weights);
    let exported = |name: &str| run.join("export").join(name);
    let from_run = ["--run", text(&run), "--last"];

    // Where a run keeps its exports if nothing else is said.
    let said = export(&[&from_run[..], &["--to", "safetensors"]].concat());
    assert!(said.contains("is left out"), "the CAM's vector has learnt something: {said}");
    let merged = exported("weights.safetensors");
    let about = metadata(&merged);
    for (key, value) in [
        ("family", "lite-medsam"),
        ("input_size", "256"),
        ("normalization", "min-max"),
        ("window_level", "40"),
        ("window_width", "400"),
        ("intensity", "window"),
        ("target", "liver"),
        ("run", "run"),
    ] {
        assert_eq!(about[key], value, "{key}");
    }

    // What is in it is what the run predicts with.
    let config = Config::load(&run.join("config.toml"), &[]).unwrap();
    let config = config.model();
    let model = Model::from_run(&run, Which::Last, &config, &Registry::default().models, Device::Cpu).unwrap();
    let segmenter = predictor::export::sam_of(&model, &config.segmenter).unwrap();
    let expected: BTreeMap<String, Tensor> = segmenter.merged_state().into_iter().collect();
    let found = tensors(&merged);
    assert_eq!(found.len(), 435);
    assert!(found.iter().all(|(name, tensor)| *tensor == expected[name]));

    // Adapters, and the pretrained weights with them: the run's encoder.
    export(&[&from_run[..], &["--to", "adapters"]].concat());
    let adapters = exported("adapters.safetensors");
    let again = directory.path().join("again.safetensors");
    export(&[
        "--weights",
        text(&weights),
        "--adapters",
        text(&adapters),
        "--to",
        "safetensors",
        "--output",
        text(&again),
    ]);
    let again = tensors(&again);
    let encoder = found.iter().filter(|(name, _)| name.starts_with("image_encoder."));
    assert!(encoder.clone().count() > 250 && encoder.into_iter().all(|(name, tensor)| *tensor == again[name]));

    export(&[&from_run[..], &["--to", "torchscript"]].concat());
    for name in ["encoder", "decoder"] {
        let file = std::fs::File::open(exported("torchscript").join(format!("{name}.pt"))).unwrap();
        let mut archive = zip::ZipArchive::new(file).unwrap();
        let mut about = String::new();
        archive.by_name(&format!("{name}/extra/model.json")).unwrap().read_to_string(&mut about).unwrap();
        assert!(about.contains("\"window_level\": \"40\""), "{about}");
    }

    std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let said = refused(&["--run", text(&run), "--to", "safetensors", "--output", text(&directory.path().join("none"))]);
    assert!(said.contains("has no best checkpoint yet"), "{said}");
}

#[test]
fn what_can_not_be_exported_is_refused_in_one_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (nowhere, file, folder) = (path("nowhere"), path("file"), path("folder"));
    std::fs::write(&file, "").unwrap();
    std::fs::create_dir(&folder).unwrap();
    let run = |run: &Path, to: &str| refused(&["--run", text(run), "--to", to]);
    assert!(run(&nowhere, "safetensors").contains("is no run directory"));
    let weights = |output: &Path, to: &str| refused(&["--weights", text(&file), "--to", to, "--output", text(output)]);
    assert!(weights(&folder, "safetensors").contains("is a folder: name a file"));
    assert!(weights(&path("x.safetensors"), "safetensors").contains("the file is empty"));
    assert!(weights(&file, "safetensors").contains("is the input"));
    assert!(weights(&folder.join("../file"), "safetensors").contains("is the input"));
    std::fs::write(path("there.safetensors"), "mine").unwrap();
    assert!(weights(&path("there.safetensors"), "safetensors").contains("--overwrite"));
    std::fs::write(folder.join("decoder.pt"), "mine").unwrap();
    assert!(weights(&folder, "torchscript").contains("decoder.pt' is there already"));
    assert!(
        [path("there.safetensors"), folder.join("decoder.pt")].iter().all(|f| std::fs::read(f).unwrap() == b"mine")
    );
    assert!(weights(&file, "torchscript").contains("TorchScript is two files: name a folder"));
    assert!(!path("x.safetensors").exists());

    let wrong = sam_mix(&["export", "--run", text(&nowhere), "--to", "onnx"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(error_of(&wrong).contains("[possible values: safetensors, torchscript, adapters]"));
    let family = sam_mix(&["export", "--weights", "w", "--to", "safetensors", "--output", "o", "--family", "sam2"]);
    assert!(
        error_of(&family).contains("no family is called 'sam2', expected one of sam, medsam, mobile-sam, lite-medsam")
    );
}
