//! A slice's name and its row in the index.

use crate::natural_order;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A mask's pixel that counts in no loss and no metric: nobody knows whether it is the target.
pub const IGNORED: u8 = 255;

/// The target's pixels of a mask, 0 or 1: what is ignored is none.
pub fn target_of(truth: &[u8]) -> Cow<'_, [u8]> {
    if truth.contains(&IGNORED) {
        truth.iter().map(|&value| u8::from(value == 1)).collect()
    } else {
        Cow::Borrowed(truth)
    }
}

/// A predicted mask as far as it counts: where the truth is ignored, it is empty.
pub fn counted_of<'m>(mask: &'m [u8], truth: &[u8]) -> Cow<'m, [u8]> {
    if truth.contains(&IGNORED) {
        mask.iter().zip(truth).map(|(&mask, &truth)| if truth == IGNORED { 0 } else { mask }).collect()
    } else {
        Cow::Borrowed(mask)
    }
}

/// A slice of a case; written as `case/0012`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SliceId {
    /// The case, as the manifest names it.
    pub case: String,
    /// Index within the stored case; 0 is the most inferior slice.
    pub index: u32,
}

impl Ord for SliceId {
    /// By case in natural order, then by index: the order of the store's rows.
    fn cmp(&self, other: &Self) -> Ordering {
        natural_order(&self.case, &other.case).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for SliceId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SliceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:04}", self.case, self.index)
    }
}

/// A text is not a slice's name.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' does not name a slice: expected CASE/INDEX, for example 'volume-3/0012'")]
pub struct ParseSliceIdError(String);

impl FromStr for SliceId {
    type Err = ParseSliceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseSliceIdError(text.to_owned());
        let (case, index) = text.rsplit_once('/').ok_or_else(error)?;
        // `u32::from_str` would also take "+1".
        if case.is_empty() || !index.bytes().all(|c| c.is_ascii_digit()) {
            return Err(error());
        }
        Ok(Self { case: case.to_owned(), index: index.parse().map_err(|_| error())? })
    }
}

impl Serialize for SliceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SliceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether a slice shows the target: the image-level label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Present,
    /// It doesn't.
    Absent,
    /// Nobody has said.
    Unknown,
}

/// Who says whether a slice shows the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceSource {
    /// Its mask.
    Mask,
    /// A list of image-level labels.
    List,
    /// A label of its whole volume, which says that some slice shows the target, and not which.
    Volume,
    /// Nobody.
    None,
}

/// What the annotation of a slice is, and what it says of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SliceLabel {
    /// The store has its mask, which shows the target.
    MaskPresent,
    /// The store has its mask, which is empty.
    MaskAbsent,
    /// There is no mask; a list says that it shows the target.
    ListPresent,
    /// There is no mask; a list says that it doesn't show the target.
    ListAbsent,
    /// There is neither, but its volume is said to show the target somewhere.
    VolumePresent,
    /// There is nothing.
    Unknown,
}

impl SliceLabel {
    /// Of a slice whose mask is given: 0, 1 or [`IGNORED`]. One without the target of which a part is ignored says nothing: the target may
    /// be there.
    pub fn of_mask(mask: &[u8]) -> Self {
        match (mask.contains(&1), mask.contains(&IGNORED)) {
            (true, _) => Self::MaskPresent,
            (false, false) => Self::MaskAbsent,
            (false, true) => Self::Unknown,
        }
    }

    /// Whether the slice shows the target.
    pub fn presence(self) -> Presence {
        match self {
            Self::MaskPresent | Self::ListPresent => Presence::Present,
            Self::MaskAbsent | Self::ListAbsent => Presence::Absent,
            Self::VolumePresent | Self::Unknown => Presence::Unknown,
        }
    }

    /// Who says so.
    pub fn source(self) -> PresenceSource {
        match self {
            Self::MaskPresent | Self::MaskAbsent => PresenceSource::Mask,
            Self::ListPresent | Self::ListAbsent => PresenceSource::List,
            Self::VolumePresent => PresenceSource::Volume,
            Self::Unknown => PresenceSource::None,
        }
    }

    /// The texts of the index's columns `presence` and `presence_source`.
    pub(crate) fn columns(self) -> (&'static str, &'static str) {
        match self {
            Self::MaskPresent => ("present", "mask"),
            Self::MaskAbsent => ("absent", "mask"),
            Self::ListPresent => ("present", "list"),
            Self::ListAbsent => ("absent", "list"),
            Self::VolumePresent => ("unknown", "volume"),
            Self::Unknown => ("unknown", "none"),
        }
    }

    /// The label that those texts mean.
    pub(crate) fn from_columns(presence: &str, source: &str) -> Option<Self> {
        [Self::MaskPresent, Self::MaskAbsent, Self::ListPresent, Self::ListAbsent, Self::VolumePresent, Self::Unknown]
            .into_iter()
            .find(|label| label.columns() == (presence, source))
    }
}

/// A row of `index.parquet`: what is known of a slice without opening its pixels or its mask.
///
/// It holds no path and no name that could identify a person: the patient is the manifest's key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceRecord {
    /// The case: one volume, one file in `images/`.
    pub case: String,
    /// The patient's key; several cases may share it.
    pub patient: String,
    /// Index within the stored case; 0 is the most inferior slice.
    pub index: u32,
    /// Position of the slice's centre along the slice axis in mm of patient coordinates, superior positive.
    pub position_mm: f32,
    /// Distance of the stored (resized) slice's rows in mm.
    pub row_spacing_mm: f32,
    /// Distance of the stored (resized) slice's columns in mm.
    pub column_spacing_mm: f32,
    /// Distance to the next slice in mm.
    pub slice_spacing_mm: f32,
    /// False where millimetres can't be trusted: an identity affine, or the manifest says so.
    pub spacing_valid: bool,
    /// What the slice's annotation is, and whether it shows the target.
    pub label: SliceLabel,
    /// SHA-256 (hexadecimal) that identifies the case's source files, image and mask.
    pub source_sha256: String,
}

impl SliceRecord {
    /// Whether the slice shows the target: the image-level label.
    pub fn presence(&self) -> Presence {
        self.label.presence()
    }

    /// Whether the slice is known to show the target; one of which nobody has said so doesn't count.
    pub fn has_target(&self) -> bool {
        self.presence() == Presence::Present
    }

    /// Whether the store has a mask of the slice.
    pub fn has_mask(&self) -> bool {
        self.label.source() == PresenceSource::Mask
    }

    /// The slice's name.
    pub fn id(&self) -> SliceId {
        SliceId { case: self.case.clone(), index: self.index }
    }
}

/// What is known of slices, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelCounts {
    /// All of them.
    pub slices: usize,
    /// What is known of whether they show the target.
    pub presence: PresenceCounts,
    /// Those that have a mask.
    pub masks: usize,
}

/// Slices by whether they show the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PresenceCounts {
    /// They do.
    pub present: usize,
    /// They don't.
    pub absent: usize,
    /// Nobody has said.
    pub unknown: usize,
}

impl LabelCounts {
    /// Counts.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a SliceRecord>) -> Self {
        let mut counts = Self::default();
        for record in records {
            counts.slices += 1;
            counts.masks += usize::from(record.has_mask());
            *match record.presence() {
                Presence::Present => &mut counts.presence.present,
                Presence::Absent => &mut counts.presence.absent,
                Presence::Unknown => &mut counts.presence.unknown,
            } += 1;
        }
        counts
    }

    /// For people: `112 slices, 42 with liver`; and where not every slice has a mask, `31 of unknown presence, 50 with a mask`.
    pub fn words(&self, target: &str) -> String {
        let Self { slices, presence, masks } = self;
        let known = format!("{}, {} with {target}", counted(*slices, "slice"), presence.present);
        if masks == slices {
            return known;
        }
        format!("{known}, {} without, {} of unknown presence; {masks} have a mask", presence.absent, presence.unknown)
    }
}

/// `1 case`, `2 cases`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slice_names_are_ordered_by_number_and_written_with_four_digits() {
        let name = |case: &str, index| SliceId { case: case.to_owned(), index };
        assert_eq!(name("volume-3", 12).to_string(), "volume-3/0012");
        assert!(name("volume-3", 12) < name("volume-10", 0));
        assert_eq!(serde_json::to_string(&name("a", 12345)).unwrap(), "\"a/12345\"");
    }

    #[test]
    fn text_without_case_or_index_is_refused() {
        for text in ["", "volume-3", "/0001", "a/", "a/+1", "a/x", "a/99999999999"] {
            assert!(text.parse::<SliceId>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_slice_name_survives_writing_and_reading(case in "[A-Za-z0-9_. -]{1,12}", index: u32) {
            let id = SliceId { case, index };
            prop_assert_eq!(&id.to_string().parse::<SliceId>().unwrap(), &id);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<SliceId>(&json).unwrap(), id);
        }
    }
}
