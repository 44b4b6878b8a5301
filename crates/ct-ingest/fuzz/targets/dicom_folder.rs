//! Any bytes as the files of a folder: cut at a mark into at most four files.
#![no_main]

use ct_ingest::{ReadOptions, read_volume};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

/// Between two files.
const MARK: &[u8] = b"--next file--";

static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder for the files"));
    let mut rest = bytes;
    for index in 0..4 {
        let end = rest.windows(MARK.len()).position(|window| window == MARK);
        let (file, next) = end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + MARK.len()..]));
        std::fs::write(folder.path().join(format!("{index}.dcm")), file).expect("the file can be written");
        rest = next;
    }
    let _ = read_volume(folder.path(), &ReadOptions::default());
});
