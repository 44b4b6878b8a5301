//! Tensors of a run's checkpoints.

use anyhow::{Context, Result, bail};
use stage_api::NamedTensor;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Tensor, no_grad};

/// Puts a file's tensors into those of the same names.
pub fn load_weights(path: &Path, targets: &[NamedTensor]) -> Result<()> {
    let mut file: BTreeMap<String, Tensor> = read_tensors(path)?.into_iter().collect();
    for NamedTensor { name, tensor, .. } in targets {
        let Some(value) = file.remove(name) else { bail!("'{}' has no tensor `{name}`", path.display()) };
        if value.size() != tensor.size() {
            bail!("'{}': `{name}` has shape {:?}, expected {:?}", path.display(), value.size(), tensor.size());
        }
        no_grad(|| tensor.shallow_clone().copy_(&value));
    }
    if let Some(name) = file.keys().next() {
        bail!("'{}' has tensor `{name}`, which the configured model does not have", path.display());
    }
    Ok(())
}

/// The tensors of a safetensors file by name.
pub fn read_tensors(path: &Path) -> Result<Vec<(String, Tensor)>> {
    if !path.is_file() {
        bail!("'{}' is missing", path.display());
    }
    Tensor::read_safetensors(path)
        .with_context(|| format!("'{}' can't be read as safetensors; it may be cut short", path.display()))
}
