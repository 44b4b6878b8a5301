//! A look at a whole data set without writing anything: what every case is, and what a preparation would do with it.

use crate::case::CaseWork;
use crate::names::Names;
use crate::prepare::{presence_list, settings, store_info};
use crate::source::Stamp;
use crate::{CaseFiles, Event, IngestError, PrepareOptions, workers};
use serde::Serialize;
use slice_store::{KnownCase, LabelCounts, StoreInfo, StoreSettings, StoreWriter};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// What was found, and what would be done.
#[derive(Debug, Serialize)]
pub struct Check {
    /// How slices would be made.
    pub settings: StoreSettings,
    /// Why nothing could be prepared into the store: the settings that differ, or what else is in its directory.
    pub store_refused: Option<String>,
    /// Every case, in natural order; those that can't be prepared come last.
    pub cases: Vec<CheckedCase>,
    /// Cases that would leave the store's index, since they can't be prepared now or their files are gone.
    pub would_leave: Vec<String>,
    /// Whether the user stopped before all were looked at.
    pub interrupted: bool,
}

/// A case that was read to its last byte.
#[derive(Debug, Serialize)]
pub struct CheckedCase {
    /// As the store would call it.
    pub case: String,
    /// What it is; `None` if it can't be prepared.
    pub found: Option<Found>,
    /// What would be done.
    pub would: Would,
}

/// What a case is.
#[derive(Debug, Serialize)]
pub struct Found {
    /// The patient's key.
    pub patient: String,
    /// Voxels along each axis of the file.
    pub shape: [usize; 3],
    /// Their type.
    pub voxel_type: String,
    /// Their distances in mm.
    pub spacing_mm: [f64; 3],
    /// Where the axes run to, for example LPS.
    pub orientation: String,
    /// What is known of its slices.
    #[serde(flatten)]
    pub labels: LabelCounts,
    /// What is doubtful.
    pub warnings: Vec<String>,
}

/// What a preparation would do with a case.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Would {
    /// It is not in the store, or from other files, or made otherwise.
    Prepare,
    /// It is in the store already.
    Keep,
    /// It can't be prepared: why.
    Refuse(String),
}

/// Reads every case of a data set: headers, geometry, labels, checksums, values. Nothing is written.
///
/// # Errors
/// No case is found, or the store's own files can't be read.
pub fn check(
    options: &PrepareOptions,
    stop: &AtomicBool,
    report: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Check, IngestError> {
    let names = Names::of(options)?;
    let mut found = names.discover()?;
    let settings = settings(&names, options, &found)?;
    let presence = presence_list(&names, options, &found)?;
    let info = store_info(&names, options, settings.clone());
    let refused =
        if options.redo { StoreWriter::check_place(&options.store) } else { StoreWriter::check(&options.store, &info) };
    let comparable = !options.redo && refused.is_ok();
    let before = if comparable { slice_store::cases_in(&options.store)? } else { BTreeSet::new() };
    let unusable = found.unusable.drain(..).map(|(case, error)| CheckedCase {
        case: names.case(&case),
        found: None,
        would: Would::Refuse(names.of_case(&case, error).to_string()),
    });
    let unusable: Vec<CheckedCase> = unusable.collect();
    let work: Vec<(u64, CaseFiles)> = found.cases.into_iter().map(|files| (Stamp::bytes_of(&files), files)).collect();
    report(Event::Found { cases: work.len(), bytes: work.iter().map(|(bytes, _)| bytes).sum() });
    let store = comparable.then_some((options.store.as_path(), &info));
    let one = |(bytes, files): (u64, CaseFiles)| {
        let case = names.case(&files.case);
        let (manifest, settings, files) = (&options.manifest, &settings, &files);
        let checked = checked(
            &CaseWork { manifest, presence: &presence, names: &names, settings, files, case: &case, stop },
            store,
        );
        report(Event::Looked { case: &case, bytes });
        checked
    };
    let cases: Vec<Option<CheckedCase>> = workers::each(options.jobs, work, one);
    let interrupted = cases.iter().any(Option::is_none);
    let cases: Vec<CheckedCase> = cases.into_iter().flatten().chain(unusable).collect();
    let stay =
        cases.iter().filter(|case| !matches!(case.would, Would::Refuse(_))).map(|case| case.case.clone()).collect();
    let would_leave = if interrupted { Vec::new() } else { before.difference(&stay).cloned().collect() };
    let store_refused = refused.err().map(|error| error.to_string());
    Ok(Check { settings, store_refused, cases, would_leave, interrupted })
}

/// `None` if the user has stopped it.
fn checked(work: &CaseWork<'_>, store: Option<(&Path, &StoreInfo)>) -> Option<CheckedCase> {
    if work.stopped() {
        return None;
    }
    let case = work.case.to_owned();
    let cut = match work.cut() {
        Ok(cut) => cut?,
        Err(error) => {
            let reason = work.names.of_files(work.files, error).to_string();
            return Some(CheckedCase { case, found: None, would: Would::Refuse(reason) });
        }
    };
    let labels = cut.counts();
    let known = store.and_then(|(path, info)| KnownCase::read(path, info, work.case));
    let same = known.is_some_and(|known| work.is_unchanged(&known).unwrap_or(false));
    let found = Found {
        patient: cut.patient,
        shape: cut.facts.shape,
        voxel_type: format!("{:?}", cut.facts.scalar).to_lowercase(),
        spacing_mm: cut.facts.geometry.spacing_mm,
        orientation: cut.facts.geometry.orientation.to_string(),
        labels,
        warnings: cut.warnings,
    };
    Some(CheckedCase { case, found: Some(found), would: if same { Would::Keep } else { Would::Prepare } })
}

impl Check {
    /// Whether a preparation would end with every case in the store.
    pub fn is_well(&self) -> bool {
        let refused = |case: &CheckedCase| matches!(case.would, Would::Refuse(_));
        self.store_refused.is_none() && self.would_leave.is_empty() && !self.cases.iter().any(refused)
    }
}
