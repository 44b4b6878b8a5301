//! `--backend slurm` against a real SLURM of one node, which `slurm/cluster.sh` starts on the loopback: a U-Net of a few thousand
//! parameters on synthetic patients is trained, killed, requeued, and stopped by its time limit.
//!
//! Skipped where SLURM's daemons, or the programs that a study starts, are not there.
#![cfg(unix)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CONFIG: &str = r#"
[sampling]
labelled = 4
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[classifier]
kind = "none"
[segmenter]
kind = "unet"
[segmenter.settings]
widths = [8, 16]
[segmentation_loss]
score = 0.0
[optimizer]
lr."*" = 0.01
[[phase]]
name = "unet"
epochs = EPOCHS
batch_labelled = 2
encoder = "trained"
"#;

const STUDY: &str = r#"
title = "on a cluster"
seeds = 1
config = "short.toml"
[train]
store = "store"
[slurm]
time = 1
signal_seconds = 15
[[model]]
key = "short"
name = "short"
seeds = 2
[[model]]
key = "long"
name = "long"
config = "long.toml"
"#;

/// Of a run that has to be there long enough to be met in the middle.
const SHORT_SECONDS: f64 = 12.0;
/// More than SLURM takes at most until it says that a time limit of a minute is near: it looks each 30 s.
const LONG_SECONDS: f64 = 55.0;

/// SLURM on the loopback, as long as the test takes.
struct Cluster(TempDir);

impl Cluster {
    /// `None`, with a line that says what was skipped.
    fn start(test: &str) -> Option<Self> {
        let programs = ["sam-mix", "sam-mix-data", "sam-mix-phantom"].map(|name| programs().join(name));
        if let Some(missing) = programs.iter().find(|program| !program.is_file()) {
            println!("skipped: {test} needs '{}' (cargo build --release --workspace --bins)", missing.display());
            return None;
        }
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let has = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
        if let Some(missing) = ["slurmctld", "slurmd", "sbatch"].into_iter().find(|name| !has(name)) {
            println!("skipped: {test} needs {missing} (apt-get install --no-install-recommends slurm-wlm)");
            return None;
        }
        let cluster = Self(tempfile::tempdir().unwrap());
        let output = cluster.script("start");
        assert!(output.status.success(), "{}", told(&output));
        Some(cluster)
    }

    fn script(&self, verb: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm/cluster.sh");
        Command::new("sh").arg(script).arg(verb).arg(self.0.path().join("slurm")).output().unwrap()
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env("SLURM_CONF", self.0.path().join("slurm/slurm.conf"));
        command
    }

    /// Synthetic patients, and a study whose runs take so many seconds on this machine.
    fn prepare(&self, short: f64, long: f64) {
        let run = |program: &str, line: &str| {
            let output = self.command(programs().join(program)).args(line.split(' ')).output().unwrap();
            assert!(output.status.success(), "{line}: {}", told(&output));
        };
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests/phantom.json");
        run("sam-mix-phantom", "--output data --patients 4 --slices 12 --size 64");
        run("sam-mix-data", &format!("prepare --manifest {} --data data --store store --size 64", manifest.display()));
        // How long an epoch takes here.
        let write = |name: &str, epochs: f64| {
            fs::write(self.path(name), CONFIG.replace("EPOCHS", &format!("{}", epochs.ceil()))).unwrap();
        };
        let trial = 40.0;
        write("trial.toml", trial);
        run("sam-mix", "train --config trial.toml --store store --run trial --threads 1");
        let trial_run: Value = serde_json::from_str(&fs::read_to_string(self.path("trial/run.json")).unwrap()).unwrap();
        let seconds = trial_run["seconds"].as_f64().unwrap() / trial;
        write("short.toml", short / seconds);
        write("long.toml", long / seconds);
        fs::write(self.path("study.toml"), STUDY).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn study(&self, line: &str) -> Output {
        self.command(env!("CARGO_BIN_EXE_sam-mix-study")).arg("study").args(line.split(' ')).output().unwrap()
    }

    /// What it prints; it has to end well.
    fn done(&self, line: &str) -> String {
        let output = self.study(line);
        assert!(output.status.success(), "{line}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `study status` says of a run.
    fn status(&self, run: &str) -> Value {
        let said: Value = serde_json::from_str(&self.done("status study.toml --runs jobs --json")).unwrap();
        assert_eq!(said["queue_error"], Value::Null);
        said["runs"].as_array().unwrap().iter().find(|it| it["run"] == run).unwrap().clone()
    }

    /// Waits until something is true of a run.
    fn until(&self, run: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.status(run);
            if is_so(&status) {
                return status;
            }
            assert!(start.elapsed() < Duration::from_mins(4), "{run} not {what}: {status}\n{}", self.log(run));
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits until the queue is empty.
    fn until_done(&self) {
        let start = Instant::now();
        while !self.command("squeue").arg("--noheader").output().unwrap().stdout.is_empty() {
            assert!(start.elapsed() < Duration::from_mins(5), "{}", self.done("status study.toml --runs jobs"));
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// The number of the process that trains a run.
    fn trainer(&self, run: &str) -> String {
        let is_trainer = |process: &PathBuf| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let is_ours = fs::read_link(process.join("cwd")).is_ok_and(|folder| folder == self.0.path());
            is_ours && words.get(1) == Some(&&b"train"[..]) && words.contains(&run.as_bytes())
        };
        let mut all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let found = all.find(is_trainer).unwrap_or_else(|| panic!("no trainer of {run}"));
        found.file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn log(&self, run: &str) -> String {
        fs::read_to_string(self.path("jobs/slurm").join(format!("{run}.log"))).unwrap_or_default()
    }

    /// Results but for when, where and in what time they were made.
    fn results(&self, folder: &str) -> Value {
        let text = fs::read_to_string(self.path(folder).join("results.json")).unwrap();
        let mut results: Value = serde_json::from_str(&text).unwrap();
        for key in ["command", "commit", "date", "machine"] {
            results.as_object_mut().unwrap().remove(key).unwrap();
        }
        for row in results["rows"].as_array_mut().unwrap() {
            row.as_object_mut().unwrap().remove("training_minutes").unwrap();
            for evaluation in row["evaluations"].as_array_mut().unwrap() {
                for step in evaluation["steps"].as_array_mut().unwrap() {
                    step.as_object_mut().unwrap().remove("milliseconds_per_slice").unwrap();
                }
            }
        }
        results
    }

    /// Weights and optimiser of a run's last checkpoint, and its log but for the time.
    fn trained(&self, run: &str) -> (Vec<Vec<u8>>, String) {
        let checkpoints = self.path(run).join("checkpoints");
        let last = checkpoints.join(fs::read_to_string(checkpoints.join("last")).unwrap().trim());
        let files = ["weights.safetensors", "optimizer.safetensors"].map(|name| fs::read(last.join(name)).unwrap());
        let log = fs::read_to_string(self.path(run).join("metrics.csv")).unwrap();
        let columns = |line: &str| {
            let columns: Vec<&str> = line.split(',').enumerate().filter(|(at, _)| *at != 4).map(|(_, it)| it).collect();
            columns.join(",") + "\n"
        };
        (files.into(), log.lines().map(columns).collect())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.command("scancel").arg("--me").output();
        self.script("stop");
    }
}

fn has_begun(status: &Value) -> bool {
    status["state"] == "running" && status["step"].as_u64() > Some(3)
}

/// Where the programs of this build are.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sam-mix-study")).parent().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_study_on_a_cluster_is_the_local_one_bit_for_bit() {
    let Some(cluster) = Cluster::start("a_study_on_a_cluster_is_the_local_one_bit_for_bit") else { return };
    cluster.prepare(SHORT_SECONDS, LONG_SECONDS);
    let submission = "study.toml --backend slurm --runs jobs";
    let said = cluster.done(submission);
    assert!(
        said.starts_with("train: job ") && said.contains("evaluate: job ") && said.contains("table: job "),
        "{said}"
    );
    // While jobs work on them: neither again nor from here.
    let again = cluster.done(submission);
    assert!(again.contains("nothing to submit"), "{again}");
    let local = cluster.study("study.toml --runs jobs");
    assert!(!local.status.success() && told(&local).contains("study cancel"), "{}", told(&local));

    // Killed from outside: it fails, by name and with the reason; the others go on.
    cluster.until("short-0", "in training", has_begun);
    assert!(Command::new("kill").args(["-9", &cluster.trainer("jobs/short-0")]).status().unwrap().success());
    let failed = cluster.until("short-0", "failed", |it| it["state"] == "failed");
    assert!(failed["why"].as_str().unwrap().contains("sam-mix was killed (signal: 9"), "{failed}");
    // Taken away and put back, as where a node is lost. One task of the array has the array's number, which means all of them.
    let begun = cluster.until("short-1", "in training", has_begun);
    let name = begun["job"].as_str().unwrap();
    assert!(cluster.command("scontrol").args(["requeue", name]).status().unwrap().success());
    let requeued = cluster.until("short-1", "requeued", |it| it["state"] == "interrupted");
    assert_eq!(requeued["job"], name);

    // The same on this machine, meanwhile.
    cluster.done("study.toml --runs local --threads 1");
    cluster.until_done();
    assert!(cluster.log("long-0").contains("the time is nearly over: saved at step"), "{}", cluster.log("long-0"));
    let restarts = |run: &str| cluster.log(run).matches("resuming after step").count();
    assert!(restarts("short-1") >= 1 && restarts("long-0") >= 1 && restarts("short-0") == 0);
    // The results of what is done, with what is not.
    let results = cluster.results("jobs/results");
    assert_eq!(results["rows"][0]["seeds"], serde_json::json!([1]));
    let failure = results["failures"][0].as_str().unwrap();
    assert!(failure.starts_with("training of 'jobs/short-0': sam-mix was killed (signal: 9"), "{results}");

    // Submitted again, what failed goes on where it was saved.
    let said = cluster.done(submission);
    assert!(said.contains("train: job ") && said.contains(", 1 run\n"), "{said}");
    cluster.until_done();
    assert_eq!(restarts("short-0"), 1, "{}", cluster.log("short-0"));
    for run in ["short-0", "short-1", "long-0"] {
        let status = cluster.status(run);
        assert_eq!((&status["state"], &status["evaluation"]), (&"finished".into(), &"finished".into()), "{status}");
        assert!(cluster.log(run).contains("1 thread ("), "{}", cluster.log(run));
        let [here, there] = ["local", "jobs"].map(|folder| cluster.trained(&format!("{folder}/{run}")));
        assert!(here == there, "{run} has other weights, or another log");
    }
    let results = cluster.results("jobs/results");
    assert_eq!(cluster.results("local/results"), results);
    // Runs share a folder of embeddings; a network without prompts has none that another may have.
    let dice = &results["rows"][0]["evaluations"][0]["figures"]["cam_box.dice_liver"]["values"];
    assert!(dice[0] != dice[1], "two seeds, the same figures: {dice}");
    for file in ["table.csv", "table.tex", "table.parquet", "epochs.csv"] {
        let [here, there] =
            ["local", "jobs"].map(|folder| fs::read(cluster.path(folder).join("results").join(file)).unwrap());
        assert!(here == there, "{file} differs");
    }
    assert!(!cluster.path("jobs/embeddings").exists(), "all is done");
}

#[test]
fn a_cancelled_study_saves_and_goes_on_when_it_is_submitted_again() {
    let Some(cluster) = Cluster::start("a_cancelled_study_saves_and_goes_on_when_it_is_submitted_again") else {
        return;
    };
    cluster.prepare(SHORT_SECONDS, LONG_SECONDS);
    let submission = "study.toml --backend slurm --runs jobs --models short --slurm time=5";
    cluster.done(submission);
    cluster.until("short-0", "in training", has_begun);
    let said = cluster.done("cancel study.toml --runs jobs");
    assert!(said.starts_with("cancelled: "), "{said}");
    cluster.until_done();
    let status = cluster.status("short-0");
    assert_eq!(status["state"], "interrupted", "{status}");
    assert!(status["why"].as_str().unwrap().contains("CANCELLED AT"), "{status}");
    let text = cluster.done("status study.toml --runs jobs");
    assert!(text.contains("short-0") && text.contains("interrupted") && text.contains("table: no job"), "{text}");
    assert!(!cluster.path("jobs/results").exists(), "the job that writes them was cancelled too");
    cluster.done(submission);
    cluster.until_done();
    assert_eq!(cluster.status("short-0")["evaluation"], "finished");
    assert_eq!(cluster.log("short-0").matches("resuming after step").count(), 1);
    assert_eq!(cluster.results("jobs/results")["failures"], serde_json::json!([]));
}
