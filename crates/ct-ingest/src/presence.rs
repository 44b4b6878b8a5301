//! Lists of image-level labels: "liver from slice 61 to 118", a row a range, without any mask.
//!
//! A CSV file with the columns `case`, `presence` (`present`, `absent`, `unknown`) and `first`, `last` (slice numbers of the
//! volume's file in its own order, counted from 0) or `first_mm`, `last_mm` (positions of slice centres along the slices' normal, superior
//! positive), both ends included. Without `last` a row is about one slice, without `first` about all slices of its case.
//!
//! A later row that lies within an earlier one refines it; two rows with different answers that overlap in part contradict each
//! other. `present` of a whole volume means that some slice of it shows the target: a label of the volume, and of no slice.

use crate::{IngestError, SlicePosition};
use serde::{Deserialize, Serialize};
use slice_store::Presence;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Positions are written with so many millimetres of rounding.
const ROUNDING_MM: f64 = 0.01;

/// A list, by case.
#[derive(Debug, Default)]
pub(crate) struct PresenceList {
    path: PathBuf,
    cases: BTreeMap<String, Vec<Row>>,
}

/// What one row says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Of the file, counted from 1.
    #[serde(skip)]
    line: u64,
    of: Of,
    presence: &'static str,
    #[serde(skip)]
    says: Presence,
}

/// Which slices a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Of {
    Volume,
    Slices(u32, u32),
    Millimetres(f64, f64),
}

/// A row as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    case: String,
    #[serde(default)]
    first: Option<u32>,
    #[serde(default)]
    last: Option<u32>,
    #[serde(default)]
    first_mm: Option<f64>,
    #[serde(default)]
    last_mm: Option<f64>,
    presence: String,
}

impl PresenceList {
    /// Reads a list.
    ///
    /// # Errors
    /// It can't be read, or a row is not understood: the message names the line.
    pub fn read(path: &Path) -> Result<Self, IngestError> {
        let file = std::fs::File::open(path).map_err(IngestError::io("read", path))?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(file);
        let error = |line: u64, problem: String| IngestError::PresenceList { path: path.to_path_buf(), line, problem };
        let headers = reader.headers().map_err(|problem| error(1, problem.to_string()))?.clone();
        let mut list = Self { path: path.to_path_buf(), cases: BTreeMap::new() };
        for record in reader.records() {
            let record = record.map_err(|problem| {
                error(
                    problem.position().map_or(0, csv::Position::line),
                    "its columns are not those of the first line".to_owned(),
                )
            })?;
            let line = record.position().map_or(0, csv::Position::line);
            let written: Written =
                record.deserialize(Some(&headers)).map_err(|problem| error(line, explain(&problem)))?;
            let (case, row) = written.row(line).map_err(|problem| error(line, problem))?;
            list.cases.entry(case).or_default().push(row);
        }
        Ok(list)
    }

    /// The list's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cases that it names, and the line of each one's first row.
    pub fn cases(&self) -> impl Iterator<Item = (&str, u64)> {
        self.cases.iter().map(|(case, rows)| (case.as_str(), rows[0].line))
    }

    /// The rows about a case.
    pub fn rows(&self, case: &str) -> &[Row] {
        self.cases.get(case).map_or(&[], Vec::as_slice)
    }

    /// Whether the case's volume is said to show the target somewhere: the line that says so.
    pub fn volume_present(&self, case: &str) -> Option<u64> {
        let last = self.rows(case).iter().rfind(|row| row.of == Of::Volume)?;
        (last.says == Presence::Present).then_some(last.line)
    }

    /// What the list says of a case's slices, in the store's order: whether each shows the target; `None` where it says nothing,
    /// or `unknown`.
    ///
    /// # Errors
    /// A row is about slices that the case doesn't have, or contradicts another.
    pub fn of_case(
        &self,
        case: &str,
        numbers: &[usize],
        positions: &[SlicePosition],
    ) -> Result<Vec<Option<bool>>, IngestError> {
        let error = |line: u64, problem: String| IngestError::PresenceList { path: self.path.clone(), line, problem };
        let mut found: Vec<Option<&Row>> = vec![None; positions.len()];
        for row in self.rows(case) {
            let within: Vec<usize> = (0..positions.len()).filter(|&i| row.covers(numbers[i], positions[i])).collect();
            row.check(within.len(), positions).map_err(|problem| error(row.line, problem))?;
            if row.of == Of::Volume && row.says == Presence::Present {
                continue;
            }
            let earlier = within.iter().filter_map(|&i| found[i]).filter(|other| other.says != row.says);
            for other in earlier {
                let both = within.iter().filter(|&&i| other.covers(numbers[i], positions[i])).count();
                if both < within.len() {
                    return Err(error(
                        row.line,
                        format!(
                            "it says '{}' of slices of which line {} says '{}', and lies only partly within that row: a later row \
                             refines an earlier one that holds all of it; correct either",
                            row.presence, other.line, other.presence
                        ),
                    ));
                }
            }
            for i in within {
                found[i] = Some(row);
            }
        }
        let says = |row: Option<&Row>| match row?.says {
            Presence::Present => Some(true),
            Presence::Absent => Some(false),
            Presence::Unknown => None,
        };
        Ok(found.into_iter().map(says).collect())
    }
}

impl Written {
    fn row(self, line: u64) -> Result<(String, Row), String> {
        let (says, presence) = match self.presence.as_str() {
            "present" => (Presence::Present, "present"),
            "absent" => (Presence::Absent, "absent"),
            "unknown" => (Presence::Unknown, "unknown"),
            other => return Err(format!("`presence` is '{other}', expected present, absent or unknown")),
        };
        if self.case.is_empty() {
            return Err("`case` is empty, expected a case of the data set".to_owned());
        }
        let of = match (self.first, self.last, self.first_mm, self.last_mm) {
            (None, None, None, None) => Of::Volume,
            (Some(first), last, None, None) => Of::Slices(first, last.unwrap_or(first)),
            (None, None, Some(first), last) => Of::Millimetres(first, last.unwrap_or(first)),
            (None, Some(_), ..) | (.., None, Some(_)) => return Err("it has a last slice, but no first".to_owned()),
            _ => return Err("it has slice numbers and millimetres, expected one of them".to_owned()),
        };
        let backwards = match of {
            Of::Volume => false,
            Of::Slices(first, last) => first > last,
            Of::Millimetres(first, last) => first.is_nan() || last.is_nan() || first > last,
        };
        if backwards {
            return Err("its first slice comes after its last, expected first ≤ last".to_owned());
        }
        Ok((self.case, Row { line, of, presence, says }))
    }
}

impl Row {
    fn covers(&self, number: usize, position: SlicePosition) -> bool {
        match self.of {
            Of::Volume => true,
            Of::Slices(first, last) => (first as usize..=last as usize).contains(&number),
            Of::Millimetres(first, last) => {
                let reach = if first == last { f64::from(position.slice_spacing_mm) / 2.0 } else { ROUNDING_MM };
                (first - reach..last + reach).contains(&f64::from(position.position_mm))
            }
        }
    }

    /// Whether the case has the slices that the row is about.
    fn check(&self, covered: usize, positions: &[SlicePosition]) -> Result<(), String> {
        match self.of {
            Of::Slices(_, last) if last as usize >= positions.len() => {
                Err(format!("it names slice {last}, but the case has {} slices, counted from 0", positions.len()))
            }
            Of::Millimetres(first, last) if covered == 0 => {
                let [low, high] = [positions.first(), positions.last()].map(|p| p.map_or(0.0, |p| p.position_mm));
                Err(format!("the case has no slice from {first} to {last} mm: its slices lie from {low} to {high} mm"))
            }
            _ => Ok(()),
        }
    }
}

fn explain(error: &csv::Error) -> String {
    let text = match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.to_string(),
        _ => error.to_string(),
    };
    format!("{text}; expected the columns case, presence, and first, last (slice numbers from 0) or first_mm, last_mm")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a case `a` of six slices, 5 mm apart, numbered from the top in their file.
    fn of_case(rows: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("presence.csv");
        std::fs::write(&path, rows).unwrap();
        let list = PresenceList::read(&path).map_err(|error| error.to_string())?;
        let position = |i: usize| SlicePosition {
            position_mm: -100.0 + 5.0 * i as f32,
            row_spacing_mm: 1.0,
            column_spacing_mm: 1.0,
            slice_spacing_mm: 5.0,
            spacing_valid: true,
        };
        let positions: Vec<SlicePosition> = (0..6).map(position).collect();
        let found = list.of_case("a", &[5, 4, 3, 2, 1, 0], &positions).map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|says| says.map_or('?', |yes| if yes { '+' } else { '-' })).collect())
    }

    #[test]
    fn ranges_single_slices_and_whole_volumes_are_read() {
        assert_eq!(of_case("case,first,last,presence\na,1,3,present\nb,0,0,absent\n").unwrap(), "??+++?");
        assert_eq!(of_case("case,first,presence\na,5,absent\n").unwrap(), "-?????");
        assert_eq!(of_case("case,presence\na,absent\n").unwrap(), "------");
        // Some slice shows it: which, nobody says.
        assert_eq!(of_case("case,presence\na,present\n").unwrap(), "??????");
        assert_eq!(of_case("presence,case,first_mm,last_mm\npresent,a,-95,-85.004\n").unwrap(), "?+++??");
        assert_eq!(of_case("case,first_mm,presence\na,-88,present\n").unwrap(), "??+???");
    }

    #[test]
    fn a_later_row_refines_an_earlier_one_that_holds_it() {
        let rows = "case,first,last,presence\na,,,absent\na,1,4,present\na,2,2,unknown\n";
        assert_eq!(of_case(rows).unwrap(), "-++?+-");
    }

    #[test]
    fn rows_that_contradict_each_other_are_refused_by_line() {
        let error = of_case("case,first,last,presence\na,0,3,present\na,2,5,absent\n").unwrap_err();
        assert!(error.contains("line 3: it says 'absent' of slices of which line 2 says 'present'"), "{error}");
        // The same answer twice is none.
        assert_eq!(of_case("case,first,last,presence\na,0,3,present\na,2,5,present\n").unwrap(), "++++++");
    }

    #[test]
    fn rows_that_are_not_understood_are_refused_by_line() {
        for (rows, expected) in [
            ("case,first,last,presence\na,1,6,present\n", "line 2: it names slice 6, but the case has 6 slices"),
            ("case,first,last,presence\na,3,1,present\n", "line 2: its first slice comes after its last"),
            ("case,first,last,presence\na,,1,present\n", "line 2: it has a last slice, but no first"),
            ("case,first,last,presence\na,1,2,liver\n", "`presence` is 'liver', expected present, absent or unknown"),
            ("case,first,last,presence\na,x,2,present\n", "line 2: "),
            ("case,frist,last,presence\na,1,2,present\n", "expected the columns case, presence"),
            ("case,first,presence\na,1,2,present\n", "line 2: its columns are not those of the first line"),
            ("case,first_mm,last_mm,presence\na,0,10,present\n", "its slices lie from -100 to -75 mm"),
            ("case,first_mm,last_mm,presence\na,NaN,10,present\n", "line 2: its first slice comes after its last"),
            ("case,first,first_mm,presence\na,0,10,present\n", "slice numbers and millimetres"),
            (",first,presence\n,0,present\n", "line 2: "),
        ] {
            let error = of_case(rows).unwrap_err();
            assert!(error.contains(expected), "{rows}: {error}");
        }
    }
}
