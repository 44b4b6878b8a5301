//! Whether the lengths in a DICOM file fit into the file, before a parser asks for that much memory.
//!
//! The parser of `dicom-object` takes a length at its word: four damaged bytes make it fill 4 GiB with zeros. And it calls
//! itself for each level of nested sequences. Here the elements' headers are walked along (PS3.5, section 7), values
//! skipped, and nothing is asked for.

use super::element::{Element, Encoding, ITEM};
use super::frame::Frame;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use flate2::read::DeflateDecoder;
use std::io::Read;

/// Sequences in sequences; real ones have five at most.
const DEEPEST: usize = 32;

/// What a deflated file may become.
const MOST_INFLATED: u64 = 1 << 28;

const UNDEFINED: u32 = u32::MAX;

/// Whether all elements fit: up to the pixels, or with them.
pub(super) fn fit(file: &Frame<'_>, pixels: bool) -> bool {
    let Some((meta, data_set)) = file.meta() else { return false };
    match meta.transfer_syntax() {
        "1.2.840.10008.1.2" => elements_fit(data_set, Encoding { explicit: false, big: false }, pixels),
        "1.2.840.10008.1.2.2" => elements_fit(data_set, Encoding { explicit: true, big: true }, pixels),
        "1.2.840.10008.1.2.1.99" => {
            let mut inflated = Vec::new();
            // Of a damaged stream the parser, which reads little by little, may see more than is here.
            let whole = DeflateDecoder::new(data_set).take(MOST_INFLATED).read_to_end(&mut inflated);
            whole.is_ok_and(|length| (length as u64) < MOST_INFLATED)
                && elements_fit(&inflated, Encoding { explicit: true, big: false }, pixels)
        }
        _ => elements_fit(data_set, Encoding { explicit: true, big: false }, pixels),
    }
}

fn elements_fit(bytes: &[u8], encoding: Encoding, pixels: bool) -> bool {
    let mut at = 0;
    // Where the sequences and items that we are in end, if they say so, and how their elements are written.
    let mut inside: Vec<(Option<usize>, Encoding)> = Vec::new();
    loop {
        while inside.last().is_some_and(|(end, _)| end.is_some_and(|end| at >= end)) {
            inside.pop();
        }
        let encoding = inside.last().map_or(encoding, |&(_, encoding)| encoding);
        // What is left is no element: the parser says so without memory.
        let Some(element) = bytes.get(at..).and_then(|rest| Element::read(rest, encoding)) else { return true };
        let Element { tag, vr, length, header } = element;
        if tag == tags::PIXEL_DATA && inside.is_empty() && !pixels {
            return true;
        }
        at += header;
        let end = (length != UNDEFINED).then(|| at.saturating_add(length as usize));
        if tag == tags::PIXEL_DATA && end.is_none() {
            let Some(after) = fragments_end(bytes, at, encoding) else { return false };
            at = after;
        } else if tag == ITEM || vr == VR::SQ || (end.is_none() && tag.group() != ITEM.group()) {
            // A sequence in an unknown element is implicit and little-endian (PS3.5, 6.2.2, note 4).
            let unknown = vr == VR::UN && tag != ITEM;
            let encoding = if unknown { Encoding { explicit: false, big: false } } else { encoding };
            inside.push((end, encoding));
            if inside.len() > DEEPEST || end.is_some_and(|end| end > bytes.len()) {
                return false;
            }
        } else if tag.group() == ITEM.group() {
            if length != 0 {
                return false;
            }
            inside.pop();
        } else {
            // The parser reads whole numbers only, and loses its place in a value that has half of one more.
            let whole = (length as usize).is_multiple_of(unit(vr));
            match end {
                Some(end) if end <= bytes.len() && whole => at = end,
                _ => return false,
            }
        }
    }
}

/// Bytes of one number of a type (PS3.5, table 6.2-1); of texts, 1.
fn unit(vr: VR) -> usize {
    match vr {
        VR::US | VR::SS | VR::OW => 2,
        VR::UL | VR::SL | VR::FL | VR::AT | VR::OF | VR::OL => 4,
        VR::FD | VR::UV | VR::SV | VR::OD | VR::OV => 8,
        _ => 1,
    }
}

/// Behind the delimiter of a packed picture's fragments.
fn fragments_end(bytes: &[u8], mut at: usize, encoding: Encoding) -> Option<usize> {
    loop {
        let fragment = Element::read(bytes.get(at..)?, encoding)?;
        at += fragment.header;
        if fragment.tag != ITEM {
            return Some(at);
        }
        at = at.checked_add(fragment.length as usize).filter(|&end| end <= bytes.len())?;
    }
}
