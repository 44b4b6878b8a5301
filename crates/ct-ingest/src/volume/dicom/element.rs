//! The header of one element (PS3.5, section 7.1).

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

/// The tag of an item; its group is that of items and delimiters.
pub(super) const ITEM: Tag = Tag(0xfffe, 0xe000);

/// How elements are written.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    pub explicit: bool,
    pub big: bool,
}

/// An element's header.
pub(super) struct Element {
    pub tag: Tag,
    pub vr: VR,
    pub length: u32,
    /// Bytes of the header.
    pub header: usize,
}

impl Element {
    /// The header at the beginning of `bytes`; `None` where they end within it.
    pub fn read(bytes: &[u8], encoding: Encoding) -> Option<Self> {
        let short = |at: usize| {
            let bytes = *bytes.get(at..)?.first_chunk()?;
            Some(if encoding.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
        };
        let long = |at: usize| {
            let bytes = *bytes.get(at..)?.first_chunk()?;
            Some(if encoding.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
        };
        let tag = Tag(short(0)?, short(2)?);
        if tag.group() == ITEM.group() {
            // Items and delimiters have no type.
            return Some(Self { tag, vr: VR::UN, length: long(4)?, header: 8 });
        }
        if !encoding.explicit {
            let known = StandardDataDictionary.by_tag(tag).map(|entry| entry.vr().relaxed());
            return Some(Self { tag, vr: known.unwrap_or(VR::UN), length: long(4)?, header: 8 });
        }
        // As the parser does: what is no type is an unknown one.
        let vr = VR::from_binary(*bytes.get(4..)?.first_chunk()?).unwrap_or(VR::UN);
        match vr {
            VR::OB
            | VR::OD
            | VR::OF
            | VR::OL
            | VR::OV
            | VR::OW
            | VR::SQ
            | VR::SV
            | VR::UC
            | VR::UN
            | VR::UR
            | VR::UT
            | VR::UV => Some(Self { tag, vr, length: long(8)?, header: 12 }),
            _ => Some(Self { tag, vr, length: short(6)?.into(), header: 8 }),
        }
    }
}
