//! `cargo xtask inspect`: a look into a slice store. Needs no libtorch.

use anyhow::Result;
use std::process::ExitCode;

use crate::binary::{self, DATA, Forwarded};
use crate::workspace::Workspace;

pub const ABOUT: &str = "Show what is in a slice store, as numbers and as a picture";

pub const EXAMPLES: &str = "\
Starts `sam-mix-data inspect` with the given arguments.

Examples:
  cargo xtask inspect stores/phantom
  cargo xtask inspect stores/phantom --montage phantom.png";

pub fn run(workspace: &Workspace, forwarded: &Forwarded) -> Result<ExitCode> {
    if forwarded.asks_for_help() {
        return binary::help(workspace, "inspect", &DATA, &["inspect"]);
    }
    binary::start(workspace, &DATA, &["inspect"], &forwarded.arguments)
}
