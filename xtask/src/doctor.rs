//! `cargo xtask doctor`: what this machine has, what is missing, and how to mend it. Changes nothing.

use serde_json::json;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::cuda::{self, Verdict};
use crate::libtorch::{self, Environment};
use crate::python::Python;
use crate::weights;
use crate::workspace::Workspace;

pub const ABOUT: &str = "Say what this machine has, what is missing, and how to mend it";

pub const EXAMPLES: &str = "\
The exit code is 1 if something that training needs is missing.

Examples:
  cargo xtask doctor
  cargo xtask doctor --json";

/// What a build and the CUDA-free set-up take, with room for a small store, in GB.
const DISK_NEEDED_GB: f64 = 5.0;

#[derive(clap::Args)]
pub struct Args {
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Ok,
    /// Nice to have, or nothing to check.
    Note,
    /// Training needs it.
    Missing,
}

struct Check {
    name: &'static str,
    state: State,
    found: String,
    mend: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, found: impl Into<String>, mend: Option<&'static str>) -> Self {
        Self { name, state, found: found.into(), mend: mend.map(str::to_owned) }
    }

    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, State::Ok, found, None)
    }

    fn note(name: &'static str, found: impl Into<String>, mend: Option<&'static str>) -> Self {
        Self::new(name, State::Note, found, mend)
    }

    fn missing(name: &'static str, found: impl Into<String>, mend: &'static str) -> Self {
        Self::new(name, State::Missing, found, Some(mend))
    }
}

pub fn run(workspace: &Workspace, args: &Args) -> ExitCode {
    let checks = [
        check_libtorch(workspace),
        check_cuda(workspace),
        check_weights(workspace),
        check_rust(),
        check_compiler(),
        check_python(),
        check_machine(),
        check_disk(workspace),
        check_data(workspace),
        check_test_data(workspace),
    ];
    let complete = checks.iter().all(|check| check.state != State::Missing);
    if args.json {
        println!("{}", as_json(&checks, complete));
    } else {
        print!("{}", as_text(&checks, complete));
    }
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn as_text(checks: &[Check], complete: bool) -> String {
    let line = |Check { name, state, found, mend }: &Check| {
        let mark = match state {
            State::Ok => "ok",
            State::Note => "-",
            State::Missing => "MISSING",
        };
        let mend = mend.as_ref().map_or_else(String::new, |mend| format!("{:<19} -> {mend}\n", ""));
        format!("{mark:<8} {name:<10} {found}\n{mend}")
    };
    let lines: Vec<_> = checks.iter().map(line).collect();
    lines.concat() + if complete { "ready to train\n" } else { "not ready: see the lines marked MISSING\n" }
}

fn as_json(checks: &[Check], complete: bool) -> serde_json::Value {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            let state = format!("{:?}", check.state).to_lowercase();
            json!({ "name": check.name, "state": state, "found": check.found, "mend": check.mend })
        })
        .collect();
    json!({ "ready": complete, "checks": checks })
}

fn check_libtorch(workspace: &Workspace) -> Check {
    const MEND: &str = "cargo xtask setup";
    match libtorch::find(workspace, &Environment::of_process()) {
        Ok(Some(found)) => {
            let place = workspace.shown(&found.directory).to_string();
            Check::ok("libtorch", format!("{} at {place} ({})", found.version, found.origin.describe()))
        }
        Ok(None) => Check::missing("libtorch", "none set up, and LIBTORCH is not set", MEND),
        Err(error) => Check::missing("libtorch", format!("{error:#}"), "unset the variable, then cargo xtask setup"),
    }
}

/// A GPU is never needed, so what it lacks is a note.
fn check_cuda(workspace: &Workspace) -> Check {
    let libtorch = libtorch::find(workspace, &Environment::of_process()).ok().flatten();
    let smi = |properties: &str| {
        let query = format!("--query-gpu={properties}");
        output_of(Command::new("nvidia-smi").args([&query, "--format=csv,noheader"]))
    };
    let Verdict { usable, found, mend } = cuda::of_this_machine(libtorch.as_ref(), smi);
    Check { name: "CUDA", state: if usable { State::Ok } else { State::Note }, found, mend }
}

fn check_weights(workspace: &Workspace) -> Check {
    const NAME: &str = "weights";
    let place = weights::place(workspace);
    if !place.exists() {
        return Check::missing(NAME, "LiteMedSAM's are not there", "cargo xtask setup, or setup --weights FILE");
    }
    match weights::verify(&place) {
        Ok(()) => Check::ok(NAME, format!("{} (SHA-256 as published)", workspace.shown(&place))),
        Err(error) => {
            let found = format!("{error:#}").lines().next().unwrap_or_default().to_owned();
            Check::missing(NAME, found, "cargo xtask setup")
        }
    }
}

fn check_rust() -> Check {
    let versions = ["rustc", "cargo"].map(|tool| output_of(Command::new(tool).arg("--version")));
    let found = versions.into_iter().flatten().collect::<Vec<_>>().join(", ");
    // Cargo itself refuses a compiler that is too old.
    Check::ok("Rust", format!("{found} (needs {} or later)", env!("CARGO_PKG_RUST_VERSION")))
}

fn check_compiler() -> Check {
    let name = env::var("CXX").unwrap_or_else(|_| "c++".into());
    match output_of(Command::new(&name).arg("--version")) {
        Some(text) => Check::ok("C++", text.lines().next().unwrap_or_default()),
        None => Check::missing(
            "C++",
            format!("no compiler '{name}', and libtorch's bindings are built with one"),
            "install g++ or clang (Debian, Ubuntu: g++; macOS: xcode-select --install)",
        ),
    }
}

fn check_python() -> Check {
    match Python::find() {
        Ok(python) => Check::ok("Python", format!("{} with pip (for set-up only)", python.describe())),
        Err(_) => Check::note("Python", "none with pip: set-up can't fetch anything", Some("install Python with pip")),
    }
}

fn check_machine() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = memory_gb().map_or_else(String::new, |gb| format!(", {gb:.1} GB of memory"));
    let place = format!("{}-{}", env::consts::OS, env::consts::ARCH);
    let tested = if place == "linux-x86_64" { "" } else { " (untested platform)" };
    Check::ok("machine", format!("{place}{tested}, {cores} cores{memory}"))
}

fn check_disk(workspace: &Workspace) -> Check {
    match free_disk_gb(workspace.root()) {
        Some(gb) if gb < DISK_NEEDED_GB => {
            Check::note("disk", format!("{gb:.1} GB free: a first build takes {DISK_NEEDED_GB} GB"), Some("make room"))
        }
        Some(gb) => Check::ok("disk", format!("{gb:.1} GB free")),
        None => Check::note("disk", "free space unknown (`df` does not say)", None),
    }
}

fn check_data(workspace: &Workspace) -> Check {
    let entries = fs::read_dir(workspace.root().join("stores")).into_iter().flatten().flatten();
    let mut stores: Vec<_> = entries
        .filter(|entry| entry.path().join("store.json").exists())
        .map(|entry| format!("stores/{}", entry.file_name().to_string_lossy()))
        .collect();
    stores.sort();
    if stores.is_empty() {
        return Check::note("data", "no slice store in stores/", Some("cargo xtask prepare (makes a synthetic one)"));
    }
    Check::ok("data", stores.join(", "))
}

fn check_test_data(workspace: &Workspace) -> Check {
    let place = workspace.test_data();
    if place.is_dir() {
        return Check::ok("test data", place.display().to_string());
    }
    let found = format!("none at {}: tests on real CT are skipped", place.display());
    Check::note("test data", found, Some("set SAM_MIX_TEST_DATA to a folder that has it"))
}

/// What a tool prints, if it can be started and succeeds.
fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn memory_gb() -> Option<f64> {
    let bytes = match fs::read_to_string("/proc/meminfo") {
        Ok(text) => {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0
        }
        Err(_) => output_of(Command::new("sysctl").args(["-n", "hw.memsize"]))?.parse().ok()?,
    };
    Some(bytes / 1e9)
}

/// From POSIX `df`: the standard library does not tell.
fn free_disk_gb(place: &Path) -> Option<f64> {
    let text = output_of(Command::new("df").arg("-Pk").arg(place))?;
    Some(text.lines().nth(1)?.split_whitespace().nth(3)?.parse::<f64>().ok()? * 1024.0 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> [Check; 3] {
        [
            Check::ok("libtorch", "2.13.0"),
            Check::note("CUDA", "no driver", None),
            Check::missing("weights", "not there", "cargo xtask setup"),
        ]
    }

    #[test]
    fn text_has_a_line_per_check_and_the_way_to_mend() {
        insta::assert_snapshot!(as_text(&checks(), false), @r"
        ok       libtorch   2.13.0
        -        CUDA       no driver
        MISSING  weights    not there
                            -> cargo xtask setup
        not ready: see the lines marked MISSING
        ");
    }

    #[test]
    fn json_says_the_same() {
        insta::assert_snapshot!(as_json(&checks(), false), @r#"{"ready":false,"checks":[{"name":"libtorch","state":"ok","found":"2.13.0","mend":null},{"name":"CUDA","state":"note","found":"no driver","mend":null},{"name":"weights","state":"missing","found":"not there","mend":"cargo xtask setup"}]}"#);
    }
}
