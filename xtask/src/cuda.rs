//! What a machine has for CUDA: NVIDIA's driver and its GPUs, and what libtorch is built for. Whether they fit.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::libtorch::{self, Libtorch, Origin};

/// The oldest branch of NVIDIA's driver that runs programs of a major version of CUDA, whatever the minor one: NVIDIA, "CUDA
/// Compatibility", section "Minor Version Compatibility", table 1
/// (<https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html>). Newer ones run them too.
const OLDEST_DRIVER: [(u32, u32); 3] = [(11, 450), (12, 525), (13, 580)];

/// Places that show a driver, the last in Windows' Linux.
const DRIVER_PLACES: [&str; 3] = ["proc/driver/nvidia/version", "dev/nvidiactl", "usr/lib/wsl/lib/libcuda.so.1"];

/// NVIDIA's driver and what it drives.
#[derive(Debug, PartialEq)]
pub struct Driver {
    /// "580.65.06"; `None` if nothing tells.
    pub version: Option<String>,
    /// A line per GPU, or what is wrong.
    pub gpus: String,
}

/// What libtorch has for CUDA.
#[derive(Debug, PartialEq)]
pub enum Build {
    WithoutCuda,
    ForCuda {
        /// (13, 0); `None` if nothing tells.
        version: Option<(u32, u32)>,
        /// Shared libraries that libtorch_cuda needs and that are not found.
        lacks: Vec<String>,
    },
}

/// What all this means, in words.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub usable: bool,
    pub found: String,
    pub mend: Option<String>,
}

/// Whether this system, whose files begin at `root`, has NVIDIA's driver.
pub fn has_driver(root: &Path) -> bool {
    DRIVER_PLACES.iter().any(|place| root.join(place).exists())
}

impl Driver {
    /// Of the system whose files begin at `root`. `smi` asks nvidia-smi for those properties of each GPU.
    pub fn find(root: &Path, smi: impl FnOnce(&str) -> Option<String>) -> Option<Self> {
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
        Some(Self { version, gpus })
    }

    /// Its branch, the first number of its version.
    fn branch(&self) -> Option<u32> {
        self.version.as_deref()?.split('.').next()?.parse().ok()
    }
}

impl Build {
    /// Of the libtorch in this folder. `lacks` tells the libraries that a shared library needs and doesn't find.
    pub fn of(directory: &Path, lacks: impl FnOnce(&Path) -> Option<Vec<String>>) -> Self {
        let library = directory.join("lib/libtorch_cuda.so");
        if !library.exists() {
            return Self::WithoutCuda;
        }
        Self::ForCuda { version: built_for(directory), lacks: lacks(&library).unwrap_or_default() }
    }
}

/// Of a driver and of a libtorch, either of which may not be there.
pub fn judge(driver: Option<&Driver>, libtorch: Option<(&Build, Origin)>) -> Verdict {
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
    let needed = version.and_then(oldest_driver);
    let (mut problems, mut mends) = (Vec::new(), Vec::new());
    match (needed, driver.branch()) {
        (Some(needed), Some(branch)) if branch < needed => {
            problems.push(format!("its driver is too old: {} needs {needed} or later", name(*version)));
            mends.push(format!(
                "install NVIDIA's driver {needed} or later, or take a libtorch {} for an older CUDA: LIBTORCH=DIRECTORY cargo \
                 xtask setup",
                libtorch::VERSION
            ));
        }
        (Some(_), Some(_)) => {}
        _ => problems.push(format!("whether its driver is new enough for {} is not known", name(*version))),
    }
    if let [first, others @ ..] = lacks.as_slice() {
        let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        problems.push(format!("libtorch_cuda lacks its libraries ({first}{others})"));
        mends.push(install(origin));
    }
    if problems.is_empty() {
        return Verdict { usable: true, found: format!("{gpus}; {} has its libraries", name(*version)), mend: None };
    }
    verdict(format!("{gpus}; {}", problems.join("; ")), (!mends.is_empty()).then(|| mends.join("; ")))
}

fn without_driver(build: Option<&Build>) -> (String, Option<String>) {
    const NONE: &str = "no NVIDIA driver: training runs on the CPU";
    match build {
        None => (NONE.into(), None),
        Some(Build::WithoutCuda) => (format!("{NONE} (libtorch is built without CUDA)"), None),
        Some(Build::ForCuda { version, lacks }) if lacks.is_empty() => {
            let driver =
                version.and_then(oldest_driver).map_or_else(String::new, |needed| format!(", {needed} or later"));
            (
                format!("{NONE}, although {} has its libraries", name(*version)),
                Some(format!("with a GPU: install NVIDIA's driver{driver}")),
            )
        }
        Some(Build::ForCuda { version, .. }) => (format!("{NONE} ({} lacks its libraries)", name(*version)), None),
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

/// From `version.py` of a wheel (`cuda: Optional[str] = '13.0'`), or the end of the version (`2.13.0+cu130`).
fn built_for(directory: &Path) -> Option<(u32, u32)> {
    let wheel = || {
        let text = fs::read_to_string(directory.join("version.py")).ok()?;
        let (_, value) = text.lines().find(|line| line.starts_with("cuda"))?.split_once('=')?;
        let (major, minor) = value.trim().trim_matches(['\'', '"']).split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let archive = || {
        let version = libtorch::version_in(directory)?;
        let digits = version.split_once("+cu")?.1;
        let (major, minor) = digits.split_at_checked(digits.len().checked_sub(1)?)?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    wheel().or_else(archive)
}

/// The first word that is numbers with points between: `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat …`.
fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.split('.').all(|n| n.parse::<u32>().is_ok());
    text.split_whitespace().find(is_version).map(str::to_owned)
}

/// The libraries that `library` needs and that are not found, by `ldd`; `None` if that can't be told.
pub fn lacking(library: &Path) -> Option<Vec<String>> {
    let output = Command::new("ldd").arg(library).output().ok().filter(|output| output.status.success())?;
    Some(not_found(&String::from_utf8_lossy(&output.stdout)))
}

fn not_found(ldd: &str) -> Vec<String> {
    ldd.lines().filter_map(|line| line.trim().strip_suffix(" => not found")).map(str::to_owned).collect()
}

/// What `doctor` tells of this machine.
pub fn of_this_machine(libtorch: Option<&Libtorch>, smi: impl FnOnce(&str) -> Option<String>) -> Verdict {
    let build = libtorch.map(|found| (Build::of(&found.directory, lacking), found.origin));
    judge(Driver::find(Path::new("/"), smi).as_ref(), build.as_ref().map(|(build, origin)| (build, *origin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver as its kernel module (of `version`) and nvidia-smi show it.
    fn driver(version: &str) -> Driver {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), DRIVER_PLACES[0], &of_kernel(version));
        Driver::find(root.path(), |_| Some(format!("NVIDIA RTX A4000, 16376 MiB, {version}"))).unwrap()
    }

    /// As the module writes it into /proc.
    fn of_kernel(version: &str) -> String {
        format!(
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Jul 17 14:55:02 UTC 2025\nGCC version:  gcc 12.3.0\n"
        )
    }

    /// A libtorch as PyTorch's wheel has it; `lacks` as `ldd` would say.
    fn build(version_file: (&str, &str), lacks: &[&str]) -> Build {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "lib/libtorch_cuda.so", "");
        write(root.path(), version_file.0, version_file.1);
        Build::of(root.path(), |_| Some(lacks.iter().map(|&name| name.to_owned()).collect()))
    }

    const WHEEL_130: (&str, &str) = ("version.py", "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n");
    const ARCHIVE_126: (&str, &str) = ("build-version", "2.13.0+cu126\n");

    fn write(root: &Path, place: &str, text: &str) {
        let file = root.join(place);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// State, text and mend line, as `doctor` shows them.
    fn told(driver: Option<&Driver>, libtorch: Option<(&Build, Origin)>) -> String {
        let Verdict { usable, found, mend } = judge(driver, libtorch);
        let mend = mend.map_or_else(String::new, |mend| format!("\n-> {mend}"));
        format!("{} {found}{mend}", if usable { "ok" } else { "-" })
    }

    #[test]
    fn without_a_driver_each_libtorch_computes_on_the_cpu() {
        let (whole, minimal) = (build(WHEEL_130, &[]), build(WHEEL_130, &["libcublas.so.13", "libcudnn.so.9"]));
        let all = [None, Some(&Build::WithoutCuda), Some(&minimal), Some(&whole)];
        let lines: Vec<String> = all.map(|build| told(None, build.map(|b| (b, Origin::Setup)))).into();
        insta::assert_snapshot!(lines.join("\n"), @r"
        - no NVIDIA driver: training runs on the CPU
        - no NVIDIA driver: training runs on the CPU (libtorch is built without CUDA)
        - no NVIDIA driver: training runs on the CPU (libtorch for CUDA 13.0 lacks its libraries)
        - no NVIDIA driver: training runs on the CPU, although libtorch for CUDA 13.0 has its libraries
        -> with a GPU: install NVIDIA's driver, 580 or later
        ");
    }

    #[test]
    fn with_a_driver_each_lack_has_its_own_way_out() {
        let new = driver("580.65.06");
        let minimal = build(WHEEL_130, &["libcublas.so.13", "libcudnn.so.9"]);
        let lines = [
            told(Some(&new), None),
            told(Some(&new), Some((&Build::WithoutCuda, Origin::Setup))),
            told(Some(&new), Some((&Build::WithoutCuda, Origin::Variable))),
            told(Some(&new), Some((&minimal, Origin::Setup))),
            told(Some(&new), Some((&build(WHEEL_130, &["libcudnn.so.9"]), Origin::Python))),
            told(Some(&new), Some((&build(WHEEL_130, &[]), Origin::Setup))),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        - NVIDIA RTX A4000, 16376 MiB, 580.65.06; no libtorch yet
        - NVIDIA RTX A4000, 16376 MiB, 580.65.06; this libtorch is built without CUDA
        -> cargo xtask setup --device cuda
        - NVIDIA RTX A4000, 16376 MiB, 580.65.06; this libtorch is built without CUDA
        -> unset LIBTORCH, then cargo xtask setup --device cuda
        - NVIDIA RTX A4000, 16376 MiB, 580.65.06; libtorch_cuda lacks its libraries (libcublas.so.13 and 1 more)
        -> cargo xtask setup --device cuda
        - NVIDIA RTX A4000, 16376 MiB, 580.65.06; libtorch_cuda lacks its libraries (libcudnn.so.9)
        -> unset LIBTORCH_USE_PYTORCH, then cargo xtask setup --device cuda
        ok NVIDIA RTX A4000, 16376 MiB, 580.65.06; libtorch for CUDA 13.0 has its libraries
        ");
    }

    #[test]
    fn a_driver_is_too_old_for_one_cuda_and_new_enough_for_another() {
        let (old, whole) = (driver("570.86.15"), build(WHEEL_130, &[]));
        let lines = [
            told(Some(&old), Some((&whole, Origin::Setup))),
            told(Some(&old), Some((&build(WHEEL_130, &["libcudnn.so.9"]), Origin::Setup))),
            told(Some(&old), Some((&build(ARCHIVE_126, &[]), Origin::Variable))),
            told(Some(&driver("525.60.13")), Some((&build(ARCHIVE_126, &[]), Origin::Variable))),
            told(Some(&driver("470.256.02")), Some((&build(ARCHIVE_126, &[]), Origin::Variable))),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        - NVIDIA RTX A4000, 16376 MiB, 570.86.15; its driver is too old: libtorch for CUDA 13.0 needs 580 or later
        -> install NVIDIA's driver 580 or later, or take a libtorch 2.13.0 for an older CUDA: LIBTORCH=DIRECTORY cargo xtask setup
        - NVIDIA RTX A4000, 16376 MiB, 570.86.15; its driver is too old: libtorch for CUDA 13.0 needs 580 or later; libtorch_cuda lacks its libraries (libcudnn.so.9)
        -> install NVIDIA's driver 580 or later, or take a libtorch 2.13.0 for an older CUDA: LIBTORCH=DIRECTORY cargo xtask setup; cargo xtask setup --device cuda
        ok NVIDIA RTX A4000, 16376 MiB, 570.86.15; libtorch for CUDA 12.6 has its libraries
        ok NVIDIA RTX A4000, 16376 MiB, 525.60.13; libtorch for CUDA 12.6 has its libraries
        - NVIDIA RTX A4000, 16376 MiB, 470.256.02; its driver is too old: libtorch for CUDA 12.6 needs 525 or later
        -> install NVIDIA's driver 525 or later, or take a libtorch 2.13.0 for an older CUDA: LIBTORCH=DIRECTORY cargo xtask setup
        ");
    }

    #[test]
    fn what_is_not_known_is_not_called_well() {
        let silent = Driver { version: None, gpus: "NVIDIA's driver, but nvidia-smi does not answer".into() };
        let lines = [
            told(Some(&silent), Some((&build(WHEEL_130, &[]), Origin::Setup))),
            told(
                Some(&driver("580.65.06")),
                Some((&build(("version.py", "__version__ = '2.13.0a0'"), &[]), Origin::Setup)),
            ),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        - NVIDIA's driver, but nvidia-smi does not answer; whether its driver is new enough for libtorch for CUDA 13.0 is not known
        - NVIDIA RTX A4000, 16376 MiB, 580.65.06; whether its driver is new enough for libtorch for a CUDA of unknown version is not known
        ");
    }

    #[test]
    fn the_drivers_version_is_read_where_it_stands() {
        let found = |files: &[(&str, &str)], smi: Option<&str>| {
            let root = tempfile::tempdir().unwrap();
            for (place, text) in files {
                write(root.path(), place, text);
            }
            Driver::find(root.path(), |_| smi.map(str::to_owned))
        };
        assert_eq!(found(&[], Some("never asked")), None);
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder)\n";
        for (text, version) in [(of_kernel("535.104.05").as_str(), "535.104.05"), (open, "570.86.15")] {
            let driver = found(&[(DRIVER_PLACES[0], text)], None).unwrap();
            assert_eq!(driver.version.as_deref(), Some(version));
            assert_eq!(driver.gpus, format!("NVIDIA's driver {version}, but nvidia-smi does not answer"));
        }
        // A container may have the device and not the module's files; Windows' Linux has a library.
        let two = "NVIDIA A100-SXM4-40GB, 40960 MiB, 550.54.15\nNVIDIA A100-SXM4-40GB, 40960 MiB, 550.54.15";
        for place in [DRIVER_PLACES[1], DRIVER_PLACES[2]] {
            let driver = found(&[(place, "")], Some(two)).unwrap();
            assert_eq!((driver.branch(), driver.gpus.as_str()), (Some(550), two.replace('\n', "; ").as_str()));
            assert_eq!(found(&[(place, "")], None).unwrap().version, None);
        }
        let module = found(&[(DRIVER_PLACES[1], ""), ("sys/module/nvidia/version", "580.65.06\n")], None).unwrap();
        assert_eq!(module.branch(), Some(580));
    }

    #[test]
    fn the_cuda_of_a_libtorch_is_read_where_it_stands() {
        let of = |file: &str, text: &str| match build((file, text), &[]) {
            Build::ForCuda { version, .. } => version,
            Build::WithoutCuda => None,
        };
        assert_eq!(of(WHEEL_130.0, WHEEL_130.1), Some((13, 0)));
        assert_eq!(of("version.py", "__version__ = '2.13.0+cu128'\ncuda = \"12.8\"\n"), Some((12, 8)));
        assert_eq!(of(ARCHIVE_126.0, ARCHIVE_126.1), Some((12, 6)));
        assert_eq!(of("version.py", "__version__ = '2.13.0'\ncuda: Optional[str] = None\n"), None);
        assert_eq!(Build::of(Path::new("/nowhere"), |_| None), Build::WithoutCuda);
    }

    #[test]
    fn ldd_tells_what_is_not_found() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibcudart.so.13 => /x/libcudart.so.13 (0x00007f)\n\
                    \tlibcublas.so.13 => not found\n\tlibcudnn.so.9 => not found\n";
        assert_eq!(not_found(text), ["libcublas.so.13", "libcudnn.so.9"]);
    }
}
