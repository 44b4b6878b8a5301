//! What the read-mes, the tutorial and the how-tos tell a reader to type.
//!
//! Every block of commands is run, page by page and in order, or has a marker above it, `<!-- needs: a GPU -->`, that says why
//! not (`page::NEEDS`). Verbs, flags, files and keys are checked in both, in code within sentences, and in the reference.
//!
//! It is run in a scratch checkout, on synthetic patients, fewer and of fewer slices than `cargo xtask train` makes, with the programs
//! that this run of the tests has built: tests of the whole workspace build all of them (after an edit, those of this package alone
//! would start what is there). So that it ends in minutes, the scratch copies of the configurations have their schedule cut to an
//! epoch of a few steps, their augmented copies to one of each slice, and ten labelled slices and four to validate on. Nothing else is changed.
#![cfg(unix)]

mod check;
mod checkout;
mod page;
mod shell;
mod trial;

use check::Checker;
use checkout::Patients;
use page::{Fault, Kind};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use trial::{Trial, changed_mask};

/// Pages whose commands are run, in this order; the pages of one list in one checkout.
const TRIALS: [&[&str]; 6] = [
    &["README.md"],
    &["docs/tutorial.md"],
    &["docs/how-to/own-data.md", "docs/how-to/export.md"],
    &["docs/how-to/label-50-slices.md"],
    &["docs/how-to/swap-a-stage.md", "docs/how-to/cluster.md", "crates/study/README.md", "crates/report/README.md"],
    &["crates/ct-ingest/README.md", "crates/phantom/README.md"],
];

/// Pages that are read from beginning to end, whose blocks are run.
fn guides() -> Vec<PathBuf> {
    let mut pages = vec!["README.md".into(), "docs/tutorial.md".into(), "xtask/README.md".into()];
    pages.extend(pages_in("docs/how-to"));
    for folder in entries("crates") {
        pages.extend([folder.join("README.md")].into_iter().filter(|page| checkout::repository().join(page).is_file()));
    }
    pages
}

/// Pages that are looked into: their commands are examples of a verb, which are checked and not run.
fn references() -> Vec<PathBuf> {
    pages_in("docs/reference")
}

fn pages_in(folder: &str) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// In a folder of the repository, as paths from its root.
fn entries(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(checkout::repository().join(folder)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| Path::new(folder).join(entry.unwrap().file_name())).collect();
    paths.sort();
    paths
}

fn text_of(page: &Path) -> String {
    fs::read_to_string(checkout::repository().join(page)).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

fn is_ready(test: &str) -> bool {
    let missing = checkout::missing_programs();
    if !missing.is_empty() {
        println!("skipped: {test} needs {} (cargo build --release --workspace --bins)", missing.join(", "));
    }
    missing.is_empty()
}

/// The same, and the weights that training begins with.
fn can_train(test: &str) -> bool {
    let weights = checkout::repository().join(".deps/weights/lite_medsam.pth");
    if !weights.is_file() {
        println!("skipped: {test} needs the pretrained weights (cargo xtask setup)");
    }
    weights.is_file() && is_ready(test)
}

#[test]
fn every_command_of_the_pages_can_be_typed() {
    if !is_ready("every_command_of_the_pages_can_be_typed") {
        return;
    }
    let checker = Checker::new();
    let mut all = Vec::new();
    for page in guides().into_iter().chain(references()) {
        let faults = checker.faults(&text_of(&page));
        all.extend(faults.into_iter().map(|Fault { line, what }| format!("{}:{line}: {what}", page.display())));
    }
    assert!(all.is_empty(), "{} faults:\n{}", all.len(), all.join("\n"));
}

#[test]
fn every_block_of_a_guide_is_run_or_says_what_it_needs() {
    let unrun = unrun(guides().iter().map(|page| (page.to_str().unwrap(), text_of(page))));
    assert!(unrun.is_empty(), "neither run (TRIALS) nor marked (<!-- needs: … -->):\n{}", unrun.join("\n"));
    for page in TRIALS.concat() {
        let runs = page::read(&text_of(Path::new(page))).commands.iter().any(|command| command.kind == Kind::Run);
        assert!(runs, "{page} has nothing to run: take it out of TRIALS");
    }
}

/// Commands without a marker on pages that no trial has.
fn unrun<'a>(pages: impl Iterator<Item = (&'a str, String)>) -> Vec<String> {
    let without = pages.filter(|(name, _)| !TRIALS.concat().contains(name));
    let lines = |(name, text): (&str, String)| {
        let commands = page::read(&text).commands.into_iter().filter(|command| command.kind == Kind::Run);
        commands.map(|command| format!("{name}:{}: {}", command.line, command.text)).collect::<Vec<_>>()
    };
    without.flat_map(lines).collect()
}

#[test]
fn the_read_me_goes_from_nothing_to_masks() {
    if !can_train("the_read_me_goes_from_nothing_to_masks") {
        return;
    }
    let trial = Trial::new();
    trial.patients("data/phantom", Patients::Seven);
    trial.patients("home/lits", Patients::Seven);
    trial.volume("ct.nii.gz");
    trial.page("README.md");
    trial.has(&[
        "runs/quickstart/report.html",
        "runs/lits/evaluation/test.json",
        "runs/lits/report.html",
        "mask.nii.gz",
    ]);
}

#[test]
fn the_tutorial_goes_from_a_clone_to_another_data_set() {
    if !can_train("the_tutorial_goes_from_a_clone_to_another_data_set") {
        return;
    }
    let trial = Trial::new();
    trial.patients("data/phantom", Patients::Seven);
    trial.patients("home/lits", Patients::Seven);
    trial.subjects("home/total");
    trial.volume("new-patient.nii.gz");
    trial.page("docs/tutorial.md");
    trial.has(&["runs/quickstart/report.html", "mask.nii.gz", "lits.png", "new-patient-liver.nii.gz"]);
    trial.has(&["runs/lits/evaluation/totalsegmentator.json", "runs/lits/report.html"]);
}

#[test]
fn own_data_are_prepared_trained_on_predicted_and_exported() {
    if !can_train("own_data_are_prepared_trained_on_predicted_and_exported") {
        return;
    }
    let trial = Trial::new();
    let [own_data, export] = ["docs/how-to/own-data.md", "docs/how-to/export.md"];
    trial.patients("DIR", Patients::Seven);
    trial.volume("new/patient.nii.gz");
    // "copy one", and what the page shows of the configuration.
    fs::copy(trial.path("data-manifests/lits.json"), trial.path("mine.json")).unwrap();
    let page = page::read(&text_of(Path::new(own_data)));
    let [(_, keys)] = &page.configurations[..] else { panic!("{own_data} shows other than one configuration") };
    trial.configuration("mine.toml", &check::with_keys("configs/lits-mini.toml", keys).unwrap());
    trial.page(own_data);
    trial.has(&["mine.png", "runs/mine/report.html", "masks/patient.nii.gz"]);
    trial.page(export);
    trial.has(&["runs/mine/export/weights.safetensors", "runs/mine/export/torchscript/decoder.pt"]);
}

#[test]
fn fifty_slices_are_chosen_drawn_and_trained_on() {
    if !can_train("fifty_slices_are_chosen_drawn_and_trained_on") {
        return;
    }
    let trial = Trial::new();
    // What the annotator sees, and nobody else has.
    trial.patients("truth", Patients::Eleven);
    let mask = |case: usize| trial.path(format!("truth/segmentation-{case}.nii.gz"));
    fs::create_dir_all(trial.path("home/ours")).unwrap();
    let mut presence = String::from("case,first,last,presence\n");
    for case in 0..11 {
        fs::rename(
            trial.path(format!("truth/volume-{case}.nii.gz")),
            trial.path(format!("home/ours/volume-{case}.nii.gz")),
        )
        .unwrap();
        let liver = changed_mask(&mask(case), &trial.path("whole.nii.gz"), |_, label| label);
        let (first, last) = (liver.first().unwrap(), liver.last().unwrap());
        let _ = writeln!(presence, "{case},,,absent\n{case},{first},{last},present");
    }
    fs::write(trial.path("home/ours/presence.csv"), presence).unwrap();
    trial.volume("ct.nii.gz");
    fs::create_dir(trial.path("drawn")).unwrap();
    let validation = std::cell::Cell::new(0);
    let draw = || {
        let list = fs::read_to_string(trial.path("worklist/worklist.csv")).unwrap();
        let mut slices: std::collections::BTreeMap<&str, Vec<usize>> = std::collections::BTreeMap::new();
        let lines: Vec<Vec<&str>> = list.lines().skip(1).map(|line| line.split(',').collect()).collect();
        for fields in &lines {
            slices.entry(fields[1]).or_default().push(fields[3].parse().unwrap());
        }
        validation.set(lines.iter().filter(|fields| fields[2] == "validation").count() as u64);
        assert_eq!((lines.len() as u64 - validation.get(), validation.get() > 4), (50, true), "{list}");
        for (case, slices) in slices {
            let to = trial.path(format!("drawn/{case}.nii.gz"));
            changed_mask(
                &mask(case.parse().unwrap()),
                &to,
                |slice, label| {
                    if slices.contains(&slice) { label.min(1) } else { 0 }
                },
            );
        }
    };
    trial.page_with("docs/how-to/label-50-slices.md", |command| {
        if command.starts_with("cargo xtask import-labels") {
            draw();
        }
    });
    trial.has(&["worklist/sheet.png", "worklist/how-to-draw.md", "masks/ct.nii.gz", "masks/ct.seg.nrrd"]);
    // Two files of each case, and what they were.
    let proposed = fs::read_to_string(trial.path("next/proposals/proposals.sha256")).unwrap();
    assert!(proposed.lines().count() >= 2 && proposed.contains(".seg.nrrd"), "{proposed}");
    let run = fs::read_to_string(trial.path("runs/ours/run.json")).unwrap();
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    let count = |kind: &str| run["label_budget"][kind]["count"].as_u64();
    // The trial's configuration takes ten of the fifty.
    assert_eq!(
        (count("masks"), count("validation_masks")),
        (Some(10), Some(validation.get())),
        "{}",
        run["label_budget"]
    );
}

#[test]
fn a_stage_is_swapped_and_runs_are_listed() {
    if !can_train("a_stage_is_swapped_and_runs_are_listed") {
        return;
    }
    let trial = Trial::new();
    trial.patients("data/phantom", Patients::Seven);
    trial.page("docs/how-to/swap-a-stage.md");
    trial.has(&["runs/tiny/evaluation/test.json"]);
    trial.shell("cargo xtask prepare --manifest phantom --data data/phantom --store stores/lits-mini");
    trial.page("docs/how-to/cluster.md");
    trial.page("crates/study/README.md");
    fs::rename(trial.path("runs/tiny"), trial.path("runs/quickstart")).unwrap();
    trial.page("crates/report/README.md");
    trial.has(&["runs/quickstart/report.html", "quickstart.html"]);
}

#[test]
fn the_crates_programs_do_what_their_read_mes_show() {
    if !is_ready("the_crates_programs_do_what_their_read_mes_show") {
        return;
    }
    let trial = Trial::new();
    trial.patients("home/LiTS", Patients::Seven);
    trial.page("crates/ct-ingest/README.md");
    trial.has(&["stores/lits/index.parquet", "lits.png"]);
    trial.page("crates/phantom/README.md");
    trial.has(&["data/phantom/phantom.json", "phantom.png"]);
}

/// Each fault of a kind that pages have had.
#[test]
fn a_page_with_faults_is_refused_line_by_line() {
    if !is_ready("a_page_with_faults_is_refused_line_by_line") {
        return;
    }
    let page = "\
# A page
```sh
cargo xtask evaluate --run runs/a --store stores/a --splitt test
cargo xtask evaluate --run runs/a
cargo xtask evaluate --run runs/a --store stores/a --split none
cargo xtask trian --config configs/quickstart.toml
cargo xtask train --config configs/quickstarted.toml --store s --run r
cargo xtask train --config configs/quickstart.toml --store s --run r \\
    --set sampling.labeled=5
cargo xtask train --config configs/ablation/resnet.toml --store s --run r --set classifier.weak_crops=one-per-slice
cargo xtask predict --run r --input a --output b --set prediction.trained_shares=1
cargo xtask prepare --manifest litss --data d --store s
cargo xtask setup --divice cpu
sam-mix-phantom --outptu a
cargo run --release -p example-classifer -- train
frobnicate now
echo done > file
```
<!-- needs: a miracle -->
```sh
cargo xtask export --run r --too safetensors
```
Here `cargo xtask report --outptu a` stands in a sentence.
<!-- needs: a GPU -->

```sh
cd crates/sam-segmenter/tests/fixtures
python export_onnx.py a b --modle vit_b
cd ../nowhere
```
```
cargo xtask train --config mine.toml
```
```toml
[sampling]
labelt = 5
```
```sh
cargo xtask train --config configs/quickstart.toml --store s --run r --set sampling.labelled=5   # as it should be
```
";
    let faults = Checker::new().faults(page);
    let mut lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
    lines.sort_unstable();
    let expected = [3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 19, 21, 23, 24, 28, 29, 31, 34];
    assert_eq!(lines, expected, "{faults:#?}");
    let said = |line: usize, what: &str| {
        let fault = faults.iter().find(|fault| fault.line == line).unwrap();
        assert!(fault.what.contains(what), "line {line}: {}", fault.what);
    };
    said(3, "--splitt");
    said(4, "--store <STORE>");
    said(8, "did you mean `labelled`?");
    said(10, "weak_crops");
    said(11, "trained_share");
    said(34, "did you mean `labelled`?");

    let page =
        "```sh\ncargo xtask train\n```\n<!-- needs: data -->\n```sh\ncargo xtask runs\n```\nand `cargo xtask runs a`\n";
    assert_eq!(unrun([("made-up.md", page.to_owned())].into_iter()), ["made-up.md:2: cargo xtask train"]);
}
