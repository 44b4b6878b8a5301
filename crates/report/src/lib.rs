//! A run directory as one self-contained HTML page: style, charts and pictures are in the file, nothing is fetched and no
//! script runs.
//!
//! Invariant: whatever a run directory holds reaches the page as text, never as markup. What is missing is named on the
//! page together with the command that makes it; what is malformed is an error that names file and line.

mod chart;
mod error;
mod evaluation;
mod page;
mod run;

use std::io::Write;
use std::path::Path;

pub use error::ReportError;

/// The page for the run directory `run`.
pub fn render(run: &Path) -> Result<String, ReportError> {
    Ok(page::page(&run::Run::read(run)?).into_string())
}

/// Writes the page for the run directory `run` to `output`, whole or not at all.
pub fn write(run: &Path, output: &Path) -> Result<(), ReportError> {
    let html = render(run)?;
    whole_file::replace(output, |file| file.write_all(html.as_bytes()))
        .map_err(|reason| ReportError::Write { path: output.to_owned(), reason })
}
