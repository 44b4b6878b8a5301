//! A CT volume in, a mask in its own geometry out; no ground truth anywhere.

use crate::config::Config;
use crate::loader::Intensity;
use crate::model::Model;
use crate::progress::Ticker;
use anyhow::{Context, Result, bail, ensure};
use slice_store::StoreSettings;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Tensor};

/// Slices that are predicted together.
const BATCH: usize = 4;

/// Predicts one volume and writes its mask; `false` if it was stopped.
pub fn volume(
    model: &Model,
    config: &Config,
    settings: &StoreSettings,
    device: Device,
    input: &Path,
    output: &Path,
    stop: &AtomicBool,
) -> Result<bool> {
    let volume = ct_ingest::read_volume(input, &ct_ingest::ReadOptions::default())?;
    if let Some(folder) = output.parent() {
        // Before the work, so that a place that can't be written is known at once.
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder of '{}'", output.display()))?;
    }
    let (images, plan) = ct_ingest::image_slices(&volume, settings);
    let size = settings.slice_size;
    let count = images.len() / (size * size);
    let intensity = Intensity::new(&config.intensity);
    let mut masks = Vec::with_capacity(images.len());
    let mut ticker = Ticker::new("predicting", count, 0);
    for chunk in images.chunks(BATCH * size * size) {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let slices = Tensor::from_slice(&intensity.slice(chunk))
            .reshape([(chunk.len() / (size * size)) as i64, 1, size as i64, size as i64])
            .to_device(device);
        for slice in model.predictor(config).predict(&slices) {
            masks.extend(slice.mask);
            ticker.tick("");
        }
    }
    drop(ticker);
    let mask = plan.restore_mask(&masks);
    let voxels = mask.iter().filter(|&&m| m != 0).count();
    ct_ingest::write_mask(output, &mask, &volume)?;
    eprintln!("'{}': {voxels} voxels in {count} slices → '{}'", input.display(), output.display());
    Ok(true)
}

/// The volumes of a folder, and where their masks go: under the same names.
pub fn pairs(input: &Path, output: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    if !input.is_dir() {
        ensure!(input.exists(), "--input '{}' does not exist", input.display());
        ensure!(
            is_nifti(output) && !output.is_dir(),
            "--output '{}' must be a file that ends in .nii or .nii.gz, because --input is a file",
            output.display()
        );
        return Ok(vec![(input.into(), output.into())]);
    }
    ensure!(!output.is_file(), "--output '{}' is a file, but --input is a folder: name a folder", output.display());
    ensure!(input != output, "--output is the input's own folder: its volumes would be overwritten");
    let mut files: Vec<PathBuf> = std::fs::read_dir(input)
        .with_context(|| format!("cannot list '{}'", input.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_nifti(path))
        .collect();
    files.sort();
    if files.is_empty() {
        bail!("'{}' holds no .nii or .nii.gz file", input.display());
    }
    Ok(files.into_iter().map(|f| (f.clone(), output.join(f.file_name().unwrap_or_default()))).collect())
}

fn is_nifti(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    [".nii", ".nii.gz"].iter().any(|end| name.ends_with(end))
}
