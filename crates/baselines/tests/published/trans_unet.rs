//! TransUNet against its published code.

use baselines::{TransUnet, TransUnetSettings};
use stage_api::{Mode, NamedTensor, SliceNetwork};
use tch::{Device, Kind, Reduction, Tensor};

use super::formula::{self, Fixture, TOLERANCE, apart, discs, random_slices, slices};

/// The fixtures' small network.
pub fn small() -> TransUnetSettings {
    TransUnetSettings {
        image_size: 64,
        resnet_width: 32,
        resnet_units: [1, 2, 1],
        width: 24,
        layers: 2,
        heads: 3,
        mlp: 40,
        dropout: 0.0,
        decoder_channels: [24, 16, 8, 4],
        weights: None,
    }
}

pub fn network(settings: &TransUnetSettings) -> TransUnet {
    TransUnet::new(settings, 0, Device::Cpu).expect("the settings are good")
}

fn statistics(network: &TransUnet) -> Vec<(String, Tensor)> {
    let all = network.tensors().into_iter().filter(|t| !t.group.is_trainable());
    all.map(|NamedTensor { name, tensor, .. }| (name, tensor.copy())).collect()
}

#[test]
fn at_256_pixels_and_two_classes_it_has_105_322_146_parameters_under_the_published_names() {
    assert_eq!(formula::published("trans_unet").parameters, 105_322_146);
    formula::assert_published("trans_unet", &network(&TransUnetSettings::default()));
}

#[test]
fn logits_gradients_and_running_statistics_are_the_published_codes() {
    let (network, fixture) = (network(&small()), Fixture::read("trans_unet"));
    formula::fill(&network, |_| true);
    fixture.check("eval", &network.forward(&slices(64), Mode::Eval), 2000, TOLERANCE);

    let logits = network.forward(&slices(64), Mode::Train);
    fixture.check("train", &logits, 2000, TOLERANCE);
    // Cross-entropy of two classes is that of the difference of their logits.
    let loss = logits.binary_cross_entropy_with_logits::<Tensor>(&discs(64), None, None, Reduction::Mean);
    fixture.check_whole("loss", &loss, TOLERANCE);
    loss.backward();
    fixture.check_gradients(&network);
    let updated = statistics(&network);
    assert_eq!(fixture.names("updated.").len(), updated.len());
    for (name, tensor) in updated {
        fixture.check(&format!("updated.{name}"), &tensor, 60, TOLERANCE);
    }
}

#[test]
fn crops_are_normalised_by_their_own_statistics_and_leave_the_running_ones() {
    let network = network(&small());
    let before = statistics(&network);
    let x = random_slices(2, 64, 64);
    let untracked = network.forward(&x, Mode::TrainUntracked);
    assert!(statistics(&network) == before);
    assert!(apart(&untracked, &network.forward(&x, Mode::Train)) < 1e-5);
    assert!(statistics(&network) != before);
    assert!(apart(&untracked, &network.forward(&x, Mode::Eval)) > 1e-3);
}

#[test]
fn dropout_is_on_in_training_alone() {
    let network = network(&TransUnetSettings { dropout: 0.5, ..small() });
    let x = random_slices(2, 64, 64);
    let run = |mode| network.forward(&x, mode);
    assert!(apart(&run(Mode::TrainUntracked), &run(Mode::TrainUntracked)) > 1e-3);
    assert_eq!(run(Mode::Eval), run(Mode::Eval));
}

#[test]
fn what_each_normalisation_adds_to_a_variance_is_the_published_codes() {
    let network = network(&small());
    formula::fill(&network, |_| true);
    for t in network.tensors().into_iter().filter(|t| t.name.contains("root.gn")) {
        let _ = tch::no_grad(|| t.tensor.shallow_clone().multiply_scalar_(0.001));
    }
    Fixture::read("trans_unet").check("faint", &network.forward(&slices(64), Mode::Eval), 2000, TOLERANCE);
}

#[test]
fn a_slice_of_another_size_is_resized_to_the_networks_and_its_logits_back() {
    let network = network(&small());
    // What doesn't vary within a slice is the same at every size.
    let flat = |side: i64| Tensor::full([1, 1, side, side], 0.3, (Kind::Float, Device::Cpu));
    let (own, larger) = (network.forward(&flat(64), Mode::Eval), network.forward(&flat(192), Mode::Eval));
    assert_eq!(larger.size(), [1, 1, 192, 192]);
    // Every third pixel of the larger one is at the centre of a pixel of the smaller one.
    assert!(apart(&larger.slice(2, 1, None, 3).slice(3, 1, None, 3), &own) < 1e-4);
    assert_eq!(network.forward(&random_slices(2, 50, 70), Mode::Eval).size(), [2, 1, 50, 70]);
}

#[test]
fn a_setting_out_of_its_range_is_refused_by_its_key() {
    let refused = |settings: TransUnetSettings| TransUnet::new(&settings, 0, Device::Cpu).unwrap_err().to_string();
    let cases = [
        (
            TransUnetSettings { image_size: 250, ..small() },
            "image_size is 250, expected a multiple of 16 pixels, 32 to 1024",
        ),
        (
            TransUnetSettings { image_size: 16, ..small() },
            "image_size is 16, expected a multiple of 16 pixels, 32 to 1024",
        ),
        (
            TransUnetSettings { resnet_width: 48, ..small() },
            "resnet_width is 48, expected a multiple of 32 channels, 32 to 512",
        ),
        (
            TransUnetSettings { resnet_units: [1, 0, 1], ..small() },
            "resnet_units is [1, 0, 1], expected 1 to 64 units in each stage",
        ),
        (TransUnetSettings { layers: 0, ..small() }, "layers is 0, expected 1 to 64 layers"),
        (TransUnetSettings { heads: 0, ..small() }, "heads is 0, expected 1 to 64 heads"),
        (
            TransUnetSettings { width: 25, ..small() },
            "width is 25, expected a multiple of the 3 heads, up to 4096 channels",
        ),
        (TransUnetSettings { mlp: -1, ..small() }, "mlp is -1, expected 1 to 16384 channels"),
        (TransUnetSettings { dropout: 1.0, ..small() }, "dropout is 1, expected 0 to less than 1"),
        (TransUnetSettings { dropout: f64::NAN, ..small() }, "dropout is NaN, expected 0 to less than 1"),
        (
            TransUnetSettings { decoder_channels: [8, 8, 8, 0], ..small() },
            "decoder_channels is [8, 8, 8, 0], expected 1 to 1024 channels in each block",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(refused(settings), format!("segmenter.settings.{expected}"));
    }
    let unknown = serde_json::from_str::<TransUnetSettings>("{\"depth\": 3}").unwrap_err().to_string();
    assert!(unknown.contains("unknown field `depth`"), "{unknown}");
}
