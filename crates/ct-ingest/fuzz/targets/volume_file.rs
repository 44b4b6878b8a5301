//! Any bytes as a file: NIfTI, NRRD, MetaImage, gzipped or not; what can be read is also cut into slices.
#![no_main]

use ct_ingest::{ReadOptions, image_slices, read_volume};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder for the file"));
    let path = folder.path().join("volume.nii.gz");
    std::fs::write(&path, bytes).expect("the file can be written");
    if let Ok(volume) = read_volume(&path, &ReadOptions::default())
        && volume.voxels.len() < 1 << 20
        && volume.shape.iter().all(|&length| length < 256)
    {
        let settings = slice_settings();
        let _ = image_slices(&volume, &settings);
    }
});

fn slice_settings() -> ct_ingest::StoreSettings {
    ct_ingest::StoreSettings { slice_size: 16, ..ct_ingest::StoreSettings::default() }
}
