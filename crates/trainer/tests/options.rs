//! What the options of the training loop do to the weights, on runs that rest the encoder and take seconds.

mod common;

use common::{Bench, store, weights};
use std::collections::BTreeMap;
use tch::Tensor;

/// Decoder and classifier on the embeddings of the resting encoder.
const CONFIG: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[classifier]
batch_slices = 6
settings = { block = "basic", blocks = [1, 1, 1, 1], width = 4 }
[[phase]]
name = "decoder"
epochs = 1
encoder = "frozen"
"#;

/// The largest change of any value of each tensor between two runs' weights.
fn change(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> BTreeMap<String, f64> {
    a.iter().map(|(name, t)| (name.clone(), (t - &b[name]).abs().max().double_value(&[]))).collect()
}

#[test]
fn frozen_parameters_rest_and_scaled_ones_move_in_proportion() {
    let Some(weights) = weights("frozen_parameters_rest_and_scaled_ones_move_in_proportion") else { return };
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::new(CONFIG, &store(place.path()), weights);
    let before = bench.untrained();
    // SGD, so that a change is proportional to its learning rate; one step, so that nothing else differs.
    let sgd = [
        "optimizer.kind=sgd",
        "optimizer.weight_decay=0",
        "optimizer.classifier_lr=0.5",
        "optimizer.decoder_lr=0.5",
        "classifier.batch_slices=100",
        "sampling.labelled=1",
    ];
    let train = |name: &str, more: &[&str]| {
        let run = place.path().join(name);
        bench.train(&run, &[&sgd[..], more].concat()).unwrap();
        change(&before, &common::weights_of(&run, "weights.safetensors"))
    };
    let plain = train("plain", &[]);
    let options = train(
        "options",
        &[
            "optimizer.freeze=['classifier.layer1.*', 'segmenter.mask_decoder.iou_prediction_head*']",
            "optimizer.lr_scale={'classifier.*'=0.5, 'classifier.layer4.*'=0.5}",
        ],
    );
    let mut seen = [0; 4];
    for (name, &moved) in &options {
        let (kind, factor) = match name {
            n if n.contains("running_") => continue,
            n if n.contains("layer1.") || n.contains("iou_prediction_head") => (0, 0.0),
            n if n.contains("classifier.layer4.") => (1, 0.25),
            n if n.starts_with("classifier.") => (2, 0.5),
            _ => (3, 1.0),
        };
        seen[kind] += 1;
        let expected = plain[name] * factor;
        assert!((moved - expected).abs() <= 0.01 * expected + 1e-6, "`{name}` moved {moved}, expected {expected}");
    }
    assert!(seen.iter().all(|&n| n > 0), "{seen:?}");
    assert!(plain.iter().any(|(name, &moved)| name.contains("classifier.layer1.") && moved > 0.0));

    let refused = bench.train(&place.path().join("refused"), &["optimizer.freeze=['classifier.layer9.*']"]);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("fits no parameter") && message.contains("classifier.layer"), "{message}");
}
