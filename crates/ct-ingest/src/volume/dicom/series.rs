//! Which of a folder's series is meant.

use super::header::{Image, Plane, Series, Uid};
use super::place::{along_normal, median, normal};
use super::{count, problem};
use crate::IngestError;
use crate::names::Pseudonyms;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::path::Path;

/// The images of the series that is wanted, by its UID or its number, or of the only one.
pub(super) fn choose(
    folder: &Path,
    images: Vec<Image>,
    wanted: Option<&str>,
    hidden: Option<&Pseudonyms>,
) -> Result<Vec<Image<Plane>>, IngestError> {
    let mut meant = by_series(images);
    let number = meant.len();
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

/// The images of each series: the longest first, and by number, since pseudonyms have no order.
fn by_series(images: Vec<Image>) -> Vec<Vec<Image>> {
    let mut all: BTreeMap<Option<Uid>, Vec<Image>> = BTreeMap::new();
    for image in images {
        all.entry(image.series.uid.clone()).or_default().push(image);
    }
    let mut all: Vec<Vec<Image>> = all.into_values().collect();
    all.sort_by_key(|images| (Reverse(images.len()), images[0].series.number));
    all
}

/// The series of a study that is taken where nobody named one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferredSeries {
    /// What [`ReadOptions::series`](crate::ReadOptions::series) calls it.
    pub name: String,
    /// What it is, for the terminal: descriptions are free text.
    pub chosen: String,
    /// The others, with the reason why each was not taken.
    pub others: Vec<(String, &'static str)>,
}

/// The one that the rules prefer: axial slices; of these the most slices; the smallest distance between them; no kernel for bone or lung;
/// the lowest number. `None` if the folder has one series only.
pub(super) fn preferred(folder: &Path, images: Vec<Image>) -> Result<Option<PreferredSeries>, IngestError> {
    let mut all: Vec<(Merits, String, Option<String>)> = by_series(images)
        .iter()
        .map(|images| {
            let series = &images[0].series;
            let name = series.uid.as_ref().map(ToString::to_string);
            let name = name.or_else(|| series.number.map(|number| number.to_string()));
            (Merits::of(images), line(images), name)
        })
        .collect();
    if all.len() < 2 {
        return Ok(None);
    }
    all.sort_by(|a, b| b.0.compare(&a.0));
    let (best, chosen, name) = all.remove(0);
    let Some(name) = name.filter(|_| best.is_axial) else {
        let list = std::iter::once(chosen).chain(all.into_iter().map(|(_, line, _)| line)).collect();
        let found = "several CT series, none of them of axial slices and with a name".to_owned();
        return Err(IngestError::DicomSeries { path: folder.to_path_buf(), found, list });
    };
    let others = all.into_iter().map(|(merits, line, _)| (line, best.beats(&merits))).collect();
    Ok(Some(PreferredSeries { name, chosen, others }))
}

/// What a series is preferred by, the first first.
struct Merits {
    is_axial: bool,
    slices: usize,
    apart_mm: f64,
    is_soft: bool,
    number: Option<i32>,
}

impl Merits {
    fn of(images: &[Image]) -> Self {
        let planes: Vec<&Plane> = images.iter().filter_map(|image| image.plane.as_ref().ok()).collect();
        let is_axial = |plane: &&Plane| normal(plane).is_some_and(|[x, y, z]| z.abs() > x.abs() && z.abs() > y.abs());
        let series = &images[0].series;
        Self {
            is_axial: planes.len() == images.len() && planes.iter().all(is_axial),
            slices: images.len(),
            apart_mm: apart(&planes).unwrap_or(f64::INFINITY),
            is_soft: !series.kernel.as_deref().is_some_and(is_sharp),
            number: series.number,
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let number = |of: &Self| Reverse(of.number.unwrap_or(i32::MAX));
        (self.is_axial.cmp(&other.is_axial))
            .then(self.slices.cmp(&other.slices))
            .then(other.apart_mm.total_cmp(&self.apart_mm))
            .then(self.is_soft.cmp(&other.is_soft))
            .then(number(self).cmp(&number(other)))
    }

    /// Why this one is taken and not the other.
    fn beats(&self, other: &Self) -> &'static str {
        match () {
            () if self.is_axial != other.is_axial => "its slices are not axial",
            () if self.slices != other.slices => "it has fewer slices",
            () if self.apart_mm < other.apart_mm => "its slices are farther apart",
            () if self.is_soft != other.is_soft => "its kernel is for bone or lung",
            () => "its number is higher",
        }
    }
}

/// Whether a reconstruction kernel is made for bone or lung, by the names that the makers of scanners give: Siemens numbers them by sharpness
/// (`B30f`, `Br40d`, `I70f`), as Canon does (`FC51`); GE has words. Of others it isn't known.
fn is_sharp(kernel: &str) -> bool {
    let kernel = kernel.to_ascii_uppercase();
    let digits = kernel.find(|c: char| c.is_ascii_digit()).unwrap_or(kernel.len());
    let (prefix, rest) = kernel.split_at(digits);
    let number = rest.get(..2).and_then(|digits| digits.parse::<u32>().ok());
    let is_numbered = prefix == "FC" || prefix.len() < 3 && prefix.starts_with(['B', 'H', 'I', 'J', 'Q', 'U', 'T']);
    ["BONE", "LUNG", "EDGE", "DETAIL", "CHST"].iter().any(|word| kernel.contains(word))
        || is_numbered && number.is_some_and(|number| number >= 50)
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
    let apart = apart(&planes).map_or_else(String::new, |mm| format!(", {} mm apart", rounded(mm)));
    let slices = count(images.len(), "slice", "slices");
    format!("{slices} of {} x {}{apart}", first.rows, first.columns)
}

/// The usual distance of neighbours, mm.
fn apart(planes: &[&Plane]) -> Option<f64> {
    let first = planes.first()?;
    let mut at: Vec<f64> = planes.iter().map(|plane| along_normal(first, plane.position)).collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    median(at.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

/// Without the digits that the arithmetic made.
fn rounded(mm: f64) -> f64 {
    (mm * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_for_bone_and_lung_are_known_by_their_makers_names() {
        for kernel in ["B70f", "Br59d", "I70f\\3", "FC51", "LUNG", "BONEPLUS", "Bl57d"] {
            assert!(is_sharp(kernel), "{kernel}");
        }
        for kernel in ["B30f", "Br40d", "FC08", "FC18", "STANDARD", "SOFT", "B", "YA", "", "L"] {
            assert!(!is_sharp(kernel), "{kernel}");
        }
    }

    #[test]
    fn slices_come_before_distance_and_distance_before_kernel() {
        let merits = |slices, apart_mm, is_soft, number| Merits {
            is_axial: true,
            slices,
            apart_mm,
            is_soft,
            number: Some(number),
        };
        let best = merits(100, 1.0, true, 4);
        for (other, why) in [
            (Merits { is_axial: false, ..merits(500, 0.5, true, 1) }, "its slices are not axial"),
            (merits(99, 0.5, true, 1), "it has fewer slices"),
            (merits(100, 2.0, true, 1), "its slices are farther apart"),
            (merits(100, 1.0, false, 1), "its kernel is for bone or lung"),
            (merits(100, 1.0, true, 5), "its number is higher"),
        ] {
            assert_eq!((best.compare(&other), best.beats(&other)), (Ordering::Greater, why));
        }
    }
}
