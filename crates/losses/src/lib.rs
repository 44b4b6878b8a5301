//! What training minimises. Each loss is a function of tensors; weights and sums are the trainer's.

mod focal;
mod map;
mod mask;

pub use focal::focal_loss;
pub use map::map_loss;
pub use mask::MASK_LOSSES;
