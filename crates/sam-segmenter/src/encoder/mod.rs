//! The image encoder: TinyViT as LiteMedSAM has it, `[B, 1, 256, 256]` to `[B, 256, 64, 64]`.
//!
//! It differs from MobileSAM's: the patch embedding keeps the resolution (1×1 convolutions), and the stages work at
//! 256, 128, 64 and 64 pixels. Inside, tensors are `[B, H, W, C]`: 1×1 convolutions and attention need no transposition.

mod block;
mod conv;
mod lora;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use stage_api::{Adapters, Group};
use tch::{Kind, Tensor};

use self::block::{Block, BlockShape};
use self::conv::ConvBn;
use crate::checkpoint::Weights;
use crate::layers::{LayerNorm, Scope, channels_first, channels_last, for_input, gelu};
use crate::settings::SegmenterSettings;

/// Side of the square input in pixels.
pub(crate) const INPUT_SIZE: i64 = 256;
/// Side of the embedding grid.
pub(crate) const GRID: i64 = 64;
/// Channels of the embedding.
pub(crate) const EMBEDDING: i64 = 256;

/// Channels of the four stages.
const WIDTHS: [i64; 4] = [64, 128, 160, 320];

/// The three stages of attention, in order: blocks, and their shape.
const ATTENTION_STAGES: [(usize, BlockShape); 3] = [
    (2, BlockShape { width: WIDTHS[1], heads: 4, window: 7 }),
    (6, BlockShape { width: WIDTHS[2], heads: 5, window: 14 }),
    (2, BlockShape { width: WIDTHS[3], heads: 10, window: 7 }),
];

pub(crate) struct ImageEncoder {
    patch_embedding: [ConvBn; 2],
    convolutions: Vec<MbConv>,
    first_merging: Merging,
    stages: Vec<Stage>,
    neck: Neck,
    precision: Kind,
}

/// Blocks, then a change of resolution or width if another stage follows.
struct Stage {
    blocks: Vec<Block>,
    merging: Option<Merging>,
}

impl ImageEncoder {
    pub(crate) fn take(weights: &mut Weights, settings: &SegmenterSettings) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let mut scope = Scope::new(weights, "image_encoder", Group::Encoder);
        let [first, ..] = WIDTHS;
        let patch_embedding = [
            ConvBn::take(scope.at("patch_embed.seq.0"), [first / 2, 3, 1, 1]),
            ConvBn::take(scope.at("patch_embed.seq.2"), [first, first / 2, 1, 1]),
        ];
        let convolutions = (0..2).map(|i| MbConv::take(scope.at(format_args!("layers.0.blocks.{i}")), first)).collect();
        let first_merging = Merging::take_after(&mut scope, 0).expect("the convolutions are not the last stage");
        let stages = ATTENTION_STAGES
            .iter()
            .enumerate()
            .map(|(i, &(depth, shape))| {
                let mut layer = scope.at(format_args!("layers.{}", i + 1));
                let blocks = (0..depth)
                    .map(|j| Block::take(layer.at(format_args!("blocks.{j}")), shape, settings, &mut rng))
                    .collect();
                Stage { blocks, merging: Merging::take_after(&mut scope, i + 1) }
            })
            .collect();
        let neck = Neck::take(scope.at("neck"));
        let precision = settings.precision.kind();
        Self { patch_embedding, convolutions, first_merging, stages, neck, precision }
    }

    /// The names of all weights that have adapters, and their values with the adapters added.
    pub(crate) fn adapted_weights(&self) -> Vec<(String, Tensor)> {
        let stages = self.stages.iter().enumerate();
        let blocks =
            stages.flat_map(|(i, stage)| stage.blocks.iter().enumerate().map(move |(j, block)| (i + 1, j, block)));
        blocks
            .map(|(i, j, block)| {
                (format!("image_encoder.layers.{i}.blocks.{j}.attn.qkv.weight"), block.adapted_weight())
            })
            .collect()
    }

    /// The part without adapters. `grey`: `[B, 1, 256, 256]`, one of three equal channels; gives `[B, 128, 128, 128]`.
    pub(crate) fn features(&self, grey: &Tensor) -> Tensor {
        let [first, second] = &self.patch_embedding;
        let x = second.pointwise(&gelu(&first.pointwise_grey(&channels_last(&grey.to_kind(self.precision)))));
        let x = self.convolutions.iter().fold(x, |x, block| block.forward(&x));
        self.first_merging.forward(&x).to_kind(Kind::Float)
    }

    /// From the features to the embedding `[B, 256, 64, 64]`.
    pub(crate) fn forward(&self, features: &Tensor, adapters: Adapters) -> Tensor {
        let x = self.stages.iter().fold(features.to_kind(self.precision), |x, stage| {
            let x = stage.blocks.iter().fold(x, |x, block| block.forward(&x, adapters));
            stage.merging.as_ref().map_or(x.shallow_clone(), |merging| merging.forward(&x))
        });
        self.neck.forward(&x).to_kind(Kind::Float)
    }
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
        let hidden = gelu(&self.widen.pointwise(x));
        let hidden = gelu(&self.depthwise.depthwise(&hidden, 1));
        gelu(&(self.narrow.pointwise(&hidden) + x))
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
    /// The one after that stage, if another follows.
    fn take_after(encoder: &mut Scope<'_>, stage: usize) -> Option<Self> {
        let [inputs, outputs] = *WIDTHS[stage..].first_chunk()?;
        let mut scope = encoder.at(format_args!("layers.{stage}.downsample"));
        Some(Self {
            widen: ConvBn::take(scope.at("conv1"), [outputs, inputs, 1, 1]),
            depthwise: ConvBn::take(scope.at("conv2"), [outputs, 1, 3, 3]),
            mix: ConvBn::take(scope.at("conv3"), [outputs, outputs, 1, 1]),
            // The last change of width keeps the resolution.
            stride: if stage == 2 { 1 } else { 2 },
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = gelu(&self.widen.pointwise(x));
        let x = gelu(&self.depthwise.depthwise(&x, self.stride));
        self.mix.pointwise(&x)
    }
}

/// From the last stage's channels to the embedding's.
struct Neck {
    narrow: Tensor,
    first_norm: LayerNorm,
    conv: Tensor,
    second_norm: LayerNorm,
}

impl Neck {
    fn take(mut scope: Scope<'_>) -> Self {
        Self {
            narrow: scope.take("0.weight", &[EMBEDDING, WIDTHS[3], 1, 1]),
            first_norm: LayerNorm::take(scope.at(1), EMBEDDING, LayerNorm::EPS_2D),
            conv: scope.take("2.weight", &[EMBEDDING, EMBEDDING, 3, 3]),
            second_norm: LayerNorm::take(scope.at(3), EMBEDDING, LayerNorm::EPS_2D),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.first_norm.forward(&x.linear::<Tensor>(&for_input(&self.narrow, x).flatten(1, -1), None));
        let x = channels_first(&x).conv2d::<Tensor>(&for_input(&self.conv, &x), None, 1, 1, 1, 1);
        channels_first(&self.second_norm.forward(&channels_last(&x)))
    }
}
