//! The split by patient.

use crate::SamplingError;
use crate::random::stream;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use slice_store::{SliceRecord, natural_order};
use std::collections::BTreeSet;

/// How patients are split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum SplitRule {
    /// Shares of the patients, drawn by the seed; they sum to 1.
    Fractions {
        /// Share of training patients.
        train: f64,
        /// Share of validation patients.
        validation: f64,
        /// Share of test patients.
        test: f64,
    },
    /// Patients by key; those that are not named take no part.
    Given {
        /// Training patients.
        train: Vec<String>,
        /// Validation patients: they choose the best checkpoint, so they count as training-side.
        validation: Vec<String>,
        /// Test patients.
        test: Vec<String>,
    },
}

impl Default for SplitRule {
    /// 70 % training, 10 % validation, 20 % test.
    fn default() -> Self {
        Self::Fractions { train: 0.7, validation: 0.1, test: 0.2 }
    }
}

/// Patient keys in natural order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// For training.
    pub train: Vec<String>,
    /// For choosing the best checkpoint.
    pub validation: Vec<String>,
    /// For judging, and for nothing else.
    pub test: Vec<String>,
}

/// Splits the patients of a store.
pub fn split_patients(records: &[SliceRecord], rule: &SplitRule, seed: u64) -> Result<Split, SamplingError> {
    let known: BTreeSet<&str> = records.iter().map(|r| r.patient.as_str()).collect();
    let mut split = match rule {
        SplitRule::Fractions { train, validation, test } => by_fractions(&known, [*train, *validation, *test], seed)?,
        SplitRule::Given { train, validation, test } => {
            let mut seen = BTreeSet::new();
            for patient in train.iter().chain(validation).chain(test) {
                if !known.contains(patient.as_str()) {
                    let mut known: Vec<&str> = known.into_iter().collect();
                    known.sort_by(|a, b| natural_order(a, b));
                    return Err(SamplingError::UnknownPatient { patient: patient.clone(), known: known.join(", ") });
                }
                if !seen.insert(patient) {
                    return Err(SamplingError::PatientTwice { patient: patient.clone() });
                }
            }
            Split { train: train.clone(), validation: validation.clone(), test: test.clone() }
        }
    };
    if split.train.is_empty() {
        return Err(SamplingError::NoTraining);
    }
    for part in [&mut split.train, &mut split.validation, &mut split.test] {
        part.sort_by(|a, b| natural_order(a, b));
    }
    Ok(split)
}

/// Every split with a share gets at least one patient; training gets what is left.
fn by_fractions(known: &BTreeSet<&str>, shares: [f64; 3], seed: u64) -> Result<Split, SamplingError> {
    let [train, validation, test] = shares;
    if shares.iter().any(|s| !(0.0..=1.0).contains(s)) || (train + validation + test - 1.0).abs() > 1e-6 {
        return Err(SamplingError::Fractions { train, validation, test });
    }
    let mut patients: Vec<String> = known.iter().map(|&p| p.to_owned()).collect();
    patients.sort_by(|a, b| natural_order(a, b));
    patients.shuffle(&mut stream(seed, "split"));
    let count = |share: f64| if share > 0.0 { ((patients.len() as f64 * share).round() as usize).max(1) } else { 0 };
    let (tests, validations) = (count(test), count(validation));
    if tests + validations >= patients.len() {
        return Err(SamplingError::TooFewPatients { patients: patients.len() });
    }
    let test = patients.split_off(patients.len() - tests);
    let validation = patients.split_off(patients.len() - validations);
    Ok(Split { train: patients, validation, test })
}
