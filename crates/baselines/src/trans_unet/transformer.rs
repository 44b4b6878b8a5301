//! TransUNet's transformer (Dosovitskiy et al., 2021): the features of each place are a token.

use stage_api::{Mode, NamedTensor};
use tch::{Device, Kind, Tensor};

use super::norm::LayerNorm;
use super::{PARAMETERS, POSITIONS, TransUnetSettings};
use crate::layers::{Convolution, Kernel};
use crate::linear::Linear;

/// A 1×1 convolution to tokens, their positions, layers, and a last normalisation.
#[derive(Debug)]
pub(super) struct Transformer {
    patches: Convolution,
    /// `[1, g², C]`
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    dropout: f64,
}

impl Transformer {
    pub(super) fn new(settings: &TransUnetSettings, device: Device) -> Self {
        let (width, grid) = (settings.width, settings.grid());
        let patches = "transformer.embeddings.patch_embeddings";
        let patches = Convolution::new(patches, [16 * settings.resnet_width, width], Kernel::same(1), 1.0, device);
        Self {
            patches: patches.drawn_uniformly(),
            positions: Tensor::zeros([1, grid * grid, width], (Kind::Float, device)).set_requires_grad(true),
            layers: (0..settings.layers).map(|number| Layer::new(number, settings, device)).collect(),
            norm: LayerNorm::new("transformer.encoder.encoder_norm", width, device),
            dropout: settings.dropout,
        }
    }

    /// `[B, 16w, g, g]` to `[B, C, g, g]`.
    pub(super) fn forward(&self, features: &Tensor, mode: Mode) -> Tensor {
        let patches = self.patches.forward(features);
        let tokens = patches.flatten(2, -1).transpose(1, 2) + &self.positions;
        let tokens = tokens.dropout(self.dropout, mode.is_training());
        let tokens = self.layers.iter().fold(tokens, |x, layer| layer.forward(&x, mode));
        self.norm.forward(&tokens).transpose(1, 2).reshape(patches.size())
    }

    pub(super) fn tensors(&self) -> Vec<NamedTensor> {
        let positions =
            NamedTensor { name: POSITIONS.into(), group: PARAMETERS, tensor: self.positions.shallow_clone() };
        let mut all = self.patches.tensors(PARAMETERS);
        all.push(positions);
        all.extend(self.layers.iter().flat_map(Layer::tensors));
        all.extend(self.norm.tensors());
        all
    }
}

/// Self-attention and two linear maps, each behind a normalisation and beside a shortcut.
#[derive(Debug)]
struct Layer {
    attention_norm: LayerNorm,
    /// Query, key and value.
    inputs: [Linear; 3],
    output: Linear,
    mlp_norm: LayerNorm,
    mlp: [Linear; 2],
    heads: i64,
    dropout: f64,
}

impl Layer {
    fn new(number: i64, settings: &TransUnetSettings, device: Device) -> Self {
        let (width, mlp) = (settings.width, settings.mlp);
        let name = |part: &str| format!("transformer.encoder.layer.{number}.{part}");
        let attention = |part: &str| Linear::new(&name(&format!("attn.{part}")), [width, width], device);
        Self {
            attention_norm: LayerNorm::new(&name("attention_norm"), width, device),
            inputs: ["query", "key", "value"].map(attention),
            output: attention("out"),
            mlp_norm: LayerNorm::new(&name("ffn_norm"), width, device),
            mlp: [("ffn.fc1", [width, mlp]), ("ffn.fc2", [mlp, width])]
                .map(|(part, sizes)| Linear::glorot(&name(part), sizes, device)),
            heads: settings.heads,
            dropout: settings.dropout,
        }
    }

    /// `[B, N, C]`
    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let normed = self.attention_norm.forward(x);
        let [batch, tokens, width] = normed.size()[..] else { unreachable!("tokens are [B, N, C]") };
        let shape = [batch, tokens, self.heads, width / self.heads];
        let [query, key, value] = self.inputs.each_ref().map(|map| map.forward(&normed).view(shape).transpose(1, 2));
        let attended =
            Tensor::scaled_dot_product_attention::<Tensor>(&query, &key, &value, None, 0.0, false, None, false);
        let x = x + self.output.forward(&attended.transpose(1, 2).reshape([batch, tokens, width]));

        let dropped = |y: Tensor| y.dropout(self.dropout, mode.is_training());
        let inner = dropped(self.mlp[0].forward(&self.mlp_norm.forward(&x)).gelu("none"));
        &x + dropped(self.mlp[1].forward(&inner))
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let mut all = self.attention_norm.tensors();
        all.extend(self.inputs.iter().chain([&self.output]).flat_map(|map| map.tensors(PARAMETERS)));
        all.extend(self.mlp_norm.tensors());
        all.extend(self.mlp.iter().flat_map(|map| map.tensors(PARAMETERS)));
        all
    }
}
