//! Hands the tensors of a file to the parts of the model by name, and remembers everything that doesn't fit.

use stage_api::{Group, NamedTensor};
use tch::{Device, Kind, Tensor};

use super::StateFile;
use crate::error::WeightsError;

/// The file while the model is being built from it.
pub(crate) struct Weights {
    file: StateFile,
    device: Device,
    problems: Vec<String>,
    /// The first tensor that could not be read.
    failure: Option<WeightsError>,
    taken: Vec<NamedTensor>,
}

impl Weights {
    pub(crate) fn new(file: StateFile, device: Device) -> Self {
        Self { file, device, problems: Vec::new(), failure: None, taken: Vec::new() }
    }

    /// The tensor of that name as f32 (buffers that count keep their type), which must have that shape.
    ///
    /// Where it is absent or differs, the problem is noted and zeros stand in, so that one pass finds all problems.
    pub(crate) fn take(&mut self, name: &str, shape: &[i64], group: Group) -> Tensor {
        let tensor = match self.file.shapes.remove(name) {
            Some(found) if found == shape => self.read(name, shape),
            found => {
                self.problem(match found {
                    Some(found) => format!("'{name}' has shape {found:?}, expected {shape:?}"),
                    None => format!("'{name}' is missing, expected with shape {shape:?}"),
                });
                stand_in(shape)
            }
        };
        let kind = if tensor.is_floating_point() { Kind::Float } else { tensor.kind() };
        let tensor = tensor.to_kind(kind).to_device(self.device);
        self.add(name, &tensor, group)
    }

    fn read(&mut self, name: &str, shape: &[i64]) -> Tensor {
        // Nothing that is read after the first failure is used.
        if self.failure.is_some() {
            return stand_in(shape);
        }
        self.file.tensor(name).unwrap_or_else(|error| {
            self.failure = Some(error);
            stand_in(shape)
        })
    }

    /// Notes what doesn't fit.
    pub(crate) fn problem(&mut self, what: String) {
        self.problems.push(what);
    }

    /// A tensor of ours that no pretrained file has (LoRA, the CAM prompt's vector), listed with the others.
    pub(crate) fn add(&mut self, name: &str, tensor: &Tensor, group: Group) -> Tensor {
        let tensor = tensor.to_device(self.device);
        if group.is_trainable() {
            let _ = tensor.set_requires_grad(true);
        }
        self.taken.push(NamedTensor { name: name.to_owned(), group, tensor: tensor.shallow_clone() });
        tensor
    }

    /// Everything that was taken or added, in that order; an error that lists all misfits if there is any.
    pub(crate) fn finish(mut self) -> Result<Vec<NamedTensor>, WeightsError> {
        self.problems.extend(self.file.shapes.iter().map(|(name, shape)| superfluous(name, shape)));
        if !self.problems.is_empty() {
            let read = self.file.place.to_string();
            return Err(WeightsError::Mismatch { path: self.file.path, read, problems: self.problems });
        }
        self.failure.map_or(Ok(self.taken), Err)
    }
}

fn superfluous(name: &str, shape: &[i64]) -> String {
    let hint = match name {
        "pixel_mean" | "pixel_std" => {
            ": SAM's code has it outside the state dictionary, and here it follows from the family; save the file without it"
        }
        _ => "",
    };
    format!("'{name}' of shape {shape:?} belongs to no part of the model{hint}")
}

/// Zeros that take no memory.
fn stand_in(shape: &[i64]) -> Tensor {
    Tensor::zeros([1_i64; 0], (Kind::Float, Device::Cpu)).expand(shape, false)
}
