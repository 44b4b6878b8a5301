//! `metrics.csv`: a row per training step and per epoch.

use crate::RecordError;
use std::io::ErrorKind;
use std::path::Path;

const COLUMNS: [&str; 14] = [
    "kind",
    "phase",
    "epoch",
    "step",
    "time_s",
    "loss_cls",
    "loss_seg",
    "loss_score",
    "lr",
    "val_dice",
    "val_box_iou",
    "val_auc",
    "grad_norm",
    "skipped",
];

/// A step's row.
pub struct StepRow<'a> {
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

/// An epoch's row.
pub struct EpochRow<'a> {
    /// The phase's name.
    pub phase: &'a str,
    /// Epoch within the phase, from 0.
    pub epoch: usize,
    /// Steps done.
    pub step: usize,
    /// Seconds of training.
    pub seconds: f64,
    /// Validation Dice with CAM boxes, where the segmenter was trained.
    pub dice: Option<f64>,
    /// Mean IoU of the CAM's boxes with the true ones.
    pub box_iou: Option<f64>,
    /// Area under the classifier's ROC curve.
    pub auc: Option<f64>,
}

impl StepRow<'_> {
    /// Without the line's end.
    pub fn line(&self) -> String {
        let [cls, seg, score] = self.losses.map(number);
        format!(
            "step,{},{},{},{:.2},{cls},{seg},{score},{:.3e},,,,{},{}",
            self.phase.replace(',', " "),
            self.epoch + 1,
            self.step,
            self.seconds,
            self.lr,
            number(self.gradient_norm),
            u8::from(self.skipped),
        )
    }
}

impl EpochRow<'_> {
    /// Without the line's end.
    pub fn line(&self) -> String {
        let [dice, box_iou, auc] = [self.dice, self.box_iou, self.auc].map(number);
        format!(
            "epoch,{},{},{},{:.2},,,,,{dice},{box_iou},{auc},,",
            self.phase.replace(',', " "),
            self.epoch + 1,
            self.step,
            self.seconds,
        )
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |v| format!("{v:.5}"))
}

/// The rows of `metrics.csv`, in file order.
pub struct Metrics {
    /// Names of the number columns.
    columns: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    kind: RowKind,
    phase: String,
    /// One per column; empty cells are `None`.
    numbers: Vec<Option<f64>>,
}

/// What a row tells about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowKind {
    /// A training step.
    Step,
    /// An epoch, with what validation found at its end.
    Epoch,
}

impl Metrics {
    /// The file's text, of which the rows up to a step are kept; `text` is what was there, or nothing.
    pub fn cut_back(text: &str, steps: usize) -> String {
        let step = COLUMNS.iter().position(|column| *column == "step").unwrap_or_default();
        let mut kept = COLUMNS.join(",") + "\n";
        for line in text.lines().skip(1) {
            if line.split(',').nth(step).and_then(|s| s.parse::<usize>().ok()).is_some_and(|found| found <= steps) {
                // An older program's rows had fewer columns.
                let missing = COLUMNS.len().saturating_sub(line.matches(',').count() + 1);
                kept.extend([line, &",".repeat(missing), "\n"]);
            }
        }
        kept
    }

    /// Reads the file; `None` where it does not exist. A row ends with its newline: what follows the last one is still
    /// being written by the run.
    pub fn read(path: &Path) -> Result<Option<Self>, RecordError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(reason) => return Err(RecordError::Read { path: path.to_owned(), reason }),
        };
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let malformed = |line: usize| {
            move |problem: String| RecordError::Malformed { path: path.to_owned(), line: line + 1, problem }
        };
        let mut lines = whole.lines().enumerate();
        let header: Vec<&str> = lines.next().map_or_else(Vec::new, |(_, header)| header.split(',').collect());
        for needed in ["kind", "phase", "epoch", "step"] {
            if !header.contains(&needed) {
                return Err(malformed(0)(format!("the header has no column '{needed}'")));
            }
        }
        let rows = lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| parse_row(&header, line).map_err(malformed(number)))
            .collect::<Result<_, _>>()?;
        let columns = header.into_iter().filter(|name| is_number(name)).map(str::to_owned).collect();
        Ok(Some(Self { columns, rows }))
    }

    /// The finite values of `column` over the rows of `kind`, by step or epoch.
    pub fn series(&self, kind: RowKind, column: &str) -> Vec<(f64, f64)> {
        let Some(column) = self.column(column) else { return Vec::new() };
        let finite = |row: &Row| row.numbers[column].filter(|value| value.is_finite());
        self.positions(kind).filter_map(|(x, row)| Some((x, finite(row)?))).collect()
    }

    /// Values of `column` that are there but NaN or infinite.
    pub fn not_finite(&self, kind: RowKind, column: &str) -> usize {
        let Some(column) = self.column(column) else { return 0 };
        let rows = self.rows.iter().filter(|row| row.kind == kind);
        rows.filter(|row| row.numbers[column].is_some_and(|value| !value.is_finite())).count()
    }

    /// Where each phase begins, in order of appearance.
    pub fn phases(&self, kind: RowKind) -> Vec<(f64, String)> {
        let mut phases: Vec<(f64, String)> = Vec::new();
        for (x, row) in self.positions(kind) {
            if !row.phase.is_empty() && phases.iter().all(|(_, phase)| *phase != row.phase) {
                phases.push((x, row.phase.clone()));
            }
        }
        phases
    }

    /// Phase and values of `columns` of each row of `kind` in which one of them but the first has a value.
    pub fn table(&self, kind: RowKind, columns: &[&str]) -> Vec<(&str, Vec<Option<f64>>)> {
        let columns: Vec<_> = columns.iter().map(|column| self.column(column)).collect();
        let values = |row: &Row| columns.iter().map(|column| row.numbers[(*column)?]).collect::<Vec<_>>();
        let rows = self.rows.iter().filter(|row| row.kind == kind).map(|row| (row.phase.as_str(), values(row)));
        rows.filter(|(_, values)| values.iter().skip(1).any(Option::is_some)).collect()
    }

    /// First and last step or epoch; (0, 0) without any row of `kind`.
    pub fn range(&self, kind: RowKind) -> (f64, f64) {
        let position = |x: Option<(f64, &Row)>| x.map_or(0.0, |(x, _)| x);
        (position(self.positions(kind).next()), position(self.positions(kind).last()))
    }

    /// Rows of `kind` with their step or epoch. Where a counter starts anew (a second phase), rows are counted instead.
    fn positions(&self, kind: RowKind) -> impl Iterator<Item = (f64, &Row)> {
        let column = self.column(match kind {
            RowKind::Step => "step",
            RowKind::Epoch => "epoch",
        });
        let rows = move || self.rows.iter().filter(move |row| row.kind == kind);
        let counters: Option<Vec<f64>> = rows().map(|row| row.numbers[column?]).collect();
        let rising = counters.filter(|counters| counters.is_sorted_by(|a, b| a < b));
        rows().enumerate().map(move |(i, row)| (rising.as_ref().map_or((i + 1) as f64, |counters| counters[i]), row))
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }
}

fn is_number(column: &str) -> bool {
    !matches!(column, "kind" | "phase")
}

fn parse_row(header: &[&str], line: &str) -> Result<Row, String> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    if cells.len() != header.len() {
        return Err(format!("{} cells, expected {} as in the header", cells.len(), header.len()));
    }
    let cell = |name| header.iter().position(|column| *column == name).map_or("", |i| cells[i]);
    let kind = match cell("kind") {
        "step" => RowKind::Step,
        "epoch" => RowKind::Epoch,
        other => return Err(format!("kind is '{other}', expected 'step' or 'epoch'")),
    };
    let numbers = header.iter().zip(&cells).filter(|(column, _)| is_number(column)).map(|(column, cell)| {
        let parse =
            |cell: &str| cell.parse().map_err(|_| format!("{column} is '{cell}', expected a number or nothing"));
        (!cell.is_empty()).then(|| parse(cell)).transpose()
    });
    Ok(Row { kind, phase: cell("phase").to_owned(), numbers: numbers.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize) -> StepRow<'static> {
        StepRow {
            phase: "a, b",
            epoch: 0,
            step,
            seconds: 1.0,
            losses: [Some(0.5), None, None],
            lr: 1e-4,
            gradient_norm: Some(2.0),
            skipped: false,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let epoch = EpochRow { phase: "a", epoch: 0, step: 2, seconds: 2.0, dice: Some(0.9), box_iou: None, auc: None };
        let text = Metrics::cut_back("", 0) + &format!("{}\n{}\n{}\n", step(1).line(), step(2).line(), epoch.line());
        std::fs::write(&path, &text).unwrap();
        let read = Metrics::read(&path).unwrap().unwrap();
        assert_eq!(read.series(RowKind::Step, "loss_cls"), [(1.0, 0.5), (2.0, 0.5)]);
        assert_eq!(read.series(RowKind::Epoch, "val_dice"), [(1.0, 0.9)]);
        assert_eq!(read.phases(RowKind::Step)[0].1, "a  b");
        assert_eq!(Metrics::cut_back(&text, 1).lines().count(), 2);
    }
}
