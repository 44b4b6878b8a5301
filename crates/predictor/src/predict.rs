//! A CT volume in, a mask of its own voxels out; no ground truth anywhere.

use crate::config::ModelConfig;
use crate::intensity::Intensity;
use crate::model::Model;
use crate::not_a_number::NotANumber;
use crate::progress::Ticker;
use crate::volume::VolumeSlices;
use anyhow::Result;
use ct_ingest::{ReadOptions, Volume};
use slice_store::{Scale, StoreSettings};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tch::{Device, Tensor};

/// A volume and what was predicted of it.
pub struct PredictedVolume {
    /// As it was read.
    pub volume: Volume,
    /// 0 or 1 for each of its voxels, in the order of its file.
    pub mask: Vec<u8>,
    /// Slices that it has.
    pub slices: usize,
    /// Those whose mask is not empty.
    pub slices_with_target: usize,
}

impl PredictedVolume {
    /// Voxels of the mask.
    pub fn voxels(&self) -> usize {
        self.mask.iter().filter(|&&value| value != 0).count()
    }

    /// The mask's volume in ml; `None` where the file's millimetres are not to be trusted.
    pub fn millilitres(&self) -> Option<f64> {
        self.volume.geometry.voxel_mm3().map(|mm3| self.voxels() as f64 * mm3 / 1e3)
    }
}

/// Predicts one volume; `None` if it was stopped.
///
/// # Errors
/// The volume can't be read, or what is predicted is not a number.
pub fn volume(
    model: &Model,
    config: &ModelConfig,
    settings: &StoreSettings,
    device: Device,
    (input, options): (&Path, &ReadOptions),
    stop: &AtomicBool,
) -> Result<Option<PredictedVolume>> {
    let volume = ct_ingest::read_volume(input, options)?;
    for warning in volume.doubts() {
        eprintln!("warning: '{}': {warning}", input.display());
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
    let Some(predicted) = predicted.map_err(at)? else { return Ok(None) };
    drop(ticker);
    let slices_with_target = predicted.slices.iter().filter(|slice| slice.mask.contains(&1)).count();
    let masks: Vec<u8> = predicted.slices.into_iter().flat_map(|slice| slice.mask).collect();
    let mask = plan.restore_mask(&masks);
    Ok(Some(PredictedVolume { volume, mask, slices: count, slices_with_target }))
}
