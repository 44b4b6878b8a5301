//! Claims of the verb as a whole, on runs and evaluations written by hand.

use super::*;
use clap::Parser;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

const TABLE: &str = r#"
base = "base.toml"
[[row]]
key = "ours"
name = "all of it"
[[row]]
key = "five"
name = "5 labelled slices"
set = ["sampling.labelled=5"]
[[row]]
key = "gt"
name = "no CAM"
set = ["training_prompts.cam_share=0"]
[[row]]
key = "resnet"
name = "on slices"
set = ["classifier.kind=resnet"]
"#;

/// A checkout with a table, a configuration and two stores.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    write(&place, "table.toml", TABLE);
    write(&place, "base.toml", "[classifier]\nkind = \"embedding\"\n");
    for (store, dataset) in [("own", "lits"), ("other", "total")] {
        let info = json!({ "dataset": dataset, "target": "spleen" });
        write(&place, &format!("{store}/store.json"), &info.to_string());
        write(&place, &format!("{store}/index.sha256"), "");
    }
    place
}

fn write(place: &TempDir, name: &str, text: &str) {
    let path = place.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A finished run of 600 s, and 300 s for each seed.
fn finish(place: &TempDir, key: &str, seed: u64) {
    // What `report` is tested with too: a whole record, and below a whole evaluation.
    let mut record: Value =
        serde_json::from_str(include_str!("../../../report/tests/fixtures/run/run.json")).expect("it is JSON");
    (record["seconds"], record["commit"]) = ((600 + 300 * seed).into(), "abc".into());
    write(place, &format!("runs/{key}-{seed}/run.json"), &record.to_string());
    write(place, &format!("runs/{key}-{seed}/checkpoints/best"), "step-000001");
}

/// An evaluation of that data set, on a store of that checksum.
fn of(dataset: &str, checksum: &str) -> String {
    let whole = include_str!("../../../report/tests/fixtures/run/evaluation/test.json");
    let mut it: Value = serde_json::from_str(whole).expect("it is JSON");
    (it["dataset"], it["store_checksum"]) = (dataset.into(), checksum.into());
    it.to_string()
}

fn open(place: &TempDir, more: &[&str]) -> Result<Experiment> {
    let path = |name: &str| place.path().join(name).display().to_string();
    let mut line = vec!["ablation".to_owned(), "--table".into(), path("table.toml"), "--runs".into(), path("runs")];
    line.extend(["--store".into(), path("own")]);
    line.extend(more.iter().map(|argument| argument.replace("PLACE", &place.path().display().to_string())));
    let args = Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).args;
    Experiment::open(&args)
}

fn dry(place: &TempDir, more: &[&str]) -> String {
    dry_run(&open(place, more).unwrap()).replace(&place.path().display().to_string(), "PLACE")
}

#[test]
fn a_dry_run_goes_seed_by_seed() {
    let place = place();
    let text = dry(&place, &["--across", "PLACE/other", "--seeds", "2"]);
    let job = |name: &str, key: &str, seed: u64, set: &str| {
        let run = format!("PLACE/runs/{key}-{seed}");
        format!(
            "# {name}, seed {seed}\n\
             cargo xtask train --config PLACE/base.toml --store PLACE/own --run {run} --set seed={seed}{set} --embeddings PLACE/runs/embeddings\n\
             cargo xtask evaluate --run {run} --store PLACE/own --split test --embeddings PLACE/runs/embeddings\n\
             cargo xtask evaluate --run {run} --store PLACE/other --split all --embeddings PLACE/runs/embeddings\n"
        )
    };
    let of_seed = |seed: u64| {
        [
            job("all of it", "ours", seed, ""),
            job("5 labelled slices", "five", seed, " --set sampling.labelled=5"),
            job("no CAM", "gt", seed, " --set training_prompts.cam_share=0"),
            job("on slices", "resnet", seed, " --set classifier.kind=resnet"),
        ]
        .concat()
    };
    assert_eq!(text, of_seed(0) + &of_seed(1));
    let anew = dry(&place, &["--across", "PLACE/other", "--seeds", "2", "--embeddings", "unshared"]);
    assert_eq!(anew, text.replace(" --embeddings PLACE/runs/embeddings", ""));
}

#[test]
fn what_is_done_is_not_done_again() {
    let place = place();
    let dry = || dry(&place, &["--across", "PLACE/other", "--rows", "ours,five", "--seeds", "1"]);
    write(&place, "runs/ours-0/run.json", r#"{ "status": "interrupted" }"#);
    assert!(dry().lines().nth(1).unwrap().ends_with("embeddings --resume"));
    finish(&place, "five", 0);
    write(&place, "runs/five-0/evaluation/test.json", &of("lits", "sum"));
    write(&place, "runs/five-0/evaluation/total.json", &of("another", "sum"));
    let text = dry();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "# 5 labelled slices, seed 0 (finished: its configuration is compared)");
    assert!(lines[1].contains("--set sampling.labelled=5") && lines[1].ends_with("--resume"));
    assert!(lines[2].starts_with("cargo xtask evaluate --run PLACE/runs/five-0 --store PLACE/other --split all "));
    assert_eq!(lines[3], "# all of it, seed 0");
    let best = fs::File::options().write(true).open(place.path().join("runs/five-0/checkpoints/best")).unwrap();
    best.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
    assert!(dry().contains("runs/five-0 --store PLACE/own --split test"), "the checkpoint is newer");
}

#[test]
fn an_evaluation_of_another_store_is_not_taken_for_this_one() {
    let place = place();
    finish(&place, "ours", 0);
    write(&place, "runs/ours-0/evaluation/test.json", &of("lits", "a"));
    let mut experiment = open(&place, &["--rows", "ours", "--seeds", "1"]).unwrap();
    for (checksum, lacking) in [("a", 0), ("b", 1)] {
        experiment.stores[0].checksum = Some(checksum.into());
        assert_eq!(experiment.evaluations(&experiment.jobs[0]).len(), lacking);
    }
}

#[test]
fn what_is_missing_or_ambiguous_is_told_before_anything_runs() {
    let place = place();
    let refused = |more: &[&str]| format!("{:#}", open(&place, more).err().expect("refused"));
    for (more, expected) in [
        (vec!["--rows", "ours,nothing"], "it has no row `nothing`, only: ours, five, gt, resnet"),
        (vec!["--steps-of", "nothing"], "--steps-of nothing: there is no such row"),
        (vec!["--across", "PLACE/runs"], "is no store ('store.json' is missing)"),
        (vec!["--across", "PLACE/own"], "is the store that is trained on"),
        (vec!["--across", "PLACE/other", "--across", "PLACE/other"], "are both of the data set `total`"),
    ] {
        let error = refused(&more);
        assert!(error.contains(expected), "{error}");
    }
    write(&place, "table.toml", &TABLE.replace("name = \"no CAM\"", "name = \"no CAM\"\nconfig = \"none.toml\""));
    assert!(refused(&[]).contains("row `gt`: cannot read its configuration"));
    write(&place, "base.toml", "classifier");
    assert!(refused(&["--rows", "ours"]).contains("base.toml': this is not TOML"));
}

/// Means and deviations are computed by hand: 0.90 and 0.94 have 0.92 ± 0.02 √2, 10 and 15 minutes 12.5 ± 2.5 √2.
#[test]
fn the_document_has_means_and_deviations_over_the_seeds() {
    let place = place();
    let evaluation = |dataset: &str, dice: f64, positive: usize| {
        let whole = include_str!("../../../report/tests/fixtures/run/evaluation/test.json");
        let mut it: Value = serde_json::from_str(whole).expect("it is JSON");
        let mut put = |pointer: &str, value: Value| *it.pointer_mut(pointer).expect("it is there") = value;
        put("/dataset", dataset.into());
        put("/cam_box/dice_all", dice.into());
        put("/cam_box/dice_liver", dice.into());
        put("/cam_box/dice_volume", 0.97.into());
        put("/cam_box/box_iou", 0.5.into());
        put("/oracle_box/dice_liver", 0.98.into());
        put(
            "/counts",
            json!({ "slices": 12, "liver_slices": 5, "empty_cam": 0, "missed": 1, "false_positive": positive }),
        );
        put("/control_whole_image/dice_liver", (dice - 0.25).into());
        put("/control_central_half", Value::Null);
        put("/pretrained_weights/oracle_dice_liver", 0.96.into());
        put(
            "/steps",
            json!([
                { "name": "box", "dice_all": dice - 0.5, "dice_liver": 0.5, "dice_volume": 0.5, "false_positive": 4, "missed": 0,
                  "milliseconds_per_slice": 20.0 },
                { "name": "refined", "dice_all": dice, "dice_liver": 0.75, "dice_volume": 0.5, "false_positive": positive, "missed": 0,
                  "milliseconds_per_slice": 5.0 }
            ]),
        );
        it.to_string()
    };
    for (seed, dice, positive) in [(0, 0.9, 1), (1, 0.94, 4)] {
        finish(&place, "ours", seed);
        write(&place, &format!("runs/ours-{seed}/evaluation/test.json"), &evaluation("lits", dice, positive));
    }
    write(&place, "runs/ours-0/evaluation/total.json", &evaluation("total", 0.8, 0));
    finish(&place, "five", 0);
    let experiment = open(&place, &["--across", "PLACE/other", "--rows", "ours,five,gt", "--seeds", "2"]).unwrap();
    let done: Vec<bool> = experiment.jobs.iter().map(|job| job.progress() == Progress::Finished).collect();
    let document = Document {
        title: "table".into(),
        command: "cargo xtask ablation".into(),
        commit: "def".into(),
        machine: "a processor, 2 cores".into(),
        date: "2026-01-31".into(),
        results: RowResults::of(&experiment, &done),
        experiment: &experiment,
        failures: vec!["training of 'gt-0': no".into()],
    };
    let text = document.markdown().replace(&place.path().display().to_string(), "PLACE");
    insta::assert_snapshot!(text);
    let json = document.json();
    assert_eq!(json["rows"][0]["seeds"], json!([0, 1]));
    let dice = &json["rows"][0]["evaluations"][0]["figures"]["cam_box.dice_liver"];
    assert_eq!(dice["values"], json!([0.9, 0.94]));
    assert!((dice["deviation"].as_f64().unwrap() - 0.02 * 2f64.sqrt()).abs() < 1e-12);
    assert_eq!(json["rows"][2]["training_minutes"], json!({ "mean": null, "deviation": null, "values": [] }));
    assert_eq!(json["rows"][0]["evaluations"][1]["steps"][1]["milliseconds_per_slice"]["mean"], 5.0);
}

#[test]
fn a_command_is_shown_as_a_shell_takes_it() {
    assert_eq!(shown("p", ["a=1", "it's", "", "x y"]), r"p a=1 'it'\''s' '' 'x y'");
}
