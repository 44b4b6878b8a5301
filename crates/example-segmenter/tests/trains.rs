//! A run with the swapped segmenter trains without a classifier, and is evaluated without rows that compare prompts.

#[path = "../../example-classifier/tests/common/mod.rs"]
mod common;

use common::{SAMPLING, train};
use evaluation::{Evaluator, table};
use polars::prelude::{ParquetReader, SerReader};
use predictor::Model;
use run_record::LabelBudget;
use run_record::checkpoint::Which;
use std::sync::atomic::AtomicBool;
use tch::{Device, Tensor};
use trainer::config::Config;

const CONFIG: &str = r#"
[segmenter]
kind = "tiny-unet"
settings = { width = 4 }
[classifier]
kind = "none"
[segmentation_loss]
dice = 0.0
focal = 0.0
score = 0.0
tversky = 1.0
[optimizer]
lr.unet = 1e-2
warmup_steps = 0
[[phase]]
name = "all"
epochs = 25
labelled_passes = 2
encoder = "trained"
"#;

#[test]
fn a_network_without_prompts_learns_and_is_evaluated_without_a_classifier() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse(&format!("{SAMPLING}{CONFIG}"), &[]).unwrap();
    let registry = example_segmenter::registry();
    let (store, run) = train(folder.path(), &registry, &config);
    let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert!(log.lines().any(|l| l.starts_with("step")) && log.contains(",all,"), "{log}");

    let model_config = config.model();
    let model = Model::from_run(&run, Which::Best, &model_config, &registry.models, Device::Cpu).unwrap();
    let stop = AtomicBool::new(false);
    let evaluator = Evaluator {
        config: &model_config,
        oracle_margin_px: 3.0,
        model: &model,
        pretrained: None,
        store: &store.for_evaluation(),
        label_budget: &LabelBudget::default(),
        device: Device::Cpu,
        embeddings: None,
        stop: &stop,
    };
    let rows: Vec<usize> = (0..store.records().len()).filter(|&row| store.records()[row].patient == "3").collect();
    let found = evaluator.run("test", &rows, &folder.path().join("evaluation")).unwrap().unwrap();
    // Bright squares on noise: easy to learn from two masks.
    assert!(found.cam_box.dice_liver.unwrap() > 0.9, "{found:?}");
    assert!(found.oracle_box.is_none() && found.control_whole_image.is_none() && found.classifier.is_none());
    let text = table(&found);
    assert!(!text.contains("CAM") && !text.contains("oracle") && !text.contains("classifier"), "{text}");
    // What there is neither classifier nor prompt for is null in the table, not a number that nobody predicted.
    let file = std::fs::File::open(folder.path().join("evaluation/test.parquet")).unwrap();
    let slices = ParquetReader::new(file).finish().unwrap();
    for absent in ["probability", "empty_cam", "cam_box_iou", "oracle_dice", "whole_image_dice", "central_half_dice"] {
        assert_eq!(slices.column(absent).unwrap().null_count(), rows.len(), "{absent}");
    }
    assert_eq!(slices.column("cam_dice").unwrap().null_count(), 0);
}

#[test]
fn the_loss_is_its_closed_form() {
    // Probabilities 0.5 and 0.75, the first pixel is the target: shared 0.5, false positive 0.75, false negative 0.5.
    let (logits, truth) = (Tensor::from_slice(&[0.0f32, 3f32.ln()]), Tensor::from_slice(&[1.0f32, 0.0]));
    let expected = 1.0 - 1.5 / (0.5 + 0.3 * 0.75 + 0.7 * 0.5 + 1.0);
    let found = example_segmenter::tversky(&logits, &truth).double_value(&[]);
    assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
}

#[test]
fn a_segmenter_without_prompts_refuses_what_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let registry = example_segmenter::registry();
    let refused = |set: &[&str], expected: &str| {
        let set: Vec<String> = set.iter().map(|&s| s.into()).collect();
        let config = Config::parse(&format!("{SAMPLING}{CONFIG}"), &set).unwrap();
        let error = Model::new(&config.model(), &registry.models, Device::Cpu).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&["prediction.volume.propagate=true"], "takes no prompt");
    refused(&["classifier={kind=\"embedding\"}"], "has none that it can read");
    drop(folder);
}
