//! `sam-mix predict`.

use super::{Compute, open, open_run};
use crate::registry::Registry;
use anyhow::{Result, bail};
use clap::Args;
use ct_ingest::{AffineChoice, Intensity, ReadOptions};
use predictor::Model;
use run_record::checkpoint::Which;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use whole_file::Existing;

#[derive(Args)]
pub(super) struct PredictArgs {
    /// Run directory
    #[arg(long)]
    run: PathBuf,
    /// CT volume (NIfTI, NRRD, MetaImage, the folder of a DICOM series), or a folder of volumes
    #[arg(long)]
    input: PathBuf,
    /// Mask to write (.nii, .nii.gz), or a folder
    #[arg(long)]
    output: PathBuf,
    /// Replace masks that are there
    #[arg(long)]
    overwrite: bool,
    /// What the voxels' values mean: hu, offset:1024, rescale:SLOPE:INTERCEPT, or grey8:, unit: or signed-unit:LEVEL:WIDTH of a
    /// window
    #[arg(long)]
    intensity: Option<Intensity>,
    /// The affine that counts in a NIfTI file whose two disagree
    #[arg(long, value_parser = ["sform", "qform"])]
    affine: Option<String>,
    /// The DICOM series, by its instance UID or its number, where a folder has several
    #[arg(long, value_name = "UID|NUMBER")]
    series: Option<String>,
    /// Predict in another way than the run's configuration says: prediction.KEY=VALUE or prompt.KEY=VALUE
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    compute: Compute,
}

/// `false` if it was stopped.
pub(super) fn predict(registry: &Registry, arguments: &PredictArgs, stop: &AtomicBool) -> Result<bool> {
    let (config, record) = open_run(&arguments.run, &arguments.set)?;
    let pairs =
        predictor::predict::pairs(&arguments.input, &arguments.output, Existing::by_switch(arguments.overwrite))?;
    let (device, _) = open(&arguments.compute)?;
    let model = Model::from_run(&arguments.run, Which::Best, &config.model(), &registry.models, device)?;
    let options = ReadOptions {
        intensity: arguments.intensity.unwrap_or_default(),
        affine: arguments.affine.as_deref().map(|choice| match choice {
            "qform" => AffineChoice::Qform,
            _ => AffineChoice::Sform,
        }),
        series: arguments.series.clone(),
        ..ReadOptions::default()
    };
    let mut failed = Vec::new();
    for (input, output) in &pairs {
        match predictor::predict::volume(
            &model,
            &config.model(),
            &record.store.settings,
            device,
            (input, &options),
            output,
            stop,
        ) {
            Ok(true) => {}
            Ok(false) => {
                eprintln!("stopped; '{}' was not written", output.display());
                return Ok(false);
            }
            Err(error) if pairs.len() > 1 => failed.push(format!("'{}': {error:#}", input.display())),
            Err(error) => return Err(error),
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} volumes failed:\n  {}", failed.len(), pairs.len(), failed.join("\n  "));
    }
    Ok(true)
}
