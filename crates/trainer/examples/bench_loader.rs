//! The loader against torch's DataLoader and MONAI's CacheDataset over the same store, and against having every batch in
//! memory already.
//!
//! `cargo xtask bench loader --python PYTHON` makes the store and starts it.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use losses::focal_loss;
use slice_augment::Augmentation;
use slice_store::{SliceStore, TrainingSlices};
use stage_api::{Mode, PresenceClassifier};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tch::{Device, Tensor};
use trainer::config::Config;
use trainer::loader::{Batch, Loader};
use trainer::plan::{SliceCopy, Step, plan};
use trainer::registry::Registry;

/// Times the loader against its peers.
#[derive(Parser)]
struct Arguments {
    /// A prepared store with masks
    #[arg(long, default_value = "stores/phantom")]
    store: PathBuf,
    /// Python with torch, torchvision and monai; without it only our own time is measured
    #[arg(long)]
    python: Option<PathBuf>,
    /// The DataLoader peer's script
    #[arg(long, default_value = "../shared/peers/loader.py")]
    peer: PathBuf,
    /// Rounds of all programs, one after the other; medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads of ours, workers of the peers'
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Slices in a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Slices in a step of the classifier, as in the default configuration
    #[arg(long, default_value_t = 4)]
    classifier_batch: usize,
    /// Measure ourselves once, print slices per second and end
    #[arg(long, hide = true)]
    ours: bool,
    /// With augmentation
    #[arg(long, hide = true)]
    augment: bool,
}

/// The peer's DataLoader is given three epochs and a first one that does not count; so are we.
const EPOCHS: usize = 3;

/// An epoch in memory takes half a second, and single ones differ by a tenth: rounds of them for each round of programs.
const ROUNDS_OF_EPOCHS: usize = 12;

fn main() -> Result<()> {
    predictor::memory::keep_freed();
    let arguments = Arguments::parse();
    ensure!(arguments.rounds > 0 && arguments.workers > 0 && arguments.batch > 0, "counts must be at least 1");
    let store = SliceStore::open(&arguments.store)?;
    let store = store.for_training(0..store.records().len())?;
    if arguments.ours {
        let batches = all_labelled(store.records().len(), arguments.batch);
        println!("slices/s {:.0}", speed(&store, &batches, &arguments)?);
        return Ok(());
    }
    println!(
        "{} slices of {} x {}, batches of {}, {} workers; medians of {} rounds\n",
        store.records().len(),
        store.slice_size(),
        store.slice_size(),
        arguments.batch,
        arguments.workers,
        arguments.rounds
    );
    println!("| loader | slices/s | ours / it | augmented slices/s | ours / it |\n| --- | ---: | ---: | ---: | ---: |");
    against_peers(&arguments)?;
    println!();
    against_memory(&store, &arguments)
}

fn against_peers(arguments: &Arguments) -> Result<()> {
    let monai = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peer_loader_monai.py");
    let ours = std::env::current_exe()?;
    let mut names = vec!["ours"];
    let mut programs: Vec<(PathBuf, Vec<PathBuf>)> =
        vec![(ours, vec!["--ours".into(), "--store".into(), arguments.store.clone()])];
    if let Some(python) = &arguments.python {
        names.extend(["torch DataLoader", "MONAI CacheDataset"]);
        for script in [&arguments.peer, &monai] {
            programs.push((python.clone(), vec![script.clone(), arguments.store.clone()]));
        }
    }
    // By program, without and with augmentation.
    let mut rates = vec![[const { Vec::new() }; 2]; programs.len()];
    for _ in 0..arguments.rounds {
        for (at, augment) in [false, true].into_iter().enumerate() {
            for ((program, fixed), rates) in programs.iter().zip(&mut rates) {
                let mut command = Command::new(program);
                command.args(fixed).args(["--workers", &arguments.workers.to_string()]);
                command.args(["--batch", &arguments.batch.to_string()]).args(augment.then_some("--augment"));
                rates[at].push(printed_rate(&mut command)?);
            }
        }
    }
    let medians: Vec<[f64; 2]> = rates.into_iter().map(|both| both.map(median)).collect();
    for (name, [plain, augmented]) in names.iter().zip(&medians) {
        let [ours, ours_augmented] = medians[0];
        let (x, y) = (ours / plain, ours_augmented / augmented);
        println!("| {name} | {plain:.0} | {x:.1} × | {augmented:.0} | {y:.1} × |");
    }
    if arguments.python.is_none() {
        println!("\npeers skipped: no --python with torch, torchvision and monai");
    }
    Ok(())
}

/// The number after `slices/s` in what a program prints.
fn printed_rate(command: &mut Command) -> Result<f64> {
    let output = command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split_once("slices/s ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no rate in '{text}' of {command:?}:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Slices per second of the middle epoch, image and mask of each.
fn speed(store: &TrainingSlices, batches: &[Step], arguments: &Arguments) -> Result<f64> {
    let mut config = configuration(arguments.batch)?;
    if arguments.augment {
        // As the peers: rotation, shift, scale, gamma and noise in every slice.
        config.augmentation.labelled = Augmentation {
            rotate_deg: 10.0,
            shift: 0.05,
            scale: 0.1,
            gamma: 0.4,
            noise_hu: 16.0,
            ..Augmentation::default()
        };
    }
    let loader = Loader::new(store, &config, Device::Cpu, arguments.workers)?;
    let mut rates = Vec::new();
    for epoch in 0..=EPOCHS {
        let begun = Instant::now();
        let count: usize = std::thread::scope(|scope| {
            let batches = loader.start(scope, batches);
            batches.map(|batch| batch.labelled.map_or(0, |labelled| labelled.images.size()[0] as usize)).sum()
        });
        if epoch > 0 {
            rates.push(count as f64 / begun.elapsed().as_secs_f64());
        }
    }
    Ok(median(rates))
}

/// One epoch of images with masks, in a shuffled order.
fn all_labelled(slices: usize, batch: usize) -> Vec<Step> {
    // 7919 is prime: all rows, far apart.
    let order: Vec<usize> = (0..slices).map(|i| i * 7919 % slices).collect();
    let batches: Vec<&[usize]> = order.chunks(batch).collect();
    let step = |(index, rows): (usize, &&[usize])| Step {
        index,
        phase: 0,
        epoch: 0,
        ends_epoch: index + 1 == batches.len(),
        accumulates: 1,
        updates: true,
        slices: Vec::new(),
        crops: Vec::new(),
        labelled: rows.iter().map(|&row| SliceCopy::unchanged(row)).collect(),
        masks: Vec::new(),
        bags: Vec::new(),
    };
    batches.iter().enumerate().map(step).collect()
}

fn configuration(batch: usize) -> Result<Config> {
    // A classifier of which a step takes a few milliseconds.
    let text = format!(
        "[sampling]\nlabelled = 5\n[augmentation.classifier]\nprobability = 0\n[classifier]\nbatch_slices = {batch}\n\
         settings = {{ block = \"basic\", blocks = [1, 1, 1, 1], width = 2, input_scale = 0.25 }}\n\
         [[phase]]\nname = \"classifier\"\nepochs = 1\nlabelled_passes = 0\n"
    );
    Config::parse(&text, &[])
}

/// An epoch of a small classifier behind the loader, against the same epoch with its batches in memory.
fn against_memory(store: &TrainingSlices, arguments: &Arguments) -> Result<()> {
    let config = configuration(arguments.classifier_batch)?;
    tch::set_num_threads(arguments.workers as i32);
    let classifier = Registry::default().models.classifier(&config.model().classifier, 0, Device::Cpu)?;
    let rows: Vec<usize> = (0..store.records().len()).collect();
    let steps = plan(&config, &rows, &rows[..1], &[], &[]);
    let loader = Loader::new(store, &config, Device::Cpu, arguments.workers)?;
    let in_memory: Vec<Batch> = steps.iter().map(|step| loader.load(step)).collect();
    let (mut memory, mut loaded, mut waited) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=arguments.rounds * ROUNDS_OF_EPOCHS {
        let begun = Instant::now();
        for batch in &in_memory {
            step(classifier.as_ref(), batch);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let mut waiting = 0.0;
        std::thread::scope(|scope| {
            let mut batches = loader.start(scope, &steps);
            loop {
                let asked = Instant::now();
                let Some(batch) = batches.next() else { break };
                waiting += asked.elapsed().as_secs_f64();
                step(classifier.as_ref(), &batch);
            }
        });
        if round > 0 {
            memory.push(seconds);
            loaded.push(begun.elapsed().as_secs_f64());
            waited.push(waiting);
        }
    }
    let ratios: Vec<f64> = loaded.iter().zip(&memory).map(|(a, b)| a / b).collect();
    let (memory, loaded, waited) = (median(memory), median(loaded), median(waited));
    println!(
        "epoch of {} steps of {:.1} ms: {memory:.3} s with batches in memory, {loaded:.3} s behind the loader: {:.3} × \
         (median of the rounds' ratios), {:.1} % of it waiting",
        steps.len(),
        1e3 * memory / steps.len() as f64,
        median(ratios),
        100.0 * waited / loaded
    );
    Ok(())
}

/// Loss, gradients and a plain gradient step.
fn step(classifier: &dyn PresenceClassifier, batch: &Batch) {
    let Some(slices) = &batch.slices else { return };
    focal_loss(&classifier.forward(&slices.images, Mode::Train).logit, &slices.labels, 2.0, 0.5).backward();
    tch::no_grad(|| {
        for parameter in classifier.tensors().into_iter().map(|t| t.tensor).filter(Tensor::requires_grad) {
            let mut gradient = parameter.grad();
            let _ = parameter.shallow_clone().g_sub_(&(&gradient * 1e-3));
            let _ = gradient.zero_();
        }
    });
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
