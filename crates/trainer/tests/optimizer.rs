//! The optimiser against the recurrences written out, and across a restart; the average of its weights, the schedule of its rates, and
//! parameters by the pattern of their names.

use stage_api::{Group, NamedTensor};
use tch::{Device, Kind, Tensor};
use trainer::average::WeightAverage;
use trainer::config::{OptimizerConfig, OptimizerKind, Schedule};
use trainer::optimizer::{Optimizer, clip, global_norm};
use trainer::patterns::{matches, matching};
use trainer::schedule::schedule_factor;

fn config(kind: OptimizerKind) -> OptimizerConfig {
    OptimizerConfig { kind, weight_decay: 0.01, ..OptimizerConfig::default() }
}

fn parameter(values: &[f32]) -> NamedTensor {
    // Two dimensions, so that weight decay applies.
    let tensor = Tensor::from_slice(values).unsqueeze(0).set_requires_grad(true);
    NamedTensor { name: "w".into(), group: Group::trainable("decoder"), tensor }
}

/// Steps down `f(w) = w²`, whose gradient is `2w`.
fn descend(optimizer: &mut Optimizer, p: &[NamedTensor], steps: usize) {
    for _ in 0..steps {
        (&p[0].tensor * &p[0].tensor).sum(Kind::Float).backward();
        optimizer.step(p, |_| 0.1);
    }
}

/// Where three steps from 1 end.
fn after_three(config: &OptimizerConfig) -> f64 {
    let p = [parameter(&[1.0])];
    descend(&mut Optimizer::new(config), &p, 3);
    p[0].tensor.double_value(&[0, 0])
}

/// torch.optim.AdamW or Adam (lr = 0.1, weight_decay = 0.01), by the papers' algorithms in f64.
fn adam_written_out(decoupled: bool) -> f64 {
    let (mut w, mut m, mut v) = (1.0f64, 0.0, 0.0);
    for t in 1..=3 {
        let g = 2.0 * w + if decoupled { 0.0 } else { 0.01 * w };
        w *= if decoupled { 1.0 - 0.1 * 0.01 } else { 1.0 };
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        w -= 0.1 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
    }
    w
}

#[test]
fn three_steps_of_adam_agree_with_the_recurrence_written_out() {
    assert!((after_three(&config(OptimizerKind::AdamW)) - adam_written_out(true)).abs() < 1e-6);
    assert!((after_three(&config(OptimizerKind::Adam)) - adam_written_out(false)).abs() < 1e-6);
}

#[test]
fn three_steps_of_sgd_agree_with_the_recurrence_written_out() {
    let sgd = config(OptimizerKind::Sgd);
    // g = 2.01 w. Without momentum a step multiplies w by 1 − 0.201.
    let plain = after_three(&OptimizerConfig { momentum: 0.0, ..sgd.clone() });
    assert!((plain - 0.799f64.powi(3)).abs() < 1e-6);
    // With momentum 0.9 by hand: v = 2.01, w = 0.799; v = 3.41499, w = 0.457501; v = 3.99306801, w = 0.058194199.
    assert!((after_three(&sgd) - 0.058_194_199).abs() < 1e-6);
    // Nesterov goes on by g + 0.9 v: w = 1 − 0.1 (2.01 + 1.809) = 0.6181; g = 1.242381, v = 3.051381,
    // w = 0.6181 − 0.1 (1.242381 + 2.7462429) = 0.21923761; g = 0.4406675961, v = 3.1869104961, w = −0.111651094.
    assert!((after_three(&OptimizerConfig { nesterov: true, ..sgd }) + 0.111_651_094).abs() < 1e-6);
}

#[test]
fn gradients_are_shortened_to_the_limit_and_never_lengthened() {
    // Gradients 2w: (6, 0) and (0, 8), together of norm 10.
    let p = [parameter(&[3.0, 0.0]), parameter(&[0.0, 4.0])];
    for q in &p {
        (&q.tensor * &q.tensor).sum(Kind::Float).backward();
    }
    assert!((global_norm(&p) - 10.0).abs() < 1e-6);
    clip(&p, 10.0, 20.0);
    assert_eq!(p[0].tensor.grad().double_value(&[0, 0]), 6.0);
    clip(&p, 10.0, 1.0);
    assert!((p[0].tensor.grad().double_value(&[0, 0]) - 0.6).abs() < 1e-6);
    assert!((p[1].tensor.grad().double_value(&[0, 1]) - 0.8).abs() < 1e-6);
}

#[test]
fn a_restored_optimizer_continues_bit_for_bit() {
    for kind in [OptimizerKind::AdamW, OptimizerKind::Adam, OptimizerKind::Sgd] {
        let config = config(kind);
        let (a, b) = ([parameter(&[1.0, -2.0])], [parameter(&[1.0, -2.0])]);
        let mut whole = Optimizer::new(&config);
        descend(&mut whole, &a, 6);
        let mut first = Optimizer::new(&config);
        descend(&mut first, &b, 3);
        let mut second = Optimizer::new(&config);
        second.restore(first.state(), Device::Cpu).unwrap();
        descend(&mut second, &b, 3);
        assert_eq!(a[0].tensor, b[0].tensor, "{kind:?}");
    }
}

#[test]
fn a_step_that_misses_a_parameter_leaves_it_alone_before_and_after_a_restart() {
    for kind in [OptimizerKind::AdamW, OptimizerKind::Adam, OptimizerKind::Sgd] {
        let config = config(kind);
        let p = [parameter(&[1.0])];
        let mut first = Optimizer::new(&config);
        descend(&mut first, &p, 1);
        let after_one = p[0].tensor.detach().copy();
        // The same parameter in a new process: no gradient is there.
        let restarted = [parameter(&[after_one.double_value(&[0, 0]) as f32])];
        let mut second = Optimizer::new(&config);
        second.restore(first.state().iter().map(|(n, t)| (n.clone(), t.copy())).collect(), Device::Cpu).unwrap();
        first.step(&p, |_| 0.1);
        second.step(&restarted, |_| 0.1);
        assert_eq!(p[0].tensor, after_one, "{kind:?}");
        assert_eq!(restarted[0].tensor, after_one, "{kind:?}");
        // Neither counts the step.
        descend(&mut first, &p, 1);
        descend(&mut second, &restarted, 1);
        assert_eq!(p[0].tensor, restarted[0].tensor, "{kind:?}");
    }
}

#[test]
fn a_gradient_that_was_dropped_moves_nothing_and_the_next_one_does() {
    let p = [parameter(&[1.0])];
    let mut optimizer = Optimizer::new(&config(OptimizerKind::AdamW));
    (&p[0].tensor * f64::NAN).sum(Kind::Float).backward();
    assert_eq!(optimizer.with_gradient(vec![parameter(&[2.0])]).len(), 0);
    optimizer.clear(&p);
    optimizer.step(&p, |_| 0.1);
    assert_eq!(p[0].tensor.double_value(&[0, 0]), 1.0);
    assert!(optimizer.state().is_empty(), "it was given moments");
    descend(&mut optimizer, &p, 3);
    assert!((p[0].tensor.double_value(&[0, 0]) - adam_written_out(true)).abs() < 1e-6);
}

const DECODER: Group = Group::trainable("decoder");
const LORA: Group = Group::trainable("lora");

fn weight(group: Group, value: f32) -> NamedTensor {
    NamedTensor { name: group.name.into(), group, tensor: Tensor::from_slice(&[value]) }
}

#[test]
fn the_average_follows_its_recurrence_where_a_group_learns_and_rests_where_not() {
    let weights = [weight(DECODER, 1.0), weight(LORA, 1.0)];
    let mut average = WeightAverage::new(0.15, &weights);
    for (updates, value) in [2.0f64, 3.0].into_iter().enumerate() {
        for w in &weights {
            let _ = w.tensor.shallow_clone().fill_(value);
        }
        average.update(&weights, |t| (t.group == DECODER).then_some(updates));
    }
    // Decays 1/10, then min(0.15, 2/11): 0.1 + 0.9 · 2 = 1.9; 0.15 · 1.9 + 0.85 · 3 = 2.835.
    assert!((average.tensors[0].tensor.double_value(&[0]) - 2.835).abs() < 1e-6);
    assert_eq!(average.tensors[1].tensor.double_value(&[0]), 1.0);
}

#[test]
fn swapping_twice_is_nothing() {
    let weights = [weight(DECODER, 1.0)];
    let mut average = WeightAverage::new(0.9, &weights);
    let _ = weights[0].tensor.shallow_clone().fill_(5.0);
    average.swap(&weights);
    assert_eq!((weights[0].tensor.double_value(&[0]), average.tensors[0].tensor.double_value(&[0])), (1.0, 5.0));
    average.swap(&weights);
    assert_eq!((weights[0].tensor.double_value(&[0]), average.tensors[0].tensor.double_value(&[0])), (5.0, 1.0));
}

fn at(schedule: Schedule, done: usize) -> f64 {
    let config = OptimizerConfig { warmup_steps: 10, schedule, ..OptimizerConfig::default() };
    schedule_factor(&config, done, 110)
}

#[test]
fn every_schedule_rises_first() {
    let step = Schedule::Step { factor: 0.5, period: 30 };
    for schedule in [Schedule::Constant, Schedule::Cosine, Schedule::Poly, step] {
        assert!((at(schedule, 0) - 0.1).abs() < 1e-12, "{schedule:?}");
        assert!((at(schedule, 10) - 1.0).abs() < 1e-12, "{schedule:?}");
    }
}

#[test]
fn after_the_warmup_each_follows_its_formula() {
    assert_eq!(at(Schedule::Constant, 109), 1.0);
    // Half-way the cosine is half-way between 1 and 0.02.
    assert!((at(Schedule::Cosine, 60) - 0.51).abs() < 1e-12);
    assert!(at(Schedule::Cosine, 109) < 0.021);
    // 0.5^0.9 and 0.01^0.9 = 10^−1.8.
    assert!((at(Schedule::Poly, 60) - 0.535_886_731).abs() < 1e-9);
    assert!((at(Schedule::Poly, 109) - 0.015_848_932).abs() < 1e-9);
    assert_eq!(at(Schedule::Poly, 110), 0.0);
    let step = Schedule::Step { factor: 0.5, period: 30 };
    assert_eq!([39, 40, 69, 70, 100].map(|done| at(step, done)), [1.0, 0.5, 0.5, 0.25, 0.125]);
}

#[test]
fn stars_and_question_marks_stand_for_what_they_say() {
    for (pattern, name, expected) in [
        ("classifier.*", "classifier.conv1.weight", true),
        ("classifier.*", "segmenter.classifier.weight", false),
        ("*.bias", "a.b.bias", true),
        ("*.bias", "a.bias.weight", false),
        ("*layer?.*weight", "x.layer3.0.conv1.weight", true),
        ("*layer?.*", "x.layer.0", false),
        ("a.b", "a.b", true),
        ("a.b", "a.bc", false),
        ("*", "", true),
        ("", "a", false),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn a_pattern_that_fits_nothing_is_an_error_with_the_nearest_names() {
    let names = ["classifier.conv1.weight", "classifier.conv1.bias", "segmenter.decoder.weight"];
    let error = matching("optimizer.freeze", "clasifier.conv1*", names.into_iter()).unwrap_err().to_string();
    assert!(error.contains("`optimizer.freeze`") && error.contains("`classifier.conv1.bias`"), "{error}");
    assert_eq!(matching("optimizer.freeze", "*weight", names.into_iter()).unwrap(), [names[0], names[2]]);
}
