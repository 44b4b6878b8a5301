//! Claims of the verb as a whole, on runs and evaluations written by hand.

use super::experiment::Progress;
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

const STUDY: &str = r#"
title = "A study"
seeds = 2
config = "base.toml"
[train]
store = "own"
prepare = "make own"
[[across]]
store = "other"
development = true
[[model]]
key = "ours"
name = "SAM-Mix"
budgets = [50, 5]
paper = { 50 = 0.5 }
[[model]]
key = "gt"
name = "no CAM"
set = ["training_prompts.cam_share=0"]
budgets = [50]
note = "half of the steps"
[[model]]
key = "own"
name = "its own number"
"#;

/// A checkout with a study, a configuration and two stores.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    write(&place, "study.toml", STUDY);
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
    let mut line = vec!["study".to_owned(), path("study.toml"), "--runs".into(), path("runs")];
    line.extend(more.iter().map(|argument| argument.replace("PLACE", &place.path().display().to_string())));
    let args = Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).args;
    Experiment::open(&args.grid, &args.means)
}

fn commands(place: &TempDir, more: &[&str]) -> String {
    plan::commands(&open(place, more).unwrap()).replace(&place.path().display().to_string(), "PLACE")
}

#[test]
fn the_commands_go_seed_by_seed_through_models_and_budgets() {
    let place = place();
    let text = commands(&place, &[]);
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
        let fifty = " --set sampling.labelled=50";
        [
            job("SAM-Mix, 50 labelled slices", "ours-50", seed, fifty),
            job("SAM-Mix, 5 labelled slices", "ours-5", seed, " --set sampling.labelled=5"),
            job("no CAM, 50 labelled slices", "gt-50", seed, &format!("{fifty} --set training_prompts.cam_share=0")),
            job("its own number", "own", seed, ""),
        ]
        .concat()
    };
    assert_eq!(text, of_seed(0) + &of_seed(1));
    let anew = commands(&place, &["--embeddings", "unshared"]);
    assert_eq!(anew, text.replace(" --embeddings PLACE/runs/embeddings", ""));
    let part = commands(&place, &["--models", "ours,own", "--budgets", "5", "--seeds", "1"]);
    assert_eq!(part, job("SAM-Mix, 5 labelled slices", "ours-5", 0, " --set sampling.labelled=5"));
}

#[test]
fn figures_on_the_volumes_own_voxels_are_asked_for_and_need_the_volumes() {
    let place = place();
    write(&place, "study.toml", &STUDY.replace("store = \"own\"", "store = \"own\"\nvolumes = \"ct\""));
    let open = || open(&place, &["--models", "own", "--seeds", "1"]).unwrap();
    let missing = open().missing();
    assert!(missing.len() == 1 && missing[0].contains("ct' is no folder"), "{missing:?}");
    fs::create_dir(place.path().join("ct")).unwrap();
    assert!(open().missing().is_empty());
    let evaluations = |experiment: &Experiment| experiment.evaluations(&experiment.jobs[0]);
    let first = &evaluations(&open())[0];
    assert!(first.windows(2).any(|pair| pair[0] == "--volumes" && Path::new(&pair[1]).ends_with("ct")), "{first:?}");
    // An evaluation without them is made again, one with them is kept and has its columns.
    finish(&place, "own", 0);
    let without = of("lits", "sum");
    write(&place, "runs/own-0/evaluation/test.json", &without);
    assert_eq!(evaluations(&open()).len(), 2);
    let mut with: Value = serde_json::from_str(&without).unwrap();
    with["native"] = json!({ "volumes": 1, "left_out": 0, "tolerance_mm": 2.0, "dice": 0.9125, "surface_dice": 0.875,
        "hd95_mm": 7.25, "assd_mm": null, "per_volume": [] });
    write(&place, "runs/own-0/evaluation/test.json", &with.to_string());
    assert_eq!(evaluations(&open()).len(), 1);
    let experiment = open();
    let keys = |store| document::columns(&experiment, store).into_iter().map(|column| column.key).collect::<Vec<_>>();
    assert!(keys(0).contains(&"native.hd95_mm") && !keys(1).contains(&"native.hd95_mm"));
    let found = experiment.evaluation(&experiment.jobs[0], 0).unwrap();
    let of = |key: &str| {
        let column = document::columns(&experiment, 0).into_iter().find(|c| c.key == key).unwrap();
        column.of_row(&experiment.rows[0])(&found)
    };
    assert_eq!(["native.dice", "native.hd95_mm", "native.assd_mm"].map(of), [Some(0.9125), Some(7.25), None]);
}

#[test]
fn what_is_done_is_not_done_again() {
    let place = place();
    let commands = || commands(&place, &["--models", "ours", "--seeds", "1"]);
    write(&place, "runs/ours-50-0/run.json", r#"{ "status": "interrupted" }"#);
    assert!(commands().lines().nth(1).unwrap().ends_with("embeddings --resume"));
    finish(&place, "ours-5", 0);
    write(&place, "runs/ours-5-0/evaluation/test.json", &of("lits", "sum"));
    write(&place, "runs/ours-5-0/evaluation/total.json", &of("another", "sum"));
    let text = commands();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "# SAM-Mix, 5 labelled slices, seed 0 (finished: its configuration is compared)");
    assert!(lines[1].contains("--set sampling.labelled=5") && lines[1].ends_with("--resume"));
    assert!(lines[2].starts_with("cargo xtask evaluate --run PLACE/runs/ours-5-0 --store PLACE/other --split all "));
    assert_eq!(lines[3], "# SAM-Mix, 50 labelled slices, seed 0");
    let best = fs::File::options().write(true).open(place.path().join("runs/ours-5-0/checkpoints/best")).unwrap();
    best.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
    assert!(commands().contains("runs/ours-5-0 --store PLACE/own --split test"), "the checkpoint is newer");
}

#[test]
fn an_evaluation_of_another_store_is_not_taken_for_this_one() {
    let place = place();
    finish(&place, "own", 0);
    write(&place, "runs/own-0/evaluation/test.json", &of("lits", "a"));
    let mut experiment = open(&place, &["--models", "own", "--seeds", "1"]).unwrap();
    for (checksum, lacking) in [("a", 1), ("b", 2)] {
        experiment.stores[0].checksum = Some(checksum.into());
        assert_eq!(experiment.evaluations(&experiment.jobs[0]).len(), lacking);
    }
}

#[test]
fn what_is_ambiguous_is_told_before_anything_runs() {
    let place = place();
    let refused = |more: &[&str]| format!("{:#}", open(&place, more).err().expect("refused"));
    for (more, expected) in [
        (vec!["--models", "ours,nothing"], "has no model `nothing`, only: ours, gt, own"),
        (vec!["--budgets", "7"], "has 7 labelled slices"),
        (vec!["--models", "gt", "--budgets", "5"], "leave nothing of the study"),
    ] {
        let error = refused(&more);
        assert!(error.contains(expected), "{error}");
    }
    for (across, expected) in
        [("\"own\"", "`across` has"), ("\"other\"\n[[across]]\nstore = \"other\"", "are both of the data set `total`")]
    {
        write(&place, "study.toml", &STUDY.replace("\"other\"", across));
        assert!(refused(&[]).contains(expected), "{}", refused(&[]));
    }
    write(&place, "study.toml", &STUDY.replace("note =", "config = \"none.toml\"\nnote ="));
    assert!(refused(&[]).contains("model `gt`: cannot read its configuration"));
    write(&place, "base.toml", "classifier");
    assert!(refused(&["--models", "ours"]).contains("base.toml': this is not TOML"));
}

/// 600 and 900 s of finished runs are 0.21 h a run in the mean; the two that are left of `ours` take 0.42 h.
#[test]
fn a_plan_says_how_far_runs_are_and_what_the_others_will_cost() {
    let place = place();
    finish(&place, "ours-50", 0);
    finish(&place, "ours-50", 1);
    write(&place, "runs/ours-50-0/evaluation/test.json", &of("lits", "a"));
    write(&place, "runs/ours-50-0/evaluation/total.json", &of("total", "a"));
    write(&place, "runs/gt-50-1/run.json", r#"{ "status": "interrupted" }"#);
    fs::remove_file(place.path().join("own/index.sha256")).unwrap();
    let text = plan::plan(&open(&place, &[]).unwrap());
    insta::assert_snapshot!(text.replace(&place.path().display().to_string(), "PLACE"));
}

/// An evaluation of patients `a` (two cases of one and two slices with the target) to `d`: their Dice over slices, and of their volumes.
fn patients(dataset: &str, dice: [f64; 4], volume: [f64; 4]) -> String {
    let mut it: Value = serde_json::from_str(&of(dataset, "sum")).expect("it is JSON");
    let mut volumes =
        vec![json!({ "case": "a2", "patient": "a", "slices": 9, "liver_slices": 1, "dice_volume": volume[0],
        "dice_liver": dice[0] })];
    for (name, (dice, volume)) in ["a", "b", "c", "d"].into_iter().zip(dice.into_iter().zip(volume)) {
        volumes.push(json!({ "case": format!("{name}1"), "patient": name, "slices": 9, "liver_slices": 2,
            "dice_volume": volume, "dice_liver": dice }));
    }
    it["per_volume"] = volumes.into();
    it.to_string()
}

/// By hand: of Dice 0.9, 0.8, 0.7, 0.6 with 3, 2, 2, 2 slices the mean is 6.9 / 9; the other model's is lower by 0.1 in each of four
/// patients, which 2 of 2⁴ patterns of signs show: p = 0.125, by Holm twice that for two tests.
#[test]
fn intervals_are_over_patients_and_every_model_is_compared_with_the_first() {
    let place = place();
    let (dice, volume) = ([0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.8, 0.9]);
    let lower = |values: [f64; 4]| values.map(|value| value - 0.1);
    finish(&place, "ours-50", 0);
    write(&place, "runs/ours-50-0/evaluation/test.json", &patients("lits", dice, volume));
    finish(&place, "gt-50", 0);
    write(&place, "runs/gt-50-0/evaluation/test.json", &patients("lits", lower(dice), lower(volume)));
    let experiment = open(&place, &[]).unwrap();
    let results = results_of(&experiment);
    let entries = comparison::entries(&experiment, &results, 0);
    let cell = |row: usize, metric: usize| match &entries[row][metric] {
        comparison::Entry::Known(cell) => cell,
        _ => panic!("row {row} has no cell"),
    };
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    near(cell(0, 0).estimate, 6.9 / 9.0);
    near(cell(2, 0).estimate, 6.0 / 9.0);
    // Five volumes: 0.9 twice of patient `a`.
    near(cell(0, 1).estimate, 4.3 / 5.0);
    assert_eq!(cell(0, 0).patients, 4);
    let interval = cell(0, 0).interval.unwrap();
    assert!(0.6 <= interval.low && interval.low < 6.9 / 9.0 && 6.9 / 9.0 < interval.high && interval.high <= 0.9);
    assert!(cell(0, 0).comparison.is_none(), "the first one has nothing to be compared with");
    let comparison = cell(2, 0).comparison.unwrap();
    near(comparison.test.difference, -0.1);
    assert_eq!((comparison.test.p, comparison.adjusted_p), (0.125, 0.25));
    assert_eq!(comparison.verdict, statistics::Verdict::TooFewPatients);
    assert!(matches!(entries[3][0], comparison::Entry::Nothing));
}

#[test]
fn seeds_that_were_tested_on_other_patients_give_no_interval_and_the_reason() {
    let place = place();
    let all = [0.5; 4];
    for seed in 0..2 {
        finish(&place, "ours-50", seed);
        let text = patients("lits", all, all);
        let text = if seed == 0 { text } else { text.replace("\"patient\":\"d\"", "\"patient\":\"e\"") };
        write(&place, &format!("runs/ours-50-{seed}/evaluation/test.json"), &text);
    }
    let experiment = open(&place, &[]).unwrap();
    let entries = comparison::entries(&experiment, &results_of(&experiment), 0);
    let comparison::Entry::Unknown(reason) = &entries[0][0] else { panic!("it has an interval") };
    assert!(reason.contains("patient 'd'") && reason.contains("seed 1"), "{reason}");
}

fn results_of(experiment: &Experiment) -> Vec<RowResults> {
    let done: Vec<bool> = experiment.jobs.iter().map(|job| job.progress() == Progress::Finished).collect();
    RowResults::of(experiment, &done)
}

/// Means and deviations are computed by hand: 0.90 and 0.94 have 0.92 ± 0.02 √2, 10 and 15 minutes 12.5 ± 2.5 √2.
#[test]
fn the_document_has_means_deviations_intervals_and_the_papers_figures() {
    let place = place();
    let evaluation = |dataset: &str, dice: f64, positive: usize| {
        let text = patients(dataset, [dice; 4], [0.97, 0.96, 0.98, 0.97]);
        let mut it: Value = serde_json::from_str(&text).expect("it is JSON");
        let mut put = |pointer: &str, value: Value| *it.pointer_mut(pointer).expect("it is there") = value;
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
        finish(&place, "ours-50", seed);
        write(&place, &format!("runs/ours-50-{seed}/evaluation/test.json"), &evaluation("lits", dice, positive));
        let metrics =
            "kind,phase,epoch,step,time_s,val_dice\nepoch,a,1,9,30,\nepoch,b,1,12,60,0.8\nepoch,b,2,15,120,0.9\n";
        write(&place, &format!("runs/ours-50-{seed}/metrics.csv"), metrics);
    }
    write(&place, "runs/ours-50-0/evaluation/total.json", &evaluation("total", 0.8, 0));
    finish(&place, "gt-50", 0);
    write(&place, "runs/gt-50-0/evaluation/test.json", &evaluation("lits", 0.7, 1));
    finish(&place, "ours-5", 0);
    let experiment = open(&place, &[]).unwrap();
    let document = Document {
        command: "cargo xtask study".into(),
        commit: "def".into(),
        machine: "a processor, 2 cores".into(),
        date: "2026-01-31".into(),
        leaks: "No near-duplicates.".into(),
        results: results_of(&experiment),
        experiment: &experiment,
        failures: vec!["training of 'own-0': no".into()],
    };
    let folder = place.path().join("results");
    output::write(&document, &folder).unwrap();
    let read = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        text.replace(&place.path().display().to_string(), "PLACE")
    };
    insta::assert_snapshot!("table.md", read("table.md"));
    insta::assert_snapshot!("table.tex", read("table.tex"));
    let csv = read("table.csv");
    assert!(csv.contains("\nours,50,1,lits,test,false,cam_box.dice_liver,0.94\n"), "{csv}");
    assert!(csv.contains("\nours,50,0,total,all,true,counts.missed,1\n"), "{csv}");
    assert_eq!(fs::read(folder.join("table.parquet")).unwrap()[..4], *b"PAR1");
    let curves = read("label-efficiency.csv");
    assert!(curves.starts_with("model,labelled_slices,dice_liver,deviation\nSAM-Mix,50,0.91999"), "{curves}");
    assert_eq!(read("time.csv").lines().nth(2), Some("\"SAM-Mix, 50 labelled slices, seed 0\",2,0.9,"));
    assert_eq!(read("epochs.csv").lines().nth(1), Some("\"SAM-Mix, 50 labelled slices, seed 0\",2,0.8,"));
    let page = read("comparison.html");
    assert!(
        page.contains("<td>0.9200 ± 0.0283</td>")
            && page.contains("Development data")
            && page.matches("<svg").count() == 4
    );
    for svg in ["label-efficiency.svg", "label-efficiency-total.svg", "epochs.svg", "time.svg"] {
        assert!(read(svg).starts_with("<svg"), "{svg}");
    }
    let json: Value = serde_json::from_str(&read("results.json")).unwrap();
    assert_eq!(json["rows"][0]["seeds"], json!([0, 1]));
    let dice = &json["rows"][0]["evaluations"][0]["figures"]["cam_box.dice_liver"];
    assert_eq!(dice["values"], json!([0.9, 0.94]));
    assert!((dice["deviation"].as_f64().unwrap() - 0.02 * 2f64.sqrt()).abs() < 1e-12);
    assert_eq!(json["rows"][3]["training_minutes"], json!({ "mean": null, "deviation": null, "values": [] }));
    assert_eq!(json["rows"][0]["evaluations"][1]["steps"][1]["milliseconds_per_slice"]["mean"], 5.0);
    assert_eq!(json["rows"][2]["compared_with"], "ours-50");
    assert_eq!(
        json["rows"][2]["evaluations"][0]["over_patients"]["dice_liver"]["comparison"]["verdict"],
        "too-few-patients"
    );
    output::check_place(&folder, "A study", false).unwrap();
    let error = output::check_place(&folder, "Another", false).unwrap_err().to_string();
    assert!(error.contains("has no earlier results of the study 'Another'"), "{error}");
}

#[test]
fn an_oracle_has_no_runs_of_its_own_and_shows_what_true_boxes_gave() {
    let place = place();
    let of = "[[model]]\nkey = \"seen\"\nname = \"oracle box\"\noracle_of = \"ours\"\nbudgets = [50]\n";
    write(&place, "study.toml", &format!("{STUDY}{of}"));
    finish(&place, "ours-50", 0);
    let mut it: Value = serde_json::from_str(&patients("lits", [0.5; 4], [0.5; 4])).unwrap();
    it["oracle_box"]["dice_liver"] = 0.98.into();
    for volume in it["per_volume"].as_array_mut().unwrap() {
        (volume["oracle_dice_liver"], volume["oracle_dice_volume"]) = (0.975.into(), 0.97.into());
    }
    write(&place, "runs/ours-50-0/evaluation/test.json", &it.to_string());
    let experiment = open(&place, &[]).unwrap();
    let oracle = experiment.rows.len() - 1;
    assert!(experiment.jobs.iter().all(|job| job.row != oracle));
    let results = results_of(&experiment);
    let columns = document::columns(&experiment, 0);
    let row = &experiment.rows[oracle];
    let figure = |key: &str| {
        let column = columns.iter().find(|column| column.key == key).unwrap();
        results[oracle].figure(0, column.of_row(row)).mean()
    };
    assert_eq!((figure("cam_box.dice_liver"), figure("counts.missed")), (Some(0.98), None));
    let entries = comparison::entries(&experiment, &results, 0);
    let comparison::Entry::Known(cell) = &entries[oracle][0] else { panic!("it has patients") };
    assert!((cell.estimate - 0.975).abs() < 1e-12);
    assert!(
        (cell.comparison.unwrap().test.difference - 0.475).abs() < 1e-12,
        "against the prediction of the same runs"
    );
}

#[test]
fn a_command_is_shown_as_a_shell_takes_it() {
    assert_eq!(plan::shown("p", ["a=1", "it's", "", "x y"]), r"p a=1 'it'\''s' '' 'x y'");
}

#[test]
fn every_study_of_the_repository_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut count = 0;
    for entry in fs::read_dir(root.join("configs/studies")).unwrap() {
        let path = entry.unwrap().path();
        let args =
            Line::try_parse_from(["study".as_ref(), path.as_os_str()]).unwrap_or_else(|error| panic!("{error}")).args;
        let experiment = Experiment::open(&args.grid, &args.means).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(!experiment.jobs.is_empty());
        count += 1;
    }
    assert!(count > 0);
}
