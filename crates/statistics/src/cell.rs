//! What a cell of a table says: an estimate, how sure it is, and whether it differs from the row it is compared with.

use crate::error::checked_fraction;
use crate::{Error, Interval, PairedTest, Resampling, Scores, Statistic, bootstrap, holm, mean_sd};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a comparison allows to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The adjusted p is at most the level of significance.
    Differs,
    /// It is above, though these patients could have shown a difference. Not the same as none.
    NoDifferenceShown,
    /// Not even the smallest p that so many patients can give would have been significant in this family.
    TooFewPatients,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Differs => "differs",
            Self::NoDifferenceShown => "no difference shown",
            Self::TooFewPatients => "too few patients",
        })
    }
}

/// A paired test within its family.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What the test found by itself.
    pub test: PairedTest,
    /// Its p by Holm's correction.
    pub adjusted_p: f64,
    /// The adjusted p, had its own p been the smallest possible and all others as they are.
    pub smallest_adjusted_p: f64,
    /// What follows.
    pub verdict: Verdict,
}

/// `VERDICT: DIFFERENCE, p = ADJUSTED`; the difference with as many decimals as the format asks for, three by default.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let decimals = f.precision().unwrap_or(3);
        write!(f, "{}: {:+.decimals$}, {}", self.verdict, self.test.difference, Probability(self.adjusted_p))?;
        if self.verdict == Verdict::TooFewPatients {
            write!(f, ", no less than {:.3} possible", self.smallest_adjusted_p)?;
        }
        Ok(())
    }
}

struct Probability(f64);

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.0 < 0.001 { f.write_str("p < 0.001") } else { write!(f, "p = {:.3}", self.0) }
    }
}

/// The verdicts of a family of tests, such as all comparisons of one table, with Holm's correction; in the order given.
/// `significance` is the level, usually 0.05. Errors: a level outside (0, 1), a p outside [0, 1].
pub fn compare(family: &[PairedTest], significance: f64) -> Result<Vec<Comparison>, Error> {
    checked_fraction("significance level", significance)?;
    let p_values: Vec<f64> = family.iter().map(|test| test.p).collect();
    let adjusted = holm(&p_values)?;
    let comparison = |(index, (&test, adjusted_p)): (usize, (&PairedTest, f64))| {
        let mut at_best = p_values.clone();
        at_best[index] = test.smallest_p;
        let smallest_adjusted_p = holm(&at_best)?[index];
        let verdict = if adjusted_p <= significance {
            Verdict::Differs
        } else if smallest_adjusted_p > significance {
            Verdict::TooFewPatients
        } else {
            Verdict::NoDifferenceShown
        };
        Ok(Comparison { test, adjusted_p, smallest_adjusted_p, verdict })
    };
    family.iter().zip(adjusted).enumerate().map(comparison).collect()
}

/// One model on one data set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The statistic over all patients, seeds averaged, in the metric's unit.
    pub estimate: f64,
    /// Sample standard deviation of the statistic over seeds; `None` with one seed.
    pub sd_over_seeds: Option<f64>,
    /// Over patients; `None` with one patient.
    pub interval: Option<Interval>,
    /// How many patients.
    pub patients: usize,
    /// How many seeds.
    pub seeds: usize,
    /// With another row, once the whole family of tests is known ([`compare`]).
    pub comparison: Option<Comparison>,
}

impl Cell {
    /// Not compared yet. Errors: a resampling that gives no interval.
    pub fn new(scores: &Scores, statistic: Statistic, resampling: &Resampling) -> Result<Self, Error> {
        let patients = scores.patients();
        let interval = match bootstrap(&patients, statistic, resampling) {
            Ok(interval) => Some(interval),
            Err(Error::TooFew { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            estimate: patients.estimate(statistic),
            sd_over_seeds: mean_sd(&scores.per_seed(statistic))?.sd,
            interval,
            patients: patients.count(),
            seeds: scores.seeds().len(),
            comparison: None,
        })
    }
}

/// `ESTIMATE ± SD [LOW, HIGH], N patients, M seeds; VERDICT …`, without what is not known; three decimals unless the
/// format asks for others.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let decimals = f.precision().unwrap_or(3);
        write!(f, "{:.decimals$}", self.estimate)?;
        if let Some(sd) = self.sd_over_seeds {
            write!(f, " ± {sd:.decimals$}")?;
        }
        if let Some(interval) = self.interval {
            write!(f, " {interval:.decimals$}")?;
        }
        let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        write!(f, ", {}, {}", counted(self.patients, "patient"), counted(self.seeds, "seed"))?;
        self.comparison.map_or(Ok(()), |comparison| write!(f, "; {comparison:.decimals$}"))
    }
}
