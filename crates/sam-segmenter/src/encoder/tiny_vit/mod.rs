//! TinyViT as MobileSAM (`[B, 3, 1024, 1024]`) and LiteMedSAM (`[B, 1, 256, 256]`) have it; both give `[B, 256, 64, 64]`.
//!
//! They differ in the patch embedding: two 3×3 convolutions of stride 2, or two of 1×1 that keep the resolution. Inside,
//! tensors are `[B, H, W, C]`: 1×1 convolutions and attention need no transposition.

mod block;
mod conv;
mod strips;

use crate::groups::ENCODER;
use tch::{Device, Tensor};

use self::block::{Block, BlockShape};
use self::conv::ConvBn;
use self::strips::by_strips;
use super::lora::{LoraFactory, Pass};
use super::neck::Neck;
use crate::architecture::TinyVitArchitecture;
use crate::checkpoint::Weights;
use crate::layers::{Scope, channels_last, gelu_owned};

pub(super) struct TinyVit {
    patch_embedding: [ConvBn; 2],
    /// Of stride 2, unless their kernel is 1.
    patch_kernel: i64,
    convolutions: Vec<MbConv>,
    first_merging: Merging,
    stages: Vec<Stage>,
    neck: Neck,
}

/// Blocks, then a change of resolution or width if another stage follows.
struct Stage {
    blocks: Vec<Block>,
    merging: Option<Merging>,
}

impl TinyVit {
    pub(super) fn take(weights: &mut Weights, shape: &TinyVitArchitecture, lora: &mut LoraFactory<'_>) -> Self {
        let mut scope = Scope::new(weights, "image_encoder", super::group(lora.settings()));
        let (widths, kernel) = (shape.widths, shape.patch_kernel);
        let patch_embedding = [
            ConvBn::take(scope.at("patch_embed.seq.0"), [widths[0] / 2, 3, kernel, kernel]),
            ConvBn::take(scope.at("patch_embed.seq.2"), [widths[0], widths[0] / 2, kernel, kernel]),
        ];
        let convolutions = (0..shape.depths[0])
            .map(|i| MbConv::take(scope.at(format_args!("layers.0.blocks.{i}")), widths[0]))
            .collect();
        let first_merging = Merging::take(&mut scope, 0, widths);
        let stages = (0..3)
            .map(|i| {
                let mut layer = scope.at(format_args!("layers.{}", i + 1));
                let block = BlockShape { width: widths[i + 1], heads: shape.heads[i], window: shape.windows[i] };
                let blocks = (0..shape.depths[i + 1])
                    .map(|j| Block::take(layer.at(format_args!("blocks.{j}")), block, lora))
                    .collect();
                Stage { blocks, merging: (i < 2).then(|| Merging::take(&mut scope, i + 1, widths)) }
            })
            .collect();
        // ImageNet's, which MobileSAM's file still carries: kept, so that what is written from here loads there again.
        for (name, size) in shape.classification_head.iter().flat_map(|&classes| {
            let width = widths[3];
            [
                ("norm_head.weight", vec![width]),
                ("norm_head.bias", vec![width]),
                ("head.weight", vec![classes, width]),
                ("head.bias", vec![classes]),
            ]
        }) {
            let _ = scope.take_as(name, &size, ENCODER);
        }
        let neck = Neck::take(scope.at("neck"), widths[3]);
        Self { patch_embedding, patch_kernel: kernel, convolutions, first_merging, stages, neck }
    }

    /// The weights that have adapters, with the adapters added.
    pub(super) fn merged_weights(&self) -> Vec<(String, Tensor)> {
        self.stages.iter().flat_map(|stage| &stage.blocks).flat_map(Block::merged).collect()
    }

    /// The part without adapters, up to the first merging: `[B, 2g, 2g, C]`.
    pub(super) fn features(&self, input: &Tensor) -> Tensor {
        by_picture(input, |picture| self.features_of(picture))
    }

    fn features_of(&self, input: &Tensor) -> Tensor {
        let x = channels_last(input);
        let [first, second] = self.patch_embedding.each_ref().map(|map| map.folded(&x));
        let x = if self.patch_kernel == 1 {
            by_strips(&x, 1, |strip| second.pointwise(&gelu_owned(first.pointwise(&strip.own()))))
        } else {
            second.strided(&gelu_owned(first.strided(&x)))
        };
        let x = self.convolutions.iter().fold(x, |x, block| block.forward(&x));
        self.first_merging.forward(&x)
    }

    /// From the features to the embedding.
    pub(super) fn forward(&self, features: &Tensor, pass: Pass) -> Tensor {
        by_picture(features, |features| self.embed(features, pass))
    }

    fn embed(&self, features: &Tensor, pass: Pass) -> Tensor {
        let x = self.stages.iter().fold(features.shallow_clone(), |x, stage| {
            let x = stage.blocks.iter().fold(x, |x, block| block.forward(&x, pass));
            stage.merging.as_ref().map_or(x.shallow_clone(), |merging| merging.forward(&x))
        });
        self.neck.forward(&x, x.kind())
    }

    /// What each layer makes of the features, by its name in the official code.
    pub(super) fn by_layer(&self, features: &Tensor, pass: Pass) -> Vec<(String, Tensor)> {
        let mut outputs = vec![("layers.0.downsample".to_owned(), features.shallow_clone())];
        let mut x = features.shallow_clone();
        for (stage, layer) in self.stages.iter().zip(1..) {
            for (i, block) in stage.blocks.iter().enumerate() {
                x = block.forward(&x, pass);
                outputs.push((format!("layers.{layer}.blocks.{i}"), x.shallow_clone()));
            }
            if let Some(merging) = &stage.merging {
                x = merging.forward(&x);
                outputs.push((format!("layers.{layer}.downsample"), x.shallow_clone()));
            }
        }
        outputs.push(("neck".to_owned(), self.neck.forward(&x, x.kind())));
        outputs
    }
}

/// `work` on each picture of `[B, …]`. On a CPU the tensors of one still fit its cache, and those of four are so large that
/// the C library takes their memory from the system each time anew. A GPU has all of them at once.
fn by_picture(x: &Tensor, work: impl Fn(&Tensor) -> Tensor) -> Tensor {
    if x.device() != Device::Cpu || x.size()[0] == 1 {
        return work(x);
    }
    let pictures: Vec<Tensor> = x.split(1, 0).iter().map(work).collect();
    Tensor::cat(&pictures, 0)
}

/// An inverted bottleneck: widen fourfold, convolve each channel, narrow, add.
struct MbConv {
    widen: ConvBn,
    depthwise: ConvBn,
    narrow: ConvBn,
}

impl MbConv {
    fn take(mut scope: Scope<'_>, width: i64) -> Self {
        Self {
            widen: ConvBn::take(scope.at("conv1"), [4 * width, width, 1, 1]),
            depthwise: ConvBn::take(scope.at("conv2"), [4 * width, 1, 3, 3]),
            narrow: ConvBn::take(scope.at("conv3"), [width, 4 * width, 1, 1]),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [widen, depthwise, narrow] = [&self.widen, &self.depthwise, &self.narrow].map(|map| map.folded(x));
        by_strips(x, 1, |strip| {
            let hidden = gelu_owned(widen.pointwise(&strip.rows));
            let hidden = gelu_owned(strip.depthwise(&hidden, &depthwise, 1));
            gelu_owned(narrow.pointwise(&hidden).g_add_(&strip.own()))
        })
    }
}

/// The step between two stages.
struct Merging {
    widen: ConvBn,
    depthwise: ConvBn,
    mix: ConvBn,
    stride: i64,
}

impl Merging {
    /// The one after that stage.
    fn take(encoder: &mut Scope<'_>, stage: usize, widths: [i64; 4]) -> Self {
        let (inputs, outputs) = (widths[stage], widths[stage + 1]);
        let mut scope = encoder.at(format_args!("layers.{stage}.downsample"));
        Self {
            widen: ConvBn::take(scope.at("conv1"), [outputs, inputs, 1, 1]),
            depthwise: ConvBn::take(scope.at("conv2"), [outputs, 1, 3, 3]),
            mix: ConvBn::take(scope.at("conv3"), [outputs, outputs, 1, 1]),
            // The last change of width keeps the resolution.
            stride: if stage == 2 { 1 } else { 2 },
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [widen, depthwise, mix] = [&self.widen, &self.depthwise, &self.mix].map(|map| map.folded(x));
        by_strips(x, self.stride, |strip| {
            let hidden = gelu_owned(widen.pointwise(&strip.rows));
            mix.pointwise(&gelu_owned(strip.depthwise(&hidden, &depthwise, self.stride)))
        })
    }
}
