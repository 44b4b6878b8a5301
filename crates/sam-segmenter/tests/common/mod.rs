//! The real weights and the fixture for the tests of this folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sam_segmenter::{SamSegmenter, SegmenterSettings};
use tch::{Device, Tensor};

/// The path of the real weights; `None`, said aloud, where they are absent.
pub fn weights(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("SAM_MIX_WEIGHTS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.deps/weights/lite_medsam.pth")),
        PathBuf::from,
    );
    if path.exists() {
        // Tests run beside each other already; libtorch's threads would only wait for one another.
        tch::set_num_threads(1);
        return Some(path);
    }
    println!("skipped: {test} needs the LiteMedSAM weights (set SAM_MIX_WEIGHTS)");
    None
}

pub fn model(weights: &std::path::Path, settings: &SegmenterSettings) -> SamSegmenter {
    SamSegmenter::load(weights, settings, Device::Cpu).expect("the weights fit")
}

/// The model's tensors by name.
pub fn named(model: &SamSegmenter) -> BTreeMap<String, Tensor> {
    use stage_api::Segmenter;
    model.tensors().into_iter().map(|t| (t.name, t.tensor)).collect()
}

/// Asserts that the largest difference is at most that share of the largest expected value.
pub fn assert_close(name: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size());
    let scale = expected.abs().max().double_value(&[]);
    let worst = (found - expected).abs().max().double_value(&[]) / scale;
    assert!(worst <= tolerance, "{name}: differs by {worst:.2e} of its largest value");
}
