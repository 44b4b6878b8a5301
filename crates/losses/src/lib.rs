//! What training minimises. Each loss is a function of tensors; weights and sums are the trainer's.

mod consistency;
mod deep_supervision;
mod focal;
mod map;
mod mask;

pub use consistency::consistency_loss;
pub use deep_supervision::deep_supervision_weights;
pub use focal::focal_loss;
pub use map::map_loss;
pub use mask::{BATCH_LOSSES, MASK_LOSSES};
