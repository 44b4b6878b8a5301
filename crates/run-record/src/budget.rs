//! The label budget: what annotators had to say so that a run could be trained, one annotation at a time.

use serde::{Deserialize, Serialize};
use slice_store::{SliceId, counted};
use std::collections::BTreeMap;
use std::fmt;

/// A kind of annotation, in the order of what one costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Annotation {
    /// Masks of training slices: the N labelled ones.
    Masks,
    /// Masks of the slices that chose the best checkpoint.
    ValidationMasks,
    /// Whether a crop of a training slice shows the target, from an annotator who sees that crop.
    CropLabels,
    /// Whether a training slice shows the target: taught to the classifier.
    ImageLevelLabels,
    /// Whether some slice of a training volume shows the target: taught to the classifier. Of each volume one slice stands for it.
    VolumeLabels,
    /// The same as for a slice, of slices of which nothing else is known: used to choose the labelled ones among them, and not taught.
    SelectionLabels,
}

impl Annotation {
    /// `count` of them, in words.
    fn words(self, count: usize) -> String {
        let (noun, of) = match self {
            Self::Masks => ("mask", ""),
            Self::ValidationMasks => ("validation mask", ""),
            Self::CropLabels => ("crop label", ""),
            Self::ImageLevelLabels => ("image-level label", ""),
            Self::VolumeLabels => ("volume-level label", ""),
            Self::SelectionLabels => ("image-level label", " to choose the labelled slices by"),
        };
        format!("{}{of}", counted(count, noun))
    }
}

/// What one annotation takes an annotator, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelSeconds {
    /// The mask of a slice, of training or of validation.
    pub mask: f64,
    /// Whether a crop shows the target.
    pub crop: f64,
    /// Whether a slice shows the target.
    pub image_level: f64,
    /// Whether a volume does.
    pub volume_level: f64,
    /// A box around the target of a slice. Training reads none: it is what the oracle row of an evaluation would cost.
    #[serde(rename = "box")]
    pub box_around: f64,
}

impl Default for LabelSeconds {
    fn default() -> Self {
        Self { mask: 120.0, crop: 2.0, image_level: 2.0, volume_level: 2.0, box_around: 10.0 }
    }
}

impl LabelSeconds {
    fn of(self, kind: Annotation) -> f64 {
        match kind {
            Annotation::Masks | Annotation::ValidationMasks => self.mask,
            Annotation::CropLabels => self.crop,
            Annotation::VolumeLabels => self.volume_level,
            Annotation::ImageLevelLabels | Annotation::SelectionLabels => self.image_level,
        }
    }
}

/// The annotations of a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// How many.
    pub count: usize,
    /// Their slices, one for each; absent in records of older programs and beside results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceId>,
}

/// Every annotation that training read, by kind; a kind that it read none of is absent. What follows from another annotation is
/// not counted again: a mask says whether its slice, or a crop of it, shows the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Known")]
pub struct LabelBudget {
    #[serde(flatten)]
    by_kind: BTreeMap<Annotation, Labels>,
    /// What all of it takes an annotator, as the configuration has it for one of each kind; absent in records of older programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// As this program writes it, or as older ones did.
#[derive(Deserialize)]
struct Known {
    labelled_slices: Option<usize>,
    validation_slices: Option<usize>,
    seconds: Option<f64>,
    #[serde(flatten)]
    by_kind: BTreeMap<Annotation, Labels>,
}

impl From<Known> for LabelBudget {
    fn from(known: Known) -> Self {
        let mut budget = Self { by_kind: known.by_kind, seconds: known.seconds };
        let counts =
            [(Annotation::Masks, known.labelled_slices), (Annotation::ValidationMasks, known.validation_slices)];
        for (kind, count) in counts {
            if let Some(count) = count.filter(|count| *count > 0) {
                budget.by_kind.entry(kind).or_insert(Labels { count, slices: Vec::new() });
            }
        }
        budget
    }
}

impl LabelBudget {
    /// In the place of what was said of that kind.
    pub fn set(&mut self, kind: Annotation, slices: Vec<SliceId>) {
        if slices.is_empty() {
            self.by_kind.remove(&kind);
        } else {
            self.by_kind.insert(kind, Labels { count: slices.len(), slices });
        }
    }

    /// Adds what a run before this one read, whose labelled slices are among this one's; of what both read once. An answer about a crop is
    /// the same one only if both show the `same_crops`.
    pub fn include(&mut self, before: &Self, same_crops: bool) {
        for (&kind, of) in &before.by_kind {
            let mut slices = self.slices(kind).to_vec();
            let is_new = |slice: &&SliceId| kind == Annotation::CropLabels && !same_crops || !slices.contains(slice);
            let new: Vec<SliceId> = of.slices.iter().filter(is_new).cloned().collect();
            slices.extend(new);
            self.set(kind, slices);
        }
        // A mask says it too.
        let masks = self.slices(Annotation::Masks).to_vec();
        let taught = self.slices(Annotation::ImageLevelLabels).to_vec();
        for kind in [Annotation::ImageLevelLabels, Annotation::SelectionLabels] {
            let is_known = |slice: &SliceId| {
                masks.contains(slice) || kind == Annotation::SelectionLabels && taught.contains(slice)
            };
            let left = self.slices(kind).iter().filter(|slice| !is_known(slice)).cloned().collect();
            self.set(kind, left);
        }
    }

    /// How many of a kind.
    pub fn count(&self, kind: Annotation) -> usize {
        self.by_kind.get(&kind).map_or(0, |labels| labels.count)
    }

    /// The slices of a kind, where they are known.
    pub fn slices(&self, kind: Annotation) -> &[SliceId] {
        self.by_kind.get(&kind).map_or(&[], |labels| &labels.slices)
    }

    /// The numbers alone, to stand beside a result.
    #[must_use]
    pub fn counts(&self) -> Self {
        let counts = self.by_kind.iter().map(|(kind, of)| (*kind, Labels { count: of.count, slices: Vec::new() }));
        Self { by_kind: counts.collect(), seconds: self.seconds }
    }

    /// Says what it takes an annotator, if one of each kind takes so long.
    pub fn set_seconds(&mut self, one: LabelSeconds) {
        self.seconds = Some(self.by_kind.iter().map(|(kind, of)| of.count as f64 * one.of(*kind)).sum());
    }

    /// What it takes an annotator, in words: `, about 2 h 48 min of an annotator's time`; empty where that isn't known.
    pub fn time(&self) -> String {
        let seconds = self.seconds.filter(|seconds| *seconds > 0.0);
        seconds.map_or_else(String::new, |seconds| format!(", {}", annotators_time(seconds)))
    }
}

/// `about 2 h 48 min of an annotator's time`.
pub fn annotators_time(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    let time = match minutes {
        0..60 => format!("{} min", minutes.max(1)),
        _ => format!("{} h {:02} min", minutes / 60, minutes % 60),
    };
    format!("about {time} of an annotator's time")
}

/// `5 masks, 32 validation masks, 700 crop labels`.
impl fmt::Display for LabelBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.by_kind.iter().map(|(kind, of)| kind.words(of.count)).collect();
        f.write_str(if parts.is_empty() { "none" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_written_by_kind_and_read_back_as_itself() {
        let ids = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let mut budget = LabelBudget::default();
        budget.set(Annotation::CropLabels, ids(&["a/0001", "a/0002"]));
        budget.set(Annotation::Masks, ids(&["a/0003"]));
        budget.set(Annotation::ValidationMasks, ids(&[]));
        let text = serde_json::to_string(&budget).unwrap();
        let expected =
            r#"{"masks":{"count":1,"slices":["a/0003"]},"crop_labels":{"count":2,"slices":["a/0001","a/0002"]}}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<LabelBudget>(&text).unwrap(), budget);
        assert_eq!(budget.to_string(), "1 mask, 2 crop labels");
        assert_eq!(
            serde_json::to_string(&budget.counts()).unwrap(),
            r#"{"masks":{"count":1},"crop_labels":{"count":2}}"#
        );
    }

    #[test]
    fn what_a_run_before_read_counts_once() {
        use Annotation::{CropLabels, ImageLevelLabels, Masks, SelectionLabels};
        let ids = |names: &[&str]| -> Vec<SliceId> { names.iter().map(|name| name.parse().unwrap()).collect() };
        let budget = |kinds: &[(Annotation, &[&str])]| {
            let mut budget = LabelBudget::default();
            for (kind, names) in kinds {
                budget.set(*kind, ids(names));
            }
            budget
        };
        let before = budget(&[(Masks, &["a/0"]), (CropLabels, &["a/1"]), (ImageLevelLabels, &["a/2", "a/3"])]);
        let own = budget(&[(Masks, &["a/0", "a/2"]), (CropLabels, &["a/1"]), (SelectionLabels, &["a/3"])]);
        for (same_crops, crops) in [(true, 1), (false, 2)] {
            let mut both = own.clone();
            both.include(&before, same_crops);
            let counts = [Masks, CropLabels, ImageLevelLabels, SelectionLabels].map(|kind| both.count(kind));
            assert_eq!(counts, [2, crops, 1, 0]);
        }
    }

    #[test]
    fn what_a_budget_takes_is_the_sum_of_its_annotations() {
        let ids = |count| (0..count).map(|i| format!("a/{i:04}").parse().unwrap()).collect();
        let mut budget = LabelBudget::default();
        budget.set(Annotation::Masks, ids(50));
        budget.set(Annotation::ValidationMasks, ids(32));
        budget.set(Annotation::CropLabels, ids(120));
        assert_eq!(budget.time(), "");
        budget.set_seconds(LabelSeconds::default());
        assert_eq!(budget.time(), ", about 2 h 48 min of an annotator's time");
        let text = serde_json::to_string(&budget.counts()).unwrap();
        assert!(text.ends_with(r#""crop_labels":{"count":120},"seconds":10080.0}"#), "{text}");
        assert_eq!(serde_json::from_str::<LabelBudget>(&text).unwrap(), budget.counts());
        budget.set_seconds(LabelSeconds { mask: 0.0, ..LabelSeconds::default() });
        assert_eq!(budget.time(), ", about 4 min of an annotator's time");
    }

    #[test]
    fn a_budget_of_an_older_program_keeps_its_numbers() {
        let budget: LabelBudget =
            serde_json::from_str(r#"{ "labelled_slices": 50, "validation_slices": 32 }"#).unwrap();
        assert_eq!(budget.to_string(), "50 masks, 32 validation masks");
        assert_eq!((budget.count(Annotation::Masks), budget.slices(Annotation::Masks).len()), (50, 0));
        assert_eq!(budget.count(Annotation::CropLabels), 0);
    }
}
