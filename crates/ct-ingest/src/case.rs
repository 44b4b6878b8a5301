//! One case: its image and masks read, compared and cut into slices.

use crate::checksum::combined;
use crate::coverage::{Annotations, CaseMasks, CaseSlices};
use crate::names::Names;
use crate::part::on_whole_grid;
use crate::presence::PresenceList;
use crate::slices::painted_slices;
use crate::source::{self, Stamp};
use crate::volume::read_volume_of;
use crate::{CaseFiles, Geometry, IngestError, Manifest, MaskCoverage, PatientRule, Scalar};
use crate::{check_same_geometry, image_slices};
use serde_json::{Value, json};
use slice_store::{CaseData, KnownCase, LabelCounts, Presence, SliceLabel, SliceRecord, StoreSettings, WindowAt};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a case's provenance says of distances that the manifest's `geometry_tolerance` allows: of its masks from its image, and of
/// DICOM slices from the even grid that they make.
const APART: [&str; 2] = ["masks_apart_voxels", "slices_apart_voxels"];

/// A case and all that is needed to cut it.
pub(crate) struct CaseWork<'a> {
    pub manifest: &'a Manifest,
    pub presence: &'a PresenceList,
    pub names: &'a Names<'a>,
    pub settings: &'a StoreSettings,
    pub files: &'a CaseFiles,
    /// As the store calls it.
    pub case: &'a str,
    /// Becomes true when the user wants to stop.
    pub stop: &'a AtomicBool,
}

/// A case as it goes into a store.
pub(crate) struct CutCase {
    pub patient: String,
    pub images: Vec<i16>,
    pub masks: Vec<u8>,
    pub records: Vec<SliceRecord>,
    pub manifest: Value,
    pub provenance: Value,
    pub facts: CaseFacts,
    pub warnings: Vec<String>,
}

/// What is known of a case's volume.
pub(crate) struct CaseFacts {
    pub shape: [usize; 3],
    pub scalar: Scalar,
    pub geometry: Geometry,
}

impl CaseWork<'_> {
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the store has the case as it would be made now. Size and time of the files, as the store remembers them, spare
    /// reading them; else their content decides.
    pub fn is_unchanged(&self, known: &KnownCase) -> Result<bool, IngestError> {
        if known.manifest != self.deciding() {
            return Ok(false);
        }
        // Whoever allows less now wants to know which cases that leaves out.
        let allowed = self.manifest.geometry_tolerance.voxels();
        let apart = APART.iter().filter_map(|key| known.provenance[key].as_f64());
        if apart.fold(0.0, f64::max) > allowed {
            return Ok(false);
        }
        let CaseFiles { image, masks, .. } = self.files;
        let remembered = known.provenance["masks"].as_array().map_or(&[][..], Vec::as_slice);
        let agrees = |path, remembered| Stamp::of(path).map(|stamp| stamp.agrees(remembered));
        let mut same = masks.len() == remembered.len() && agrees(image, &known.provenance["image"])?;
        for (mask, remembered) in masks.iter().zip(remembered) {
            same &= agrees(mask, remembered)?;
        }
        if same {
            return Ok(true);
        }
        let sums =
            std::iter::once(image).chain(masks).map(|path| source::sha256_of(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(known.source_sha256 == combined(sums.iter().map(String::as_str)))
    }

    /// Reads and cuts the case; `None` if the user has stopped it.
    pub fn cut(&self) -> Result<Option<CutCase>, IngestError> {
        let CaseFiles { case, image, masks } = self.files;
        // Taken before the files are read: a file that changes meanwhile is prepared again next time.
        let image_stamp = Stamp::of(image)?;
        let mask_stamps = masks.iter().map(|mask| Stamp::of(mask)).collect::<Result<Vec<_>, _>>()?;

        let mut volume = read_volume_of(image, &self.manifest.image_options(case), self.names.pseudonyms())?;
        if self.stopped() {
            return Ok(None);
        }
        let patient = self.names.patient(case, volume.patient_id())?;
        let series_sha256 = volume.series_sha256.clone();
        let file_geometry = volume.geometry.clone();
        let stated = self.manifest.orientation.get(case);
        if let Some(orientation) = stated {
            volume.geometry = volume.geometry.with_orientation(*orientation);
        }
        let (images, plan) = image_slices(&volume, self.settings)?;
        let mut warnings = volume.doubts();
        let facts = CaseFacts { shape: volume.shape, scalar: volume.voxels.scalar(), geometry: volume.geometry };
        let image_sha256 = volume.sha256;
        let mut slices_apart_voxels = volume.slices_apart_voxels;
        // The image's voxels are dropped before the masks' are read.
        drop(volume.voxels);
        if self.stopped() {
            return Ok(None);
        }
        let mut mask_volumes = Vec::new();
        let mut masks_apart_voxels = 0.0_f64;
        for mask in masks {
            let mask = read_volume_of(mask, &self.manifest.mask_options(), self.names.pseudonyms())?;
            let image = crate::Grid { path: image, shape: facts.shape, geometry: &file_geometry };
            let own_shape = mask.shape;
            let mut mask = on_whole_grid(mask, image, self.manifest.geometry_tolerance)?;
            if mask.shape != own_shape {
                warnings.push(format!(
                    "its mask has a grid of {own_shape:?} voxels, a part of the image's {:?}: around it nothing is painted",
                    facts.shape
                ));
            }
            let apart = check_same_geometry(image, mask.grid(), self.manifest.geometry_tolerance)?;
            masks_apart_voxels = masks_apart_voxels.max(apart);
            slices_apart_voxels = slices_apart_voxels.max(mask.slices_apart_voxels);
            if let Some(orientation) = stated {
                // The mask lies where its image does, so its header is wrong in the same way.
                let own = mask.geometry.orientation.corrected(file_geometry.orientation, *orientation);
                mask.geometry = mask.geometry.with_orientation(own);
            }
            mask_volumes.push(mask);
        }
        let (masks, painted) = painted_slices(&mask_volumes, &plan, &self.manifest.mask_labels())?;
        let numbers = plan.numbers();
        let listed = self.presence.of_case(case, &numbers, plan.positions())?;
        let coverage = self.manifest.mask_coverage.clone().unwrap_or_default();
        let masks = (!mask_volumes.is_empty()).then_some(CaseMasks { masks, painted: &painted });
        let Annotations { mut labels, masks } =
            coverage.annotations(&CaseSlices { case, numbers: &numbers }, masks, &listed)?;
        if let Some(line) = self.presence.volume_present(case) {
            if labels.iter().all(|label| label.presence() == Presence::Absent) {
                return Err(IngestError::PresenceList {
                    path: self.presence.path().to_path_buf(),
                    line,
                    problem: format!(
                        "it says that the volume of case '{case}' shows the target, but each of its slices is annotated as without it; correct \
                         whichever is wrong"
                    ),
                });
            }
            let unknown = labels.iter_mut().filter(|label| **label == SliceLabel::Unknown);
            unknown.for_each(|label| *label = SliceLabel::VolumePresent);
        }
        let mask_sha256: Vec<String> = mask_volumes.into_iter().map(|mask| mask.sha256).collect();
        if self.stopped() {
            return Ok(None);
        }

        let source_sha256 =
            combined(std::iter::once(image_sha256.as_str()).chain(mask_sha256.iter().map(String::as_str)));
        let record = |(index, (position, label)): (usize, (&crate::SlicePosition, SliceLabel))| SliceRecord {
            case: self.case.to_owned(),
            patient: patient.clone(),
            index: index as u32,
            position_mm: position.position_mm,
            row_spacing_mm: position.row_spacing_mm,
            column_spacing_mm: position.column_spacing_mm,
            slice_spacing_mm: position.slice_spacing_mm,
            spacing_valid: position.spacing_valid && self.manifest.spacing_trusted,
            label,
            source_sha256: source_sha256.clone(),
        };
        let records: Vec<SliceRecord> = plan.positions().iter().zip(labels).enumerate().map(record).collect();
        let mask_stamps: Vec<Value> =
            mask_stamps.iter().zip(&mask_sha256).map(|(stamp, sha256)| stamp.json(sha256)).collect();
        let first = plan.positions().first();
        let window = (self.settings.window_at == WindowAt::Prepare).then_some(self.settings.window);
        let provenance = json!({
            "image": image_stamp.json(&image_sha256),
            "masks": mask_stamps,
            "shape": facts.shape,
            "voxel_type": format!("{:?}", facts.scalar).to_lowercase(),
            "spacing_mm": facts.geometry.spacing_mm,
            "affine": facts.geometry.affine[..3],
            "affine_from": facts.geometry.affine_kind.name(),
            "orientation": facts.geometry.orientation,
            "native_size": plan.native_size(),
            "scaled_size": plan.scaled_size(),
            "stored_spacing_mm": first.map(|p| [p.row_spacing_mm, p.column_spacing_mm, p.slice_spacing_mm]),
            "stored_orientation": "LPS",
            "intensity": self.manifest.intensity,
            (APART[0]): masks_apart_voxels,
            (APART[1]): slices_apart_voxels,
            "window": window,
            "image_resize": if plan.native_size() == plan.scaled_size() { "none" } else { "antialiased bilinear" },
            "mask_resize": self.settings.mask_resize,
            "warnings": warnings,
            "series_sha256": series_sha256,
        });
        let manifest = self.deciding();
        Ok(Some(CutCase { patient, images, masks, records, manifest, provenance, facts, warnings }))
    }

    /// What of the manifest and the presence list decides the case's slices: one of which they say something else now is prepared
    /// again.
    fn deciding(&self) -> Value {
        let mut deciding = deciding(self.manifest, self.names, &self.files.case);
        // Absent where nothing is said, as it is in stores of programs that knew no lists.
        let rows = self.presence.rows(&self.files.case);
        if !rows.is_empty() {
            deciding["presence"] = json!(rows);
        }
        // What programs that didn't know these made of them is another thing.
        if self.presence.volume_present(&self.files.case).is_some() {
            deciding["volume_presence"] = json!("present");
        }
        if let Some(value) = self.manifest.mask_labels().ignored {
            deciding["ignored"] = json!(value);
        }
        deciding
    }
}

/// What of a manifest decides the slices of a case.
fn deciding(manifest: &Manifest, names: &Names<'_>, case: &str) -> Value {
    // Each key is named here, so that nobody adds one without asking what it decides.
    let Manifest {
        labels,
        target_labels,
        intensity,
        affine,
        series,
        orientation,
        spacing_trusted,
        patient,
        mask_coverage,
        // Its rows about the case: see `CaseWork::deciding`.
        presence: _,
        // Names, prose, and where files are, which their checksums stand for.
        name: _,
        target: _,
        image: _,
        mask: _,
        description: _,
        licence: _,
        citation: _,
        how_to_get: _,
        // Decides whether a case is taken, not what is made of it: see `is_unchanged`.
        geometry_tolerance: _,
    } = manifest;
    // With a secret the case's own name depends on it, and a series is called by a pseudonym, as cases are.
    let patient = match patient {
        Some(PatientRule::Hash(_)) => None,
        _ => names.patient(case, None).ok(),
    };
    let series = series.get(case).map(|uid| names.series(uid));
    let mut deciding = json!({
        "labels": labels,
        "target_labels": target_labels,
        "intensity": intensity,
        "affine": affine,
        "series": series,
        "orientation": orientation.get(case),
        "spacing_trusted": spacing_trusted,
        "patient": patient,
    });
    match mask_coverage {
        None | Some(MaskCoverage::All) => {}
        Some(MaskCoverage::Painted) => deciding["mask_coverage"] = json!("painted"),
        Some(MaskCoverage::Slices(cases)) => deciding["mask_coverage"] = json!(cases.get(case)),
    }
    deciding
}

impl CutCase {
    /// What is known of its slices.
    pub fn counts(&self) -> LabelCounts {
        LabelCounts::of(&self.records)
    }

    /// What a store's writer takes.
    pub fn data<'a>(self: &'a CutCase, case: &'a str) -> CaseData<'a> {
        CaseData {
            case,
            patient: &self.patient,
            images: &self.images,
            masks: &self.masks,
            records: self.records.clone(),
            manifest: self.manifest.clone(),
            provenance: self.provenance.clone(),
        }
    }
}
