//! What the options of the training loop do to the weights, on runs that rest the encoder and take seconds.

mod common;

use common::{Bench, store, weights};
use run_record::RunRecord;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use tch::Tensor;
use trainer::train::Outcome;

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

/// The decoder alone, by plain gradient descent: a step for each of the two labelled slices.
const DECODER_ONLY: &str = r#"
[sampling]
labelled = 2
validation_slices = 0
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[classifier]
settings = { block = "basic", blocks = [1, 1, 1, 1], width = 4 }
[optimizer]
kind = "sgd"
momentum = 0.0
weight_decay = 0.0
lr."*" = 3e-4
schedule = "constant"
[[phase]]
name = "decoder"
epochs = 1
encoder = "frozen"
train_classifier = false
"#;

#[test]
fn accumulated_steps_move_by_their_mean_gradient_and_the_average_follows() {
    let Some(weights) = weights("accumulated_steps_move_by_their_mean_gradient_and_the_average_follows") else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::new(DECODER_ONLY, &store(place.path()), weights);
    let before = bench.untrained();
    let moved = |name: &str, file: &str, set: &[&str]| -> BTreeMap<String, Tensor> {
        let run = place.path().join(name);
        if !run.exists() {
            bench.train(&run, set).unwrap();
        }
        common::weights_of(&run, file).into_iter().map(|(n, t)| (n.clone(), t - &before[&n])).collect()
    };
    let norm = |of: &BTreeMap<String, Tensor>| -> f64 {
        of.values().map(|t| t.square().sum(tch::Kind::Double).double_value(&[])).sum::<f64>().sqrt()
    };
    // Two small steps, and their mean gradient at twice the learning rate, agree to first order.
    let apart = moved("apart", "weights.safetensors", &[]);
    let together = ["optimizer.accumulate_steps=2", "optimizer.lr.*=6e-4", "optimizer.ema_decay=0.5"];
    let accumulated = moved("together", "training.safetensors", &together);
    let difference = apart.iter().map(|(n, t)| (n.clone(), t - &accumulated[n])).collect();
    assert!(norm(&difference) < 0.05 * norm(&apart), "{} of {}", norm(&difference), norm(&apart));
    // The first update's decay is 1/10: the average has gone nine tenths of the way.
    let average = moved("together", "weights.safetensors", &together);
    let difference = average.iter().map(|(n, t)| (n.clone(), t - &accumulated[n] * 0.9)).collect();
    assert!(norm(&accumulated) > 0.0 && norm(&difference) < 0.03 * norm(&accumulated));
    // A limit of a hundredth of the gradient's norm (logged before clipping) shortens the step to that.
    let log = std::fs::read_to_string(place.path().join("together/metrics.csv")).unwrap();
    let gradient: f64 =
        log.lines().rfind(|l| l.starts_with("step")).unwrap().split(',').nth(12).unwrap().parse().unwrap();
    let limit = format!("optimizer.clip_norm={}", gradient / 100.0);
    let clipped =
        moved("clipped", "weights.safetensors", &["optimizer.accumulate_steps=2", "optimizer.lr.*=6e-2", &limit]);
    assert!((norm(&clipped) / norm(&accumulated) - 1.0).abs() < 0.01, "{} {}", norm(&clipped), norm(&accumulated));
}

#[test]
fn a_classifier_for_embeddings_of_other_channels_is_refused_before_anything_is_trained() {
    let test = "a_classifier_for_embeddings_of_other_channels_is_refused_before_anything_is_trained";
    let Some(weights) = weights(test) else { return };
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::new(CONFIG, &store(place.path()), weights);
    let set = "classifier={kind=\"embedding\", settings={input_channels=128}}";
    let error = bench.train(&place.path().join("run"), &[set]).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "the classifier \"embedding\" is set for embeddings of 128 channels, but those of the segmenter"
        ) && error.ends_with("have 256 (256 × 64 × 64): `classifier.settings.input_channels = 256`, or leave it out"),
        "{error}"
    );
}

/// A column of `metrics.csv` in its step rows.
fn logged(run: &std::path::Path, column: usize) -> Vec<f64> {
    let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let steps = log.lines().filter(|line| line.starts_with("step"));
    steps.map(|line| line.split(',').nth(column).unwrap().parse().unwrap()).collect()
}

const SCORE: usize = 7;
const LEARNING_RATE: usize = 8;

#[test]
fn the_logged_score_loss_is_the_mean_of_all_labelled_slices_of_the_step() {
    let Some(weights) = weights("the_logged_score_loss_is_the_mean_of_all_labelled_slices_of_the_step") else { return };
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::new(DECODER_ONLY, &store(place.path()), weights);
    let scores = |name: &str, batch: usize| {
        let run = place.path().join(name);
        let prompts = "training_prompts={jitter_outward_px=0, jitter_inward_px=0, whole_share=0}";
        // Nothing moves and nothing is drawn but an order: a slice gives the same in any step.
        let set = [
            "optimizer.lr={decoder=0.0, prompt_encoder=0.0}",
            "segmenter.settings.dense_prompt='none'",
            prompts,
            "phase=[{name='decoder', epochs=1, encoder='frozen', prompts='gt', train_classifier=false, batch_labelled=BATCH}]",
        ];
        let set = set.map(|item| item.replace("BATCH", &batch.to_string()));
        bench.train(&run, &set.each_ref().map(String::as_str)).unwrap();
        logged(&run, SCORE)
    };
    let (apart, together) = (scores("apart", 1), scores("together", 2));
    assert!(apart.len() == 2 && together.len() == 1 && (apart[0] - apart[1]).abs() > 1e-3, "{apart:?} {together:?}");
    assert!((together[0] - apart[0].midpoint(apart[1])).abs() < 2e-5, "{apart:?} {together:?}");
}

#[test]
fn the_logged_learning_rate_is_the_one_that_the_step_used() {
    let Some(weights) = weights("the_logged_learning_rate_is_the_one_that_the_step_used") else { return };
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::new(DECODER_ONLY, &store(place.path()), weights);
    let run = place.path().join("run");
    bench.train(&run, &["optimizer.schedule=poly"]).unwrap();
    // Two updates: at (1 − 0/2)^0.9 and (1 − 1/2)^0.9 of 3e-4.
    assert_eq!(logged(&run, LEARNING_RATE), [3e-4, 1.608e-4]);
}

/// With a learning rate of 0 the decoder's Dice stays as it is; then the classifier learns.
const WITHOUT_PROGRESS: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[classifier]
batch_slices = 8
settings = { block = "basic", blocks = [1, 1, 1, 1], width = 4 }
[optimizer]
lr."*" = 0.0
[[phase]]
name = "stands still"
epochs = 9
patience = 2
encoder = "frozen"
train_classifier = false
[[phase]]
name = "goes on"
epochs = 1
labelled_passes = 0
"#;

#[test]
fn a_phase_without_progress_ends_early_and_resumes_to_the_same_bits() {
    let Some(weights) = weights("a_phase_without_progress_ends_early_and_resumes_to_the_same_bits") else { return };
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::new(WITHOUT_PROGRESS, &store(place.path()), weights);
    let [whole, stopped] = ["whole", "stopped"].map(|name| place.path().join(name));
    let record = bench.train(&whole, &[]).unwrap();
    // The first epoch is the best, two more are waited for.
    let epochs = |record: &RunRecord| record.phases.iter().map(|p| p.epochs.unwrap()).collect::<Vec<_>>();
    assert_eq!(epochs(&record), [3, 1]);
    // 3 × 2 steps of 18, then 24 slices in 3 steps.
    let log = std::fs::read_to_string(whole.join("metrics.csv")).unwrap();
    let steps: Vec<&str> =
        log.lines().filter(|l| l.starts_with("step")).map(|l| l.split(',').nth(3).unwrap()).collect();
    assert_eq!(steps, ["1", "2", "3", "4", "5", "6", "19", "20", "21"]);
    let mut stops = 0;
    let resumed = loop {
        let (record, outcome) = bench.train_until(&stopped, &[], &AtomicBool::new(true)).unwrap();
        if outcome == Outcome::Finished {
            break record;
        }
        stops += 1;
    };
    assert_eq!((stops, epochs(&resumed)), (8, vec![3, 1]));
    for file in ["weights.safetensors", "optimizer.safetensors"] {
        let (a, b) = (common::weights_of(&whole, file), common::weights_of(&stopped, file));
        assert!(a.len() == b.len() && a.len() > 10);
        for (name, t) in &a {
            assert!(t.equal(&b[name]), "`{name}` of {file} differs");
        }
    }
}

#[test]
fn every_option_resumes_bit_for_bit() {
    let Some(weights) = weights("every_option_resumes_bit_for_bit") else { return };
    let place = tempfile::tempdir().unwrap();
    let bench = Bench::new(CONFIG, &store(place.path()), weights);
    let options = [
        "optimizer.kind=sgd",
        "optimizer.nesterov=true",
        "optimizer.schedule=poly",
        "optimizer.accumulate_steps=3",
        "optimizer.clip_norm=1",
        "optimizer.ema_decay=0.9",
        "segmentation_loss.iou=0.5",
        "segmentation_loss.boundary=0.01",
    ];
    let [whole, stopped] = ["whole", "stopped"].map(|name| place.path().join(name));
    bench.train(&whole, &options).unwrap();
    let (_, outcome) = bench.train_until(&stopped, &options, &AtomicBool::new(true)).unwrap();
    assert_eq!(outcome, Outcome::Interrupted);
    bench.train(&stopped, &options).unwrap();
    for file in ["weights.safetensors", "training.safetensors", "optimizer.safetensors"] {
        let (a, b) = (common::weights_of(&whole, file), common::weights_of(&stopped, file));
        assert!(a.len() == b.len() && a.len() > 10);
        for (name, t) in &a {
            assert!(t.equal(&b[name]), "`{name}` of {file} differs");
        }
    }
    let (a, b) =
        (common::weights_of(&whole, "weights.safetensors"), common::weights_of(&whole, "training.safetensors"));
    assert!(change(&a, &b).values().any(|&c| c > 0.0), "the average is not the weights");
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
        "optimizer.lr.classifier=0.5",
        "optimizer.lr.*=0.5",
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
