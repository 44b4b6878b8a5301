//! Elements of DICOM objects as the types they should have; what isn't there or isn't valid is `None`.

use dicom_core::Tag;
use dicom_object::InMemDicomObject;

/// Elements of an object or of an item of a sequence.
pub(crate) trait Header {
    /// A text without the padding around it.
    fn text(&self, tag: Tag) -> Option<String>;
    fn uid(&self, tag: Tag) -> Option<String>;
    fn whole(&self, tag: Tag) -> Option<u32>;
    fn numbers(&self, tag: Tag) -> Option<Vec<f64>>;
    /// The items of a sequence; none if it is not there.
    fn items(&self, tag: Tag) -> &[InMemDicomObject];

    /// So many numbers.
    fn vector<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        self.numbers(tag)?.try_into().ok()
    }
}

/// Digits and dots, so that no other text hides in it.
pub(crate) fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

impl Header for InMemDicomObject {
    fn text(&self, tag: Tag) -> Option<String> {
        let text = self.get(tag)?.to_str().ok()?;
        let text = text.trim_matches([' ', '\0']);
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn uid(&self, tag: Tag) -> Option<String> {
        self.text(tag).filter(|text| is_uid(text))
    }

    fn whole(&self, tag: Tag) -> Option<u32> {
        self.get(tag)?.to_int().ok()
    }

    fn numbers(&self, tag: Tag) -> Option<Vec<f64>> {
        let numbers = self.get(tag)?.to_multi_float64().ok()?;
        numbers.iter().all(|number| number.is_finite()).then_some(numbers)
    }

    fn items(&self, tag: Tag) -> &[InMemDicomObject] {
        self.get(tag).and_then(|element| element.items()).unwrap_or_default()
    }
}
