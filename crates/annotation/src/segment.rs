//! What a written segment says of itself.

use crate::AnnotationError;
use std::path::Path;

/// A concept in a coding scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its value.
    pub value: String,
    /// The scheme: `SCT` is SNOMED CT.
    pub scheme: String,
    /// What it means, in words.
    pub meaning: String,
}

impl Code {
    /// A concept of SNOMED CT.
    pub fn snomed(value: &str, meaning: &str) -> Self {
        Self { value: value.to_owned(), scheme: "SCT".to_owned(), meaning: meaning.to_owned() }
    }

    pub(crate) fn dcm(value: &str, meaning: &str) -> Self {
        Self { scheme: "DCM".to_owned(), ..Self::snomed(value, meaning) }
    }
}

/// What made a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A program alone.
    Automatic {
        /// The program's or the model's name.
        name: String,
        /// Its version.
        version: String,
    },
    /// A person.
    Manual,
}

/// A segment that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it is known by, here and in other programs.
    pub name: String,
    /// A sentence for people; may be empty.
    pub description: String,
    /// sRGB.
    pub colour: [u8; 3],
    /// What kind of thing it is.
    pub category: Code,
    /// What it is.
    pub kind: Code,
    /// What made it.
    pub algorithm: Algorithm,
}

/// What has a code and a colour of its own (3D Slicer's anatomical colours): name, value and meaning.
const KNOWN: [(&str, &str, &str, [u8; 3]); 11] = [
    ("liver", "10200004", "Liver", [221, 130, 101]),
    ("spleen", "78961009", "Spleen", [157, 108, 162]),
    ("pancreas", "15776009", "Pancreas", [249, 180, 111]),
    ("kidney", "64033007", "Kidney", [185, 102, 83]),
    ("stomach", "69695003", "Stomach", [216, 132, 105]),
    ("gallbladder", "28231008", "Gallbladder", [139, 150, 98]),
    ("heart", "80891009", "Heart", [206, 110, 84]),
    ("lung", "39607008", "Lung", [197, 165, 145]),
    ("lesion", "52988006", "Lesion", [253, 135, 192]),
    ("tumor", "108369006", "Tumor", [144, 238, 144]),
    ("tumour", "108369006", "Tumor", [144, 238, 144]),
];

/// Of those, what is no organ.
const ALTERED: [&str; 2] = ["Lesion", "Tumor"];

impl Segment {
    /// A segment with the code and colour of the organ, the lesion or the tumour that it is named after; of another name, `Tissue`, as 3D
    /// Slicer calls what is not told.
    pub fn named(name: &str, algorithm: Algorithm) -> Self {
        let known = KNOWN.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name.trim()));
        let tissue = || Code::snomed("85756007", "Tissue");
        let (category, kind, colour) = known.map_or_else(
            || (tissue(), tissue(), [128, 174, 128]),
            |(_, value, meaning, colour)| {
                let category = if ALTERED.contains(meaning) {
                    Code::snomed("49755003", "Morphologically Altered Structure")
                } else {
                    Code::snomed("123037004", "Anatomical Structure")
                };
                (category, Code::snomed(value, meaning), *colour)
            },
        );
        Self { name: name.to_owned(), description: String::new(), colour, category, kind, algorithm }
    }
}

/// A segment and its mask.
#[derive(Clone, Copy, Debug)]
pub struct Painted<'a> {
    /// What it is.
    pub segment: &'a Segment,
    /// 0, or anything else where the segment is; the voxel order of the CT's file, its first axis running fastest.
    pub mask: &'a [u8],
}

impl Painted<'_> {
    /// Whether these can be written for a CT of this shape.
    pub(crate) fn check(path: &Path, segments: &[Self], shape: [usize; 3]) -> Result<(), AnnotationError> {
        let error = |problem: String| Err(AnnotationError::Masks { path: path.to_path_buf(), problem });
        let expected: usize = shape.iter().product();
        let mut names: Vec<String> = Vec::new();
        if segments.is_empty() {
            return error("no segment is given".to_owned());
        }
        for Self { segment, mask } in segments {
            let name = segment.name.trim();
            let shown = name.escape_debug();
            if mask.len() != expected {
                return error(format!("the mask of '{shown}' has {} voxels, the CT has {expected}", mask.len()));
            }
            if names.contains(&name.to_lowercase()) {
                return error(format!("two of its segments have the name '{shown}', by which they are told apart"));
            }
            let texts = [name, segment.description.as_str()];
            let codes = [&segment.category, &segment.kind].map(|code| [&code.value, &code.scheme, &code.meaning]);
            // Slicer writes both codes into one line, with these between them.
            let between = |text: &&String| text.contains(|c: char| c.is_control() || "^~|\\".contains(c));
            if let Some(text) = codes.iter().flatten().copied().find(between) {
                return error(format!(
                    "the code of its segment '{shown}' has the text '{}', which the formats can't hold",
                    text.escape_debug()
                ));
            }
            if name.is_empty() || texts.iter().any(|text| text.contains(|c: char| c.is_control() || c == '\\')) {
                return error(format!(
                    "its segment '{shown}' has no name, or a line break or a backslash in its name or description, which the formats \
                     can't hold"
                ));
            }
            names.push(name.to_lowercase());
        }
        Ok(())
    }

    /// Whether DICOM's texts hold these names.
    pub(crate) fn check_for_dicom(path: &Path, segments: &[Self]) -> Result<(), AnnotationError> {
        const LONGEST: usize = 64;
        for Self { segment, .. } in segments {
            let algorithm = match &segment.algorithm {
                Algorithm::Automatic { name, version } => [name.as_str(), version.as_str()],
                Algorithm::Manual => [""; 2],
            };
            let texts = [segment.name.trim(), &segment.category.meaning, &segment.kind.meaning];
            if let Some(text) = texts
                .into_iter()
                .chain(algorithm)
                .find(|text| text.chars().count() > LONGEST || text.contains(|c: char| c.is_control() || c == '\\'))
            {
                let problem = format!(
                    "its segment '{}' has the text '{}', expected at most {LONGEST} characters and no backslash, which is what DICOM can \
                     hold",
                    segment.name.escape_debug(),
                    text.escape_debug()
                );
                return Err(AnnotationError::Masks { path: path.to_path_buf(), problem });
            }
        }
        if segments.len() > usize::from(u16::MAX) {
            let problem = format!("it has {} segments, expected at most 65535", segments.len());
            return Err(AnnotationError::Masks { path: path.to_path_buf(), problem });
        }
        Ok(())
    }
}
