//! `cargo xtask test`: every test of the workspace, then the names of those that were skipped.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{ExitCode, Stdio};

use crate::binary::Forwarded;
use crate::setup;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Run all tests, and name those that were skipped";

pub const EXAMPLES: &str = "\
Sets up what is missing, then starts `cargo test --release --workspace` with the given arguments.
Tests on real CT look for it in SAM_MIX_TEST_DATA, else in ../shared/data, and are skipped without it.

Examples:
  cargo xtask test
  cargo xtask test -p seg-metrics
  cargo xtask test -- hausdorff";

/// How a test says that it lacks something.
const SKIPPED: &str = "skipped: ";

pub fn run(workspace: &Workspace, forwarded: &Forwarded) -> Result<ExitCode> {
    if forwarded.asks_for_help() {
        crate::print_help("test")?;
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure(workspace)?;
    let mut cargo = workspace.cargo();
    cargo.args(arguments(&forwarded.arguments)).stdout(Stdio::piped());
    if std::io::stdout().is_terminal() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let mut filter = Filter::default();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line.context("cannot read cargo's output")?;
        if filter.shows(&line) {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    print!("{}", filter.summary(workspace));
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `--show-output` lets passing tests say what they skipped.
fn arguments(given: &[OsString]) -> Vec<OsString> {
    let chosen = given.iter().take_while(|argument| *argument != "--").any(|a| a == "-p" || a == "--package");
    let first: &[&str] = if chosen { &["test", "--release"] } else { &["test", "--release", "--workspace"] };
    let mut all: Vec<_> = first.iter().map(OsString::from).chain(given.iter().cloned()).collect();
    if !given.iter().any(|argument| argument == "--") {
        all.push("--".into());
    }
    all.push("--show-output".into());
    all
}

/// Hides the output of passing tests again, but for what they skipped.
#[derive(Default)]
struct Filter {
    in_successes: bool,
    skipped: Vec<String>,
}

impl Filter {
    fn shows(&mut self, line: &str) -> bool {
        if let Some(what) = line.strip_prefix(SKIPPED).filter(|what| self.skipped.iter().all(|known| known != what)) {
            self.skipped.push(what.to_owned());
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ if line.starts_with("test result:") => self.in_successes = false,
            _ => {}
        }
        !self.in_successes
    }

    fn summary(&self, workspace: &Workspace) -> String {
        if self.skipped.is_empty() {
            return String::new();
        }
        let count = self.skipped.len();
        let lines = self.skipped.join("\n  ");
        format!("\n{count} skipped (test data is looked for in {}):\n  {lines}\n", workspace.test_data().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_on(given: &[&str]) -> Vec<OsString> {
        arguments(&given.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_go_to_cargo_and_to_the_tests() {
        assert_eq!(passed_on(&[]), ["test", "--release", "--workspace", "--", "--show-output"]);
        assert_eq!(passed_on(&["-p", "xtask"]), ["test", "--release", "-p", "xtask", "--", "--show-output"]);
        let both = ["test", "--release", "--workspace", "--lib", "--", "name", "--show-output"];
        assert_eq!(passed_on(&["--lib", "--", "name"]), both);
    }

    #[test]
    fn a_skipped_test_is_named_once_and_passing_output_is_hidden() {
        let output = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- a stdout ----\n\
                      skipped: a needs the test data (set SAM_MIX_TEST_DATA)\n\
                      skipped: a needs the test data (set SAM_MIX_TEST_DATA)\n\nsuccesses:\n    a\n\nfailures:\n\n\
                      ---- b stdout ----\nwrong\n\ntest result: FAILED. 1 passed";
        let mut filter = Filter::default();
        let shown: Vec<_> = output.lines().filter(|line| filter.shows(line)).collect();
        assert_eq!(filter.skipped, ["a needs the test data (set SAM_MIX_TEST_DATA)"]);
        assert!(shown.contains(&"wrong") && shown.contains(&"test b ... FAILED"), "{shown:?}");
        assert!(!shown.iter().any(|line| line.starts_with("successes") || line.starts_with("---- a")), "{shown:?}");
    }
}
