//! The command line of `sam-mix`. An experiment with its own stages calls [`main`] with its own registry.

use crate::checkpoint::Which;
use crate::config::{Config, difference};
use crate::device::{self, DeviceChoice};
use crate::evaluate::{self, Evaluator};
use crate::export::{self, Export, Format};
use crate::files::write_whole;
use crate::memory;
use crate::model::{Model, untouched_segmenter, weights_path};
use crate::registry::Registry;
use crate::rows::rows_of;
use crate::run::{RunRecord, Status};
use crate::train::{Outcome, Training};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ct_ingest::{AffineChoice, Intensity, ReadOptions};
use sam_segmenter::Family;
use slice_sampling::Selection;
use slice_store::SliceStore;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Device;

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
        after_help = "Example:\n  cargo xtask train --config configs/lits-mini.toml --store stores/lits-mini --run runs/lits-mini --set seed=1\n\nCtrl-C finishes the step and saves; --resume goes on."
    )]
    Train(TrainArgs),
    /// Judge a run on patients that training never saw
    #[command(
        after_help = "Example:\n  cargo xtask evaluate --run runs/lits-mini --store stores/lits-mini --split test --json\n\nA store of another data set, whole (--split all), is the cross-domain test."
    )]
    Evaluate(EvaluateArgs),
    /// Predict masks of CT volumes, in their own geometry, without any ground truth
    #[command(
        after_help = "Example:\n  cargo xtask predict --run runs/lits-mini --input ct.nii.gz --output mask.nii.gz\n  cargo xtask predict --run runs/lits-mini --input volumes/ --output masks/\n  cargo xtask predict --run runs/lits-mini --input dicom-series/ --output mask.nii.gz"
    )]
    Predict(PredictArgs),
    /// Write a run's segmenter, or pretrained weights, in formats that other programs read
    #[command(
        after_help = "Examples:\n  cargo xtask export --run runs/lits-mini --to safetensors\n  cargo xtask export --run runs/lits-mini --to torchscript --output exported/\n  cargo xtask export --weights sam_vit_b_01ec64.pth --to torchscript --output sam-vit-b/\n  cargo xtask export --weights medsam.pth --family medsam --adapters adapters.safetensors --to safetensors --output merged.safetensors\n\nA SAM checkpoint has no place for the learned vector of the CAM's mask: safetensors leave it out, torchscript keeps it.\nFiles that are there are replaced."
    )]
    Export(ExportArgs),
}

#[derive(Args)]
struct Compute {
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads of libtorch and of the loader [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Args)]
struct TrainArgs {
    /// Configuration (TOML); with --resume it is the run's own
    #[arg(long, required_unless_present = "resume")]
    config: Option<PathBuf>,
    /// Prepared store
    #[arg(long)]
    store: PathBuf,
    /// Run directory to write
    #[arg(long)]
    run: PathBuf,
    /// Override a configuration key: a.b=c
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Pretrained weights instead of the installed ones
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Replay the patients and slices of another run's selection.json
    #[arg(long)]
    selection: Option<PathBuf>,
    /// The same bits each time on a GPU too, where it is slower; an operation that can't is an error
    #[arg(long)]
    deterministic: bool,
    /// Threads that prepare batches; results don't depend on it [default: as --threads]
    #[arg(long)]
    loader_threads: Option<usize>,
    /// Print at the end where the time went
    #[arg(long)]
    profile: bool,
    /// Keep the embeddings that a classifier reads in this file, for other runs on the same slices and views
    #[arg(long, value_name = "FILE")]
    embeddings: Option<PathBuf>,
    /// Go on after the run's last checkpoint
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Split {
    Test,
    Validation,
    All,
}

#[derive(Args)]
struct EvaluateArgs {
    /// Run directory
    #[arg(long)]
    run: PathBuf,
    /// Prepared store: the run's own, or one of another data set
    #[arg(long)]
    store: PathBuf,
    /// Which slices; `all` is for a store that the run was not trained on
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Print one JSON object to standard output instead of the table
    #[arg(long)]
    json: bool,
    /// Judge the last checkpoint instead of the best
    #[arg(long)]
    last: bool,
    /// Predict in another way than the run's configuration says: prediction.KEY=VALUE, prompt.KEY=VALUE or
    /// evaluation.KEY=VALUE
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "output")]
    set: Vec<String>,
    /// Folder of the results [default: `evaluation` in the run]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Args)]
struct PredictArgs {
    /// Run directory
    #[arg(long)]
    run: PathBuf,
    /// CT volume (NIfTI, NRRD, MetaImage, the folder of a DICOM series), or a folder of volumes
    #[arg(long)]
    input: PathBuf,
    /// Mask to write (.nii, .nii.gz), or a folder
    #[arg(long)]
    output: PathBuf,
    /// What the voxels' values mean: hu, or grey8:LEVEL:WIDTH for 8-bit pictures of a window
    #[arg(long)]
    intensity: Option<Intensity>,
    /// The affine that counts in a NIfTI file whose two disagree
    #[arg(long, value_parser = ["sform", "qform"])]
    affine: Option<String>,
    /// The DICOM series, by its instance UID, where a folder has several
    #[arg(long, value_name = "UID")]
    series: Option<String>,
    /// Predict in another way than the run's configuration says: prediction.KEY=VALUE or prompt.KEY=VALUE
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Args)]
struct ExportArgs {
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
    /// Export the last checkpoint instead of the best
    #[arg(long, requires = "run")]
    last: bool,
}

/// Runs the program with these stages; prints any error in one place.
pub fn main(registry: &Registry) -> ExitCode {
    memory::keep_freed();
    let cli = Cli::parse();
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
    let result = match &cli.command {
        Command::Train(arguments) => train(registry, arguments, &stop),
        Command::Evaluate(arguments) => evaluate(registry, arguments, &stop),
        Command::Predict(arguments) => predict(registry, arguments, &stop),
        Command::Export(arguments) => export(registry, arguments, &stop),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the threads and opens the device.
fn open(compute: &Compute) -> Result<(Device, i32)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = compute.threads.unwrap_or(cores);
    ensure!(threads > 0, "--threads is 0, expected at least 1");
    tch::set_num_threads(threads as i32);
    // Fails only if the pool exists already, as in tests; results don't depend on it.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    let device = device::open(compute.device)?;
    Ok((device, threads as i32))
}

fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

fn train(registry: &Registry, arguments: &TrainArgs, stop: &AtomicBool) -> Result<bool> {
    let run = arguments.run.as_path();
    let known = run.join("run.json").is_file();
    ensure!(
        arguments.resume || !run.join("checkpoints").is_dir() && !known,
        "'{}' is a run already: --resume goes on with it, another --run starts anew",
        run.display()
    );
    ensure!(
        known || !arguments.resume,
        "'{}' is no run, there is nothing to resume: leave --resume out",
        run.display()
    );
    let mut config = match (&arguments.config, arguments.resume) {
        (_, true) => Config::load(&run.join("config.toml"), &arguments.set)?,
        (Some(path), false) => Config::load(path, &arguments.set)?,
        (None, false) => bail!("--config is missing"),
    };
    if let Some(weights) = &arguments.weights {
        config.segmenter.weights = Some(weights.clone());
    }
    if arguments.resume {
        let mut own = Config::load(&run.join("config.toml"), &[])?;
        own.segmenter.weights.clone_from(&config.segmenter.weights);
        let mut asked =
            arguments.config.as_ref().map_or_else(|| Ok(config.clone()), |path| Config::load(path, &arguments.set))?;
        asked.segmenter.weights.clone_from(&config.segmenter.weights);
        let difference = difference(&own, &asked)?;
        ensure!(
            difference.is_empty(),
            "'{}' was begun with another configuration:\n  {}\nA run keeps its configuration; start a new one with another --run",
            run.display(),
            difference.join("\n  ")
        );
    }
    let store = SliceStore::open(&arguments.store)?;
    ensure!(
        store.info().has_masks,
        "the store '{}' has no masks; training needs them for its labelled slices",
        arguments.store.display()
    );
    let selection = match (&arguments.selection, arguments.resume) {
        (_, true) => Selection::load(&run.join("selection.json"))?,
        (Some(path), false) => Selection::load(path)?,
        (None, false) => slice_sampling::select(store.records(), &config.sampling, config.seed)?,
    };
    // A run keeps it.
    let deterministic = arguments.deterministic || arguments.resume && RunRecord::load(run)?.deterministic;
    if deterministic {
        device::deterministic()?;
    }
    let (device, threads) = open(&arguments.compute)?;
    let mut record = if arguments.resume {
        let record = RunRecord::load(run)?;
        ensure!(
            record.store.checksum == store.checksum(),
            "'{}' was trained on a store with checksum {}, but '{}' has {}",
            run.display(),
            record.store.checksum,
            arguments.store.display(),
            store.checksum()
        );
        if record.status == Status::Finished {
            println!("'{}' is finished already", run.display());
            return Ok(true);
        }
        if (record.threads, record.device.as_str()) != (threads, device_name(device).as_str()) {
            eprintln!(
                "note: begun on {} with {} threads, going on on {} with {threads}: results may differ in the last bits",
                record.device,
                record.threads,
                device_name(device)
            );
        }
        record
    } else {
        RunRecord::new(run, &config, &store, &selection, &device_name(device), threads)
    };
    record.deterministic = deterministic;
    let loader_threads = arguments.loader_threads.unwrap_or(threads as usize);
    ensure!(loader_threads > 0, "--loader-threads is 0, expected at least 1");
    let training = Training {
        config: &config,
        registry,
        store: &store,
        run,
        selection: &selection,
        device,
        loader_threads,
        profile: arguments.profile,
        embeddings: arguments.embeddings.as_deref(),
        stop,
    };
    if !arguments.resume {
        // Nothing is written before the whole configuration was seen to fit the data and the model.
        training.check()?;
        write_whole(&run.join("config.toml"), toml::to_string(&config)?.as_bytes())?;
        selection.save(&run.join("selection.json"))?;
        record.save(run)?;
    }
    eprintln!(
        "{}: {} training slices of {} patients, {} labelled; validation {} slices; test {} slices of {} patients; {} with {threads} threads",
        run.display(),
        selection.train.len(),
        selection.split.train.len(),
        selection.labelled.len(),
        selection.validation.len(),
        selection.test.len(),
        selection.split.test.len(),
        device_name(device),
    );
    let outcome = training.run(&mut record)?;
    eprintln!("{:.1} slices/s, {:.0} % waiting for the loader", record.slices_per_second, 100.0 * record.wait_share);
    if arguments.profile {
        eprint!("{}", record.times);
        if let Some(bytes) = device::memory_in_use(device) {
            let gib = bytes as f64 / f64::from(1 << 30);
            eprintln!("{:<12}{gib:>8.1} GiB taken at the end, by all programs", "GPU memory");
        }
    }
    match outcome {
        Outcome::Finished => {
            for phase in &record.phases {
                let dice =
                    phase.validation_dice.map_or("no segmentation".into(), |d| format!("validation Dice {d:.4}"));
                let epochs = phase.epochs.map_or_else(String::new, |n| format!(", {n} epochs"));
                eprintln!("phase {}: {dice}{epochs}, {:.0} s", phase.name, phase.seconds);
            }
            if record.skipped_updates > 0 {
                eprintln!("{} updates were left out: their loss or gradient was not finite", record.skipped_updates);
            }
            println!("trained in {:.0} s: '{}'", record.seconds, run.display());
            Ok(true)
        }
        Outcome::Interrupted => {
            println!(
                "stopped and saved. To go on:\n  cargo xtask train --resume --run {} --store {}",
                run.display(),
                arguments.store.display()
            );
            Ok(false)
        }
    }
}

fn evaluate(registry: &Registry, arguments: &EvaluateArgs, stop: &AtomicBool) -> Result<bool> {
    let (config, record) = open_run(&arguments.run, &arguments.set)?;
    let store = SliceStore::open(&arguments.store)?;
    ensure!(store.info().has_masks, "the store '{}' has no masks to judge by", arguments.store.display());
    ensure!(
        store.info().target == record.store.target,
        "the run segments the {}, but the masks of '{}' are of the {}",
        record.store.target,
        arguments.store.display(),
        store.info().target
    );
    let own = store.checksum() == record.store.checksum;
    let selection = Selection::load(&arguments.run.join("selection.json"))?;
    let (split, rows) = match (arguments.split, own) {
        (Split::All, true) => bail!(
            "'{}' is the store that the run was trained on; all of it would count slices that training saw. \
             --split test judges by the patients that it did not see",
            arguments.store.display()
        ),
        (Split::All, false) => ("all", (0..store.records().len()).collect()),
        (_, false) => bail!(
            "'{}' is not the store that the run was trained on (checksum {} instead of {}): its splits mean nothing there. \
             --split all judges the whole of another data set",
            arguments.store.display(),
            store.checksum(),
            record.store.checksum
        ),
        (Split::Test, true) => ("test", rows_of(&store, &selection.test)?),
        (Split::Validation, true) => ("validation", rows_of(&store, &selection.validation)?),
    };
    ensure!(!rows.is_empty(), "the {split} split has no slices");
    let (device, _) = open(&arguments.compute)?;
    let which = if arguments.last { Which::Last } else { Which::Best };
    let model = Model::from_run(&arguments.run, which, &config, registry, device)?;
    let untouched = untouched_segmenter(&config, device)?;
    let evaluator = Evaluator { config: &config, model: &model, untouched: &untouched, store: &store, device, stop };
    // Another data set's results stand beside the run's own under that set's name.
    let name = if own { split.to_owned() } else { store.info().dataset.clone() };
    let output = arguments.output.clone().unwrap_or_else(|| arguments.run.join("evaluation"));
    let Some(evaluation) = evaluator.run(&name, &rows, &output)? else {
        eprintln!("stopped; nothing was written");
        return Ok(false);
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&evaluation)?);
    } else {
        print!("{}", evaluate::table(&evaluation));
    }
    Ok(true)
}

fn predict(registry: &Registry, arguments: &PredictArgs, stop: &AtomicBool) -> Result<bool> {
    let (config, record) = open_run(&arguments.run, &arguments.set)?;
    let pairs = crate::predict::pairs(&arguments.input, &arguments.output)?;
    let (device, _) = open(&arguments.compute)?;
    let model = Model::from_run(&arguments.run, Which::Best, &config, registry, device)?;
    let options = ReadOptions {
        intensity: arguments.intensity.unwrap_or_default(),
        affine: arguments.affine.as_deref().map(|choice| match choice {
            "qform" => AffineChoice::Qform,
            _ => AffineChoice::Sform,
        }),
        series: arguments.series.clone(),
    };
    let mut failed = Vec::new();
    for (input, output) in &pairs {
        match crate::predict::volume(&model, &config, &record.store.settings, device, (input, &options), output, stop) {
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

fn export(registry: &Registry, arguments: &ExportArgs, stop: &AtomicBool) -> Result<bool> {
    let ExportArgs { run, weights, adapters, .. } = arguments;
    let sources: Vec<&Path> = [weights, adapters].into_iter().flatten().map(PathBuf::as_path).collect();
    let output = export::output(arguments.to, arguments.output.as_deref(), run.as_deref(), &sources)?;
    let export = match (run, weights) {
        (Some(run), _) => {
            let (config, record) = open_run(run, &[])?;
            export::keeps_its_sources(&output, run, &weights_path(&config.segmenter)?)?;
            let which = if arguments.last { Which::Last } else { Which::Best };
            Export::of_run(run, which, (&config, &record), registry)?
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

/// A run with its configuration, of which `set` changes how masks are predicted and judged, and nothing else.
fn open_run(run: &Path, set: &[String]) -> Result<(Config, RunRecord)> {
    let is_of_prediction =
        |item: &&String| ["prediction.", "prompt.", "evaluation."].iter().any(|p| item.starts_with(p));
    if let Some(item) = set.iter().find(|item| !is_of_prediction(item)) {
        bail!("--set {item}: only prediction.KEY, prompt.KEY and evaluation.KEY can be another than in training");
    }
    ensure!(
        run.join("run.json").is_file(),
        "'{}' is no run directory ('run.json' is missing): `cargo xtask train --config C --store S --run {}` makes one",
        run.display(),
        run.display()
    );
    let record = RunRecord::load(run)?;
    let config = Config::load(&run.join("config.toml"), set).context("the run's own configuration")?;
    Ok((config, record))
}
