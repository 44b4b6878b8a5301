//! The layers that all parts of the model share. Tensors are plain; their state lives in the file of weights.

use stage_api::Group;
use tch::{Device, Kind, Tensor};

use crate::checkpoint::Weights;
use crate::tracing;

/// Where a layer finds its tensors: a dotted path in the state dictionary and the group that they belong to.
pub(crate) struct Scope<'a> {
    weights: &'a mut Weights,
    path: String,
    group: Group,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(weights: &'a mut Weights, path: &str, group: Group) -> Self {
        Self { weights, path: path.to_owned(), group }
    }

    /// The scope of a part: `scope.at("norm1")`, `scope.at(3)`.
    pub(crate) fn at(&mut self, part: impl std::fmt::Display) -> Scope<'_> {
        Scope { path: format!("{}.{part}", self.path), weights: self.weights, group: self.group }
    }

    /// The whole name of a tensor.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    pub(crate) fn take(&mut self, name: &str, shape: &[i64]) -> Tensor {
        self.take_as(name, shape, self.group)
    }

    pub(crate) fn take_as(&mut self, name: &str, shape: &[i64], group: Group) -> Tensor {
        self.weights.take(&self.name(name), shape, group)
    }

    pub(crate) fn add(&mut self, name: &str, tensor: &Tensor, group: Group) -> Tensor {
        self.weights.add(&self.name(name), tensor, group)
    }
}

/// A weight in the precision of what it is applied to; the same tensor where that is its own.
pub(crate) fn for_input(weight: &Tensor, x: &Tensor) -> Tensor {
    if weight.kind() == x.kind() { weight.shallow_clone() } else { weight.to_kind(x.kind()) }
}

/// `x · weightᵀ + bias` over the last dimension, for weights that rest.
///
/// On the CPU as a 1×1 convolution: libtorch gives convolutions to oneDNN, whose kernels use all that the processor has, and
/// matrix products to MKL, which on processors of other makes than its own leaves half of that.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    /// With fewer rows, bringing the weights into oneDNN's order costs more than is won.
    const LEAST_ROWS: i64 = 256;
    let mut size = x.size();
    let inputs = size.pop().expect("a linear map is of vectors");
    let rows: i64 = size.iter().product();
    let suits = x.device() == Device::Cpu && x.kind() == Kind::Float && rows >= LEAST_ROWS && !tracing::is_on();
    if !suits || !tch::utils::has_mkldnn() {
        return x.linear(weight, bias);
    }
    // Any division of the rows into pictures does; with one thread, libtorch wants sixteen for oneDNN.
    let pictures = 1 << rows.trailing_zeros().min(4);
    let pixels = channels_first(&x.reshape([pictures, rows / pictures, 1, inputs]));
    let y = pixels.conv2d(&weight.unsqueeze(-1).unsqueeze(-1), bias, 1, 0, 1, 1);
    size.push(y.size()[1]);
    channels_last(&y).reshape(size)
}

/// `x · weightᵀ + bias` over the last dimension.
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

impl Linear {
    pub(crate) fn take(mut scope: Scope<'_>, inputs: i64, outputs: i64) -> Self {
        Self { weight: scope.take("weight", &[outputs, inputs]), bias: scope.take("bias", &[outputs]) }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&for_input(&self.weight, x), Some(&for_input(&self.bias, x)))
    }
}

/// Normalisation over the last dimension. SAM's `LayerNorm2d` is the same over channels, so it is this on `[B, H, W, C]`.
pub(crate) struct LayerNorm {
    weight: Tensor,
    pub(crate) bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// PyTorch's default epsilon.
    pub(crate) const EPS: f64 = 1e-5;
    /// That of SAM's `LayerNorm2d`.
    pub(crate) const EPS_2D: f64 = 1e-6;

    pub(crate) fn take(mut scope: Scope<'_>, width: i64, eps: f64) -> Self {
        Self { weight: scope.take("weight", &[width]), bias: scope.take("bias", &[width]), eps }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (for_input(&self.weight, x), for_input(&self.bias, x));
        x.layer_norm(bias.size(), Some(&weight), Some(&bias), self.eps, true)
    }
}

/// A convolution with bias.
pub(crate) struct Conv {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

impl Conv {
    /// `shape` as the state dictionary has it; `outputs` are the channels that come out.
    pub(crate) fn take(mut scope: Scope<'_>, shape: [i64; 4], outputs: i64) -> Self {
        Self { weight: scope.take("weight", &shape), bias: scope.take("bias", &[outputs]) }
    }
}

/// `[B, C, H, W]` seen as `[B, H, W, C]`; no copy.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1])
}

/// `[B, H, W, C]` seen as `[B, C, H, W]`; no copy.
pub(crate) fn channels_first(x: &Tensor) -> Tensor {
    x.permute([0, 3, 1, 2])
}

/// The exact GELU (not the tanh approximation).
pub(crate) fn gelu(x: &Tensor) -> Tensor {
    x.gelu("none")
}

/// [`gelu`], in the memory of `x` where no graph would mind.
pub(crate) fn gelu_owned(mut x: Tensor) -> Tensor {
    if x.requires_grad() { gelu(&x) } else { x.gelu_("none") }
}
