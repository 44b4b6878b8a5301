//! `cargo xtask export`: a run's segmenter for other programs.

use anyhow::Result;
use std::process::ExitCode;

use crate::binary::{self, Forwarded, SAM_MIX};
use crate::setup;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Write a run's segmenter as plain SAM weights, TorchScript or adapters";

pub const EXAMPLES: &str = "\
Starts `sam-mix export` with the given arguments.

Examples:
  cargo xtask export --run runs/quickstart --to safetensors
  cargo xtask export --run runs/quickstart --to torchscript --output exported/
  cargo xtask export --weights sam_vit_b_01ec64.pth --to torchscript --output sam-vit-b/";

pub fn run(workspace: &Workspace, forwarded: &Forwarded) -> Result<ExitCode> {
    if forwarded.asks_for_help() {
        return binary::help(workspace, "export", &SAM_MIX, &["export"]);
    }
    setup::ensure_libtorch(workspace)?;
    binary::start(workspace, &SAM_MIX, &["export"], &forwarded.arguments)
}
