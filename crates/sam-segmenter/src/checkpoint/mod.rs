//! State dictionaries on disk: PyTorch's zip of pickles (read only) and safetensors (read and write).
//!
//! Invariant: reading a file never runs anything that the file asks for, and never allocates more than its size allows.

mod pickle;
mod safetensors;
mod torch_zip;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};
use tch::Tensor;

pub(crate) use self::safetensors::write as write_safetensors;
pub(crate) use self::weights::Weights;
use crate::architecture::Family;
use crate::error::WeightsError;

/// Tensors by their dotted name, on the CPU; floating point values as f32.
#[derive(Debug)]
pub(crate) struct StateDict {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub(crate) sha256: String,
    /// What our own files record of themselves.
    pub(crate) record: Record,
}

/// What a file that was written here says of its model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) family: Option<Family>,
}

impl StateDict {
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.tensors.get(name).map(Tensor::size)
    }

    /// How many parts there are under `prefix` by their numbers: one more than the highest.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        let parts = self.tensors.keys().filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse().ok());
        parts.max().map_or(0, |highest: usize| highest + 1)
    }
}

/// Reads a file of weights; its content, not its name, decides the format.
///
/// The state dictionary may stand alone or under `model` or `state_dict`; a `module.` prefix on every key (from
/// PyTorch's data parallel wrapper) is taken off.
pub(crate) fn read(path: &Path) -> Result<StateDict, WeightsError> {
    let bytes = std::fs::read(path).map_err(WeightsError::io(path))?;
    let (tensors, record) = if bytes.starts_with(b"PK\x03\x04") {
        (torch_zip::read(path, &bytes)?, Record::default())
    } else if safetensors::looks_like(&bytes) {
        safetensors::read(path, &bytes)?
    } else {
        let found = match bytes.first() {
            None => "the file is empty",
            Some(0x80) => "it begins like a bare pickle (PyTorch before 1.6)",
            Some(_) => "its first bytes belong to no known format",
        };
        return Err(WeightsError::UnknownFormat { path: path.to_owned(), found: found.to_owned() });
    };
    let sha256 = hexadecimal(&Sha256::digest(&bytes));
    Ok(StateDict { tensors: without_module_prefix(tensors), sha256, record })
}

fn hexadecimal(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn without_module_prefix(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    if tensors.is_empty() || !tensors.keys().all(|key| key.starts_with("module.")) {
        return tensors;
    }
    tensors.into_iter().map(|(key, tensor)| (key["module.".len()..].to_owned(), tensor)).collect()
}

#[cfg(test)]
mod tests;
