//! A borrowed binary volume with its voxels' size, and what challenges report of a prediction on a volume's own grid.

use crate::boundary::Field;
use crate::{MaskView, Overlap, volume_surface_distances, volume_surfel_distances};

/// A binary mask of `[slices, rows, columns]` voxels, the columns contiguous; every value but 0 is foreground.
#[derive(Clone, Copy, Debug)]
pub struct VolumeView<'a> {
    voxels: &'a [u8],
    size: [usize; 3],
    spacing_mm: [f64; 3],
}

/// Values and a grid that do not make a volume.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VolumeError {
    /// The values do not fill the grid.
    #[error("a volume of {} × {} × {} voxels was given {found} values, expected {0} · {1} · {2}", size[0], size[1], size[2])]
    Size {
        /// Slices, rows and columns asked for.
        size: [usize; 3],
        /// Values given.
        found: usize,
    },
    /// A distance that is none.
    #[error(
        "a volume was given a spacing of {spacing_mm:?} mm (slices, rows, columns), expected three finite numbers above 0"
    )]
    Spacing {
        /// Between slices, rows and columns.
        spacing_mm: [f64; 3],
    },
}

/// What is reported of a volume. Distances as MONAI defines them, surface Dice as surface-distance does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VolumeMetrics {
    /// 2·|P ∩ T| / (|P| + |T|), in [0, 1].
    pub dice: f64,
    /// Surface Dice at the tolerance asked for, in [0, 1]: [`crate::SurfelDistances::surface_dice`].
    pub nsd: f64,
    /// [`crate::SurfaceDistances::hausdorff`].
    pub hd_mm: f64,
    /// [`crate::SurfaceDistances::hausdorff_percentile`] of 95.
    pub hd95_mm: f64,
    /// [`crate::SurfaceDistances::assd`].
    pub assd_mm: f64,
}

/// Measures a prediction on the volume's own grid. Both masks empty: 1 and 0 mm; exactly one: 0 and the diagonal of the
/// volume in mm.
///
/// # Panics
/// Where the two volumes differ in size or spacing.
pub fn volume_metrics(prediction: VolumeView<'_>, truth: VolumeView<'_>, tolerance_mm: f64) -> VolumeMetrics {
    let nsd = volume_surfel_distances(prediction, truth).surface_dice(tolerance_mm);
    let distances = volume_surface_distances(prediction, truth);
    VolumeMetrics {
        dice: Overlap::of(prediction.side_by_side(), truth.side_by_side()).dice(),
        nsd,
        hd_mm: distances.hausdorff(),
        hd95_mm: distances.hausdorff_percentile(95.0),
        assd_mm: distances.assd(),
    }
}

impl<'a> VolumeView<'a> {
    /// Looks at `voxels` as a volume of `size` `[slices, rows, columns]`, whose neighbours along each axis are
    /// `spacing_mm` apart.
    pub fn new(voxels: &'a [u8], size: [usize; 3], spacing_mm: [f64; 3]) -> Result<Self, VolumeError> {
        let expected = size[0].checked_mul(size[1]).and_then(|area| area.checked_mul(size[2]));
        if expected != Some(voxels.len()) {
            return Err(VolumeError::Size { size, found: voxels.len() });
        }
        if !spacing_mm.iter().all(|spacing| spacing.is_finite() && *spacing > 0.0) {
            return Err(VolumeError::Spacing { spacing_mm });
        }
        Ok(Self { voxels, size, spacing_mm })
    }

    pub(crate) fn field(&self) -> Field<'a> {
        Field { cells: self.voxels, size: self.size, spacing: self.spacing_mm, flat: false }
    }

    /// Refuses to compare volumes on different grids: the one check of all functions of two volumes.
    pub(crate) fn assert_same_grid(&self, other: &VolumeView<'_>) {
        assert!(
            (self.size, self.spacing_mm) == (other.size, other.spacing_mm),
            "volumes of {:?} voxels of {:?} mm and {:?} of {:?} mm cannot be compared",
            self.size,
            self.spacing_mm,
            other.size,
            other.spacing_mm
        );
    }

    /// All slices as one image.
    fn side_by_side(&self) -> MaskView<'a> {
        let [slices, rows, columns] = self.size;
        MaskView::new(self.voxels, slices * rows, columns).expect("the size was checked")
    }
}
