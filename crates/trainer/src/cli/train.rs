//! `sam-mix train`.

use super::choosing::Choosing;
use super::{Compute, device_name, find_weights, open_of_ranks, program};
use crate::config::Config;
use crate::planned;
use crate::registry::Registry;
use crate::train::{Outcome, Training, new_record};
use anyhow::{Result, bail, ensure};
use clap::Args;
use data_parallel::Ranks;
use predictor::{device, show_no_progress};
use run_record::{RunRecord, Status, differing_settings, write_whole};
use slice_sampling::Selection;
use slice_sampling::for_training;
use slice_store::{LabelCounts, SliceStore, Slices, counted};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Args, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct TrainArgs {
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
    /// Replay the patients and slices of another run's selection.json, on the same store
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
    /// Keep the embeddings that a classifier reads in this folder, for other runs on the same slices or augmented copies
    #[arg(long, value_name = "FOLDER")]
    embeddings: Option<PathBuf>,
    /// Train together with the other processes that mpirun or srun started: see docs/how-to/cluster.md
    #[arg(long)]
    mpi: bool,
    /// Go on after the run's last checkpoint
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    compute: Compute,
}

/// `false` if it was stopped.
pub(super) fn train(registry: &Registry, arguments: &TrainArgs, stop: &AtomicBool) -> Result<bool> {
    let ranks = Ranks::start(arguments.mpi)?;
    train_together(&ranks, registry, arguments, stop).inspect_err(|error| ranks.abort(format!("{error:#}")))
}

fn train_together(ranks: &Rc<Ranks>, registry: &Registry, arguments: &TrainArgs, stop: &AtomicBool) -> Result<bool> {
    if !ranks.is_first() {
        show_no_progress();
    }
    if !ranks.wait_for_first() {
        return Ok(true);
    }
    // The first rank begins a run; the others go on with it.
    let arguments = &TrainArgs { resume: arguments.resume || !ranks.is_first(), ..arguments.clone() };
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
    let mut config = configuration(arguments)?;
    let store = SliceStore::open(&arguments.store)?;
    // A run keeps it.
    let deterministic = arguments.deterministic || arguments.resume && RunRecord::load(run)?.deterministic;
    if deterministic {
        device::deterministic()?;
    }
    let (device, threads) = open_of_ranks(&arguments.compute, ranks)?;
    let name = match ranks.count() {
        1 => device_name(device),
        count => format!("{} of {count} ranks", device_name(device)),
    };
    let selection = match (&arguments.selection, arguments.resume) {
        (_, true) => selection_of(&store, &run.join("selection.json"))?,
        (Some(path), false) => selection_of(&store, path)?,
        (None, false) => {
            let choice =
                Choosing { registry, config: &config, device, embeddings: arguments.embeddings.as_deref(), stop };
            let chosen = choice.selection(&store);
            if stop.load(Ordering::Relaxed) {
                println!("stopped before anything was learnt");
                return Ok(false);
            }
            chosen?
        }
    };
    let selection = Selection { store_checksum: Some(store.checksum().to_owned()), ..selection };
    planned::plan(&mut config, &store, &selection)?;
    let store = for_training(&store, &selection)?;
    let mut record = if arguments.resume {
        let record = begun_before(run, &store, ranks, &name, threads)?;
        registry.models.has_stages_of(run, &config.model(), &record)?;
        record
    } else {
        new_record(run, &config, &store, &selection, &name, threads)?
    };
    if record.status == Status::Finished {
        println!("'{}' is finished already", run.display());
        return Ok(true);
    }
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
        ranks,
        stop,
    };
    if !arguments.resume {
        // Nothing is written before the whole configuration was seen to fit the data and the model.
        training.check()?;
        write_whole(&run.join("config.toml"), toml::to_string(&config)?.as_bytes())?;
        selection.save(&run.join("selection.json"))?;
        record.save(run)?;
    }
    ranks.call_others();
    if !ranks.is_first() {
        return Ok(training.run(&mut record)? == Outcome::Finished);
    }
    eprintln!(
        "{}: {} of {}, {} labelled; validation {}; test {} of {}; {} with {}",
        run.display(),
        counted(selection.train.len(), "training slice"),
        counted(selection.split.train.len(), "patient"),
        selection.labelled.len(),
        counted(selection.validation.len(), "slice"),
        counted(selection.test.len(), "slice"),
        counted(selection.split.test.len(), "patient"),
        name,
        counted(threads as usize, "thread"),
    );
    eprintln!("label budget: {}{}", record.label_budget, record.label_budget.time());
    let labels = LabelCounts::of(selection.train.iter().filter_map(|id| store.records().get(store.position(id)?)));
    if labels.presence.unknown > 0 {
        eprintln!(
            "of {} training slices nobody has said whether they show the {}: no loss is of them",
            labels.presence.unknown,
            store.info().target
        );
    }
    let outcome = training.run(&mut record)?;
    if record.slices_per_second > 0.0 {
        eprintln!(
            "{:.1} slices/s, {:.0} % waiting for the loader",
            record.slices_per_second,
            100.0 * record.wait_share
        );
    }
    if arguments.profile {
        eprint!("{}", record.times);
        if let Some(bytes) = device::memory_in_use(device) {
            let gib = bytes as f64 / f64::from(1 << 30);
            eprintln!("{:<12}{gib:>8.1} GiB taken at the end, by all programs", "GPU memory");
        }
    }
    report(&record, outcome, arguments);
    Ok(outcome == Outcome::Finished)
}

/// What a file says, if that is a choice of the store's slices.
fn selection_of(store: &SliceStore, path: &Path) -> Result<Selection> {
    let selection = Selection::load(path)?;
    selection.check(path, store)?;
    Ok(selection)
}

/// What `--config`, `--set` and `--weights` say; when a run goes on, its own configuration, which they may not contradict.
fn configuration(arguments: &TrainArgs) -> Result<Config> {
    let run = arguments.run.as_path();
    let mut config = match (&arguments.config, arguments.resume) {
        (_, true) => Config::load(&run.join("config.toml"), &arguments.set)?,
        (Some(path), false) => Config::load(path, &arguments.set)?,
        (None, false) => bail!("--config is missing"),
    };
    if let Some(weights) = &arguments.weights {
        config.segmenter.weights = Some(weights.clone());
    }
    if arguments.resume {
        if arguments.weights.is_none() {
            find_weights(run, &mut config, &RunRecord::load(run)?)?;
        }
        let mut own = Config::load(&run.join("config.toml"), &[])?;
        own.segmenter.weights.clone_from(&config.segmenter.weights);
        let mut asked =
            arguments.config.as_ref().map_or_else(|| Ok(config.clone()), |path| Config::load(path, &arguments.set))?;
        asked.segmenter.weights.clone_from(&config.segmenter.weights);
        planned::keep(&own, &mut asked)?;
        let difference = differing_settings(&own, &asked)?;
        ensure!(
            difference.is_empty(),
            "'{}' was begun with another configuration:\n  {}\nA run keeps its configuration; start a new one with another --run",
            run.display(),
            difference.join("\n  ")
        );
    }
    Ok(config)
}

/// The record of a run that goes on, on the store that it was begun on.
fn begun_before(run: &Path, store: &Slices, ranks: &Ranks, device: &str, threads: i32) -> Result<RunRecord> {
    let record = RunRecord::load(run)?;
    ensure!(
        record.store.checksum == store.checksum(),
        "'{}' was trained on a store with checksum {}, but '{}' has {}",
        run.display(),
        record.store.checksum,
        store.path().display(),
        store.checksum()
    );
    let is_as_before = (record.threads, record.device.as_str()) == (threads, device);
    if ranks.is_first() && record.status != Status::Finished && !is_as_before {
        eprintln!(
            "note: begun on {} with {} threads, going on on {device} with {threads}: results may differ in the last bits",
            record.device, record.threads,
        );
    }
    Ok(record)
}

/// Set by a program that started this one as a part of more, and says itself how all of it goes on.
const IN_CHAIN: &str = "SAM_MIX_IN_CHAIN";

/// Says how it ended.
fn report(record: &RunRecord, outcome: Outcome, arguments: &TrainArgs) {
    let run = arguments.run.as_path();
    match outcome {
        Outcome::Finished => {
            for phase in &record.phases {
                let dice =
                    phase.validation_dice.map_or("no segmentation".into(), |d| format!("validation Dice {d:.4}"));
                let epochs = phase.epochs.map_or_else(String::new, |n| format!(", {}", counted(n, "epoch")));
                eprintln!("phase {}: {dice}{epochs}, {:.0} s", phase.name, phase.seconds);
            }
            if record.skipped_updates > 0 {
                let left_out = counted(record.skipped_updates, "update");
                eprintln!("{left_out} left out: the loss or its gradient was not finite");
            }
            println!("trained in {:.0} s: '{}'", record.seconds, run.display());
        }
        Outcome::Interrupted => {
            let saved = if run.join("checkpoints").is_dir() { " and saved" } else { " before anything was learnt" };
            let embeddings = arguments.embeddings.as_ref();
            let embeddings =
                embeddings.map_or_else(String::new, |folder| format!(" --embeddings {}", folder.display()));
            if std::env::var_os(IN_CHAIN).is_some() {
                return println!("stopped{saved}");
            }
            println!(
                "stopped{saved}. To go on:\n  {} train --resume --run {} --store {}{embeddings}",
                program(),
                run.display(),
                arguments.store.display()
            );
        }
    }
}
