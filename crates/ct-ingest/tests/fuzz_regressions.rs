//! Every file and folder that fuzzing or a damaged disk has shown to matter (`fixtures/fuzz/`) is read or refused, and asks for no
//! memory that it can't fill.

use ct_ingest::{ReadOptions, StoreSettings, image_slices, read_volume};
use std::path::Path;

#[test]
fn every_case_that_was_found_is_read_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fuzz");
    let mut tried = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let begun = std::time::Instant::now();
        if let Ok(volume) = read_volume(&path, &ReadOptions::default()) {
            let _ = image_slices(&volume, &StoreSettings { slice_size: 16, ..StoreSettings::default() });
        }
        assert!(begun.elapsed().as_secs() < 10, "'{}' takes {:?}", path.display(), begun.elapsed());
        // The largest resident memory of this process so far, where the system tells it.
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB").trim();
            let mb = peak.trim_end_matches(" kB").parse::<usize>().unwrap() / 1024;
            assert!(mb < 300, "'{}' takes {mb} MB", path.display());
        }
        tried += 1;
    }
    assert!(tried > 0, "there are none");
}
