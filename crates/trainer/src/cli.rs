//! The command line of `sam-mix`. An experiment with its own stages calls [`main`] with its own registry.

mod choose;
mod choosing;
mod crops;
mod evaluate;
mod export;
mod predict;
mod train;

use crate::config::Config;
use crate::registry::Registry;
use anyhow::{Context, Result, bail, ensure};
use choose::{ChooseArgs, choose};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use data_parallel::Ranks;
use evaluate::{EvaluateArgs, evaluate};
use export::{ExportArgs, export};
use predict::{PredictArgs, predict};
use predictor::device::{self, DeviceChoice};
use predictor::memory;
use run_record::RunRecord;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Device;
use train::{TrainArgs, train};

/// The exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

#[derive(Parser)]
#[command(name = "sam-mix", version, about = "Segment an organ on CT from a few labelled slices")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train both branches on a prepared store
    #[command(
        after_help = "Example:\n  cargo xtask train --config configs/lits-mini.toml --store stores/lits-mini --run runs/lits-mini --set seed=1\n\nOn several devices, in a build with MPI:\n  mpirun --bind-to none -n 2 sam-mix train --mpi --config configs/lits-mini.toml --store stores/lits-mini --run runs/lits-mini\n\nCtrl-C finishes the step and saves; --resume goes on."
    )]
    Train(TrainArgs),
    /// Evaluate a run on patients that training never saw
    #[command(
        after_help = "Example:\n  cargo xtask evaluate --run runs/lits-mini --store stores/lits-mini --split test --json\n\nA store of another data set, whole (--split all), is the cross-domain test."
    )]
    Evaluate(EvaluateArgs),
    /// Predict masks of CT volumes, in their own geometry, without any ground truth
    #[command(
        after_help = "Example:\n  cargo xtask predict --run runs/lits-mini --input ct.nii.gz --output mask.nii.gz\n  cargo xtask predict --run runs/lits-mini --input volumes/ --output masks/\n  cargo xtask predict --run runs/lits-mini --input dicom-series/ --output mask.nii.gz\n  cargo xtask predict --run runs/lits-mini --input dicom-series/ --format dicom-seg,rtstruct,seg-nrrd --output masks/"
    )]
    Predict(PredictArgs),
    /// Choose the slices that are to be drawn next, without looking at any mask
    #[command(
        after_help = "Example:\n  cargo xtask choose --store stores/ours --config configs/lits-mini.toml --budget 50 --validation 16 --output worklist \\\n    --set 'sampling.split={fractions={train=0.7,validation=0.1,test=0.2}}'\n\nThe same split and seed belong into the training that follows. A larger budget asks for the same slices and more."
    )]
    Choose(ChooseArgs),
    /// Write a run's segmenter, or pretrained weights, in formats that other programs read
    #[command(
        after_help = "Examples:\n  cargo xtask export --run runs/lits-mini --to safetensors\n  cargo xtask export --run runs/lits-mini --to torchscript --output exported/\n  cargo xtask export --weights sam_vit_b_01ec64.pth --to torchscript --output sam-vit-b/\n  cargo xtask export --weights medsam.pth --family medsam --adapters adapters.safetensors --to safetensors --output merged.safetensors\n\nA SAM checkpoint has no place for the learned vector of the CAM's mask: safetensors leave it out, torchscript keeps it.\nFiles that are there are replaced with --overwrite, and in the run's own folder."
    )]
    Export(ExportArgs),
}

#[derive(Args, Clone)]
struct Compute {
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads of libtorch and of the loader [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
}

/// Runs the program with these stages; prints any error in one place.
pub fn main(registry: &Registry) -> ExitCode {
    memory::keep_freed();
    let cli = parsed();
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let handler = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("\nstopping after this step (Ctrl-C again: at once)");
    });
    if let Err(error) = handler {
        eprintln!("warning: Ctrl-C can't be caught: {error}");
    }
    // SLURM's word that the time is nearly over, where it is asked for one.
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGUSR1, stop.clone());
    let result = match &cli.command {
        Command::Train(arguments) => train(registry, arguments, &stop),
        Command::Evaluate(arguments) => evaluate(registry, arguments, &stop),
        Command::Predict(arguments) => predict(registry, arguments, &stop),
        Command::Choose(arguments) => choose(registry, arguments, &stop),
        Command::Export(arguments) => export(registry, arguments, &stop),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            // Some libraries' messages end with a line of their own.
            eprintln!("error: {}", format!("{error:#}").trim_end());
            ExitCode::FAILURE
        }
    }
}

/// How `sam-mix` is started.
const XTASK: &str = "cargo xtask";

/// How this program is started: one with stages of its own, as it was.
fn program() -> String {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let is_ours = program.file_stem().is_none_or(|name| name == "sam-mix");
    if is_ours { XTASK.into() } else { program.display().to_string() }
}

/// The command line; the examples of its help are of this program.
fn parsed() -> Cli {
    let program = program();
    let command = Cli::command().mut_subcommands(|verb| {
        let examples = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        verb.after_help(examples.replace(XTASK, &program))
    });
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Sets the threads and opens the device.
fn open(compute: &Compute) -> Result<(Device, i32)> {
    open_of_ranks(compute, &Ranks::alone())
}

/// The same for one of several processes that share a machine.
fn open_of_ranks(compute: &Compute, ranks: &Ranks) -> Result<(Device, i32)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = compute.threads.unwrap_or_else(|| ranks.threads(cores));
    ensure!(threads > 0, "--threads is 0, expected at least 1");
    tch::set_num_threads(threads as i32);
    // Fails only if the pool exists already, as in tests; results don't depend on it.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    let device = device::open(compute.device)?;
    Ok((ranks.device(device), threads as i32))
}

fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

/// A run with its configuration, of which `set` changes how masks are predicted and evaluated, and nothing else.
fn open_run(run: &Path, set: &[String]) -> Result<(Config, RunRecord)> {
    let is_of_prediction =
        |item: &&String| ["prediction.", "prompt.", "evaluation."].iter().any(|p| item.starts_with(p));
    if let Some(item) = set.iter().find(|item| !is_of_prediction(item)) {
        bail!("--set {item}: only prediction.KEY, prompt.KEY and evaluation.KEY can be another than in training");
    }
    ensure!(
        run.join("run.json").is_file(),
        "'{}' is no run directory ('run.json' is missing): `{} train --config C --store S --run {}` makes one",
        run.display(),
        program(),
        run.display()
    );
    let record = RunRecord::load(run)?;
    let mut config = Config::load(&run.join("config.toml"), set).context("the run's own configuration")?;
    find_weights(run, &mut config, &record)?;
    Ok((config, record))
}

/// The pretrained weights of a run that began with some, wherever they are now; the environment's, if it names some and the run
/// none.
fn find_weights(run: &Path, config: &mut Config, record: &RunRecord) -> Result<()> {
    let expected = record.weights_sha256.as_deref();
    let is_installed = expected.is_some() && std::env::var_os("SAM_MIX_WEIGHTS").is_none();
    if config.segmenter.weights.is_some() || is_installed {
        let weights = predictor::weights_of_run(run, &config.segmenter, expected)?;
        config.segmenter.weights = Some(weights);
    }
    Ok(())
}
