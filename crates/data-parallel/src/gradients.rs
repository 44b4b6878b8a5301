//! Gradients of all ranks as one buffer, so that an update costs one message.

use crate::Ranks;
use tch::{Kind, Tensor, no_grad};

/// A parameter, and whether this rank has a gradient of it.
pub struct Gradient<'a> {
    /// The parameter.
    pub parameter: &'a Tensor,
    /// Whether its gradient is new; one that isn't counts as zero.
    pub is_new: bool,
}

impl Ranks {
    /// Replaces the gradient of each parameter that any rank has one of by the sum over all ranks. Parameters are the same on all
    /// ranks, in the same order.
    ///
    /// # Panics
    /// If libtorch can't compute it, for example for want of memory.
    pub fn sum_gradients(&self, gradients: &[Gradient]) {
        if self.count() == 1 || gradients.is_empty() {
            return;
        }
        let mut parts: Vec<Tensor> = gradients
            .iter()
            .map(|Gradient { parameter, is_new }| {
                let own = if *is_new { parameter.grad() } else { parameter.detach().zeros_like() };
                own.to_kind(Kind::Float).reshape([-1])
            })
            .collect();
        let known: Vec<f32> = gradients.iter().map(|gradient| f32::from(u8::from(gradient.is_new))).collect();
        parts.push(Tensor::from_slice(&known).to_device(parts[0].device()));
        let sums = Tensor::cat(&parts, 0);
        self.sum_tensor(&sums);
        let count = gradients.len() as i64;
        let known =
            Vec::<f32>::try_from(sums.narrow(0, sums.size()[0] - count, count)).expect("numbers of one dimension");
        let mut start = 0;
        for (Gradient { parameter, .. }, known) in gradients.iter().zip(known) {
            let length = parameter.numel() as i64;
            let sum = sums.narrow(0, start, length).view_as(parameter);
            start += length;
            if known == 0.0 {
                continue;
            }
            let mut gradient = parameter.grad();
            if gradient.defined() {
                no_grad(|| gradient.copy_(&sum));
            } else {
                // The binding can't set a gradient; that of this product is `sum`.
                (*parameter * sum).sum(Kind::Float).backward();
            }
        }
    }
}
