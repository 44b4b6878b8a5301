//! Hands the tensors of a state dictionary to the parts of the model by name, and remembers everything that doesn't fit.

use std::path::{Path, PathBuf};

use stage_api::{Group, NamedTensor};
use tch::{Device, Kind, Tensor};

use super::StateDict;
use crate::error::WeightsError;

/// The state dictionary while the model is being built from it.
pub(crate) struct Weights {
    path: PathBuf,
    state: StateDict,
    device: Device,
    problems: Vec<String>,
    taken: Vec<NamedTensor>,
}

impl Weights {
    pub(crate) fn read(path: &Path, device: Device) -> Result<Self, WeightsError> {
        Ok(Self { path: path.to_owned(), state: super::read(path)?, device, problems: Vec::new(), taken: Vec::new() })
    }

    pub(crate) fn state(&self) -> &StateDict {
        &self.state
    }

    /// The tensor of that name as f32 (buffers that count keep their type), which must have that shape.
    ///
    /// Where it is absent or differs, the problem is noted and zeros stand in, so that one pass finds all problems.
    pub(crate) fn take(&mut self, name: &str, shape: &[i64], group: Group) -> Tensor {
        let tensor = match self.state.tensors.remove(name) {
            Some(tensor) if tensor.size() == shape => tensor,
            found => {
                self.problems.push(match found {
                    Some(tensor) => format!("'{name}' has shape {:?}, expected {shape:?}", tensor.size()),
                    None => format!("'{name}' is missing, expected with shape {shape:?}"),
                });
                Tensor::zeros(shape, (Kind::Float, Device::Cpu))
            }
        };
        let kind = if tensor.is_floating_point() { Kind::Float } else { tensor.kind() };
        let tensor = tensor.to_kind(kind).to_device(self.device);
        self.add(name, &tensor, group)
    }

    /// A tensor of ours that no pretrained file has (LoRA, the CAM prompt's vector), listed with the others.
    pub(crate) fn add(&mut self, name: &str, tensor: &Tensor, group: Group) -> Tensor {
        let tensor = tensor.to_device(self.device);
        if matches!(group, Group::Lora | Group::PromptEncoder | Group::Decoder) {
            let _ = tensor.set_requires_grad(true);
        }
        self.taken.push(NamedTensor { name: name.to_owned(), group, tensor: tensor.shallow_clone() });
        tensor
    }

    /// Everything that was taken or added, in that order; an error that lists all misfits if there is any.
    pub(crate) fn finish(mut self) -> Result<Vec<NamedTensor>, WeightsError> {
        let superfluous = self.state.tensors.iter();
        let superfluous =
            superfluous.map(|(name, t)| format!("'{name}' of shape {:?} belongs to no part of the model", t.size()));
        self.problems.extend(superfluous);
        if self.problems.is_empty() {
            Ok(self.taken)
        } else {
            Err(WeightsError::Mismatch { path: self.path, problems: self.problems })
        }
    }
}
