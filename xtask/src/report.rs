//! `cargo xtask report`: a run directory as one HTML page. Needs no libtorch.

use anyhow::Result;
use std::process::ExitCode;

use crate::binary::{self, Forwarded, REPORT};
use crate::workspace::Workspace;

pub const ABOUT: &str = "Write a run's report: one self-contained HTML page";

pub const EXAMPLES: &str = "\
Starts `sam-mix-report` with the given arguments.

Examples:
  cargo xtask report runs/quickstart
  cargo xtask report runs/quickstart --output quickstart.html";

pub fn run(workspace: &Workspace, forwarded: &Forwarded) -> Result<ExitCode> {
    if forwarded.asks_for_help() {
        return binary::help(workspace, "report", &REPORT, &[]);
    }
    binary::start(workspace, &REPORT, &[], &forwarded.arguments)
}
