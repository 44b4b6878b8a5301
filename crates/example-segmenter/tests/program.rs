//! The example's program as it is used: its own segmenter and loss in every verb, by its own configuration file.

use predictor::Model;
use run_record::RunRecord;
use run_record::checkpoint::Which;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tch::Device;
use trainer::config::Config;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sam-mix-example-segmenter");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tiny-unet.toml");

fn program(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(arguments: &[&str]) -> String {
    let output = program(arguments);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_verb_of_a_program_with_its_own_stages_knows_them() {
    let folder = tempfile::tempdir().unwrap();
    let (store, run) = (folder.path().join("store"), folder.path().join("run"));
    stage_trial::squares(&store).unwrap();
    let on_squares = [
        "--set",
        "sampling={labelled=2, validation_slices=2, split={given={train=[\"0\",\"1\"], validation=[\"2\"], test=[\"3\"]}}}",
        "--set",
        "segmenter.settings.width=4",
        "--set",
        "phase=[{name=\"all\", epochs=4, labelled_steps=10, batch_labelled=2, encoder=\"trained\"}]",
    ];
    let train = ["train", "--config", CONFIG, "--store", text(&store), "--run", text(&run), "--threads", "2"];
    let train = [&train[..], &on_squares].concat();

    // Its own settings are checked before anything is written, each by one line.
    let wrong = |set: &str| {
        let error = refused(&[&train[..], &["--set", set]].concat());
        assert!(error.trim_end().lines().count() <= 6 && !run.exists(), "{error}");
        error
    };
    assert_eq!(wrong("segmenter.settings.width=0"), "error: segmenter.settings.width is 0, expected 1 to 64\n");
    assert!(
        wrong("segmenter.settings.widht=4")
            .contains("in [segmenter.settings]: unknown field `widht`, expected `width`")
    );
    assert!(wrong("segmenter.kind=\"tiny-unnet\"").contains("expected one of: multi-mix, nnunet, sam, tiny-unet"));
    assert!(wrong("segmentation_loss.tverski=1.0").contains("boundary, ce, dice, focal, iou, tversky"));
    assert!(wrong("optimizer.lr.decoder=1.0").contains("unet"));

    // Ctrl-C: what it says goes on is this program.
    let child = Command::new(PROGRAM).args(&train).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !std::fs::read_to_string(run.join("metrics.csv")).is_ok_and(|log| log.contains("\nstep,")) {
        assert!(begun.elapsed() < Duration::from_mins(2), "no first step");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let stopped = child.wait_with_output().unwrap();
    let stopped = String::from_utf8_lossy(&stopped.stdout).into_owned();
    assert!(stopped.contains(&format!("{PROGRAM} train --resume --run {}", run.display())), "{stopped}");
    said(&program(&["train", "--resume", "--store", text(&store), "--run", text(&run), "--threads", "2"]));

    let table = said(&program(&["evaluate", "--store", text(&store), "--run", text(&run), "--threads", "2"]));
    assert!(table.contains("Dice") && !table.contains("oracle") && !table.contains("CAM"), "{table}");

    let (data, mask) = (folder.path().join("data"), folder.path().join("mask.nii.gz"));
    let volume = phantom::PhantomSettings { patients: 1, slices: 8, size: 64, seed: 0 };
    phantom::write_data_set(&data, &volume).unwrap();
    let volumes = ct_ingest::volumes_in(&data).unwrap();
    let ct = volumes.iter().find(|(name, _)| name.contains("volume")).unwrap();
    said(&program(&[
        "predict",
        "--run",
        text(&run),
        "--input",
        text(&ct.1),
        "--output",
        text(&mask),
        "--threads",
        "2",
    ]));
    assert!(mask.is_file());

    let error = refused(&["export", "--run", text(&run), "--to", "safetensors"]);
    assert!(error.contains("only a SAM can be exported"), "{error}");
    let help = said(&program(&["train", "--help"]));
    assert!(help.contains(&format!("{PROGRAM} train --config")) && !help.contains("cargo xtask"), "{help}");

    // The run says whose it is, and a program without these stages does so too.
    let record = RunRecord::load(&run).unwrap();
    assert_eq!(record.other_program(), Some("sam-mix-example-segmenter"));
    let config = Config::load(&run.join("config.toml"), &[]).unwrap().model();
    let plain = trainer::registry::Registry::default().models;
    let error = Model::from_run(&run, Which::Best, &config, &plain, Device::Cpu).map(drop).unwrap_err().to_string();
    assert!(
        error.contains("was trained by the program 'sam-mix-example-segmenter'")
            && error
                .contains("segmenter.kind is \"tiny-unet\", expected one of: multi-mix, nnunet, sam, trans-unet, unet"),
        "{error}"
    );
}
