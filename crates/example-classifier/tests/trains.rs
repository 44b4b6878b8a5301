//! A run with the swapped classifier trains both branches.

use run_record::checkpoint::{Which, directory};
use stage_trial::{SAMPLING, Trial, squares};
use std::path::Path;
use trainer::config::Config;

const CONFIG: &str = r#"
[classifier]
kind = "tiny-convnet"
settings = { width = 4 }
[[phase]]
name = "joint"
epochs = 1
encoder = "frozen"
"#;

#[test]
fn a_run_with_the_swapped_classifier_trains_both_branches() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/weights/lite_medsam.pth");
    if !weights.is_file() {
        println!(
            "skipped: a_run_with_the_swapped_classifier_trains_both_branches needs the weights (cargo xtask setup)"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, run) = (squares(&folder.path().join("store")).unwrap(), folder.path().join("run"));
    let mut config = Config::parse(&format!("{SAMPLING}{CONFIG}"), &[]).unwrap();
    config.segmenter.weights = Some(weights);
    Trial::new(&example_classifier::registry(), &config, &store).train(&run).unwrap();
    let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let columns: Vec<Vec<&str>> =
        log.lines().skip(1).filter(|l| l.starts_with("step")).map(|l| l.split(',').collect()).collect();
    assert_eq!(columns.len(), 2, "eight training slices in batches of four");
    assert!(columns.iter().all(|c| !c[5].is_empty() && !c[6].is_empty()), "both losses in every step:\n{log}");
    let saved = tch::Tensor::read_safetensors(directory(&run, Which::Best).unwrap().join("weights.safetensors"));
    let saved = saved.unwrap();
    assert!(
        saved.iter().any(|(name, _)| name == "classifier.conv3.weight")
            && saved.iter().any(|(name, _)| name.starts_with("segmenter.mask_decoder"))
    );
}
