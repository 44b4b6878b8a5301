//! What adapters add, and what their gradients are.

use crate::groups::ENCODER;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::*;
use crate::checkpoint::{Record, StateFile, Weights};

const WIDTH: i64 = 12;
const HEADS: i64 = 3;
const RANK: usize = 2;
const ON: Pass = Pass { adapters: Adapters::On, mode: Mode::Train };
const EVAL: Pass = Pass { adapters: Adapters::On, mode: Mode::Eval };
const OFF: Pass = Pass { adapters: Adapters::Off, mode: Mode::Eval };

fn settings(targets: &[LoraTarget]) -> SegmenterSettings {
    SegmenterSettings { lora_rank: RANK, lora_targets: targets.to_vec(), ..SegmenterSettings::default() }
}

/// Standard normal values.
fn random(seed: u64, shape: &[i64]) -> Tensor {
    let values = random_a(shape.iter().product(), LoraInit::Gaussian, 1.0, &mut ChaCha8Rng::seed_from_u64(seed));
    values.view(shape) * 100.0
}

/// A fused map of random weights; `fill` gives the second factors values.
fn qkv(rows: QkvRows, settings: &SegmenterSettings, fill: bool) -> Qkv {
    tch::manual_seed(5);
    let tensors = vec![
        ("map.weight".to_owned(), random(1, &[3 * WIDTH, WIDTH])),
        ("map.bias".to_owned(), random(2, &[3 * WIDTH])),
    ];
    let file = StateFile::of_model(Path::new("random"), tensors, "", Record::default());
    let mut weights = Weights::new(file, Device::Cpu);
    let scope = Scope::new(&mut weights, "map", ENCODER);
    let map = Qkv::take(scope, WIDTH, rows, &mut LoraFactory::new(settings));
    weights.finish().expect("the map has weight and bias");
    if fill {
        for (adapter, seed) in map.adapters.iter().flatten().zip(3..) {
            tch::no_grad(|| adapter.b.shallow_clone().copy_(&random(seed, &[WIDTH, RANK as i64])));
        }
    }
    map
}

fn largest(difference: &Tensor) -> f64 {
    difference.abs().max().double_value(&[])
}

fn outputs(map: &Qkv, x: &Tensor, pass: Pass) -> Tensor {
    Tensor::cat(&map.forward(x, pass), -1)
}

#[test]
fn a_second_factor_of_zero_changes_nothing() {
    let map = qkv(QkvRows::PerHead(HEADS), &settings(&LoraTarget::ALL), false);
    let x = random(10, &[2, 5, WIDTH]);
    let plain = outputs(&map, &x, OFF);
    assert_eq!(outputs(&map, &x, EVAL), plain);
    assert_eq!(outputs(&map, &x, ON), plain);
    assert!(map.adapters.iter().flatten().all(|adapter| largest(&adapter.a) > 0.0), "the first factor is drawn");
}

#[test]
fn each_target_changes_its_own_rows_only() {
    for (number, target) in [LoraTarget::Q, LoraTarget::K, LoraTarget::V].into_iter().enumerate() {
        // Rows as [q, k, v] of all channels, and as [heads][q, k, v] of a head's.
        for (rows, groups) in [(QkvRows::Thirds, [1, 3, WIDTH]), (QkvRows::PerHead(HEADS), [HEADS, 3, WIDTH / HEADS])] {
            let map = qkv(rows, &settings(&[target]), true);
            let (_, merged) = map.merged().expect("it has an adapter");
            let change = (merged - &map.weight).abs().sum_dim_intlist(1, false, None).view(groups);
            for part in 0..3 {
                let rows = change.select(1, part);
                if part as usize == number {
                    assert!(rows.min().double_value(&[]) > 0.0, "{target:?}: every row of its own changes");
                } else {
                    assert_eq!(largest(&rows), 0.0, "{target:?}: no row of part {part} changes");
                }
            }
        }
    }
}

#[test]
fn the_detour_of_training_the_sum_of_evaluation_and_the_merged_weight_agree_with_their_gradients() {
    for rows in [QkvRows::Thirds, QkvRows::PerHead(HEADS)] {
        let with_alpha = SegmenterSettings { lora_alpha: Some(3.0), ..settings(&[LoraTarget::Q, LoraTarget::V]) };
        let map = qkv(rows, &with_alpha, true);
        let x = random(10, &[2, 5, WIDTH]).set_requires_grad(true);
        let direction = random(11, &[2, 5, 3 * WIDTH]);
        let of: Vec<&Tensor> = map.adapters.iter().flatten().flat_map(|a| [&a.a, &a.b]).chain([&x]).collect();
        let gradients = |y: &Tensor| Tensor::run_backward(&[(y * &direction).sum(Kind::Float)], &of, false, false);

        let detour = outputs(&map, &x, ON);
        let (_, merged) = map.merged().expect("it has adapters");
        let parts = map.parts(&x.linear(&merged, Some(&map.bias)).movedim_int(-1, 0));
        let reference = Tensor::cat(&parts, 0).movedim_int(0, -1);
        assert!(largest(&(&detour - &reference)) < 1e-5);
        assert!(largest(&(outputs(&map, &x, EVAL) - &reference)) < 1e-5);
        assert!(largest(&(outputs(&map, &x, OFF) - &reference)) > 0.1, "the adapters have an effect");
        for (found, expected) in gradients(&detour).iter().zip(gradients(&reference)) {
            assert!(largest(&(found - &expected)) < 1e-4 * largest(&expected));
        }
    }
}

#[test]
fn alpha_over_rank_is_the_scale() {
    let change = |alpha: Option<f64>| {
        let map = qkv(QkvRows::Thirds, &SegmenterSettings { lora_alpha: alpha, ..settings(&[LoraTarget::Q]) }, true);
        map.merged().expect("it has an adapter").1 - &map.weight
    };
    let plain = change(None);
    assert!(largest(&(change(Some(2.0 * RANK as f64)) - &plain * 2.0)) < 1e-6);
    assert!(largest(&(change(Some(RANK as f64)) - plain)) < 1e-6);
}

#[test]
fn a_change_of_the_named_weight_is_seen() {
    let map = qkv(QkvRows::PerHead(HEADS), &settings(&[]), false);
    let x = random(10, &[3, WIDTH]);
    let before = outputs(&map, &x, OFF);
    for named in [&map.weight, &map.bias] {
        let _ = tch::no_grad(|| named.shallow_clone().g_mul_scalar_(2.0));
    }
    assert!(largest(&(outputs(&map, &x, OFF) - before * 2.0)) < 1e-5);
}

#[test]
fn first_factors_are_drawn_as_their_papers_have_it() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let gaussian = random_a(40_000, LoraInit::Gaussian, 768.0, &mut rng);
    let deviation = gaussian.std(true).double_value(&[]);
    assert!((deviation - 0.01).abs() < 2e-4, "{deviation}");
    assert!(gaussian.mean(None).double_value(&[]).abs() < 2e-4);
    let kaiming = random_a(40_000, LoraInit::Kaiming, 768.0, &mut rng);
    let bound = 1.0 / 768_f64.sqrt();
    assert!(largest(&kaiming) <= bound && largest(&kaiming) > 0.99 * bound);
    assert!((kaiming.std(true).double_value(&[]) - bound / 3_f64.sqrt()).abs() < 0.01 * bound);
}
