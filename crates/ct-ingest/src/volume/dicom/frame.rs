//! What a DICOM file begins with: preamble and file meta information (PS3.10, section 7.1), the latter alone, or nothing but the
//! data set, as some planning systems write it.

use super::element::{Element, Encoding};
use super::header::Uid;
use super::kind::{self, Kind};
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::{StandardDataDictionary, tags, uids};
use dicom_object::{FileMetaTable, FileMetaTableBuilder};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

const MAGIC: &[u8; 4] = b"DICM";

/// The first element of file meta information: its length.
const GROUP_LENGTH: &[u8; 8] = b"\x02\0\0\0UL\x04\0";

/// What UIDs of the standard begin with.
const STANDARD_ROOT: &str = "1.2.840.10008.";

/// A DICOM file in memory.
pub(super) struct Frame<'a> {
    /// Where the elements of the file meta information begin, or the data set if there are none.
    rest: &'a [u8],
    bare: Option<Bare>,
}

/// A data set without file meta information.
struct Bare {
    syntax: &'static str,
    class: Option<Uid>,
    modality: Option<&'static str>,
}

impl<'a> Frame<'a> {
    /// `None` if it is no DICOM, as far as its first elements tell.
    pub fn of(file: &'a [u8]) -> Option<Self> {
        let with_meta = |at: usize| Some(Self { rest: &file[at..], bare: None });
        if file.get(128..132) == Some(MAGIC) {
            with_meta(132)
        } else if file.starts_with(MAGIC) {
            with_meta(4)
        } else if file.starts_with(GROUP_LENGTH) {
            with_meta(0)
        } else {
            Bare::of(file).map(|bare| Self { rest: file, bare: Some(bare) })
        }
    }

    /// The file meta information, if it fits into the file, and the data set behind it.
    pub fn meta(&self) -> Option<(FileMetaTable, &'a [u8])> {
        if let Some(bare) = &self.bare {
            return Some((bare.meta()?, self.rest));
        }
        let data_set = self.rest.get(meta_end(self.rest)?..)?;
        let meta = || FileMetaTable::from_reader(MAGIC.chain(self.rest)).ok();
        Some((catch_unwind(AssertUnwindSafe(meta)).ok().flatten()?, data_set))
    }

    /// What its beginning says that it is.
    pub fn kind(&self) -> Kind {
        let modality = self.bare.as_ref().and_then(|bare| bare.modality);
        let class = self.meta().and_then(|(meta, _)| Uid::parse(meta.media_storage_sop_class_uid()));
        Kind::of(modality, class.as_ref())
    }

    /// The file as PS3.10 has it, with an empty preamble.
    pub fn reader(&self) -> Option<impl Read + 'a> {
        let mut beginning = vec![0; 128];
        beginning.extend(MAGIC);
        if let Some(bare) = &self.bare {
            bare.meta()?.write(&mut beginning).ok()?;
        }
        Some(std::io::Cursor::new(beginning).chain(self.rest))
    }
}

impl Bare {
    fn of(file: &[u8]) -> Option<Self> {
        [true, false].into_iter().find_map(|explicit| Self::in_encoding(file, explicit))
    }

    /// A data set begins with elements of group 8 in ascending order, of the types that they have in the standard; among them
    /// a SOP class of the standard or a modality says what it is. No other file has that by accident.
    fn in_encoding(file: &[u8], explicit: bool) -> Option<Self> {
        let syntax = if explicit { uids::EXPLICIT_VR_LITTLE_ENDIAN } else { uids::IMPLICIT_VR_LITTLE_ENDIAN };
        let (mut at, mut before) = (0, None);
        loop {
            let element = Element::read(file.get(at..)?, Encoding { explicit, big: false })?;
            let tag = element.tag;
            let known = StandardDataDictionary.by_tag(tag)?.vr().relaxed();
            if tag.group() != tags::MODALITY.group() || before >= Some(tag) || element.vr != known {
                return None;
            }
            at += element.header;
            let value = file.get(at..at.checked_add(element.length as usize)?)?;
            let text = || std::str::from_utf8(value).ok();
            if tag == tags::SOP_CLASS_UID
                && let Some(class) =
                    text().and_then(Uid::parse).filter(|class| class.as_str().starts_with(STANDARD_ROOT))
            {
                return Some(Self { syntax, class: Some(class), modality: None });
            }
            if tag == tags::MODALITY {
                return kind::modality(text()?).map(|term| Self { syntax, class: None, modality: Some(term) });
            }
            before = Some(tag);
            at += element.length as usize;
        }
    }

    fn meta(&self) -> Option<FileMetaTable> {
        let class = self.class.as_ref().map_or("", Uid::as_str);
        let meta = FileMetaTableBuilder::new().transfer_syntax(self.syntax).media_storage_sop_class_uid(class);
        meta.media_storage_sop_instance_uid("").build().ok()
    }
}

/// Where the data set begins: behind the file meta information, whose length is its first element, and whose elements are
/// explicit and little-endian.
fn meta_end(elements: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*elements.get(8..)?.first_chunk()?);
    let mut at = 12;
    let end = length as usize + at;
    while at < end {
        let element = Element::read(elements.get(at..)?, Encoding { explicit: true, big: false })?;
        at = at.checked_add(element.header)?.checked_add(element.length as usize)?;
    }
    (at <= elements.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Group 8 of a CT slice, implicit little-endian (PS3.5, 7.1.3).
    fn implicit(elements: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (element, value) in elements {
            bytes.extend([8, 0]);
            bytes.extend(element.to_le_bytes());
            bytes.extend((value.len() as u32).to_le_bytes());
            bytes.extend(*value);
        }
        bytes
    }

    const CT: &[u8] = b"1.2.840.10008.5.1.4.1.1.2\0";

    fn syntax(file: &[u8]) -> Option<&'static str> {
        Frame::of(file)?.bare.map(|bare| bare.syntax)
    }

    #[test]
    fn a_data_set_alone_is_recognised_by_its_class_or_its_modality() {
        let [by_class, by_modality] = [implicit(&[(0x05, b"ISO_IR 100"), (0x16, CT)]), implicit(&[(0x60, b"CT")])];
        assert_eq!(syntax(&by_class), Some("1.2.840.10008.1.2"));
        assert_eq!(syntax(&by_modality), Some("1.2.840.10008.1.2"));
        let explicit = [b"\x08\0\x16\0UI\x1a\0", CT].concat();
        assert_eq!(syntax(&explicit), Some("1.2.840.10008.1.2.1"));
        // An empty class says nothing.
        assert_eq!(syntax(&implicit(&[(0x16, b""), (0x60, b"CT")])), Some("1.2.840.10008.1.2"));
    }

    #[test]
    fn what_only_resembles_a_data_set_is_none() {
        assert_eq!(syntax(&implicit(&[(0x16, b"1.3.6.1.4.1\0"), (0x60, b"XX")])), None);
        assert_eq!(syntax(&implicit(&[(0x60, b"JANE")])), None);
        // Elements out of order, or twice there, or unknown, or of another type.
        assert_eq!(syntax(&implicit(&[(0x18, b"1.2\0"), (0x16, CT)])), None);
        assert_eq!(syntax(&implicit(&[(0x05, b""), (0x05, b""), (0x16, CT)])), None);
        assert_eq!(syntax(&implicit(&[(0x07, b""), (0x16, CT)])), None);
        assert_eq!(syntax(&[b"\x08\0\x16\0LO\x1a\0", CT].concat()), None);
        let whole = implicit(&[(0x05, b"ISO_IR 100"), (0x16, CT)]);
        assert!((0..whole.len()).all(|end| syntax(&whole[..end]).is_none()));
        assert_eq!(syntax(&[8, 0].repeat(1000)), None);
    }
}
