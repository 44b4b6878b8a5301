//! A block: attention, then a two-layer perceptron, each added to its input.
//!
//! It is cut into steps, because its backward pass on the CPU starts from some of their results.

use tch::{Kind, Tensor};

use super::super::lora::{AdaptedLinear, LoraFactory, Pass, Qkv, QkvRows};
use super::attention::{self, Grids, blocked, fused};
use super::positions::resized_table;
use super::windows::{Windows, size};
use crate::architecture::VitArchitecture;
use crate::layers::{LayerNorm, Scope, gelu_owned};
use crate::lora_target::LoraTarget;
use crate::settings::EncoderPart;

pub(super) struct Block {
    pub(super) first_norm: LayerNorm,
    pub(super) qkv: Qkv,
    pub(super) proj: AdaptedLinear,
    /// `[2 · side − 1, d]` for rows and for columns.
    relative: [Tensor; 2],
    pub(super) windows: Windows,
    pub(super) second_norm: LayerNorm,
    pub(super) mlp_in: AdaptedLinear,
    pub(super) mlp_out: AdaptedLinear,
    has_dropout: bool,
    /// Whether its own weights are trained.
    is_whole: bool,
    /// In which numbers the maps and attention compute; between them are 32-bit floats.
    precision: Kind,
}

impl Block {
    pub(super) fn take(
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
            windows: Windows { side: window, heads },
            second_norm: LayerNorm::take(scope.at("norm2"), width, LayerNorm::EPS_2D),
            mlp_in: AdaptedLinear::take(scope.at("mlp.lin1"), [width, mlp], LoraTarget::Mlp, lora),
            mlp_out: AdaptedLinear::take(scope.at("mlp.lin2"), [mlp, width], LoraTarget::Mlp, lora),
            has_dropout: lora.settings().lora_rank > 0 && lora.settings().lora_dropout > 0.0,
            is_whole: lora.settings().encoder == EncoderPart::Whole,
            precision: lora.settings().precision.kind(),
        }
    }

    /// `[B, H, W, C]` to the same: without graph, or with one that autograd goes back through where attention is fused.
    pub(super) fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let qkv = self.project(x, pass);
        let grids = self.grids(&qkv, x);
        // The blocked kernel records no graph.
        let by_graph = self.is_whole && pass.mode.is_training();
        let attended =
            if self.is_blocked(x) && !by_graph { blocked::forward(&grids).output } else { fused::forward(&grids) };
        drop(qkv);
        let y = self.attend(x, &attended, pass);
        drop(attended);
        let activated = gelu_owned(self.widen(&y, pass));
        self.narrow(&activated, &y, pass)
    }

    /// Which attention is for this block on that device.
    pub(super) fn is_blocked(&self, x: &Tensor) -> bool {
        attention::is_blocked(x.device(), self.precision)
    }

    /// What a map reads: normalised in 32-bit floats, then in the maps' precision.
    fn normed(&self, norm: &LayerNorm, x: &Tensor) -> Tensor {
        norm.forward(x).to_kind(self.precision)
    }

    /// Queries, keys and values, `[G, side², d]` each.
    ///
    /// The official code pads with zeros before this map, so that padding takes part with the map's bias as key and value.
    /// Its queries' results are cut off.
    pub(super) fn project(&self, x: &Tensor, pass: Pass) -> [Tensor; 3] {
        let [_, k_bias, v_bias] = self.qkv.biases();
        let [q, k, v] = self.qkv.forward(&self.normed(&self.first_norm, x), pass);
        [(q, None), (k, Some(&k_bias)), (v, Some(&v_bias))].map(|(x, filling)| self.windows.split(&x, filling))
    }

    pub(super) fn grids<'a>(&self, qkv: &'a [Tensor; 3], x: &Tensor) -> Grids<'a> {
        Grids::new(qkv.each_ref(), &self.relative, self.windows.side_on(size(x)))
    }

    /// The block's input with the result of attention, `[G, side², d]`, added.
    pub(super) fn attend(&self, x: &Tensor, attended: &Tensor, pass: Pass) -> Tensor {
        added(&self.proj.forward(&self.windows.join(attended, size(x)), pass), x)
    }

    /// The perceptron's hidden layer, before its activation.
    pub(super) fn widen(&self, y: &Tensor, pass: Pass) -> Tensor {
        self.mlp_in.forward(&self.normed(&self.second_norm, y), pass)
    }

    /// The perceptron's result, added to its input.
    pub(super) fn narrow(&self, activated: &Tensor, y: &Tensor, pass: Pass) -> Tensor {
        added(&self.mlp_out.forward(activated, pass), y)
    }

    /// Whether that pass records gradients for adapters of this block: it may have none, or all of them may be frozen.
    pub(super) fn trains_adapters(&self, pass: Pass) -> bool {
        let maps = [&self.proj, &self.mlp_in, &self.mlp_out];
        pass.trains_adapters()
            && (self.qkv.trained().contains(&true) || maps.into_iter().any(AdaptedLinear::is_trained))
    }

    /// Whether that pass draws random numbers: for frozen adapters too.
    pub(super) fn drops_out(&self, pass: Pass) -> bool {
        self.has_dropout && pass.trains_adapters()
    }

    /// The weights that have adapters, with the adapters added.
    pub(super) fn merged(&self) -> impl Iterator<Item = (String, Tensor)> {
        [self.qkv.merged(), self.proj.merged(), self.mlp_in.merged(), self.mlp_out.merged()].into_iter().flatten()
    }
}

/// `x + y`, in the memory of `x` where no graph would mind.
fn added(x: &Tensor, y: &Tensor) -> Tensor {
    let mut x = x.to_kind(y.kind());
    if x.requires_grad() || y.requires_grad() {
        return x + y;
    }
    x += y;
    x
}
