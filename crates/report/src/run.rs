//! What a run directory holds. Only `run.json` must be there.

use std::path::{Path, PathBuf};

use run_record::{Metrics, RunRecord};

use crate::error::{ReportError, read_json, read_text};
use crate::evaluation::Evaluation;

/// A run directory, read.
pub struct Run {
    /// As it was given on the command line.
    pub path: PathBuf,
    /// `run.json`.
    pub record: RunRecord,
    /// `config.toml`, as text.
    pub config: Option<String>,
    /// `metrics.csv`.
    pub metrics: Option<Metrics>,
    /// `evaluation/*.json`: the test split first, then by name.
    pub evaluations: Vec<Evaluation>,
}

impl Run {
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let record =
            read_json(&path.join("run.json"))?.ok_or_else(|| ReportError::NotARun { path: path.to_owned() })?;
        Ok(Self {
            path: path.to_owned(),
            record,
            config: read_text(&path.join("config.toml"))?,
            metrics: Metrics::read(&path.join("metrics.csv"))?,
            evaluations: Evaluation::read_all(&path.join("evaluation"))?,
        })
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The organ that the run looks for, as the store's manifest has it.
    pub fn target(&self) -> &str {
        &self.record.store.target
    }
}
