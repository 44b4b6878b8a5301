//! `index.parquet`: a row for each slice, in the order of the store; `index.sha256`: its checksum.
//!
//! Invariant: no byte of an index is parsed before the checksum has been compared. Measured: a single changed bit makes the
//! Parquet reader ask for 2 exabytes and abort the process.

use crate::{SliceRecord, StoreError, replace_file};
use polars::prelude::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

/// Writes the index; `has_target` is added as a column for those who read it elsewhere.
pub(crate) fn write(path: &Path, records: &[SliceRecord]) -> Result<(), StoreError> {
    let problem = |error: PolarsError| StoreError::WriteIndex { path: path.to_path_buf(), problem: error.to_string() };
    let text = |field: fn(&SliceRecord) -> &str| records.iter().map(field).collect::<Vec<_>>();
    let real = |field: fn(&SliceRecord) -> f32| records.iter().map(field).collect::<Vec<_>>();
    let mut frame = df!(
        "case" => text(|r| &r.case),
        "patient" => text(|r| &r.patient),
        "index" => records.iter().map(|r| r.index).collect::<Vec<_>>(),
        "position_mm" => real(|r| r.position_mm),
        "row_spacing_mm" => real(|r| r.row_spacing_mm),
        "column_spacing_mm" => real(|r| r.column_spacing_mm),
        "slice_spacing_mm" => real(|r| r.slice_spacing_mm),
        "spacing_valid" => records.iter().map(|r| r.spacing_valid).collect::<Vec<_>>(),
        "target_pixels" => records.iter().map(|r| r.target_pixels).collect::<Vec<_>>(),
        "has_target" => records.iter().map(SliceRecord::has_target).collect::<Vec<_>>(),
        "source_sha256" => text(|r| &r.source_sha256),
    )
    .map_err(problem)?;
    let mut parquet = Vec::new();
    ParquetWriter::new(&mut parquet)
        .with_compression(ParquetCompression::Snappy)
        .set_parallel(false)
        .finish(&mut frame)
        .map_err(problem)?;
    // The index comes last: its presence means that the store is whole.
    replace_file(&checksum_path(path), |file| file.write_all(checksum_line(&parquet).as_bytes()))?;
    replace_file(path, |file| file.write_all(&parquet))
}

/// Reads the index; a wrong checksum, a column that is missing, of another type or with empty cells is an error.
pub(crate) fn read(path: &Path) -> Result<Vec<SliceRecord>, StoreError> {
    let parquet = fs::read(path).map_err(StoreError::io("read", path))?;
    let checksum_path = checksum_path(path);
    let expected = fs::read_to_string(&checksum_path).map_err(StoreError::io("read", &checksum_path))?;
    let found = checksum_line(&parquet);
    if found != expected {
        let problem = format!("its SHA-256 is {}, index.sha256 expects {}", &found[..64], expected.trim_end());
        return Err(StoreError::damaged(path, problem));
    }
    read_columns(parquet).map_err(|error| StoreError::damaged(path, error.to_string()))
}

fn checksum_path(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

/// As `sha256sum` writes it, so that `sha256sum -c` checks it.
fn checksum_line(parquet: &[u8]) -> String {
    format!("{}  index.parquet\n", crate::hex(&Sha256::digest(parquet)))
}

fn read_columns(parquet: Vec<u8>) -> PolarsResult<Vec<SliceRecord>> {
    let frame = ParquetReader::new(Cursor::new(parquet)).read_parallel(ParallelStrategy::None).finish()?;
    let column = |name: &str| {
        let column = frame.column(name)?;
        polars_ensure!(column.null_count() == 0, ComputeError: "column '{}' has empty cells", name);
        Ok(column)
    };
    let (case, patient, source) = (column("case")?.str()?, column("patient")?.str()?, column("source_sha256")?.str()?);
    let (index, target_pixels) = (column("index")?.u32()?, column("target_pixels")?.u32()?);
    let position = column("position_mm")?.f32()?;
    let row_spacing = column("row_spacing_mm")?.f32()?;
    let column_spacing = column("column_spacing_mm")?.f32()?;
    let slice_spacing = column("slice_spacing_mm")?.f32()?;
    let spacing_valid = column("spacing_valid")?.bool()?;
    let record = |row| {
        Some(SliceRecord {
            case: case.get(row)?.to_owned(),
            patient: patient.get(row)?.to_owned(),
            index: index.get(row)?,
            position_mm: position.get(row)?,
            row_spacing_mm: row_spacing.get(row)?,
            column_spacing_mm: column_spacing.get(row)?,
            slice_spacing_mm: slice_spacing.get(row)?,
            spacing_valid: spacing_valid.get(row)?,
            target_pixels: target_pixels.get(row)?,
            source_sha256: source.get(row)?.to_owned(),
        })
    };
    (0..frame.height())
        .map(|row| record(row).ok_or_else(|| polars_err!(ComputeError: "row {} can't be read", row)))
        .collect()
}
