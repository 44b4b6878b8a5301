//! What the DICOM objects that are written for a CT have in common: its patient and study, UIDs, dates, codes; a Part-10 file.

use crate::header::Header;
use crate::{AnnotationError, Code, CtSeries};
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use whole_file::{Existing, check_place, replace};

/// Names this program in the files that it writes (PS3.10, 7.1): a UUID of our own.
const IMPLEMENTATION: &str = "2.25.184366881372892135527164796967733671552";

/// Also the Manufacturer and the ManufacturerModelName.
const PROGRAM: &str = "SAM-Mix";

/// Copied from the CT; those that are `true` are there even where the CT has none, empty (type 2).
const PATIENT_AND_STUDY: [(Tag, VR, bool); 16] = [
    (tags::PATIENT_NAME, VR::PN, true),
    (tags::PATIENT_ID, VR::LO, true),
    (tags::ISSUER_OF_PATIENT_ID, VR::LO, false),
    (tags::PATIENT_BIRTH_DATE, VR::DA, true),
    (tags::PATIENT_SEX, VR::CS, true),
    (tags::PATIENT_AGE, VR::AS, false),
    (tags::PATIENT_SIZE, VR::DS, false),
    (tags::PATIENT_WEIGHT, VR::DS, false),
    (tags::PATIENT_IDENTITY_REMOVED, VR::CS, false),
    (tags::DEIDENTIFICATION_METHOD, VR::LO, false),
    (tags::STUDY_DATE, VR::DA, true),
    (tags::STUDY_TIME, VR::TM, true),
    (tags::REFERRING_PHYSICIAN_NAME, VR::PN, true),
    (tags::STUDY_ID, VR::SH, true),
    (tags::ACCESSION_NUMBER, VR::SH, true),
    (tags::STUDY_DESCRIPTION, VR::LO, false),
];

/// The CT as every object refers to it. What anonymised slices lack is new, or is not referred to ([`CtSeries::doubts`]).
pub(crate) struct References<'a> {
    pub study: String,
    pub series: Option<String>,
    pub frame_of_reference: String,
    /// Class and instance of each slice.
    slices: Vec<Option<[&'a str; 2]>>,
}

impl<'a> References<'a> {
    pub fn of(ct: &'a CtSeries) -> Self {
        let slice = |slice: &'a crate::ct::SourceSlice| Some([slice.class.as_deref()?, slice.instance.as_deref()?]);
        Self {
            study: ct.header.uid(tags::STUDY_INSTANCE_UID).unwrap_or_else(new_uid),
            series: ct.header.uid(tags::SERIES_INSTANCE_UID),
            frame_of_reference: ct.header.uid(tags::FRAME_OF_REFERENCE_UID).unwrap_or_else(new_uid),
            slices: ct.slices.iter().map(slice).collect(),
        }
    }

    /// How many slices there are.
    pub fn len(&self) -> usize {
        self.slices.len()
    }

    /// A slice as objects refer to it.
    pub fn slice(&self, number: usize) -> Option<InMemDicomObject> {
        self.slices[number].map(reference)
    }

    /// All slices that can be referred to.
    pub fn all(&self) -> Vec<InMemDicomObject> {
        (0..self.len()).filter_map(|number| self.slice(number)).collect()
    }
}

/// A reference to an object, by its class and UID.
pub(crate) fn reference([class, instance]: [&str; 2]) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    item.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, class);
    item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, instance);
    item
}

/// An object of a class in a series of its own, with the CT's patient and study.
pub(crate) fn object(
    ct: &CtSeries,
    references: &References<'_>,
    class: &str,
    modality: &str,
    description: &str,
) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    // Whatever the CT's is: texts are written as UTF-8.
    object.put_text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
    for (tag, vr, always) in PATIENT_AND_STUDY {
        match ct.header.get(tag) {
            Some(element) => drop(object.put(DataElement::new(tag, vr, element.value().clone()))),
            None if always => drop(object.put(DataElement::new(tag, vr, PrimitiveValue::Empty))),
            None => {}
        }
    }
    object.put_text(tags::STUDY_INSTANCE_UID, VR::UI, &references.study);
    let [date, time] = now();
    object.put_text(tags::SOP_CLASS_UID, VR::UI, class);
    object.put_text(tags::SOP_INSTANCE_UID, VR::UI, &new_uid());
    object.put_text(tags::MODALITY, VR::CS, modality);
    object.put_text(tags::SERIES_INSTANCE_UID, VR::UI, &new_uid());
    object.put_text(tags::SERIES_DESCRIPTION, VR::LO, description);
    object.put_text(tags::SERIES_DATE, VR::DA, &date);
    object.put_text(tags::SERIES_TIME, VR::TM, &time);
    // Beside its CT in lists that are sorted by number.
    let number = ct.header.whole(tags::SERIES_NUMBER).filter(|&number| number < 1_000_000).unwrap_or(0);
    object.put_text(tags::SERIES_NUMBER, VR::IS, &(100 * number + 1).to_string());
    object.put_text(tags::INSTANCE_NUMBER, VR::IS, "1");
    object.put_text(tags::INSTANCE_CREATION_DATE, VR::DA, &date);
    object.put_text(tags::INSTANCE_CREATION_TIME, VR::TM, &time);
    object.put_text(tags::MANUFACTURER, VR::LO, PROGRAM);
    object.put_text(tags::MANUFACTURER_MODEL_NAME, VR::LO, PROGRAM);
    object.put_text(tags::DEVICE_SERIAL_NUMBER, VR::LO, "0");
    object.put_text(tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION"));
    object
}

/// Writes an object as a file in that transfer syntax; the file is whole or not there.
pub(crate) fn save(
    path: &Path,
    object: InMemDicomObject,
    syntax: &str,
    ct: &CtSeries,
    existing: Existing,
) -> Result<(), AnnotationError> {
    check_place(path, &ct.inputs(), existing)?;
    let error = |reason: String| AnnotationError::write(path)(std::io::Error::other(reason));
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(syntax)
        .implementation_class_uid(IMPLEMENTATION)
        .implementation_version_name("SAM-MIX");
    let object = object.with_meta(meta).map_err(|reason| error(reason.to_string()))?;
    // In memory first, so that what the disk refuses is told from what can't be encoded.
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).map_err(|reason| error(reason.to_string()))?;
    replace(path, |file| file.write_all(&bytes)).map_err(AnnotationError::write(path))
}

/// Puts elements.
pub(crate) trait Put {
    fn put_text(&mut self, tag: Tag, vr: VR, text: &str);
    fn put_short(&mut self, tag: Tag, value: u16);
    /// Decimal numbers.
    fn put_decimals(&mut self, tag: Tag, values: &[f64]);
    fn put_items(&mut self, tag: Tag, items: Vec<InMemDicomObject>);
}

impl Put for InMemDicomObject {
    fn put_text(&mut self, tag: Tag, vr: VR, text: &str) {
        self.put(DataElement::new(tag, vr, PrimitiveValue::from(text)));
    }

    fn put_short(&mut self, tag: Tag, value: u16) {
        self.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }

    fn put_decimals(&mut self, tag: Tag, values: &[f64]) {
        let texts = PrimitiveValue::Strs(values.iter().map(|&value| decimal(value)).collect());
        self.put(DataElement::new(tag, VR::DS, texts));
    }

    fn put_items(&mut self, tag: Tag, items: Vec<InMemDicomObject>) {
        self.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
    }
}

/// A number as a decimal string, which has 16 characters at most.
pub(crate) fn decimal(value: f64) -> String {
    const LONGEST: usize = 16;
    // Zero without a sign.
    let value = value + 0.0;
    let shortest = value.to_string();
    if shortest.len() <= LONGEST {
        return shortest;
    }
    let fixed = (0..=14).rev().map(|digits| format!("{value:.digits$}")).find(|text| text.len() <= LONGEST);
    // Below a millionth, more digits are kept as a power of ten.
    let scientific = (0..=9).rev().map(|digits| format!("{value:.digits$e}")).find(|text| text.len() <= LONGEST);
    if value.abs() < 1e-6 { scientific } else { fixed.or(scientific) }.unwrap_or_default()
}

/// A code as an item of a code sequence.
pub(crate) fn code(code: &Code) -> InMemDicomObject {
    let mut item = InMemDicomObject::new_empty();
    item.put_text(tags::CODE_VALUE, VR::SH, &code.value);
    item.put_text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, &code.scheme);
    item.put_text(tags::CODE_MEANING, VR::LO, &code.meaning);
    item
}

/// A UID made of a random UUID (PS3.5, B.2).
pub(crate) fn new_uid() -> String {
    let random: u128 = rand::random();
    // Version 4, variant 1 (RFC 9562, 5.4).
    let uuid = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    format!("2.25.{uuid}")
}

/// Date and time, UTC, as DICOM writes them.
pub(crate) fn now() -> [String; 2] {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let [year, month, day] = date(seconds / 86400);
    let time = seconds % 86400;
    [format!("{year:04}{month:02}{day:02}"), format!("{:02}{:02}{:02}", time / 3600, time / 60 % 60, time % 60)]
}

/// The date so many days after 1970-01-01, in the Gregorian calendar: years are counted from March, so that a leap day is a year's last.
fn date(days: u64) -> [u64; 3] {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let january_on = u64::from(month >= 10);
    [era * 400 + year + january_on, if month < 10 { month + 3 } else { month - 9 }, day]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        // `date -u -d @SECONDS`.
        for (days, expected) in [
            (0, [1970, 1, 1]),
            (59, [1970, 3, 1]),
            (11_016, [2000, 2, 29]),
            (11_017, [2000, 3, 1]),
            (19_722, [2023, 12, 31]),
            (19_782, [2024, 2, 29]),
            (20_788, [2026, 12, 1]),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn decimal_strings_have_sixteen_characters_and_the_digits_that_matter() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.8, "0.8"),
            (-235.199_997, "-235.199997"),
            (1.0 / 3.0, "0.33333333333333"),
            (-1000.0 / 3.0, "-333.33333333333"),
            (1e-9 / 3.0, "3.333333333e-10"),
            (-1e-9 / 3.0, "-3.333333333e-10"),
        ] {
            let text = decimal(value);
            assert_eq!(text, expected);
            assert!(text.len() <= 16);
        }
    }

    #[test]
    fn uids_are_random_uuids_under_the_root_for_them() {
        let [a, b] = [new_uid(), new_uid()];
        assert_ne!(a, b);
        let uuid: u128 = a.strip_prefix("2.25.").unwrap().parse().unwrap();
        assert_eq!((uuid >> 76 & 0xf, uuid >> 62 & 0x3), (4, 2));
        assert!(a.len() <= 64);
    }
}
