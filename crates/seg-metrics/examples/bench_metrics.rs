//! HD95 of every slice of a 512 × 512 × 100 volume, or what is reported of the volume as a whole: this crate against MONAI
//! and surface-distance, on the same masks, in the same run, each in one thread.
//!
//! `cargo run --release -p seg-metrics --example bench_metrics -- --python venv/bin/python [--whole]`

use std::f64::consts::TAU;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use seg_metrics::{
    MaskView, Spacing, VolumeView, dice, surface_distances, volume_metrics, volume_surface_distances,
    volume_surfel_distances,
};

/// Millimetres between slices, rows and columns of the volume as a whole.
const SPACING_MM: [f64; 3] = [1.5, 0.75, 0.75];

/// Times HD95 against MONAI and surface-distance and prints the ratios.
#[derive(Parser)]
struct Arguments {
    /// Python with `monai`, `torch` and `surface-distance`; without it only our own time is printed
    #[arg(long)]
    python: Option<PathBuf>,
    /// Slices of the volume
    #[arg(long, default_value_t = 100)]
    slices: usize,
    /// Rows and columns of a slice
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Passes over the volume; the fastest counts
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Seed of the generated masks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Measure the volume as a whole, at 1.5 × 0.75 × 0.75 mm: HD95 and ASSD as MONAI has them, NSD and HD95 as
    /// surface-distance has them
    #[arg(long)]
    whole: bool,
}

/// Of the fastest pass.
struct Timing {
    name: String,
    seconds: f64,
    /// Mean of all slices in pixels, or of the volume in mm.
    hd95: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.slices > 0 && arguments.repeats > 0, "--slices and --repeats must be at least 1");
    let (predictions, truths) = volume(&arguments);
    let ours = if arguments.whole {
        time_volume(&predictions, &truths, &arguments)?
    } else {
        vec![time_slices(&predictions, &truths, &arguments)?]
    };
    let peers = if let Some(python) = &arguments.python {
        time_peers(python, &predictions, &truths, &arguments)?
    } else {
        println!("peers skipped: no --python with monai, torch and surface-distance");
        Vec::new()
    };

    let Arguments { slices, size, repeats, .. } = arguments;
    println!("{slices} slices of {size} × {size}, one thread, fastest of {repeats} passes\n");
    let (title, milliseconds, unit) =
        if arguments.whole { ("ms", 1e3, "mm") } else { ("ms per slice", 1e3 / slices as f64, "mean, px") };
    println!("| implementation | {title} | HD95 ({unit}) | time relative to the first |");
    println!("| --- | ---: | ---: | ---: |");
    for Timing { name, seconds, hd95 } in ours.iter().chain(&peers) {
        println!("| {name} | {:.3} | {hd95:.4} | {:.1} × |", seconds * milliseconds, seconds / ours[0].seconds);
    }
    Ok(())
}

/// Predictions and truths, `[slices, size, size]`: livers that swell and shrink through the volume, the prediction being
/// the truth with a more ragged contour.
fn volume(arguments: &Arguments) -> (Vec<u8>, Vec<u8>) {
    let mut rng = ChaCha8Rng::seed_from_u64(arguments.seed);
    let (mut predictions, mut truths) = (Vec::new(), Vec::new());
    for slice in 0..arguments.slices {
        let growth = 0.4 + 0.6 * ((slice as f64 + 0.5) / arguments.slices as f64 * TAU / 2.0).sin();
        let truth = contour(growth, 0.004, &mut rng);
        let raggedness = contour(0.0, 0.012, &mut rng);
        let prediction: Vec<f64> = truth.iter().zip(&raggedness).map(|(truth, change)| truth + change).collect();
        fill(&truth, arguments.size, &mut truths);
        fill(&prediction, arguments.size, &mut predictions);
    }
    (predictions, truths)
}

/// Radius for each of 720 directions as a share of the image: a rounded triangle of the size `growth` plus harmonics.
fn contour(growth: f64, raggedness: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let harmonics: Vec<(f64, f64, f64)> = (1..40)
        .map(|k| {
            (f64::from(k), raggedness * rng.random_range(-1.0..1.0) / f64::from(k).sqrt(), rng.random_range(0.0..TAU))
        })
        .collect();
    let radius = |angle: f64| {
        let liver = 0.21 + 0.04 * (angle + 0.5).cos() + 0.03 * (2.0 * angle + 1.0).cos();
        growth * liver + harmonics.iter().map(|(k, size, phase)| size * (k * angle + phase).cos()).sum::<f64>()
    };
    (0..720).map(|i| radius(f64::from(i) / 720.0 * TAU)).collect()
}

/// Appends the mask of what lies within the contour, around a centre left of and above the middle.
fn fill(contour: &[f64], size: usize, masks: &mut Vec<u8>) {
    let (center_y, center_x, size_px) = (0.48 * size as f64, 0.38 * size as f64, size as f64);
    for y in 0..size {
        for x in 0..size {
            let (dy, dx) = (y as f64 - center_y, x as f64 - center_x);
            let direction = (dy.atan2(dx).rem_euclid(TAU) / TAU * 720.0) as usize % 720;
            masks.push(u8::from(dy.hypot(dx) < contour[direction] * size_px));
        }
    }
}

fn time_slices(predictions: &[u8], truths: &[u8], arguments: &Arguments) -> Result<Timing> {
    let size = arguments.size;
    let mut pairs = Vec::new();
    for (prediction, truth) in predictions.chunks_exact(size * size).zip(truths.chunks_exact(size * size)) {
        pairs.push((MaskView::new(prediction, size, size)?, MaskView::new(truth, size, size)?));
    }
    let mean_dice = pairs.iter().map(|(prediction, truth)| dice(*prediction, *truth)).sum::<f64>() / pairs.len() as f64;
    println!("generated masks: mean Dice {mean_dice:.3}, seed {}", arguments.seed);
    let hd95 =
        |&(p, t): &(MaskView<'_>, MaskView<'_>)| surface_distances(p, t, Spacing::PIXELS).hausdorff_percentile(95.0);
    Ok(time("seg-metrics", arguments.repeats, || pairs.iter().map(hd95).sum::<f64>() / pairs.len() as f64))
}

fn time_volume(predictions: &[u8], truths: &[u8], arguments: &Arguments) -> Result<Vec<Timing>> {
    let view = |voxels| VolumeView::new(voxels, [arguments.slices, arguments.size, arguments.size], SPACING_MM);
    let (prediction, truth) = (view(predictions)?, view(truths)?);
    println!("generated masks, seed {}: {:?}", arguments.seed, volume_metrics(prediction, truth, 2.0));
    let edges = || {
        let distances = volume_surface_distances(prediction, truth);
        std::hint::black_box(distances.assd());
        distances.hausdorff_percentile(95.0)
    };
    let surfels = || {
        let distances = volume_surfel_distances(prediction, truth);
        std::hint::black_box(distances.surface_dice(2.0));
        distances.hausdorff_percentile(95.0)
    };
    Ok(vec![
        time("seg-metrics, all of `volume_metrics`", arguments.repeats, || {
            volume_metrics(prediction, truth, 2.0).hd95_mm
        }),
        time("seg-metrics, edge voxels: HD95, ASSD", arguments.repeats, edges),
        time("seg-metrics, surface elements: HD95, NSD", arguments.repeats, surfels),
    ])
}

fn time(name: &str, repeats: usize, measure: impl Fn() -> f64) -> Timing {
    let mut fastest = Timing { name: name.into(), seconds: f64::INFINITY, hd95: 0.0 };
    for _ in 0..repeats {
        let start = Instant::now();
        fastest.hd95 = measure();
        fastest.seconds = fastest.seconds.min(start.elapsed().as_secs_f64());
    }
    fastest
}

/// Hands the masks to the peers as .npy files and reads a line of JSON for each peer.
fn time_peers(python: &Path, predictions: &[u8], truths: &[u8], arguments: &Arguments) -> Result<Vec<Timing>> {
    let folder = tempfile::tempdir()?;
    let shape = [arguments.slices, arguments.size, arguments.size];
    let files = [folder.path().join("predictions.npy"), folder.path().join("truths.npy")];
    write_npy(&files[0], predictions, shape)?;
    write_npy(&files[1], truths, shape)?;

    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer_metrics.py"))
        .args(&files)
        .arg(arguments.repeats.to_string())
        .args(if arguments.whole { SPACING_MM.map(|spacing| spacing.to_string()).to_vec() } else { Vec::new() })
        .envs(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"].map(|name| (name, "1")))
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    ensure!(output.status.success(), "the peers ended with {}", output.status);

    let lines = String::from_utf8(output.stdout)?;
    let timing = |line: &str| -> Result<Timing> {
        let value: serde_json::Value = serde_json::from_str(line)?;
        let number = |key: &str| value[key].as_f64().with_context(|| format!("no number '{key}' in {line}"));
        let name = value["name"].as_str().context("a peer has no name")?.to_owned();
        Ok(Timing { name, seconds: number("seconds")?, hd95: number("hd95")? })
    };
    lines.lines().map(timing).collect()
}

/// Version 1.0 of NumPy's format: magic, length of the header, header padded to a multiple of 64 bytes, values.
fn write_npy(path: &Path, values: &[u8], [slices, height, width]: [usize; 3]) -> Result<()> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({slices}, {height}, {width})}}");
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut file = std::fs::File::create(path)?;
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(length as u16).to_le_bytes())?;
    file.write_all(format!("{header:<width$}\n", width = length - 1).as_bytes())?;
    Ok(file.write_all(values)?)
}
