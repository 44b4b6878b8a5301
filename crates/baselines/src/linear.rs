//! A linear layer.

use stage_api::{Group, NamedTensor};
use tch::{Device, Kind, Tensor};

/// Weights `[output, input]` under `NAME.weight`, biases `[output]` under `NAME.bias`.
#[derive(Debug)]
pub(crate) struct Linear {
    name: String,
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Weights and biases of U(±1/√input): PyTorch's start.
    pub(crate) fn new(name: &str, [input, output]: [i64; 2], device: Device) -> Self {
        let bound = 1.0 / (input as f64).sqrt();
        let drawn =
            |shape: &[i64]| Tensor::empty(shape, (Kind::Float, device)).uniform_(-bound, bound).set_requires_grad(true);
        Self { name: name.into(), weight: drawn(&[output, input]), bias: drawn(&[output]) }
    }

    /// Weights of U(±√(6 / (input + output))) (Glorot & Bengio, 2010), biases of N(0, 10⁻¹²).
    pub(crate) fn glorot(name: &str, [input, output]: [i64; 2], device: Device) -> Self {
        let bound = (6.0 / (input + output) as f64).sqrt();
        let options = (Kind::Float, device);
        let weight = Tensor::empty([output, input], options).uniform_(-bound, bound).set_requires_grad(true);
        let bias = (Tensor::randn([output], options) * 1e-6).set_requires_grad(true);
        Self { name: name.into(), weight, bias }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }

    pub(crate) fn tensors(&self, group: Group) -> Vec<NamedTensor> {
        let named = |part: &str, tensor: &Tensor| NamedTensor {
            name: format!("{}.{part}", self.name),
            group,
            tensor: tensor.shallow_clone(),
        };
        vec![named("weight", &self.weight), named("bias", &self.bias)]
    }
}
