//! MultiMix against its published code.

use baselines::{MultiMix, MultiMixSettings};
use stage_api::{Mode, SliceNetwork};
use tch::{Device, Reduction, Tensor};

use super::formula::{self, Fixture, TOLERANCE, apart, discs, filled, random_slices, slices};

fn network(settings: &MultiMixSettings) -> MultiMix {
    MultiMix::new(settings, 0, Device::Cpu).expect("the settings are good")
}

fn small() -> MultiMixSettings {
    MultiMixSettings { width: 4, dropout: 0.5 }
}

#[test]
fn it_has_1_965_173_parameters_under_the_published_names() {
    assert_eq!(formula::published("multi_mix").parameters, 1_965_173);
    formula::assert_published("multi_mix", &network(&MultiMixSettings::default()));
}

#[test]
fn both_outputs_and_all_gradients_are_the_published_codes_and_18_parameters_get_none() {
    let settings = MultiMixSettings { dropout: 0.0, ..MultiMixSettings::default() };
    let (network, fixture) = (network(&settings), Fixture::read("multi_mix"));
    formula::fill(&network, |_| true);
    for mode in [Mode::Eval, Mode::Train] {
        let (classes, logits) = network.forward_both(&slices(64), mode);
        fixture.check("segmentation", &logits, 2000, TOLERANCE);
        fixture.check_whole("classes", &classes, TOLERANCE);
    }
    let (classes, logits) = network.forward_both(&slices(64), Mode::Train);
    let segmentation = logits.binary_cross_entropy_with_logits::<Tensor>(&discs(64), None, None, Reduction::Mean);
    let loss = segmentation + (classes * filled("classes", &[2, 2], 0.0, 1.0)).mean(None);
    fixture.check_whole("loss", &loss, TOLERANCE);
    loss.backward();
    fixture.check_gradients(&network);
    let without: usize =
        network.tensors().iter().filter(|t| !t.tensor.grad().defined()).map(|t| t.tensor.numel()).sum();
    assert_eq!(without, 18);
}

#[test]
fn saliency_is_of_the_higher_class_whichever_it_is() {
    let network = network(&small());
    formula::fill(&network, |_| true);
    let (classes, logits) = network.forward_both(&slices(64), Mode::Eval);
    for t in network.tensors().into_iter().filter(|t| t.name.starts_with("encoder.fc.")) {
        tch::no_grad(|| t.tensor.shallow_clone().copy_(&t.tensor.flip([0])));
    }
    let (swapped, same) = network.forward_both(&slices(64), Mode::Eval);
    assert!(apart(&swapped, &classes.flip([1])) < 1e-3 && apart(&same, &logits) < 1e-5);
}

#[test]
fn saliency_leaves_no_gradient_and_no_graph_behind() {
    let network = network(&small());
    let x = random_slices(2, 64, 64);
    for mode in [Mode::Eval, Mode::TrainUntracked] {
        let logits = network.forward(&x, mode);
        assert_eq!(logits.requires_grad(), mode.is_training());
        assert!(network.tensors().iter().all(|t| !t.tensor.grad().defined()));
    }
    assert!(!x.requires_grad());
}

#[test]
fn a_slices_logits_do_not_depend_on_its_batch_and_dropout_is_on_in_training_alone() {
    let network = network(&small());
    let x = random_slices(3, 64, 64);
    let all = network.forward(&x, Mode::Eval);
    assert!(apart(&network.forward(&x.narrow(0, 1, 1), Mode::Eval), &all.narrow(0, 1, 1)) < 1e-5);
    assert_eq!(network.forward(&x, Mode::Eval), all);
    assert!(apart(&network.forward(&x, Mode::Train), &network.forward(&x, Mode::Train)) > 1e-3);
}

#[test]
fn slices_of_any_size_are_taken() {
    let network = network(&small());
    for [height, width] in [[32, 32], [33, 47], [100, 70], [16, 40]] {
        let logits = network.forward(&random_slices(2, height, width), Mode::Train);
        assert_eq!(logits.size(), [2, 1, height, width]);
        assert!(bool::try_from(logits.isfinite().all()).unwrap());
    }
}

#[test]
fn a_setting_out_of_its_range_is_refused_by_its_key() {
    let refused = |settings: MultiMixSettings| MultiMix::new(&settings, 0, Device::Cpu).unwrap_err().to_string();
    let cases = [
        (MultiMixSettings { width: 0, ..small() }, "width is 0, expected 1 to 128 channels"),
        (MultiMixSettings { dropout: -0.1, ..small() }, "dropout is -0.1, expected 0 to less than 1"),
    ];
    for (settings, expected) in cases {
        assert_eq!(refused(settings), format!("segmenter.settings.{expected}"));
    }
    assert!(serde_json::from_str::<MultiMixSettings>("{\"widths\": [16]}").is_err());
}
