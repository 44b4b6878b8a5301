//! What a DICOM object is that is no CT: by its class and modality, in the standard's words.
//!
//! Invariant: only words of the standard are shown, never a header's own text.

use super::header::Uid;
use dicom_core::dictionary::UidDictionary;
use dicom_dictionary_std::StandardSopClassDictionary;
use std::fmt;

/// Terms for modalities (PS3.3, C.7.3.1.1.1) that patients' folders hold.
const MODALITIES: [&str; 35] = [
    "AU", "BI", "CR", "CT", "DOC", "DX", "ECG", "ES", "GM", "IO", "IVUS", "KO", "M3D", "MG", "MR", "NM", "OP", "OPT",
    "OT", "PLAN", "PR", "PT", "PX", "REG", "RF", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD", "RTSTRUCT", "SEG", "SM",
    "SR", "US", "XA",
];

/// What an object is, as far as its header says it in words of the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    modality: Option<&'static str>,
    class: Option<&'static str>,
}

/// The term of the standard.
pub(super) fn modality(text: &str) -> Option<&'static str> {
    let text = text.trim_matches([' ', '\0']);
    MODALITIES.into_iter().find(|known| *known == text)
}

impl Kind {
    pub fn of(modality: Option<&str>, class: Option<&Uid>) -> Self {
        let class = class.and_then(|class| StandardSopClassDictionary.by_uid(class.as_str()));
        Self { modality: modality.and_then(self::modality), class: class.map(|class| class.name) }
    }

    /// Whether it is a CT image or may be one.
    pub fn may_be_ct(self) -> bool {
        self.modality.is_none_or(|modality| modality == "CT")
            && self.class.is_none_or(|class| class.contains("CT Image"))
    }

    /// What to do with it, where its contents may be wanted.
    pub fn way_out(self) -> &'static str {
        match (self.modality, self.class) {
            (Some("SEG"), _) | (_, Some("Segmentation Storage")) => {
                "convert it to NIfTI or NRRD, for example with `segimage2itkimage` of dcmqi"
            }
            (Some("RTSTRUCT"), _) | (_, Some("RT Structure Set Storage")) => {
                "convert its contours to a mask in NIfTI or NRRD, for example with `plastimatch convert` or 3D Slicer"
            }
            _ => "expected the slices of a CT, or a mask in NIfTI, NRRD or MetaImage",
        }
    }
}

impl fmt::Display for Kind {
    /// The end of a sentence that begins with "DICOM object".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.modality, self.class) {
            (Some(modality), Some(class)) => write!(f, " of modality {modality} ({class})"),
            (Some(modality), None) => write!(f, " of modality {modality}"),
            (None, Some(class)) => write!(f, " of the class {class}"),
            (None, None) => f.write_str(" of an unknown kind"),
        }
    }
}
