//! `metrics.csv`: a row per training step and per epoch.

use std::path::Path;

use crate::error::{ReportError, read_text};

/// The rows of `metrics.csv`, in file order.
pub struct Metrics {
    /// Names of the number columns.
    columns: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    kind: Kind,
    phase: String,
    /// One per column; empty cells are `None`.
    numbers: Vec<Option<f64>>,
}

/// What a row tells about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Step,
    Epoch,
}

impl Metrics {
    /// Reads the file; `None` where it does not exist. A row ends with its newline: what follows the last one is still
    /// being written by the run.
    pub fn read(path: &Path) -> Result<Option<Self>, ReportError> {
        let Some(text) = read_text(path)? else { return Ok(None) };
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let malformed = |line: usize| {
            move |message: String| ReportError::Malformed { path: path.to_owned(), line: line + 1, message }
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
    pub fn series(&self, kind: Kind, column: &str) -> Vec<(f64, f64)> {
        let Some(column) = self.column(column) else { return Vec::new() };
        let finite = |row: &Row| row.numbers[column].filter(|value| value.is_finite());
        self.positions(kind).filter_map(|(x, row)| Some((x, finite(row)?))).collect()
    }

    /// Values of `column` that are there but NaN or infinite.
    pub fn not_finite(&self, kind: Kind, column: &str) -> usize {
        let Some(column) = self.column(column) else { return 0 };
        let rows = self.rows.iter().filter(|row| row.kind == kind);
        rows.filter(|row| row.numbers[column].is_some_and(|value| !value.is_finite())).count()
    }

    /// Where each phase begins, in order of appearance.
    pub fn phases(&self, kind: Kind) -> Vec<(f64, String)> {
        let mut phases: Vec<(f64, String)> = Vec::new();
        for (x, row) in self.positions(kind) {
            if !row.phase.is_empty() && phases.iter().all(|(_, phase)| *phase != row.phase) {
                phases.push((x, row.phase.clone()));
            }
        }
        phases
    }

    /// Phase and values of `columns` of each row of `kind` in which one of them but the first has a value.
    pub fn table(&self, kind: Kind, columns: &[&str]) -> Vec<(&str, Vec<Option<f64>>)> {
        let columns: Vec<_> = columns.iter().map(|column| self.column(column)).collect();
        let values = |row: &Row| columns.iter().map(|column| row.numbers[(*column)?]).collect::<Vec<_>>();
        let rows = self.rows.iter().filter(|row| row.kind == kind).map(|row| (row.phase.as_str(), values(row)));
        rows.filter(|(_, values)| values.iter().skip(1).any(Option::is_some)).collect()
    }

    /// First and last step or epoch; (0, 0) without any row of `kind`.
    pub fn range(&self, kind: Kind) -> (f64, f64) {
        let position = |x: Option<(f64, &Row)>| x.map_or(0.0, |(x, _)| x);
        (position(self.positions(kind).next()), position(self.positions(kind).last()))
    }

    /// Rows of `kind` with their step or epoch. Where a counter starts anew (a second phase), rows are counted instead.
    fn positions(&self, kind: Kind) -> impl Iterator<Item = (f64, &Row)> {
        let column = self.column(match kind {
            Kind::Step => "step",
            Kind::Epoch => "epoch",
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
        "step" => Kind::Step,
        "epoch" => Kind::Epoch,
        other => return Err(format!("kind is '{other}', expected 'step' or 'epoch'")),
    };
    let numbers = header.iter().zip(&cells).filter(|(column, _)| is_number(column)).map(|(column, cell)| {
        let parse =
            |cell: &str| cell.parse().map_err(|_| format!("{column} is '{cell}', expected a number or nothing"));
        (!cell.is_empty()).then(|| parse(cell)).transpose()
    });
    Ok(Row { kind, phase: cell("phase").to_owned(), numbers: numbers.collect::<Result<_, _>>()? })
}
