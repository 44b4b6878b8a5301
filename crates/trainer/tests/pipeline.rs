//! The program as it is used: volumes to a store, training, Ctrl-C and resume, evaluation, prediction.

mod common;

use common::{CONFIG, store, weights};
use polars::prelude::{ParquetReader, SerReader};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn sam_mix(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sam-mix"))
        .args(arguments)
        .args(["--device", "cpu", "--threads", "2"])
        .output()
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn volumes_become_an_evaluated_run_that_survives_ctrl_c_and_predicts() {
    let Some(weights) = weights("volumes_become_an_evaluated_run_that_survives_ctrl_c_and_predicts") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (store, run, config) =
        (store(directory.path()), directory.path().join("run"), directory.path().join("config.toml"));
    std::fs::write(&config, CONFIG).unwrap();

    // Ctrl-C after the first step.
    let train =
        ["train", "--config", text(&config), "--store", text(&store), "--run", text(&run), "--weights", text(&weights)];
    let mut child = Command::new(env!("CARGO_BIN_EXE_sam-mix"))
        .args(train)
        .args(["--device", "cpu", "--threads", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !std::fs::read_to_string(run.join("metrics.csv")).is_ok_and(|log| log.contains("\nstep,")) {
        assert!(begun.elapsed() < Duration::from_mins(2), "no first step");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("--resume"), "{said}");

    // Training anew in the same place is refused, resuming ends the run.
    assert!(error_of(&sam_mix(&train)).contains("is a run already"));
    let resumed = sam_mix(&["train", "--resume", "--store", text(&store), "--run", text(&run)]);
    assert!(resumed.status.success(), "{}", error_of(&resumed));
    let record: Value = serde_json::from_str(&std::fs::read_to_string(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["status"], "finished");
    assert_eq!(record["labelled"].as_array().unwrap().len(), 2);
    assert_eq!(record["label_budget"]["masks"]["slices"], record["labelled"]);

    // What scripts rely on.
    let data = directory.path().join("data");
    let evaluate = ["evaluate", "--run", text(&run), "--store", text(&store), "--split", "test", "--json"];
    let evaluated = sam_mix(&[&evaluate[..], &["--volumes", text(&data)]].concat());
    assert!(evaluated.status.success(), "{}", error_of(&evaluated));
    let e: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    // Slices are as large as the volumes' own: the same voxels are compared.
    let native = &e["native"];
    assert_eq!((&native["volumes"], &native["left_out"]), (&Value::from(1), &Value::from(0)));
    let difference = native["dice"].as_f64().unwrap() - e["cam_box"]["dice_volume"].as_f64().unwrap();
    assert!(difference.abs() < 1e-9, "{native}");
    assert!(native["per_volume"][0]["hd95_mm"].as_f64().unwrap() >= 0.0, "{native}");
    for group in ["cam_box", "oracle_box"] {
        for key in ["dice_all", "dice_liver", "dice_volume", "hd_px", "hd95_px", "hd95_mm", "box_iou"] {
            assert!(e[group].get(key).is_some_and(|v| v.is_null() || v.is_f64()), "{group}.{key} in {e}");
        }
    }
    for key in ["slices", "liver_slices", "empty_cam", "missed", "false_positive"] {
        assert!(e["counts"][key].is_u64(), "counts.{key}");
    }
    assert_eq!(e["counts"]["slices"], 12);
    let budget = [("masks", 2), ("validation_masks", 2), ("image_level_labels", 22)];
    for (kind, count) in budget {
        assert_eq!(e["label_budget"][kind], serde_json::json!({ "count": count }), "{kind}");
    }
    assert!(e["classifier"]["accuracy"].is_f64() && e["control_whole_image"]["dice_liver"].is_f64());
    assert!(e["control_central_half"]["dice_all"].is_f64());
    assert!(e["pretrained_weights"]["oracle_dice_liver"].as_f64().unwrap() > 0.3);
    // The last step is the prediction.
    let steps = e["steps"].as_array().unwrap();
    assert_eq!(steps[0]["name"], "CAM box");
    for key in ["dice_all", "dice_liver", "dice_volume"] {
        assert_eq!(steps[steps.len() - 1][key], e["cam_box"][key], "{key}");
    }
    for key in ["false_positive", "missed"] {
        assert_eq!(steps[steps.len() - 1][key], e["counts"][key], "{key}");
    }
    assert!(steps.iter().all(|step| step["milliseconds_per_slice"].as_f64().unwrap() > 0.0));
    evaluated_again_with_kept_embeddings(&run, &store, &e);
    a_row_for_each_slice_without_nan(&run.join("evaluation/test.parquet"), &e);
    assert!(run.join("evaluation/test/overlays.json").is_file());
    let all = sam_mix(&["evaluate", "--run", text(&run), "--store", text(&store), "--split", "all"]);
    assert!(error_of(&all).contains("is the store that the run was trained on"));

    // Validation slices are far apart: nothing goes from one to the next.
    let output = directory.path().join("validation");
    let place = ["--run", text(&run), "--store", text(&store), "--output", text(&output)];
    let set = ["--split", "validation", "--set", "prediction.volume={propagate=true,largest_component=true}", "--json"];
    let evaluated = sam_mix(&[&["evaluate"], &place[..], &set[..]].concat());
    assert!(error_of(&evaluated).contains("each is evaluated by itself"), "{}", error_of(&evaluated));
    let validation: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    let names: Vec<&Value> = validation["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
    assert_eq!(names, ["CAM box"]);

    // A mask in the input's own geometry.
    let (input, output) =
        (directory.path().join("data/volume-3.nii.gz"), directory.path().join("masks/volume-3.nii.gz"));
    std::fs::create_dir_all(output.parent().unwrap()).unwrap();
    let predicted = sam_mix(&["predict", "--run", text(&run), "--input", text(&input), "--output", text(&output)]);
    assert!(predicted.status.success(), "{}", error_of(&predicted));
    let (image, mask) = (
        ct_ingest::read_volume(&input, &ct_ingest::ReadOptions::default()).unwrap(),
        ct_ingest::read_volume(&output, &ct_ingest::ReadOptions::default()).unwrap(),
    );
    assert_eq!(image.shape, mask.shape);
    assert_eq!(image.geometry.affine, mask.geometry.affine);
    no_file_of_the_users_is_lost(&run, &input, &output);
    voxels_that_are_no_numbers_are_warned_of(&run, &input);
    weights_are_found_from_another_folder(&run, &input, &weights);
    what_was_measured_stands_beside_the_mask(&run, &input);
    a_run_chooses_what_is_labelled_next(&run, &store, &config, &weights);
    weights_that_are_no_numbers_predict_nothing(&run, &store, &input);
}

/// Probabilities, statistics and a picture; what is there is not made again.
fn what_was_measured_stands_beside_the_mask(run: &Path, input: &Path) {
    let folder = run.with_file_name("measured");
    let mask = folder.join("liver.nii.gz");
    let place = ["predict", "--run", text(run), "--input", text(input), "--output", text(&mask)];
    // After two epochs the classifier sees the target nowhere.
    let anywhere = ["--set", "prediction.presence_threshold=0.0"];
    let place = [&place[..], &anywhere].concat();
    let beside = ["--probabilities", "--statistics", "--preview", "--json"];
    let predicted = sam_mix(&[&place[..], &beside].concat());
    assert!(predicted.status.success(), "{}", error_of(&predicted));
    let read = |name: &str| ct_ingest::read_volume(&folder.join(name), &ct_ingest::ReadOptions::default()).unwrap();
    let (mask_volume, probabilities) = (read("liver.nii.gz"), read("liver.probabilities.nii.gz"));
    assert_eq!(probabilities.geometry.affine, mask_volume.geometry.affine);
    let pairs = mask_volume.voxels.iter().zip(probabilities.voxels.iter());
    let (mut voxels, mut sure) = (0, 0);
    for (mask, probability) in pairs {
        assert!((0.0..=1.0).contains(&probability));
        voxels += usize::from(mask > 0.0);
        sure += usize::from(mask > 0.0 && probability > 0.49);
    }
    assert!(voxels > 0 && sure as f64 > 0.99 * voxels as f64, "{sure} of {voxels}");
    let statistics: Value =
        serde_json::from_slice(&std::fs::read(folder.join("liver.statistics.json")).unwrap()).unwrap();
    assert_eq!((&statistics["voxels"], &statistics["slices"]), (&voxels.into(), &12.into()));
    let by_slice = statistics["by_slice"].as_array().unwrap();
    let sum: u64 = by_slice.iter().map(|slice| slice["voxels"].as_u64().unwrap()).sum();
    assert_eq!(sum as usize, voxels);
    let image = ct_ingest::read_volume(input, &ct_ingest::ReadOptions::default()).unwrap();
    let hu = image.voxels.iter().zip(mask_volume.voxels.iter()).filter(|(_, mask)| *mask > 0.0).map(|(hu, _)| hu);
    let mean = hu.sum::<f64>() / voxels as f64;
    assert!((statistics["mean_hu"].as_f64().unwrap() - mean).abs() < 1e-6);
    let mut table = csv::Reader::from_path(folder.join("liver.statistics.csv")).unwrap();
    let rows: Vec<BTreeMap<String, String>> = table.deserialize().map(Result::unwrap).collect();
    for (row, slice) in rows.iter().zip(by_slice) {
        assert_eq!(row["slice"], slice["slice"].to_string());
        let look: Vec<&str> = slice["look"].as_array().unwrap().iter().map(|look| look.as_str().unwrap()).collect();
        assert_eq!(row["look"], look.join(" "));
    }
    assert_eq!(rows.len(), 12);
    assert!(std::fs::read(folder.join("liver.preview.png")).unwrap().starts_with(b"\x89PNG"));
    let said: Value = serde_json::from_slice(&predicted.stdout).unwrap();
    assert_eq!((&said[0]["voxels"], said[0]["beside"].as_array().unwrap().len()), (&voxels.into(), 4));
    // Of five files one is missing.
    std::fs::remove_file(folder.join("liver.preview.png")).unwrap();
    std::fs::write(&mask, "corrected by hand").unwrap();
    assert!(error_of(&sam_mix(&[&place[..], &beside].concat())).contains("is there already"));
    for said in ["liver.preview.png", "1 volume left out"] {
        let again = sam_mix(&[&place[..], &beside, &["--skip-existing"]].concat());
        assert!(again.status.success() && error_of(&again).contains(said), "{}", error_of(&again));
    }
    assert_eq!(std::fs::read(&mask).unwrap(), b"corrected by hand");
}

/// The slices of a run, and those that it is least sure of; the budget has what the run read as well.
fn a_run_chooses_what_is_labelled_next(run: &Path, store: &Path, config: &Path, weights: &Path) {
    let next = run.with_file_name("next");
    let train = |strategy: &str, more: &[&str]| {
        let strategy = format!("sampling.strategy={strategy}");
        let place = [
            "train",
            "--config",
            text(config),
            "--store",
            text(store),
            "--run",
            text(&next),
            "--weights",
            text(weights),
        ];
        let phase = "phase=[{name=\"decoder\",epochs=1,labelled_steps=1,encoder=\"frozen\",train_classifier=false}]";
        let set = ["--set", &strategy, "--set", "sampling.labelled=4", "--set", phase];
        sam_mix(&[&place[..], &set, more].concat())
    };
    let missing = error_of(&train("uncertainty", &[]));
    assert!(missing.contains("a run's predictions") && missing.contains("sampling.run"), "{missing}");
    assert!(error_of(&train("uncertain", &[])).contains("expected one of: disagreement, k-center"));
    let first = format!("sampling.run={}", text(run));
    let trained = train("uncertainty", &["--set", &first]);
    assert!(trained.status.success(), "{}", error_of(&trained));
    let labelled = |run: &Path| -> Vec<String> {
        let record: Value = serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
        record["labelled"].as_array().unwrap().iter().map(|slice| slice.as_str().unwrap().to_owned()).collect()
    };
    let (before, after) = (labelled(run), labelled(&next));
    assert!(after.len() == 4 && before.iter().all(|slice| after.contains(slice)), "{before:?} {after:?}");
    let record: Value = serde_json::from_slice(&std::fs::read(next.join("run.json")).unwrap()).unwrap();
    // This run teaches no classifier; the other one taught its own with 22 image-level labels, of which two slices have a mask now.
    assert_eq!(record["label_budget"]["image_level_labels"]["count"], 20);
    let other = format!("{first}\n");
    let split = "sampling.split={given={train=[\"0\",\"3\"],validation=[\"2\"],test=[\"1\"]}}";
    std::fs::remove_dir_all(&next).unwrap();
    let leak =
        error_of(&train("uncertainty", &["--set", other.trim(), "--set", split, "--set", "sampling.labelled=5"]));
    assert!(leak.contains("has seen labels of patient '1', who is to test"), "{leak}");
    assert!(!next.exists());
}

/// As `prepare` warns of them.
fn voxels_that_are_no_numbers_are_warned_of(run: &Path, input: &Path) {
    let volume = ct_ingest::read_volume(input, &ct_ingest::ReadOptions::default()).unwrap();
    let ([x, y, z], [dx, dy, dz]) = (volume.shape, volume.geometry.spacing_mm);
    let mut file = format!(
        "ObjectType = Image\nNDims = 3\nDimSize = {x} {y} {z}\nElementSpacing = {dx} {dy} {dz}\n\
         TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nBinaryDataByteOrderMSB = False\n\
         ElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
    )
    .into_bytes();
    let not_a_number = |i: usize| (100..103).contains(&i);
    let values = volume.voxels.iter().enumerate().map(|(i, hu)| if not_a_number(i) { f32::NAN } else { hu as f32 });
    file.extend(values.flat_map(f32::to_le_bytes));
    let (damaged, mask) = (run.with_file_name("damaged.mha"), run.with_file_name("damaged.nii.gz"));
    std::fs::write(&damaged, file).unwrap();
    let predicted = sam_mix(&["predict", "--run", text(run), "--input", text(&damaged), "--output", text(&mask)]);
    assert!(predicted.status.success() && mask.is_file(), "{}", error_of(&predicted));
    let warning = format!("warning: '{}': 3 voxels are not a number and became air", damaged.display());
    assert!(error_of(&predicted).lines().any(|line| line == warning), "{}", error_of(&predicted));
    let whole =
        sam_mix(&["predict", "--run", text(run), "--input", text(input), "--output", text(&mask), "--overwrite"]);
    assert!(whole.status.success() && !error_of(&whole).contains("not a number"), "{}", error_of(&whole));
}

/// A comparison with NaN is "absent": every slice would be empty. Leaves the run's best checkpoint damaged.
fn weights_that_are_no_numbers_predict_nothing(run: &Path, store: &Path, input: &Path) {
    let checkpoint = run_record::checkpoint::directory(run, run_record::checkpoint::Which::Best).unwrap();
    let (weights, progress) = (checkpoint.join("weights.safetensors"), checkpoint.join("progress.json"));
    let mut tensors = tch::Tensor::read_safetensors(&weights).unwrap();
    let (_, tensor) = tensors.iter_mut().find(|(name, _)| name.ends_with("layer4.0.conv1.weight")).unwrap();
    *tensor = &*tensor * f64::NAN;
    let message = "the weights 'layer4.0.conv1.weight' are not finite";
    tch::Tensor::write_safetensors(&tensors, &weights).unwrap();
    let mut record: Value = serde_json::from_str(&std::fs::read_to_string(&progress).unwrap()).unwrap();
    let (sha256, bytes) = run_record::sha256_of_file(&weights).unwrap();
    record["files"]["weights.safetensors"] = serde_json::json!({ "bytes": bytes, "sha256": sha256 });
    std::fs::write(&progress, record.to_string()).unwrap();

    let refused = |arguments: &[&str], slice: &str| {
        let output = sam_mix(arguments);
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        let presence = "the classifier's presence is not a number (NaN)";
        assert!([slice, presence, message].iter().all(|part| error.contains(part)), "{error}");
    };
    let mask = run.with_file_name("nothing.nii.gz");
    let predict = ["predict", "--run", text(run), "--input", text(input), "--output", text(&mask)];
    refused(&predict, "volume-3.nii.gz', slice 1 of 12, from below");
    assert!(!mask.exists());
    let results = std::fs::read(run.join("evaluation/test.json")).unwrap();
    refused(&["evaluate", "--run", text(run), "--store", text(store)], "slice '3/0000' of the store");
    assert!(std::fs::read(run.join("evaluation/test.json")).unwrap() == results);
}

/// What needs the target is null where the slice has none.
fn a_row_for_each_slice_without_nan(path: &Path, evaluation: &Value) {
    let frame = ParquetReader::new(std::fs::File::open(path).unwrap()).finish().unwrap();
    let counted = |key: &str| evaluation["counts"][key].as_u64().unwrap() as usize;
    assert_eq!(frame.height(), counted("slices"));
    let without = counted("slices") - counted("liver_slices");
    let mut real = 0;
    for column in frame.columns().iter().filter(|column| column.dtype().is_float()) {
        real += 1;
        assert!(column.f64().unwrap().iter().flatten().all(f64::is_finite), "{column:?}");
        let of_target = ["cam_hd_px", "cam_hd95_px", "cam_box_iou", "oracle_dice", "oracle_hd95_px"];
        let needs_target = of_target.contains(&column.name().as_str()) || column.name().contains("oracle");
        assert_eq!(column.null_count(), if needs_target { without } else { 0 }, "{column:?}");
    }
    assert_eq!(real, 10);
}

/// As `cargo xtask setup` installs them, where the run's workspace is and the program is not started.
fn weights_are_found_from_another_folder(run: &Path, input: &Path, weights: &Path) {
    let installed = run.with_file_name(".deps/weights");
    std::fs::create_dir_all(&installed).unwrap();
    std::os::unix::fs::symlink(weights, installed.join("lite_medsam.pth")).unwrap();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    let without: Vec<&str> = config.lines().filter(|line| !line.starts_with("weights = ")).collect();
    assert!(without.len() + 1 == config.lines().count());
    std::fs::write(run.join("config.toml"), without.join("\n")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let predicted = Command::new(env!("CARGO_BIN_EXE_sam-mix"))
        .args(["predict", "--run", text(run), "--input", text(input), "--output", "mask.nii.gz", "--device", "cpu"])
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    assert!(predicted.status.success(), "{}", error_of(&predicted));
    assert!(elsewhere.path().join("mask.nii.gz").is_file());
}

/// Neither a volume that is read, under whatever name, nor a mask that is there.
fn no_file_of_the_users_is_lost(run: &Path, input: &Path, mask: &Path) {
    let (ct, folder) = (std::fs::read(input).unwrap(), input.parent().unwrap());
    let refused = |input: &Path, output: &Path, more: &[&str], part: &str| {
        let place = ["predict", "--run", text(run), "--input", text(input), "--output", text(output)];
        let refused = sam_mix(&[&place[..], more].concat());
        let message = error_of(&refused);
        assert_eq!(refused.status.code(), Some(1), "{message}");
        assert!(message.contains(part), "{message}");
    };
    let link = run.with_file_name("link.nii.gz");
    std::os::unix::fs::symlink(input, &link).unwrap();
    for output in [input, &folder.join("../data/volume-3.nii.gz"), &link] {
        refused(input, output, &["--overwrite"], "is the input");
    }
    refused(folder, &folder.join("."), &["--overwrite"], "is the folder that --input names");
    assert!(std::fs::read(input).unwrap() == ct, "the CT was replaced");
    std::fs::write(mask, "corrected by hand").unwrap();
    refused(input, mask, &[], "--overwrite");
    refused(folder, mask.parent().unwrap(), &[], "volume-3.nii.gz' is there already");
    assert_eq!(std::fs::read(mask).unwrap(), b"corrected by hand");
    let place = ["predict", "--run", text(run), "--input", text(input), "--output", text(mask), "--overwrite"];
    assert!(sam_mix(&place).status.success());
    assert!(std::fs::read(mask).unwrap() != b"corrected by hand");
}

/// Kept in half precision, once for both evaluations, they give what encoding anew gives.
fn evaluated_again_with_kept_embeddings(run: &Path, store: &Path, before: &Value) {
    let (kept, output) = (run.with_file_name("kept"), run.with_file_name("again"));
    let files = || -> BTreeMap<_, _> {
        let entries = std::fs::read_dir(&kept).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap())).collect()
    };
    let place = ["--run", text(run), "--store", text(store), "--embeddings", text(&kept), "--output", text(&output)];
    let evaluated = || {
        let evaluated = sam_mix(&[&["evaluate", "--json", "--overwrite"], &place[..]].concat());
        assert!(evaluated.status.success(), "{}", error_of(&evaluated));
        (serde_json::from_slice::<Value>(&evaluated.stdout).unwrap(), files())
    };
    let ((first, written), (second, found)) = (evaluated(), evaluated());
    let refused = sam_mix(&[&["evaluate"], &place[..]].concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(error_of(&refused).contains("test.json' is there already"), "{}", error_of(&refused));
    assert!(written.len() == 2 && written == found, "{written:?}, then {found:?}");
    for key in ["cam_box", "oracle_box", "control_whole_image", "pretrained_weights", "classifier", "counts"] {
        assert_eq!(first[key], second[key], "{key}");
    }
    for pointer in ["/cam_box/dice_liver", "/oracle_box/dice_liver", "/pretrained_weights/oracle_dice_liver"] {
        let dice = |e: &Value| e.pointer(pointer).and_then(Value::as_f64).unwrap();
        assert!((dice(&second) - dice(before)).abs() < 0.01, "{pointer}: {} and {}", dice(&second), dice(before));
    }
    assert!(second["kept_embeddings"] == true && before["kept_embeddings"] == false);
    assert!(second["steps"][0]["milliseconds_per_slice"].is_null(), "the encoder's part was not measured");
}

#[test]
fn bad_input_ends_in_one_clear_error_and_writes_nothing() {
    let Some(weights) = weights("bad_input_ends_in_one_clear_error_and_writes_nothing") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (store, run, config) =
        (store(directory.path()), directory.path().join("run"), directory.path().join("config.toml"));
    std::fs::write(&config, CONFIG).unwrap();
    let refused = |arguments: &[&str], expected: &[&str]| {
        let output = sam_mix(arguments);
        let message = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
        assert!(!message.contains("panicked"), "{message}");
        assert!(!run.exists(), "something was written");
    };
    let train = ["train", "--config", text(&config), "--store", text(&store), "--run", text(&run)];
    let with = |more: &[&'static str]| [&train[..], more].concat();

    refused(&with(&["--set", "sampling.labeled=5"]), &["unknown field `labeled`", "did you mean `labelled`?"]);
    refused(&with(&["--set", "sampling.labelled=5000"]), &["5000 labelled slices are asked for"]);
    refused(&with(&["--set", "classifier.kind=resnett"]), &["expected one of: embedding, none, own, resnet"]);
    refused(&with(&["--weights", "nowhere.pth"]), &["nowhere.pth"]);
    let wrong = directory.path().join("wrong.pth");
    std::fs::write(&wrong, "not weights").unwrap();
    refused(&[&train[..], &["--weights", text(&wrong)]].concat(), &["wrong.pth"]);
    let short = directory.path().join("short.pth");
    std::fs::write(&short, &std::fs::read(weights).unwrap()[..1_000_000]).unwrap();
    refused(&[&train[..], &["--weights", text(&short)]].concat(), &["short.pth"]);
    refused(&["train", "--config", text(&config), "--store", "no-store", "--run", text(&run)], &["no-store"]);
    refused(&["evaluate", "--run", text(&run), "--store", text(&store)], &["is no run directory"]);
    // Slices with the target only: nothing to learn "no" from.
    refused(&with(&["--set", "sampling.keep_rate=0.1"]), &["keep_rate", "crop_negatives"]);
    // A crop as large as a slice lacks nothing.
    let crops = |size| ["--set", "classifier.crop_negatives=true", "--set", size];
    let message = "`classifier.crop_size` is 64, but slices have 64 pixels";
    refused(&with(&crops("classifier.crop_size=64")), &[message, "for example 32"]);
    refused(&with(&crops("classifier.crop_size=63")), &["no crop of 63 × 63 pixels", "lacks the liver"]);
}

#[test]
fn a_selection_that_is_not_one_of_the_store_is_refused_before_anything_is_written() {
    let name = "a_selection_that_is_not_one_of_the_store_is_refused_before_anything_is_written";
    let Some(weights) = weights(name) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (store, config) = (store(directory.path()), directory.path().join("config.toml"));
    let [run, first, edited] = ["run", "first", "edited.json"].map(|name| directory.path().join(name));
    std::fs::write(&config, CONFIG).unwrap();
    let train = |run: &Path, more: &[&str]| {
        let place = ["train", "--config", text(&config), "--store", text(&store), "--run", text(run)];
        sam_mix(&[&place[..], &["--weights", text(&weights)], more].concat())
    };
    // A run's own file names the store that it is of.
    let trained = train(&first, &["--set", "phase=[{name='classifier', epochs=1, labelled_passes=0}]"]);
    assert!(trained.status.success(), "{}", error_of(&trained));
    let selection: Value =
        serde_json::from_str(&std::fs::read_to_string(first.join("selection.json")).unwrap()).unwrap();
    let opened = slice_store::SliceStore::open(&store).unwrap();
    assert_eq!(selection["store_checksum"], opened.checksum());

    let refused = |change: &dyn Fn(&mut Value), parts: &[&str]| {
        let mut selection = selection.clone();
        change(&mut selection);
        std::fs::write(&edited, selection.to_string()).unwrap();
        let output = train(&run, &["--selection", text(&edited)]);
        let message = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("edited.json") && parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(!run.exists() && !message.contains("panicked"), "{message}");
    };
    refused(&|s| s["store_checksum"] = "0123".into(), &["0123", opened.checksum(), "name the store"]);
    // As older programs wrote it.
    let older = |s: &mut Value| drop(s.as_object_mut().unwrap().remove("store_checksum"));
    let unlabelled = |s: &mut Value| {
        older(s);
        s["labelled"] = Value::Array(Vec::new());
    };
    refused(&unlabelled, &["`labelled` is empty"]);
    let trained_on_test = |s: &mut Value| {
        older(s);
        let test = s["test"][0].clone();
        s["train"].as_array_mut().unwrap().push(test);
    };
    refused(&trained_on_test, &["`train` has slice '3/0000' of patient '3'", "mend the file"]);

    // The run's own file, changed by hand, ends resuming and evaluation.
    let path = first.join("selection.json");
    let mut selection = selection;
    selection["test"][0] = selection["train"][0].clone();
    std::fs::write(&path, selection.to_string()).unwrap();
    let resumed = sam_mix(&["train", "--resume", "--store", text(&store), "--run", text(&first)]);
    let evaluated = sam_mix(&["evaluate", "--run", text(&first), "--store", text(&store)]);
    for output in [resumed, evaluated] {
        let message = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("selection.json") && message.contains("`test` has slice '"), "{message}");
    }
}
