//! A list of slices to draw, for people: a table, a sheet of pictures and a page on how to draw them and hand them back.

use crate::AnnotationError;
use ct_ingest::{StoredCt, write_sheet};
use serde::{Deserialize, Serialize};
use slice_sampling::{Purpose, Worklist};
use slice_store::{KnownCase, SliceId, Slices, counted};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use whole_file::{Existing, check_place, replace_folder};

/// A line of `worklist.csv`.
#[derive(Clone, Debug, Serialize)]
pub struct WorklistLine {
    /// Counted from 1; tile N of the sheet, row by row.
    pub number: usize,
    /// The case.
    pub case: String,
    /// What its mask is for.
    pub purpose: Purpose,
    /// In the CT's file, along the axis of its slices, counted from 0: 3D Slicer's K.
    pub file_slice: usize,
    /// Counted from 1.
    pub itk_snap_slice: usize,
    /// Of the slice's middle, superior positive: 3D Slicer's S.
    pub position_mm: f64,
    /// `CASE/INDEX` in the store.
    pub slice: String,
    /// Why it was chosen.
    pub why: String,
}

/// Slices of the sheet, side by side.
const SHEET_COLUMNS: usize = 8;

/// What the folder has. Nothing else is in one that is replaced.
const FILES: [&str; 3] = ["worklist.csv", "sheet.png", "how-to-draw.md"];

/// Where each slice of a list is in the file of its CT.
///
/// # Errors
/// The store has lost the record of a case, or it keeps no place of its CT.
pub fn worklist_lines(store: &Slices, list: &Worklist) -> Result<Vec<WorklistLine>, AnnotationError> {
    let mut cts: BTreeMap<&str, (StoredCt, Vec<usize>)> = BTreeMap::new();
    let mut lines = Vec::with_capacity(list.wanted.len());
    for (place, wanted) in list.wanted.iter().enumerate() {
        let case = wanted.slice.case.as_str();
        if !cts.contains_key(case) {
            let known = KnownCase::read(store.path(), store.info(), case).ok_or_else(|| {
                AnnotationError::invalid(store.path(), format!("has lost case '{case}'; prepare it again"))
            })?;
            let ct = StoredCt::of(store.info(), case, &known)?;
            let numbers = ct.plan().numbers();
            cts.insert(case, (ct, numbers));
        }
        let (ct, numbers) = &cts[case];
        let index = wanted.slice.index as usize;
        lines.push(WorklistLine {
            number: place + 1,
            case: case.to_owned(),
            purpose: wanted.purpose,
            file_slice: numbers[index],
            itk_snap_slice: numbers[index] + 1,
            position_mm: ct.centre_mm(index)[2],
            slice: wanted.slice.to_string(),
            why: wanted.why.clone(),
        });
    }
    Ok(lines)
}

/// Whether a work list may be written there: a folder that is replaced holds nothing else.
///
/// # Errors
/// If not.
pub fn check_worklist_place(folder: &Path, existing: Existing) -> Result<(), AnnotationError> {
    check_place(folder, &[], existing)?;
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder).map_err(AnnotationError::write(folder))? {
            let name = entry.map_err(AnnotationError::write(folder))?.file_name();
            if !FILES.iter().any(|file| name == *file) {
                return Err(AnnotationError::Outputs(format!(
                    "--output '{}' holds '{}', which is no part of a work list: name another folder, nothing was replaced",
                    folder.display(),
                    name.to_string_lossy()
                )));
            }
        }
    }
    Ok(())
}

/// Writes the table, the sheet and the page.
///
/// # Errors
/// As the operating system has them; the folder is as it was then.
pub fn write_worklist(folder: &Path, store: &Slices, lines: &[WorklistLine]) -> Result<(), AnnotationError> {
    let write = |folder: &Path| -> std::io::Result<()> {
        let mut table = csv::Writer::from_path(folder.join(FILES[0]))?;
        lines.iter().try_for_each(|line| table.serialize(line))?;
        table.flush()?;
        let rows = lines.iter().filter_map(|line| store.position(&line.slice.parse().ok()?));
        write_sheet(store, &rows.collect::<Vec<_>>(), SHEET_COLUMNS, &folder.join(FILES[1]))
            .map_err(std::io::Error::other)?;
        std::fs::write(folder.join(FILES[2]), page(&store.info().target, lines))
    };
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| replace_folder(folder, write))
        .map_err(AnnotationError::write(folder))
}

/// The slices of a `worklist.csv`, by case.
///
/// # Errors
/// What is wrong with it, and on which line; a case that is none of `cases`.
pub(crate) fn read_worklist(
    path: &Path,
    cases: &BTreeSet<String>,
) -> Result<BTreeMap<String, BTreeSet<u32>>, AnnotationError> {
    #[derive(Deserialize)]
    struct Line {
        slice: String,
    }
    let error = |problem: String| AnnotationError::Outputs(format!("worklist '{}': {problem}", path.display()));
    let mut reader = csv::Reader::from_path(path).map_err(|problem| error(problem.to_string()))?;
    let mut asked: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for (row, line) in reader.deserialize::<Line>().enumerate() {
        let line = line.map_err(|problem| error(problem.to_string()))?;
        let slice: SliceId = line.slice.parse().map_err(|problem| error(format!("line {}: {problem}", row + 2)))?;
        if !cases.contains(&slice.case) {
            return Err(error(format!("line {}: the store has no case '{}'", row + 2, slice.case)));
        }
        asked.entry(slice.case).or_default().insert(slice.index);
    }
    Ok(asked)
}

/// What an annotator needs to know.
fn page(target: &str, lines: &[WorklistLine]) -> String {
    let mut text = format!(
        "# {} to draw: {target}\n\n\
         **Open and draw.** Open the CT of a case below in 3D Slicer or ITK-SNAP and go to each of its slices: in 3D Slicer the slider of the \
         axial view shows `S`, in ITK-SNAP the axial view shows the slice's number, counted from 1. In 3D Slicer, add one segment in the \
         Segment Editor, name it `{target}`, and outline the {target} in these slices and in no others; in ITK-SNAP, draw with label 1. If a \
         slice shows no {target}, leave it empty: it counts as looked at. Outline everything that belongs to the {target}, vessels in it \
         included, and stop at its surface.\n\n\
         **Save and hand back.** Save one file per case into one folder, named as the case is: `CASE.seg.nrrd` (3D Slicer: Save, with the \
         segmentation ticked) or `CASE.nii.gz` (ITK-SNAP: Segmentation, Save). Hand back the folder. `sheet.png` shows the slices, in this order, \
         eight in a row.\n\n\
         | number | case | 3D Slicer, S (mm) | ITK-SNAP slice | purpose | why |\n| ---: | --- | ---: | ---: | --- | --- |\n",
        counted(lines.len(), "slice")
    );
    for line in lines {
        let purpose = match line.purpose {
            Purpose::Train => "train",
            Purpose::Validation => "validation",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {} | {purpose} | {} |",
            line.number, line.case, line.position_mm, line.itk_snap_slice, line.why
        );
    }
    text
}
