//! Each stage of a preparation by itself, on one volume of 512 × 512 × 40 with noise: `cargo bench -p ct-ingest`.

use ct_ingest::{ReadOptions, SlicePlan, Volume, image_slices, mask_slices, read_volume, write_mask};
use divan::Bencher;
use divan::counter::BytesCount;
use slice_store::{CaseData, MaskResize, SliceLabel, SliceRecord, StoreInfo, StoreSettings, StoreWriter};
use std::io::Write;
use std::path::PathBuf;
use std::sync::LazyLock;

const SHAPE: [usize; 3] = [512, 512, 40];
const VOXELS: usize = SHAPE[0] * SHAPE[1] * SHAPE[2];

static FILES: LazyLock<Files> = LazyLock::new(Files::new);

fn main() {
    divan::main();
}

/// A volume and its mask, plain and gzipped.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        let mut state = 1_u32;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as i16 / 8
        };
        let inside = |i: usize| {
            let (x, y) = ((i % 512) as f64 - 200.0, (i / 512 % 512) as f64 - 240.0);
            x * x + y * y < 110.0 * 110.0
        };
        let image = (0..VOXELS).flat_map(|i| (noise() + if inside(i) { 100 } else { -900 }).to_le_bytes());
        let mask = (0..VOXELS).map(|i| u8::from(inside(i)));
        files.write("image", 4, image.collect());
        files.write("mask", 2, mask.collect());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, data_type: i16, voxels: Vec<u8>) {
        let mut file = vec![0_u8; 352];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &348_i32.to_le_bytes());
        put(40, &3_i16.to_le_bytes());
        for (axis, length) in SHAPE.into_iter().enumerate() {
            put(42 + 2 * axis, &(length as i16).to_le_bytes());
            let value: f32 = if axis == 2 { 2.0 } else { -0.7 };
            put(280 + 20 * axis, &value.to_le_bytes());
        }
        put(70, &data_type.to_le_bytes());
        put(108, &352_f32.to_le_bytes());
        put(254, &1_i16.to_le_bytes());
        put(344, b"n+1\0");
        file.extend(voxels);
        std::fs::write(self.path(&format!("{name}.nii")), &file).unwrap();
        let packed = std::fs::File::create(self.path(&format!("{name}.nii.gz"))).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        encoder.write_all(&file).unwrap();
        encoder.finish().unwrap();
    }

    fn read(&self, name: &str) -> Volume {
        read_volume(&self.path(name), &ReadOptions::default()).unwrap()
    }
}

fn settings(mask_resize: MaskResize) -> StoreSettings {
    StoreSettings { mask_resize, ..StoreSettings::default() }
}

#[divan::bench(args = ["image.nii.gz", "image.nii", "mask.nii.gz"])]
fn read(bencher: Bencher, name: &str) {
    bencher.counter(BytesCount::new(VOXELS * 2)).bench(|| FILES.read(name));
}

#[divan::bench]
fn cut_image(bencher: Bencher) {
    let volume = FILES.read("image.nii");
    bencher.counter(BytesCount::new(VOXELS * 2)).bench(|| image_slices(&volume, &StoreSettings::default()));
}

#[divan::bench(args = [MaskResize::Area, MaskResize::Nearest])]
fn cut_mask(bencher: Bencher, resize: MaskResize) {
    let mask = [FILES.read("mask.nii")];
    let plan = SlicePlan::for_volume(&mask[0], &settings(resize)).unwrap();
    bencher.counter(BytesCount::new(VOXELS)).bench(|| mask_slices(&mask, &plan, &[0, 1], &[1]));
}

#[divan::bench]
fn restore_and_write_mask(bencher: Bencher) {
    let mask = FILES.read("mask.nii");
    let plan = SlicePlan::for_volume(&mask, &StoreSettings::default()).unwrap();
    let slices = mask_slices(std::slice::from_ref(&mask), &plan, &[0, 1], &[1]).unwrap();
    let path = FILES.path("written.nii.gz");
    bencher.bench(|| write_mask(&path, &plan.restore_mask(&slices), &mask));
}

#[divan::bench]
fn write_case(bencher: Bencher) {
    let volume = FILES.read("image.nii");
    let (images, _) = image_slices(&volume, &StoreSettings::default()).unwrap();
    let masks = vec![0_u8; images.len()];
    let record = |index| SliceRecord {
        case: "a".into(),
        patient: "a".into(),
        index,
        position_mm: 0.0,
        row_spacing_mm: 1.0,
        column_spacing_mm: 1.0,
        slice_spacing_mm: 1.0,
        spacing_valid: true,
        label: SliceLabel::MaskAbsent,
        source_sha256: "b".into(),
    };
    let records: Vec<SliceRecord> = (0..SHAPE[2] as u32).map(record).collect();
    let info = StoreInfo {
        format_version: slice_store::FORMAT_VERSION,
        dataset: "bench".into(),
        target: "liver".into(),
        settings: StoreSettings::default(),
        tool_version: "bench".into(),
        manifest: serde_json::Value::Null,
    };
    let writer = StoreWriter::create(&FILES.path("store"), info).unwrap();
    bencher.counter(BytesCount::new(images.len() * 3)).bench(|| {
        let (manifest, provenance) = (serde_json::Value::Null, serde_json::Value::Null);
        let (images, masks, records) = (&images, &masks, records.clone());
        writer.write_case(CaseData { case: "a", patient: "a", images, masks, records, manifest, provenance })
    });
}
