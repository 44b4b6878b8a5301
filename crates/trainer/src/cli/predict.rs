//! `sam-mix predict`.

use super::{Compute, open, open_run};
use crate::registry::Registry;
use annotation::{Beside, MaskFormat, MaskJob, Wanted, mask_jobs};
use anyhow::{Result, bail};
use clap::Args;
use ct_ingest::{AffineChoice, Intensity, ReadOptions};
use predictor::Model;
use run_record::checkpoint::Which;
use run_record::{write_json, write_whole};
use serde_json::json;
use slice_store::counted;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use whole_file::Existing;

#[derive(Args)]
pub(super) struct PredictArgs {
    /// Run directory
    #[arg(long)]
    run: PathBuf,
    /// CT volume (NIfTI, NRRD, MetaImage, the folder of a DICOM series), or a folder of volumes or of DICOM studies
    #[arg(long)]
    input: PathBuf,
    /// Mask to write (.nii, .nii.gz, .seg.nrrd, .dcm), or a folder
    #[arg(long)]
    output: PathBuf,
    /// What masks are written as, several separated by commas [default: by the output's ending; NIfTI in a folder]
    #[arg(long, value_enum, value_delimiter = ',')]
    format: Vec<MaskFormat>,
    #[command(flatten)]
    beside: BesideArgs,
    /// Replace files that are there
    #[arg(long)]
    overwrite: bool,
    /// Leave out files that are there, and volumes that have all of theirs
    #[arg(long, conflicts_with = "overwrite")]
    skip_existing: bool,
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

/// What is written beside masks.
#[derive(Args)]
struct BesideArgs {
    /// Write the probability of each voxel too, as NIfTI: NAME.probabilities.nii.gz
    #[arg(long)]
    probabilities: bool,
    /// Write what was measured too, of the volume and by slice, with the slices to look at: NAME.statistics.json and .csv
    #[arg(long)]
    statistics: bool,
    /// Write a picture of some slices with the mask's outline too: NAME.preview.png
    #[arg(long)]
    preview: bool,
}

impl BesideArgs {
    fn asked(&self) -> Vec<Beside> {
        let all = [
            (self.probabilities, Beside::Probabilities),
            (self.statistics, Beside::StatisticsJson),
            (self.statistics, Beside::StatisticsCsv),
            (self.preview, Beside::Preview),
        ];
        all.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, of)| of).collect()
    }
}

/// `false` if it was stopped.
pub(super) fn predict(registry: &Registry, arguments: &PredictArgs, stop: &AtomicBool) -> Result<bool> {
    let (config, record) = open_run(&arguments.run, &arguments.set)?;
    let existing = Existing::by_switch(arguments.overwrite);
    let beside = arguments.beside.asked();
    let wanted = Wanted { formats: &arguments.format, beside: &beside, existing, skip: arguments.skip_existing };
    let (jobs, skipped) = mask_jobs(&arguments.input, &arguments.output, &wanted)?;
    if skipped > 0 {
        eprintln!("{} left out: all files of theirs are there", counted(skipped, "volume"));
    }
    if jobs.is_empty() {
        if arguments.json {
            println!("[]");
        }
        return Ok(true);
    }
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
        let (series, options) = job.begin(&options)?;
        let input = (job.input.as_path(), &options);
        let settings = &record.store.settings;
        let Some(predicted) = predictor::predict::volume(&model, &model_config, settings, device, input, stop)? else {
            return Ok(None);
        };
        job.write((&predicted.volume, &predicted.mask), series.as_ref(), (target, &description), existing)?;
        for (of, path) in &job.beside {
            match of {
                Beside::Probabilities => {
                    ct_ingest::write_probabilities(path, &predicted.probabilities(), &predicted.volume)?;
                }
                Beside::StatisticsJson => write_json(path, &predicted.statistics(target, true))?,
                Beside::StatisticsCsv => write_whole(path, predicted.table()?.as_bytes())?,
                Beside::Preview => predicted.write_preview(path)?,
            }
        }
        let (voxels, slices) = (predicted.voxels(), predicted.slices.len());
        let outputs: Vec<&PathBuf> = job.outputs.iter().map(|(_, output)| output).collect();
        let beside: Vec<&PathBuf> = job.beside.iter().map(|(_, output)| output).collect();
        let named = outputs.iter().chain(&beside).map(|output| format!("'{}'", output.display()));
        let volume = predicted.millilitres().map_or_else(String::new, |ml| format!(", {ml:.1} ml"));
        eprintln!(
            "'{}': {target} in {} of {slices} slices, {voxels} voxels{volume} → {}",
            job.input.display(),
            predicted.slices_with_target(),
            named.collect::<Vec<_>>().join(", ")
        );
        let mut line = predicted.statistics(target, false);
        line["outputs"] = json!(outputs);
        line["beside"] = json!(beside);
        Ok(Some(line))
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
