//! `metrics.csv`: a row for each step and for each epoch; and the same for TensorBoard, in `tensorboard/`. On resume both
//! are cut back to the checkpoint's step.

use crate::files::write_whole;
use crate::tensorboard::{EventFile, Picture};
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const HEADER: &str =
    "kind,phase,epoch,step,time_s,loss_cls,loss_seg,loss_score,lr,val_dice,val_box_iou,val_auc,grad_norm,skipped";

/// The open log.
pub struct MetricsLog {
    file: File,
    path: PathBuf,
    events: EventFile,
}

/// A step's row.
pub struct Row<'a> {
    /// The phase's name.
    pub phase: &'a str,
    /// Epoch within the phase, from 0.
    pub epoch: usize,
    /// Steps done.
    pub step: usize,
    /// Seconds of training.
    pub seconds: f64,
    /// Classifier, segmentation and score loss.
    pub losses: [Option<f64>; 3],
    /// Learning rate of the decoder.
    pub lr: f64,
    /// Norm of the gradient before clipping, of a step that ends an update.
    pub gradient_norm: Option<f64>,
    /// Whether its update is left out.
    pub skipped: bool,
}

impl MetricsLog {
    /// Opens the log and drops what was logged after `steps`.
    pub fn open(path: &Path, steps: usize) -> Result<Self> {
        let known = std::fs::read_to_string(path).unwrap_or_default();
        let kept = known.lines().skip(1).filter(|line| {
            line.split(',').nth(3).and_then(|s| s.parse::<usize>().ok()).is_some_and(|step| step <= steps)
        });
        let mut text = format!("{HEADER}\n");
        for line in kept {
            // An older program's rows had fewer columns.
            let missing = HEADER.matches(',').count().saturating_sub(line.matches(',').count());
            text.extend([line, &",".repeat(missing), "\n"]);
        }
        write_whole(path, text.as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| format!("cannot append to '{}'", path.display()))?;
        let events = EventFile::create(&path.with_file_name("tensorboard"), steps)?;
        Ok(Self { file, path: path.to_owned(), events })
    }

    /// A step's row.
    pub fn step(&mut self, row: &Row) -> Result<()> {
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
        let [cls, seg, score] = row.losses.map(number);
        self.write(&format!(
            "step,{},{},{},{:.2},{cls},{seg},{score},{:.3e},,,,{},{}",
            row.phase.replace(',', " "),
            row.epoch + 1,
            row.step,
            row.seconds,
            row.lr,
            number(row.gradient_norm),
            u8::from(row.skipped),
        ))
    }

    /// An epoch's row.
    #[expect(clippy::too_many_arguments, reason = "a row of a table")]
    pub fn epoch(
        &mut self,
        phase: &str,
        epoch: usize,
        step: usize,
        seconds: f64,
        dice: Option<f64>,
        box_iou: Option<f64>,
        auc: Option<f64>,
    ) -> Result<()> {
        self.scalars(step, &[("validation/dice", dice), ("validation/box_iou", box_iou), ("validation/auc", auc)])?;
        let [dice, box_iou, auc] = [dice, box_iou, auc].map(number);
        self.write(&format!(
            "epoch,{},{},{step},{seconds:.2},,,,,{dice},{box_iou},{auc},,",
            phase.replace(',', " "),
            epoch + 1
        ))
    }

    /// A picture of an epoch's end, for TensorBoard only.
    pub fn picture(&mut self, step: usize, tag: &str, picture: &Picture) -> Result<()> {
        self.events.image(step, tag, picture)
    }

    /// The values that are there.
    fn scalars(&mut self, step: usize, values: &[(&str, Option<f64>)]) -> Result<()> {
        let there: Vec<(&str, f64)> = values.iter().filter_map(|(tag, value)| Some((*tag, (*value)?))).collect();
        if there.is_empty() { Ok(()) } else { self.events.scalars(step, &there) }
    }

    fn write(&mut self, line: &str) -> Result<()> {
        // One write for each line, so that a killed run leaves whole lines.
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("cannot append to '{}'", self.path.display()))
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |v| format!("{v:.5}"))
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
            log.step(&Row {
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
        log.epoch("a", 0, 4, 1.0, Some(0.9), None, None).unwrap();
        drop(MetricsLog::open(&path, 3).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.starts_with(HEADER) && text.contains("step,a,1,3,1.00,0.50000,,,1.000e-4,,,,2.00000,0\n"));
    }
}
