//! `cargo xtask bench NAME`: a benchmark, which is an example program of the crate that it measures.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::ffi::OsString;
use std::process::ExitCode;

use crate::binary::{self, DATA, PHANTOM};
use crate::chain::Chain;
use crate::prepare;
use crate::setup;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Run a benchmark";

pub const EXAMPLES: &str = "\
Examples:
  cargo xtask bench metrics
  cargo xtask bench loader --python venv/bin/python
  cargo xtask bench prepare --python venv/bin/python
  cargo xtask bench sam --python venv/bin/python --peer sam_step.py";

#[derive(clap::Args)]
pub struct Args {
    /// Which benchmark
    #[arg(value_enum)]
    name: Benchmark,
    /// Passed through to it
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Benchmark {
    /// Dice, Hausdorff distances and their like, per slice
    Metrics,
    /// Batches from a store: slices per second, and an epoch behind the loader
    Loader,
    /// Preparing a data set: time, memory, growth, accuracy
    Prepare,
    /// Encoders, decoder and training steps: time and memory
    Sam,
}

/// Four volumes of full size.
const FULL_SIZE: [&str; 8] = ["--output", PREPARE_DATA, "--patients", "4", "--slices", "200", "--size", "512"];
const PREPARE_DATA: &str = "data/bench-prepare";

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let (package, example) = match args.name {
        Benchmark::Metrics => ("seg-metrics", "bench_metrics"),
        Benchmark::Loader => {
            setup::ensure_libtorch(workspace)?;
            binary::build(workspace, &[&PHANTOM, &DATA])?;
            prepare::phantom(workspace, &mut Chain::begin(workspace, "cargo xtask bench loader")?)?;
            ("trainer", "bench_loader")
        }
        Benchmark::Prepare => {
            prepare_data(workspace)?;
            ("ct-ingest", "bench_prepare")
        }
        Benchmark::Sam => {
            setup::ensure(workspace)?;
            // The benchmark starts each work as a process of its own, for its memory.
            let status = workspace.cargo().args(["build", "--release", "-p", "sam-segmenter", "--examples"]).status();
            ensure!(status.context("cannot start cargo")?.success(), "the build failed: see cargo's message above");
            ("sam-segmenter", "bench_sam")
        }
    };
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--release", "-p", package, "--example", example, "--"]).args(&args.arguments);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `bench prepare` reads: full-size volumes, which take three minutes to make, and the quickstart's.
fn prepare_data(workspace: &Workspace) -> Result<()> {
    binary::build(workspace, &[&PHANTOM, &DATA])?;
    let mut chain = Chain::begin(workspace, "cargo xtask bench prepare")?;
    prepare::phantom(workspace, &mut chain)?;
    chain.program("full-size volumes", &PHANTOM, &FULL_SIZE)
}
