//! The Python that fetches packages at set-up. Nothing of SAM-Mix runs in it, and pip's own settings (index, cache,
//! certificates) are respected.

use anyhow::{Context, Result, bail};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Python releases that have their own wheels of the pinned PyTorch.
const WHEELS_FOR: std::ops::RangeInclusive<(u32, u32)> = (3, 10)..=(3, 14);

/// A Python with pip.
pub struct Python {
    program: &'static str,
    version: (u32, u32),
}

impl Python {
    /// The active environment's Python, else the system's.
    pub fn find() -> Result<Self> {
        let active = env::var_os("VIRTUAL_ENV").map(|_| "python");
        active.into_iter().chain(["python3", "python"]).find_map(Self::with_pip).context(
            "no Python with pip was found (tried `python3 -m pip`), and set-up fetches packages with pip\n  \
             either install Python 3.10 or later with pip (Debian, Ubuntu: python3-pip)\n  \
             or point at files that you have: LIBTORCH=DIRECTORY cargo xtask setup --weights FILE",
        )
    }

    fn with_pip(program: &'static str) -> Option<Self> {
        let output =
            Command::new(program).args(["-c", "import sys, pip; print(*sys.version_info[:2])"]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        output.status.success().then_some(Self { program, version })
    }

    /// "python3 3.11"
    pub fn describe(&self) -> String {
        format!("{} {}.{}", self.program, self.version.0, self.version.1)
    }

    pub fn command(&self) -> Command {
        Command::new(self.program)
    }

    /// Runs `pip VERB --only-binary=:all: ARGUMENTS`, its progress visible. Temporary files go into `scratch`, which
    /// is on the disk of the target: a small `/tmp` would not hold CUDA.
    pub fn pip(&self, verb: &str, arguments: &[&str], scratch: &Path) -> Result<()> {
        // Left behind by an interrupted run.
        let _ = fs::remove_dir_all(scratch);
        fs::create_dir_all(scratch).with_context(|| format!("cannot create '{}'", scratch.display()))?;
        let mut pip = self.command();
        pip.args(["-m", "pip", verb, "--only-binary=:all:"]).args(arguments).env("TMPDIR", scratch);
        // It warns root about an environment that `--target` does not touch.
        pip.env("PIP_ROOT_USER_ACTION", "ignore");
        if !WHEELS_FOR.contains(&self.version) {
            // Libraries and headers are the same in all of them.
            pip.args(["--python-version", "3.12"]);
        }
        let status = pip.status().with_context(|| format!("cannot start {}", self.program))?;
        let _ = fs::remove_dir_all(scratch);
        if !status.success() {
            bail!("`pip {verb} {}` failed ({status}): its message is above", arguments.join(" "));
        }
        Ok(())
    }

    /// Where `import torch` would find its package, without importing it.
    pub fn torch_package() -> Result<PathBuf> {
        // As torch-sys chooses its interpreter.
        let program = if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
        let find = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])";
        let output = Command::new(program).args(["-c", find]).output();
        match output {
            Ok(output) if output.status.success() => {
                Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()))
            }
            _ => bail!(
                "LIBTORCH_USE_PYTORCH is set, but {program} has no package `torch`\n  activate the environment that \
                 has it, or unset LIBTORCH_USE_PYTORCH: set-up then installs its own"
            ),
        }
    }
}
