//! U-Net against a module in plain PyTorch.

use baselines::{UNet, UNetNorm, UNetSettings};
use stage_api::{Mode, SliceNetwork};
use tch::{Device, Kind, Tensor};

use super::{Fixture, GRADIENT_TOLERANCE, TOLERANCE, assert_close, parameters, settings};

fn compare(name: &str, norm: UNetNorm, negative_slope: f64) {
    let fixture = Fixture::load(&format!("unet/{name}"));
    let settings = UNetSettings { widths: vec![3, 4, 6, 8, 10], norm, negative_slope, dropout: 0.0 };
    let network = UNet::new(&settings, 0, Device::Cpu).unwrap();
    fixture.give_weights(&network);
    let slices = fixture.get("slices");
    for mode in [Mode::Eval, Mode::Train] {
        assert_close(name, &network.forward(&slices, mode), &fixture.get("logits"), TOLERANCE);
    }
    let loss = (network.forward(&slices, Mode::Train) * fixture.get("direction")).mean(None);
    assert_close("loss", &loss, &fixture.get("loss"), GRADIENT_TOLERANCE);
    loss.backward();
    fixture.check_gradients(&network);
}

#[test]
fn outputs_and_gradients_without_normalisation_equal_pytorchs() {
    compare("plain", UNetNorm::None, 0.0);
}

#[test]
fn outputs_and_gradients_with_instance_normalisation_equal_pytorchs() {
    compare("normed", UNetNorm::Instance, 0.2);
}

/// As in `configs/baselines/unet-laboratory.toml`.
fn laboratory() -> UNetSettings {
    UNetSettings { widths: vec![16, 32, 64, 128, 256], norm: UNetNorm::Instance, negative_slope: 0.2, dropout: 0.25 }
}

#[test]
fn it_has_the_31_030_593_parameters_of_2015_or_the_laboratorys_1_940_817() {
    let network = UNet::new(&UNetSettings::default(), 0, Device::Cpu).unwrap();
    assert_eq!(parameters(&network), 31_030_593);
    let network = UNet::new(&laboratory(), 0, Device::Cpu).unwrap();
    // Counted by hand: ∑ 9ab + 9bb + 2b over pairs, ∑ 4ab + b over transposed convolutions, and 17.
    assert_eq!(parameters(&network), 1_940_817);
}

#[test]
fn the_laboratorys_leaves_values_out_in_training_alone() {
    let network = UNet::new(&laboratory(), 0, Device::Cpu).unwrap();
    let slices = Tensor::rand([1, 1, 64, 64], (Kind::Float, Device::Cpu));
    let twice = |mode| [network.forward(&slices, mode), network.forward(&slices, mode)];
    let [first, second] = twice(Mode::Eval);
    assert!(first == second && !first.requires_grad());
    for mode in [Mode::Train, Mode::TrainUntracked] {
        let [first, second] = twice(mode);
        assert!(first != second && first.requires_grad());
    }
}

#[test]
fn slices_of_any_size_have_logits_of_their_size() {
    let settings = UNetSettings { widths: vec![2, 2, 2, 2, 2], ..laboratory() };
    let network = UNet::new(&settings, 0, Device::Cpu).unwrap();
    for size in [[32, 32], [33, 47], [5, 100]] {
        let slices = Tensor::rand([2, 1, size[0], size[1]], (Kind::Float, Device::Cpu));
        assert_eq!(network.forward(&slices, Mode::Eval).size(), [2, 1, size[0], size[1]]);
        assert_eq!(network.forward(&slices, Mode::Train).size(), [2, 1, size[0], size[1]]);
    }
}

#[test]
fn the_seed_decides_the_weights() {
    let settings = UNetSettings { widths: vec![2, 4], ..UNetSettings::default() };
    let weights = |seed| UNet::new(&settings, seed, Device::Cpu).unwrap().tensors().remove(0).tensor;
    assert!(weights(1) == weights(1) && weights(1) != weights(2));
}

#[test]
fn settings_out_of_range_are_named_with_what_was_expected() {
    let said = |json: &str| UNet::new(&settings(json), 0, Device::Cpu).unwrap_err().to_string();
    assert_eq!(said(r#"{"widths": [8]}"#), "segmenter.settings.widths is a list of 1, expected 2 to 8 stages");
    assert_eq!(said(r#"{"widths": [8, 0]}"#), "segmenter.settings.widths is [8, 0], expected 1 to 2048 channels each");
    assert_eq!(said(r#"{"dropout": 1}"#), "segmenter.settings.dropout is 1, expected 0 to less than 1");
    assert_eq!(
        said(r#"{"negative_slope": -0.1}"#),
        "segmenter.settings.negative_slope is -0.1, expected 0 to less than 1"
    );
    let unknown = serde_json::from_str::<UNetSettings>(r#"{"width": 4}"#).unwrap_err().to_string();
    assert!(unknown.contains("unknown field `width`, expected one of `widths`"), "{unknown}");
}
