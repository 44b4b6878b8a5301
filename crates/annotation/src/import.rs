//! Masks that annotators drew into a slice store.
//!
//! Invariant: every file is read and checked, and what comes of it written beside the store's files, before any of these changes.

use crate::folder::{FirstPicture, mask_of_folder};
use crate::worklist::{PROPOSALS, is_as_proposed, read_worklist};
use crate::{AnnotationError, Ct, read_segmentation};
use chrono::{DateTime, Utc};
use ct_ingest::{CutMask, Manifest, StoredCt, is_dicom_file, sha256_of_file, volume_name};
use serde::Serialize;
use serde_json::json;
use slice_store::{KnownCase, Presence, PresenceSource, SliceLabel, StoreError, StoreWriter, counted};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What is imported into which store.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The store.
    pub store: PathBuf,
    /// A file, or a folder of files that are named as the cases are; likewise folders of pictures or of DICOM slices.
    pub from: PathBuf,
    /// The case of a file or a folder of slices that is not named so.
    pub case: Option<String>,
    /// The segment's name; absent: the names that the store's manifest has for the target.
    pub segment: Option<String>,
    /// Slices that an annotator was asked for: those that are empty were looked at too.
    pub worklist: Option<PathBuf>,
    /// Which slices a mask speaks of beside those of the worklist.
    pub coverage: ImportCoverage,
    /// Who drew it, as the store shall know it.
    pub annotator: Option<String>,
    /// Masks on another grid are put onto the CT's, each of its voxels getting the nearest one's label; else they are refused.
    pub resample: bool,
    /// Which slice the first of a folder of pictures is; without it they are refused.
    pub first_picture: Option<FirstPicture>,
}

/// Which slices a mask speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportCoverage {
    /// Those in which anything is painted.
    Painted,
    /// All: where nothing is painted, there is no target.
    All,
}

/// What came into a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// By case.
    pub cases: Vec<ImportedCase>,
    /// Cases of the work list that no file is of, with the number of their slices: nothing is known of these.
    pub undrawn: Vec<String>,
}

/// What came into a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImportedCase {
    /// Which.
    pub case: String,
    /// Slices that got a mask.
    pub masks: usize,
    /// Those of them that show the target.
    pub with_target: usize,
    /// Those of the work list that are empty: they count as looked at, and as without the target.
    pub empty: Vec<u32>,
    /// Those that had another mask before, which is kept.
    pub replaced: usize,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was to be imported can't be found.
    #[error("{0}")]
    From(String),
    /// Files that don't fit, or can't be taken in.
    #[error("nothing was imported:\n  {}", problems.join("\n  "))]
    Files {
        /// One for each.
        problems: Vec<String>,
    },
}

/// Gives slices of a store the masks that were drawn of them; what they had before is kept, and [`undo_import`] brings it back.
///
/// # Errors
/// Nothing changes where any file can't be read, lies elsewhere than its case's CT, has no segment of the name or several, paints nothing,
/// or contradicts a presence list; or the disk is full.
pub fn import_labels(options: &ImportOptions) -> Result<Imported, ImportError> {
    let writer = StoreWriter::open(&options.store)?;
    let files = files(options, writer.cases_before())?;
    let asked = options.worklist.as_deref().map(|path| read_worklist(path, writer.cases_before())).transpose()?;
    let manifest = manifest(&writer)?;
    let (mut imported, mut relabelled, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (case, path) in &files {
        let asked = asked.as_ref().and_then(|asked| asked.get(case));
        let one = || -> Result<_, Box<dyn std::error::Error>> {
            let known = KnownCase::read(writer.path(), writer.info(), case)
                .ok_or_else(|| format!("the store has lost case '{case}'; prepare it again"))?;
            let ct = StoredCt::of(writer.info(), case, &known)?;
            let (cut, mut warnings) = cut(path, &ct, &manifest, options)?;
            let masks = chosen(&writer, case, &ct, &cut, options.coverage, asked)?;
            warnings.extend(as_proposed(options.worklist.as_deref(), case, &ct, &masks, &writer.info().target)?);
            let origin = json!({
                "sha256": sha256_of_file(path)?,
                "annotator": options.annotator,
                "segment": options.segment,
                "at": DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            });
            let (had, _) = writer.case(case)?;
            let replaced = masks.keys().filter(|slice| had[**slice as usize].has_mask()).count();
            let empty = |(slice, mask): (&u32, &Vec<u8>)| (!mask.contains(&1)).then_some(*slice);
            let empty: Vec<u32> = masks.iter().filter_map(empty).collect();
            let (case, with_target) = (case.clone(), masks.len() - empty.len());
            let of_case =
                ImportedCase { case: case.clone(), masks: masks.len(), with_target, empty, replaced, warnings };
            Ok((of_case, writer.import(&case, &masks, origin)?))
        };
        match one() {
            Ok((of_case, staged)) => {
                imported.push(of_case);
                relabelled.push(staged);
            }
            Err(error) => problems.push(format!("case '{case}': {error}")),
        }
    }
    if !problems.is_empty() {
        writer.discard()?;
        return Err(ImportError::Files { problems });
    }
    writer.commit(relabelled)?;
    let undrawn = asked.iter().flatten().filter(|(case, _)| !files.contains_key(*case));
    let undrawn: Vec<String> = undrawn.map(|(case, slices)| format!("{case} ({})", slices.len())).collect();
    Ok(Imported { cases: imported, undrawn })
}

/// Takes the last import into each of these cases back. Gives the slices whose masks went.
///
/// # Errors
/// A case isn't there, or nothing was imported into it; nothing has changed then.
pub fn undo_import(store: &Path, cases: &[String]) -> Result<Vec<(String, usize)>, ImportError> {
    let writer = StoreWriter::open(store)?;
    let (mut undone, mut relabelled) = (Vec::new(), Vec::new());
    for case in cases.iter().collect::<BTreeSet<_>>() {
        let Some(staged) = writer.undo_import(case)? else {
            writer.discard()?;
            return Err(ImportError::From(format!(
                "nothing was imported into case '{case}', or all of it was taken back"
            )));
        };
        undone.push((case.clone(), staged.import.before.len()));
        relabelled.push(staged);
    }
    writer.commit(relabelled)?;
    Ok(undone)
}

/// The files by case.
fn files(options: &ImportOptions, cases: &BTreeSet<String>) -> Result<BTreeMap<String, PathBuf>, ImportError> {
    let ImportOptions { from, case, .. } = options;
    let from_error = |problem: String| Err(ImportError::From(problem));
    let some = || {
        let names: Vec<&str> = cases.iter().take(5).map(String::as_str).collect();
        format!("the store has {}{}", names.join(", "), if cases.len() > 5 { ", …" } else { "" })
    };
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    // The pictures or the DICOM slices of one case.
    if !from.is_dir() || case.is_some() {
        if !from.exists() {
            return from_error(format!("'{}' is not there", from.display()));
        }
        let case = case.clone().unwrap_or_else(|| volume_name(from));
        if !cases.contains(&case) {
            return from_error(format!(
                "'{}' is of no case of the store: there is no case '{case}' ({}); name the case with --case",
                from.display(),
                some()
            ));
        }
        return Ok([(case, from.clone())].into());
    }
    let io = |reason: std::io::Error| ImportError::From(format!("cannot list '{}': {reason}", from.display()));
    let mut strays = Vec::new();
    for entry in fs::read_dir(from).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        // The voxels that a header beside them names.
        let is_data = [".raw", ".zraw", ".raw.gz"].iter().any(|data| name.to_lowercase().ends_with(data));
        if name.starts_with('.') || is_data {
            continue;
        }
        let case = volume_name(&path);
        if !cases.contains(&case) {
            strays.push(name);
        } else if let Some(other) = found.insert(case.clone(), path.clone()) {
            return from_error(format!(
                "case '{case}' has two files, '{}' and '{}': leave one of them there",
                other.display(),
                path.display()
            ));
        }
    }
    strays.sort();
    if let Some(stray) = strays.first() {
        let more = if strays.len() > 1 { format!(" (and {} more)", strays.len() - 1) } else { String::new() };
        return from_error(format!(
            "'{stray}'{more} in '{}' is named as no case of the store ({}): name files as their cases, CASE.seg.nrrd for example, and leave \
             nothing else there; or, of a folder of pictures or slices, name the case with --case",
            from.display(),
            some()
        ));
    }
    if found.is_empty() {
        return from_error(format!("'{}' has no files", from.display()));
    }
    Ok(found)
}

/// The store's manifest.
fn manifest(writer: &StoreWriter) -> Result<Manifest, ImportError> {
    serde_json::from_value(writer.info().manifest.clone()).map_err(|reason| {
        let path = writer.path().join("store.json");
        ImportError::From(format!(
            "the manifest in '{}' is not understood: {reason}; prepare the store again",
            path.display()
        ))
    })
}

/// Reads a file or a folder, whatever its format, into the slices of its case.
fn cut(
    path: &Path,
    ct: &StoredCt,
    manifest: &Manifest,
    options: &ImportOptions,
) -> Result<(CutMask, Vec<String>), AnnotationError> {
    let segment = options.segment.as_deref();
    if path.is_dir() {
        return Ok((ct.cut(&mask_of_folder(path, ct, manifest, options.first_picture)?), Vec::new()));
    }
    if !is_dicom_file(path) {
        return Ok((ct.cut_files(&[path], manifest, segment, options.resample)?, Vec::new()));
    }
    let place =
        Ct { tolerance: manifest.geometry_tolerance, series_sha256: ct.series_sha256(), ..Ct::of_grid(ct.grid()) };
    let names = segment.map_or_else(|| manifest.target_labels.clone(), |segment| vec![segment.to_owned()]);
    let mut together = vec![0; ct.grid().shape.iter().product()];
    let (mut warnings, mut missing, mut found) = (Vec::new(), None, false);
    for name in &names {
        match read_segmentation(path, &[name], &place) {
            Ok(read) => {
                found = true;
                warnings = read.warnings;
                for segment in &read.segments {
                    together.iter_mut().zip(&segment.mask).for_each(|(to, from)| *to |= from);
                }
            }
            // One of the target's parts may not be there, as there may be no tumour.
            Err(error @ AnnotationError::NoSegment { .. }) => missing = missing.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if !found => Err(error),
        _ => Ok((ct.cut(&together), warnings)),
    }
}

/// A warning where masks are those that a run proposed, to the pixel.
fn as_proposed(
    worklist: Option<&Path>,
    case: &str,
    ct: &StoredCt,
    masks: &BTreeMap<u32, Vec<u8>>,
    target: &str,
) -> Result<Option<String>, AnnotationError> {
    let folder = worklist.map(|list| list.parent().unwrap_or(Path::new("")).join(PROPOSALS));
    let Some(path) = folder.map(|folder| folder.join(format!("{case}.seg.nrrd"))).filter(|path| path.is_file()) else {
        return Ok(None);
    };
    // Where somebody has drawn in it, it is no proposal any more.
    if !is_as_proposed(&path)? {
        return Ok(None);
    }
    let read = read_segmentation(&path, &[target], &Ct::of_grid(ct.grid()))?;
    let Some(proposed) = read.segments.first().map(|segment| ct.cut(&segment.mask)) else { return Ok(None) };
    let is_same = |(slice, mask): &(&u32, &Vec<u8>)| {
        mask.contains(&1) && proposed.masks[**slice as usize * mask.len()..][..mask.len()] == mask[..]
    };
    let same = masks.iter().filter(is_same).count();
    Ok((same > 0).then(|| {
        format!(
            "{same} of {} equal the model's proposal to the pixel: were they looked at?",
            counted(masks.len(), "mask")
        )
    }))
}

/// The masks of the slices that the file speaks of.
fn chosen(
    writer: &StoreWriter,
    case: &str,
    ct: &StoredCt,
    cut: &CutMask,
    coverage: ImportCoverage,
    asked: Option<&BTreeSet<u32>>,
) -> Result<BTreeMap<u32, Vec<u8>>, Box<dyn std::error::Error>> {
    let (records, imports) = writer.case(case)?;
    let numbers = ct.plan().numbers();
    let pixels = writer.info().settings.slice_size.pow(2);
    if let Some(beyond) = asked.and_then(|asked| asked.iter().find(|slice| **slice as usize >= records.len())) {
        return Err(format!(
            "the worklist has slice {beyond}, but the case has {} slices, counted from 0",
            records.len()
        )
        .into());
    }
    let mut masks = BTreeMap::new();
    for (slice, (mask, painted)) in cut.masks.chunks_exact(pixels).zip(&cut.painted).enumerate() {
        let is_asked = asked.is_some_and(|asked| asked.contains(&(slice as u32)));
        if !(*painted || is_asked || coverage == ImportCoverage::All)
            || SliceLabel::of_mask(mask) == SliceLabel::Unknown
        {
            continue;
        }
        // What the list said, whatever was imported since.
        let before = imports.iter().find_map(|import| import.before.get(&(slice as u32)));
        let (shows, label) = (mask.contains(&1), before.copied().unwrap_or(records[slice].label));
        let listed = (label.source() == PresenceSource::List).then(|| label.presence() == Presence::Present);
        if let Some(listed) = listed.filter(|listed| *listed != shows) {
            let say = |present: bool| if present { "present" } else { "absent" };
            return Err(format!(
                "slice {} of its file is '{}' by the presence list, but its mask says '{}': correct whichever is wrong",
                numbers[slice],
                say(listed),
                say(shows)
            )
            .into());
        }
        masks.insert(slice as u32, mask.to_vec());
    }
    if masks.is_empty() {
        return Err(
            "nothing is painted in it, and no slice of it is in a worklist: nobody knows which slices were looked at"
                .into(),
        );
    }
    Ok(masks)
}

impl From<AnnotationError> for ImportError {
    fn from(error: AnnotationError) -> Self {
        Self::From(error.to_string())
    }
}
