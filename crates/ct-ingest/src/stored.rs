//! A case's CT as its store remembers it: what segmentations that were drawn on the CT later are placed by. The CT itself isn't needed.

use crate::part::{nearest_on_grid, on_whole_grid};
use crate::slices::painted_slices;
use crate::volume::read_volume_of;
use crate::{AffineKind, Geometry, Grid, IngestError, Manifest, SegmentLabels, SlicePlan, check_same_geometry};
use serde::Deserialize;
use slice_store::{KnownCase, StoreInfo};
use std::path::{Path, PathBuf};

/// A CT that is not there: its grid, and the way to the slices of its case.
pub struct StoredCt {
    /// What stands for its path in messages.
    name: PathBuf,
    shape: [usize; 3],
    geometry: Geometry,
    plan: SlicePlan,
    series_sha256: Option<String>,
}

/// What of a case's provenance says where its CT lies.
#[derive(Deserialize)]
struct Place {
    shape: [usize; 3],
    affine: [[f64; 4]; 3],
    affine_from: String,
    #[serde(default)]
    series_sha256: Option<String>,
}

/// The slices of a case that a mask gives, in the store's order.
pub struct CutMask {
    /// 0 or 1, `[slices, size, size]`.
    pub masks: Vec<u8>,
    /// By slice: whether anything at all is painted in it, the target or another label.
    pub painted: Vec<bool>,
}

impl StoredCt {
    /// The CT of a case of a store.
    ///
    /// # Errors
    /// The manifest states its orientation, so that its files' headers are wrong; or the store doesn't say where it lies.
    pub fn of(info: &StoreInfo, case: &str, known: &KnownCase) -> Result<Self, IngestError> {
        let error = |problem: &str| IngestError::Case { case: case.to_owned(), problem: problem.to_owned() };
        if !known.manifest["orientation"].is_null() {
            return Err(error(
                "the manifest states its orientation, as its file has it wrong, so that what is drawn on that file lies elsewhere; put the \
                 mask beside the CT in the data set and prepare it",
            ));
        }
        let place = Place::deserialize(&known.provenance).ok();
        let geometry = place.as_ref().and_then(|place| {
            let [a, b, c] = place.affine;
            let kind = AffineKind::ALL.into_iter().find(|kind| kind.name() == place.affine_from)?;
            Geometry::of_affine([a, b, c, [0.0, 0.0, 0.0, 1.0]], kind).ok()
        });
        let (Some(place), Some(geometry)) = (place, geometry) else {
            return Err(error("its store doesn't say where its CT lies; prepare it again, with --redo"));
        };
        let name = PathBuf::from(format!("the CT of case '{case}'"));
        let plan = SlicePlan::for_grid(&name, &geometry, place.shape, &info.settings)?;
        Ok(Self { name, shape: place.shape, geometry, plan, series_sha256: place.series_sha256 })
    }

    /// Where its voxels are.
    pub fn grid(&self) -> Grid<'_> {
        Grid { path: &self.name, shape: self.shape, geometry: &self.geometry }
    }

    /// SHA-256 (hexadecimal) of its DICOM series' UID; `None` where it is no DICOM series, or identifiers are hidden.
    pub fn series_sha256(&self) -> Option<&str> {
        self.series_sha256.as_deref()
    }

    /// The way between its voxels and the case's slices.
    pub fn plan(&self) -> &SlicePlan {
        &self.plan
    }

    /// Where the middle of a slice of the store lies, in mm to the right, anterior and superior.
    pub fn centre_mm(&self, slice: usize) -> [f64; 3] {
        self.plan.centre(&self.geometry, slice)
    }

    /// The same CT, whose slices are as large as its own, with nothing resized.
    #[must_use]
    pub fn at_own_size(&self) -> Self {
        let [rows, columns] = self.plan.native_size();
        Self {
            name: self.name.clone(),
            shape: self.shape,
            geometry: self.geometry.clone(),
            plan: SlicePlan::new(&self.geometry, self.shape, rows.max(columns)),
            series_sha256: self.series_sha256.clone(),
        }
    }

    /// Cuts a mask: anything but 0 is the target, in the voxel order of the CT's file.
    ///
    /// Panics if the mask has another number of voxels.
    pub fn cut(&self, mask: &[u8]) -> CutMask {
        let (masks, painted) = self.plan.cut_mask(mask);
        CutMask { masks, painted }
    }

    /// Cuts a mask of one or several volumes: NIfTI, NRRD, MetaImage, or a 3D Slicer segmentation, whose segments count by their names: the
    /// manifest's, or `segment` alone. Each one's grid is the CT's, or a part of it; another one if it is to be `resampled`, each voxel of the CT
    /// getting the nearest one's label.
    ///
    /// # Errors
    /// One can't be read, lies elsewhere, or has a value that is not one of the manifest's labels.
    pub fn cut_files(
        &self,
        paths: &[impl AsRef<Path>],
        manifest: &Manifest,
        segment: Option<&str>,
        resampled: bool,
    ) -> Result<CutMask, IngestError> {
        let mut options = manifest.mask_options();
        if let (Some(name), Some(value)) = (segment, manifest.target_values().first()) {
            let (values, needed) = (vec![(name.to_owned(), *value)], vec![name.to_owned()]);
            options.segments = Some(SegmentLabels { values, needed });
        }
        let read = |path: &Path| {
            let mask = read_volume_of(path, &options, None)?;
            let mask = on_whole_grid(mask, self.grid(), manifest.geometry_tolerance)?;
            match check_same_geometry(self.grid(), mask.grid(), manifest.geometry_tolerance) {
                Ok(_) => Ok(mask),
                Err(error) if !resampled => Err(error),
                Err(error) => nearest_on_grid(mask, self.grid())?.ok_or(error),
            }
        };
        let masks = paths.iter().map(|path| read(path.as_ref())).collect::<Result<Vec<_>, IngestError>>()?;
        let (masks, painted) = painted_slices(&masks, &self.plan, &manifest.mask_labels())?;
        Ok(CutMask { masks, painted: painted.into_iter().map(|painted| painted.any).collect() })
    }
}
