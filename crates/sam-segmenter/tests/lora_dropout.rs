//! Dropout in adapters. Alone in its program: libtorch has one generator of random numbers, and other tests use it.

#[expect(dead_code, reason = "the real weights are not needed")]
mod common;
#[expect(dead_code, reason = "nor are official names and devices")]
#[path = "common/formula.rs"]
mod formula;

use common::{assert_close, model, named};
use sam_segmenter::{Family, LoraTarget, Memory, SamSegmenter, SegmenterSettings};
use stage_api::{Adapters, Mode, Segmenter};
use tch::{Kind, Tensor};

#[test]
fn dropout_acts_in_training_only_repeats_by_the_seed_and_keeps_the_mean() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = formula::write_state(folder.path(), &formula::small_vit_shapes(32, 2, 4, &[1, 3], 16));
    let adapted = |lora_dropout: f64, memory: Memory| {
        let settings = SegmenterSettings {
            family: Some(Family::Sam),
            input_size: Some(64),
            lora_rank: 4,
            lora_targets: vec![LoraTarget::V],
            lora_dropout,
            memory,
            ..SegmenterSettings::default()
        };
        let model = model(&weights, &settings);
        for (name, tensor) in named(&model).iter().filter(|(name, _)| name.contains("lora_b")) {
            tch::no_grad(|| tensor.shallow_clone().copy_(&(formula::tensor(name, &tensor.size()) * 0.1)));
        }
        model
    };
    for memory in [Memory::Keep, Memory::Recompute] {
        let (dropping, plain) = (adapted(0.5, memory), adapted(0.0, memory));
        let slice = Tensor::from_slice(&formula::values("slice", 64 * 64, 0.5, 0.5)).view([1, 1, 64, 64]);
        let embed = |model: &SamSegmenter, mode, seed| {
            tch::manual_seed(seed);
            model.embed(&model.features(&slice), Adapters::On, mode).tensor.detach()
        };
        assert_eq!(embed(&dropping, Mode::Eval, 1), embed(&plain, Mode::Eval, 2));
        assert_eq!(embed(&dropping, Mode::Train, 1), embed(&dropping, Mode::Train, 1));
        assert_ne!(embed(&dropping, Mode::Train, 1), embed(&dropping, Mode::Train, 2));
        // What is kept is scaled up; small changes pass the rest of the encoder almost linearly.
        let mean = (0..50).map(|seed| embed(&dropping, Mode::Train, seed)).sum::<Tensor>() / 50.0;
        let without = dropping.embed(&dropping.features(&slice), Adapters::Off, Mode::Eval).tensor;
        let effect = embed(&plain, Mode::Train, 0) - &without;
        let apart = ((mean - &without - &effect).norm() / effect.norm()).double_value(&[]);
        println!("{memory:?}: mean of 50 steps {apart:.3} of the effect apart");
        assert!(apart < 0.3, "{apart}");
        assert!(effect.abs().max().double_value(&[]) > 1e-3);
        check_gradient(&dropping, &slice);
        assert_close("features", &dropping.features(&slice).tensor, &plain.features(&slice).tensor, 0.0);
    }
}

/// The gradient of a step with that seed against the difference of two steps with it, along the gradient itself.
fn check_gradient(model: &SamSegmenter, slice: &Tensor) {
    let adapters: Vec<Tensor> =
        named(model).into_iter().filter(|(name, _)| name.contains("lora_")).map(|(_, tensor)| tensor).collect();
    let weights = Tensor::from_slice(&formula::values("weights", 256 * 16, 0.0, 1.0)).view([1, 256, 4, 4]);
    let step = || {
        tch::manual_seed(7);
        model.embed(&model.features(slice), Adapters::On, Mode::Train)
    };
    let value = |embedding: &Tensor| (embedding * &weights).sum(Kind::Float);
    let embedding = step();
    value(&embedding.tensor).backward();
    embedding.backward().expect("nothing is refused");
    let gradients: Vec<Tensor> = adapters.iter().map(|tensor| tensor.grad().copy()).collect();
    let length = gradients.iter().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum::<f64>().sqrt();
    let moved = |by: f64| {
        tch::no_grad(|| {
            for (tensor, gradient) in adapters.iter().zip(&gradients) {
                let _ = tensor.shallow_clone().g_add_(&(gradient * (by / length)));
            }
        });
    };
    let at = |by: f64| {
        moved(by);
        let found = value(&step().tensor.detach()).double_value(&[]);
        moved(-by);
        found
    };
    let slope = (at(0.02) - at(-0.02)) / 0.04;
    assert!((slope / length - 1.0).abs() < 0.02, "slope {slope}, gradient {length}");
}
