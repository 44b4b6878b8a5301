//! How well a predicted mask matches the truth: Dice, IoU, Hausdorff distances, ASSD and surface Dice of binary
//! images and volumes, and the ROC AUC of a classifier. Pure Rust, no tensors, one thread.
//!
//! Invariant: every function returns a number for every pair of masks, empty ones too; nothing becomes NaN and is
//! dropped later. Two empty masks agree (Dice 1, distance 0); where exactly one is empty, overlap is 0 and every distance
//! is the diagonal of the image or volume.
//!
//! Two masks meet at the same size or not at all: functions of two masks panic where the sizes differ, since that is a
//! mistake of the program and not of its input.
//!
//! ```
//! use seg_metrics::{MaskView, Spacing, dice, surface_distances};
//!
//! let prediction = MaskView::new(&[0, 1, 1, 0, 0, 0], 2, 3)?;
//! let truth = MaskView::new(&[0, 1, 0, 0, 0, 0], 2, 3)?;
//! let distances = surface_distances(prediction, truth, Spacing::PIXELS);
//! assert_eq!(dice(prediction, truth), 2.0 / 3.0);
//! assert_eq!(distances.hausdorff(), 1.0);
//! # Ok::<(), seg_metrics::MaskSizeError>(())
//! ```

mod boundary;
mod distance;
mod mask;
mod overlap;
mod ranking;
mod surface;
mod surfel;
mod volume;

pub use distance::distance_transform;
pub use mask::{MaskSizeError, MaskView, Spacing};
pub use overlap::{Overlap, dice, iou, volume_dice};
pub use ranking::auc;
pub use surface::{
    SurfaceDistances, SurfelDistances, surface_dice, surface_distances, volume_surface_distances,
    volume_surfel_distances,
};
pub use volume::{VolumeError, VolumeMetrics, VolumeView, volume_metrics};
