//! `evaluation/<split>.json` and the pictures beside it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use run_record::OverlayRecord;

use crate::error::{ReportError, read, read_json};

/// Results on one split.
pub struct Evaluation {
    pub results: run_record::Evaluation,
    /// From `<split>/overlays.json`; `None` where that is missing.
    pub overlays: Option<Vec<Overlay>>,
}

/// A picture of a slice with its prediction, drawn by the evaluation.
pub struct Overlay {
    pub record: OverlayRecord,
    /// The picture as a `data:` address; `None` where the file is missing.
    pub picture: Option<String>,
}

impl Evaluation {
    /// All `*.json` of the directory, the test split first; none where the directory is missing.
    pub fn read_all(directory: &Path) -> Result<Vec<Self>, ReportError> {
        let unreadable = |reason| ReportError::Read { path: directory.to_owned(), reason };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut evaluations = Vec::new();
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(results) = read_json::<run_record::Evaluation>(&path)?
            {
                evaluations.push(Self { results, overlays: Overlay::read_all(&path.with_extension(""))? });
            }
        }
        evaluations.sort_by_key(|evaluation| (evaluation.results.split != "test", evaluation.results.split.clone()));
        Ok(evaluations)
    }
}

impl Overlay {
    fn read_all(directory: &Path) -> Result<Option<Vec<Self>>, ReportError> {
        let list = directory.join("overlays.json");
        let Some(records) = read_json::<Vec<OverlayRecord>>(&list)? else { return Ok(None) };
        let with_picture = |record: OverlayRecord| {
            // A name and not a path: a report must not carry files from elsewhere away.
            if Path::new(&record.file).file_name() != Some(OsStr::new(&record.file)) {
                let message = format!("'{}' is not the plain name of a file in overlays/", record.file);
                return Err(ReportError::Malformed { path: list.clone(), line: 1, message });
            }
            let picture = read(&directory.join("overlays").join(&record.file))?
                .map(|png| format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png)));
            Ok(Self { record, picture })
        };
        records.into_iter().map(with_picture).collect::<Result<_, _>>().map(Some)
    }
}
