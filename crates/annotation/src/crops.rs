//! Crops to be answered yes or no, for people: pages of pictures and a table; and the answers, into a store.

use crate::{AnnotationError, ImportError};
use chrono::{DateTime, Utc};
use ct_ingest::{sha256_of_file, write_crops};
use serde::{Deserialize, Serialize};
use serde_json::json;
use slice_store::{AnsweredCrop, Crop, SliceId, SliceStore, Slices, StoreWriter, counted};
use std::path::Path;
use std::time::SystemTime;
use whole_file::replace_folder;

/// Crops of a page: eight rows of eight.
const COLUMNS: usize = 8;
const PAGE: usize = COLUMNS * COLUMNS;

/// The table's name.
const TABLE: &str = "crops.csv";

/// A line of the table.
#[derive(Serialize, Deserialize)]
struct Line {
    number: usize,
    /// Page, row and column, each counted from 1.
    page: usize,
    row: usize,
    column: usize,
    slice: String,
    top: usize,
    left: usize,
    side: usize,
    /// To be filled in: yes or no.
    shows_target: String,
}

/// Writes pages of crops of the store's rows, and a table to be filled in.
///
/// # Errors
/// As the operating system has them; the folder is as it was then.
pub fn write_crop_sheet(folder: &Path, store: &Slices, crops: &[(usize, Crop)]) -> Result<(), AnnotationError> {
    let write = |folder: &Path| -> std::io::Result<()> {
        let mut table = csv::Writer::from_path(folder.join(TABLE))?;
        for (at, (row, crop)) in crops.iter().enumerate() {
            let Crop { top, left, side } = *crop;
            table.serialize(Line {
                number: at + 1,
                page: at / PAGE + 1,
                row: at % PAGE / COLUMNS + 1,
                column: at % COLUMNS + 1,
                slice: store.records()[*row].id().to_string(),
                top,
                left,
                side,
                shows_target: String::new(),
            })?;
        }
        table.flush()?;
        for (page, crops) in crops.chunks(PAGE).enumerate() {
            let path = folder.join(format!("page-{:02}.png", page + 1));
            write_crops(&path, store, crops, COLUMNS).map_err(std::io::Error::other)?;
        }
        let target = &store.info().target;
        std::fs::write(
            folder.join("how-to-answer.md"),
            format!(
                "# {} to answer: {target}\n\n\
                 The pages show parts of slices, eight rows of eight. For each, write `yes` into the column `shows_target` of `{TABLE}` if you see \
                 {target} in it, and `no` if you don't; leave it empty if you can't say. `page`, `row` and `column` say where each is. What shows less \
                 than a hundredth of its area counts as `no`.\n",
                counted(crops.len(), "crop")
            ),
        )
    };
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| replace_folder(folder, write))
        .map_err(AnnotationError::write(folder))
}

/// Reads a table that was filled in into a store. Gives how many crops show the target and how many don't.
///
/// # Errors
/// Nothing changes where a line is not understood, or names a slice or a crop that the store doesn't have; or nothing is answered.
pub fn import_crops(store: &Path, from: &Path, annotator: Option<&str>) -> Result<[usize; 2], ImportError> {
    let writer = StoreWriter::open(store)?;
    let slices = SliceStore::open(store)?;
    let error = |problem: String| ImportError::From(format!("crops '{}': {problem}", from.display()));
    let mut reader = csv::Reader::from_path(from).map_err(|problem| error(problem.to_string()))?;
    let mut answers = Vec::new();
    for (at, line) in reader.deserialize::<Line>().enumerate() {
        let line = line.map_err(|problem| error(problem.to_string()))?;
        let at_line = |problem: String| error(format!("line {}: {problem}", at + 2));
        let shows_target = match line.shows_target.trim().to_lowercase().as_str() {
            "" => continue,
            "yes" | "y" | "1" | "true" => true,
            "no" | "n" | "0" | "false" => false,
            other => return Err(at_line(format!("`shows_target` is '{other}', expected yes, no or nothing"))),
        };
        let slice: SliceId = line.slice.parse().map_err(|problem| at_line(format!("{problem}")))?;
        let crop = Crop { top: line.top, left: line.left, side: line.side };
        let size = slices.slice_size();
        let fits = |from: usize| crop.side > 0 && from.checked_add(crop.side).is_some_and(|end| end <= size);
        if slices.position(&slice).is_none() {
            return Err(at_line(format!("the store has no slice '{slice}'")));
        }
        if !fits(crop.top) || !fits(crop.left) {
            return Err(at_line(format!("the crop doesn't lie in a slice of {size} x {size} pixels")));
        }
        answers.push(AnsweredCrop { slice, crop, shows_target });
    }
    if answers.is_empty() {
        return Err(error("no line has an answer in the column `shows_target`".into()));
    }
    let shown = answers.iter().filter(|answer| answer.shows_target).count();
    let counts = [shown, answers.len() - shown];
    let origin = json!({
        "sha256": sha256_of_file(from).map_err(|problem| error(problem.to_string()))?,
        "annotator": annotator,
        "at": DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    });
    writer.import_crops(answers, origin)?;
    Ok(counts)
}

/// Takes the last answers about crops back.
///
/// # Errors
/// There are none.
pub fn undo_crops(store: &Path) -> Result<usize, ImportError> {
    let none = || ImportError::From("nothing was imported about crops, or all of it was taken back".into());
    StoreWriter::open(store)?.undo_crops()?.ok_or_else(none)
}
