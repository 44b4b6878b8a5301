//! `sam-mix-study study` from end to end, with scripts in the place of the programs that it starts.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Writes what a training writes; the run `bad-0` fails. The run `stop-0` is stopped by Ctrl-C, once.
const SAM_MIX: &str = r#"#!/bin/sh
echo "$@" >> log
verb=$1
while [ $# -gt 0 ]; do
    case $1 in --run) run=$2 ;; --embeddings) embeddings=$2 ;; --store) store=$2 ;; esac
    shift
done
if [ $verb = evaluate ]; then
    mkdir -p $run/evaluation
    cp evaluation.json $run/evaluation/test.json
    exit
fi
# `slow-0` saves its fifth step and goes on; `stuck-0` has done nothing yet.
case $run in *slow-0|*stuck-0)
    case $run in *slow-0)
        mkdir -p $run/checkpoints/step-000005
        echo step-000005 > $run/checkpoints/last
        echo '{ "steps": 5, "seconds": 1.0, "best": null, "phases": [] }' > $run/checkpoints/step-000005/progress.json ;;
    esac
    trap 'exit 130' TERM
    touch begun
    while true; do sleep 0.1; done ;;
esac
case $run in *bad-0) echo 'no such thing' >&2; exit 1 ;; esac
grep -qs finished $run/run.json && exit
mkdir -p $run/checkpoints
touch $run/checkpoints/best
mkdir -p $embeddings
touch $embeddings/sum.f16 $embeddings/sum.f16.json
case $run in *stop-0)
    if [ ! -e $run/run.json ]; then
        sed 's/finished/interrupted/' record.json > $run/run.json
        trap 'exit 130' INT
        kill -INT 0
        sleep 9
    fi
esac
cp record.json $run/run.json
"#;

const STUDY: &str = r#"
title = "three"
seeds = 1
config = "base.toml"
[train]
store = "store"
[[model]]
key = "first"
name = "first"
[[model]]
key = "KEY"
name = "second"
set = ["augmented_copies.count=1"]
[[model]]
key = "third"
name = "third"
"#;

struct Checkout(TempDir);

impl Checkout {
    /// With this key for the second model.
    fn new(key: &str) -> Self {
        // Beside the program, so that it can be linked to.
        let checkout = Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        checkout.write("bin/sam-mix", SAM_MIX);
        checkout.write("bin/sam-mix-data", "#!/bin/sh\necho '{ \"checksum\": \"sum\" }'\n");
        // What `report` is tested with too.
        checkout.write("record.json", include_str!("../../report/tests/fixtures/run/run.json"));
        let evaluation = include_str!("../../report/tests/fixtures/run/evaluation/test.json");
        let evaluation = evaluation.replace("c0ffee", "sum").replace("\"dice_liver\": 0.9,", "\"dice_liver\": 0.5,");
        checkout.write("evaluation.json", &evaluation);
        checkout.write("study.toml", &STUDY.replace("KEY", key));
        checkout.write("base.toml", "classifier.kind = 'embedding'");
        checkout.write("store/store.json", "{ \"dataset\": \"lits\", \"target\": \"liver\" }");
        checkout.write("store/index.sha256", "");
        let program = checkout.path().join("bin/sam-mix-study");
        fs::hard_link(env!("CARGO_BIN_EXE_sam-mix-study"), program).unwrap();
        checkout
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn study(&self, more: &[&str]) -> Output {
        Command::new(self.path().join("bin/sam-mix-study"))
            .args(["study", "study.toml", "--runs", "runs", "--output", "results"])
            .args(more)
            .current_dir(self.path())
            // Ctrl-C is for this program and what it starts.
            .process_group(0)
            .output()
            .unwrap()
    }

    /// What was started since the last call: the verb, the run, and whether it was resumed.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path().join("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path().join("log"));
        let short = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let run = words.iter().position(|word| *word == "--run").map_or("", |place| words[place + 1]);
            format!("{} {run}{}", words[0], if line.ends_with("--resume") { " again" } else { "" })
        };
        text.lines().map(short).collect()
    }

    fn embeddings(&self) -> usize {
        fs::read_dir(self.path().join("runs/embeddings")).map_or(0, Iterator::count)
    }
}

#[test]
fn a_run_that_fails_is_reported_and_the_others_go_on() {
    let checkout = Checkout::new("bad");
    let output = checkout.study(&["--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("failed: training of 'runs/bad-0': sam-mix failed"), "{said}");
    let of = |row: &str| [format!("train runs/{row}-0"), format!("evaluate runs/{row}-0")];
    assert_eq!(checkout.log(), [&of("first")[..], &of("bad")[..1], &of("third")].concat());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone on standard output");
    assert_eq!(json["rows"][2]["evaluations"][0]["figures"]["cam_box.dice_liver"]["mean"], 0.5);
    let text = fs::read_to_string(checkout.path().join("results/table.md")).unwrap();
    assert!(text.contains("| third | 1 | 0.5000 |") && text.contains("| second | 0 of 1 | – |"), "{text}");
    assert!(text.contains("xtask study study.toml") && text.contains("- training of 'runs/bad-0'"), "{text}");
    assert_eq!(checkout.embeddings(), 2, "the run that failed may read them yet");
    // Once more: what is finished is compared, what failed is tried again.
    checkout.study(&[]);
    assert_eq!(checkout.log(), ["train runs/first-0 again", "train runs/third-0 again", "train runs/bad-0"]);
}

#[test]
fn ctrl_c_ends_it_and_the_same_command_goes_on() {
    let checkout = Checkout::new("stop");
    let output = checkout.study(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted during training; `cargo xtask study study.toml"), "{said}");
    assert_eq!(checkout.log().last().unwrap(), "train runs/stop-0");
    assert_eq!(checkout.embeddings(), 2);
    let text = fs::read_to_string(checkout.path().join("results/table.md")).unwrap();
    assert!(text.contains("| first | 1 | 0.5000 |") && text.contains("| second | 0 of 1 | – |"), "{text}");
    let output = checkout.study(&["--embeddings", "kept"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let begun = ["train runs/first-0 again", "train runs/stop-0 again", "evaluate runs/stop-0"];
    assert_eq!(checkout.log(), [&begun[..], &["train runs/third-0", "evaluate runs/third-0"]].concat());
    assert_eq!(checkout.embeddings(), 2);
    let text = fs::read_to_string(checkout.path().join("results/table.md")).unwrap();
    assert!(text.contains("| second | 1 | 0.5000 |"), "{text}");
    assert!(checkout.study(&["--models", "first"]).status.success());
    assert_eq!(checkout.embeddings(), 2, "other models may read them yet");
    assert!(checkout.study(&[]).status.success());
    assert_eq!(checkout.embeddings(), 0);
}

#[test]
fn a_folder_that_has_no_earlier_results_of_the_study_is_kept() {
    let checkout = Checkout::new("second");
    let mine = checkout.path().join("results/table.md");
    checkout.write("results/table.md", "# mine\n");
    checkout.write("results/results.json", "{ \"title\": \"another\" }");
    let output = checkout.study(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("'results' is there already") && said.contains("--overwrite"), "{said}");
    assert!(checkout.log().is_empty() && fs::read_to_string(&mine).unwrap() == "# mine\n");
    assert!(checkout.study(&["--overwrite"]).status.success());
    assert!(fs::read_to_string(&mine).unwrap().starts_with("# three\n"));
    for file in ["table.csv", "table.tex", "table.parquet", "results.json"] {
        assert!(checkout.path().join("results").join(file).is_file(), "no {file}");
    }
    assert!(checkout.study(&[]).status.success(), "its own earlier results");
}

#[test]
fn nothing_begins_before_stores_and_weights_are_there() {
    let checkout = Checkout::new("second");
    checkout.write("base.toml", "[segmenter]\nweights = 'none.pth'");
    fs::remove_file(checkout.path().join("store/index.sha256")).unwrap();
    let output = checkout.study(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in ["'store' is no store ('index.sha256' is missing)", "cargo xtask prepare", "'none.pth' is missing"]
    {
        assert!(said.contains(expected), "{said}");
    }
    assert!(checkout.log().is_empty() && !checkout.path().join("results").exists());
    let plan = checkout.study(&["--plan"]);
    let text = String::from_utf8_lossy(&plan.stdout);
    assert!(plan.status.success() && text.contains("before it can begin") && text.contains("'none.pth'"), "{text}");
    assert!(checkout.log().is_empty() && !checkout.path().join("runs").exists());
}

/// In the place of SLURM's programs: the queue is a file.
const QUEUE: &str = "#!/bin/sh\ncat queue 2>/dev/null || true\n";
const SUBMIT: &str = "#!/bin/sh\necho sbatch \"$@\" >> log\nexpr 100 + $(wc -l < log)\n";
const TOLD: &str = "#!/bin/sh\necho ${0##*/} \"$@\" >> log\n";

impl Checkout {
    fn with_slurm(key: &str) -> Self {
        let checkout = Self::new(key);
        for (name, script) in [("squeue", QUEUE), ("sbatch", SUBMIT), ("scancel", TOLD), ("scontrol", TOLD)] {
            checkout.write(&format!("bin/{name}"), script);
        }
        checkout
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.path().join("bin/sam-mix-study"));
        let path = format!("{}:{}", self.path().join("bin").display(), std::env::var("PATH").unwrap());
        command.arg("study").args(words).args(["--runs", "runs"]).current_dir(self.path()).env("PATH", path);
        command
    }

    fn said(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// The lines of the log since the last call that begin with this.
    fn told(&self, program: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path().join("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path().join("log"));
        text.lines().filter(|line| line.starts_with(program)).map(str::to_owned).collect()
    }

    fn queue(&self, lines: &[&str]) {
        let runs = self.path().join("runs").canonicalize().unwrap();
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}|{}", runs.display())).collect();
        self.write("queue", &(lines.join("\n") + "\n"));
    }
}

#[test]
fn what_is_done_or_in_the_queue_is_not_submitted() {
    let checkout = Checkout::with_slurm("second");
    let slurm = ["study.toml", "--backend", "slurm"];
    // `first-0` is trained, and lacks its evaluation.
    checkout.write("runs/first-0/run.json", include_str!("../../report/tests/fixtures/run/run.json"));
    let set = ["--slurm", "time=04:00:00", "--slurm", "gres=gpu:1", "--slurm", "options=['--qos=long']"];
    let said = checkout.said(&[&slurm[..], &set].concat());
    let jobs = checkout.told("sbatch");
    assert_eq!(jobs.len(), 4, "{said}");
    let has = |job: usize, parts: &[&str]| {
        for part in parts {
            assert!(jobs[job].contains(&format!(" {part} ")), "{part} is not in {}", jobs[job]);
        }
    };
    has(
        0,
        &["--array=1,2", "--signal=B:USR1@120", "--time=04:00:00", "--gres=gpu:1", "--open-mode=append", "--qos=long"],
    );
    has(1, &["--array=1,2", "--dependency=aftercorr:101", "--kill-on-invalid-dep=yes", "--time=04:00:00"]);
    has(2, &["--array=0", "--gres=gpu:1"]);
    has(3, &["--dependency=afterany:101:102:103", "--kill-on-invalid-dep=yes"]);
    assert!(!jobs[2].contains("dependency") && !jobs[3].contains("gres"), "{jobs:?}");
    let script = fs::read_to_string(checkout.path().join("runs/slurm/train.sh")).unwrap();
    assert!(script.contains("\n2) run=third-0 ;;\n") && script.contains("\nexec "), "{script}");
    // `second-0` waits; `third-0` has failed.
    checkout.queue(&["101|1|PENDING|Priority", "102|1|PENDING|Dependency", "104|N/A|PENDING|Dependency"]);
    let said = checkout.said(&slurm);
    let jobs = checkout.told("sbatch");
    assert!(said.contains("3 jobs of the study in the queue already"), "{said}");
    assert_eq!(jobs.len(), 4, "{jobs:?}");
    assert!(jobs[0].contains("--array=2 ") && jobs[2].contains("--array=0 "), "{jobs:?}");
    assert!(jobs[3].contains("afterany:101:102:103:104"), "{jobs:?}");
    // A job that nobody wrote down may be of any run.
    checkout.queue(&["999|0|RUNNING|None"]);
    let said = checkout.said(&slurm);
    assert!(said.contains("has a job of this study that") && said.contains("scancel 999"), "{said}");
    let said = checkout.said(&["study.toml"]);
    assert!(said.contains("1 job of the study in SLURM's queue (999_0, …)"), "{said}");
    assert!(checkout.told("sbatch").is_empty());
    // Tasks are cancelled by their array's name.
    checkout.queue(&["101|1|PENDING|Priority", "101|2|RUNNING|None", "104|N/A|PENDING|Dependency"]);
    checkout.said(&["cancel", "study.toml", "--models", "third"]);
    checkout.said(&["cancel", "study.toml"]);
    assert_eq!(checkout.told("scancel"), ["scancel 101_2", "scancel 101_1 101_2 104"]);
    let status = checkout.said(&["status", "study.toml"]);
    let states: Vec<(&str, &str)> = status
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next().zip(words.next())
        })
        .collect();
    assert_eq!(states[..3], [("first-0", "finished"), ("second-0", "pending"), ("third-0", "running")], "{status}");
}

#[test]
fn a_task_whose_time_is_nearly_over_saves_and_is_requeued_by_its_arrays_name() {
    for (key, expected) in
        [("slow", "saved at step 5, requeued as 7_3"), ("stuck", "the time was over before a step was done")]
    {
        let checkout = Checkout::with_slurm(key);
        let only = format!("{key}-0");
        // The last task of an array has the array's number.
        let slurm = [
            ("SLURM_JOB_ID", "7"),
            ("SLURM_ARRAY_JOB_ID", "7"),
            ("SLURM_ARRAY_TASK_ID", "3"),
            ("SLURM_CPUS_ON_NODE", "1"),
        ];
        let log = fs::File::create(checkout.path().join("said")).unwrap();
        let mut task = checkout.command(&["task", "train", "study.toml", "--only", &only]);
        let mut task = task.envs(slurm).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        while !checkout.path().join("begun").exists() {
            assert!(task.try_wait().unwrap().is_none(), "it ended before training began");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(Command::new("kill").args(["-USR1", &task.id().to_string()]).status().unwrap().success());
        assert!(!task.wait().unwrap().success(), "nobody may take it for finished");
        let said = fs::read_to_string(checkout.path().join("said")).unwrap();
        assert!(said.contains(expected) && said.contains("7_3") && said.contains("--threads 1"), "{said}");
        let requeued = checkout.told("scontrol");
        assert_eq!(requeued, if key == "slow" { vec!["scontrol requeue 7_3"] } else { vec![] }, "{said}");
    }
}
