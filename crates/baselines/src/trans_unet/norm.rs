//! The three normalisations of TransUNet, each with a scale and a shift of every channel.

use stage_api::{Group, Mode, NamedTensor};
use tch::{Device, Kind, Tensor};

use super::{PARAMETERS, STATISTICS};

/// A scale under `NAME.weight` and a shift under `NAME.bias`, `[C]` each.
#[derive(Debug)]
struct Affine {
    name: String,
    scale: Tensor,
    shift: Tensor,
}

impl Affine {
    fn new(name: &str, channels: i64, device: Device) -> Self {
        let options = (Kind::Float, device);
        Self {
            name: name.into(),
            scale: Tensor::ones([channels], options).set_requires_grad(true),
            shift: Tensor::zeros([channels], options).set_requires_grad(true),
        }
    }

    fn tensor(&self, part: &str, group: Group, tensor: &Tensor) -> NamedTensor {
        NamedTensor { name: format!("{}.{part}", self.name), group, tensor: tensor.shallow_clone() }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        vec![self.tensor("weight", PARAMETERS, &self.scale), self.tensor("bias", PARAMETERS, &self.shift)]
    }
}

/// By mean and variance of groups of channels of one slice (Wu & He, 2018).
#[derive(Debug)]
pub(super) struct GroupNorm {
    affine: Affine,
    groups: i64,
    epsilon: f64,
}

impl GroupNorm {
    /// 32 groups, as all but the shortcuts have.
    pub(super) fn new(name: &str, channels: i64, device: Device) -> Self {
        Self { affine: Affine::new(name, channels, device), groups: 32, epsilon: 1e-6 }
    }

    /// One channel a group, as the shortcuts have.
    pub(super) fn of_each_channel(name: &str, channels: i64, device: Device) -> Self {
        Self { groups: channels, epsilon: 1e-5, ..Self::new(name, channels, device) }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let Affine { scale, shift, .. } = &self.affine;
        x.group_norm(self.groups, Some(scale), Some(shift), self.epsilon, true)
    }

    pub(super) fn tensors(&self) -> Vec<NamedTensor> {
        self.affine.tensors()
    }
}

/// By mean and variance of the channels of one token (Ba et al., 2016).
#[derive(Debug)]
pub(super) struct LayerNorm(Affine);

impl LayerNorm {
    pub(super) fn new(name: &str, channels: i64, device: Device) -> Self {
        Self(Affine::new(name, channels, device))
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let Affine { scale, shift, .. } = &self.0;
        x.layer_norm(scale.size(), Some(scale), Some(shift), 1e-6, true)
    }

    pub(super) fn tensors(&self) -> Vec<NamedTensor> {
        self.0.tensors()
    }
}

/// By mean and variance of a channel in the batch, and in inference by running ones (Ioffe & Szegedy, 2015).
#[derive(Debug)]
pub(super) struct BatchNorm {
    affine: Affine,
    mean: Tensor,
    variance: Tensor,
}

impl BatchNorm {
    pub(super) fn new(name: &str, channels: i64, device: Device) -> Self {
        let options = (Kind::Float, device);
        Self {
            affine: Affine::new(name, channels, device),
            mean: Tensor::zeros([channels], options),
            variance: Tensor::ones([channels], options),
        }
    }

    /// `[B, C, h, w]` with more than one place.
    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        // With running statistics in training, libtorch updates them; without, it takes the batch's and keeps none.
        let running = (mode != Mode::TrainUntracked).then_some([&self.mean, &self.variance]);
        let [mean, variance] = running.map_or([None; 2], |running| running.map(Some));
        let Affine { scale, shift, .. } = &self.affine;
        x.batch_norm(Some(scale), Some(shift), mean, variance, mode.is_training(), 0.1, 1e-5, true)
    }

    pub(super) fn tensors(&self) -> Vec<NamedTensor> {
        let mut all = self.affine.tensors();
        all.push(self.affine.tensor("running_mean", STATISTICS, &self.mean));
        all.push(self.affine.tensor("running_var", STATISTICS, &self.variance));
        all
    }
}
