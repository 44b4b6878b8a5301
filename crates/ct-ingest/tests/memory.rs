//! How much memory a preparation of DICOM series takes: workers times one volume, whatever the number of series.

#![cfg(target_os = "linux")]

mod common;

use common::Nifti;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::open_file;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const SIDE: usize = 512;
const SLICES: usize = 60;
const SERIES: usize = 8;

/// Of the voxels of one series, as they are in memory.
const VOLUME_MB: f64 = (SIDE * SIDE * SLICES * 2) as f64 / 1e6;

/// A series of a bright disc in air, written to `folder` in run lengths, so that eight of them are soon written.
fn series(folder: &Path, number: usize) {
    fs::create_dir_all(folder).unwrap();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dicom/rle/00.dcm");
    let mut slice = open_file(fixture).unwrap();
    let put = |slice: &mut dicom_object::DefaultDicomObject, tag, vr, value: PrimitiveValue| {
        slice.put(DataElement::new(tag, vr, value));
    };
    put(&mut slice, tags::ROWS, VR::US, PrimitiveValue::from(SIDE as u16));
    put(&mut slice, tags::COLUMNS, VR::US, PrimitiveValue::from(SIDE as u16));
    put(&mut slice, tags::SERIES_INSTANCE_UID, VR::UI, PrimitiveValue::from(format!("1.2.826.{number}")));
    let packed = run_lengths();
    let fragments = dicom_core::value::PixelFragmentSequence::new_fragments(vec![packed]);
    slice.put(DataElement::new(tags::PIXEL_DATA, VR::OB, dicom_core::value::Value::PixelSequence(fragments)));
    for index in 0..SLICES {
        put(&mut slice, tags::SOP_INSTANCE_UID, VR::UI, PrimitiveValue::from(format!("1.2.826.{number}.{index}")));
        let position = format!("0\\0\\{}", 2 * index);
        put(&mut slice, tags::IMAGE_POSITION_PATIENT, VR::DS, PrimitiveValue::from(position.as_str()));
        slice.write_to_file(folder.join(format!("{index}"))).unwrap();
    }
}

/// Two segments (PS3.5, annex G), the high bytes and the low ones: each row is 128 pixels of 0 (air), 256 of
/// 1124 (100 HU) and 128 of 0.
fn run_lengths() -> Vec<u8> {
    // Minus 127 means 128 times the next byte.
    let row = |inner: u8, outer: u8| [0x81, outer, 0x81, inner, 0x81, inner, 0x81, outer];
    let [high, low] = [row(4, 0), row(100, 0)].map(|row| row.repeat(SIDE));
    let mut header = [0_u32; 16];
    (header[0], header[1], header[2]) = (2, 64, 64 + high.len() as u32);
    [header.map(u32::to_le_bytes).concat(), high, low].concat()
}

/// The largest resident memory of a preparation, MB.
fn peak_mb(data: &Path, jobs: usize) -> f64 {
    let store = data.parent().unwrap().join(format!("store-{jobs}"));
    let manifest = data.join("manifest.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam-mix-data"));
    command.args(["prepare", "--size", "32", "--jobs", &jobs.to_string(), "--manifest"]).arg(manifest);
    command.arg("--data").arg(data).arg("--store").arg(store).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kb = 0.0_f64;
    let ended = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let high_water = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        peak_kb = peak_kb.max(high_water.trim().trim_end_matches(" kB").parse().unwrap());
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    let mut errors = String::new();
    std::io::Read::read_to_string(&mut child.stderr.unwrap(), &mut errors).unwrap();
    assert!(ended.success(), "{errors}");
    peak_kb / 1e3
}

#[test]
fn memory_is_bounded_by_the_workers_times_one_volume() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    for number in 0..SERIES {
        series(&data.join(format!("{number}")), number);
        let mut mask = Nifti::uint8([SIDE, SIDE, SLICES], |x, y, _| u8::from(x > 200 && x < 300 && y > 200 && y < 300));
        mask.affine = [[-0.7, 0.0, 0.0, 0.0], [0.0, -0.8, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]];
        mask.save(&data.join(format!("{number}.nii.gz")));
    }
    let manifest = serde_json::json!({
        "name": "memory", "image": "{case}/", "mask": "{case}.nii.gz", "labels": { "background": 0, "liver": 1 },
        "target": "liver", "target_labels": ["liver"], "patient": "case",
    });
    fs::write(data.join("manifest.json"), manifest.to_string()).unwrap();
    let of_none = 25.0;
    for jobs in [1, 2, 4, SERIES] {
        let peak = peak_mb(&data, jobs);
        println!("{jobs} workers, {SERIES} series of {VOLUME_MB:.0} MB: at most {peak:.0} MB");
        assert!(peak < of_none + jobs as f64 * VOLUME_MB * 1.1, "{jobs} workers take {peak} MB");
        // A volume is there at least.
        assert!(peak > VOLUME_MB, "{peak} MB");
    }
}
