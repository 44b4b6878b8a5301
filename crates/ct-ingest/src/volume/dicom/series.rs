//! Which of a folder's series is meant.

use super::header::{Image, Plane, Series, Uid};
use super::place::{along_normal, median};
use super::{count, problem};
use crate::IngestError;
use crate::names::Pseudonyms;
use std::collections::BTreeMap;
use std::path::Path;

/// The images of the series that is wanted, by its UID or its number, or of the only one.
pub(super) fn choose(
    folder: &Path,
    images: Vec<Image>,
    wanted: Option<&str>,
    hidden: Option<&Pseudonyms>,
) -> Result<Vec<Image<Plane>>, IngestError> {
    let mut all: BTreeMap<Option<Uid>, Vec<Image>> = BTreeMap::new();
    for image in images {
        all.entry(image.series.uid.clone()).or_default().push(image);
    }
    let number = all.len();
    let mut meant: Vec<Vec<Image>> = all.into_values().collect();
    // The longest first, and by number, since pseudonyms have no order.
    meant.sort_by_key(|images| (std::cmp::Reverse(images.len()), images[0].series.number));
    let is_meant = |images: &[Image]| wanted.is_none_or(|wanted| is_called(&images[0].series, wanted, hidden));
    let found = match (wanted, meant.iter().filter(|images| is_meant(images)).count()) {
        (_, 1) => {
            let chosen = meant.into_iter().find(|images| is_meant(images)).unwrap_or_default();
            return chosen.into_iter().map(|image| slice(folder, image)).collect();
        }
        (None, several) => format!("{several} CT series, expected one"),
        (Some(wanted), 0) => format!("no CT series '{}', but {number}", shown(wanted, hidden)),
        (Some(_), several) => {
            meant.retain(|images| is_meant(images));
            format!("{several} CT series of that number, expected one")
        }
    };
    let list = meant.iter().map(|images| line(images)).collect();
    Err(IngestError::DicomSeries { path: folder.to_path_buf(), found, list })
}

fn number_of(name: &str) -> Option<i32> {
    name.parse().ok()
}

/// UIDs have dots, numbers have none, and pseudonyms are longer than numbers.
fn is_called(series: &Series, name: &str, hidden: Option<&Pseudonyms>) -> bool {
    let by_uid = Uid::wanted(name, hidden).is_some_and(|uid| series.uid == Some(uid));
    by_uid || number_of(name).is_some_and(|number| series.number == Some(number))
}

/// What was asked for, as it may be shown.
fn shown(name: &str, hidden: Option<&Pseudonyms>) -> String {
    match hidden {
        Some(hidden) if number_of(name).is_none() => hidden.wanted_series(name),
        _ => name.to_owned(),
    }
}

fn slice(folder: &Path, image: Image) -> Result<Image<Plane>, IngestError> {
    let Image { file, name, sha256, series, instance, patient, plane } = image;
    match plane {
        Ok(plane) => Ok(Image { file, name, sha256, series, instance, patient, plane }),
        Err(what) => {
            let uid = series.uid.map(|uid| format!(" {uid}"));
            let series = uid.or_else(|| series.number.map(|number| format!(" {number}"))).unwrap_or_default();
            Err(problem(folder, format!("has an image in the series{series} that {what} ({name})")))
        }
    }
}

/// `1.2.3: number 4, 'Abdomen portal venous', kernel B30f, 20 slices of 512 x 512, 3 mm apart`.
fn line(images: &[Image]) -> String {
    let series = &images[0].series;
    let mut parts: Vec<String> = Vec::new();
    parts.extend(series.number.map(|number| format!("number {number}")));
    parts.extend(series.description.as_ref().map(|description| format!("'{description}'")));
    parts.extend(series.kernel.as_ref().map(|kernel| format!("kernel {kernel}")));
    parts.push(describe(images));
    let parts = parts.join(", ");
    match &series.uid {
        None => format!("without a UID (put it into a folder of its own): {parts}"),
        Some(uid) => format!("{uid}: {parts}"),
    }
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
