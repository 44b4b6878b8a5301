//! A TinyViT block: attention in windows, a depthwise convolution, a two-layer perceptron.

use tch::Tensor;

use super::super::lora::{AdaptedLinear, LoraFactory, Pass, Qkv, QkvRows};
use super::conv::ConvBn;
use crate::layers::{LayerNorm, Scope, for_input, gelu_owned};
use crate::lora_target::LoraTarget;

/// Tokens that go through the perceptron at once.
const TOKENS: i64 = 2048;

/// Dimensions of the blocks of one stage.
#[derive(Clone, Copy)]
pub(super) struct BlockShape {
    pub(super) width: i64,
    pub(super) heads: i64,
    pub(super) window: i64,
}

pub(super) struct Block {
    attention: WindowAttention,
    local_conv: ConvBn,
    mlp_norm: LayerNorm,
    mlp_in: AdaptedLinear,
    mlp_out: AdaptedLinear,
}

impl Block {
    pub(super) fn take(mut scope: Scope<'_>, shape: BlockShape, lora: &mut LoraFactory<'_>) -> Self {
        let width = shape.width;
        Self {
            attention: WindowAttention::take(scope.at("attn"), shape, lora),
            mlp_norm: LayerNorm::take(scope.at("mlp.norm"), width, LayerNorm::EPS),
            mlp_in: AdaptedLinear::take(scope.at("mlp.fc1"), [width, 4 * width], LoraTarget::Mlp, lora),
            mlp_out: AdaptedLinear::take(scope.at("mlp.fc2"), [4 * width, width], LoraTarget::Mlp, lora),
            local_conv: ConvBn::take(scope.at("local_conv"), [width, 1, 3, 3]),
        }
    }

    /// The weights that have adapters, with the adapters added.
    pub(super) fn merged(&self) -> impl Iterator<Item = (String, Tensor)> {
        let attention = [self.attention.qkv.merged(), self.attention.proj.merged()];
        attention.into_iter().chain([self.mlp_in.merged(), self.mlp_out.merged()]).flatten()
    }

    /// `[B, H, W, C]` to the same.
    pub(super) fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let x = x + self.attention.forward(x, pass);
        let x = self.local_conv.folded(&x).depthwise(&x, 1, [1, 1]);
        // The hidden tensors of a picture would be four times as large as its others: by parts they stay in the cache.
        let parts: Vec<Tensor> = x.flatten(0, 2).split(TOKENS, 0).iter().map(|part| self.think(part, pass)).collect();
        if let [whole] = parts.as_slice() { whole.view_as(&x) } else { Tensor::cat(&parts, 0).view_as(&x) }
    }

    /// The perceptron's part of the block, on tokens `[N, C]`.
    fn think(&self, x: &Tensor, pass: Pass) -> Tensor {
        let hidden = gelu_owned(self.mlp_in.forward(&self.mlp_norm.forward(x), pass));
        self.mlp_out.forward(&hidden, pass).g_add_(x)
    }
}

/// Multi-head attention among the pixels of each window, with a learned bias for each distance between two of them.
struct WindowAttention {
    shape: BlockShape,
    norm: LayerNorm,
    qkv: Qkv,
    proj: AdaptedLinear,
    /// `[heads, window²]`, by (|Δrow|, |Δcolumn|) in row-major order.
    biases: Tensor,
    /// `[window⁴]`: which of them each pair of pixels has.
    bias_of_pair: Tensor,
}

impl WindowAttention {
    fn take(mut scope: Scope<'_>, shape: BlockShape, lora: &mut LoraFactory<'_>) -> Self {
        let BlockShape { width, heads, window } = shape;
        let biases = scope.take("attention_biases", &[heads, window * window]);
        let norm = LayerNorm::take(scope.at("norm"), width, LayerNorm::EPS);
        let qkv = Qkv::take(scope.at("qkv"), width, QkvRows::PerHead(heads), lora);
        let proj = AdaptedLinear::take(scope.at("proj"), [width, width], LoraTarget::Proj, lora);
        let bias_of_pair = Tensor::from_slice(&bias_of_pair(window)).to_device(biases.device());
        Self { shape, norm, qkv, proj, biases, bias_of_pair }
    }

    fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let BlockShape { width, heads, window } = self.shape;
        let (_, height, columns, _) = x.size4().expect("the encoder's tensors are [B, H, W, C]");
        // Zeros that pad the last windows become the normalisation's bias, and so take part as keys and values.
        let x = x.constant_pad_nd([0, 0, 0, padding(columns, window), 0, padding(height, window)]);
        let (_, padded_height, padded_columns, _) = x.size4().expect("the encoder's tensors are [B, H, W, C]");
        let (rows, cols) = (padded_height / window, padded_columns / window);
        let pixels = window * window;

        let windows = swap_inner(&x, [rows, window, cols, window]).reshape([-1, pixels, width]);
        let heads_apart = |x: Tensor| x.unflatten(-1, [heads, -1]).transpose(1, 2);
        let [q, k, v] = self.qkv.forward(&self.norm.forward(&windows), pass).map(heads_apart);
        let bias = for_input(&self.biases, &x).index_select(1, &self.bias_of_pair).view([1, heads, pixels, pixels]);
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, Some(&bias), 0.0, false, None, false).transpose(1, 2);

        let y = swap_inner(&y.reshape([-1, 1, 1, width]), [rows, cols, window, window]);
        let y = y.reshape([-1, padded_height, padded_columns, width]).narrow(1, 0, height).narrow(2, 0, columns);
        self.proj.forward(&y, pass)
    }
}

/// How many pixels are missing until whole windows fill `size`.
fn padding(size: i64, window: i64) -> i64 {
    (window - size % window) % window
}

/// Reads the pixels of `[…, C]` as a grid of those four sizes and exchanges its two middle dimensions: from rows of an
/// image to rows of its windows, and back.
fn swap_inner(x: &Tensor, [a, b, c, d]: [i64; 4]) -> Tensor {
    let width = x.size()[3];
    x.reshape([-1, a, b, c, d, width].as_slice()).transpose(2, 3)
}

/// For each pair of a window's pixels (both row-major) the number of their distance, |Δrow| · window + |Δcolumn|.
fn bias_of_pair(window: i64) -> Vec<i64> {
    let pixels = || (0..window * window).map(|i| (i / window, i % window));
    pixels().flat_map(|p| pixels().map(move |q| (p.0 - q.0).abs() * window + (p.1 - q.1).abs())).collect()
}
