//! Preparing a data set: every case of a directory into a slice store, in parallel and resumably.
//!
//! Invariant: a worker holds one volume at a time, and a case is in the store whole or not at all.

use crate::checksum::{combined, sha256_of_source};
use crate::{CaseFiles, IngestError, Manifest, ReadOptions, Scalar, Volume};
use crate::{check_same_geometry, discover, image_slices, mask_slices, read_volume};
use rayon::prelude::*;
use serde_json::json;
use slice_store::{CaseData, FORMAT_VERSION, SliceRecord, StoreInfo, StoreSettings, StoreWriter};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

/// What is to be prepared, from where, to where and how.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// The data set's directory.
    pub data: PathBuf,
    /// The store's directory; it is made, or resumed.
    pub store: PathBuf,
    /// What the data set looks like.
    pub manifest: Manifest,
    /// How slices are made.
    pub settings: StoreSettings,
    /// Cases that are worked on at the same time; memory grows with it.
    pub jobs: usize,
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
        /// Its slices.
        slices: usize,
        /// Those that show the target.
        target_slices: usize,
    },
    /// It is in the store already, from the same files.
    Unchanged,
    /// It can't be prepared.
    Failed(IngestError),
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
    /// Cases that can't be prepared, with the reason.
    pub failed: Vec<(String, String)>,
    /// Cases that an interruption left undone; if there are any, the store is unfinished.
    pub remaining: usize,
    /// The store's index; empty if the store is unfinished.
    pub records: Vec<SliceRecord>,
}

/// Prepares a data set. A case that can't be prepared doesn't stop the others. `stop` is looked at between the steps of a
/// case: once it is true, no case is begun and none is left half written.
///
/// # Errors
/// No case is found, the store has other settings, or the disk is full: then every case that is in the store is whole,
/// and the same call resumes.
pub fn prepare(
    options: &PrepareOptions,
    stop: &AtomicBool,
    report: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Summary, IngestError> {
    let found = discover(&options.data, &options.manifest)?;
    let writer = StoreWriter::create(&options.store, store_info(options))?;
    let work: Vec<(CaseFiles, u64)> = found
        .cases
        .into_iter()
        .map(|files| {
            let bytes = size_of(&files);
            (files, bytes)
        })
        .collect();
    report(Event::Found { cases: work.len(), bytes: work.iter().map(|(_, bytes)| bytes).sum() });

    let disk_full = Mutex::new(None);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.jobs.max(1)).build();
    let pool = pool.map_err(|error| IngestError::Io {
        action: "start workers for",
        path: options.store.clone(),
        reason: std::io::Error::other(error),
    })?;
    let outcomes: Vec<(String, Outcome)> = pool.install(|| {
        let one = |(files, bytes): (CaseFiles, u64)| {
            let mut outcome = CaseWork { options, writer: &writer, stop, report, files: &files }.run();
            if matches!(&outcome, Outcome::Failed(error) if error.is_disk_full()) {
                stop.store(true, Ordering::Relaxed);
                if let Outcome::Failed(error) = std::mem::replace(&mut outcome, Outcome::Interrupted) {
                    disk_full.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                }
            }
            report(Event::Done { case: &files.case, bytes, outcome: &outcome });
            (files.case, outcome)
        };
        work.into_par_iter().with_max_len(1).map(one).collect()
    });
    if let Some(error) = disk_full.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }

    let mut summary = Summary::default();
    summary.failed.extend(found.unusable.into_iter().map(|(case, error)| (case, error.to_string())));
    for (case, outcome) in outcomes {
        match outcome {
            Outcome::Prepared { .. } => summary.prepared += 1,
            Outcome::Unchanged => summary.unchanged += 1,
            Outcome::Failed(error) => summary.failed.push((case, error.to_string())),
            Outcome::Interrupted => summary.remaining += 1,
        }
    }
    if summary.remaining == 0 && !writer.cases()?.is_empty() {
        summary.records = writer.finish()?;
    }
    Ok(summary)
}

impl Summary {
    /// The store's cases, patients, slices and slices with the target.
    pub fn counts(&self) -> [usize; 4] {
        let cases: HashSet<&str> = self.records.iter().map(|record| record.case.as_str()).collect();
        let patients: HashSet<&str> = self.records.iter().map(|record| record.patient.as_str()).collect();
        let target_slices = self.records.iter().filter(|record| record.has_target()).count();
        [cases.len(), patients.len(), self.records.len(), target_slices]
    }
}

fn store_info(options: &PrepareOptions) -> StoreInfo {
    StoreInfo {
        format_version: FORMAT_VERSION,
        dataset: options.manifest.name.clone(),
        target: options.manifest.target.clone(),
        has_masks: true,
        settings: options.settings.clone(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        manifest: serde_json::to_value(&options.manifest).unwrap_or_default(),
    }
}

fn size_of(files: &CaseFiles) -> u64 {
    [&files.image, &files.mask].iter().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
}

/// A case and all that is needed to prepare it.
struct CaseWork<'a> {
    options: &'a PrepareOptions,
    writer: &'a StoreWriter,
    stop: &'a AtomicBool,
    report: &'a (dyn Fn(Event<'_>) + Sync),
    files: &'a CaseFiles,
}

impl CaseWork<'_> {
    fn run(&self) -> Outcome {
        match self.prepare() {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(error),
        }
    }

    fn prepare(&self) -> Result<Outcome, IngestError> {
        if self.stopped() {
            return Ok(Outcome::Interrupted);
        }
        let CaseFiles { case, image, mask } = self.files;
        let stamps = [Stamp::of(image)?, Stamp::of(mask)?];
        if self.is_unchanged(&stamps)? {
            return Ok(Outcome::Unchanged);
        }
        let manifest = &self.options.manifest;
        let patient = manifest.patient_of(case)?;

        // The image's voxels are dropped before the mask's are read.
        let mut volume = read_volume(image, &ReadOptions::default())?;
        if self.stopped() {
            return Ok(Outcome::Interrupted);
        }
        let file_geometry = volume.geometry.clone();
        self.correct(&mut volume);
        let (images, plan) = image_slices(&volume, &self.options.settings)?;
        self.warn(&volume);
        let (shape, geometry, image_sha256) = (volume.shape, volume.geometry, volume.sha256);
        drop(volume.voxels);
        if self.stopped() {
            return Ok(Outcome::Interrupted);
        }
        let mut mask_volume = read_volume(mask, &ReadOptions::default())?;
        check_same_geometry(crate::Grid { path: image, shape, geometry: &file_geometry }, mask_volume.grid())?;
        if let Some(orientation) = manifest.orientation.get(case) {
            // The mask lies where its image does, so its header is wrong in the same way.
            let own = mask_volume.geometry.orientation.corrected(file_geometry.orientation, *orientation);
            mask_volume.geometry = mask_volume.geometry.with_orientation(own);
        }
        let mask_volumes = [mask_volume];
        let masks = mask_slices(&mask_volumes, &plan, &manifest.known_labels(), &manifest.target_values())?;
        let [mask_volume] = mask_volumes;
        let mask_sha256 = mask_volume.sha256;
        drop(mask_volume.voxels);

        let source_sha256 = source_sha256(&image_sha256, &mask_sha256);
        let pixels = self.options.settings.slice_size.pow(2);
        let record = |(index, (position, mask)): (usize, (&crate::SlicePosition, &[u8]))| SliceRecord {
            case: case.clone(),
            patient: patient.clone(),
            index: index as u32,
            position_mm: position.position_mm,
            row_spacing_mm: position.row_spacing_mm,
            column_spacing_mm: position.column_spacing_mm,
            slice_spacing_mm: position.slice_spacing_mm,
            spacing_valid: position.spacing_valid && manifest.spacing_trusted,
            target_pixels: mask.iter().map(|&value| u32::from(value)).sum(),
            source_sha256: source_sha256.clone(),
        };
        let records: Vec<SliceRecord> =
            plan.positions().iter().zip(masks.chunks_exact(pixels)).enumerate().map(record).collect();
        let (slices, target_slices) = (records.len(), records.iter().filter(|record| record.has_target()).count());
        let provenance = json!({
            "image": stamps[0].json(&image_sha256),
            "mask": stamps[1].json(&mask_sha256),
            "shape": shape,
            "spacing_mm": geometry.spacing_mm,
            "orientation": geometry.orientation,
            "affine_from": geometry.affine_kind.name(),
            "native_size": plan.native_size(),
            "scaled_size": plan.scaled_size(),
        });
        if self.stopped() {
            return Ok(Outcome::Interrupted);
        }
        self.writer.write_case(CaseData {
            case,
            patient: &patient,
            images: &images,
            masks: &masks,
            records,
            provenance,
        })?;
        Ok(Outcome::Prepared { slices, target_slices })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Size and time of the files, as the store remembers them, spare reading them; else their content decides.
    fn is_unchanged(&self, stamps: &[Stamp; 2]) -> Result<bool, IngestError> {
        let CaseFiles { case, image, mask } = self.files;
        let Some((source, provenance)) = self.writer.provenance(case) else { return Ok(false) };
        if stamps[0].agrees(&provenance["image"]) && stamps[1].agrees(&provenance["mask"]) {
            return Ok(true);
        }
        Ok(source == source_sha256(&sha256_of_source(image)?, &sha256_of_source(mask)?))
    }

    /// Puts the orientation that the manifest states in the place of the header's.
    fn correct(&self, volume: &mut Volume) {
        if let Some(orientation) = self.options.manifest.orientation.get(&self.files.case) {
            volume.geometry = volume.geometry.with_orientation(*orientation);
        }
    }

    fn warn(&self, volume: &Volume) {
        let warn = |text: &str| (self.report)(Event::Warning { case: &self.files.case, text });
        if !volume.geometry.spacing_valid {
            warn(
                "its affine is the identity: its millimetres are not trusted; if slices look wrong, state its orientation in the manifest",
            );
        } else if volume.geometry.affine_kind == crate::AffineKind::VoxelSizes {
            warn("its header has no orientation; LAS is assumed; if slices look wrong, state it in the manifest");
        }
        if matches!(volume.voxels.scalar(), Scalar::F32 | Scalar::F64) {
            let count = volume.voxels.iter().filter(|value| value.is_nan()).count();
            if count > 0 {
                warn(&format!("{count} voxels are not a number and became air"));
            }
        }
    }
}

/// A file's size and time of change: enough to see that nobody has touched it.
struct Stamp {
    bytes: u64,
    modified_unix_ns: u64,
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, IngestError> {
        let file = fs::metadata(path).map_err(IngestError::io("read", path))?;
        let modified = file.modified().map_err(IngestError::io("read", path))?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { bytes: file.len(), modified_unix_ns: since.as_nanos() as u64 })
    }

    fn json(&self, sha256: &str) -> serde_json::Value {
        json!({ "bytes": self.bytes, "modified_unix_ns": self.modified_unix_ns, "sha256": sha256 })
    }

    fn agrees(&self, remembered: &serde_json::Value) -> bool {
        remembered["bytes"] == self.bytes && remembered["modified_unix_ns"] == self.modified_unix_ns
    }
}

/// One checksum for a case's two files.
fn source_sha256(image: &str, mask: &str) -> String {
    combined([image, mask])
}
