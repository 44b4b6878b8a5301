//! The way of a gradient back through adapted maps whose forward pass recorded no graph.
//!
//! Through the resting weight it is one product, for which autograd would have kept the map's input. The detour is so small
//! that it is computed again, with a graph of its own.

use tch::{TchError, Tensor};

use super::{AdaptedLinear, LowRank, Qkv};
use crate::encoder::push;
use crate::layers::linear;

/// The recorded detour of one adapter.
pub(in super::super) struct Detour {
    /// Its input: a leaf.
    x: Tensor,
    y: Tensor,
}

impl Detour {
    /// Draws dropout's numbers, so that detours have to be taken in the order of the forward pass.
    fn of(adapter: &LowRank, x: &Tensor, wants_input: bool) -> Self {
        let x = x.detach().set_requires_grad(wants_input);
        Self { y: tch::with_grad(|| adapter.detour(&x)), x }
    }

    /// Adds to the gradients of the adapter; gives its input's, which is undefined where it isn't wanted.
    fn back(self, gradient: &Tensor) -> Result<Tensor, TchError> {
        push([(self.y, gradient.shallow_clone())])?;
        Ok(self.x.grad())
    }
}

impl AdaptedLinear {
    /// The adapter's detour, if there is one, for the input `x` of the forward pass.
    pub(in super::super) fn detour(&self, x: impl FnOnce() -> Tensor) -> Option<Detour> {
        self.adapter.as_ref().map(|adapter| Detour::of(adapter, &x(), true))
    }

    /// From the gradient of the result to the input's.
    pub(in super::super) fn back(&self, gradient: &Tensor, detour: Option<Detour>) -> Result<Tensor, TchError> {
        back(gradient, &self.weight, detour)
    }
}

impl Qkv {
    /// The detours of q, k and v, of those that have one.
    pub(in super::super) fn detours(&self, x: &Tensor, wants_input: bool) -> [Option<Detour>; 3] {
        self.adapters.each_ref().map(|adapter| adapter.as_ref().map(|adapter| Detour::of(adapter, x, wants_input)))
    }

    /// From the gradients of q, k and v, which may be absent where there is no detour, to the detours' own.
    pub(in super::super) fn back_to_adapters(
        gradients: &[Option<Tensor>; 3],
        detours: [Option<Detour>; 3],
    ) -> Result<(), TchError> {
        for (detour, gradient) in detours.into_iter().zip(gradients) {
            if let (Some(detour), Some(gradient)) = (detour, gradient) {
                let _input = detour.back(gradient)?;
            }
        }
        Ok(())
    }

    /// The same, and on to the input's gradient.
    pub(in super::super) fn back(
        &self,
        gradients: &[Option<Tensor>; 3],
        detours: [Option<Detour>; 3],
    ) -> Result<Tensor, TchError> {
        let parts = gradients.iter().zip(self.weights_and_biases()).zip(detours);
        let mut parts =
            parts.filter_map(|((gradient, [weight, _]), detour)| Some(back(gradient.as_ref()?, &weight, detour)));
        let first = parts.next().expect("who wants the input's gradient computes those of q, k and v")?;
        parts.try_fold(first, |mut sum, part| {
            sum += part?;
            Ok(sum)
        })
    }
}

fn back(gradient: &Tensor, weight: &Tensor, detour: Option<Detour>) -> Result<Tensor, TchError> {
    let mut x = linear(gradient, &weight.tr(), None);
    if let Some(detour) = detour {
        x += detour.back(gradient)?;
    }
    Ok(x)
}
