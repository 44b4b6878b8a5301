//! SAM's vision transformer: attention in windows, in some blocks among all tokens, with relative positions by axis.
//!
//! Inside, tensors are `[B, H, W, C]`, as in the official code.

use stage_api::Group;
use tch::{Kind, Tensor};

use super::Encoded;
use super::lora::{AdaptedLinear, LoraFactory, Pass, Qkv, QkvRows};
use super::neck::Neck;
use crate::architecture::VitArchitecture;
use crate::checkpoint::Weights;
use crate::layers::{LayerNorm, Scope, channels_first, channels_last, for_input, gelu};
use crate::settings::{LoraTarget, SegmenterSettings};

pub(super) struct Vit {
    patch_weight: Tensor,
    patch_bias: Tensor,
    patch: i64,
    /// `[1, g, g, C]`.
    positions: Tensor,
    blocks: Vec<Block>,
    neck: Neck,
}

impl Vit {
    pub(super) fn take(
        weights: &mut Weights,
        shape: &VitArchitecture,
        grid: i64,
        _settings: &SegmenterSettings,
        lora: &mut LoraFactory<'_>,
    ) -> Self {
        let mut scope = Scope::new(weights, "image_encoder", Group::Encoder);
        let &VitArchitecture { width, depth, patch, .. } = shape;
        Self {
            positions: resized_positions(&scope.take("pos_embed", &[1, shape.grid, shape.grid, width]), grid),
            patch_weight: scope.take("patch_embed.proj.weight", &[width, 3, patch, patch]),
            patch_bias: scope.take("patch_embed.proj.bias", &[width]),
            patch,
            blocks: (0..depth)
                .map(|i| Block::take(scope.at(format_args!("blocks.{i}")), shape, grid, i, lora))
                .collect(),
            neck: Neck::take(scope.at("neck"), width),
        }
    }

    /// Patches and their positions, `[B, g, g, C]`.
    pub(super) fn features(&self, input: &Tensor) -> Tensor {
        let weight = for_input(&self.patch_weight, input);
        let weight = if input.size()[1] == 1 { weight.sum_dim_intlist(1, true, None) } else { weight };
        let patches = input.conv2d(&weight, Some(&for_input(&self.patch_bias, input)), self.patch, 0, 1, 1);
        channels_last(&patches) + for_input(&self.positions, input)
    }

    pub(super) fn forward(&self, features: &Tensor, pass: Pass) -> Encoded {
        let x = self.blocks.iter().fold(features.shallow_clone(), |x, block| block.forward(&x, pass));
        self.neck.forward(&x).to_kind(Kind::Float).into()
    }

    pub(super) fn merged_weights(&self) -> Vec<(String, Tensor)> {
        self.blocks.iter().flat_map(Block::merged).collect()
    }
}

/// `[1, g, g, C]` for another side, as SAMed does it.
fn resized_positions(positions: &Tensor, grid: i64) -> Tensor {
    if positions.size()[1] == grid {
        return positions.shallow_clone();
    }
    channels_last(&channels_first(positions).upsample_bilinear2d([grid, grid], false, None, None)).contiguous()
}

/// Attention, then a two-layer perceptron.
struct Block {
    first_norm: LayerNorm,
    qkv: Qkv,
    proj: AdaptedLinear,
    /// `[2 · side − 1, d]` for rows and for columns.
    relative: [Tensor; 2],
    heads: i64,
    /// Side of the windows; `None`: among all tokens.
    window: Option<i64>,
    second_norm: LayerNorm,
    mlp_in: AdaptedLinear,
    mlp_out: AdaptedLinear,
}

impl Block {
    fn take(
        mut scope: Scope<'_>,
        shape: &VitArchitecture,
        grid: i64,
        number: usize,
        lora: &mut LoraFactory<'_>,
    ) -> Self {
        let &VitArchitecture { width, heads, mlp, .. } = shape;
        let window = (!shape.global_blocks.contains(&number)).then_some(shape.window);
        let rows = 2 * window.unwrap_or(shape.grid) - 1;
        let relative = ["attn.rel_pos_h", "attn.rel_pos_w"].map(|name| {
            let table = scope.take(name, &[rows, width / heads]);
            if window.is_some() { table } else { resized_table(&table, 2 * grid - 1) }
        });
        Self {
            first_norm: LayerNorm::take(scope.at("norm1"), width, LayerNorm::EPS_2D),
            qkv: Qkv::take(scope.at("attn.qkv"), width, QkvRows::Thirds, lora),
            proj: AdaptedLinear::take(scope.at("attn.proj"), [width, width], LoraTarget::Proj, lora),
            relative,
            heads,
            window,
            second_norm: LayerNorm::take(scope.at("norm2"), width, LayerNorm::EPS_2D),
            mlp_in: AdaptedLinear::take(scope.at("mlp.lin1"), [width, mlp], LoraTarget::Mlp, lora),
            mlp_out: AdaptedLinear::take(scope.at("mlp.lin2"), [mlp, width], LoraTarget::Mlp, lora),
        }
    }

    fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let x = x + self.attention(&self.first_norm.forward(x), pass);
        let hidden = gelu(&self.mlp_in.forward(&self.second_norm.forward(&x), pass));
        x + self.mlp_out.forward(&hidden, pass)
    }

    fn attention(&self, x: &Tensor, pass: Pass) -> Tensor {
        let (batch, height, width, channels) = x.size4().expect("the encoder's tensors are [B, H, W, C]");
        let side = self.window.unwrap_or(height);
        let padded = (height + side - 1) / side * side;
        let x = x.constant_pad_nd([0, 0, 0, padded - width, 0, padded - height]);
        let n = padded / side;
        let windows =
            x.view([batch, n, side, n, side, channels].as_slice()).transpose(2, 3).reshape([-1, side * side, channels]);
        let heads = |x: Tensor| x.unflatten(-1, [self.heads, -1]).transpose(1, 2);
        let [q, k, v] = self.qkv.forward(&windows, pass).map(heads);
        let y = plain_attention(&q, &k, &v, &self.relative, side).transpose(1, 2).flatten(2, 3);
        let y = y.reshape([batch, n, n, side, side, channels].as_slice()).transpose(2, 3);
        let y = y.reshape([batch, padded, padded, channels]).narrow(1, 0, height).narrow(2, 0, width);
        self.proj.forward(&y, pass)
    }

    fn merged(&self) -> impl Iterator<Item = (String, Tensor)> {
        [self.qkv.merged(), self.proj.merged(), self.mlp_in.merged(), self.mlp_out.merged()].into_iter().flatten()
    }
}

/// `[rows, d]` for another number of rows, as SAMed does it.
fn resized_table(table: &Tensor, rows: i64) -> Tensor {
    if table.size()[0] == rows {
        return table.shallow_clone();
    }
    let table = table.unsqueeze(0).unsqueeze(0);
    table.upsample_bilinear2d([rows, table.size()[3]], false, None, None).squeeze_dim(0).squeeze_dim(0)
}

/// `[B, heads, side², d]` each. The bias of a pair of tokens is q · R of their distance in rows, plus that of their
/// distance in columns.
fn plain_attention(q: &Tensor, k: &Tensor, v: &Tensor, relative: &[Tensor; 2], side: i64) -> Tensor {
    let (batch, heads, tokens, width) = q.size4().expect("queries are [B, heads, N, d]");
    let [rows, columns] = relative.each_ref().map(|table| {
        let i = Tensor::arange(side, (Kind::Int64, q.device()));
        let distance = (i.unsqueeze(1) - i.unsqueeze(0) + (side - 1)).view(-1);
        for_input(table, q).index_select(0, &distance).view([side, side, width])
    });
    let grid = q.reshape([batch * heads, side, side, width]);
    let by_row = Tensor::einsum("bhwc,hkc->bhwk", &[&grid, &rows], None::<i64>).unsqueeze(-1);
    let by_column = Tensor::einsum("bhwc,wkc->bhwk", &[&grid, &columns], None::<i64>).unsqueeze(-2);
    let scores = q.matmul(&k.transpose(2, 3)) * (width as f64).powf(-0.5);
    let scores = scores + (by_row + by_column).view([batch, heads, tokens, tokens]);
    scores.softmax(-1, None).matmul(v)
}
