//! Networks without prompts: slices without the target that an image-level label tells of, a classifier of their own, evaluations that share
//! a folder of embeddings.

use run_record::Annotation;
use slice_store::SliceStore;
use stage_trial::{SAMPLING, Trial, squares};
use std::path::Path;
use trainer::config::Config;
use trainer::registry::Registry;

const UNET: &str = "
[classifier]
kind = \"none\"
[segmenter]
kind = \"unet\"
settings = { widths = [4, 8], norm = \"instance\" }
[segmentation_loss]
dice = 0.0
focal = 0.0
score = 0.0
ce = 1.0
[[phase]]
name = \"all\"
epochs = 2
encoder = \"trained\"
";

const MULTI_MIX: &str = "
[classifier]
kind = \"own\"
batch_slices = 2
consistency = 0.5
pseudo_label_confidence = 0.5
[segmenter]
kind = \"multi-mix\"
settings = { width = 2 }
[segmentation_loss]
batch-dice = 1.0
dice = 0.0
focal = 0.0
score = 0.0
[[phase]]
name = \"all\"
epochs = 2
labelled_steps = 4
encoder = \"trained\"
";

fn config(rest: &str, set: &[&str]) -> Config {
    Config::parse(&format!("{SAMPLING}{rest}"), &set.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// What the check before training refuses.
fn refused(config: &Config, store: &SliceStore, place: &Path) -> String {
    let registry = Registry::default();
    format!("{:#}", Trial::new(&registry, config, store).train(&place.join("refused")).unwrap_err())
}

#[test]
fn evaluations_with_one_folder_of_embeddings_keep_each_networks_own_masks() {
    let place = tempfile::tempdir().unwrap();
    let store = squares(&place.path().join("store")).unwrap();
    let registry = Registry::default();
    let kept = place.path().join("embeddings");
    let results = |seed: &str, kept: Option<&Path>| {
        let config = config(UNET, &[seed, "optimizer.lr={\"*\"=0.01}"]);
        let run = place.path().join(seed);
        let trial = Trial { embeddings: kept, ..Trial::new(&registry, &config, &store) };
        if !run.exists() {
            trial.train(&run).unwrap();
        }
        trial.evaluate(&run).unwrap()
    };
    let alone = ["seed=0", "seed=1"].map(|seed| results(seed, None));
    assert_ne!(alone[0].cam_box, alone[1].cam_box, "two networks are no one");
    for (seed, alone) in ["seed=0", "seed=1"].into_iter().zip(&alone) {
        let shared = results(seed, Some(&kept));
        assert_eq!((&shared.cam_box, shared.kept_embeddings), (&alone.cam_box, false), "{seed}");
    }
}

#[test]
fn slices_that_are_known_to_be_without_the_target_teach_by_their_image_level_label() {
    let place = tempfile::tempdir().unwrap();
    let store = squares(&place.path().join("store")).unwrap();
    let registry = Registry::default();
    let trained = |name: &str, phase: &str| {
        let config = config(UNET, &[phase]);
        let run = place.path().join(name);
        let record = Trial::new(&registry, &config, &store).train(&run).unwrap();
        (record, std::fs::read_to_string(run.join("metrics.csv")).unwrap())
    };
    let (without, log) = trained("without", "phase=[{name='all', epochs=1, encoder='trained'}]");
    let (with, other_log) = trained("with", "phase=[{name='all', epochs=1, batch_absent=2, encoder='trained'}]");
    // Two patients of four slices, two of each without the target.
    let counted = |of: &run_record::RunRecord| of.label_budget.counts().count(Annotation::ImageLevelLabels);
    assert_eq!((counted(&without), counted(&with)), (0, 4));
    let losses =
        |log: &str| log.lines().find(|line| line.starts_with("step")).unwrap().split(',').nth(6).unwrap().to_owned();
    assert_ne!(losses(&log), losses(&other_log), "the empty masks are in the loss");
    let only_labelled =
        config(UNET, &["phase=[{name='all', epochs=1, batch_absent=1, encoder='trained'}]", "sampling.keep_rate=0.25"]);
    let reason = refused(&only_labelled, &store, place.path());
    assert!(reason.contains("`batch_absent = 1`, but no training slice is known to be without the liver"), "{reason}");
}

#[test]
fn a_networks_own_classifier_learns_with_it_and_calls_slices() {
    let place = tempfile::tempdir().unwrap();
    let store = squares(&place.path().join("store")).unwrap();
    let registry = Registry::default();
    let config_of = |set: &[&str]| config(MULTI_MIX, set);
    let run = place.path().join("run");
    let config = config_of(&[]);
    let record = Trial::new(&registry, &config, &store).train(&run).unwrap();
    // Eight training slices, of which two have masks.
    assert_eq!(record.label_budget.counts().count(Annotation::ImageLevelLabels), 6);
    let log = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let step: Vec<&str> = log.lines().find(|line| line.starts_with("step")).unwrap().split(',').collect();
    assert!(step[5].parse::<f64>().unwrap() > 0.0 && step[6].parse::<f64>().unwrap() > 0.0, "{step:?}");
    let evaluation = Trial::new(&registry, &config, &store).evaluate(&run).unwrap();
    assert!(evaluation.classifier.is_some() && evaluation.oracle_box.is_none());
    let sparse = config_of(&["phase=[{name='all', epochs=1, labelled_steps=3, encoder='trained'}]"]);
    let reason = refused(&sparse, &store, place.path());
    assert!(reason.contains("the segmenter's own classifier could not learn: `labelled_steps = 4`"), "{reason}");
    let none = config_of(&["segmenter={kind='unet', settings={widths=[4, 8]}}"]);
    let reason = refused(&none, &store, place.path());
    assert!(reason.contains("the segmenter \"unet\" has no classifier of its own"), "{reason}");
}
