//! What a run directory holds. Only `run.json` must be there.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{ReportError, read_json, read_text};
use crate::evaluation::Evaluation;
use run_record::Metrics;

/// A run directory, read.
pub struct Run {
    /// As it was given on the command line.
    pub path: PathBuf,
    /// `run.json`.
    pub details: Map<String, Value>,
    /// `config.toml`, as text.
    pub config: Option<String>,
    /// `metrics.csv`.
    pub metrics: Option<Metrics>,
    /// `evaluation/*.json`: the test split first, then by name.
    pub evaluations: Vec<Evaluation>,
}

impl Run {
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let details =
            read_json(&path.join("run.json"))?.ok_or_else(|| ReportError::NotARun { path: path.to_owned() })?;
        Ok(Self {
            path: path.to_owned(),
            details,
            config: read_text(&path.join("config.toml"))?,
            metrics: Metrics::read(&path.join("metrics.csv"))?,
            evaluations: Evaluation::read_all(&path.join("evaluation"))?,
        })
    }

    /// The run's own name, else that of its directory.
    pub fn name(&self) -> String {
        let own = self.details.get("name").and_then(Value::as_str).map(str::to_owned);
        let absolute = || self.path.canonicalize().ok();
        own.or_else(|| Some(absolute()?.file_name()?.to_string_lossy().into_owned())).unwrap_or_else(|| "run".into())
    }

    /// The organ that the run looks for, as the store's manifest has it.
    pub fn target(&self) -> &str {
        self.details.get("store").and_then(|store| store.get("target")?.as_str()).unwrap_or("liver")
    }
}
