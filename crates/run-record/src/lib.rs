//! The run directory as types: what training and evaluation write, and reports and studies read.
//!
//! Invariant: whoever reads or writes a file of a run does it through these types, so that a key that changes here changes
//! everywhere, by the compiler.

mod budget;
pub mod checkpoint;
mod date;
mod evaluation;
mod files;
mod metrics;
mod metrics_log;
mod progress;
mod run;
mod settings;
mod tensorboard;
mod times;

pub use budget::{Annotation, LabelBudget, LabelSeconds, Labels, annotators_time};
pub use date::utc;
pub use evaluation::{
    BlindBoxResults, BoxResults, ClassifierResults, Counts, Evaluation, Failure, NativeResults, NativeVolume,
    OverlayRecord, PictureGroup, PretrainedResults, StepResults, VolumeResults,
};
pub use files::{RecordError, read_json, read_text, sha256, sha256_of_file, write_json, write_whole};
pub use metrics::{EpochRow, Metrics, RowKind, StepRow};
pub use metrics_log::MetricsLog;
pub use progress::{Best, PhaseResult, Progress};
pub use run::{EarlierRun, RunRecord, Status, StoreRecord};
pub use settings::{SettingsError, differing_settings, read_settings};
pub use tensorboard::Picture;
pub use times::{Part, Times};
