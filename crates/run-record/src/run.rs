//! The run directory's `run.json`: what is needed to repeat a run.

use crate::{LabelBudget, PhaseResult, Progress, RecordError, Times, read_json, write_json};
use serde::{Deserialize, Serialize};
use slice_store::{SliceId, Slices, StoreSettings};
use std::path::Path;

/// The program that has the stages of this workspace, and no others.
const SAM_MIX: &str = "sam-mix";

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// In training, or killed.
    Running,
    /// Stopped by the user; `--resume` goes on.
    Interrupted,
    /// All steps were done.
    Finished,
}

impl Status {
    /// As in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Finished => "finished",
        }
    }
}

/// `run.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// The directory's name.
    pub name: String,
    /// How far it is.
    pub status: Status,
    /// File name of the program that trained it: another than `sam-mix` knows stages of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// This program's version.
    pub version: String,
    /// Commit of the source, if it was built in a git checkout; `+` marks local changes.
    pub commit: Option<String>,
    /// The one seed.
    pub seed: u64,
    /// `cpu` or `cuda:N`, the first rank's where several trained it: `cpu of 2 ranks`.
    pub device: String,
    /// Intra-op threads of libtorch.
    pub threads: i32,
    /// Whether the GPU's algorithms are those that give the same bits each time.
    #[serde(default)]
    pub deterministic: bool,
    /// The processor's name.
    pub processor: Option<String>,
    /// Start, seconds since 1970 (UTC).
    pub started_unix: u64,
    /// Steps of the whole plan; absent in records of older programs.
    #[serde(default)]
    pub steps: Option<usize>,
    /// Seconds of training, over all resumptions.
    pub seconds: f64,
    /// Training slices in a second, validation and waiting included.
    #[serde(default)]
    pub slices_per_second: f64,
    /// The share of the time in which training waited for the loader, 0 to 1.
    #[serde(default)]
    pub wait_share: f64,
    /// Seconds of the loop's parts.
    #[serde(default)]
    pub times: Times,
    /// SHA-256 of the pretrained file.
    pub weights_sha256: Option<String>,
    /// The data that it was trained on.
    pub store: StoreRecord,
    /// Every annotation that training read.
    pub label_budget: LabelBudget,
    /// The run that this one began with; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<EarlierRun>,
    /// Best validation Dice with CAM boxes.
    pub best_validation_dice: Option<f64>,
    /// Updates that were left out because a loss or a gradient was not finite.
    #[serde(default)]
    pub skipped_updates: usize,
    /// What each phase gave.
    pub phases: Vec<PhaseResult>,
    /// The labelled slices by name.
    pub labelled: Vec<SliceId>,
}

/// What a run has of the one whose labelled slices are the first of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EarlierRun {
    /// The directory's name.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// What it read, which is in this run's budget.
    pub label_budget: LabelBudget,
}

/// The store of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreRecord {
    /// The manifest's name.
    pub dataset: String,
    /// The organ.
    pub target: String,
    /// The store's checksum.
    pub checksum: String,
    /// How slices were made; `predict` makes them in the same way.
    pub settings: StoreSettings,
}

impl RunRecord {
    /// A new run's.
    pub fn new(
        run: &Path,
        seed: u64,
        store: &Slices,
        label_budget: LabelBudget,
        labelled: &[SliceId],
        device: &str,
        threads: i32,
    ) -> Self {
        Self {
            name: run.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            status: Status::Running,
            program: program(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit(),
            seed,
            device: device.into(),
            threads,
            deterministic: false,
            processor: processor(),
            started_unix: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            steps: None,
            seconds: 0.0,
            slices_per_second: 0.0,
            wait_share: 0.0,
            times: Times::default(),
            weights_sha256: None,
            store: StoreRecord {
                dataset: store.info().dataset.clone(),
                target: store.info().target.clone(),
                checksum: store.checksum().into(),
                settings: store.info().settings.clone(),
            },
            label_budget,
            earlier: None,
            best_validation_dice: None,
            skipped_updates: 0,
            phases: Vec::new(),
            labelled: labelled.to_vec(),
        }
    }

    /// Reads a run's.
    pub fn load(run: &Path) -> Result<Self, RecordError> {
        read_json(&run.join("run.json"))
    }

    /// Writes it.
    pub fn save(&self, run: &Path) -> Result<(), RecordError> {
        write_json(&run.join("run.json"), self)
    }

    /// The program that trained it, if it is another than `sam-mix`: the one that knows its stages.
    pub fn other_program(&self) -> Option<&str> {
        self.program.as_deref().filter(|&name| name != SAM_MIX)
    }

    /// Takes over what training found.
    pub fn finish(&mut self, progress: &Progress) {
        self.seconds = progress.seconds;
        self.slices_per_second = progress.slices_per_second();
        self.wait_share = progress.wait_share();
        self.times.clone_from(&progress.times);
        self.best_validation_dice = progress.best.as_ref().map(|b| b.dice);
        self.skipped_updates = progress.skipped_updates;
        self.phases.clone_from(&progress.phases);
    }
}

fn program() -> Option<String> {
    Some(std::env::current_exe().ok()?.file_name()?.to_string_lossy().into_owned())
}

/// The commit of the source tree that this program was built from, as it is now.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output =
            std::process::Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { head } else { format!("{head}+") })
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}
