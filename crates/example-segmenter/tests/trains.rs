//! A run with the swapped segmenter trains without a classifier, and is evaluated without rows that compare prompts.

use evaluation::table;
use polars::prelude::{ParquetReader, SerReader};
use predictor::Model;
use stage_trial::{SAMPLING, Trial, squares};
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
lr.unet = 3e-3
warmup_steps = 0
[[phase]]
name = "all"
epochs = 50
labelled_passes = 2
encoder = "trained"
"#;

#[test]
fn a_network_without_prompts_learns_and_is_evaluated_without_a_classifier() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse(&format!("{SAMPLING}{CONFIG}"), &[]).unwrap();
    let (store, run) = (squares(&folder.path().join("store")).unwrap(), folder.path().join("run"));
    let registry = example_segmenter::registry();
    let trial = Trial::new(&registry, &config, &store);
    trial.train(&run).unwrap();
    let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert!(log.lines().any(|l| l.starts_with("step")) && log.contains(",all,"), "{log}");
    let found = trial.evaluate(&run).unwrap();
    // Bright squares on noise: easy to learn from two masks.
    assert!(found.cam_box.dice_liver.unwrap() > 0.9, "{found:?}");
    assert!(found.oracle_box.is_none() && found.control_whole_image.is_none() && found.classifier.is_none());
    let text = table(&found);
    assert!(!text.contains("CAM") && !text.contains("oracle") && !text.contains("classifier"), "{text}");
    // What there is neither classifier nor prompt for is null in the table, not a number that nobody predicted.
    let file = std::fs::File::open(run.join("evaluation/test.parquet")).unwrap();
    let slices = ParquetReader::new(file).finish().unwrap();
    for absent in ["probability", "empty_cam", "cam_box_iou", "oracle_dice", "whole_image_dice", "central_half_dice"] {
        assert_eq!(slices.column(absent).unwrap().null_count(), slices.height(), "{absent}");
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
    let registry = example_segmenter::registry();
    let refused = |set: &[&str], expected: &str| {
        let set: Vec<String> = set.iter().map(|&s| s.into()).collect();
        let config = Config::parse(&format!("{SAMPLING}{CONFIG}"), &set).unwrap();
        let error = Model::new(&config.model(), &registry.models, Device::Cpu).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&["prediction.volume.propagate=true"], "takes no prompt");
    refused(&["prediction.trained_share=0.5"], "\"tiny-unet\" has no pretrained weights");
    refused(&["classifier={kind=\"embedding\"}"], "has none that it can read");
}
