//! A TinyViT block: attention in windows, a depthwise convolution, a two-layer perceptron.

use rand_chacha::ChaCha8Rng;
use stage_api::Adapters;
use tch::Tensor;

use super::conv::ConvBn;
use super::lora::Lora;
use crate::layers::{LayerNorm, Linear, Scope, gelu};
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
        let (batch, height, columns, _) = x.size4().expect("the encoder's tensors are [B, H, W, C]");
        let weight = self.qkv_weight(adapters);
        let qkv = self.norm.forward(x).linear(&weight, Some(&self.qkv.bias));
        // The reference pads with zeros before the normalisation, which makes its bias of them: so the tokens of the
        // padding all have these q, k and v, and take part in the attention with them.
        let of_padding = self.norm.bias.linear(&weight, Some(&self.qkv.bias));
        let qkv = pad_to_windows(&qkv, &of_padding, window);
        let (rows, cols) = (qkv.size()[1] / window, qkv.size()[2] / window);
        let pairs = window * window;
        // [3, windows, heads, pixels of a window, d]
        let qkv = qkv
            .view(&[batch, rows, window, cols, window, heads, 3, width / heads][..])
            .permute([6, 0, 1, 3, 5, 2, 4, 7])
            .reshape([3, -1, heads, pairs, width / heads]);
        let bias = self.biases.index_select(1, &self.bias_of_pair).view([1, heads, pairs, pairs]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let y = Tensor::scaled_dot_product_attention(&q, &k, &v, Some(&bias), 0.0, false, None, false);
        let y = y
            .view(&[batch, rows, cols, heads, window, window, width / heads][..])
            .permute([0, 1, 4, 2, 5, 3, 6])
            .reshape([batch, rows * window, cols * window, width])
            .narrow(1, 0, height)
            .narrow(2, 0, columns);
        self.proj.forward(&y)
    }

    fn qkv_weight(&self, adapters: Adapters) -> Tensor {
        match (&self.lora, adapters) {
            (Some(lora), Adapters::On) => lora.adapt(&self.qkv.weight, self.shape.heads),
            _ => self.qkv.weight.shallow_clone(),
        }
    }
}

/// Repeats `constant` (`[C]`) right of and below `x` (`[B, H, W, C]`) until whole windows fill it.
fn pad_to_windows(x: &Tensor, constant: &Tensor, window: i64) -> Tensor {
    let (batch, height, width, channels) = x.size4().expect("the encoder's tensors are [B, H, W, C]");
    let (below, right) = ((window - height % window) % window, (window - width % window) % window);
    if (below, right) == (0, 0) {
        return x.shallow_clone();
    }
    let x = Tensor::cat(&[x, &constant.expand([batch, height, right, channels], false)], 2);
    Tensor::cat(&[&x, &constant.expand([batch, below, width + right, channels], false)], 1)
}

/// For each pair of a window's pixels (both row-major) the number of their distance, |Δrow| · window + |Δcolumn|.
fn bias_of_pair(window: i64) -> Vec<i64> {
    let pixels = || (0..window * window).map(|i| (i / window, i % window));
    pixels().flat_map(|p| pixels().map(move |q| (p.0 - q.0).abs() * window + (p.1 - q.1).abs())).collect()
}
