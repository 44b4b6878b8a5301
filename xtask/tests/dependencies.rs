//! Who may know whom among the crates, and who may know libtorch: read from what the manifests declare.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The crates of ours that a crate may use outside its tests. `trainer` wires all stages and may use any; so may an
/// `example-…` crate.
const MAY_USE: [(&str, &[&str]); 24] = [
    ("annotation", &["ct-ingest", "slice-sampling", "slice-store", "whole-file"]),
    ("baselines", &["stage-api"]),
    ("cam-classifier", &["stage-api"]),
    ("ct-ingest", &["slice-store", "whole-file"]),
    ("data-parallel", &["stage-api"]),
    ("ct-ingest-fuzz", &["ct-ingest"]),
    ("evaluation", &["ct-ingest", "predictor", "run-record", "seg-metrics", "slice-store", "stage-api", "statistics"]),
    ("losses", &["seg-metrics", "stage-api"]),
    ("optimizers", &["stage-api"]),
    ("phantom", &["whole-file"]),
    (
        "predictor",
        &[
            "baselines",
            "cam-classifier",
            "ct-ingest",
            "run-record",
            "sam-segmenter",
            "seg-metrics",
            "slice-sampling",
            "slice-store",
            "stage-api",
            "whole-file",
        ],
    ),
    ("report", &["run-record", "statistics", "whole-file"]),
    ("run-record", &["slice-store", "whole-file"]),
    ("sam-segmenter", &["stage-api", "whole-file"]),
    ("seg-metrics", &[]),
    ("slice-augment", &["slice-store"]),
    ("slice-sampling", &["slice-store"]),
    ("slice-store", &["whole-file"]),
    ("stage-api", &[]),
    (
        "stage-trial",
        &[
            "data-parallel",
            "evaluation",
            "predictor",
            "run-record",
            "slice-sampling",
            "slice-store",
            "stage-api",
            "trainer",
        ],
    ),
    ("statistics", &[]),
    ("study", &["run-record", "slice-store", "statistics", "whole-file"]),
    ("whole-file", &[]),
    ("xtask", &[]),
];

/// The others prepare data and read reports on machines that have no libtorch; their tests run there too.
const MAY_KNOW_TORCH: [&str; 11] = [
    "baselines",
    "cam-classifier",
    "data-parallel",
    "evaluation",
    "losses",
    "optimizers",
    "predictor",
    "sam-segmenter",
    "stage-api",
    "stage-trial",
    "trainer",
];

/// Builds for minutes, and is not what starts the others.
const NOT_FOR_XTASK: [&str; 3] = ["tch", "torch-sys", "polars"];

struct Package {
    is_example: bool,
    /// Names, tests' dependencies left out.
    uses: BTreeSet<String>,
    /// Names, tests' dependencies included.
    declares: BTreeSet<String>,
}

fn packages() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo starts");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let read = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("a list");
        let named = |with_tests: bool| {
            dependencies.iter().filter(|d| with_tests || d["kind"] != "dev").map(|d| text(&d["name"])).collect()
        };
        let is_example = text(&package["name"]).starts_with("example-");
        (text(&package["name"]), Package { is_example, uses: named(false), declares: named(true) })
    };
    metadata["packages"].as_array().expect("a list").iter().map(read).collect()
}

#[test]
fn stages_know_only_their_seam() {
    let packages = packages();
    for (name, package) in packages.iter().filter(|(name, package)| *name != "trainer" && !package.is_example) {
        let Some((_, allowed)) = MAY_USE.iter().find(|(crate_name, _)| crate_name == name) else {
            panic!("{name} has no line in MAY_USE: say which crates it may use");
        };
        for used in package.uses.iter().filter(|used| packages.contains_key(*used)) {
            assert!(allowed.contains(&used.as_str()), "{name} may not use {used}, only {allowed:?}");
        }
    }
}

#[test]
fn only_model_stages_and_the_trainer_know_libtorch() {
    let packages = packages();
    for (name, package) in &packages {
        let knows = reaches(&packages, name, &["tch", "torch-sys"]);
        let may = package.is_example || MAY_KNOW_TORCH.contains(&name.as_str());
        assert!(may || knows.is_none(), "{name} may not know libtorch, but uses {}", knows.unwrap_or_default());
    }
}

#[test]
fn xtask_builds_without_the_heavy_libraries() {
    assert_eq!(reaches(&packages(), "xtask", &NOT_FOR_XTASK), None);
}

/// The way from a crate to one of `targets`, through our own crates and their tests.
fn reaches(packages: &BTreeMap<String, Package>, from: &str, targets: &[&str]) -> Option<String> {
    let direct = &packages[from].declares;
    if let Some(found) = direct.iter().find(|name| targets.contains(&name.as_str())) {
        return Some(found.clone());
    }
    // A crate may be its own dependency in tests.
    let mut ours = direct.iter().filter(|name| *name != from && packages.contains_key(*name));
    ours.find_map(|name| Some(format!("{name} -> {}", reaches(packages, name, targets)?)))
}
