//! What loading a file of weights costs: seconds, and the process's peak memory beside the tensors' own size.
//!
//! `cargo run --release -p sam-segmenter --example load_weights WEIGHTS [FAMILY]`

use std::path::PathBuf;
use std::time::Instant;

use sam_segmenter::{Family, SamSegmenter, SegmenterSettings};
use stage_api::Segmenter;
use tch::Device;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let weights: PathBuf = arguments.next().ok_or("usage: load_weights WEIGHTS [FAMILY]")?.into();
    let family: Option<Family> = arguments.next().map(|name| name.parse()).transpose()?;
    let before = peak_mebibytes();
    let start = Instant::now();
    let settings = SegmenterSettings { family, ..SegmenterSettings::default() };
    let model = SamSegmenter::load(&weights, &settings, Device::Cpu)?;
    let seconds = start.elapsed().as_secs_f64();
    let values: usize = model.tensors().iter().map(|t| t.tensor.numel()).sum();
    let tensors = values as f64 * 4.0 / (1 << 20) as f64;
    println!(
        "{} of {}: {tensors:.0} MiB of tensors in {seconds:.2} s; peak memory {before:.0} MiB before, {:.0} MiB after",
        model.architecture().encoder.name(),
        model.architecture().family.name(),
        peak_mebibytes()
    );
    Ok(())
}

/// Of this process, so far; 0 where the system doesn't tell.
fn peak_mebibytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    kibibytes.unwrap_or(0.0) / 1024.0
}
