//! A CT volume in, a mask in its own geometry out; no ground truth anywhere.

use crate::config::ModelConfig;
use crate::intensity::Intensity;
use crate::model::Model;
use crate::not_a_number::NotANumber;
use crate::progress::Ticker;
use crate::volume::VolumeSlices;
use anyhow::{Context, Result, bail, ensure};
use ct_ingest::ReadOptions;
use slice_store::{Scale, StoreSettings};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tch::{Device, Tensor};
use whole_file::Existing;

/// Predicts one volume and writes its mask; `false` if it was stopped.
pub fn volume(
    model: &Model,
    config: &ModelConfig,
    settings: &StoreSettings,
    device: Device,
    (input, options): (&Path, &ReadOptions),
    output: &Path,
    stop: &AtomicBool,
) -> Result<bool> {
    let volume = ct_ingest::read_volume(input, options)?;
    for warning in volume.doubts().iter().chain(&ct_ingest::mask_doubt(&volume)) {
        eprintln!("warning: '{}': {warning}", input.display());
    }
    if let Some(folder) = output.parent() {
        // Before the work, so that a place that can't be written is known at once.
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder of '{}'", output.display()))?;
    }
    // A run on slices of native size takes larger ones too: these are scaled down.
    let fits = |settings: &StoreSettings| ct_ingest::SlicePlan::for_volume(&volume, settings).is_ok();
    let scale = if fits(settings) { settings.scale } else { Scale::Fit };
    let settings = &StoreSettings { scale, ..settings.clone() };
    let (images, plan) = ct_ingest::image_slices(&volume, settings)?;
    let size = settings.slice_size;
    let count = images.len() / (size * size);
    let intensity = Intensity::new(&config.intensity);
    let area = size * size;
    let slices = |range: Range<usize>| {
        let values = intensity.slice(&images[range.start * area..range.end * area]);
        Tensor::from_slice(&values).reshape([range.len() as i64, 1, size as i64, size as i64]).to_device(device)
    };
    let mut ticker = Ticker::new("predicting", count, 0);
    let slices = VolumeSlices { count, size, slices: &slices, pretrained: None };
    let predicted =
        model.predictor(&config.prompt, &config.prediction).volume(&slices, stop, &mut |_, _, _| ticker.tick(""));
    let at = |error: NotANumber| {
        let slice = error.slice + 1;
        anyhow::Error::new(error).context(format!("'{}', slice {slice} of {count}, from below", input.display()))
    };
    let Some(predicted) = predicted.map_err(at)? else { return Ok(false) };
    drop(ticker);
    let masks: Vec<u8> = predicted.slices.into_iter().flat_map(|slice| slice.mask).collect();
    let mask = plan.restore_mask(&masks);
    let voxels = mask.iter().filter(|&&m| m != 0).count();
    ct_ingest::write_mask(output, &mask, &volume)?;
    eprintln!("'{}': {voxels} voxels in {count} slices → '{}'", input.display(), output.display());
    Ok(true)
}

/// The volumes of a folder, and where their masks go: under the same names. A folder without volumes, or with slices of one,
/// is taken for a DICOM series.
///
/// # Errors
/// If a mask would be written over a volume that is read, or over a file that is there and is to be kept.
pub fn pairs(input: &Path, output: &Path, existing: Existing) -> Result<Vec<(PathBuf, PathBuf)>> {
    let pairs = named(input, output)?;
    let volumes: Vec<&Path> = pairs.iter().map(|(volume, _)| volume.as_path()).collect();
    for (_, mask) in &pairs {
        whole_file::check_place(mask, &volumes, existing)?;
    }
    Ok(pairs)
}

fn named(input: &Path, output: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    ensure!(input.exists(), "--input '{}' does not exist", input.display());
    let volumes = if input.is_dir() { volumes_in(input, output)? } else { Vec::new() };
    if volumes.is_empty() {
        ensure!(
            is_nifti(output) && !output.is_dir(),
            "--output '{}' must be a file that ends in .nii or .nii.gz, because --input is {}",
            output.display(),
            if input.is_dir() { "a folder without volumes: a DICOM series" } else { "a file" }
        );
        return Ok(vec![(input.into(), output.into())]);
    }
    ensure!(!output.is_file(), "--output '{}' is a file, but --input is a folder: name a folder", output.display());
    ensure!(
        !whole_file::is_same(input, output),
        "--output '{}' is the folder that --input names: masks there would have the names of its volumes",
        output.display()
    );
    Ok(volumes.into_iter().map(|(name, volume)| (volume, output.join(format!("{name}.nii.gz")))).collect())
}

/// Volumes of a folder, recognised by content, with the names of their masks. Where one mask is asked for and only folders of
/// DICOM files are there, they are parts of one series.
fn volumes_in(folder: &Path, output: &Path) -> Result<Vec<(String, PathBuf)>> {
    let volumes = ct_ingest::volumes_in(folder)?;
    if is_nifti(output) && volumes.iter().all(|(_, path)| path.is_dir()) {
        return Ok(Vec::new());
    }
    if let Some(pair) = volumes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        bail!(
            "'{}' and '{}' would have the same mask: move one of them away",
            pair[0].1.display(),
            pair[1].1.display()
        );
    }
    Ok(volumes)
}

fn is_nifti(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    [".nii", ".nii.gz"].iter().any(|end| name.ends_with(end))
}
