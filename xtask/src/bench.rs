//! `cargo xtask bench NAME`: a benchmark, which is an example program of the crate that it measures.

use anyhow::{Context, Result};
use clap::ValueEnum;
use std::ffi::OsString;
use std::process::ExitCode;

use crate::workspace::Workspace;

pub const ABOUT: &str = "Run a benchmark";

pub const EXAMPLES: &str = "\
Examples:
  cargo xtask bench metrics";

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
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let (package, example) = match args.name {
        Benchmark::Metrics => ("seg-metrics", "bench_metrics"),
    };
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--release", "-p", package, "--example", example, "--"]).args(&args.arguments);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
