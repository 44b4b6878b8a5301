//! A scratch copy of what a checkout is to its user: configurations, manifests, the set-up, the programs as they are built.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The real one.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the checkout")
}

/// The programs, as the test run has built them.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_xtask")).parent().expect("a program lies in a folder")
}

/// The programs that are not there, which are built by the tests of the whole workspace.
pub fn missing_programs() -> Vec<&'static str> {
    let names = [
        "sam-mix",
        "sam-mix-data",
        "sam-mix-labels",
        "sam-mix-phantom",
        "sam-mix-report",
        "sam-mix-study",
        "sam-mix-example",
    ];
    names.into_iter().filter(|name| !programs().join(name).is_file()).collect()
}

/// The program that `cargo run -p` starts, if such a package has one.
pub fn program_of(package: &str) -> Option<String> {
    let manifest = fs::read_to_string(repository().join("crates").join(package).join("Cargo.toml")).ok()?;
    let manifest: toml::Table = manifest.parse().ok()?;
    Some(manifest.get("bin")?.get(0)?.get("name")?.as_str()?.to_owned())
}

/// Synthetic patients of few slices of 64².
#[derive(Clone, Copy)]
pub enum Patients {
    /// With liver in more than the 20 slices that the quickstart labels.
    Seven = 7,
    /// As many as `configs/lits-mini.toml` names, with liver in more than the 50 slices that it labels.
    Eleven = 11,
}

/// A scratch checkout. The folder `home` in it is what the pages call `~`.
pub struct Checkout(TempDir);

impl Checkout {
    pub fn new() -> Self {
        let checkout = Self(tempfile::tempdir().unwrap());
        let root = checkout.root();
        for folder in ["configs", "data-manifests"] {
            copy(&repository().join(folder), &root.join(folder));
        }
        std::os::unix::fs::symlink(repository().join(".deps"), root.join(".deps")).unwrap();
        fs::create_dir_all(root.join("home")).unwrap();
        fs::create_dir_all(root.join("bin")).unwrap();
        // What xtask asks cargo to build has been built; `cargo run` starts it.
        let mut cargo =
            format!("#!/bin/sh\ncase \"$*\" in\n'build '*) exit 0 ;;\n'xtask '*) shift; exec '{XTASK}' \"$@\" ;;\n");
        for package in fs::read_dir(repository().join("crates")).unwrap() {
            let package = package.unwrap().file_name().into_string().unwrap();
            if let Some(program) = program_of(&package) {
                let program = programs().join(program);
                let _ = writeln!(
                    cargo,
                    "'run --release -p {package} -- '*) shift 5; exec '{}' \"$@\" ;;",
                    program.display()
                );
            }
        }
        cargo.push_str("*) echo \"this test knows no 'cargo $*'\" >&2; exit 99 ;;\nesac\n");
        let file = root.join("bin/cargo");
        fs::write(&file, cargo).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        checkout
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    /// `volume-N.nii.gz` and `segmentation-N.nii.gz` in a folder.
    pub fn patients(&self, folder: &str, patients: Patients) {
        let slices = match patients {
            Patients::Seven => 12,
            Patients::Eleven => 16,
        };
        let number = patients as usize;
        let line = format!("sam-mix-phantom --output {folder} --patients {number} --slices {slices} --size 64");
        assert!(self.shell(&line).status.success(), "{line}");
    }

    /// Runs a line of a page as a shell does.
    pub fn shell(&self, line: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-euc", line]);
        self.output(&mut shell)
    }

    /// Runs a program of ours with these arguments.
    pub fn program(&self, name: &str, arguments: &[String]) -> Output {
        self.output(Command::new(programs().join(name)).args(arguments))
    }

    fn output(&self, command: &mut Command) -> Output {
        let mut path = OsString::from(self.root().join("bin"));
        for folder in [programs().as_os_str(), &std::env::var_os("PATH").unwrap_or_default()] {
            path.push(":");
            path.push(folder);
        }
        command
            .current_dir(self.root())
            .env("PATH", path)
            .env("CARGO", self.root().join("bin/cargo"))
            .env("HOME", self.home())
            // By which xtask finds its checkout.
            .env("CARGO_MANIFEST_DIR", self.root().join("xtask"))
            .env_remove("SAM_MIX_WEIGHTS")
            // Threads of libtorch that wait for one another leave the processors to whoever else needs them.
            .env("OMP_WAIT_POLICY", "passive")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
    }
}

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

/// A folder with all that is below it.
pub fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}
