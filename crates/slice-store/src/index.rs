//! `index.parquet`: a row for each slice, in the order of the store; `index.sha256`: its checksum.
//!
//! Invariant: no byte of an index is parsed before the checksum has been compared. Measured: a single changed bit makes the
//! Parquet reader ask for 2 exabytes and abort the process.

use crate::files::sha256;
use crate::record::{Presence, SliceLabel};
use crate::{SliceRecord, StoreError, replace_file};
use polars::prelude::*;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

/// A row of the index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub record: SliceRecord,
    /// Pixels of the target in the slice's mask; `None` where the store has none.
    pub target_pixels: Option<u32>,
    pub digests: Digests,
}

/// SHA-256 (hexadecimal) of what a case is made of; the same in all rows of a case, empty in format 1, which has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Digests {
    /// Of `images/<case>.npy`.
    pub images: Option<String>,
    /// Of `masks/<case>.npy`; `None` if no slice of the case has a mask.
    pub masks: Option<String>,
    /// Of what the manifest says of how the case's slices are made.
    pub manifest: Option<String>,
}

/// Which columns an index has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Of format 1: labels follow from the masks, of which each slice has one, or none has.
    One {
        /// Whether each slice has a mask.
        has_masks: bool,
    },
    /// Of format 2.
    Two,
}

/// Writes the index, whose checksum comes first: the index's presence means that the store is whole.
pub(crate) fn write(path: &Path, rows: &[Row]) -> Result<(), StoreError> {
    let parquet = parquet(rows)
        .map_err(|error| StoreError::WriteIndex { path: path.to_path_buf(), problem: error.to_string() })?;
    replace_file(&checksum_path(path), |file| file.write_all(checksum_line(&parquet).as_bytes()))?;
    replace_file(path, |file| file.write_all(&parquet))
}

/// Reads the index; a wrong checksum, a column that is missing, of another type or with unexpected empty cells is an error.
pub(crate) fn read(path: &Path, layout: Layout) -> Result<Vec<Row>, StoreError> {
    let parquet = fs::read(path).map_err(StoreError::io("read", path))?;
    let checksum_path = checksum_path(path);
    let expected = fs::read_to_string(&checksum_path).map_err(StoreError::io("read", &checksum_path))?;
    let found = checksum_line(&parquet);
    if found != expected {
        let problem = format!("its SHA-256 is {}, index.sha256 expects {}", &found[..64], expected.trim_end());
        return Err(StoreError::damaged(path, problem));
    }
    read_columns(parquet, layout).map_err(|error| StoreError::damaged(path, error.to_string()))
}

fn checksum_path(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

/// As `sha256sum` writes it, so that `sha256sum -c` checks it.
fn checksum_line(parquet: &[u8]) -> String {
    format!("{}  index.parquet\n", sha256(parquet))
}

/// The columns that follow from `label` are for those who read the index elsewhere.
fn parquet(rows: &[Row]) -> PolarsResult<Vec<u8>> {
    let text = |field: fn(&SliceRecord) -> &str| rows.iter().map(|row| field(&row.record)).collect::<Vec<_>>();
    let real = |field: fn(&SliceRecord) -> f32| rows.iter().map(|row| field(&row.record)).collect::<Vec<_>>();
    let digest = |field: fn(&Digests) -> &Option<String>| {
        rows.iter().map(|row| field(&row.digests).as_deref()).collect::<Vec<_>>()
    };
    let shows_target = |row: &Row| match row.record.presence() {
        Presence::Present => Some(true),
        Presence::Absent => Some(false),
        Presence::Unknown => None,
    };
    let mut frame = df!(
        "case" => text(|r| &r.case),
        "patient" => text(|r| &r.patient),
        "index" => rows.iter().map(|row| row.record.index).collect::<Vec<_>>(),
        "position_mm" => real(|r| r.position_mm),
        "row_spacing_mm" => real(|r| r.row_spacing_mm),
        "column_spacing_mm" => real(|r| r.column_spacing_mm),
        "slice_spacing_mm" => real(|r| r.slice_spacing_mm),
        "spacing_valid" => rows.iter().map(|row| row.record.spacing_valid).collect::<Vec<_>>(),
        "presence" => text(|r| r.label.columns().0),
        "presence_source" => text(|r| r.label.columns().1),
        "has_mask" => rows.iter().map(|row| row.record.has_mask()).collect::<Vec<_>>(),
        "has_target" => rows.iter().map(shows_target).collect::<Vec<_>>(),
        "target_pixels" => rows.iter().map(|row| row.target_pixels).collect::<Vec<_>>(),
        "source_sha256" => text(|r| &r.source_sha256),
        "images_sha256" => digest(|d| &d.images),
        "masks_sha256" => digest(|d| &d.masks),
        "manifest_sha256" => digest(|d| &d.manifest),
    )?;
    let mut parquet = Vec::new();
    ParquetWriter::new(&mut parquet)
        .with_compression(ParquetCompression::Snappy)
        .set_parallel(false)
        .finish(&mut frame)?;
    Ok(parquet)
}

fn read_columns(parquet: Vec<u8>, layout: Layout) -> PolarsResult<Vec<Row>> {
    let frame = ParquetReader::new(Cursor::new(parquet)).read_parallel(ParallelStrategy::None).finish()?;
    let column = |name: &str| {
        let column = frame.column(name)?;
        polars_ensure!(column.null_count() == 0, ComputeError: "column '{}' has empty cells", name);
        Ok(column)
    };
    let (case, patient, source) = (column("case")?.str()?, column("patient")?.str()?, column("source_sha256")?.str()?);
    let index = column("index")?.u32()?;
    let position = column("position_mm")?.f32()?;
    let row_spacing = column("row_spacing_mm")?.f32()?;
    let column_spacing = column("column_spacing_mm")?.f32()?;
    let slice_spacing = column("slice_spacing_mm")?.f32()?;
    let spacing_valid = column("spacing_valid")?.bool()?;
    let target_pixels = frame.column("target_pixels")?.u32()?;
    let annotation = Annotation::of(&frame, layout)?;
    let row = |row| {
        let target_pixels = target_pixels.get(row);
        let (label, target_pixels) = annotation.of_row(row, target_pixels)?;
        let record = SliceRecord {
            case: case.get(row)?.to_owned(),
            patient: patient.get(row)?.to_owned(),
            index: index.get(row)?,
            position_mm: position.get(row)?,
            row_spacing_mm: row_spacing.get(row)?,
            column_spacing_mm: column_spacing.get(row)?,
            slice_spacing_mm: slice_spacing.get(row)?,
            spacing_valid: spacing_valid.get(row)?,
            label,
            source_sha256: source.get(row)?.to_owned(),
        };
        Some(Row { record, target_pixels, digests: annotation.digests(row) })
    };
    (0..frame.height())
        .map(|at| row(at).ok_or_else(|| polars_err!(ComputeError: "row {} contradicts itself", at)))
        .collect()
}

/// The columns in which the formats differ.
enum Annotation<'a> {
    One { has_masks: bool },
    Two { presence: &'a StringChunked, source: &'a StringChunked, digests: [&'a StringChunked; 3] },
}

impl<'a> Annotation<'a> {
    fn of(frame: &'a DataFrame, layout: Layout) -> PolarsResult<Self> {
        let text = |name: &str| frame.column(name)?.str();
        Ok(match layout {
            Layout::One { has_masks } => Self::One { has_masks },
            Layout::Two => Self::Two {
                presence: text("presence")?,
                source: text("presence_source")?,
                digests: [text("images_sha256")?, text("masks_sha256")?, text("manifest_sha256")?],
            },
        })
    }

    /// The label of a row and the pixels of its target, if they agree.
    fn of_row(&self, row: usize, target_pixels: Option<u32>) -> Option<(SliceLabel, Option<u32>)> {
        match self {
            // A store without masks was written with 0 pixels in each.
            Self::One { has_masks: false } => Some((SliceLabel::Unknown, None)),
            Self::One { has_masks: true } => Some((label_of(target_pixels?), target_pixels)),
            Self::Two { presence, source, .. } => {
                let label = SliceLabel::from_columns(presence.get(row)?, source.get(row)?)?;
                let agrees = match (label, target_pixels) {
                    (SliceLabel::MaskPresent | SliceLabel::MaskAbsent, Some(pixels)) => label == label_of(pixels),
                    (SliceLabel::MaskPresent | SliceLabel::MaskAbsent, None) => false,
                    (_, pixels) => pixels.is_none(),
                };
                agrees.then_some((label, target_pixels))
            }
        }
    }

    fn digests(&self, row: usize) -> Digests {
        match self {
            Self::One { .. } => Digests::default(),
            Self::Two { digests, .. } => {
                let [images, masks, manifest] = digests.map(|column| column.get(row).map(str::to_owned));
                Digests { images, masks, manifest }
            }
        }
    }
}

fn label_of(target_pixels: u32) -> SliceLabel {
    if target_pixels > 0 { SliceLabel::MaskPresent } else { SliceLabel::MaskAbsent }
}
