//! Where in the trainer masks are within reach that a run has not paid for: where stores are opened, and nowhere else.

use std::fs;
use std::path::Path;

/// What gives every mask.
const EVERY_MASK: [&str; 3] = ["SliceStore", "EvaluationSlices", "for_evaluation"];

/// Files that open stores.
const OPEN: [&str; 4] = ["cli/choose.rs", "cli/crops.rs", "cli/evaluate.rs", "cli/train.rs"];

#[test]
fn what_trains_can_get_no_mask_that_is_not_paid_for() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/trainer/src");
    let mut found = Vec::new();
    collect(&source, &source, &mut found);
    found.sort();
    assert_eq!(found, OPEN, "what trains reads masks through `slice_store::TrainingSlices`");
    let choose = fs::read_to_string(source.join("cli/choose.rs")).unwrap();
    assert!(
        ["for_evaluation", "for_training"].iter().all(|handle| !choose.contains(handle)),
        "who chooses what to draw asks the store for no handle that gives masks"
    );
}

fn collect(source: &Path, place: &Path, found: &mut Vec<String>) {
    if place.is_dir() {
        return fs::read_dir(place).unwrap().for_each(|entry| collect(source, &entry.unwrap().path(), found));
    }
    let text = fs::read_to_string(place).unwrap();
    if EVERY_MASK.iter().any(|name| text.contains(name)) {
        found.push(place.strip_prefix(source).unwrap().to_str().unwrap().to_owned());
    }
}
