//! Models whose weights are a formula of each tensor's name, as `fixtures/sam_reference.py` defines it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Device, Tensor};

/// Names and shapes of a state dictionary.
pub type Shapes = BTreeMap<String, Vec<i64>>;

/// Those of the official checkpoints: `vit_b`, `vit_l`, `vit_h`, `mobile_sam`, `lite_medsam`.
pub fn official_shapes(model: &str) -> Shapes {
    let all: BTreeMap<String, Shapes> =
        serde_json::from_str(include_str!("../fixtures/state_dicts.json")).expect("the fixture is JSON");
    all[model].clone()
}

/// Those of a small ViT: ViT-B's, with another width, number of heads, blocks and grid.
pub fn small_vit_shapes(width: i64, heads: i64, depth: usize, global_blocks: &[usize], grid: i64) -> Shapes {
    let block_of =
        |name: &str| -> Option<usize> { name.strip_prefix("image_encoder.blocks.")?.split('.').next()?.parse().ok() };
    let resized = |name: &str, shape: &[i64]| -> Vec<i64> {
        let block = block_of(name);
        if name.contains("rel_pos") {
            let side = if block.is_some_and(|i| global_blocks.contains(&i)) { grid } else { 14 };
            return vec![2 * side - 1, width / heads];
        }
        if name.ends_with("pos_embed") {
            return vec![1, grid, grid, width];
        }
        let of_encoder = block.is_some() || name.contains("patch_embed") || name.ends_with("neck.0.weight");
        let scaled = |n: i64| if of_encoder && n % 768 == 0 { n / 768 * width } else { n };
        shape.iter().map(|&n| scaled(n)).collect()
    };
    let official = official_shapes("vit_b");
    let kept = official.iter().filter(|(name, _)| block_of(name).is_none_or(|i| i < depth));
    kept.map(|(name, shape)| (name.clone(), resized(name, shape))).collect()
}

/// The first `count` values that belong to a name, `offset + scale · u`, `u` in `[-1, 1)`.
pub fn values(name: &str, count: usize, offset: f64, scale: f64) -> Vec<f32> {
    hashes(name, count).map(|h| (offset + scale * (f64::from(h >> 8) / f64::from(1 << 23) - 1.0)) as f32).collect()
}

/// The numbers behind them.
pub fn hashes(name: &str, count: usize) -> impl Iterator<Item = u32> + use<> {
    let seed = name.bytes().fold(0x811C_9DC5_u32, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..count as u32).map(move |i| {
        let mut x = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9));
        x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
        x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
        x ^ (x >> 16)
    })
}

/// The tensor of that name and shape.
pub fn tensor(name: &str, shape: &[i64]) -> Tensor {
    const TABLES: [&str; 7] = [
        "pos_embed",
        "point_embeddings.",
        "not_a_point_embed.",
        "no_mask_embed.",
        "iou_token.",
        "mask_tokens.",
        "attention_biases",
    ];
    if name.ends_with("num_batches_tracked") {
        return Tensor::from(0_i64);
    }
    let count = shape.iter().product::<i64>() as usize;
    let per_row = shape[1..].iter().product::<i64>() as f64;
    let (offset, scale) = if name.ends_with("running_var") || (shape.len() == 1 && name.ends_with("weight")) {
        (1.0, 0.2)
    } else if shape.len() == 1 {
        (0.0, 0.2)
    } else if name.ends_with("positional_encoding_gaussian_matrix") {
        (0.0, 1.5)
    } else if TABLES.iter().any(|table| name.contains(table)) {
        (0.0, 0.5)
    } else {
        (0.0, (3.0 / per_row).sqrt() * if name.contains("lora_b") { 0.25 } else { 1.0 })
    };
    Tensor::from_slice(&values(name, count, offset, scale)).view(shape)
}

/// Writes the state dictionary of those shapes as safetensors.
pub fn write_state(folder: &Path, shapes: &Shapes) -> PathBuf {
    let path = folder.join("weights.safetensors");
    let state: Vec<(&str, Tensor)> = shapes.iter().map(|(name, shape)| (name.as_str(), tensor(name, shape))).collect();
    Tensor::write_safetensors(&state, &path).expect("the weights are written");
    path
}

/// The devices that the tests run on: the CPU, and a GPU where there is one.
pub fn devices() -> Vec<Device> {
    let mut devices = vec![Device::Cpu];
    if tch::Cuda::is_available() {
        devices.push(Device::Cuda(0));
    }
    devices
}
