//! As `resume.rs`, for a classifier that reads embeddings. A program of its own: libtorch's random numbers are the process's, and
//! tests of one program run side by side.

mod common;

use common::{Bench, CONFIG, assert_same_end, store, weights};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use trainer::train::Outcome;

/// A classifier on embeddings, taught by masks too, in every kind of phase.
const EMBEDDING: [&str; 4] = [
    "classifier={kind=\"embedding\", batch_slices=4, batch_masks=2, settings={channels=16}}",
    "augmented_copies={count=4, slices=6}",
    "augmentation.labelled={rotate_deg=20, low_resolution=1, noise_hu=20}",
    "prompt={threshold=0.5, absolute=true}",
];

#[test]
fn a_resumed_run_on_embeddings_ends_with_the_same_bits() {
    let Some(weights) = weights("a_resumed_run_on_embeddings_ends_with_the_same_bits") else { return };
    let place = tempfile::tempdir().unwrap();
    let store = store(place.path());
    let (whole, stopped) = (place.path().join("whole"), place.path().join("stopped"));
    let mut bench = Bench::new(CONFIG, &store, weights);
    bench.train(&whole, &EMBEDDING).unwrap();
    assert!(!whole.join("embeddings").exists(), "a finished run has no use for them");
    let kept = place.path().join("kept");
    let files = || -> BTreeMap<_, _> {
        let entries = std::fs::read_dir(&kept).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap())).collect()
    };
    bench.embeddings = Some(kept.clone());
    // Stopped while it encodes.
    let outcome = bench.train_until(&stopped, &EMBEDDING, &AtomicBool::new(true)).unwrap().1;
    assert!(outcome == Outcome::Interrupted && files().is_empty());
    bench.train(&place.path().join("other"), &EMBEDDING).unwrap();
    let written = files();
    assert_eq!(written.len(), 4, "slices and copies, and what they are of");
    let mut stops = 0;
    while stops < 5
        && bench.train_until(&stopped, &EMBEDDING, &AtomicBool::new(true)).unwrap().1 == Outcome::Interrupted
    {
        stops += 1;
    }
    assert!(stops >= 3, "the run has too few steps to be stopped: {stops}");
    bench.train(&stopped, &EMBEDDING).unwrap();
    assert_eq!(files(), written, "nothing was encoded again");
    assert_same_end(&whole, &stopped, &["weights.safetensors", "optimizer.safetensors"]);
    // Other copies of the same slices.
    let others = [&EMBEDDING[..], &["augmented_copies={count=2, slices=6}"]].concat();
    bench.train(&place.path().join("fewer"), &others).unwrap();
    let now = files();
    assert!(now.len() == 6 && written.iter().all(|file| now.get(file.0) == Some(file.1)), "{now:?}");
}
