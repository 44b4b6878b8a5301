//! A data set's own masks at their own resolution: what predictions of its store are compared with in millimetres.

use crate::source::sha256_of;
use crate::{IngestError, Manifest, StoredCt, discover};
use slice_store::{IGNORED, KnownCase, Slices};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The masks that cases of a store were prepared from, and where their CTs lie.
pub struct NativeMasks {
    manifest: Manifest,
    masks: BTreeMap<String, (Vec<PathBuf>, StoredCt)>,
}

/// A prediction and the truth on the voxels of the CT, in the order of the store's slices.
pub struct NativePair {
    /// 0 or 1, `[slices, rows, columns]`.
    pub prediction: Vec<u8>,
    /// Likewise.
    pub truth: Vec<u8>,
    /// Slices, rows and columns.
    pub shape: [usize; 3],
    /// Distances of slices, rows and columns in mm.
    pub spacing_mm: [f64; 3],
    /// Whether these millimetres may be trusted.
    pub spacing_valid: bool,
}

impl NativeMasks {
    /// Finds the masks of cases of a store in the folder of its data set, by the manifest that it was prepared with. A case without a
    /// mask, into which masks were imported, or whose orientation the manifest states, as its header is wrong, has none to compare with.
    ///
    /// # Errors
    /// The folder holds no case of that manifest, or lacks one of these (in a store that hides names, all); a mask is not the one that the
    /// store was prepared from.
    pub fn open(store: &Slices, data: &Path, cases: &BTreeSet<&str>) -> Result<Self, IngestError> {
        let manifest: Manifest = serde_json::from_value(store.info().manifest.clone()).map_err(|reason| {
            let problem = format!("the store's manifest is not understood: {reason}; prepare the store again");
            IngestError::Manifest { path: store.path().join("store.json"), problem }
        })?;
        let found = discover(data, &manifest)?;
        let without_mask: BTreeSet<&str> = found.unusable.iter().map(|(case, _)| case.as_str()).collect();
        let mut masks = BTreeMap::new();
        for &case in cases {
            let error = |problem: String| IngestError::Case { case: case.to_owned(), problem };
            let known = KnownCase::read(store.path(), store.info(), case)
                .ok_or_else(|| error("the store has lost its record; prepare it again".to_owned()))?;
            let recorded = known.provenance["masks"].as_array().map_or(0, Vec::len);
            if recorded == 0 || known.has_imports || !known.manifest["orientation"].is_null() {
                continue;
            }
            let files = found.cases.iter().find(|files| files.case == case);
            if files.is_none() && !without_mask.contains(case) {
                return Err(error(format!(
                    "'{}' holds no such case: expected the data that the store '{}' was prepared from, under the same names (a store \
                     that hides names can't be compared with its files)",
                    data.display(),
                    store.path().display()
                )));
            }
            let files = files.map_or(&[][..], |files| &files.masks);
            let mut is_same = files.len() == recorded;
            for (place, mask) in files.iter().enumerate() {
                is_same &= known.provenance["masks"][place]["sha256"] == sha256_of(mask)?;
            }
            if !is_same {
                return Err(error(format!(
                    "its masks in '{}' are others than the store was prepared from; prepare the store again, or name the data that it is from",
                    data.display()
                )));
            }
            masks.insert(case.to_owned(), (files.to_vec(), StoredCt::of(store.info(), case, &known)?));
        }
        Ok(Self { manifest, masks })
    }

    /// The truth of a case beside masks that were predicted for its slices, `[slices, size, size]`. `None` where the truth of some
    /// voxel isn't known: the case has no mask to compare with, or voxels are ignored.
    ///
    /// # Errors
    /// Its masks can't be read.
    ///
    /// # Panics
    /// If the predicted masks are not of as many slices as the case has.
    pub fn pair(&self, case: &str, predicted: &[u8]) -> Result<Option<NativePair>, IngestError> {
        let Some((files, ct)) = self.masks.get(case) else { return Ok(None) };
        let restored = ct.plan().restore_mask(predicted);
        let native = ct.at_own_size();
        let truth = native.cut_files(files, &self.manifest, None, false)?.masks;
        if truth.contains(&IGNORED) {
            return Ok(None);
        }
        let prediction = native.cut(&restored).masks;
        let plan = native.plan();
        let [rows, columns] = plan.native_size();
        let size = rows.max(columns);
        // Slices are square: what is beside the shorter side is padding.
        let unpadded = |slices: &[u8]| {
            let lines = slices.chunks_exact(size * size).flat_map(|slice| slice.chunks_exact(size).take(rows));
            lines.flat_map(|line| &line[..columns]).copied().collect::<Vec<u8>>()
        };
        let first = plan.positions()[0];
        Ok(Some(NativePair {
            prediction: unpadded(&prediction),
            truth: unpadded(&truth),
            shape: [plan.positions().len(), rows, columns],
            spacing_mm: [first.slice_spacing_mm, first.row_spacing_mm, first.column_spacing_mm].map(f64::from),
            spacing_valid: first.spacing_valid && self.manifest.spacing_trusted,
        }))
    }
}
