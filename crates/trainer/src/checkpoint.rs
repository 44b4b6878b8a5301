//! Saving checkpoints; [`run_record::checkpoint`] says what they are.

use anyhow::{Context, Result};
use run_record::{Progress, checkpoint};
use std::path::Path;
use tch::Tensor;

/// Writes a checkpoint of these files, each with its tensors by name.
pub fn save(run: &Path, files: &[(&str, Vec<(String, Tensor)>)], progress: &Progress, is_best: bool) -> Result<()> {
    let fill = |folder: &Path| files.iter().try_for_each(|(file, tensors)| save_tensors(&folder.join(file), tensors));
    checkpoint::write(run, progress, is_best, fill).with_context(|| {
        let (run, step) = (run.display(), progress.steps);
        format!("cannot save the checkpoint of '{run}' after step {step}; the one before it is unharmed")
    })
}

fn save_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let host: Vec<(&str, Tensor)> =
        tensors.iter().map(|(n, t)| (n.as_str(), t.detach().to_device(tch::Device::Cpu).contiguous())).collect();
    Tensor::write_safetensors(&host, path)?;
    std::fs::File::open(path)?.sync_all()?;
    Ok(())
}
