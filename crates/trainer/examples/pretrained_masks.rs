//! Writes the masks that the pretrained weights give for true boxes, for a comparison with the reference implementation
//! (`compare_with_reference.py`, beside this file):
//!
//! ```sh
//! cargo run --release -p trainer --example pretrained_masks -- STORE OUT.u8 8,9,10 4
//! python crates/trainer/examples/compare_with_reference.py STORE OUT.u8 8,9,10 4
//! ```
//!
//! Cases are separated by commas; the last argument takes every n-th slice. OUT is raw `uint8 [slices, H, W]`.

use anyhow::{Context, Result};
use predictor::{Intensity, IntensityConfig, mask_for_box};
use sam_segmenter::{SamSegmenter, SegmenterSettings};
use slice_store::SliceStore;
use stage_api::{Adapters, BoxPrompt, Mode, Segmenter};
use std::path::Path;
use tch::Device;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, output, cases, every] = arguments.as_slice() else {
        anyhow::bail!("usage: pretrained_masks STORE OUT.u8 CASES EVERY");
    };
    let store = SliceStore::open(Path::new(store))?;
    let every: usize = every.parse().context("EVERY must be a number")?;
    let settings = SegmenterSettings { lora_rank: 0, ..SegmenterSettings::default() };
    let segmenter = SamSegmenter::load(Path::new(".deps/weights/lite_medsam.pth"), &settings, Device::Cpu)?;
    let intensity = Intensity::new(&IntensityConfig::default());
    let size = store.slice_size();
    let mut masks = Vec::new();
    for case in cases.split(',') {
        let rows =
            (0..store.records().len()).filter(|&r| store.records()[r].case == case && store.records()[r].has_target());
        for row in rows.step_by(every) {
            let Some(tight) = store.for_evaluation().mask(row).and_then(|mask| BoxPrompt::around(mask, size)) else {
                continue;
            };
            let features = segmenter.features(&intensity.rows(&store, &[row], Device::Cpu));
            let embedding = segmenter.embed(&features, Adapters::Off, Mode::Eval);
            masks.extend(mask_for_box(&segmenter, &embedding, tight.enlarged(3.0, size), None));
        }
    }
    run_record::write_whole(Path::new(output), &masks)?;
    println!("{} masks of {size}² → '{output}'", masks.len() / (size * size));
    Ok(())
}
