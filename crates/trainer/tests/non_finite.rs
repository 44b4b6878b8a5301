//! Losses that are not finite, made by a classifier that says NaN when it is told to.

mod common;

use common::{Bench, store, weights};
use serde_json::Value;
use stage_api::{Group, Mode, NamedTensor, Presence, PresenceClassifier};
use std::cell::Cell;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use trainer::registry::Registry;

/// 24 training slices, 4 in a step: six steps.
const CONFIG: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[classifier]
kind = "stub"
settings = { nan = [], steep = [] }
[[phase]]
name = "classifier"
epochs = 1
labelled_passes = 0
"#;

/// Logit: weight × mean intensity, NaN in the training passes whose numbers are in `nan`, and with an infinite gradient in
/// those that are in `steep`. Its statistic is the sum of all its logits in training.
struct Stub {
    weight: Tensor,
    statistic: Tensor,
    nan: Vec<i64>,
    steep: Vec<i64>,
    passes: Cell<i64>,
}

impl PresenceClassifier for Stub {
    fn forward(&self, slices: &Tensor, mode: Mode) -> Presence {
        let mut logit = slices.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float) * &self.weight;
        if mode == Mode::Train {
            self.passes.set(self.passes.get() + 1);
            if self.nan.contains(&self.passes.get()) {
                logit *= f64::NAN;
            }
            if self.steep.contains(&self.passes.get()) {
                // √0, whose slope has no end.
                logit += (&self.weight - self.weight.detach()).sqrt();
            }
            let _ = tch::no_grad(|| self.statistic.shallow_clone().g_add_(&logit.sum(Kind::Float)));
        }
        Presence { cam: Tensor::ones([slices.size()[0], 1, 8, 8], (Kind::Float, Device::Cpu)), logit, map: None }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let named = |name: &str, group, t: &Tensor| NamedTensor { name: name.into(), group, tensor: t.shallow_clone() };
        vec![
            named("weight", Group::trainable("classifier"), &self.weight),
            named("statistic", Group::statistics("classifier"), &self.statistic),
        ]
    }
}

fn bench(place: &Path, weights: std::path::PathBuf) -> Bench {
    let mut bench = Bench::new(CONFIG, &store(place), weights);
    bench.registry = Registry::default().with_classifier("stub", |settings, _, _| {
        let passes = |key: &str| settings[key].as_array().unwrap().iter().filter_map(toml::Value::as_integer).collect();
        let (nan, steep) = (passes("nan"), passes("steep"));
        let weight = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let statistic = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        Ok(Box::new(Stub { weight, statistic, nan, steep, passes: Cell::new(0) }))
    });
    bench
}

#[test]
fn an_update_with_a_loss_that_is_not_finite_is_left_out_and_counted() {
    let Some(weights) = weights("an_update_with_a_loss_that_is_not_finite_is_left_out_and_counted") else { return };
    let place = tempfile::tempdir().unwrap();
    let bench = bench(place.path(), weights);
    let run = place.path().join("run");
    let record = bench.train(&run, &["classifier.settings.nan=[2, 3, 5]"]).unwrap();
    assert_eq!(record.skipped_updates, 3);
    let written: Value = serde_json::from_str(&std::fs::read_to_string(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(written["skipped_updates"], 3);
    // The time is accounted for: parts don't overlap.
    let parts: f64 = written["times"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
    let seconds = written["seconds"].as_f64().unwrap();
    assert!(parts > 0.0 && parts < seconds + 1.0, "{parts} of {seconds} s");
    let rate = written["slices_per_second"].as_f64().unwrap();
    assert!((rate * seconds - 24.0).abs() < 1e-6, "{rate} slices/s in {seconds} s");
    assert!((0.0..=1.0).contains(&written["wait_share"].as_f64().unwrap()));
    let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let skipped: Vec<&str> =
        log.lines().filter(|l| l.starts_with("step")).map(|l| l.rsplit(',').next().unwrap()).collect();
    assert_eq!(skipped, ["0", "1", "1", "0", "1", "0"]);
    assert!(log.lines().any(|l| l.contains(",NaN,")), "{log}");
    let found = common::weights_of(&run, "weights.safetensors");
    for name in ["classifier.weight", "classifier.statistic"] {
        assert!(found[name].double_value(&[0]).is_finite(), "`{name}` has taken NaN in");
    }
    let state = common::weights_of(&run, "optimizer.safetensors");
    assert_eq!(state["classifier.weight.steps"].int64_value(&[0]), 3, "six steps, three of them left out");

    // Accumulated: the update of steps 1 and 2 is left out as a whole, two others are made.
    let run = place.path().join("accumulated");
    let record = bench.train(&run, &["classifier.settings.nan=[2]", "optimizer.accumulate_steps=2"]).unwrap();
    let state = common::weights_of(&run, "optimizer.safetensors");
    assert_eq!((record.skipped_updates, state["classifier.weight.steps"].int64_value(&[0])), (1, 2));
}

#[test]
fn an_update_that_is_left_out_leaves_the_statistics_as_they_were_before_its_first_step() {
    let Some(weights) = weights("an_update_that_is_left_out_leaves_the_statistics_as_they_were_before_its_first_step")
    else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let bench = bench(place.path(), weights);
    let end = |name: &str, set: &[&str]| {
        let run = place.path().join(name);
        let record = bench.train(&run, set).unwrap();
        let found = common::weights_of(&run, "weights.safetensors");
        let moved = ["classifier.weight", "classifier.statistic"].map(|tensor| found[tensor].double_value(&[0]));
        (record.skipped_updates, moved)
    };
    // The loss of the second step is fine, its gradient is not: as if its loss had not been.
    let by_loss = end("loss", &["classifier.settings.nan=[2]"]);
    assert_eq!(by_loss.0, 1);
    assert_eq!(end("gradient", &["classifier.settings.steep=[2]"]), by_loss);
    // Of two steps that make an update, neither leaves a trace, whichever was at fault.
    let pair = |name: &str, fault: &str| end(name, &[fault, "optimizer.accumulate_steps=2"]);
    let by_first = pair("first loss", "classifier.settings.nan=[3]");
    assert_eq!(by_first.0, 1);
    assert_eq!(pair("second loss", "classifier.settings.nan=[4]"), by_first);
    assert_eq!(pair("second gradient", "classifier.settings.steep=[4]"), by_first);
}

#[test]
fn three_in_a_row_end_the_run_and_leave_the_batch() {
    let Some(weights) = weights("three_in_a_row_end_the_run_and_leave_the_batch") else { return };
    let place = tempfile::tempdir().unwrap();
    let bench = bench(place.path(), weights);
    let run = place.path().join("run");
    let error = bench.train(&run, &["classifier.settings.nan=[3, 4, 5]"]).unwrap_err().to_string();
    assert!(error.contains("3 updates in a row") && error.contains("the last in step 5 (classifier NaN)"), "{error}");
    assert!(error.contains("step-000005.safetensors"), "{error}");
    let batch = Tensor::read_safetensors(run.join("non-finite/step-000005.safetensors")).unwrap();
    let slices = &batch.iter().find(|(name, _)| name == "slices").unwrap().1;
    assert_eq!(slices.size(), [4, 1, 64, 64]);
    let text = std::fs::read_to_string(run.join("non-finite/step-000005.json")).unwrap();
    let described: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(described["slices"].as_array().unwrap().len(), 4);
    assert!(described["slices"][0].as_str().is_some_and(|name| name.starts_with(['0', '1'])), "{described}");
}
