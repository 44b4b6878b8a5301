//! Convolutions with batch normalisation, on `[B, H, W, C]`.
//!
//! Invariant: the running statistics are always used and never updated, in training too. So each pair is one affine
//! map; its weights are folded anew in every forward pass (they are tiny), which keeps the named tensors the truth.

use crate::groups::BUFFER;
use tch::Tensor;

use crate::layers::{Scope, channels_first, channels_last, for_input, linear};

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
            mean: scope.take_as("bn.running_mean", &width, BUFFER),
            variance: scope.take_as("bn.running_var", &width, BUFFER),
        };
        let _ = scope.take_as("bn.num_batches_tracked", &[], BUFFER);
        this
    }

    /// As one affine map, for what has the precision of `x` and as many channels, but that one stands for three equal ones.
    pub(super) fn folded(&self, x: &Tensor) -> Affine {
        let factor = &self.scale * (&self.variance + EPS).rsqrt();
        let weight = for_input(&(&self.weight * factor.view([-1, 1, 1, 1])), x);
        let grey = x.size()[3] == 1 && weight.size()[1] == 3;
        Affine {
            weight: if grey { weight.sum_dim_intlist(1, true, None) } else { weight },
            bias: for_input(&(&self.shift - &self.mean * factor), x),
        }
    }
}

/// A convolution with bias.
pub(super) struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    #[cfg(test)]
    pub(super) fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias }
    }

    /// A 1×1 convolution: a linear map of each pixel's channels.
    pub(super) fn pointwise(&self, x: &Tensor) -> Tensor {
        linear(x, &self.weight.flatten(1, -1), Some(&self.bias))
    }

    /// A 3×3 convolution of stride 2, padded with zeros.
    pub(super) fn strided(&self, x: &Tensor) -> Tensor {
        self.convolved(x, 2, [1, 1], 1)
    }

    /// A 3×3 convolution of each channel by itself, padded with so many rows and columns of zeros.
    pub(super) fn depthwise(&self, x: &Tensor, stride: i64, padding: [i64; 2]) -> Tensor {
        self.convolved(x, stride, padding, self.weight.size()[0])
    }

    fn convolved(&self, x: &Tensor, stride: i64, padding: [i64; 2], groups: i64) -> Tensor {
        channels_last(&channels_first(x).conv2d(&self.weight, Some(&self.bias), stride, padding, 1, groups))
    }
}
