//! What the figures of a data set allow to say: intervals over patients, and paired tests of every model against the first.

use run_record::VolumeResults;
use serde::Serialize;
use statistics::{Cell, PairedTest, Resampling, Score, Scores, Statistic, compare, sign_flip_test};
use std::collections::BTreeMap;

use super::experiment::{Experiment, Row};
use super::results::{RowResults, Run};

/// Of Holm-corrected p.
const SIGNIFICANCE: f64 = 0.05;

/// A metric of which single patients' values are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean over the slices with the target.
    DiceLiver,
    /// Mean over volumes.
    DiceVolume,
}

pub const METRICS: [Metric; 2] = [Metric::DiceLiver, Metric::DiceVolume];

impl Metric {
    /// TARGET stands for the organ.
    pub fn title(self) -> &'static str {
        match self {
            Self::DiceLiver => "Dice (TARGET slices)",
            Self::DiceVolume => "Dice (volume)",
        }
    }

    /// A volume's value, and for how many it stands.
    fn of(self, volume: &VolumeResults) -> Option<(f64, usize)> {
        match self {
            Self::DiceLiver => Some((volume.dice_liver?, volume.liver_slices)),
            Self::DiceVolume => Some((volume.dice_volume, 1)),
        }
    }
}

/// A row's figure of a metric on a data set, or why there is none.
pub enum Entry {
    /// Nothing was evaluated.
    Nothing,
    Known(Cell),
    /// There are values, but no answer.
    Unknown(String),
}

/// Of a row, by metric.
pub type Entries = [Entry; 2];

/// Of every row on a store. The tests of both metrics are one family.
pub fn entries(experiment: &Experiment, results: &[RowResults], store: usize) -> Vec<Entries> {
    let scores: Vec<[Option<Result<Scores, String>>; 2]> =
        results.iter().map(|row| METRICS.map(|metric| scores(&row.runs, store, metric))).collect();
    let mut family: Vec<(usize, usize, PairedTest)> = Vec::new();
    let mut entries: Vec<Entries> = scores.iter().map(|of| [0, 1].map(|metric| entry(of[metric].as_ref()))).collect();
    for (row, of) in scores.iter().enumerate() {
        let Some(first) = reference(&experiment.rows, row) else { continue };
        for metric in 0..METRICS.len() {
            let (Some(Ok(own)), Some(Ok(firsts))) = (&of[metric], &scores[first][metric]) else { continue };
            match own.minus(firsts) {
                Ok(differences) => {
                    family.push((row, metric, sign_flip_test(&differences, Statistic::SliceMean, 0)));
                }
                Err(error) => entries[row][metric] = Entry::Unknown(error.to_string()),
            }
        }
    }
    let tests: Vec<PairedTest> = family.iter().map(|(.., test)| *test).collect();
    // Levels and p are in their ranges.
    for ((row, metric, _), comparison) in family.iter().zip(compare(&tests, SIGNIFICANCE).unwrap_or_default()) {
        if let Entry::Known(cell) = &mut entries[*row][*metric] {
            cell.comparison = Some(comparison);
        }
    }
    entries
}

/// The row that another is compared with: the first model's of the same budget, or of its last one where it has no such.
pub fn reference(rows: &[Row], row: usize) -> Option<usize> {
    let firsts = || rows.iter().take_while(|other| other.model.key == rows[0].model.key).count();
    let same = rows[..firsts()].iter().position(|other| other.budget == rows[row].budget);
    (row >= firsts()).then(|| same.unwrap_or(firsts() - 1))
}

fn entry(scores: Option<&Result<Scores, String>>) -> Entry {
    match scores {
        None => Entry::Nothing,
        Some(Err(reason)) => Entry::Unknown(reason.clone()),
        Some(Ok(scores)) => match Cell::new(scores, Statistic::SliceMean, &Resampling::default()) {
            Ok(cell) => Entry::Known(cell),
            Err(error) => Entry::Unknown(error.to_string()),
        },
    }
}

/// A volume's mean stands for each of its slices: means of slices and of patients then are what single slices would give. `None`
/// without any value.
fn scores(runs: &[Run], store: usize, metric: Metric) -> Option<Result<Scores, String>> {
    let mut all: Vec<(String, usize, u64, f64)> = Vec::new();
    for run in runs {
        let mut slices: BTreeMap<&str, usize> = BTreeMap::new();
        for volume in run.evaluations[store].iter().flat_map(|it| &it.per_volume) {
            let Some((value, count)) = metric.of(volume) else { continue };
            let next = slices.entry(volume.patient()).or_default();
            all.extend((*next..*next + count).map(|slice| (volume.patient().to_owned(), slice, run.seed, value)));
            *next += count;
        }
    }
    (!all.is_empty()).then(|| {
        let scores = all.iter().map(|(patient, slice, seed, value)| Score {
            patient,
            slice: *slice,
            seed: *seed,
            value: *value,
        });
        Scores::new(scores).map_err(|error| error.to_string())
    })
}
