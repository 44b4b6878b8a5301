//! What a machine has for CUDA: NVIDIA's driver and its GPUs, and what libtorch is built for. Whether they fit.

use std::fs;
use std::path::Path;

use crate::cuda_build::{Build, has_driver, lacking, pair};
use crate::libtorch::{Libtorch, Origin};

/// The oldest branch of NVIDIA's driver that runs programs of a major version of CUDA, whatever the minor one: NVIDIA, "CUDA
/// Compatibility", section "Minor Version Compatibility", table 1
/// (<https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html>). Newer ones run them too.
const OLDEST_DRIVER: [(u32, u32); 3] = [(11, 450), (12, 525), (13, 580)];

/// The oldest GPUs, by compute capability, that a major version of CUDA knows, where some that are still in use are older:
/// NVIDIA, "CUDA Toolkit 13.0 Release Notes", section "Deprecated Architectures". PyTorch's wheels for it begin there too.
const OLDEST_GPU: [(u32, (u32, u32)); 1] = [(13, (7, 5))];

/// NVIDIA's driver and what it drives.
#[derive(Debug, PartialEq)]
pub struct Driver {
    /// "580.65.06"; `None` if nothing tells.
    pub version: Option<String>,
    /// What nvidia-smi says of each GPU, or what is wrong.
    pub gpus: String,
    /// The compute capabilities of the GPUs, as far as they are known.
    pub capabilities: Vec<(u32, u32)>,
}

const OLDER_CUDA: &str = "take a libtorch of the same version for an older CUDA: LIBTORCH=DIRECTORY cargo xtask setup";

/// What all this means, in words.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub usable: bool,
    pub found: String,
    pub mend: Option<String>,
}

impl Driver {
    /// Of the system whose files begin at `root`. `smi` asks nvidia-smi for the properties it is given, and
    /// answers with a line per GPU.
    pub fn find(root: &Path, smi: impl Fn(&str) -> Option<String>) -> Option<Self> {
        if !has_driver(root) {
            return None;
        }
        let answer = smi("name,memory.total,driver_version").filter(|text| !text.is_empty());
        let of_kernel = ["sys/module/nvidia/version", "proc/driver/nvidia/version"]
            .iter()
            .find_map(|place| version_in(&fs::read_to_string(root.join(place)).ok()?));
        let version = of_kernel.or_else(|| version_in(answer.as_deref()?.lines().next()?.rsplit(',').next()?));
        let gpus = match (answer, &version) {
            (Some(text), _) => text.lines().collect::<Vec<_>>().join("; "),
            (None, Some(version)) => format!("NVIDIA's driver {version}, but nvidia-smi does not answer"),
            (None, None) => "NVIDIA's driver, but nvidia-smi does not answer".into(),
        };
        // A question of its own, which an old nvidia-smi does not understand.
        let capabilities = smi("compute_cap").map(|text| text.lines().filter_map(pair).collect()).unwrap_or_default();
        Some(Self { version, gpus, capabilities })
    }

    /// Its branch, the first number of its version.
    fn branch(&self) -> Option<u32> {
        self.version.as_deref()?.split('.').next()?.parse().ok()
    }
}

/// Of a driver and of a libtorch, either of which may not be there.
pub fn assess(driver: Option<&Driver>, libtorch: Option<(&Build, Origin)>) -> Verdict {
    let verdict = |found: String, mend: Option<String>| Verdict { usable: false, found, mend };
    let Some(driver) = driver else {
        let (found, mend) = without_driver(libtorch.map(|(build, _)| build));
        return verdict(found, mend);
    };
    let gpus = &driver.gpus;
    let Some((build, origin)) = libtorch else {
        return verdict(format!("{gpus}; no libtorch yet"), None);
    };
    let Build::ForCuda { version, lacks } = build else {
        return verdict(format!("{gpus}; this libtorch is built without CUDA"), Some(install(origin)));
    };
    let (problems, mends): (Vec<_>, Vec<_>) =
        [driver_too_old(driver, *version), gpu_too_old(driver, *version), libraries_lacking(lacks.as_deref(), origin)]
            .into_iter()
            .flatten()
            .unzip();
    if problems.is_empty() {
        return Verdict { usable: true, found: format!("{gpus}; {} has its libraries", name(*version)), mend: None };
    }
    let mends: Vec<String> = mends.into_iter().flatten().collect();
    verdict(format!("{gpus}; {}", problems.join("; ")), (!mends.is_empty()).then(|| mends.join("; ")))
}

/// What is wrong, and the way out if there is one.
type Problem = (String, Option<String>);

fn driver_too_old(driver: &Driver, cuda: Option<(u32, u32)>) -> Option<Problem> {
    match (cuda.and_then(oldest_driver), driver.branch()) {
        (Some(needed), Some(branch)) => (branch < needed).then(|| {
            let problem = format!("its driver is too old: {} needs {needed} or later", name(cuda));
            (problem, Some(format!("install NVIDIA's driver {needed} or later, or {OLDER_CUDA}")))
        }),
        _ => Some((format!("whether its driver is new enough for {} is not known", name(cuda)), None)),
    }
}

fn gpu_too_old(driver: &Driver, cuda: Option<(u32, u32)>) -> Option<Problem> {
    let (_, least) = *OLDEST_GPU.iter().find(|(major, _)| cuda.is_some_and(|cuda| cuda.0 == *major))?;
    let oldest = *driver.capabilities.iter().min().filter(|oldest| **oldest < least)?;
    let shown = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    let problem = format!(
        "a GPU of compute capability {} is too old: {} needs {} or later",
        shown(oldest),
        name(cuda),
        shown(least)
    );
    Some((problem, Some(OLDER_CUDA.into())))
}

fn libraries_lacking(names: Option<&[String]>, origin: Origin) -> Option<Problem> {
    let Some(names) = names else {
        return Some(("whether libtorch_cuda has its libraries is not known (`ldd` does not say)".into(), None));
    };
    let (first, others) = names.split_first()?;
    let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    Some((format!("libtorch_cuda lacks its libraries ({first}{others})"), Some(install(origin))))
}

fn without_driver(build: Option<&Build>) -> (String, Option<String>) {
    const NONE: &str = "no NVIDIA driver: training runs on the CPU";
    match build {
        None => (NONE.into(), None),
        Some(Build::WithoutCuda) => (format!("{NONE} (libtorch is built without CUDA)"), None),
        Some(Build::ForCuda { version, lacks: Some(names) }) if names.is_empty() => {
            let driver = version.and_then(oldest_driver).map_or_else(String::new, |n| format!(", {n} or later"));
            let mend = format!("with a GPU: install NVIDIA's driver{driver}");
            (format!("{NONE}, although {} has its libraries", name(*version)), Some(mend))
        }
        Some(Build::ForCuda { version, lacks }) => {
            let lacks = if lacks.is_some() { " lacks its libraries" } else { "" };
            (format!("{NONE} ({}{lacks})", name(*version)), None)
        }
    }
}

fn oldest_driver((major, _): (u32, u32)) -> Option<u32> {
    OLDEST_DRIVER.iter().find(|(cuda, _)| *cuda == major).map(|(_, driver)| *driver)
}

/// "libtorch for CUDA 13.0"
fn name(version: Option<(u32, u32)>) -> String {
    version.map_or_else(
        || "libtorch for a CUDA of unknown version".into(),
        |(major, minor)| format!("libtorch for CUDA {major}.{minor}"),
    )
}

/// How to get a libtorch with CUDA's libraries, where that origin decides which one is used.
fn install(origin: Origin) -> String {
    const SETUP: &str = "cargo xtask setup --device cuda";
    match origin {
        Origin::Setup => SETUP.into(),
        Origin::Variable => format!("unset LIBTORCH, then {SETUP}"),
        Origin::Python => format!("unset LIBTORCH_USE_PYTORCH, then {SETUP}"),
    }
}

/// The first word that is numbers with points between: `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat …`.
fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.split('.').all(|n| n.parse::<u32>().is_ok());
    text.split_whitespace().find(is_version).map(str::to_owned)
}

/// What `doctor` tells of this machine.
pub fn of_this_machine(libtorch: Option<&Libtorch>, smi: impl Fn(&str) -> Option<String>) -> Verdict {
    let build = libtorch.map(|found| (Build::of(&found.directory, lacking), found.origin));
    assess(Driver::find(Path::new("/"), smi).as_ref(), build.as_ref().map(|(build, origin)| (build, *origin)))
}

#[cfg(test)]
mod tests;
