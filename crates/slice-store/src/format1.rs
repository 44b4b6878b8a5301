//! Stores of format 1, which had a mask of every slice (or no masks at all), no digests and another checksum. They are read
//! and not written: what was trained on one keeps its store.

use crate::index::Row;
use crate::{StoreInfo, StoreSettings};
use serde::Serialize;
use serde_json::Value;

/// Takes `has_masks`, which format 2 doesn't know, out of a `store.json`. `None` if it isn't there.
pub(crate) fn take_has_masks(info: &mut Value) -> Option<bool> {
    info.as_object_mut()?.remove("has_masks")?.as_bool()
}

/// The lines of which the checksum was made.
pub(crate) fn checksum_lines(info: &StoreInfo, has_masks: bool, rows: &[Row]) -> Vec<serde_json::Result<Vec<u8>>> {
    let StoreInfo { format_version, dataset, target, settings, .. } = info;
    let identity = Identity { format_version: *format_version, dataset, target, has_masks, settings };
    std::iter::once(serde_json::to_vec(&identity))
        .chain(rows.iter().map(|row| serde_json::to_vec(&Record::of(row))))
        .collect()
}

#[derive(Serialize)]
struct Identity<'a> {
    format_version: u32,
    dataset: &'a str,
    target: &'a str,
    has_masks: bool,
    settings: &'a StoreSettings,
}

#[derive(Serialize)]
struct Record<'a> {
    case: &'a str,
    patient: &'a str,
    index: u32,
    position_mm: f32,
    row_spacing_mm: f32,
    column_spacing_mm: f32,
    slice_spacing_mm: f32,
    spacing_valid: bool,
    target_pixels: u32,
    source_sha256: &'a str,
}

impl<'a> Record<'a> {
    fn of(row: &'a Row) -> Self {
        let record = &row.record;
        Self {
            case: &record.case,
            patient: &record.patient,
            index: record.index,
            position_mm: record.position_mm,
            row_spacing_mm: record.row_spacing_mm,
            column_spacing_mm: record.column_spacing_mm,
            slice_spacing_mm: record.slice_spacing_mm,
            spacing_valid: record.spacing_valid,
            target_pixels: row.target_pixels.unwrap_or(0),
            source_sha256: &record.source_sha256,
        }
    }
}
