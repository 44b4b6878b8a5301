//! `cargo xtask parity`: the official Python package makes a full-size model and its outputs, and ours is compared with it.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::python::Python;
use crate::setup;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Compare every layer with the official Python code";

pub const EXAMPLES: &str = "\
Installs the official packages into .deps/reference (about 6 GB, once), lets them make a model of
random weights and what it computes, runs the parity tests, and prints the differences layer by
layer. The exit code is 1 where one is too large.

Examples:
  cargo xtask parity
  cargo xtask parity --model mobile-sam
  cargo xtask parity --size 512 --python venv/bin/python";

#[derive(clap::Args)]
pub struct Args {
    /// Which model is made
    #[arg(long, value_enum, default_value_t = Model::VitB)]
    model: Model,
    /// Side of its input in pixels [default: 1024, and 256 for LiteMedSAM]
    #[arg(long, value_name = "PIXELS")]
    size: Option<u32>,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A Python that has the packages of crates/sam-segmenter/tests/fixtures/requirements.txt already
    #[arg(long)]
    python: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    VitB,
    VitL,
    VitH,
    MobileSam,
    LiteMedsam,
}

impl Model {
    /// As the scripts call it, and the family that its weights are of.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::VitB => ("vit_b", "sam"),
            Self::VitL => ("vit_l", "sam"),
            Self::VitH => ("vit_h", "sam"),
            Self::MobileSam => ("mobile_sam", "mobile-sam"),
            Self::LiteMedsam => ("lite_medsam", "lite-medsam"),
        }
    }
}

const SCRIPTS: &str = "crates/sam-segmenter/tests/fixtures";

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    setup::ensure(workspace)?;
    let python = match &args.python {
        Some(python) => python.clone(),
        None => reference(workspace)?,
    };
    let (model, family) = args.model.names();
    let folder = workspace.root().join("data/parity").join(model);
    let mut make = Command::new(&python);
    make.arg(workspace.root().join(SCRIPTS).join("make_parity_model.py")).arg(&folder);
    make.args(["--model", model, "--seed", &args.seed.to_string()]);
    if let Some(size) = args.size {
        make.args(["--size", &size.to_string()]);
    }
    succeed(&mut make)?;
    let on_gpu = on_gpu(workspace);
    succeed(workspace.cargo().args(&on_gpu).args(["test", "--release", "-p", "sam-segmenter", "--tests"]))?;
    let mut compare = workspace.cargo();
    compare.args(&on_gpu).args(["run", "--release", "-p", "sam-segmenter", "--example", "parity", "--"]);
    compare
        .arg(folder.join(format!("{model}.pth")))
        .arg(folder.join("expected.safetensors"))
        .args(["--family", family]);
    let status = compare.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tests and examples don't open libtorch_cuda by themselves, as the trainer does: where there is a driver, cargo starts them
/// with it.
fn on_gpu(workspace: &Workspace) -> Vec<String> {
    let library = workspace.deps().join("libtorch/lib/libtorch_cuda.so");
    if !crate::cuda_build::has_driver(Path::new("/")) || !library.exists() {
        return Vec::new();
    }
    let runner = format!("target.'cfg(all())'.runner=['env', 'LD_PRELOAD={}']", library.display());
    vec!["--config".into(), runner]
}

/// The Python of an environment that has the official packages; made anew where their list is another.
pub fn reference(workspace: &Workspace) -> Result<PathBuf> {
    let (environment, list) =
        (workspace.deps().join("reference"), workspace.root().join(SCRIPTS).join("requirements.txt"));
    let (program, stamp) = (environment.join("bin/python"), environment.join("requirements.sha256"));
    let wanted = fs::read(&list).with_context(|| format!("cannot read '{}'", list.display()))?;
    let wanted = format!("{:?}", Sha256::digest(&wanted));
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(program);
    }
    println!("installing the official packages into {} (about 6 GB)", workspace.shown(&environment));
    let _ = fs::remove_dir_all(&environment);
    succeed(Python::find()?.command().args(["-m", "venv"]).arg(&environment))?;
    succeed(Command::new(&program).args(["-m", "pip", "install", "-r"]).arg(&list))?;
    fs::write(&stamp, wanted)?;
    Ok(program)
}

fn succeed(command: &mut Command) -> Result<()> {
    let shown = Path::new(command.get_program()).display().to_string();
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status}): its message is above");
    }
    Ok(())
}
