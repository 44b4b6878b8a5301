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
