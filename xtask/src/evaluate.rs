//! `cargo xtask evaluate`: the metrics of a trained run.

use anyhow::Result;
use std::process::ExitCode;

use crate::binary::{self, Forwarded, SAM_MIX};
use crate::setup;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Measure a trained run on the patients of a split";

pub const EXAMPLES: &str = "\
Starts `sam-mix evaluate` with the given arguments.

Examples:
  cargo xtask evaluate --run runs/quickstart --store stores/phantom --split test";

pub fn run(workspace: &Workspace, forwarded: &Forwarded) -> Result<ExitCode> {
    if forwarded.asks_for_help() {
        return binary::help(workspace, "evaluate", &SAM_MIX, &["evaluate"]);
    }
    setup::ensure_libtorch(workspace)?;
    binary::start(workspace, &SAM_MIX, &["evaluate"], &forwarded.arguments)
}
