//! A small phantom data set, prepared as a store, and a configuration that trains on it in seconds.

use phantom::PhantomSettings;
use slice_store::{SliceStore, StoreSettings};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// A classifier of a few thousand parameters; both encoder modes.
pub const CONFIG: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
[classifier]
batch_slices = 8
settings = { block = "basic", blocks = [1, 1, 1, 1], width = 4 }
[[phase]]
name = "decoder"
epochs = 1
encoder = "frozen"
prompts = "mix"
[[phase]]
name = "lora"
epochs = 1
encoder = "lora"
prompts = "cam"
"#;

/// The pretrained weights, or `None` with a line that says what was skipped.
pub fn weights(test: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/weights/lite_medsam.pth");
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: {test} needs the pretrained weights (cargo xtask setup)");
    None
}

/// Phantom volumes in `directory/data`, prepared into `directory/store`.
pub fn store(directory: &Path) -> PathBuf {
    let settings = PhantomSettings { patients: 4, slices: 12, size: 64, seed: 0 };
    phantom::write_data_set(&directory.join("data"), &settings).unwrap();
    let options = ct_ingest::PrepareOptions {
        data: directory.join("data"),
        store: directory.join("store"),
        manifest: ct_ingest::Manifest::load("phantom", Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap(),
        settings: StoreSettings { slice_size: 64, ..StoreSettings::default() },
        jobs: 2,
        strict: false,
        redo: false,
    };
    let summary = ct_ingest::prepare(&options, &AtomicBool::new(false), &|_| ()).unwrap();
    assert_eq!(summary.prepared, 4);
    SliceStore::open(&options.store).unwrap();
    options.store
}
