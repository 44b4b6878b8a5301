//! The programs that the verbs start: built in release mode when needed, then given the terminal.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::setup;
use crate::workspace::Workspace;

/// A program of the workspace.
pub struct Binary {
    pub name: &'static str,
    /// First build on two cores in minutes: polars, libtorch's bindings.
    first_build_minutes: u32,
    links_libtorch: bool,
}

pub const PHANTOM: Binary = Binary { name: "sam-mix-phantom", first_build_minutes: 1, links_libtorch: false };
pub const DATA: Binary = Binary { name: "sam-mix-data", first_build_minutes: 8, links_libtorch: false };
pub const LABELS: Binary = Binary { name: "sam-mix-labels", first_build_minutes: 8, links_libtorch: false };
pub const SAM_MIX: Binary = Binary { name: "sam-mix", first_build_minutes: 12, links_libtorch: true };
pub const REPORT: Binary = Binary { name: "sam-mix-report", first_build_minutes: 1, links_libtorch: false };
pub const STUDY: Binary = Binary { name: "sam-mix-study", first_build_minutes: 8, links_libtorch: false };

/// Arguments that belong to the started program.
#[derive(clap::Args)]
pub struct Forwarded {
    /// The program's own, passed through unchanged
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

impl Forwarded {
    /// Whether an option without a value is among them.
    pub fn asks_for(&self, option: &str) -> bool {
        self.arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == option)
    }

    pub fn asks_for_help(&self) -> bool {
        self.asks_for("--help") || self.asks_for("-h")
    }
}

/// Builds the programs that are not up to date; cargo's messages stay visible.
pub fn build(workspace: &Workspace, binaries: &[&Binary]) -> Result<()> {
    let new: Vec<_> = binaries.iter().filter(|binary| !workspace.program(binary.name).exists()).collect();
    if let Some(minutes) = new.iter().map(|binary| binary.first_build_minutes).max() {
        let names: Vec<_> = new.iter().map(|binary| binary.name).collect();
        eprintln!("building {} (first time: about {minutes} min on two cores)", names.join(", "));
    }
    let mut cargo = workspace.cargo();
    // `--workspace` resolves features as `cargo test --workspace` does: one build of each dependency serves both.
    cargo.args(["build", "--release", "--workspace"]);
    for binary in binaries {
        cargo.args(["--bin", binary.name]);
    }
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the build failed: see cargo's message above, and `cargo xtask doctor` for what it may lack");
    }
    Ok(())
}

/// Builds programs, after setting up what they link.
pub fn provide(workspace: &Workspace, binaries: &[&Binary]) -> Result<()> {
    if binaries.iter().any(|binary| binary.links_libtorch) {
        setup::ensure_libtorch(workspace)?;
    }
    if binaries.is_empty() { Ok(()) } else { build(workspace, binaries) }
}

/// Builds `binary` and becomes it: Ctrl-C, terminal and exit code are the program's own.
pub fn start(workspace: &Workspace, binary: &Binary, verb: &[&str], arguments: &[OsString]) -> Result<ExitCode> {
    provide(workspace, &[binary])?;
    let program = workspace.program(binary.name);
    replace_by(Command::new(&program).args(verb).args(arguments))
        .with_context(|| format!("cannot start '{}'", program.display()))
}

/// Our help for `verb`, then the program's own if it is built; building takes minutes that a question for help is not
/// worth.
pub fn help(workspace: &Workspace, verb: &str, binary: &Binary, subcommand: &[&str]) -> Result<ExitCode> {
    crate::print_help(verb)?;
    let program = workspace.program(binary.name);
    if program.exists() {
        println!("Options (of {}):\n", [&[binary.name], subcommand].concat().join(" "));
        return replace_by(Command::new(&program).args(subcommand).arg("--help"))
            .with_context(|| format!("cannot start '{}'", program.display()));
    }
    println!(
        "Its options are shown here once it is built (about {} min):\n  cargo build --release --workspace --bin {}",
        binary.first_build_minutes, binary.name
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(unix)]
fn replace_by(command: &mut Command) -> std::io::Result<ExitCode> {
    use std::io::Write;
    use std::os::unix::process::CommandExt;
    // Nothing of ours is flushed after this.
    std::io::stdout().flush()?;
    Err(command.exec())
}

#[cfg(not(unix))]
fn replace_by(command: &mut Command) -> std::io::Result<ExitCode> {
    let code = command.status()?.code();
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
