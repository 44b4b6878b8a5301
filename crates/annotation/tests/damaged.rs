//! Files with damaged bytes: an error or another mask, never a panic.

mod common;

use annotation::read_segmentation;
use common::*;
use std::fs;

#[test]
fn no_damaged_byte_ends_in_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let [ct, square] = [ct(), series(&fixture("ct_square"))];
    let mut state = 20_261_130_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for file in ["binary.dcm", "binary_deflated.dcm", "labelmap_rle.dcm", "fractional.dcm", "dcmqi.dcm", "rt_utils.dcm"]
    {
        let whole = fs::read(fixture(file)).unwrap();
        let path = folder.path().join(file);
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..=next() % 4 {
                // Not in the preamble, where anything may stand.
                let place = 128 + next() % (bytes.len() - 128);
                bytes[place] = next() as u8;
            }
            fs::write(&path, bytes).unwrap();
            for ct in [&ct, &square] {
                drop(read_segmentation(&path, &["Liver"], &ct.ct()));
            }
        }
    }
}
