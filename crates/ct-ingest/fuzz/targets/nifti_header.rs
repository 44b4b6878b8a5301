//! Any 540 bytes as the header of a file with room for a few thousand voxels.
#![no_main]

use ct_ingest::{ReadOptions, read_volume};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder for the file"));
    let mut file = bytes[..bytes.len().min(540)].to_vec();
    // What makes a header of it; the rest is the fuzzer's.
    if let [a, b, c, d, ..] = file.as_mut_slice() {
        let size = if *a & 1 == 0 { 348_i32 } else { 540 };
        [*a, *b, *c, *d] = if *b & 1 == 0 { size.to_le_bytes() } else { size.to_be_bytes() };
    }
    if let Some(magic) = file.get_mut(344..348) {
        magic.copy_from_slice(b"n+1\0");
    }
    file.resize(540 + 8 * 4096, 7);
    let path = folder.path().join("header.nii");
    std::fs::write(&path, &file).expect("the file can be written");
    let _ = read_volume(&path, &ReadOptions::default());
});
