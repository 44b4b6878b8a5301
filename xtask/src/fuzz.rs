//! `cargo xtask fuzz TARGET`: hostile files against the volume readers, guided by coverage, on stable Rust.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::workspace::Workspace;

pub const ABOUT: &str = "Fuzz the volume readers with libFuzzer";

pub const EXAMPLES: &str = "\
Builds the targets with LLVM's coverage instrumentation (minutes, in a target folder of their own) and runs one. What it finds lies
in crates/ct-ingest/fuzz/artifacts.

Examples:
  cargo xtask fuzz volume-file --minutes 30
  cargo xtask fuzz dicom-folder --minutes 1";

#[derive(clap::Args)]
pub struct Args {
    /// What is fuzzed
    #[arg(value_enum)]
    target: Target,
    /// How long
    #[arg(long, default_value_t = 10)]
    minutes: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// The header of NIfTI-1 and NIfTI-2
    NiftiHeader,
    /// A whole file: NIfTI, NRRD or MetaImage
    VolumeFile,
    /// A folder of a DICOM series
    DicomFolder,
}

/// LLVM's coverage, as libFuzzer reads it.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// A hang is 10 seconds; more than 1 GB is too much for any of these files.
const LIMITS: [&str; 4] = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=65536", "-print_final_stats=1"];

/// Of two DICOM files in one input; see the target.
const MARK: &[u8] = b"--next file--";

pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let fuzz = workspace.root().join("crates/ct-ingest/fuzz");
    let name = match args.target {
        Target::NiftiHeader => "nifti_header",
        Target::VolumeFile => "volume_file",
        Target::DicomFolder => "dicom_folder",
    };
    let corpus = fuzz.join("corpus").join(name);
    seed(&workspace.root().join("crates/ct-ingest/tests/fixtures"), &corpus, args.target)?;
    let artifacts = fuzz.join("artifacts").join(name);
    fs::create_dir_all(&artifacts).with_context(|| format!("cannot create '{}'", artifacts.display()))?;

    let mut cargo = workspace.cargo();
    let triple = host(&mut workspace.cargo())?;
    // With a named target, build scripts and macros are not instrumented.
    cargo.args(["build", "--locked", "--profile", "fuzz", "-p", "ct-ingest-fuzz", "--bin", name, "--target", &triple]);
    cargo.arg("--target-dir").arg(fuzz.join("target"));
    let status = cargo.env("RUSTFLAGS", INSTRUMENTATION).status().context("cannot start cargo")?;
    ensure!(status.success(), "the build failed: see cargo's message above");
    let mut fuzzer = Command::new(fuzz.join("target").join(&triple).join("fuzz").join(name));
    fuzzer.arg(&corpus).args(LIMITS).arg(format!("-max_total_time={}", u64::from(args.minutes) * 60));
    let status = fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display())).status()?;
    if !status.success() {
        eprintln!("a case was found: see '{}'", workspace.shown(&artifacts));
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn host(cargo: &mut Command) -> Result<String> {
    let output = cargo.args(["-vV"]).output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).context("`cargo -vV` names no host")
}

/// The crate's fixtures as first inputs: files, and for DICOM folders the files of a folder with a mark between them.
fn seed(fixtures: &Path, corpus: &Path, target: Target) -> Result<()> {
    fs::create_dir_all(corpus).with_context(|| format!("cannot create '{}'", corpus.display()))?;
    let mut folders = vec![fixtures.to_path_buf()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list '{}'", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.extension().is_some_and(|extension| extension == "py" || extension == "json") {
                files.push(path);
            }
        }
        files.sort();
        let contents = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
        let dicom = |bytes: &Vec<u8>| bytes.get(128..132) == Some(b"DICM");
        let inputs = match target {
            Target::DicomFolder => vec![contents.into_iter().filter(dicom).take(3).collect::<Vec<_>>().join(MARK)],
            Target::NiftiHeader | Target::VolumeFile => contents.into_iter().filter(|bytes| !dicom(bytes)).collect(),
        };
        for input in inputs.into_iter().filter(|input| !input.is_empty()) {
            fs::write(corpus.join(format!("seed-{count}")), input)?;
            count += 1;
        }
    }
    ensure!(count > 0, "no seeds in '{}'", fixtures.display());
    Ok(())
}
