//! nnU-Net in 2-D (Isensee et al., 2021): its plan from a fingerprint, network, and prediction by tiles.

mod network;
mod plan;
mod settings;
mod window;

pub use network::NnUNet;
pub use plan::{Case, Fingerprint, Plan, PlanError};
pub use settings::NnUNetSettings;
pub use window::{importance, tile_starts};
