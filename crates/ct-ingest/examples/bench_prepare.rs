//! `sam-mix-data prepare` against the usual Python way (nibabel, PIL) and against the time that libdeflate alone needs for
//! the same files: wall time and peak memory of each process, in one run.
//!
//! `cargo xtask bench prepare --python PYTHON` makes the data and starts it.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rayon::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Times `prepare` against its peer and its limit.
#[derive(Parser)]
struct Arguments {
    /// Folder of `volume-N.nii.gz` and `segmentation-N.nii.gz`
    #[arg(long, default_value = "data/bench-prepare")]
    data: PathBuf,
    /// Folder of small volumes that the growth is measured on
    #[arg(long, default_value = "data/phantom")]
    small: PathBuf,
    /// The program
    #[arg(long, default_value = "target/release/sam-mix-data")]
    program: PathBuf,
    /// Python with nibabel, numpy and pillow; without it only our own time is measured
    #[arg(long)]
    python: Option<PathBuf>,
    /// The peer's script
    #[arg(long, default_value = "../shared/peers/prepare.py")]
    peer: PathBuf,
    /// Rounds of all programs, one after the other; medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Volumes of the larger set of the growth
    #[arg(long, default_value_t = 400)]
    many: usize,
    /// Inflate these files and end: the limit measures itself in a process of its own
    #[arg(long, num_args = 1.., hide = true)]
    inflate: Vec<PathBuf>,
}

/// A process's wall time and its largest resident memory.
#[derive(Clone, Copy)]
struct Measured {
    seconds: f64,
    peak_mb: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if !arguments.inflate.is_empty() {
        return inflate(&arguments.inflate, arguments.jobs);
    }
    ensure!(arguments.rounds > 0 && arguments.jobs > 0, "--rounds and --jobs must be at least 1");
    let scratch = tempfile::tempdir_in(arguments.data.parent().unwrap_or(Path::new(".")))?;
    speed(&arguments, scratch.path())?;
    growth(&arguments, scratch.path())
}

fn speed(arguments: &Arguments, scratch: &Path) -> Result<()> {
    let files = gzip_files(&arguments.data)?;
    let (ours, peers) = (scratch.join("ours"), scratch.join("peers"));
    let mut times: [Vec<Measured>; 3] = Default::default();
    for _ in 0..arguments.rounds {
        let mut limit = Command::new(std::env::current_exe()?);
        limit.arg("--jobs").arg(arguments.jobs.to_string()).arg("--inflate").args(&files);
        times[0].push(measure(&mut limit)?);
        let _ = fs::remove_dir_all(&ours);
        times[1].push(measure(&mut prepare(arguments, &arguments.data, &ours))?);
        if let Some(python) = &arguments.python {
            let _ = fs::remove_dir_all(&peers);
            times[2].push(measure(Command::new(python).arg(&arguments.peer).arg(&arguments.data).arg(&peers))?);
        }
    }
    let [limit, ours_time, peer] = times.map(|times| median(&times));
    let bytes: u64 = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum();
    println!(
        "{} files, {:.0} MB gzipped; {} threads; medians of {} rounds\n",
        files.len(),
        bytes as f64 / 1e6,
        arguments.jobs,
        arguments.rounds
    );
    println!("| program | seconds | peak MB | time / ours | memory / ours |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let row = |name: &str, it: Option<Measured>| {
        if let (Some(it), Some(ours)) = (it, ours_time) {
            println!(
                "| {name} | {:.2} | {:.0} | {:.2} × | {:.2} × |",
                it.seconds,
                it.peak_mb,
                it.seconds / ours.seconds,
                it.peak_mb / ours.peak_mb
            );
        }
    };
    row("sam-mix-data prepare", ours_time);
    row("libdeflate alone (limit)", limit);
    row("nibabel and PIL (peer)", peer);
    println!();
    if let Some(python) = &arguments.python {
        accuracy(python, &ours, &peers)
    } else {
        println!("peer skipped: no --python with nibabel, numpy and pillow");
        Ok(())
    }
}

/// As the peer works: clipped to the window before the resize, masks by nearest neighbour.
fn prepare(arguments: &Arguments, data: &Path, store: &Path) -> Command {
    let mut command = Command::new(&arguments.program);
    command.args(["prepare", "--manifest", "phantom", "--window-at", "prepare", "--mask-resize", "nearest"]);
    command.arg("--jobs").arg(arguments.jobs.to_string()).arg("--data").arg(data).arg("--store").arg(store);
    command
}

/// How far our slices are from the peer's, which keeps the file's axes: its slices are transposed, and turned where a file is
/// stored RAS. There its nearest neighbours are the other ones of each pair, so masks are compared where nothing was turned.
fn accuracy(python: &Path, ours: &Path, peers: &Path) -> Result<()> {
    let script = "
import glob, json, sys, numpy as np
worst, wrong, pixels = 0, 0, 0
for path in sorted(glob.glob(sys.argv[1] + '/images/*.npy')):
    case = path.split('/')[-1][:-4]
    images, masks = np.load(path), np.load(path.replace('/images/', '/masks/'))
    axes = json.load(open(path.replace('/images/', '/cases/').replace('.npy', '.json')))['provenance']['orientation']
    turn = {'LPS': 1, 'RAS': -1}[axes]
    for k in range(len(images)):
        theirs = f'{sys.argv[2]}/volume-{case}-{k:04}'
        image = np.load(theirs + '.npy').astype(np.float32).T[::turn, ::turn]
        worst = max(worst, np.abs(images[k] - image).max())
        if turn == 1:
            wrong += (masks[k] != np.load(theirs + '-mask.npy').T).sum()
            pixels += masks[k].size
print(f'accuracy against the peer: image at most {worst:.3f} HU apart, {wrong} of {pixels} mask pixels differ')
";
    let status = Command::new(python).args(["-c", script]).arg(ours).arg(peers).status()?;
    ensure!(status.success(), "the comparison failed");
    Ok(())
}

/// Time and memory for few volumes and for a hundred times as many.
fn growth(arguments: &Arguments, scratch: &Path) -> Result<()> {
    let volumes = gzip_files(&arguments.small)?.len() / 2;
    ensure!(volumes > 0, "'{}' has no volumes; `cargo xtask prepare` makes them", arguments.small.display());
    println!("\n| volumes (linked from {volumes}) | seconds | peak MB |\n| ---: | ---: | ---: |");
    for count in [4, arguments.many / 10, arguments.many] {
        let (data, store) = (scratch.join(format!("links-{count}")), scratch.join(format!("store-{count}")));
        fs::create_dir_all(&data)?;
        for case in 0..count {
            for kind in ["volume", "segmentation"] {
                let source = arguments.small.join(format!("{kind}-{}.nii.gz", case % volumes));
                fs::hard_link(&source, data.join(format!("{kind}-{case}.nii.gz")))
                    .with_context(|| format!("cannot link '{}'", source.display()))?;
            }
        }
        let mut times = Vec::new();
        for _ in 0..arguments.rounds {
            let _ = fs::remove_dir_all(&store);
            times.push(measure(&mut prepare(arguments, &data, &store))?);
        }
        if let Some(it) = median(&times) {
            println!("| {count} | {:.2} | {:.0} |", it.seconds, it.peak_mb);
        }
    }
    Ok(())
}

/// Runs a program to its end; its memory is looked at every millisecond.
fn measure(command: &mut Command) -> Result<Measured> {
    let begun = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let status_file = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak_kb = 0.0_f64;
    let status = loop {
        if let Some(kb) = fs::read_to_string(&status_file).ok().as_deref().and_then(high_water_kb) {
            peak_kb = peak_kb.max(kb);
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let seconds = begun.elapsed().as_secs_f64();
    let mut message = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut message)?;
    }
    ensure!(status.success(), "{} failed: {message}", command.get_program().display());
    Ok(Measured { seconds, peak_mb: peak_kb / 1e3 })
}

fn high_water_kb(status: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()
}

fn median(times: &[Measured]) -> Option<Measured> {
    let middle = |value: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = times.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some(Measured { seconds: middle(|m| m.seconds)?, peak_mb: middle(|m| m.peak_mb)? })
}

fn gzip_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list '{}'", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    files.sort();
    Ok(files)
}

/// Inflates files whole, as many at a time as there are threads.
fn inflate(files: &[PathBuf], jobs: usize) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build()?;
    let one = |file: &PathBuf| -> Result<usize> {
        let packed = fs::read(file)?;
        let length = packed.last_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize);
        let mut bytes = vec![0; length];
        Ok(libdeflater::Decompressor::new().gzip_decompress(&packed, &mut bytes)?)
    };
    pool.install(|| files.par_iter().with_max_len(1).map(one).sum::<Result<usize>>()).map(drop)
}
