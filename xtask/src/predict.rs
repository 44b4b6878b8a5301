//! `cargo xtask predict`: masks for CT volumes, in their own geometry.

use anyhow::Result;
use std::process::ExitCode;

use crate::binary::{self, Forwarded, SAM_MIX};
use crate::setup;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Write masks for CT volumes, in the volumes' own geometry";

pub const EXAMPLES: &str = "\
Starts `sam-mix predict` with the given arguments.

Examples:
  cargo xtask predict --run runs/quickstart --input ct.nii.gz --output mask.nii.gz";

pub fn run(workspace: &Workspace, forwarded: &Forwarded) -> Result<ExitCode> {
    if forwarded.asks_for_help() {
        return binary::help(workspace, "predict", &SAM_MIX, &["predict"]);
    }
    setup::ensure_libtorch(workspace)?;
    binary::start(workspace, &SAM_MIX, &["predict"], &forwarded.arguments)
}
