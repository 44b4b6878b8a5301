//! A CT volume in, a mask of its own voxels out; no ground truth anywhere.

use crate::config::ModelConfig;
use crate::intensity::Intensity;
use crate::model::Model;
use crate::not_a_number::NotANumber;
use crate::progress::Ticker;
use crate::statistics::{Row, SliceStatistics, statistics};
use crate::volume::VolumeSlices;
use anyhow::Result;
use ct_ingest::{ReadOptions, SlicePlan, Volume};
use serde_json::json;
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
    /// Its slices, the most inferior first.
    pub slices: Vec<SliceStatistics>,
    /// `[slices, size, size]` each: HU, the mask, and its probabilities in 255ths.
    resized: (Vec<i16>, Vec<u8>, Vec<u8>),
    plan: SlicePlan,
    settings: StoreSettings,
}

impl PredictedVolume {
    /// Voxels of the mask.
    pub fn voxels(&self) -> usize {
        self.slices.iter().map(|slice| slice.voxels).sum()
    }

    /// Slices whose mask is not empty.
    pub fn slices_with_target(&self) -> usize {
        self.slices.iter().filter(|slice| slice.voxels > 0).count()
    }

    /// The mask's volume in ml; `None` where the file's millimetres are not to be trusted.
    pub fn millilitres(&self) -> Option<f64> {
        self.volume.geometry.voxel_mm3().map(|mm3| self.voxels() as f64 * mm3 / 1e3)
    }

    /// The mean HU of the mask's voxels; `None` where there are none.
    pub fn mean_hu(&self) -> Option<f64> {
        let of = |slice: &SliceStatistics| slice.mean_hu.map_or(0.0, |hu| hu * slice.voxels as f64);
        let voxels = self.voxels();
        (voxels > 0).then(|| self.slices.iter().map(of).sum::<f64>() / voxels as f64)
    }

    /// The decoder's probability of each voxel, in 255ths, in the order of the volume's file; 0 in slices that are called empty.
    pub fn probabilities(&self) -> Vec<u8> {
        self.plan.restore_levels(&self.resized.2)
    }

    /// What was measured of the volume, and of each slice if `by_slice`.
    pub fn statistics(&self, target: &str, by_slice: bool) -> serde_json::Value {
        let look: Vec<usize> = self.slices.iter().filter(|of| !of.look.is_empty()).map(|of| of.slice).collect();
        let mut all = json!({
            "input": self.volume.path,
            "target": target,
            "slices": self.slices.len(),
            "slices_with_target": self.slices_with_target(),
            "voxels": self.voxels(),
            "millilitres": self.millilitres(),
            "mean_hu": self.mean_hu(),
            "look_at_slices": look,
        });
        if by_slice {
            all["by_slice"] = json!(self.slices);
        }
        all
    }

    /// A row of CSV for each slice, as [`SliceStatistics`] has it; several reasons to look at it are separated by spaces.
    ///
    /// # Errors
    /// None that is known.
    pub fn table(&self) -> Result<String> {
        let mut table = csv::Writer::from_writer(Vec::new());
        for slice in &self.slices {
            table.serialize(Row::from(slice))?;
        }
        Ok(String::from_utf8(table.into_inner()?)?)
    }

    /// Writes a PNG of some slices with the mask's outline; those to look at have a frame.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn write_preview(&self, path: &Path) -> Result<()> {
        let marked: Vec<bool> = self.slices.iter().map(|slice| !slice.look.is_empty()).collect();
        let (images, masks, _) = &self.resized;
        let (size, window) = (self.settings.slice_size, self.settings.window);
        Ok(ct_ingest::write_preview(path, (images, masks), &marked, size, window)?)
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
    let masks: Vec<u8> = predicted.slices.iter().flat_map(|slice| &slice.mask).copied().collect();
    let probabilities = predicted.slices.iter().flat_map(|slice| match &slice.scored {
        Some(scored) => scored.probabilities.clone(),
        None => vec![0; area],
    });
    let resized = (images, masks, probabilities.collect());
    let mask = plan.restore_mask(&resized.1);
    let slices = statistics(&volume, &mask, &plan, &predicted.slices);
    Ok(Some(PredictedVolume { volume, mask, slices, resized, plan, settings: settings.clone() }))
}
