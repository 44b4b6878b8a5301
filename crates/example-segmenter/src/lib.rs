//! An experiment's own segmenter: a small U-Net, which needs no prompt and so no classifier; and its own loss.
//!
//! This is all that it takes: a type that implements [`SliceNetwork`], a factory, a function for the loss, and a program that adds
//! them to the registry (`src/main.rs`). The configuration then says `segmenter.kind = "tiny-unet"`, `classifier.kind = "none"` and
//! `segmentation_loss.tversky = 1.0`.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use stage_api::{Group, Mode, NamedTensor, Promptless, SliceNetwork};
use tch::{Device, Kind, Tensor};
use trainer::registry::Registry;

/// The registry of this workspace with the example in it.
pub fn registry() -> Registry {
    Registry::default()
        .with_segmenter("tiny-unet", |config, seed, device| {
            let settings = config.settings.clone().try_into().context("in [segmenter.settings]")?;
            Ok(Box::new(Promptless(TinyUNet::new(&settings, seed, device)?)))
        })
        .with_loss("tversky", tversky)
}

/// Tversky loss with α = 0.3 for false positives and β = 0.7 for false negatives, smooth 1 (Salehi et al., 2017).
pub fn tversky(logits: &Tensor, truth: &Tensor) -> Tensor {
    let probability = logits.sigmoid();
    let shared = (&probability * truth).sum(Kind::Float);
    let false_positive = probability.sum(Kind::Float) - &shared;
    let false_negative = truth.sum(Kind::Float) - &shared;
    1.0 - (&shared + 1.0) / (&shared + false_positive * 0.3 + false_negative * 0.7 + 1.0)
}

/// Settings of [`TinyUNet`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TinyUNetSettings {
    /// Channels at full resolution, 1 to 64; twice as many at each of two lower ones.
    pub width: i64,
}

impl Default for TinyUNetSettings {
    fn default() -> Self {
        Self { width: 8 }
    }
}

/// Two levels down, two up, with skips.
pub struct TinyUNet {
    layers: Vec<Layer>,
}

struct Layer {
    name: &'static str,
    kernel: Tensor,
    bias: Tensor,
}

impl TinyUNet {
    /// Random by the seed.
    ///
    /// # Errors
    /// If the width is out of its range.
    pub fn new(settings: &TinyUNetSettings, seed: u64, device: Device) -> Result<Self> {
        let w = settings.width;
        ensure!((1..=64).contains(&w), "segmenter.settings.width is {w}, expected 1 to 64");
        tch::manual_seed(seed as i64);
        let layer = |name, input: i64, output: i64| {
            let deviation = (2.0 / (9 * input) as f64).sqrt();
            let kernel = Tensor::randn([output, input, 3, 3], (Kind::Float, device)) * deviation;
            let bias = Tensor::zeros([output], (Kind::Float, device));
            Layer { name, kernel: kernel.set_requires_grad(true), bias: bias.set_requires_grad(true) }
        };
        let layers = vec![
            layer("top", 1, w),
            layer("down1", w, 2 * w),
            layer("down2", 2 * w, 4 * w),
            layer("up1", 6 * w, 2 * w),
            layer("up2", 3 * w, w),
            layer("out", w, 1),
        ];
        Ok(Self { layers })
    }
}

impl SliceNetwork for TinyUNet {
    fn forward(&self, slices: &Tensor, _: Mode) -> Tensor {
        let apply = |i: usize, x: &Tensor, stride: i64| {
            let Layer { kernel, bias, .. } = &self.layers[i];
            x.conv2d(kernel, Some(bias), stride, 1, 1, 1)
        };
        let joined = |low: &Tensor, high: &Tensor| {
            let size = &high.size()[2..];
            Tensor::cat(&[&low.upsample_nearest2d(size, None, None), high], 1)
        };
        let top = apply(0, slices, 1).relu();
        let middle = apply(1, &top, 2).relu();
        let bottom = apply(2, &middle, 2).relu();
        let up = apply(3, &joined(&bottom, &middle), 1).relu();
        apply(5, &apply(4, &joined(&up, &top), 1).relu(), 1)
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let named = |name: String, tensor: &Tensor| NamedTensor {
            name,
            group: Group::trainable("unet"),
            tensor: tensor.shallow_clone(),
        };
        let of = |layer: &Layer| {
            let Layer { name, kernel, bias } = layer;
            [named(format!("{name}.weight"), kernel), named(format!("{name}.bias"), bias)]
        };
        self.layers.iter().flat_map(of).collect()
    }
}
