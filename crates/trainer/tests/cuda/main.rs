//! Opening a GPU where there is none, with whatever libtorch there is: without CUDA, the small set-up's, whose libtorch_cuda
//! lacks its libraries, or the whole CUDA build. So that one build is tested with several of them, the folder of another
//! libtorch of the same version may be named:
//!
//! `LD_LIBRARY_PATH=FOLDER/lib cargo test --release -p trainer --test cuda -- --show-output`
//!
//! libtorch looks for CUDA once in a process, and a library stays loaded, so each question has a process of its own.

use predictor::device::{DeviceChoice, deterministic, memory_in_use, open};
use serde_json::{Value, json};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the process that opens a device is told, in its environment.
const CHOICE: &str = "SAM_MIX_TEST_CHOICE";
const BEFORE: &str = "SAM_MIX_TEST_BEFORE";
const ANSWER: &str = "answer: ";

/// What libtorch has of CUDA, as the linker sees it.
#[derive(Debug, PartialEq)]
enum Libtorch {
    WithoutCuda,
    LacksLibraries(Vec<String>),
    Whole,
}

/// How opening a device ended.
struct Opened {
    /// Of the device, or the error.
    answer: Value,
    messages: String,
}

#[test]
fn the_program_starts_without_cudas_libraries() {
    let program = env!("CARGO_BIN_EXE_sam-mix");
    assert!(Command::new(program).arg("--version").output().unwrap().status.success());
    // It starts without them wherever it needs none of them.
    match Command::new("ldd").arg(program).output() {
        Ok(output) if output.status.success() => {
            let needed = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(needed.contains("libtorch_cpu") && !needed.contains("torch_cuda"), "{needed}");
        }
        _ => skip("the_program_starts_without_cudas_libraries", "ldd"),
    }
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_with_its_reason() {
    let (Some(libtorch), None) = (libtorch(), real_driver()) else {
        return skip("a_gpu_that_is_not_there_is_an_error_with_its_reason", "a machine with ldd and without a GPU");
    };
    for asked in ["cuda:0", "cuda:1"] {
        let opened = open_in_a_process(asked, "", None);
        let error = opened.error();
        assert!(error.starts_with(&format!("{asked} was asked for, but CUDA is not available: ")), "{error}");
        assert!(error.contains("doctor") && error.contains("--device cpu"), "{error}");
        assert_reason(error, &libtorch, "Found no NVIDIA driver");
        // CUDA's hooks are registered exactly where the library could be loaded.
        let whole = libtorch == Libtorch::Whole;
        assert_eq!((opened.is("loaded"), opened.is("registered")), (whole, whole), "{libtorch:?}");
    }
}

#[test]
fn auto_leaves_the_cuda_library_alone_where_no_driver_is() {
    let (Some(libtorch), None) = (libtorch(), real_driver()) else {
        return skip("auto_leaves_the_cuda_library_alone_where_no_driver_is", "a machine with ldd and without a GPU");
    };
    let opened = open_in_a_process("auto", "", None);
    assert_eq!(opened.answer["device"], "Cpu", "{libtorch:?}");
    assert!(!opened.is("loaded") && opened.messages.is_empty(), "{libtorch:?}: {}", opened.messages);
}

#[test]
fn auto_says_why_a_machine_with_a_driver_computes_on_the_cpu() {
    let name = "auto_says_why_a_machine_with_a_driver_computes_on_the_cpu";
    let (Some(libtorch), None) = (libtorch(), real_driver()) else {
        return skip(name, "a machine with ldd and without a GPU");
    };
    let place = tempfile::tempdir().unwrap();
    if !compile_fake_driver(place.path()) {
        return skip(name, "a C compiler (cc)");
    }
    // CUDA 12.2, and a version that no CUDA is newer than.
    for (version, reason) in
        [("12020", "driver on your system is too old (found version 12020)"), ("99000", "No CUDA GPUs are available")]
    {
        let opened = open_in_a_process("auto", "", Some((place.path(), version)));
        assert_eq!(opened.answer["device"], "Cpu");
        let note = opened.messages.lines().find(|line| line.starts_with("note: computing on the CPU")).unwrap();
        assert_reason(note, &libtorch, reason);
        let error = open_in_a_process("cuda:0", "", Some((place.path(), version)));
        assert_reason(error.error(), &libtorch, reason);
    }
}

#[test]
fn what_comes_before_the_device_does_not_hide_cuda() {
    let (Some(Libtorch::Whole), None) = (libtorch(), real_driver()) else {
        return skip("what_comes_before_the_device_does_not_hide_cuda", "the whole CUDA build, and no GPU");
    };
    let deterministic = open_in_a_process("cuda:0", "deterministic", None);
    assert!(deterministic.is("registered"));
    assert_reason(deterministic.error(), &Libtorch::Whole, "Found no NVIDIA driver");
    // libtorch looks for CUDA when it is seeded. This program does so later; if it didn't, it would say so.
    let late = open_in_a_process("cuda:0", "seed", None);
    assert!(!late.is("registered") && late.error().contains("a fault of this program"), "{}", late.error());
}

/// The other tests start this program again for it alone.
#[test]
fn asked_in_a_process_of_its_own() {
    let Ok(choice) = env::var(CHOICE) else { return };
    match env::var(BEFORE).unwrap().as_str() {
        "deterministic" => deterministic().unwrap(),
        "seed" => tch::manual_seed(0),
        _ => {}
    }
    let opened = open(choice.parse::<DeviceChoice>().unwrap());
    let answer = json!({
        "device": opened.as_ref().ok().map(|device| format!("{device:?}")),
        "error": opened.as_ref().err().map(|error| format!("{error:#}")),
        "loaded": loaded_library("libtorch_cuda.so").is_some(),
        "registered": tch::utils::has_cudart(),
        "memory": memory_in_use(tch::Device::Cuda(0)),
    });
    println!("\n{ANSWER}{answer}");
}

fn open_in_a_process(choice: &str, before: &str, driver: Option<(&Path, &str)>) -> Opened {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "asked_in_a_process_of_its_own", "--nocapture"]).env(CHOICE, choice).env(BEFORE, before);
    if let Some((folder, version)) = driver {
        let others = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let path = env::join_paths([folder.to_path_buf()].into_iter().chain(env::split_paths(&others))).unwrap();
        command.env("LD_LIBRARY_PATH", path).env("FAKE_DRIVER", version);
    }
    let output = command.output().unwrap();
    let (text, messages) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let answer =
        text.lines().find_map(|line| line.strip_prefix(ANSWER)).unwrap_or_else(|| panic!("{text}\n{messages}"));
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["memory"], Value::Null, "there is no GPU");
    Opened { answer, messages: messages.into_owned() }
}

impl Opened {
    fn error(&self) -> &str {
        self.answer["error"].as_str().unwrap_or_else(|| panic!("no error: {}", self.answer))
    }

    fn is(&self, what: &str) -> bool {
        self.answer[what].as_bool().unwrap()
    }
}

/// `of_driver` is libtorch's own reason, which is asked only where its CUDA part can be loaded.
fn assert_reason(text: &str, libtorch: &Libtorch, of_driver: &str) {
    let expected = match libtorch {
        Libtorch::WithoutCuda => text.contains("this libtorch is built without it"),
        Libtorch::LacksLibraries(names) => names.iter().any(|name| text.contains(&format!("can't be loaded: {name}"))),
        Libtorch::Whole => text.contains(of_driver),
    };
    assert!(expected, "{libtorch:?}: {text}");
}

/// `None` where `ldd` can't tell.
fn libtorch() -> Option<Libtorch> {
    let library = loaded_library("libtorch_cpu.so")?.with_file_name("libtorch_cuda.so");
    if !library.exists() {
        return Some(Libtorch::WithoutCuda);
    }
    let output = Command::new("ldd").arg(&library).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let missing = text.lines().filter_map(|line| line.trim().strip_suffix(" => not found").map(str::to_owned));
    let missing: Vec<String> = missing.collect();
    Some(if missing.is_empty() { Libtorch::Whole } else { Libtorch::LacksLibraries(missing) })
}

/// A library that this process has loaded.
fn loaded_library(name: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().filter_map(|line| line.split_whitespace().last()).map(PathBuf::from).find(|path| path.ends_with(name))
}

fn real_driver() -> Option<()> {
    ["/dev/nvidiactl", "/proc/driver/nvidia", "/usr/lib/wsl/lib/libcuda.so.1"]
        .iter()
        .any(|path| Path::new(path).exists())
        .then_some(())
}

fn compile_fake_driver(folder: &Path) -> bool {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/fake_driver.c");
    let library = folder.join("libcuda.so.1");
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    status.is_ok_and(|status| status.success())
}

fn skip(test: &str, needs: &str) {
    println!("skipped: {test} needs {needs}");
}
