//! Every case with a driver's files and a libtorch's folder that are made up.

use super::*;
use crate::cuda_build::{DRIVER_PLACES, not_found};

/// A driver as its kernel module (of `version`) and nvidia-smi show it.
fn driver(version: &str) -> Driver {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), DRIVER_PLACES[0], &of_kernel(version));
    Driver::find(root.path(), |properties| {
        Some(if properties == "compute_cap" { "8.6".into() } else { format!("NVIDIA RTX A4000, 16376 MiB, {version}") })
    })
    .unwrap()
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
fn said(driver: Option<&Driver>, libtorch: Option<(&Build, Origin)>) -> String {
    let Verdict { usable, found, mend } = assess(driver, libtorch);
    let mend = mend.map_or_else(String::new, |mend| format!("\n-> {mend}"));
    format!("{} {found}{mend}", if usable { "ok" } else { "-" })
}

#[test]
fn without_a_driver_each_libtorch_computes_on_the_cpu() {
    let (whole, minimal) = (build(WHEEL_130, &[]), build(WHEEL_130, &["libcublas.so.13", "libcudnn.so.9"]));
    let all = [None, Some(&Build::WithoutCuda), Some(&minimal), Some(&whole)];
    let lines: Vec<String> = all.map(|build| said(None, build.map(|b| (b, Origin::Setup)))).into();
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
        said(Some(&new), None),
        said(Some(&new), Some((&Build::WithoutCuda, Origin::Setup))),
        said(Some(&new), Some((&Build::WithoutCuda, Origin::Variable))),
        said(Some(&new), Some((&minimal, Origin::Setup))),
        said(Some(&new), Some((&build(WHEEL_130, &["libcudnn.so.9"]), Origin::Python))),
        said(Some(&new), Some((&build(WHEEL_130, &[]), Origin::Setup))),
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
        said(Some(&old), Some((&whole, Origin::Setup))),
        said(Some(&old), Some((&build(WHEEL_130, &["libcudnn.so.9"]), Origin::Setup))),
        said(Some(&old), Some((&build(ARCHIVE_126, &[]), Origin::Variable))),
        said(Some(&driver("525.60.13")), Some((&build(ARCHIVE_126, &[]), Origin::Variable))),
        said(Some(&driver("470.256.02")), Some((&build(ARCHIVE_126, &[]), Origin::Variable))),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    - NVIDIA RTX A4000, 16376 MiB, 570.86.15; its driver is too old: libtorch for CUDA 13.0 needs 580 or later
    -> install NVIDIA's driver 580 or later, or take a libtorch of the same version for an older CUDA: LIBTORCH=DIRECTORY cargo xtask setup
    - NVIDIA RTX A4000, 16376 MiB, 570.86.15; its driver is too old: libtorch for CUDA 13.0 needs 580 or later; libtorch_cuda lacks its libraries (libcudnn.so.9)
    -> install NVIDIA's driver 580 or later, or take a libtorch of the same version for an older CUDA: LIBTORCH=DIRECTORY cargo xtask setup; cargo xtask setup --device cuda
    ok NVIDIA RTX A4000, 16376 MiB, 570.86.15; libtorch for CUDA 12.6 has its libraries
    ok NVIDIA RTX A4000, 16376 MiB, 525.60.13; libtorch for CUDA 12.6 has its libraries
    - NVIDIA RTX A4000, 16376 MiB, 470.256.02; its driver is too old: libtorch for CUDA 12.6 needs 525 or later
    -> install NVIDIA's driver 525 or later, or take a libtorch of the same version for an older CUDA: LIBTORCH=DIRECTORY cargo xtask setup
    ");
}

#[test]
fn a_gpu_is_too_old_for_one_cuda_and_new_enough_for_another() {
    let volta = Driver { capabilities: vec![(8, 6), (7, 0)], ..driver("580.65.06") };
    let lines = [
        said(Some(&volta), Some((&build(WHEEL_130, &[]), Origin::Setup))),
        said(Some(&volta), Some((&build(ARCHIVE_126, &[]), Origin::Variable))),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    - NVIDIA RTX A4000, 16376 MiB, 580.65.06; a GPU of compute capability 7.0 is too old: libtorch for CUDA 13.0 needs 7.5 or later
    -> take a libtorch of the same version for an older CUDA: LIBTORCH=DIRECTORY cargo xtask setup
    ok NVIDIA RTX A4000, 16376 MiB, 580.65.06; libtorch for CUDA 12.6 has its libraries
    ");
}

#[test]
fn what_is_not_known_is_not_called_well() {
    let silent = Driver {
        version: None,
        gpus: "NVIDIA's driver, but nvidia-smi does not answer".into(),
        capabilities: Vec::new(),
    };
    let unknown = Build::ForCuda { version: Some((13, 0)), lacks: None };
    let lines = [
        said(None, Some((&unknown, Origin::Setup))),
        said(Some(&driver("580.65.06")), Some((&unknown, Origin::Setup))),
        said(Some(&silent), Some((&build(WHEEL_130, &[]), Origin::Setup))),
        said(
            Some(&driver("580.65.06")),
            Some((&build(("version.py", "__version__ = '2.13.0a0'"), &[]), Origin::Setup)),
        ),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    - no NVIDIA driver: training runs on the CPU (libtorch for CUDA 13.0)
    - NVIDIA RTX A4000, 16376 MiB, 580.65.06; whether libtorch_cuda has its libraries is not known (`ldd` does not say)
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
        Driver::find(root.path(), |properties| smi.filter(|_| properties != "compute_cap").map(str::to_owned))
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
