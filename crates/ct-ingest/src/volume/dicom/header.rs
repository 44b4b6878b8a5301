//! What is read of a slice's header, and what an image must be to be one slice of a CT.

use super::coding::Coding;
use crate::names::Pseudonyms;
use crate::volume::PatientId;
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, Tag};
use std::fmt;
use std::path::PathBuf;

/// More pixels than any scanner's slice has; what a damaged header may claim.
const MOST_PIXELS: usize = 1 << 24;

/// What is shown of a free text; 64 characters are the longest that DICOM allows (LO).
const LONGEST_TEXT: usize = 64;

/// A UID that can be shown: digits and dots, so that no other text hides in it; or the pseudonym that stands for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Uid(String);

/// A CT image.
pub(super) struct Image<P = Result<Plane, String>> {
    /// Never shown: it may be named after the patient.
    pub file: PathBuf,
    /// What messages call it.
    pub name: String,
    pub sha256: String,
    pub series: Series,
    pub instance: Option<Uid>,
    pub patient: Option<PatientId>,
    /// Where it lies and how its values are stored, or why it is no slice of a CT.
    pub plane: P,
}

/// What a slice's header says of its series, all of which anonymised files may lack.
#[derive(Clone)]
pub(super) struct Series {
    pub uid: Option<Uid>,
    pub number: Option<i32>,
    /// Free text, in which anything may stand: for the terminal only, and `None` where names are hidden.
    pub description: Option<String>,
    /// The reconstruction's, as its scanner calls it.
    pub kernel: Option<String>,
}

/// Where a slice lies, and how its values are stored.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    pub rows: usize,
    pub columns: usize,
    /// Of the first pixel's centre: left, posterior and superior in mm.
    pub position: [f64; 3],
    /// Along which a row runs, and along which a column runs: left, posterior, superior.
    pub directions: [[f64; 3]; 2],
    /// Distances of rows and of columns, mm.
    pub spacing: [f64; 2],
    /// The distance to the next slice, as the header has it; mm.
    pub stated_step: Option<f64>,
    pub frame_of_reference: Option<Uid>,
    pub stored: Stored,
    /// HU of a stored 1 more.
    pub slope: f64,
    /// HU of a stored 0.
    pub intercept: f64,
    /// Whether the two are there and said to be HU's.
    pub rescale: Rescale,
    pub coding: Coding,
}

/// What a header says of its rescale slope and intercept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rescale {
    Hu,
    Missing,
    OfOtherType,
}

/// A number's bits in its pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// 8 or 16.
    pub allocated: u32,
    /// Of them, those that count,
    pub bits: u32,
    /// and how many are below them: 0 in every image of this century.
    pub shift: u32,
    pub signed: bool,
}

impl Stored {
    /// The number in a pixel: what is above the stored bits (overlays, in old files) is no part of it.
    pub fn value(self, pixel: u16) -> i32 {
        let value = (i32::from(pixel) >> self.shift) & ((1 << self.bits) - 1);
        if self.signed && value >> (self.bits - 1) == 1 { value - (1 << self.bits) } else { value }
    }

    /// Bytes of a pixel.
    pub fn bytes(self) -> usize {
        self.allocated as usize / 8
    }
}

impl Uid {
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\0']);
        let valid = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        valid.then(|| Self(text.to_owned()))
    }

    /// The series that is asked for, as its images have it.
    pub fn wanted(text: &str, hidden: Option<&Pseudonyms>) -> Option<Self> {
        match hidden {
            None => Self::parse(text),
            Some(hidden) => Some(Self(hidden.wanted_series(text))),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Puts its pseudonym in its place.
    pub fn hide(&mut self, hidden: &Pseudonyms) {
        self.0 = hidden.uid(&self.0);
    }
}

impl Series {
    pub fn of(header: &Header<'_>) -> Self {
        let text = |tag| header.text(tag).map(|text| printable(&text)).filter(|text| !text.is_empty());
        Self {
            uid: header.uid(tags::SERIES_INSTANCE_UID),
            number: header.number(tags::SERIES_NUMBER).map(|number| number as i32),
            description: text(tags::SERIES_DESCRIPTION),
            kernel: text(tags::CONVOLUTION_KERNEL),
        }
    }
}

/// Without what a terminal would obey: control characters, and those that turn the direction of writing.
fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|&c| !c.is_control() && !turns(c)).take(LONGEST_TEXT).collect()
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What makes the image a slice; else what is wrong with it, as the end of a sentence.
pub(super) fn plane(header: &Header<'_>, syntax: &str) -> Result<Plane, String> {
    let missing = |what: &str| format!("has no valid {what}");
    let size = |tag, what| header.size(tag).filter(|&size| size > 0).ok_or_else(|| missing(what));
    let (rows, columns) = (size(tags::ROWS, "Rows")?, size(tags::COLUMNS, "Columns")?);
    if rows * columns > MOST_PIXELS {
        return Err(format!("has {rows} x {columns} pixels, expected at most {MOST_PIXELS}"));
    }
    let samples = header.size(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    if samples != 1 {
        return Err(format!("has {samples} samples per pixel, expected 1: it is a coloured picture, not HU"));
    }
    match header.text(tags::PHOTOMETRIC_INTERPRETATION).as_deref() {
        Some("MONOCHROME2") | None => {}
        Some("MONOCHROME1") => {
            return Err("has the photometric interpretation MONOCHROME1 (an inverted picture), expected MONOCHROME2, \
                        which HU have"
                .to_owned());
        }
        Some(_) => return Err("is a coloured picture, expected the photometric interpretation MONOCHROME2".to_owned()),
    }
    let position = header.numbers(tags::IMAGE_POSITION_PATIENT).ok_or_else(|| missing("ImagePositionPatient"))?;
    let [a, b, c, d, e, f] =
        header.numbers(tags::IMAGE_ORIENTATION_PATIENT).ok_or_else(|| missing("ImageOrientationPatient"))?;
    let directions = [[a, b, c], [d, e, f]];
    if directions.iter().any(|v| (v.iter().map(|x| x * x).sum::<f64>().sqrt() - 1.0).abs() > 1e-3) {
        return Err(format!("has the ImageOrientationPatient {directions:?}, expected two unit vectors"));
    }
    let spacing = header.numbers(tags::PIXEL_SPACING).filter(|spacing: &[f64; 2]| spacing.iter().all(|&mm| mm > 0.0));
    let [slope, intercept] = [tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT].map(|tag| header.number(tag));
    if slope == Some(0.0) {
        return Err("has a RescaleSlope of 0, which leaves nothing of the picture".to_owned());
    }
    let rescale = match (slope, intercept, header.text(tags::RESCALE_TYPE).as_deref()) {
        (None, _, _) | (_, None, _) => Rescale::Missing,
        (_, _, None | Some("" | "HU")) => Rescale::Hu,
        _ => Rescale::OfOtherType,
    };
    let step = |tag| header.number(tag).map(f64::abs).filter(|&mm| mm > 0.0);
    Ok(Plane {
        rows,
        columns,
        position,
        directions,
        spacing: spacing.ok_or_else(|| missing("PixelSpacing"))?,
        stated_step: step(tags::SPACING_BETWEEN_SLICES).or_else(|| step(tags::SLICE_THICKNESS)),
        frame_of_reference: header.uid(tags::FRAME_OF_REFERENCE_UID),
        stored: stored(header)?,
        slope: slope.unwrap_or(1.0),
        intercept: intercept.unwrap_or(0.0),
        rescale,
        coding: Coding::of(syntax)?,
    })
}

fn stored(header: &Header<'_>) -> Result<Stored, String> {
    let [allocated, bits, high] =
        [tags::BITS_ALLOCATED, tags::BITS_STORED, tags::HIGH_BIT].map(|tag| header.size(tag).map(|bits| bits as u32));
    let (Some(allocated), signed) = (allocated, header.size(tags::PIXEL_REPRESENTATION) == Some(1)) else {
        return Err("has no valid BitsAllocated".to_owned());
    };
    let bits = bits.unwrap_or(allocated);
    let high = high.unwrap_or(bits.max(1) - 1);
    if !(allocated == 8 || allocated == 16) || bits == 0 || high >= allocated || high + 1 < bits {
        return Err(format!(
            "has {allocated} bits a pixel, {bits} of them stored, the highest of them bit {high}; expected 8 or 16 bits"
        ));
    }
    Ok(Stored { allocated, bits, shift: high + 1 - bits, signed })
}

/// Elements as the types they should have; what isn't there or isn't valid is `None`.
pub(super) struct Header<'a>(pub &'a DefaultDicomObject);

impl Header<'_> {
    pub fn text(&self, tag: Tag) -> Option<String> {
        let text = self.0.get(tag)?.to_str().ok()?;
        Some(text.trim_matches([' ', '\0']).to_owned())
    }

    pub fn texts(&self, tag: Tag) -> Vec<String> {
        let texts = self.0.get(tag).and_then(|element| element.to_multi_str().ok());
        texts.map(|texts| texts.iter().map(|text| text.trim().to_owned()).collect()).unwrap_or_default()
    }

    pub fn uid(&self, tag: Tag) -> Option<Uid> {
        Uid::parse(&self.text(tag)?)
    }

    pub fn number(&self, tag: Tag) -> Option<f64> {
        self.0.get(tag)?.to_float64().ok().filter(|number| number.is_finite())
    }

    pub fn numbers<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        let numbers: [f64; N] = self.0.get(tag)?.to_multi_float64().ok()?.try_into().ok()?;
        numbers.iter().all(|number| number.is_finite()).then_some(numbers)
    }

    pub fn size(&self, tag: Tag) -> Option<usize> {
        self.0.get(tag)?.to_int::<u16>().ok().map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_outside_of_the_stored_ones_dont_count() {
        let twelve = |signed| Stored { allocated: 16, bits: 12, shift: 0, signed };
        assert_eq!(twelve(false).value(0xafff), 4095);
        assert_eq!(twelve(true).value(0xafff), -1);
        assert_eq!(twelve(true).value(0x5800), -2048);
        assert_eq!(twelve(true).value(0x07ff), 2047);
        assert_eq!(Stored { shift: 4, ..twelve(true) }.value(0xfff5), -1);
        assert_eq!(Stored { bits: 16, ..twelve(true) }.value(0x8000), -32768);
        assert_eq!(Stored { bits: 16, ..twelve(false) }.value(0x8000), 32768);
    }

    #[test]
    fn only_digits_and_dots_are_a_uid() {
        assert_eq!(Uid::parse("1.2.3\0").unwrap().to_string(), "1.2.3");
        for text in ["", "DOE^JANE", "1.2.x", &"1".repeat(65)] {
            assert_eq!(Uid::parse(text), None);
        }
    }
}
