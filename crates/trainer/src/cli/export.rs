//! `sam-mix export`.

use super::open_run;
use crate::registry::Registry;
use anyhow::{Result, bail};
use clap::Args;
use predictor::export::{Export, Format, keeps_its_sources, output};
use predictor::weights_path;
use run_record::checkpoint::Which;
use sam_segmenter::Family;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use whole_file::Existing;

#[derive(Args)]
pub(super) struct ExportArgs {
    /// Run directory
    #[arg(long, required_unless_present = "weights", conflicts_with = "weights")]
    run: Option<PathBuf>,
    /// A file of weights instead of a run
    #[arg(long)]
    weights: Option<PathBuf>,
    /// What the weights were trained as, where their SHA-256 doesn't tell: sam, medsam, mobile-sam or lite-medsam
    #[arg(long, requires = "weights")]
    family: Option<Family>,
    /// Side of the encoder's input in pixels [default: as the weights have it]
    #[arg(long, requires = "weights", value_name = "PIXELS")]
    input_size: Option<i64>,
    /// Adapters that belong to the weights, to be added into them
    #[arg(long, requires = "weights", value_name = "FILE")]
    adapters: Option<PathBuf>,
    /// What is written
    #[arg(long, value_enum)]
    to: Format,
    /// File to write, or folder for torchscript [default with --run: in RUN/export]
    #[arg(long, required_unless_present = "run")]
    output: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    overwrite: bool,
    /// Export the last checkpoint instead of the best
    #[arg(long, requires = "run")]
    last: bool,
}

/// `false` if it was stopped.
pub(super) fn export(registry: &Registry, arguments: &ExportArgs, stop: &AtomicBool) -> Result<bool> {
    let ExportArgs { run, weights, adapters, .. } = arguments;
    let sources: Vec<&Path> = [weights, adapters].into_iter().flatten().map(PathBuf::as_path).collect();
    let existing = Existing::by_switch(arguments.overwrite);
    let output = output(arguments.to, arguments.output.as_deref(), run.as_deref(), &sources, existing)?;
    let export = match (run, weights) {
        (Some(run), _) => {
            let (config, record) = open_run(run, &[])?;
            let which = if arguments.last { Which::Last } else { Which::Best };
            let export = Export::of_run(run, which, (&config.model(), &record), &registry.models)?;
            keeps_its_sources(&output, run, &weights_path(&config.segmenter)?)?;
            export
        }
        (None, Some(weights)) => {
            Export::of_weights(weights, adapters.as_deref(), arguments.family, arguments.input_size)?
        }
        (None, None) => bail!("--run or --weights is missing"),
    };
    if stop.load(Ordering::Relaxed) {
        eprintln!("stopped; nothing was written");
        return Ok(false);
    }
    export.write(arguments.to, &output)?;
    Ok(true)
}
