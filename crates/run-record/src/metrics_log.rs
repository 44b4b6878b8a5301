//! `metrics.csv`: a row for each step and for each epoch; and the same for TensorBoard, in `tensorboard/`. On resume both
//! are cut back to the checkpoint's step.

use crate::tensorboard::{EventFile, Picture};
use crate::{EpochRow, Metrics, RecordError, StepRow, read_text, write_whole};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The open log, or one that keeps nothing.
pub struct MetricsLog(Option<Files>);

struct Files {
    file: File,
    path: PathBuf,
    events: EventFile,
}

impl MetricsLog {
    /// Opens the log and drops what was logged after `steps`.
    pub fn open(path: &Path, steps: usize) -> Result<Self, RecordError> {
        // One that is there but can't be read is not replaced by an empty one.
        let known = if path.exists() { read_text(path)? } else { String::new() };
        let text = Metrics::cut_back(&known, steps);
        write_whole(path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(RecordError::write(path))?;
        let events = EventFile::create(&path.with_file_name("tensorboard"), steps)?;
        Ok(Self(Some(Files { file, path: path.to_owned(), events })))
    }

    /// Keeps nothing: of processes that train one run together, one writes.
    pub fn nowhere() -> Self {
        Self(None)
    }

    /// A step's row.
    pub fn step(&mut self, row: &StepRow) -> Result<(), RecordError> {
        let [cls, seg, score] = row.losses;
        self.scalars(
            row.step,
            &[
                ("loss/classifier", cls),
                ("loss/segmentation", seg),
                ("loss/score", score),
                ("step/learning_rate_decoder", Some(row.lr)),
                ("step/gradient_norm", row.gradient_norm),
            ],
        )?;
        self.write(&row.line())
    }

    /// An epoch's row.
    pub fn epoch(&mut self, row: &EpochRow) -> Result<(), RecordError> {
        let values = [("validation/dice", row.dice), ("validation/box_iou", row.box_iou), ("validation/auc", row.auc)];
        self.scalars(row.step, &values)?;
        self.write(&row.line())
    }

    /// A picture of an epoch's end, for TensorBoard only.
    pub fn picture(&mut self, step: usize, tag: &str, picture: &Picture) -> Result<(), RecordError> {
        self.0.as_mut().map_or(Ok(()), |files| files.events.image(step, tag, picture))
    }

    /// The values that are there.
    fn scalars(&mut self, step: usize, values: &[(&str, Option<f64>)]) -> Result<(), RecordError> {
        let there: Vec<(&str, f64)> = values.iter().filter_map(|(tag, value)| Some((*tag, (*value)?))).collect();
        match &mut self.0 {
            Some(files) if !there.is_empty() => files.events.scalars(step, &there),
            _ => Ok(()),
        }
    }

    fn write(&mut self, line: &str) -> Result<(), RecordError> {
        // One write for each line, so that a killed run leaves whole lines.
        let Some(Files { file, path, .. }) = &mut self.0 else { return Ok(()) };
        file.write_all(format!("{line}\n").as_bytes()).map_err(RecordError::write(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reopening_cuts_the_log_back_to_the_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.csv");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        for step in 1..=4 {
            log.step(&StepRow {
                phase: "a",
                epoch: 0,
                step,
                seconds: 1.0,
                losses: [Some(0.5), None, None],
                lr: 1e-4,
                gradient_norm: Some(2.0),
                skipped: false,
            })
            .unwrap();
        }
        let row = EpochRow { phase: "a", epoch: 0, step: 4, seconds: 1.0, dice: Some(0.9), box_iou: None, auc: None };
        log.epoch(&row).unwrap();
        drop(MetricsLog::open(&path, 3).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("step,a,1,3,1.00,0.50000,,,1.000e-4,,,,2.00000,0\n"));
    }

    #[test]
    fn a_log_that_cannot_be_read_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.csv");
        std::fs::write(&path, b"kind,phase\nstep,\xff\n").unwrap();
        let error = MetricsLog::open(&path, 0).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("cannot read '") && error.contains("metrics.csv"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"kind,phase\nstep,\xff\n");
    }
}
