//! The loader's memory does not grow with the epoch. In a process of its own, since memory is the process's.

use slice_store::SliceStore;
use std::path::Path;
use tch::Device;
use trainer::config::Config;
use trainer::loader::Loader;
use trainer::plan::plan;

const CASES: usize = 100;
const SLICES: usize = 600;
const SIZE: usize = 32;

/// 60,000 slices: more than LiTS has.
fn store(path: &Path) -> SliceStore {
    let images: Vec<i16> = (0..SLICES * SIZE * SIZE).map(|i| (i % 1999) as i16 - 1000).collect();
    let masks: Vec<u8> = (0..SLICES * SIZE * SIZE).map(|i| u8::from((i / (SIZE * SIZE)).is_multiple_of(2))).collect();
    stage_trial::store_of(path, SIZE, (0..CASES).map(|_| (images.clone(), masks.clone()))).unwrap()
}

/// Memory of the process in KiB that is no file's.
#[cfg(target_os = "linux")]
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_flat_over_an_epoch_of_60000_slices() {
    let place = tempfile::tempdir().unwrap();
    let store = store(&place.path().join("store"));
    let text = "[sampling]\nlabelled = 5\n[classifier]\nbatch_slices = 16\n[[phase]]\nname = \"a\"\nepochs = 1\n";
    let config = Config::parse(text, &[]).unwrap();
    let rows: Vec<usize> = (0..store.records().len()).collect();
    let steps = plan(&config, &rows, &rows[..5], &[], &[]);
    assert_eq!(steps.len(), 3750);
    let store = store.for_training(rows[..5].iter().copied()).unwrap();
    let loader = Loader::new(&store, &config, Device::Cpu, 2).unwrap();
    let mut seen = 0;
    let mut measured = Vec::new();
    std::thread::scope(|scope| {
        for (i, batch) in loader.start(scope, &steps).enumerate() {
            seen += batch.slices.map_or(0, |slices| slices.images.size()[0]);
            if i % 125 == 124 {
                measured.push(anonymous_kib());
            }
        }
    });
    // The labelled ones stand once more behind those of their steps.
    assert_eq!(seen, 60_005);
    // Of 30 tenth parts the first three warm up the allocator. All slices as f32 are 240 MB.
    let (first, most) = (measured[2], *measured[3..].iter().max().unwrap());
    println!("{first} KiB after a tenth of the epoch, at most {most} KiB after it");
    assert!(most < first + 8 * 1024, "{first} KiB after a tenth of the epoch, then {most} KiB: {measured:?}");
}
