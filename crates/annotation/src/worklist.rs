//! A list of slices to draw, for people: a table, a sheet of pictures and a page on how to draw them and hand them back.

use crate::{Algorithm, AnnotationError, Painted, Segment, write_seg_nrrd};
use ct_ingest::{Manifest, StoredCt, sha256_of_file, write_mask_on_grid, write_sheet};
use serde::{Deserialize, Serialize};
use slice_sampling::{Purpose, Worklist};
use slice_store::{KnownCase, SliceId, Slices, counted};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
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
const FILES: [&str; 4] = ["worklist.csv", "sheet.png", "how-to-draw.md", PROPOSALS];

/// What a folder of crops has beside its pages.
const OF_CROPS: [&str; 2] = ["crops.csv", "how-to-answer.md"];

/// What the proposals were when they were written, as `sha256sum` has it.
const DIGESTS: &str = "proposals.sha256";

/// The folder of proposals in that folder.
pub(crate) const PROPOSALS: &str = "proposals";

/// Masks that a run predicts of listed slices, 0 or 1 in the store's size, by case and index; annotators correct them.
pub type Proposals = BTreeMap<String, BTreeMap<u32, Vec<u8>>>;

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
            let ct = ct_of(store, case)?;
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
            let page = name.to_str().and_then(|name| name.strip_prefix("page-")?.strip_suffix(".png"));
            let is_page = page.is_some_and(|number| number.bytes().all(|c| c.is_ascii_digit()));
            if !is_page && !FILES.iter().chain(&OF_CROPS).any(|file| name == *file) {
                return Err(AnnotationError::Outputs(format!(
                    "--output '{}' holds '{}', which is no part of a work list: name another folder, nothing was replaced",
                    folder.display(),
                    name.to_string_lossy()
                )));
            }
        }
        // An annotator's program may have saved over what it opened.
        if let Some(changed) = changed_proposal(folder)? {
            return Err(AnnotationError::Outputs(format!(
                "'{}' is no longer what was proposed: somebody has drawn in it. Import it or move it away; nothing was replaced",
                changed.display()
            )));
        }
    }
    Ok(())
}

/// A file among the proposals of a folder that is not, or no longer, what was written there.
fn changed_proposal(folder: &Path) -> Result<Option<PathBuf>, AnnotationError> {
    let proposals = folder.join(PROPOSALS);
    if !proposals.is_dir() {
        return Ok(None);
    }
    for entry in std::fs::read_dir(&proposals).map_err(AnnotationError::write(folder))? {
        let path = entry.map_err(AnnotationError::write(folder))?.path();
        if path.file_name().is_none_or(|name| name != DIGESTS) && !is_as_proposed(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a file among the proposals is what was written there, by its SHA-256.
pub(crate) fn is_as_proposed(path: &Path) -> Result<bool, AnnotationError> {
    let digests = std::fs::read_to_string(path.with_file_name(DIGESTS)).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let digest = sha256_of_file(path)?;
    Ok(digests.lines().any(|line| line == format!("{digest}  {name}")))
}

/// Writes the table, the sheet, the page, and proposals as NIfTI and `.seg.nrrd` in the CTs' own grids.
///
/// # Errors
/// As the operating system has them, or the store keeps no place of a CT; the folder is as it was then.
pub fn write_worklist(
    folder: &Path,
    store: &Slices,
    lines: &[WorklistLine],
    proposals: &Proposals,
) -> Result<(), AnnotationError> {
    let write = |folder: &Path| -> std::io::Result<()> {
        let mut table = csv::Writer::from_path(folder.join(FILES[0]))?;
        lines.iter().try_for_each(|line| table.serialize(line))?;
        table.flush()?;
        let rows = lines.iter().filter_map(|line| store.position(&line.slice.parse().ok()?));
        write_sheet(store, &rows.collect::<Vec<_>>(), SHEET_COLUMNS, &folder.join(FILES[1]))
            .map_err(std::io::Error::other)?;
        std::fs::write(folder.join(FILES[2]), page(store, lines, !proposals.is_empty()))?;
        if proposals.is_empty() {
            return Ok(());
        }
        let folder = folder.join(PROPOSALS);
        let mut digests = String::new();
        for (case, masks) in proposals {
            for path in write_proposal(&folder, store, case, masks).map_err(std::io::Error::other)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let _ = writeln!(digests, "{}  {name}", sha256_of_file(&path).map_err(std::io::Error::other)?);
            }
        }
        std::fs::write(folder.join(DIGESTS), digests)
    };
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| replace_folder(folder, write))
        .map_err(AnnotationError::write(folder))
}

/// A case's CT as the store remembers it.
fn ct_of(store: &Slices, case: &str) -> Result<StoredCt, AnnotationError> {
    let known = KnownCase::read(store.path(), store.info(), case)
        .ok_or_else(|| AnnotationError::invalid(store.path(), format!("has lost case '{case}'; prepare it again")))?;
    Ok(StoredCt::of(store.info(), case, &known)?)
}

fn write_proposal(
    folder: &Path,
    store: &Slices,
    case: &str,
    masks: &BTreeMap<u32, Vec<u8>>,
) -> Result<[PathBuf; 2], AnnotationError> {
    std::fs::create_dir_all(folder).map_err(AnnotationError::write(folder))?;
    let (ct, pixels) = (ct_of(store, case)?, store.slice_size().pow(2));
    let mut slices = vec![0; ct.plan().numbers().len() * pixels];
    for (&index, mask) in masks {
        slices[index as usize * pixels..][..pixels].copy_from_slice(mask);
    }
    let mask = ct.plan().restore_mask(&slices);
    let [nifti, seg_nrrd] = ["nii.gz", "seg.nrrd"].map(|ending| folder.join(format!("{case}.{ending}")));
    let value = target_value(store);
    let labels: Vec<u8> = mask.iter().map(|&voxel| voxel * value).collect();
    write_mask_on_grid(&nifti, &labels, ct.grid())?;
    let program = Algorithm::Automatic { name: "SAM-Mix".into(), version: env!("CARGO_PKG_VERSION").into() };
    let segment = Segment {
        description: "A proposal, to be corrected in the listed slices".into(),
        ..Segment::named(&store.info().target, program)
    };
    let painted = [Painted { segment: &segment, mask: &mask }];
    write_seg_nrrd(&seg_nrrd, ct.grid(), &painted, Existing::Kept)?;
    Ok([nifti, seg_nrrd])
}

/// The value by which the store's manifest knows the target in masks without names.
fn target_value(store: &Slices) -> u8 {
    let manifest: Option<Manifest> = serde_json::from_value(store.info().manifest.clone()).ok();
    let value = manifest.and_then(|manifest| manifest.target_values().first().copied());
    value.and_then(|value| u8::try_from(value).ok()).unwrap_or(1)
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
fn page(store: &Slices, lines: &[WorklistLine], with_proposals: bool) -> String {
    let (target, value) = (&store.info().target, target_value(store));
    let proposals = if with_proposals {
        " `proposals` has, for each case, what a model makes of these slices, as `CASE.seg.nrrd` and `CASE.nii.gz`: open it beside the CT and \
         correct each of these slices, instead of beginning with an empty one."
    } else {
        ""
    };
    let mut text = format!(
        "# {} to draw: {target}\n\n\
         **Open and draw.** Open the CT of a case below in 3D Slicer or ITK-SNAP and go to each of its slices: in 3D Slicer the slider of the \
         axial view shows `S`, in ITK-SNAP the axial view shows the slice's number, counted from 1. In 3D Slicer, add one segment in the \
         Segment Editor, name it `{target}`, and outline the {target} in these slices and in no others; in ITK-SNAP, draw with label {value}. If a \
         slice shows no {target}, leave it empty: it counts as looked at. Outline everything that belongs to the {target}, vessels in it \
         included, and stop at its surface.{proposals}\n\n\
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
