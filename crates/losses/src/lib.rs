//! What training minimises, as functions of tensors, and the weighted sum of what a segmenter learns.

mod consistency;
mod deep_supervision;
mod focal;
mod map;
mod mask;
mod segmentation;

pub use consistency::consistency_loss;
pub use deep_supervision::deep_supervision_weights;
pub use focal::focal_loss;
pub use map::map_loss;
pub use mask::{BATCH_LOSSES, MASK_LOSSES};
pub use segmentation::{SegmentationLoss, SegmentationLosses, SegmentationPart};
