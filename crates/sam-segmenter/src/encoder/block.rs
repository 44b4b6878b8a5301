//! A TinyViT block: attention in windows, a depthwise convolution, a two-layer perceptron.

use rand_chacha::ChaCha8Rng;
use stage_api::Adapters;
use tch::Tensor;

use super::conv::ConvBn;
use super::lora::Lora;
use crate::layers::{LayerNorm, Linear, Scope, for_input, gelu};
use crate::settings::SegmenterSettings;

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
    mlp_in: Linear,
    mlp_out: Linear,
}

impl Block {
    pub(super) fn take(
        mut scope: Scope<'_>,
        shape: BlockShape,
        settings: &SegmenterSettings,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let width = shape.width;
        Self {
            attention: WindowAttention::take(scope.at("attn"), shape, settings, rng),
            mlp_norm: LayerNorm::take(scope.at("mlp.norm"), width, LayerNorm::EPS),
            mlp_in: Linear::take(scope.at("mlp.fc1"), width, 4 * width),
            mlp_out: Linear::take(scope.at("mlp.fc2"), 4 * width, width),
            local_conv: ConvBn::take(scope.at("local_conv"), [width, 1, 3, 3]),
        }
    }

    /// The attention's qkv weight with the adapters added.
    pub(super) fn adapted_weight(&self) -> Tensor {
        self.attention.qkv_weight(Adapters::On)
    }

    /// `[B, H, W, C]` to the same.
    pub(super) fn forward(&self, x: &Tensor, adapters: Adapters) -> Tensor {
        let x = x + self.attention.forward(x, adapters);
        let x = self.local_conv.depthwise(&x, 1);
        let hidden = gelu(&self.mlp_in.forward(&self.mlp_norm.forward(&x)));
        x + self.mlp_out.forward(&hidden)
    }
}

/// Multi-head attention among the pixels of each window, with a learned bias for each distance between two of them.
struct WindowAttention {
    shape: BlockShape,
    norm: LayerNorm,
    qkv: Linear,
    lora: Option<Lora>,
    proj: Linear,
    /// `[heads, window²]`, by (|Δrow|, |Δcolumn|) in row-major order.
    biases: Tensor,
    /// `[window⁴]`: which of them each pair of pixels has.
    bias_of_pair: Tensor,
}

impl WindowAttention {
    fn take(mut scope: Scope<'_>, shape: BlockShape, settings: &SegmenterSettings, rng: &mut ChaCha8Rng) -> Self {
        let BlockShape { width, heads, window } = shape;
        let biases = scope.take("attention_biases", &[heads, window * window]);
        let norm = LayerNorm::take(scope.at("norm"), width, LayerNorm::EPS);
        let qkv = Linear::take(scope.at("qkv"), width, 3 * width);
        let proj = Linear::take(scope.at("proj"), width, width);
        let lora = (settings.lora_rank > 0)
            .then(|| Lora::new(&mut scope.at("qkv"), width, settings.lora_rank, settings.lora_init, rng));
        let bias_of_pair = Tensor::from_slice(&bias_of_pair(window)).to_device(biases.device());
        Self { shape, norm, qkv, lora, proj, biases, bias_of_pair }
    }

    fn forward(&self, x: &Tensor, adapters: Adapters) -> Tensor {
        let BlockShape { width, heads, window } = self.shape;
        let (_, height, columns, _) = x.size4().expect("the encoder's tensors are [B, H, W, C]");
        // Zeros that pad the last windows become the normalisation's bias, and so take part as keys and values.
        let x = x.constant_pad_nd([0, 0, 0, padding(columns, window), 0, padding(height, window)]);
        let (_, padded_height, padded_columns, _) = x.size4().expect("the encoder's tensors are [B, H, W, C]");
        let (rows, cols) = (padded_height / window, padded_columns / window);
        let pixels = window * window;

        let windows = swap_inner(&x, [rows, window, cols, window]).reshape([-1, pixels, width]);
        let qkv = Linear { weight: self.qkv_weight(adapters), bias: self.qkv.bias.shallow_clone() };
        let qkv = qkv.forward(&self.norm.forward(&windows));
        let [q, k, v] = split_heads(&qkv, heads);
        let bias = for_input(&self.biases, &x).index_select(1, &self.bias_of_pair).view([1, heads, pixels, pixels]);
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, Some(&bias), 0.0, false, None, false).transpose(1, 2);

        let y = swap_inner(&y.reshape([-1, 1, 1, width]), [rows, cols, window, window]);
        let y = y.reshape([-1, padded_height, padded_columns, width]).narrow(1, 0, height).narrow(2, 0, columns);
        self.proj.forward(&y)
    }

    fn qkv_weight(&self, adapters: Adapters) -> Tensor {
        match (&self.lora, adapters) {
            (Some(lora), Adapters::On) => lora.adapt(&self.qkv.weight, self.shape.heads),
            _ => self.qkv.weight.shallow_clone(),
        }
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

/// `[N, P, heads · 3 · d]`, interleaved, to q, k and v `[N, heads, P, d]`; no copy.
fn split_heads(qkv: &Tensor, heads: i64) -> [Tensor; 3] {
    let (windows, pixels, _) = qkv.size3().expect("made as [N, P, 3C]");
    let mut parts = qkv.view([windows, pixels, heads, 3, -1]).unbind(3).into_iter().map(|t| t.transpose(1, 2));
    std::array::from_fn(|_| parts.next().expect("three parts were asked for"))
}

/// For each pair of a window's pixels (both row-major) the number of their distance, |Δrow| · window + |Δcolumn|.
fn bias_of_pair(window: i64) -> Vec<i64> {
    let pixels = || (0..window * window).map(|i| (i / window, i % window));
    pixels().flat_map(|p| pixels().map(move |q| (p.0 - q.0).abs() * window + (p.1 - q.1).abs())).collect()
}
