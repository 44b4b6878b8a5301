//! Reports of small run directories: the page as a person has reviewed it, what is missing, what is malformed.

use std::fs;
use std::path::Path;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/run");

/// A whole `run.json`, and a whole evaluation.
const RECORD: &str = include_str!("fixtures/run/run.json");
const EVALUATION: &str = include_str!("fixtures/run/evaluation/test.json");

/// An evaluation of another split.
fn evaluation_of(split: &str) -> String {
    EVALUATION.replace("\"split\": \"test\"", &format!("\"split\": \"{split}\""))
}

/// A run directory of these files.
fn run(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

/// The message for a run directory of these files, without the directory.
fn error(files: &[(&str, &str)]) -> String {
    let directory = run(files);
    let message = report::render(directory.path()).unwrap_err().to_string();
    message.replace(&directory.path().display().to_string(), "RUN")
}

fn fixture() -> String {
    report::render(Path::new(FIXTURE)).unwrap()
}

#[test]
fn page_is_as_reviewed() {
    // The style is code, reviewed as such, and where the fixture lies is this machine's business.
    let page = fixture().replace(FIXTURE, "RUN");
    let (head, body) = page.split_once("<style>").unwrap();
    let (_, body) = body.split_once("</style>").unwrap();
    insta::assert_snapshot!(format!("{head}{body}").replace("><", ">\n<"));
}

#[test]
fn page_fetches_nothing_and_runs_nothing() {
    let page = fixture();
    assert!(page.contains("src=\"data:image/png;base64,"), "the picture is in the page");
    for outside in ["<script", "http:", "https:", "@import", "url(", "<link", "src=\"e", "file:"] {
        assert!(!page.contains(outside), "the page contains {outside}");
    }
}

#[test]
fn text_of_a_run_is_never_markup() {
    let nasty = r#"<img src=x onerror="alert('&')">"#;
    let json = nasty.replace('"', "\\\"");
    let overlays = format!(
        r#"[{{"file": "<i>.png", "slice": "{json}", "group": "best", "dice": 0.5, "presence": 0.5, "note": "{json}"}}]"#
    );
    let named = |text: &str, name: &str| text.replace(name, &json);
    let record = ["quickstart <b>7</b>", "0123abc", "cpu", "decoder", "spleen"]
        .iter()
        .fold(RECORD.to_owned(), |r, n| named(&r, n));
    let evaluation =
        named(&evaluation_of(&json), "largest component").replace("\"case\": \"a\"", &format!("\"case\": \"{json}\""));
    let directory = run(&[
        ("run.json", &record),
        ("config.toml", nasty),
        ("metrics.csv", &format!("kind,phase,epoch,step,loss_cls\nstep,a,1,1,1\nstep,{nasty},1,2,1\n")),
        ("evaluation/x.json", &evaluation),
        ("evaluation/x/overlays.json", &overlays),
    ]);
    let page = report::render(directory.path()).unwrap();
    assert!(!page.contains("<img"), "{page}");
    assert!(!page.contains("<i>"), "{page}");
    assert!(page.matches("&lt;img src=x onerror=&quot;").count() >= 10, "{page}");
}

#[test]
fn missing_parts_name_the_command_that_makes_them() {
    let directory = run(&[("run.json", RECORD)]);
    let page = report::render(directory.path()).unwrap();
    let evaluate = |split: &str| {
        let run = directory.path().display();
        format!("Not there yet: run <code>cargo xtask evaluate --run {run} --store STORE --split {split}</code>")
    };
    assert!(page.contains(&evaluate("test")), "{page}");
    assert!(page.contains("Not there yet: run <code>cargo xtask train"), "{page}");

    let directory = run(&[("run.json", RECORD), ("evaluation/test.json", EVALUATION)]);
    let page = report::render(directory.path()).unwrap();
    assert_eq!(page.matches("Not there yet: run <code>cargo xtask evaluate").count(), 1, "the pictures");

    let directory = run(&[("run.json", RECORD), ("evaluation/total.json", &evaluation_of("total"))]);
    let page = report::render(directory.path()).unwrap();
    assert!(page.contains("--store STORE --split all</code>"), "another data set is evaluated whole: {page}");
}

#[test]
fn rows_that_an_evaluation_does_not_have_are_not_shown() {
    let mut value: serde_json::Value = serde_json::from_str(EVALUATION).unwrap();
    for key in ["oracle_box", "classifier", "control_whole_image", "control_central_half", "pretrained_weights"] {
        value[key] = serde_json::Value::Null;
    }
    value["steps"][0]["name"] = "slice by slice".into();
    let directory = run(&[("run.json", RECORD), ("evaluation/test.json", &value.to_string())]);
    let page = report::render(directory.path()).unwrap();
    for absent in ["Control:", "Oracle box", "CAM box</th>", "AUC <b>"] {
        assert!(!page.contains(absent), "{absent}");
    }
    assert!(page.contains("Prediction"));
}

#[test]
fn a_key_that_is_not_as_the_run_writes_it_is_an_error_and_no_blank_cell() {
    let renamed = EVALUATION.replace("\"false_positive\"", "\"invented\"");
    let message = error(&[("run.json", RECORD), ("evaluation/test.json", &renamed)]);
    assert!(
        message.contains("evaluation/test.json") && message.contains("missing field `false_positive`"),
        "{message}"
    );
}

#[test]
fn validation_is_named_as_development_data() {
    let page = |split: &str| {
        let file = evaluation_of(split);
        report::render(run(&[("run.json", RECORD), ("evaluation/it.json", &file)]).path()).unwrap()
    };
    assert!(page("validation").contains("These slices chose the checkpoint: development data"));
    assert!(!page("test").contains("These slices chose the checkpoint"));
}

#[test]
fn control_that_beats_the_cam_is_pointed_out() {
    assert!(fixture().contains("the CAM has not earned its cost"));
}

#[test]
fn row_that_is_being_written_is_left_for_later() {
    let directory =
        run(&[("run.json", RECORD), ("metrics.csv", "kind,phase,epoch,step,loss_cls\nstep,a,1,1,0.5\nstep,a,1")]);
    assert!(report::render(directory.path()).unwrap().contains("Classifier loss"));
}

#[test]
fn long_run_stays_a_small_page() {
    let rows = (1..=100_000).map(|i| format!("step,a,1,{i},{}\n", f64::from(i % 7919) / 7919.0));
    let csv = format!("kind,phase,epoch,step,loss_cls\n{}", rows.collect::<String>());
    let page = report::render(run(&[("run.json", RECORD), ("metrics.csv", &csv)]).path()).unwrap();
    assert!(page.len() < 40_000, "{} bytes", page.len());
}

#[test]
fn malformed_files_are_named_with_their_line() {
    let header = "kind,phase,epoch,step,loss_cls\n";
    let csv = |text: &str| error(&[("run.json", RECORD), ("metrics.csv", text)]);
    let json = |name, text| error(&[("run.json", RECORD), (name, text)]);
    let messages = [
        error(&[]),
        error(&[("run.json", "{\n  \"seed\": 7,\n}")]),
        error(&[("run.json", "[1]")]),
        csv("kind,phase,step\n"),
        csv(&format!("{header}step,a,1,1,0.5\nstep,a,1,2\n")),
        csv(&format!("{header}step,a,1,1,half\n")),
        csv(&format!("{header}\nbatch,a,1,1,0.5\n")),
        json("evaluation/test.json", "{\n\"dataset\": \"a\"\n}"),
        json("evaluation/test.json", "{\"split\": \"test\",\n\"cam_box\": {\"hd_px\": \"far\"}}"),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn picture_from_outside_the_run_is_refused() {
    let overlays = r#"[{"file": "../../../secret.png", "slice": "a/0001", "group": "best", "dice": 1, "presence": 1, "note": ""}]"#;
    let files = [("run.json", RECORD), ("evaluation/t.json", EVALUATION), ("evaluation/t/overlays.json", overlays)];
    insta::assert_snapshot!(error(&files), @"cannot read 'RUN/evaluation/t/overlays.json', line 1: '../../../secret.png' is not the plain name of a file in overlays/");
}

#[test]
fn report_is_written_whole_or_not_at_all() {
    let directory = run(&[("run.json", RECORD)]);
    let output = directory.path().join("report.html");
    report::write(directory.path(), &output).unwrap();
    assert!(fs::read_to_string(&output).unwrap().ends_with("</html>"));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "no temporary file stays");

    let error = report::write(directory.path(), &directory.path().join("no/such/report.html")).unwrap_err();
    assert!(error.to_string().starts_with("cannot write '"), "{error}");
}

#[test]
fn a_page_of_the_users_is_replaced_only_if_they_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("mine.html");
    fs::write(&page, "mine").unwrap();
    let report = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sam-mix-report"));
        command.arg(FIXTURE).arg("--output").arg(&page).args(more).output().unwrap()
    };
    let refused = report(&[]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("mine.html' is there already") && said.contains("--overwrite"), "{said}");
    assert_eq!(fs::read_to_string(&page).unwrap(), "mine");
    assert!(report(&["--overwrite"]).status.success());
    assert!(fs::read_to_string(&page).unwrap().starts_with("<!DOCTYPE html>"));
}

#[test]
fn page_of_a_run_without_prompts_has_no_word_of_them() {
    let mut evaluation: serde_json::Value = serde_json::from_str(EVALUATION).unwrap();
    for row in ["oracle_box", "control_whole_image", "control_central_half", "pretrained_weights", "classifier"] {
        evaluation[row] = serde_json::Value::Null;
    }
    evaluation["steps"] = serde_json::json!([]);
    let record = RECORD.replacen("\"name\"", "\"program\": \"my-segmenter\", \"name\"", 1);
    let metrics = "kind,phase,epoch,step,time_s,loss_cls,loss_seg,loss_score,lr,val_dice,val_box_iou,val_auc,grad_norm,skipped\n\
                   epoch,all,0,10,1.0,,,,,0.5,,,,\n";
    let files =
        [("run.json", record.as_str()), ("evaluation/test.json", &evaluation.to_string()), ("metrics.csv", metrics)];
    let directory = run(&files);
    let page = report::render(directory.path()).unwrap();
    let (_, body) = page.split_once("</style>").unwrap();
    for word in ["CAM", "racle", "Box IoU", "box IoU", "presence AUC", "presence 0"] {
        assert!(!body.contains(word), "{word}");
    }
    assert!(
        fixture().contains("CAM box") && fixture().contains("presence AUC"),
        "where there are prompts, they are there"
    );
    // The pictures are missing: the command that makes them is of the program that knows the run's stages.
    assert!(body.contains("my-segmenter evaluate --run "), "{body}");
}
