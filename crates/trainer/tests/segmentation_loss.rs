//! The segmentation loss: closed forms, and nnU-Net's loss by its parts, on one logit, against nnunetv2's own on two channels.

use losses::SegmentationLosses;
use stage_api::Masks;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use trainer::config::SegmentationLossConfig;
use trainer::registry::Registry;

/// Of these parts alone.
fn losses(parts: &[(&str, f64)]) -> SegmentationLosses {
    SegmentationLossConfig::only(parts).of(&Registry::default().losses).unwrap()
}

#[test]
fn of_three_masks_the_best_is_trained_and_every_score_learns_its_iou() {
    let truth = Tensor::from_slice(&[1.0f32, 1.0, 0.0, 0.0]).reshape([1, 1, 2, 2]);
    let logits = Tensor::cat(
        &[&truth * 20.0 - 10.0, &truth * -20.0 + 10.0, Tensor::ones([1, 1, 2, 2], (Kind::Float, Device::Cpu))],
        1,
    )
    .set_requires_grad(true);
    let masks = Masks {
        logits: logits.shallow_clone(),
        scores: Tensor::from_slice(&[1.0f32, 0.0, 0.5]).unsqueeze(0),
        coarser: Vec::new(),
    };
    let loss = losses(&[("dice", 0.6), ("focal", 0.4), ("score", 0.1)]).of(&masks, &truth);
    assert!(loss.total.double_value(&[]) < 1e-3);
    assert!(loss.score.double_value(&[]) < 1e-6, "IoUs are 1, 0 and 2/4");
    loss.total.backward();
    assert_eq!(logits.grad().select(1, 1).abs().max().double_value(&[]), 0.0);
}

#[test]
fn a_pixel_that_is_ignored_counts_in_no_loss_and_gets_no_gradient() {
    let row = |values: &[f32]| Tensor::from_slice(values).reshape([1, 1, 1, values.len() as i64]);
    let parts = [("dice", 1.0), ("focal", 1.0), ("iou", 1.0), ("ce", 1.0), ("boundary", 1.0), ("score", 1.0)];
    let of = |logits: &[f32], truth: &[f32]| {
        let logits = row(logits).set_requires_grad(true);
        let scores = Tensor::zeros([1, 1], (Kind::Float, Device::Cpu));
        let loss =
            losses(&parts).of(&Masks { logits: logits.shallow_clone(), scores, coarser: Vec::new() }, &row(truth));
        loss.total.backward();
        let gradient = Vec::<f32>::try_from(logits.grad().view(-1)).unwrap();
        (loss.total.double_value(&[]), gradient)
    };
    let truth = [1.0, 0.0, -1.0];
    let (loss, gradient) = of(&[0.5, -0.5, 7.0], &truth);
    assert_eq!((loss, gradient[2]), (of(&[0.5, -0.5, -7.0], &truth).0, 0.0));
    // As a pixel that is found to be background with certainty.
    assert!((loss - of(&[0.5, -0.5, -200.0], &[1.0, 0.0, 0.0]).0).abs() < 1e-6);
    assert!(gradient[..2].iter().all(|slope| *slope != 0.0));
}

#[test]
fn weights_are_factors_and_parts_are_added() {
    let row = |values: [f32; 2]| Tensor::from_slice(&values).reshape([1, 1, 1, 2]);
    // Probabilities 0.5 and 3/4: shared 0.5, union 1.75; distances 0 and 1.
    let scores = Tensor::zeros([1, 1], (Kind::Float, Device::Cpu));
    let masks = Masks { logits: row([0.0, 3f32.ln()]), scores, coarser: Vec::new() };
    let loss = losses(&[("iou", 0.5), ("boundary", 0.25)]).of(&masks, &row([1.0, 0.0])).total.double_value(&[]);
    assert!((loss - 0.5 * (1.0 - 1.5 / 2.75) - 0.25 * 0.375).abs() < 1e-6, "{loss}");
}

#[test]
fn coarser_resolutions_weigh_half_as_much_each_and_the_last_nothing() {
    let square = |values: &[f32], side: i64| Tensor::from_slice(values).reshape([1, 1, side, side]);
    // Of four pixels the one at the lower right stands for them: (1, 1) for the first.
    let mut truth = [0.0; 16];
    truth[5] = 1.0;
    let coarser = vec![square(&[3f32.ln(), 0.0, 0.0, 0.0], 2), square(&[50.0], 1)];
    let scores = Tensor::zeros([1, 1], (Kind::Float, Device::Cpu));
    let masks = Masks { logits: square(&[0.0; 16], 4), scores, coarser };
    let loss = losses(&[("ce", 1.0)]).of(&masks, &square(&truth, 4)).total.double_value(&[]);
    let half = (-(0.75f64.ln()) + 3.0 * 2f64.ln()) / 4.0;
    assert!((loss - (2f64.ln() + 0.5 * half) / 1.5).abs() < 1e-6, "{loss}");
}

#[test]
fn a_loss_of_batches_sees_the_slices_of_a_step_as_one_mask() {
    let rows = |values: &[f32]| Tensor::from_slice(values).reshape([2, 1, 1, 2]);
    // All of the first slice is target and found; the second has none, and half of it is found.
    let scores = Tensor::zeros([2, 1], (Kind::Float, Device::Cpu));
    let masks = Masks { logits: rows(&[50.0, 50.0, 50.0, -50.0]), scores, coarser: Vec::new() };
    let losses = losses(&[("batch-dice", 1.0)]);
    assert!(losses.need_batches());
    let loss = losses.of(&masks, &rows(&[1.0, 1.0, 0.0, 0.0])).total.double_value(&[]);
    assert!((loss - (1.0 - 4.0 / 5.0)).abs() < 1e-5, "{loss}");
}

#[test]
fn a_part_that_is_not_registered_is_refused_with_those_that_are() {
    let error = SegmentationLossConfig::only(&[("tversky", 1.0)]).of(&BTreeMap::new());
    assert!(error.map(drop).unwrap_err().to_string().contains("\"tversky\""));
}

/// What `crates/baselines/tests/fixtures/nnunet/make_fixtures.py` got from nnunetv2.
fn fixture() -> BTreeMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../baselines/tests/fixtures/nnunet/loss.safetensors");
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

/// The second channel less the first, as a leaf.
fn one_logit(channels: &Tensor) -> Tensor {
    (channels.narrow(1, 1, 1) - channels.narrow(1, 0, 1)).detach().set_requires_grad(true)
}

fn assert_close(name: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    let range = expected.abs().max().double_value(&[]).max(1e-12);
    let difference = (found - expected).abs().max().double_value(&[]) / range;
    assert!(difference <= tolerance, "{name} differs by {difference:.1e} of its range");
}

/// The gradient of the one logit is that of the target's channel, and the other's is its opposite.
fn check_gradient(name: &str, leaf: &Tensor, channels: &Tensor) {
    let gradient = leaf.grad();
    assert_close(name, &gradient, &channels.narrow(1, 1, 1), 1e-3);
    assert_close(name, &-gradient, &channels.narrow(1, 0, 1), 1e-3);
}

#[test]
fn cross_entropy_and_dice_of_a_batch_are_nnu_nets_loss_with_and_without_deep_supervision() {
    let fixture = fixture();
    let losses = losses(&[("ce", 1.0), ("batch-dice", 1.0)]);
    let loss = |resolutions: &[Tensor], truth: &Tensor| {
        let [finest, coarser @ ..] = resolutions else { unreachable!("there is a full resolution") };
        let scores = Tensor::zeros([finest.size()[0], 1], (Kind::Float, Device::Cpu));
        let coarser = coarser.iter().map(Tensor::shallow_clone).collect();
        losses.of(&Masks { logits: finest.shallow_clone(), scores, coarser }, truth).total
    };
    let resolutions = fixture["weights"].size()[0];
    for case in ["some", "none"] {
        let truth = if case == "some" { fixture["truth"].shallow_clone() } else { fixture["truth"].zeros_like() };
        let leaf = one_logit(&fixture["logits/0"]);
        let alone = loss(std::slice::from_ref(&leaf), &truth);
        // Theirs is the Dice's opposite, without the 1.
        assert_close(case, &(&alone - 1.0), &fixture[&format!("{case}/alone")], 1e-4);
        alone.backward();
        check_gradient(case, &leaf, &fixture[&format!("{case}/alone.gradient")]);

        let leaves: Vec<Tensor> = (0..resolutions).map(|i| one_logit(&fixture[&format!("logits/{i}")])).collect();
        let deep = loss(&leaves, &truth);
        assert_close(case, &(&deep - 1.0), &fixture[&format!("{case}/deep")], 1e-4);
        deep.backward();
        let (lowest, counted) = leaves.split_last().unwrap();
        for (i, leaf) in counted.iter().enumerate() {
            check_gradient(&format!("{case}, resolution {i}"), leaf, &fixture[&format!("{case}/gradient/{i}")]);
        }
        assert!(!lowest.grad().defined(), "the lowest resolution doesn't count");
    }
    let weights = ::losses::deep_supervision_weights(resolutions as usize);
    assert_close("weights", &Tensor::from_slice(&weights), &fixture["weights"].to_kind(Kind::Double), 1e-9);
}
