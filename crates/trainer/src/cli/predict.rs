//! `sam-mix predict`.

use super::{Compute, open, open_run};
use crate::registry::Registry;
use annotation::{MaskFormat, MaskJob, mask_jobs};
use anyhow::{Result, bail};
use clap::Args;
use ct_ingest::{AffineChoice, Intensity, ReadOptions};
use predictor::Model;
use run_record::checkpoint::Which;
use serde_json::json;
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
    /// Mask to write (.nii, .nii.gz, .seg.nrrd, .dcm), or a folder
    #[arg(long)]
    output: PathBuf,
    /// What masks are written as, several separated by commas [default: by the output's ending; NIfTI in a folder]
    #[arg(long, value_enum, value_delimiter = ',')]
    format: Vec<MaskFormat>,
    /// Replace masks that are there
    #[arg(long)]
    overwrite: bool,
    /// Print what was written, with slices and millilitres, as JSON
    #[arg(long)]
    json: bool,
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
    let existing = Existing::by_switch(arguments.overwrite);
    let jobs = mask_jobs(&arguments.input, &arguments.output, &arguments.format, existing)?;
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
    let target = &record.store.target;
    let description = format!("Predicted by SAM-Mix. Labels that training read: {}", record.label_budget);
    let model_config = config.model();
    let one = |job: &MaskJob| -> Result<Option<serde_json::Value>> {
        let series = job.begin(&options)?;
        let input = (job.input.as_path(), &options);
        let settings = &record.store.settings;
        let Some(predicted) = predictor::predict::volume(&model, &model_config, settings, device, input, stop)? else {
            return Ok(None);
        };
        job.write((&predicted.volume, &predicted.mask), series.as_ref(), (target, &description), existing)?;
        let (voxels, slices, millilitres) = (predicted.voxels(), predicted.slices, predicted.millilitres());
        let outputs: Vec<&PathBuf> = job.outputs.iter().map(|(_, output)| output).collect();
        let named: Vec<String> = outputs.iter().map(|output| format!("'{}'", output.display())).collect();
        let volume = millilitres.map_or_else(String::new, |ml| format!(", {ml:.1} ml"));
        eprintln!(
            "'{}': {target} in {} of {slices} slices, {voxels} voxels{volume} → {}",
            job.input.display(),
            predicted.slices_with_target,
            named.join(", ")
        );
        Ok(Some(json!({
            "input": job.input,
            "outputs": outputs,
            "slices": slices,
            "slices_with_target": predicted.slices_with_target,
            "voxels": voxels,
            "millilitres": millilitres,
        })))
    };
    let (mut written, mut failed) = (Vec::new(), Vec::new());
    for job in &jobs {
        match one(job) {
            Ok(Some(line)) => written.push(line),
            Ok(None) => {
                eprintln!("stopped; nothing was written of '{}'", job.input.display());
                return Ok(false);
            }
            Err(error) if jobs.len() > 1 => failed.push(format!("'{}': {error:#}", job.input.display())),
            Err(error) => return Err(error),
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&written)?);
    }
    if !failed.is_empty() {
        bail!("{} of {} volumes failed:\n  {}", failed.len(), jobs.len(), failed.join("\n  "));
    }
    Ok(true)
}
