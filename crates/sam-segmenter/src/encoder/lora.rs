//! Low-rank adapters (Hu et al., 2021) on linear maps whose own weights rest.
//!
//! In training an adapter is a detour beside its map, `s · B · (A · x)`: adding `B · A` to the weights first would make
//! libtorch compute the gradient of the whole weight, a product as large as the map itself. In evaluation it is added.

use crate::groups::LORA;
use std::cell::RefCell;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stage_api::{Adapters, Mode};
use tch::Tensor;

use crate::layers::{Scope, for_input, linear};
use crate::lora_target::LoraTarget;
use crate::settings::{LoraInit, SegmenterSettings};

/// How an encoder's forward pass goes.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) adapters: Adapters,
    pub(crate) mode: Mode,
}

impl Pass {
    /// Whether adapters take part as they do in training: as a detour, with dropout.
    pub(crate) fn trains_adapters(self) -> bool {
        self.adapters == Adapters::On && self.mode.is_training()
    }
}

/// Makes the adapters of an encoder, all from one stream of random numbers.
pub(super) struct LoraFactory<'a> {
    settings: &'a SegmenterSettings,
    rng: ChaCha8Rng,
}

impl<'a> LoraFactory<'a> {
    pub(super) fn new(settings: &'a SegmenterSettings) -> Self {
        Self { settings, rng: ChaCha8Rng::seed_from_u64(settings.seed) }
    }

    pub(super) fn settings(&self) -> &SegmenterSettings {
        self.settings
    }

    /// The adapter of a map of `inputs` to `outputs` channels, if that target has one; `suffix` ends its tensors' names.
    fn adapter(
        &mut self,
        scope: &mut Scope<'_>,
        target: LoraTarget,
        [inputs, outputs]: [i64; 2],
        suffix: &str,
    ) -> Option<LowRank> {
        let settings = self.settings;
        if settings.lora_rank == 0 || !settings.lora_targets.contains(&target) {
            return None;
        }
        let rank = settings.lora_rank as i64;
        let a = random_a(rank * inputs, settings.lora_init, inputs as f32, &mut self.rng).view([rank, inputs]);
        let b = Tensor::zeros([outputs, rank], (tch::Kind::Float, tch::Device::Cpu));
        Some(LowRank {
            a: scope.add(&format!("lora_a{suffix}"), &a, LORA),
            b: scope.add(&format!("lora_b{suffix}"), &b, LORA),
            scale: settings.lora_alpha.map_or(1.0, |alpha| alpha / rank as f64),
            dropout: settings.lora_dropout,
        })
    }
}

/// `ΔW = s · B · A`, without bias; `B = 0` at first, so that it changes nothing.
struct LowRank {
    /// `[rank, inputs]`.
    a: Tensor,
    /// `[outputs, rank]`.
    b: Tensor,
    /// `α / rank`, or 1.
    scale: f64,
    dropout: f64,
}

impl LowRank {
    fn delta(&self) -> Tensor {
        scaled(self.b.matmul(&self.a), self.scale)
    }

    /// `y` with the detour's result, in place.
    fn add_to(&self, y: &Tensor, x: &Tensor) -> Tensor {
        y.flatten(0, -2).addmm_(&self.inner(x).flatten(0, -2), &for_input(&self.b, x).tr()).view_as(y)
    }

    /// The detour's result alone.
    fn detour(&self, x: &Tensor) -> Tensor {
        self.inner(x).linear::<Tensor>(&for_input(&self.b, x), None)
    }

    /// Whether a gradient of one of its factors is wanted: single ones can be frozen.
    fn is_trained(&self) -> bool {
        self.a.requires_grad() || self.b.requires_grad()
    }

    /// `[…, rank]`. With dropout, draws random numbers.
    fn inner(&self, x: &Tensor) -> Tensor {
        let x = if self.dropout > 0.0 { x.dropout(self.dropout, true) } else { x.shallow_clone() };
        scaled(x.linear::<Tensor>(&for_input(&self.a, &x), None), self.scale)
    }
}

fn scaled(x: Tensor, scale: f64) -> Tensor {
    if scale == 1.0 { x } else { x * scale }
}

/// A linear map that may have an adapter.
pub(super) struct AdaptedLinear {
    name: String,
    weight: Tensor,
    bias: Tensor,
    adapter: Option<LowRank>,
}

impl AdaptedLinear {
    pub(super) fn take(
        mut scope: Scope<'_>,
        [inputs, outputs]: [i64; 2],
        target: LoraTarget,
        lora: &mut LoraFactory<'_>,
    ) -> Self {
        let (weight, bias) = (scope.take("weight", &[outputs, inputs]), scope.take("bias", &[outputs]));
        let adapter = lora.adapter(&mut scope, target, [inputs, outputs], "");
        Self { name: scope.name("weight"), weight, bias, adapter }
    }

    pub(super) fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        apply(x, &self.weight, &self.bias, self.adapter.as_ref(), pass)
    }

    /// Whether it has an adapter that isn't frozen.
    pub(super) fn is_trained(&self) -> bool {
        self.adapter.as_ref().is_some_and(LowRank::is_trained)
    }

    /// Its weight with the adapter added, under its name; `None` without adapter.
    pub(super) fn merged(&self) -> Option<(String, Tensor)> {
        self.adapter.as_ref().map(|adapter| (self.name.clone(), &self.weight + adapter.delta()))
    }
}

/// `x · Wᵀ + b`, with the adapter as the pass has it.
fn apply(x: &Tensor, weight: &Tensor, bias: &Tensor, adapter: Option<&LowRank>, pass: Pass) -> Tensor {
    let bias = for_input(bias, x);
    let plain = |weight: &Tensor| linear(x, &for_input(weight, x), Some(&bias));
    match adapter {
        Some(adapter) if pass.trains_adapters() => adapter.add_to(&plain(weight), x),
        Some(adapter) if pass.adapters == Adapters::On => plain(&(weight + adapter.delta())),
        _ => plain(weight),
    }
}

/// How the rows of a fused map to q, k and v lie.
#[derive(Clone, Copy)]
pub(super) enum QkvRows {
    /// All of q, all of k, all of v.
    Thirds,
    /// q, k and v of the first of so many heads, then of the next.
    PerHead(i64),
}

/// The map to queries, keys and values, with an adapter for each of them.
pub(super) struct Qkv {
    name: String,
    weight: Tensor,
    bias: Tensor,
    rows: QkvRows,
    adapters: [Option<LowRank>; 3],
    regrouped: RefCell<Option<Regrouped>>,
}

/// The weights and biases of q, k and v, from the fused ones of these versions: libtorch counts the changes of a tensor, so
/// that whoever writes to the named one is heard.
struct Regrouped {
    versions: [i64; 2],
    parts: [[Tensor; 2]; 3],
}

impl Qkv {
    pub(super) fn take(mut scope: Scope<'_>, width: i64, rows: QkvRows, lora: &mut LoraFactory<'_>) -> Self {
        let (weight, bias) = (scope.take("weight", &[3 * width, width]), scope.take("bias", &[3 * width]));
        let targets = [(LoraTarget::Q, "_q"), (LoraTarget::K, "_k"), (LoraTarget::V, "_v")];
        let adapters = targets.map(|(target, suffix)| lora.adapter(&mut scope, target, [width, width], suffix));
        Self { name: scope.name("weight"), weight, bias, rows, adapters, regrouped: RefCell::new(None) }
    }

    /// `[…, C]` to q, k and v, each `[…, C]` with its heads side by side.
    pub(super) fn forward(&self, x: &Tensor, pass: Pass) -> [Tensor; 3] {
        let parts = self.weights_and_biases();
        std::array::from_fn(|i| apply(x, &parts[i][0], &parts[i][1], self.adapters[i].as_ref(), pass))
    }

    /// Those of q, k and v. Regrouping the rows of a fused weight copies it, so the result is kept while it holds.
    fn weights_and_biases(&self) -> [[Tensor; 2]; 3] {
        let pairs = || {
            let [weights, biases] = [&self.weight, &self.bias].map(|fused| self.parts(fused));
            std::array::from_fn(|i| [weights[i].shallow_clone(), biases[i].shallow_clone()])
        };
        // Where they are trained they hang on the graph of this pass.
        if self.weight.requires_grad() {
            return pairs();
        }
        let versions = [self.weight.internal_version(), self.bias.internal_version()];
        let mut kept = self.regrouped.borrow_mut();
        if kept.as_ref().is_none_or(|kept| kept.versions != versions) {
            *kept = Some(Regrouped { versions, parts: pairs() });
        }
        let parts =
            kept.as_ref().map(|kept| kept.parts.each_ref().map(|pair| pair.each_ref().map(Tensor::shallow_clone)));
        parts.expect("it was just put there")
    }

    /// Which of q, k and v have an adapter that isn't frozen.
    pub(super) fn trained(&self) -> [bool; 3] {
        self.adapters.each_ref().map(|adapter| adapter.as_ref().is_some_and(LowRank::is_trained))
    }

    /// What it makes of zeros: queries, keys and values, `[C]` each.
    pub(super) fn biases(&self) -> [Tensor; 3] {
        self.parts(&self.bias)
    }

    /// The weight with the adapters added, under its name; `None` without adapters.
    pub(super) fn merged(&self) -> Option<(String, Tensor)> {
        if self.adapters.iter().all(Option::is_none) {
            return None;
        }
        let parts = self.parts(&self.weight);
        let parts: Vec<Tensor> = parts
            .iter()
            .zip(&self.adapters)
            .map(|(part, adapter)| adapter.as_ref().map_or_else(|| part.shallow_clone(), |a| part + a.delta()))
            .collect();
        let merged = match self.rows {
            QkvRows::Thirds => Tensor::cat(&parts, 0),
            QkvRows::PerHead(heads) => {
                let split: Vec<Tensor> = parts.iter().map(|p| p.view([heads, -1, p.size()[1]])).collect();
                Tensor::stack(&split, 1).view_as(&self.weight)
            }
        };
        Some((self.name.clone(), merged))
    }

    /// The rows of q, k and v of a weight or bias, with those of a head side by side.
    fn parts(&self, all: &Tensor) -> [Tensor; 3] {
        let third = all.size()[0] / 3;
        std::array::from_fn(|i| match self.rows {
            QkvRows::Thirds => all.narrow(0, i as i64 * third, third),
            QkvRows::PerHead(heads) => all.unflatten(0, [heads, 3, -1]).select(1, i as i64).flatten(0, 1),
        })
    }
}

fn random_a(count: i64, init: LoraInit, fan_in: f32, rng: &mut ChaCha8Rng) -> Tensor {
    let uniform = |rng: &mut ChaCha8Rng| rng.random_range(f32::EPSILON..1.0);
    let values: Vec<f32> = (0..count)
        .map(|_| match init {
            LoraInit::Kaiming => (2.0 * uniform(rng) - 1.0) / fan_in.sqrt(),
            // Box–Muller.
            LoraInit::Gaussian => {
                0.01 * (-2.0 * uniform(rng).ln()).sqrt() * (std::f32::consts::TAU * uniform(rng)).cos()
            }
        })
        .collect();
    Tensor::from_slice(&values)
}

mod backward;

#[cfg(test)]
mod tests;
