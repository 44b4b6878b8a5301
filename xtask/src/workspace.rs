//! Where things are: the checkout, its git-ignored folders, and the cargo and programs that belong to it.

use anyhow::{Context, Result};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout that this xtask was built from.
pub struct Workspace {
    root: PathBuf,
    /// `release` beside the profile folder of this very program, so that every way to move cargo's target directory
    /// (environment, configuration, `--target`) is followed.
    programs: PathBuf,
}

impl Workspace {
    pub fn locate() -> Result<Self> {
        // Set by `cargo run`; the compile-time path serves when the program is started by hand.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().context("the xtask package has no parent folder")?.to_path_buf();
        let own = env::current_exe().context("cannot find this program's own file")?;
        let target = own.ancestors().nth(2).context("this program is not in a target directory")?;
        Ok(Self { root, programs: target.join("release") })
    }

    #[cfg(test)]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf(), programs: root.join("target/release") }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `setup` installs: git-ignored.
    pub fn deps(&self) -> PathBuf {
        self.root.join(".deps")
    }

    /// The file of a program after its release build.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(format!("{name}{}", env::consts::EXE_SUFFIX))
    }

    /// The cargo that started us, run at the root, where `.cargo/config.toml` is read.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        cargo.current_dir(&self.root);
        cargo
    }

    /// A path as a person would write it: relative to the checkout where it lies in it.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// Real CT for tests: `SAM_MIX_TEST_DATA`, else `../shared/data`.
    pub fn test_data(&self) -> PathBuf {
        let place = env::var_os("SAM_MIX_TEST_DATA").map_or_else(|| self.root.join("../shared/data"), PathBuf::from);
        place.canonicalize().unwrap_or(place)
    }
}
