//! `cargo xtask prepare`: CT volumes to a slice store. Without arguments: synthetic volumes.

use anyhow::Result;
use std::process::ExitCode;

use crate::binary::{self, DATA, Forwarded, PHANTOM};
use crate::chain::Chain;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Turn CT volumes into a slice store; without arguments, synthetic ones";

pub const EXAMPLES: &str = "\
Without arguments: writes synthetic volumes to data/phantom and prepares them into stores/phantom.
With arguments: starts `sam-mix-data prepare` with them. An interrupted run is continued by the same command.

Examples:
  cargo xtask prepare
  cargo xtask prepare --manifest lits --data ~/lits --store stores/lits";

/// Where the synthetic data set lies, in the checkout.
pub const PHANTOM_STORE: &str = "stores/phantom";
const PHANTOM_DATA: &str = "data/phantom";

pub fn run(workspace: &Workspace, forwarded: &Forwarded) -> Result<ExitCode> {
    if forwarded.asks_for_help() {
        return binary::help(workspace, "prepare", &DATA, &["prepare"]);
    }
    if !forwarded.arguments.is_empty() {
        return binary::start(workspace, &DATA, &["prepare"], &forwarded.arguments);
    }
    let mut chain = Chain::begin(workspace, "cargo xtask prepare")?;
    chain.part("building", || binary::build(workspace, &[&PHANTOM, &DATA]))?;
    phantom(workspace, &mut chain)?;
    println!("\nsynthetic data set: {PHANTOM_STORE}\n{}next: cargo xtask train", chain.summary());
    Ok(ExitCode::SUCCESS)
}

/// The synthetic data set, made where it is missing. The programs are built.
pub fn phantom(workspace: &Workspace, chain: &mut Chain) -> Result<()> {
    // Its last file: the rest is whole, and may have been made with other settings.
    if !workspace.root().join(PHANTOM_DATA).join("phantom.json").exists() {
        chain.program("data", &PHANTOM, &["--output", PHANTOM_DATA])?;
    }
    // Cases that are there already are left alone.
    let arguments = ["prepare", "--manifest", "phantom", "--data", PHANTOM_DATA, "--store", PHANTOM_STORE];
    chain.program("data", &DATA, &arguments)
}
