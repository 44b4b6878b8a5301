//! Values of one model by patient, slice and seed, and what they are per patient.
//!
//! Every seed has a value for every slice of every patient, or there are no [`Scores`].

use crate::Error;
use crate::error::checked;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One value of a metric, in the metric's own unit, within ±1e50.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score<'a> {
    /// Whose slice it is.
    pub patient: &'a str,
    /// Which slice of the patient; 0 where a patient has one value, such as the Dice of the volume.
    pub slice: usize,
    /// Of the run that the value comes from.
    pub seed: u64,
    /// What was measured.
    pub value: f64,
}

/// What is estimated. The two differ where patients have different numbers of slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// Mean of all slices: a patient counts by the number of its slices.
    SliceMean,
    /// Mean of the patients' means: each patient counts the same.
    PatientMean,
}

/// All values of one model on one data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    seeds: Vec<u64>,
    /// By patient and slice, a value for each of `seeds`.
    patients: BTreeMap<String, BTreeMap<usize, Vec<f64>>>,
}

impl Scores {
    /// In any order. Errors: no values, one that is NaN, infinite or too large, one that comes twice, a seed that lacks
    /// a slice.
    pub fn new<'a>(scores: impl IntoIterator<Item = Score<'a>>) -> Result<Self, Error> {
        let mut found: BTreeMap<&str, BTreeMap<usize, BTreeMap<u64, f64>>> = BTreeMap::new();
        let mut seeds = BTreeSet::new();
        for Score { patient, slice, seed, value } in scores {
            let value = checked(value, || place_of(patient, slice, seed))?;
            seeds.insert(seed);
            if found.entry(patient).or_default().entry(slice).or_default().insert(seed, value).is_some() {
                return Err(Error::Twice { place: place_of(patient, slice, seed) });
            }
        }
        if found.is_empty() {
            return Err(Error::Empty);
        }
        let mut patients: BTreeMap<String, BTreeMap<usize, Vec<f64>>> = BTreeMap::new();
        for (patient, slices) in found {
            for (slice, values) in slices {
                if let Some(&seed) = seeds.iter().find(|seed| !values.contains_key(seed)) {
                    return Err(Error::Missing { place: place_of(patient, slice, seed) });
                }
                patients.entry(patient.to_owned()).or_default().insert(slice, values.into_values().collect());
            }
        }
        Ok(Self { seeds: seeds.into_iter().collect(), patients })
    }

    /// In ascending order.
    pub fn seeds(&self) -> &[u64] {
        &self.seeds
    }

    /// Per patient, the mean over seeds of each slice.
    pub fn patients(&self) -> Patients {
        let values = self.patients.values().map(|slices| slices.values().map(|values| mean(values)).collect());
        Patients::of_finite(values)
    }

    /// The statistic of each seed by itself, in the order of [`Scores::seeds`]; [`mean_sd`](crate::mean_sd) takes it.
    pub fn per_seed(&self, statistic: Statistic) -> Vec<f64> {
        let of_seed = |index: usize| {
            let values = self.patients.values().map(|slices| slices.values().map(|values| values[index]).collect());
            Patients::of_finite(values).estimate(statistic)
        };
        (0..self.seeds.len()).map(of_seed).collect()
    }

    /// `self` − `other`, slice by slice, each averaged over its own seeds first; the numbers of seeds may differ. Errors:
    /// a slice that only one of both has.
    pub fn minus(&self, other: &Self) -> Result<Patients, Error> {
        self.all_are_in(other, "first")?;
        other.all_are_in(self, "second")?;
        let values = self.patients.iter().map(|(patient, slices)| {
            let theirs = &other.patients[patient];
            slices.iter().map(|(slice, values)| mean(values) - mean(&theirs[slice])).collect()
        });
        Ok(Patients::of_finite(values))
    }

    fn all_are_in(&self, other: &Self, set: &'static str) -> Result<(), Error> {
        for (patient, slices) in &self.patients {
            let theirs = other.patients.get(patient);
            if let Some(slice) = slices.keys().find(|slice| theirs.is_none_or(|theirs| !theirs.contains_key(slice))) {
                return Err(Error::Unpaired { place: format!("patient '{patient}', slice {slice}"), set });
            }
        }
        Ok(())
    }
}

fn place_of(patient: &str, slice: usize, seed: u64) -> String {
    format!("patient '{patient}', slice {slice}, seed {seed}")
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// At least one patient with at least one value each: the values of one model, or differences of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Patients {
    /// Sum of a patient's values and their number, by mean and number: the order in which patients came is forgotten, and
    /// a constant that is added to all values changes none of it.
    sums: Vec<(f64, usize)>,
}

impl Patients {
    /// Of the values of each patient's slices; one value each for a metric of volumes. Errors: no patients, one without
    /// values, a value that is NaN, infinite or too large.
    pub fn new<V: AsRef<[f64]>>(patients: &[V]) -> Result<Self, Error> {
        if patients.is_empty() {
            return Err(Error::Empty);
        }
        for (index, values) in patients.iter().map(AsRef::as_ref).enumerate() {
            if values.is_empty() {
                return Err(Error::NoSlices { index });
            }
            for (slice, &value) in values.iter().enumerate() {
                checked(value, || format!("patient {index}, slice {slice}, counted from 0"))?;
            }
        }
        Ok(Self::of_finite(patients.iter().map(|values| values.as_ref().to_vec())))
    }

    fn of_finite(patients: impl Iterator<Item = Vec<f64>>) -> Self {
        let sum = |mut values: Vec<f64>| {
            // Sums depend on the order in the last bit.
            values.sort_by(f64::total_cmp);
            (values.iter().sum(), values.len())
        };
        let mut sums: Vec<(f64, usize)> = patients.map(sum).collect();
        let mean = |&(sum, slices): &(f64, usize)| sum / slices as f64;
        sums.sort_by(|a, b| mean(a).total_cmp(&mean(b)).then(a.1.cmp(&b.1)));
        Self { sums }
    }

    /// How many patients.
    pub fn count(&self) -> usize {
        self.sums.len()
    }

    /// The statistic of these patients.
    pub fn estimate(&self, statistic: Statistic) -> f64 {
        let parts = self.parts(statistic);
        parts.iter().map(|part| part.total).sum::<f64>() / parts.iter().map(|part| part.weight).sum::<f64>()
    }

    /// Either statistic is the sum of totals over the sum of weights.
    pub(crate) fn parts(&self, statistic: Statistic) -> Vec<Part> {
        let part = |&(sum, slices): &(f64, usize)| match statistic {
            Statistic::SliceMean => Part { total: sum, weight: slices as f64 },
            Statistic::PatientMean => Part { total: sum / slices as f64, weight: 1.0 },
        };
        self.sums.iter().map(part).collect()
    }
}

/// What one patient adds to a statistic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub total: f64,
    pub weight: f64,
}
