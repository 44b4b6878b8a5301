//! Preparing a data set: every case of a directory into a slice store, in parallel and resumably.
//!
//! Invariant: a worker holds the volumes of one case at a time, and a case is in the store whole or not at all.

use crate::case::CaseWork;
use crate::names::Names;
use crate::presence::PresenceList;
use crate::source::Stamp;
use crate::volume::read_grid_of;
use crate::{CaseFiles, Discovery, IngestError, Manifest, MaskCoverage, SlicePlan, workers};
use slice_store::{FORMAT_VERSION, KnownCase, LabelCounts, Scale, SliceRecord, StoreInfo, StoreSettings, StoreWriter};
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is to be prepared, from where, to where and how.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// The data set's directory.
    pub data: PathBuf,
    /// The store's directory; it is made, or resumed.
    pub store: PathBuf,
    /// What the data set looks like.
    pub manifest: Manifest,
    /// How slices are made. With [`Scale::Native`] the size is that of the data set's largest slice, or of the store
    /// that is there already.
    pub settings: StoreSettings,
    /// Cases that are worked on at the same time; memory grows with it.
    pub jobs: usize,
    /// Whether the first case that can't be prepared stops the others.
    pub strict: bool,
    /// Whether all cases are prepared again, whatever the store holds.
    pub redo: bool,
    /// The part of the cases to prepare; the others stay as the store has them.
    pub shard: Option<Shard>,
    /// Stores of the same data set: a case that one of them holds as it would be made now is copied.
    pub merge: Vec<PathBuf>,
}

/// A part of a data set's cases: in natural order every `of`-th, beginning with the `part`-th. Written `2/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    part: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("'{text}' is no part of a whole, expected for example 2/8: the second of eight parts");
        let (part, of) = text.split_once('/').ok_or_else(error)?;
        let (part, of) = (part.parse().map_err(|_| error())?, of.parse().map_err(|_| error())?);
        if (1..=of).contains(&part) { Ok(Self { part, of }) } else { Err(error()) }
    }
}

impl Shard {
    /// Whether it has the case that is at `place` of all, counted from 0.
    fn has(self, place: usize) -> bool {
        place % self.of == self.part - 1
    }
}

/// What happens while a data set is prepared.
#[derive(Debug)]
pub enum Event<'a> {
    /// The cases were found; `bytes` is the size of all their files.
    Found {
        /// How many there are.
        cases: usize,
        /// Of images and masks together.
        bytes: u64,
    },
    /// Something that is no error, but that a person should know.
    Warning {
        /// About which case.
        case: &'a str,
        /// What.
        text: &'a str,
    },
    /// A case was read to its end, in a check.
    Looked {
        /// Its name.
        case: &'a str,
        /// Of its image and masks.
        bytes: u64,
    },
    /// A case is dealt with.
    Done {
        /// Its name.
        case: &'a str,
        /// Of its image and mask.
        bytes: u64,
        /// What became of it.
        outcome: &'a Outcome,
    },
}

/// What became of a case.
#[derive(Debug)]
pub enum Outcome {
    /// It was written to the store.
    Prepared {
        /// What is known of its slices.
        labels: LabelCounts,
    },
    /// It is in the store already, from the same files.
    Unchanged,
    /// It was copied from a store that had it, from the same files.
    Merged,
    /// It can't be prepared.
    Failed(String),
    /// The user stopped before it was done.
    Interrupted,
}

/// What became of a data set.
#[derive(Debug, Default)]
pub struct Summary {
    /// Cases written to the store.
    pub prepared: usize,
    /// Cases that were there already.
    pub unchanged: usize,
    /// Cases that were copied from other stores.
    pub merged: usize,
    /// Cases that can't be prepared, with the reason.
    pub failed: Vec<(String, String)>,
    /// Cases that have left the store's index, since they failed now or their files are gone. What the store has of them stays
    /// in its folders, and counts again when they can be prepared.
    pub left: Vec<String>,
    /// Cases that an interruption left undone; if there are any, the store is unfinished.
    pub remaining: usize,
    /// The store's index; empty if the store is unfinished.
    pub records: Vec<SliceRecord>,
}

/// Prepares a data set. A case that can't be prepared doesn't stop the others, unless the options are strict. `stop` is
/// looked at between the steps of a case: once it is true, no case is begun and none is left half written.
///
/// # Errors
/// No case is found, the store has other settings or its directory something else in it, or the disk is full: then every case
/// that is in the store is whole, and the same call resumes.
pub fn prepare(
    options: &PrepareOptions,
    stop: &AtomicBool,
    report: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Summary, IngestError> {
    StoreWriter::check_place(&options.store)?;
    let names = Names::of(options)?;
    let mut found = names.discover()?;
    let presence = presence_list(&names, options, &found)?;
    let mut summary = Summary::default();
    for (case, error) in found.unusable.drain(..) {
        summary.failed.push((names.case(&case), names.of_case(&case, error).to_string()));
    }
    if let (true, Some((case, reason))) = (options.strict, summary.failed.first()) {
        return Err(IngestError::Strict { case: case.clone(), reason: reason.clone() });
    }
    let info = store_info(&names, options, settings(&names, options, &found)?);
    for from in &options.merge {
        StoreWriter::check_source(from, &info)?;
    }
    let writer = if options.redo {
        StoreWriter::replace(&options.store, info)
    } else {
        StoreWriter::create(&options.store, info)
    }?;
    if names.known_secret() {
        let text = "the manifest's secret is the one that everybody has; replace it in a copy of the manifest";
        report(Event::Warning { case: "patient", text });
    }
    let is_ours = |place: usize| options.shard.is_none_or(|shard| shard.has(place));
    let (ours, others): (Vec<_>, Vec<_>) = found.cases.into_iter().enumerate().partition(|(place, _)| is_ours(*place));
    let work: Vec<(u64, CaseFiles)> = ours.into_iter().map(|(_, files)| (Stamp::bytes_of(&files), files)).collect();
    report(Event::Found { cases: work.len(), bytes: work.iter().map(|(bytes, _)| bytes).sum() });

    let fatal = Mutex::new(None);
    let one = |(bytes, files): (u64, CaseFiles)| {
        let case = names.case(&files.case);
        let outcome =
            one_case(options, (&names, &presence), &writer, &files, &case, stop, report).unwrap_or_else(|error| {
                let error = match names.of_files(&files, error) {
                    error if error.is_disk_full() => error,
                    error if options.strict => IngestError::Strict { case: case.clone(), reason: error.to_string() },
                    error => return Outcome::Failed(error.to_string()),
                };
                stop.store(true, Ordering::Relaxed);
                fatal.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                Outcome::Interrupted
            });
        report(Event::Done { case: &case, bytes, outcome: &outcome });
        (case, outcome)
    };
    let outcomes = workers::each(options.jobs, work, one);
    if let Some(error) = fatal.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }

    // What the store has of other parts stays in it.
    let others = others.into_iter().map(|(_, files)| names.case(&files.case));
    let mut whole: BTreeSet<String> = others.filter(|case| writer.known(case).is_some()).collect();
    for (case, outcome) in outcomes {
        match outcome {
            Outcome::Prepared { .. } => summary.prepared += 1,
            Outcome::Unchanged => summary.unchanged += 1,
            Outcome::Merged => summary.merged += 1,
            Outcome::Interrupted => summary.remaining += 1,
            Outcome::Failed(reason) => {
                // What people drew stays: only its list or its files differ now.
                let stays = writer.has_imports(&case);
                summary.failed.push((case.clone(), reason));
                if !stays {
                    continue;
                }
            }
        }
        whole.insert(case);
    }
    if summary.remaining == 0 {
        summary.records = writer.finish(whole.iter().map(String::as_str))?;
        summary.left = writer.cases_before().difference(&whole).cloned().collect();
    }
    Ok(summary)
}

impl Summary {
    /// The store's cases and patients, and what is known of its slices.
    pub fn counts(&self) -> (usize, usize, LabelCounts) {
        let cases: HashSet<&str> = self.records.iter().map(|record| record.case.as_str()).collect();
        let patients: HashSet<&str> = self.records.iter().map(|record| record.patient.as_str()).collect();
        (cases.len(), patients.len(), LabelCounts::of(&self.records))
    }
}

fn one_case(
    options: &PrepareOptions,
    (names, presence): (&Names<'_>, &PresenceList),
    writer: &StoreWriter,
    files: &CaseFiles,
    case: &str,
    stop: &AtomicBool,
    report: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Outcome, IngestError> {
    let work =
        CaseWork { manifest: &options.manifest, presence, names, settings: &writer.info().settings, files, case, stop };
    if work.stopped() {
        return Ok(Outcome::Interrupted);
    }
    let known = writer.known(case);
    if known.is_some_and(|known| work.is_unchanged(&known).unwrap_or(false)) {
        return Ok(Outcome::Unchanged);
    }
    for from in &options.merge {
        let known = KnownCase::read(from, writer.info(), case);
        if known.is_some_and(|known| work.is_unchanged(&known).unwrap_or(false)) {
            writer.adopt(from, case)?;
            return Ok(Outcome::Merged);
        }
    }
    let Some(cut) = work.cut()? else { return Ok(Outcome::Interrupted) };
    for text in &cut.warnings {
        report(Event::Warning { case, text });
    }
    let labels = cut.counts();
    writer.write_case(cut.data(case))?;
    Ok(Outcome::Prepared { labels })
}

/// The data set's list of image-level labels; empty where there is none.
///
/// # Errors
/// It can't be read, contradicts itself, or names a case or a slice that the data set doesn't have, as the manifest's
/// `mask_coverage` may.
pub(crate) fn presence_list(
    names: &Names<'_>,
    options: &PrepareOptions,
    found: &Discovery,
) -> Result<PresenceList, IngestError> {
    let manifest = &options.manifest;
    let found_names = found.cases.iter().map(|files| &files.case).chain(found.unusable.iter().map(|(case, _)| case));
    let found_names: HashSet<&str> = found_names.map(String::as_str).collect();
    let absent = |case: &str| {
        format!(
            "'{}' has no case '{}' by the manifest's '{}'",
            options.data.display(),
            names.case(case),
            manifest.image
        )
    };
    if let Some(MaskCoverage::Slices(cases)) = &manifest.mask_coverage
        && let Some(case) = cases.keys().find(|case| !found_names.contains(case.as_str()))
    {
        let problem = format!("`mask_coverage.slices` of the manifest lists it, but {}", absent(case));
        return Err(IngestError::Case { case: names.case(case), problem });
    }
    let Some(path) = &manifest.presence else { return Ok(PresenceList::default()) };
    let list = PresenceList::read(&options.data.join(path))?;
    if let Some((case, line)) = list.cases().find(|(case, _)| !found_names.contains(case)) {
        let problem = format!("it names a case that isn't there: {}", absent(case));
        return Err(IngestError::PresenceList { path: list.path().to_path_buf(), line, problem });
    }
    // Before anything is written. What can't be read is found again, and reported, when the case is prepared.
    let agrees = |files: &CaseFiles| {
        let case = files.case.as_str();
        let grid = read_grid_of(&files.image, &manifest.image_options(case), names.pseudonyms());
        let Ok((shape, mut geometry)) = grid else { return Ok(()) };
        if let Some(stated) = manifest.orientation.get(case) {
            geometry = geometry.with_orientation(*stated);
        }
        let plan = SlicePlan::new(&geometry, shape, 1);
        list.of_case(case, &plan.numbers(), plan.positions()).map(drop)
    };
    let listed = found.cases.iter().filter(|files| !list.rows(&files.case).is_empty()).collect();
    workers::each(options.jobs, listed, agrees).into_iter().collect::<Result<(), IngestError>>()?;
    Ok(list)
}

pub(crate) fn store_info(names: &Names<'_>, options: &PrepareOptions, settings: StoreSettings) -> StoreInfo {
    StoreInfo {
        format_version: FORMAT_VERSION,
        dataset: options.manifest.name.clone(),
        target: options.manifest.target.clone(),
        settings,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        manifest: serde_json::to_value(names.stored_manifest()).unwrap_or_default(),
    }
}

/// The settings, with the size that a store of native size has.
pub(crate) fn settings(
    names: &Names<'_>,
    options: &PrepareOptions,
    found: &Discovery,
) -> Result<StoreSettings, IngestError> {
    let mut settings = options.settings.clone();
    if settings.scale != Scale::Native {
        return Ok(settings);
    }
    let there = if options.redo { None } else { slice_store::settings_of(&options.store)? };
    if let Some(there) = there.filter(|there| there.scale == Scale::Native) {
        settings.slice_size = there.slice_size;
        return Ok(settings);
    }
    let longest = |files: &CaseFiles| {
        // What can't be read is found again, and reported, when the case is prepared.
        let how = options.manifest.image_options(&files.case);
        let (shape, geometry) = read_grid_of(&files.image, &how, names.pseudonyms()).ok()?;
        let [rows, columns] = SlicePlan::new(&geometry, shape, 1).native_size();
        Some(rows.max(columns))
    };
    let sizes = workers::each(options.jobs, found.cases.iter().collect(), longest);
    settings.slice_size = sizes.into_iter().flatten().max().unwrap_or(settings.slice_size);
    Ok(settings)
}
