//! libtorch: found where the build will look for it, or installed from PyTorch's wheels.
//!
//! Invariant: `.deps/libtorch` leads to a whole libtorch of the pinned version, or does not exist.

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cuda_build::{Build, has_driver, lacking, version_in};
use crate::python::Python;
use crate::workspace::Workspace;

/// The version that tch 0.26 binds.
pub const VERSION: &str = "2.13.0";

/// The libraries that libtorch_cpu of the Linux wheel itself needs, as CUDA 13.0.3 (PyTorch's requirement) has them.
const MINIMAL_CUDA: [&str; 2] = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];

const CPU_LIBRARY: &str = if cfg!(target_os = "macos") { "lib/libtorch_cpu.dylib" } else { "lib/libtorch_cpu.so" };

/// A libtorch that the build can use.
#[derive(Debug, PartialEq)]
pub struct Libtorch {
    pub directory: PathBuf,
    pub version: String,
    pub origin: Origin,
}

/// What led to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Origin {
    /// `LIBTORCH`, set by the user.
    Variable,
    /// `LIBTORCH_USE_PYTORCH`: the active Python's package.
    Python,
    /// `.deps/libtorch`.
    Setup,
}

impl Origin {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Variable => "from LIBTORCH",
            Self::Python => "from LIBTORCH_USE_PYTORCH",
            Self::Setup => "by set-up",
        }
    }
}

/// For which device libtorch is installed.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub enum Device {
    /// CUDA where an NVIDIA driver is found, else CPU
    Auto,
    /// About 1.3 GB on disk
    Cpu,
    /// With all CUDA libraries, about 5 GB; also on a machine without a GPU
    Cuda,
}

/// The variables that decide, as the build sees them.
pub struct Environment<'a>(pub &'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    pub fn of_process() -> Self {
        Environment(&|name| env::var_os(name))
    }

    fn has(&self, name: &str) -> bool {
        (self.0)(name).is_some()
    }
}

/// The libtorch that a build would use now. `None`: nobody has chosen one and set-up has not run. An error: the
/// user's choice does not hold one.
pub fn find(workspace: &Workspace, environment: &Environment) -> Result<Option<Libtorch>> {
    // The order of torch-sys.
    let (directory, origin) = if environment.has("LIBTORCH_USE_PYTORCH") {
        (Python::torch_package()?, Origin::Python)
    } else {
        match (environment.0)("LIBTORCH").map(PathBuf::from) {
            Some(directory) if !is_own_link(workspace, &directory) => (directory, Origin::Variable),
            _ => (workspace.deps().join("libtorch"), Origin::Setup),
        }
    };
    if origin == Origin::Setup && !directory.exists() {
        return Ok(None);
    }
    let version = check(&directory, environment)
        .with_context(|| format!("cannot use '{}' ({})", workspace.shown(&directory), origin.describe()))?;
    Ok(Some(Libtorch { directory, version, origin }))
}

/// Makes `.deps/libtorch` lead to what the user chose, so that later builds need no variable.
pub fn link(workspace: &Workspace, target: &Path) -> Result<()> {
    let link = workspace.deps().join("libtorch");
    if link.is_dir() && !link.is_symlink() {
        bail!("'{}' is a folder, not a link: move it away to let set-up replace it", workspace.shown(&link));
    }
    fs::create_dir_all(workspace.deps())?;
    let fresh = workspace.deps().join("libtorch.new");
    let _ = fs::remove_file(&fresh);
    symlink(target, &fresh)
        .and_then(|()| fs::rename(&fresh, &link))
        .with_context(|| format!("cannot link '{}' to '{}'", workspace.shown(&link), target.display()))
}

/// Installs the pinned wheels beside what is there, proves that they load, then puts them in place.
pub fn install(workspace: &Workspace, python: &Python, device: Device) -> Result<Libtorch> {
    let deps = workspace.deps();
    let (partial, place, old) = (deps.join("python.partial"), deps.join("python"), deps.join("python.old"));
    for leftover in [&partial, &old] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).with_context(|| format!("cannot remove '{}'", leftover.display()))?;
        }
    }
    let torch = format!("torch=={VERSION}");
    let mut arguments = vec!["--target", partial.to_str().context("the path of the checkout is not UTF-8")?];
    arguments.extend(["--no-compile", "--no-warn-conflicts", &torch]);
    if resolved(device) == Device::Cpu {
        arguments.push("--no-deps");
        if cfg!(target_os = "linux") {
            arguments.extend(MINIMAL_CUDA);
        }
    }
    let directory = partial.join("torch");
    python
        .pip("install", &arguments, &deps.join("tmp"))
        .and_then(|()| check(&directory, &Environment(&|_| None)))
        .and_then(|_| prove_that_it_loads(python, &directory.join(CPU_LIBRARY)))
        .map_err(|error| {
            anyhow!(
                "cannot install libtorch: {error:#}\n  run `cargo xtask setup` again, or point at one that you have: \
                 LIBTORCH=DIRECTORY cargo xtask setup"
            )
        })?;

    if place.exists() {
        fs::rename(&place, &old)?;
    }
    fs::rename(&partial, &place).with_context(|| format!("cannot rename '{}'", partial.display()))?;
    link(workspace, Path::new("python/torch"))?;
    if old.exists() {
        fs::remove_dir_all(&old)?;
    }
    Ok(Libtorch { directory: deps.join("libtorch"), version: VERSION.into(), origin: Origin::Setup })
}

/// Whether what set-up chose earlier lacks the CUDA libraries that `device` asks for. A folder of the user's, to which it
/// linked, is given up only for CUDA that is asked for by name.
pub fn lacks_cuda(workspace: &Workspace, device: Device) -> bool {
    let link = workspace.deps().join("libtorch");
    let lacks = match Build::of(&link, lacking) {
        Build::WithoutCuda => true,
        Build::ForCuda { lacks, .. } => lacks.is_some_and(|names| !names.is_empty()),
    };
    let ours = fs::read_link(&link).is_ok_and(|target| target == Path::new("python/torch"));
    lacks && if ours { resolved(device) == Device::Cuda } else { device == Device::Cuda }
}

fn resolved(device: Device) -> Device {
    match device {
        Device::Auto if has_driver(Path::new("/")) => Device::Cuda,
        Device::Auto => Device::Cpu,
        chosen => chosen,
    }
}

/// `.cargo/config.toml` sets `LIBTORCH` to the set-up's own link where the user has not set it.
fn is_own_link(workspace: &Workspace, directory: &Path) -> bool {
    let same = |a: &Path, b: &Path| a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    directory.ends_with(".deps/libtorch")
        && directory.ancestors().nth(2).is_some_and(|root| same(root, workspace.root()))
}

fn check(directory: &Path, environment: &Environment) -> Result<String> {
    if !directory.join(CPU_LIBRARY).exists() {
        bail!(
            "there is no '{CPU_LIBRARY}' in it: expected the folder of libtorch {VERSION} that holds lib/ and include/"
        );
    }
    let version = version_in(directory).unwrap_or_else(|| "of unknown version".into());
    let number = version.split('+').next();
    if number != Some(VERSION)
        && !environment.has("LIBTORCH_BYPASS_VERSION_CHECK")
        && version.starts_with(char::is_numeric)
    {
        bail!("it is libtorch {version}, expected {VERSION}");
    }
    Ok(version)
}

fn prove_that_it_loads(python: &Python, library: &Path) -> Result<()> {
    let load = "import ctypes, sys; ctypes.CDLL(sys.argv[1])";
    let output = python.command().args(["-c", load]).arg(library).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("'{}' does not load: {}", library.display(), text.lines().last().unwrap_or("no message"));
    }
    Ok(())
}

#[cfg(unix)]
use std::os::unix::fs::symlink;

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("links are made on Unix only; set LIBTORCH instead"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like an unpacked libtorch.
    fn fake(root: &Path, name: &str, version_file: (&str, &str)) -> PathBuf {
        let directory = root.join(name);
        fs::create_dir_all(directory.join("lib")).unwrap();
        fs::write(directory.join(CPU_LIBRARY), "").unwrap();
        fs::write(directory.join(version_file.0), version_file.1).unwrap();
        directory
    }

    fn find_with(root: &Path, variables: &[(&str, &Path)]) -> Result<Option<Libtorch>> {
        let get = |name: &str| variables.iter().find(|v| v.0 == name).map(|v| v.1.as_os_str().to_owned());
        find(&Workspace::at(root), &Environment(&get))
    }

    #[test]
    fn nothing_is_found_before_setup() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find_with(root.path(), &[]).unwrap(), None);
        // As `.cargo/config.toml` sets it.
        let own = root.path().join(".deps/libtorch");
        assert_eq!(find_with(root.path(), &[("LIBTORCH", &own)]).unwrap(), None);
    }

    #[test]
    fn a_variable_of_the_user_wins_over_the_setup() {
        let root = tempfile::tempdir().unwrap();
        let own = fake(root.path(), ".deps/libtorch", ("version.py", "__version__ = '2.13.0+cu130'\n"));
        let other = fake(root.path(), "elsewhere", ("build-version", "2.13.0+cpu\n"));
        let found = |variables: &[_]| find_with(root.path(), variables).unwrap().unwrap();
        let expected = Libtorch { directory: other.clone(), version: "2.13.0+cpu".into(), origin: Origin::Variable };
        assert_eq!(found(&[("LIBTORCH", &other)]), expected);
        let expected = Libtorch { directory: own.clone(), version: "2.13.0+cu130".into(), origin: Origin::Setup };
        assert_eq!(found(&[("LIBTORCH", &own)]), expected);
        assert_eq!(found(&[]), expected);
    }

    #[test]
    fn another_version_is_refused_by_name_and_number() {
        let root = tempfile::tempdir().unwrap();
        let other = fake(root.path(), "old", ("version.py", "__version__ = '2.5.1'\n"));
        let error = find_with(root.path(), &[("LIBTORCH", &other)]).unwrap_err();
        assert_eq!(format!("{error:#}"), "cannot use 'old' (from LIBTORCH): it is libtorch 2.5.1, expected 2.13.0");
        let bypass = [("LIBTORCH", other.as_path()), ("LIBTORCH_BYPASS_VERSION_CHECK", Path::new("1"))];
        assert_eq!(find_with(root.path(), &bypass).unwrap().unwrap().version, "2.5.1");
    }

    #[test]
    fn a_folder_without_libtorch_is_an_error_not_a_reason_to_install() {
        let root = tempfile::tempdir().unwrap();
        let error = find_with(root.path(), &[("LIBTORCH", root.path())]).unwrap_err();
        assert!(format!("{error:#}").contains("there is no 'lib/libtorch_cpu"), "{error:#}");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_of_the_users_is_given_up_only_for_cuda_that_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(root.path());
        for target in ["python/torch", "../mine"] {
            fake(&workspace.deps(), target, ("version.py", "__version__ = '2.13.0+cpu'\n"));
            link(&workspace, Path::new(target)).unwrap();
            assert!(lacks_cuda(&workspace, Device::Cuda) && !lacks_cuda(&workspace, Device::Cpu), "{target}");
        }
        assert!(!lacks_cuda(&workspace, Device::Auto), "the link leads to the user's folder");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_and_a_folder_is_not() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(root.path());
        let place = root.path().join(".deps/libtorch");
        for target in ["one", "two"] {
            link(&workspace, Path::new(target)).unwrap();
            assert_eq!(fs::read_link(&place).unwrap(), Path::new(target));
        }
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        assert!(link(&workspace, Path::new("three")).is_err());
    }
}
