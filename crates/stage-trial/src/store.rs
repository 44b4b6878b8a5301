//! Stores that are made and not prepared.

use anyhow::Result;
use slice_store::{
    CaseData, FORMAT_VERSION, SliceLabel, SliceRecord, SliceStore, StoreInfo, StoreSettings, StoreWriter,
};
use std::path::Path;

/// Height and width of the slices of [`squares`], in pixels.
pub const SIZE: usize = 64;

/// Four patients, "0" to "3", of four slices, two of which show a bright square: 80 HU above a ground of 0 to 6 HU.
///
/// # Errors
/// If `path` can't be written.
pub fn squares(path: &Path) -> Result<SliceStore> {
    store_of(
        path,
        SIZE,
        (0..4).map(|patient| {
            let inside = |slice: usize, i: usize| {
                slice % 2 == 1 && (20..40).contains(&(i / SIZE)) && (10 + patient..30).contains(&(i % SIZE))
            };
            let masks: Vec<u8> = (0..4).flat_map(|s| (0..SIZE * SIZE).map(move |i| u8::from(inside(s, i)))).collect();
            let images = masks.iter().enumerate().map(|(i, &m)| i16::from(m) * 80 + (i % 7) as i16).collect();
            (images, masks)
        }),
    )
}

/// A store of patients "0", "1", … with one case each: images in HU and masks of 0 and 1, both `[slices, size, size]`. Pixels
/// and the distance of slices are 1 mm. A patient is asked for when the one before is written.
///
/// # Errors
/// If `path` can't be written, or images and masks of a patient differ in length.
pub fn store_of(
    path: &Path,
    size: usize,
    patients: impl IntoIterator<Item = (Vec<i16>, Vec<u8>)>,
) -> Result<SliceStore> {
    let writer = StoreWriter::create(
        path,
        StoreInfo {
            format_version: FORMAT_VERSION,
            dataset: "made".into(),
            target: "liver".into(),
            settings: StoreSettings { slice_size: size, ..StoreSettings::default() },
            tool_version: env!("CARGO_PKG_VERSION").into(),
            manifest: serde_json::Value::Null,
        },
    )?;
    let mut names = Vec::new();
    for (patient, (images, masks)) in patients.into_iter().enumerate() {
        let case = patient.to_string();
        let records = masks.chunks(size * size).zip(0..).map(|(mask, index)| record(&case, index, mask)).collect();
        let (manifest, provenance) = (serde_json::Value::Null, serde_json::Value::Null);
        let data =
            CaseData { case: &case, patient: &case, images: &images, masks: &masks, records, manifest, provenance };
        writer.write_case(data)?;
        names.push(case);
    }
    writer.finish(names.iter().map(String::as_str))?;
    Ok(SliceStore::open(path)?)
}

fn record(case: &str, index: u32, mask: &[u8]) -> SliceRecord {
    SliceRecord {
        case: case.into(),
        patient: case.into(),
        index,
        position_mm: index as f32,
        row_spacing_mm: 1.0,
        column_spacing_mm: 1.0,
        slice_spacing_mm: 1.0,
        spacing_valid: true,
        label: SliceLabel::of_mask(mask),
        source_sha256: String::new(),
    }
}
