//! nnU-Net's network against `PlainConvUNet` of dynamic-network-architectures.

use baselines::{NnUNet, NnUNetSettings};
use stage_api::{Mode, SliceNetwork};
use tch::{Device, Kind, Tensor};

use super::{Fixture, GRADIENT_TOLERANCE, TOLERANCE, assert_close, parameters, settings};

/// The small network of the fixtures.
pub(super) fn small(mirrored: bool) -> NnUNet {
    let settings = NnUNetSettings {
        features: vec![4, 6, 8, 8],
        strides: vec![[1, 1], [2, 1], [2, 2], [2, 2]],
        kernels: vec![[3, 1], [3, 3], [3, 3], [3, 3]],
        patch: [32, 24],
        mirrored,
    };
    let network = NnUNet::new(&settings, 0, Device::Cpu).unwrap();
    Fixture::load("nnunet/network").give_weights(&network);
    network
}

#[test]
fn logits_of_each_resolution_and_gradients_equal_the_reference() {
    let fixture = Fixture::load("nnunet/network");
    let network = small(false);
    let slices = fixture.get("slices");
    let maps = network.supervised(&slices);
    assert_eq!(maps.len(), 3);
    let mut loss = Tensor::zeros([], (Kind::Float, Device::Cpu));
    for (i, map) in maps.iter().enumerate() {
        assert_close(&format!("resolution {i}"), map, &fixture.get(&format!("logits/{i}")), TOLERANCE);
        loss += (map * fixture.get(&format!("direction/{i}"))).mean(None);
    }
    assert_close("loss", &loss, &fixture.get("loss"), GRADIENT_TOLERANCE);
    loss.backward();
    fixture.check_gradients(&network);
    assert_close("inference", &network.forward(&slices, Mode::Eval), &fixture.get("logits/0"), TOLERANCE);
    assert_close("training", &network.forward(&slices, Mode::Train), &fixture.get("logits/0"), TOLERANCE);
}

#[test]
fn parameters_have_the_references_names_shapes_order_and_number() {
    let text = include_str!("../fixtures/nnunet/parameters.json");
    let reference: serde_json::Value = serde_json::from_str(text).unwrap();
    let default = NnUNetSettings::default();
    let of_512 = NnUNetSettings {
        features: vec![32, 64, 128, 256, 512, 512, 512, 512],
        strides: [&default.strides[..], &[[2, 2]]].concat(),
        kernels: vec![[3, 3]; 8],
        patch: [512, 512],
        mirrored: true,
    };
    for (side, settings, number) in [("256", default, 33_471_820), ("512", of_512, 46_324_558)] {
        let network = NnUNet::new(&settings, 0, Device::Cpu).unwrap();
        assert_eq!(parameters(&network), number);
        let found: Vec<(String, Vec<i64>)> = network.tensors().into_iter().map(|t| (t.name, t.tensor.size())).collect();
        let expected: Vec<(String, Vec<i64>)> = serde_json::from_value(reference[side].clone()).unwrap();
        assert_eq!(found, expected);
    }
}

#[test]
fn weights_begin_as_pytorchs_kaiming_normal_does() {
    let network = NnUNet::new(&NnUNetSettings::default(), 7, Device::Cpu).unwrap();
    for tensor in network.tensors() {
        let (name, size) = (&tensor.name, tensor.tensor.size());
        if size.len() == 4 {
            // `kaiming_normal_` counts the second axis, for transposed convolutions too.
            let expected = (2.0 / (1.0001 * size[1..].iter().product::<i64>() as f64)).sqrt();
            let found = tensor.tensor.std(false).double_value(&[]);
            let share = 4.0 / (2.0 * tensor.tensor.numel() as f64).sqrt();
            assert!((found / expected - 1.0).abs() < share, "{name}: {found}, expected {expected}");
        } else {
            let expected = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            assert!(tensor.tensor == tensor.tensor.full_like(expected), "{name}");
        }
    }
}

#[test]
fn slices_of_any_size_have_logits_of_their_size() {
    let network = small(true);
    for size in [[32, 24], [33, 47], [5, 100]] {
        let slices = Tensor::rand([2, 1, size[0], size[1]], (Kind::Float, Device::Cpu));
        assert_eq!(network.forward(&slices, Mode::Eval).size(), [2, 1, size[0], size[1]]);
        let maps = network.supervised(&slices);
        assert_eq!(maps[0].size(), [2, 1, size[0], size[1]]);
        assert_eq!(maps[1].size(), [2, 1, (size[0] + 1) / 2, size[1]]);
    }
}

#[test]
fn settings_that_no_network_has_are_named_with_what_was_expected() {
    let said = |json: &str| NnUNet::new(&settings(json), 0, Device::Cpu).unwrap_err().to_string();
    assert_eq!(
        said(r#"{"features": [8, 16]}"#),
        "segmenter.settings.strides is a list of 7, expected 2 pairs, as there are features"
    );
    let two = |rest: &str| said(&format!(r#"{{"features": [8, 8], "kernels": [[3, 3], [3, 3]], {rest}}}"#));
    assert_eq!(
        two(r#""strides": [[1, 1], [3, 2]]"#),
        "segmenter.settings.strides is [[1, 1], [3, 2]], expected 1 or 2 each"
    );
    assert!(two(r#""strides": [[2, 1], [2, 2]]"#).ends_with("expected [1, 1] as the first"));
    assert_eq!(
        said(r#"{"patch": [250, 256]}"#),
        "segmenter.settings.patch is [250, 256], expected multiples of [64, 64] (the strides' product), up to 4096"
    );
    assert!(
        serde_json::from_str::<NnUNetSettings>(r#"{"stages": 4}"#).unwrap_err().to_string().contains("unknown field")
    );
}
