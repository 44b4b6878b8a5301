//! Convolutions with batch normalisation, on `[B, H, W, C]`.
//!
//! Invariant: the running statistics are always used and never updated, in training too. So each pair is one affine
//! map; its weights are folded anew in every forward pass (they are tiny), which keeps the named tensors the truth.

use stage_api::Group;
use tch::Tensor;

use crate::layers::{Scope, channels_first, channels_last, for_input};

/// `eps` of PyTorch's `BatchNorm2d`.
const EPS: f64 = 1e-5;

/// A convolution without bias, then batch normalisation.
pub(super) struct ConvBn {
    weight: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl ConvBn {
    /// `shape`: `[outputs, inputs per group, kernel, kernel]`.
    pub(super) fn take(mut scope: Scope<'_>, shape: [i64; 4]) -> Self {
        let width = [shape[0]];
        let this = Self {
            weight: scope.take("c.weight", &shape),
            scale: scope.take("bn.weight", &width),
            shift: scope.take("bn.bias", &width),
            mean: scope.take_as("bn.running_mean", &width, Group::Buffer),
            variance: scope.take_as("bn.running_var", &width, Group::Buffer),
        };
        let _ = scope.take_as("bn.num_batches_tracked", &[], Group::Buffer);
        this
    }

    /// A 1×1 convolution is a linear map of each pixel's channels. One input channel stands for three equal ones.
    pub(super) fn pointwise(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = self.folded(x);
        x.linear(&for_channels(&weight, x).flatten(1, -1), Some(&bias))
    }

    /// A 3×3 convolution of stride 2, padded with zeros. One input channel stands for three equal ones.
    pub(super) fn strided(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = self.folded(x);
        channels_last(&channels_first(x).conv2d(&for_channels(&weight, x), Some(&bias), 2, 1, 1, 1))
    }

    /// A 3×3 convolution of each channel by itself, padded with zeros.
    pub(super) fn depthwise(&self, x: &Tensor, stride: i64) -> Tensor {
        let (weight, bias) = self.folded(x);
        let groups = weight.size()[0];
        channels_last(&channels_first(x).conv2d(&weight, Some(&bias), stride, 1, 1, groups))
    }

    fn folded(&self, x: &Tensor) -> (Tensor, Tensor) {
        let factor = &self.scale * (&self.variance + EPS).rsqrt();
        let (weight, bias) = (&self.weight * factor.view([-1, 1, 1, 1]), &self.shift - &self.mean * factor);
        (for_input(&weight, x), for_input(&bias, x))
    }
}

/// The weight `[outputs, inputs, …]` for as many input channels as `[B, H, W, C]` has: summed where it has one.
fn for_channels(weight: &Tensor, x: &Tensor) -> Tensor {
    if x.size()[3] == weight.size()[1] { weight.shallow_clone() } else { weight.sum_dim_intlist(1, true, None) }
}
