//! The prediction path: a run's checkpoint, or pretrained weights, and CT slices in, masks out.
//!
//! Invariants: no ground truth, nothing here has a mask or a label to pass; and no training, so that servers and studies need
//! none of it.

pub mod checkpoint;
mod config;
pub mod device;
pub mod embedding_file;
mod encoded;
pub mod export;
mod host;
mod intensity;
mod known;
pub mod memory;
mod model;
mod no_classifier;
mod not_a_number;
pub mod predict;
mod predictor;
mod progress;
mod registry;
mod rules;
mod run_weights;
mod sights;
mod statistics;
mod volume;
mod weights;

pub use config::{
    ClassifierChoice, IntensityConfig, ModelConfig, Normalization, PredictionConfig, SegmenterConfig, VolumeConfig,
};
pub use encoded::EncodedSlice;
pub use host::HostBatch;
pub use intensity::Intensity;
pub use known::KnownEmbeddings;
pub use model::Model;
pub use not_a_number::NotANumber;
pub use predictor::{Classification, Predictor, Scored, ScoredMask, SlicePrediction, mask_for_box, mask_tensor};
pub use progress::{Ticker, show_no_progress};
pub use registry::{ClassifierFactory, ModelRegistry, SegmenterFactory, known, sam_settings};
pub use run_weights::weights_of_run;
pub use sights::{OfRun, StoreSights};
pub use statistics::{Look, SliceStatistics};
pub use volume::{StepMasks, VolumePrediction, VolumeSlices};
pub use weights::weights_path;
