//! `sam-mix-phantom`: writes a synthetic abdominal CT data set, so that everything can be tried without real patients.

use anyhow::Context;
use clap::Parser;
use phantom::{Outcome, PhantomSettings, write_data_set, write_picture};
use std::path::PathBuf;
use std::process::ExitCode;
use whole_file::{Existing, check_place};

/// Writes synthetic abdominal CT with liver masks as NIfTI files in the layout of LiTS.
///
/// `volume-N.nii.gz` (int16, HU) and `segmentation-N.nii.gz` (0 elsewhere, 1 liver, 2 lesion) for each patient, and
/// `phantom.json` with the settings. The same settings give the same bytes; a data set that is there is not written again.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  sam-mix-phantom --output data/phantom --picture phantom.png")]
struct Arguments {
    /// Directory for the data set
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Number of patients
    #[arg(long, default_value_t = PhantomSettings::default().patients)]
    patients: usize,
    /// Slices of each patient (the range covered stays the same)
    #[arg(long, default_value_t = PhantomSettings::default().slices)]
    slices: usize,
    /// Rows and columns of a slice
    #[arg(long, default_value_t = PhantomSettings::default().size)]
    size: usize,
    /// Seed of everything random
    #[arg(long, default_value_t = PhantomSettings::default().seed)]
    seed: u64,
    /// Also render slices of patient 0 (window 40/400), with the liver outlined in a second row
    #[arg(long, value_name = "PNG")]
    picture: Option<PathBuf>,
    /// Replace the picture if it is there
    #[arg(long, requires = "picture")]
    overwrite: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let &Arguments { patients, slices, size, seed, .. } = arguments;
    let settings = PhantomSettings { patients, slices, size, seed };
    if let Some(path) = &arguments.picture {
        check_place(path, &[], Existing::by_switch(arguments.overwrite))?;
    }
    let place = arguments.output.display();
    match write_data_set(&arguments.output, &settings).context("the phantom was not written")? {
        Outcome::Written => println!("wrote {patients} patients of {slices} slices to {place}"),
        Outcome::AlreadyThere => println!("{place} holds these {patients} patients already"),
    }
    if let Some(path) = &arguments.picture {
        write_picture(path, &settings).context("the picture was not written")?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
