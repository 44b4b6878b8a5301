//! All files below a folder: their checksums, and which of them are CT images.

use super::entry::{Entry, Other, entry};
use super::header::Image;
use super::{count, problem};
use crate::names::Pseudonyms;
use crate::{IngestError, checksum};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// What is in a folder.
pub(super) struct Found {
    /// In the order of their paths.
    pub images: Vec<Image>,
    /// Of all files, DICOM or not.
    pub sha256: String,
    pub warnings: Vec<String>,
}

/// What is no image of a CT.
#[derive(Default)]
struct Rest {
    others: BTreeMap<Other, usize>,
    foreign: usize,
    texts: usize,
    empty: usize,
}

/// Looks into every file below `folder`; UIDs are exchanged for what hides them, if anything does.
pub(super) fn scan(folder: &Path, hidden: Option<&Pseudonyms>) -> Result<Found, IngestError> {
    let files = checksum::files_below(folder)?;
    let entries: Vec<(String, Entry)> =
        files.par_iter().map(|file| look(folder, file, hidden)).collect::<Result<_, _>>()?;
    let sha256 = checksum::combined(entries.iter().map(|(sha256, _)| sha256.as_str()));
    let number = entries.len();
    let mut images = Vec::new();
    let mut rest = Rest::default();
    for (place, (_, entry)) in entries.into_iter().enumerate() {
        let place = format!("file {} of {number} in the order of their paths", place + 1);
        match entry {
            Entry::Image(mut image) => {
                image.name = match (&image.instance, hidden) {
                    (None, _) => place,
                    (Some(uid), None) => format!("SOP instance {uid}"),
                    // A pseudonym finds no file.
                    (Some(uid), Some(_)) => format!("SOP instance {uid}, {place}"),
                };
                images.push(*image);
            }
            Entry::Other(other) => *rest.others.entry(other).or_default() += 1,
            Entry::Foreign => rest.foreign += 1,
            Entry::Text => rest.texts += 1,
            Entry::Empty => rest.empty += 1,
            Entry::Broken { instance, reason } => {
                let named = instance.map_or_else(String::new, |uid| format!(" (SOP instance {uid})"));
                return Err(problem(
                    folder,
                    format!(
                        "has a CT image that can't be read: {place}{named}; {reason}. Copy it again, or take it out of the \
                         folder if it is no part of the series"
                    ),
                ));
            }
        }
    }
    if images.is_empty() {
        return Err(problem(folder, format!("holds no CT series: found {}", rest.list())));
    }
    Ok(Found { images, sha256, warnings: rest.warnings() })
}

fn look(folder: &Path, file: &Path, hidden: Option<&Pseudonyms>) -> Result<(String, Entry), IngestError> {
    let handle = File::open(file).map_err(unreadable(folder))?;
    // An empty file can't be mapped everywhere.
    let length = handle.metadata().map_err(unreadable(folder))?.len();
    if length == 0 {
        return Ok((checksum::sha256(&[]), Entry::Empty));
    }
    let bytes = slice_store::map_file(&handle).map_err(unreadable(folder))?;
    let sha256 = checksum::sha256(&bytes);
    let mut entry = entry(file.to_path_buf(), sha256.clone(), &bytes);
    if let Some(hidden) = hidden {
        entry.hide(hidden);
    }
    Ok((sha256, entry))
}

/// Names the folder that was asked for, and not the file, whose name may be a patient's.
pub(super) fn unreadable(folder: &Path) -> impl FnOnce(std::io::Error) -> IngestError {
    IngestError::io("read a file in", folder)
}

impl Rest {
    /// `2 localizers, 3 files that are no DICOM`, with the way out where there is one for all of them.
    fn list(&self) -> String {
        let mut found: Vec<String> = self
            .others
            .iter()
            .map(|(other, &number)| match other {
                Other::Localizer => count(number, "localizer", "localizers"),
                Other::NoCt(kind) => format!("{}{kind}", count(number, "DICOM object", "DICOM objects")),
                Other::NoSlice => count(number, "CT object that is no slice", "CT objects that are no slices"),
            })
            .collect();
        let foreign = self.foreign + self.texts;
        if foreign > 0 {
            found.push(count(foreign, "file that is no DICOM", "files that are no DICOM"));
        }
        if self.empty > 0 {
            found.push(count(self.empty, "empty file", "empty files"));
        }
        let way_out = match self.others.first_key_value() {
            Some((Other::NoCt(kind), _)) if self.others.len() == 1 => format!("; {}", kind.way_out()),
            _ => String::new(),
        };
        if found.is_empty() { "no file at all".to_owned() } else { found.join(", ") + &way_out }
    }

    /// What may have been slices.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.empty > 0 {
            let files = count(self.empty, "file is empty or ends", "files are empty or end");
            warnings.push(format!("{files} before anything is said: slices may be missing at an end of the series"));
        }
        if self.foreign > 0 {
            let files = count(self.foreign, "file is no DICOM and was", "files are no DICOM and were");
            warnings.push(format!("{files} left out: if slices are among them, the series is not whole"));
        }
        warnings
    }
}
