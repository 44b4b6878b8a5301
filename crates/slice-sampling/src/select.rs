//! The whole choice of a run, and its file.

use crate::subset::chosen_by;
use crate::{Pool, SamplingError, Sights, Split, SplitRule, SubsetStrategy, keep_middle, split_patients};
use serde::{Deserialize, Serialize};
use slice_store::{SliceId, SliceRecord};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Most slices that may choose a checkpoint; their masks count in the label budget.
const MOST_VALIDATION_SLICES: usize = 32;

/// `[sampling]` in the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingSettings {
    /// How patients are split.
    #[serde(default)]
    pub split: SplitRule,
    /// N: slices whose masks are used.
    pub labelled: LabelledCount,
    /// The middle share of each training volume's slices that is used, in `(0, 1]`; the authors' script has 0.3.
    #[serde(default = "all")]
    pub keep_rate: f64,
    /// Slices of validation patients that choose the best checkpoint, at most 32.
    #[serde(default = "most")]
    pub validation_slices: usize,
    /// Name of the strategy that chooses the labelled slices.
    #[serde(default = "uniform")]
    pub strategy: String,
    /// A run that was trained on fewer slices of the same patients: its labelled slices are the first, and a strategy sees what it
    /// predicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<PathBuf>,
}

impl SamplingSettings {
    /// Whether each is in its range.
    pub(crate) fn check(&self) -> Result<(), SamplingError> {
        let refuse =
            |key, found: String, expected: &str| Err(SamplingError::Setting { key, found, expected: expected.into() });
        if !(self.keep_rate > 0.0 && self.keep_rate <= 1.0) {
            return refuse("keep_rate", self.keep_rate.to_string(), "more than 0, at most 1");
        }
        if self.labelled == LabelledCount::Number(0) {
            return refuse("labelled", "0".into(), "at least 1");
        }
        if self.validation_slices > MOST_VALIDATION_SLICES {
            return refuse("validation_slices", self.validation_slices.to_string(), "at most 32");
        }
        Ok(())
    }
}

/// How many slices' masks are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of slices, at least 1, or \"all\"")]
pub enum LabelledCount {
    /// So many.
    Number(usize),
    /// Those of every training slice with a mask that shows the target.
    All(All),
}

/// `"all"`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// The word.
    All,
}

impl LabelledCount {
    /// Of so many that there are.
    pub(crate) fn of(self, there: usize) -> usize {
        match self {
            Self::Number(count) => count,
            Self::All(All::All) => there.max(1),
        }
    }
}

impl From<usize> for LabelledCount {
    fn from(count: usize) -> Self {
        Self::Number(count)
    }
}

fn all() -> f64 {
    1.0
}

fn most() -> usize {
    MOST_VALIDATION_SLICES
}

fn uniform() -> String {
    "uniform".into()
}

/// Which slices do what, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Checksum of the store whose slices these are; absent in files of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_checksum: Option<String>,
    /// The seed that chose.
    pub seed: u64,
    /// The patients.
    pub split: Split,
    /// The labelled training slices.
    pub labelled: Vec<SliceId>,
    /// The validation slices.
    pub validation: Vec<SliceId>,
    /// All training slices: the classifier's.
    pub train: Vec<SliceId>,
    /// All slices of the test patients.
    pub test: Vec<SliceId>,
}

/// Chooses. `records` are a store's, sorted by case and index; `strategy` is the one that the settings name, and `sights` is what
/// it looks at.
///
/// # Errors
/// The settings are out of their ranges, patients can't be split as they say, there are too few slices with a mask that shows the
/// target, or the strategy fails.
pub fn select(
    records: &[SliceRecord],
    settings: &SamplingSettings,
    (strategy, sights): (&dyn SubsetStrategy, &dyn Sights),
    seed: u64,
) -> Result<Selection, SamplingError> {
    settings.check()?;
    let split = split_patients(records, &settings.split, seed)?;
    let of = |patients: &[String]| -> Vec<&SliceRecord> {
        records.iter().filter(|r| patients.contains(&r.patient)).collect()
    };
    let train = keep_middle(&of(&split.train), settings.keep_rate);
    let labelled = labelled(&train, settings.labelled, (strategy, sights), seed)?;
    let mut comparable = of(&split.validation);
    comparable.retain(|record| record.has_mask());
    let validation = evenly(&comparable, settings.validation_slices);
    let ids = |records: &[&SliceRecord]| -> Vec<SliceId> { records.iter().map(|r| r.id()).collect() };
    Ok(Selection {
        store_checksum: None,
        seed,
        labelled,
        validation: ids(&validation),
        train: ids(&train),
        test: ids(&of(&split.test)),
        split,
    })
}

/// So many of the pool's slices whose mask shows the target, in the pool's order: those that are labelled already, and what the strategy
/// chooses beside them.
fn labelled(
    pool: &[&SliceRecord],
    count: LabelledCount,
    (strategy, sights): (&dyn SubsetStrategy, &dyn Sights),
    seed: u64,
) -> Result<Vec<SliceId>, SamplingError> {
    let can_be: Vec<usize> = (0..pool.len()).filter(|&at| pool[at].has_target() && pool[at].has_mask()).collect();
    let count = count.of(can_be.len());
    if can_be.len() < count {
        return Err(SamplingError::TooFewSlices { asked: count, found: can_be.len() });
    }
    let (drawn, candidates): (Vec<usize>, Vec<usize>) =
        can_be.into_iter().partition(|&at| sights.drawn().contains(&pool[at].id()));
    let known = sights.drawn().len();
    if drawn.len() < known || known > count {
        return Err(SamplingError::Drawn { known, among: drawn.len(), asked: count });
    }
    let of = Pool { slices: pool, candidates: &candidates, drawn: &drawn, sights };
    let chosen = chosen_by(strategy, &of, count - known, seed)?;
    let mut places: Vec<usize> = drawn.into_iter().chain(chosen.into_iter().map(|choice| choice.place)).collect();
    places.sort_unstable();
    Ok(places.into_iter().map(|at| pool[at].id()).collect())
}

/// `count` of the records at even distances, the middles of equal stretches.
fn evenly<'a>(records: &[&'a SliceRecord], count: usize) -> Vec<&'a SliceRecord> {
    let count = count.min(records.len());
    (0..count).map(|i| records[(2 * i + 1) * records.len() / (2 * count)]).collect()
}

impl Selection {
    /// Writes it as JSON, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), SamplingError> {
        Ok(slice_store::replace_file(path, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            file.write_all(b"\n")
        })?)
    }

    /// Reads what [`Self::save`] wrote. What it says is yet to be compared with a store, by [`Self::check`].
    pub fn load(path: &Path) -> Result<Self, SamplingError> {
        let error = |reason: String| SamplingError::File { path: path.into(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
        serde_json::from_str(&text).map_err(|e| error(e.to_string()))
    }
}
