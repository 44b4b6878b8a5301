//! What a file in a series' folder is, by its beginning.

use super::frame::Frame;
use super::header::{Header, Image, Series, Uid, plane};
use super::kind::Kind;
use super::lengths;
use crate::names::Pseudonyms;
use crate::volume::PatientId;
use dicom_dictionary_std::{tags, uids};
use dicom_object::file::ReadPreamble;
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Where a file that is no text has a zero byte, most often: at its beginning.
const TEXT_LOOKED_AT: usize = 4096;

/// What a file in the folder is.
pub(super) enum Entry {
    /// A CT image; whether it is a slice that can be read shows later, if its series is wanted.
    Image(Box<Image>),
    /// DICOM, but no part of a CT series.
    Other(Other),
    /// Not DICOM, and no text either: it may have been meant as a slice.
    Foreign,
    /// A text: a licence, notes.
    Text,
    /// Nothing, or zeros where a DICOM file begins with zeros: a copy that never got further.
    Empty,
    /// A CT image, for all that can be told, that can't be read.
    Broken { instance: Option<Uid>, reason: &'static str },
}

/// DICOM objects that are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Other {
    Localizer,
    NoCt(Kind),
    NoSlice,
}

impl Entry {
    /// Puts pseudonyms in the places of UIDs, and drops what is free text.
    pub fn hide(&mut self, hidden: &Pseudonyms) {
        let uids = match self {
            Self::Image(image) => {
                image.series.description = None;
                [image.series.uid.as_mut(), image.instance.as_mut()]
            }
            Self::Broken { instance, .. } => [instance.as_mut(), None],
            Self::Other(_) | Self::Foreign | Self::Text | Self::Empty => return,
        };
        for uid in uids.into_iter().flatten() {
            uid.hide(hidden);
        }
    }
}

/// All of a file up to the pixels, or with them. The reader's own messages quote what they stumble over, which may be the
/// patient's name; so there is none.
pub(super) fn parse(file: &Frame<'_>, pixels: bool) -> Option<DefaultDicomObject> {
    if !lengths::fit(file, pixels) {
        return None;
    }
    let options = OpenFileOptions::new().read_preamble(ReadPreamble::Always);
    let options = if pixels { options.read_to(tags::PIXEL_DATA) } else { options.read_until(tags::PIXEL_DATA) };
    let reader = file.reader()?;
    catch_unwind(AssertUnwindSafe(|| options.from_reader(reader).ok())).ok().flatten()
}

/// Looks at a file's beginning.
pub(super) fn entry(file: PathBuf, sha256: String, bytes: &[u8]) -> Entry {
    let Some(frame) = Frame::of(bytes) else { return foreign(bytes) };
    let Some(object) = parse(&frame, false) else { return unreadable(&frame) };
    let header = Header(&object);
    let class = header.uid(tags::SOP_CLASS_UID).or_else(|| Uid::parse(object.meta().media_storage_sop_class_uid()));
    let is_ct = class.as_ref().is_some_and(|class| class.as_str() == uids::CT_IMAGE_STORAGE);
    let instance =
        header.uid(tags::SOP_INSTANCE_UID).or_else(|| Uid::parse(object.meta().media_storage_sop_instance_uid()));
    match header.text(tags::MODALITY).as_deref() {
        Some("CT") => {}
        None if is_ct => return Entry::Broken { instance, reason: "its header ends early" },
        modality => return Entry::Other(Other::NoCt(Kind::of(modality, class.as_ref()))),
    }
    if header.texts(tags::IMAGE_TYPE).iter().any(|word| word == "LOCALIZER") {
        return Entry::Other(Other::Localizer);
    }
    let multi_frame = is_multi_frame(&header, class.as_ref());
    let has_place = header.numbers::<3>(tags::IMAGE_POSITION_PATIENT).is_some()
        && header.numbers::<6>(tags::IMAGE_ORIENTATION_PATIENT).is_some();
    let has_pixels = header.size(tags::ROWS).is_some();
    if !has_pixels || !(is_ct || multi_frame || has_place) {
        let broken = Entry::Broken { instance, reason: "its header ends early" };
        return if is_ct { broken } else { Entry::Other(Other::NoSlice) };
    }
    let plane = if multi_frame {
        Err("is a multi-frame (enhanced) CT object, expected one slice a file; convert it to single-frame CT images or \
             to NIfTI"
            .to_owned())
    } else {
        plane(&header, object.meta().transfer_syntax())
    };
    let patient = header.text(tags::PATIENT_ID).map(PatientId);
    let series = Series::of(&header);
    Entry::Image(Box::new(Image { file, name: String::new(), sha256, series, instance, patient, plane }))
}

fn foreign(bytes: &[u8]) -> Entry {
    if bytes.len() <= 132 && bytes.iter().take(128).all(|&byte| byte == 0) {
        return Entry::Empty;
    }
    let looked_at = &bytes[..bytes.len().min(TEXT_LOOKED_AT)];
    if looked_at.contains(&0) { Entry::Foreign } else { Entry::Text }
}

/// A DICOM file that can't be parsed is no matter if the little that can be says that it is no CT image.
fn unreadable(file: &Frame<'_>) -> Entry {
    let Some((meta, _)) = file.meta() else {
        return Entry::Broken { instance: None, reason: "its file meta information is damaged" };
    };
    match Uid::parse(meta.media_storage_sop_class_uid()) {
        Some(class) if class.as_str() != uids::CT_IMAGE_STORAGE => {
            Entry::Other(Other::NoCt(Kind::of(None, Some(&class))))
        }
        _ => Entry::Broken {
            instance: Uid::parse(meta.media_storage_sop_instance_uid()),
            reason: "its header is damaged, ends early or has an unknown transfer syntax",
        },
    }
}

fn is_multi_frame(header: &Header<'_>, class: Option<&Uid>) -> bool {
    let enhanced = [uids::ENHANCED_CT_IMAGE_STORAGE, uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE];
    class.is_some_and(|class| enhanced.contains(&class.as_str()))
        || header.number(tags::NUMBER_OF_FRAMES).is_some_and(|frames| frames > 1.0)
}
