//! Which input makes a classifier's running statistics: whole slices, and nothing that inference never sees.

mod common;

use common::{Bench, store, weights, weights_of};
use stage_api::{ClassifierInput, Group, Mode, NamedTensor, Presence, PresenceClassifier};
use std::path::Path;
use tch::{Device, Kind, Tensor};
use trainer::registry::Registry;

/// 24 training slices of 64 × 64, 4 in a step: six steps.
const CONFIG: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[[phase]]
name = "classifier"
epochs = 1
labelled_passes = 0
"#;

/// Counts in its buffer what it sees in training: whole inputs that it keeps statistics of, and parts; whole inputs and parts
/// that it keeps none of. Slices and embeddings of these runs have 64 places along each axis.
struct Counting {
    input: ClassifierInput,
    weight: Tensor,
    seen: Tensor,
}

impl Counting {
    fn new(input: ClassifierInput) -> Self {
        let options = (Kind::Float, Device::Cpu);
        Self { input, weight: Tensor::ones([1], options).set_requires_grad(true), seen: Tensor::zeros([4], options) }
    }
}

impl PresenceClassifier for Counting {
    fn input(&self) -> ClassifierInput {
        self.input
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Presence {
        let size = input.size();
        let part = i64::from(size[2] < 64);
        let place = match mode {
            Mode::Train => Some(part),
            Mode::TrainUntracked => Some(2 + part),
            Mode::Eval => None,
        };
        if let Some(place) = place {
            let _ = tch::no_grad(|| self.seen.get(place).g_add_scalar_(size[0] as f64));
        }
        let map =
            input.mean_dim([1i64].as_slice(), true, Kind::Float).avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None)
                * &self.weight;
        Presence {
            logit: map.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float),
            cam: map.detach().sigmoid(),
            map: Some(map),
        }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let named = |name: &str, group, t: &Tensor| NamedTensor { name: name.into(), group, tensor: t.shallow_clone() };
        vec![
            named("weight", Group::trainable("classifier"), &self.weight),
            named("seen", Group::statistics("classifier"), &self.seen),
        ]
    }
}

/// What it has seen at the end of a run.
fn seen(place: &Path, store: &Path, weights: &Path, set: &[&str]) -> Vec<f32> {
    let mut bench = Bench::new(CONFIG, store, weights.to_owned());
    bench.registry = Registry::default()
        .with_classifier("slices", |_, _, _| Ok(Box::new(Counting::new(ClassifierInput::Slices))))
        .with_classifier("embeddings", |_, _, _| Ok(Box::new(Counting::new(ClassifierInput::Embedding))));
    let run = tempfile::tempdir_in(place).unwrap();
    bench.train(run.path(), set).unwrap();
    Vec::try_from(&weights_of(run.path(), "weights.safetensors")["classifier.seen"]).unwrap()
}

#[test]
fn crops_strong_copies_and_mask_views_leave_the_running_statistics_to_whole_slices() {
    let test = "crops_strong_copies_and_mask_views_leave_the_running_statistics_to_whole_slices";
    let Some(weights) = weights(test) else { return };
    let place = tempfile::tempdir().unwrap();
    let store = store(place.path());
    let seen = |set: &[&str]| seen(place.path(), &store, &weights, set);
    let slices = "classifier={kind=\"slices\", batch_slices=4, crop_negatives=true, batch_crops=2, crop_size=32, consistency=1.0}";
    // 24 slices, as many strongly augmented copies of them, and 2 crops in each of 6 steps, but where a slice has none to give.
    let found = seen(&[slices, "augmentation.strong.noise_hu=20"]);
    assert!(found[..3] == [24.0, 0.0, 24.0] && (1.0..=12.0).contains(&found[3]), "{found:?}");
    let embeddings = |rest: &str| format!("classifier={{kind=\"embeddings\", batch_slices=4, batch_masks=2{rest}}}");
    // 2 labelled slices in each step, whose masks teach the map.
    assert_eq!(seen(&[&embeddings("")]), [24.0, 0.0, 12.0, 0.0]);
}
