//! Which of a folder's series is meant.

use super::count;
use super::header::{Image, Plane, Uid};
use super::place::{along_normal, median};
use crate::IngestError;
use crate::names::Pseudonyms;
use std::collections::BTreeMap;
use std::path::Path;

/// The images of the series that is wanted, or of the only one.
pub(super) fn choose(
    folder: &Path,
    images: Vec<Image>,
    wanted: Option<&str>,
    hidden: Option<&Pseudonyms>,
) -> Result<Vec<Image<Plane>>, IngestError> {
    let mut all: BTreeMap<Option<Uid>, Vec<Image>> = BTreeMap::new();
    for image in images {
        all.entry(image.series.clone()).or_default().push(image);
    }
    let chosen = match wanted {
        Some(wanted) => Uid::wanted(wanted, hidden).and_then(|uid| all.remove(&Some(uid))),
        None if all.len() == 1 => all.pop_first().map(|(_, images)| images),
        None => None,
    };
    let Some(chosen) = chosen else {
        let wanted =
            wanted.map(|wanted| hidden.map_or_else(|| wanted.to_owned(), |hidden| hidden.wanted_series(wanted)));
        let list = list(all);
        return Err(IngestError::DicomSeries { path: folder.to_path_buf(), wanted, list });
    };
    chosen.into_iter().map(|image| slice(folder, image)).collect()
}

fn slice(folder: &Path, image: Image) -> Result<Image<Plane>, IngestError> {
    let name = image.name();
    let Image { file, sha256, series, instance, patient, plane } = image;
    match plane {
        Ok(plane) => Ok(Image { file, sha256, series, instance, patient, plane }),
        Err(what) => {
            let series = series_name(series.as_ref());
            Err(super::problem(folder, format!("has an image in the series {series} that {what} ({name})")))
        }
    }
}

fn series_name(uid: Option<&Uid>) -> String {
    uid.map_or_else(|| "without a UID (put it into a folder of its own)".to_owned(), Uid::to_string)
}

/// A line for each series, the longest first.
fn list(all: BTreeMap<Option<Uid>, Vec<Image>>) -> Vec<String> {
    let mut all: Vec<(Option<Uid>, Vec<Image>)> = all.into_iter().collect();
    all.sort_by_key(|(_, images)| std::cmp::Reverse(images.len()));
    all.iter().map(|(uid, images)| format!("{}: {}", series_name(uid.as_ref()), describe(images))).collect()
}

/// `20 slices of 512 x 512, 3 mm apart`.
fn describe(images: &[Image]) -> String {
    let planes: Vec<&Plane> = images.iter().filter_map(|image| image.plane.as_ref().ok()).collect();
    let slices = count(images.len(), "image", "images");
    let Some(first) = planes.first() else { return format!("{slices} that are no single slices") };
    let mut at: Vec<f64> = planes.iter().map(|plane| along_normal(first, plane.position)).collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let apart = median(gaps).map_or_else(String::new, |mm| format!(", {} mm apart", rounded(mm)));
    let slices = count(images.len(), "slice", "slices");
    format!("{slices} of {} x {}{apart}", first.rows, first.columns)
}

/// Without the digits that the arithmetic made.
fn rounded(mm: f64) -> f64 {
    (mm * 1000.0).round() / 1000.0
}
