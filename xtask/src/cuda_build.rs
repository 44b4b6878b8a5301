//! What lies on this machine for CUDA: the driver's files, and what a libtorch is built for and lacks.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Places that show a driver, the last in Windows' Linux.
pub const DRIVER_PLACES: [&str; 3] = ["proc/driver/nvidia/version", "dev/nvidiactl", "usr/lib/wsl/lib/libcuda.so.1"];

/// What libtorch has for CUDA.
#[derive(Debug, PartialEq)]
pub enum Build {
    WithoutCuda,
    ForCuda {
        /// (13, 0); `None` if nothing tells.
        version: Option<(u32, u32)>,
        /// Shared libraries that libtorch_cuda needs and that are not found; `None` if that is not known.
        lacks: Option<Vec<String>>,
    },
}

/// Whether this system, whose files begin at `root`, has NVIDIA's driver.
pub fn has_driver(root: &Path) -> bool {
    DRIVER_PLACES.iter().any(|place| root.join(place).exists())
}

impl Build {
    /// Of the libtorch in this folder. `lacks` tells the libraries that a shared library needs and doesn't find.
    pub fn of(directory: &Path, lacks: impl FnOnce(&Path) -> Option<Vec<String>>) -> Self {
        let library = directory.join("lib/libtorch_cuda.so");
        if !library.exists() {
            return Self::WithoutCuda;
        }
        Self::ForCuda { version: built_for(directory), lacks: lacks(&library) }
    }
}

/// From `version.py` of a wheel (`cuda: Optional[str] = '13.0'`), or the end of the version (`2.13.0+cu130`).
fn built_for(directory: &Path) -> Option<(u32, u32)> {
    let wheel = || {
        let text = fs::read_to_string(directory.join("version.py")).ok()?;
        let (_, value) = text.lines().find(|line| line.starts_with("cuda"))?.split_once('=')?;
        pair(value.trim().trim_matches(['\'', '"']))
    };
    let archive = || {
        let version = version_in(directory)?;
        let digits = version.split_once("+cu")?.1;
        let (major, minor) = digits.split_at_checked(digits.len().checked_sub(1)?)?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    wheel().or_else(archive)
}

/// "13.0"
pub fn pair(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// From `build-version` (PyTorch's archive of libtorch) or `version.py` (a wheel).
pub fn version_in(directory: &Path) -> Option<String> {
    if let Ok(text) = fs::read_to_string(directory.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = fs::read_to_string(directory.join("version.py")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(value.trim().trim_matches(['\'', '"']).to_owned())
}

/// The libraries that `library` needs and that are not found, by `ldd`; `None` if that is not known.
pub fn lacking(library: &Path) -> Option<Vec<String>> {
    let output = Command::new("ldd").arg(library).output().ok().filter(|output| output.status.success())?;
    Some(not_found(&String::from_utf8_lossy(&output.stdout)))
}

pub fn not_found(ldd: &str) -> Vec<String> {
    ldd.lines().filter_map(|line| line.trim().strip_suffix(" => not found")).map(str::to_owned).collect()
}
