//! What is wrong with the values that were given, and where.

/// Values beyond this, in either direction, are refused: their cubes, which BCa takes, would not be finite.
pub(crate) const LARGEST_VALUE: f64 = 1e50;

/// What keeps a statistic from having an answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Nothing was given.
    #[error("no values were given; at least one is needed")]
    Empty,
    /// NaN, infinite, or too large to be a metric.
    #[error("{place}: the value is {found}; expected a finite number within ±{LARGEST_VALUE:e}")]
    Value {
        /// Patient, slice and seed, or the position in a list, counted from 0.
        place: String,
        /// As it was given.
        found: f64,
    },
    /// One slice of one run was given more than once.
    #[error("{place} was given twice; give each slice of a seed's run once")]
    Twice {
        /// Patient, slice and seed.
        place: String,
    },
    /// A seed lacks a slice that another has.
    #[error(
        "{place} has no value, but other seeds or slices do; evaluate every seed on the same slices, or leave the seed out"
    )]
    Missing {
        /// Patient, slice and seed.
        place: String,
    },
    /// A slice of one model has no partner.
    #[error("{place} is in the {set} set of scores only; compare models on the same slices of the same patients")]
    Unpaired {
        /// Patient and slice.
        place: String,
        /// `first` or `second`.
        set: &'static str,
    },
    /// A patient without slices has no mean.
    #[error("patient {index}, counted from 0, has no slices; leave patients without values out")]
    NoSlices {
        /// Position in the list.
        index: usize,
    },
    /// One value has no spread.
    #[error("an interval needs at least 2 {what}, found {found}; give more, or the estimate alone")]
    TooFew {
        /// `seeds` or `patients`.
        what: &'static str,
        /// How many there are.
        found: usize,
    },
    /// Not between 0 and 1.
    #[error("the {what} is {found}; expected a number between 0 and 1, both excluded")]
    NotAFraction {
        /// `confidence` or `significance level`.
        what: &'static str,
        /// As it was given.
        found: f64,
    },
    /// Too few for one to lie outside each end of the interval.
    #[error("{found} resamples can't give an interval of confidence {confidence}; use at least {needed}")]
    Resamples {
        /// As it was given.
        found: usize,
        /// Of the interval.
        confidence: f64,
        /// The fewest that can.
        needed: usize,
    },
    /// Not a probability.
    #[error("p-value {index}, counted from 0, is {found}; expected a number from 0 to 1")]
    PValue {
        /// Position in the list.
        index: usize,
        /// As it was given.
        found: f64,
    },
}

/// `value` if it can be computed with.
pub(crate) fn checked(value: f64, place: impl FnOnce() -> String) -> Result<f64, Error> {
    // NaN is in no range.
    if (-LARGEST_VALUE..=LARGEST_VALUE).contains(&value) {
        Ok(value)
    } else {
        Err(Error::Value { place: place(), found: value })
    }
}

/// A confidence or significance level, which lies strictly between 0 and 1.
pub(crate) fn checked_fraction(what: &'static str, value: f64) -> Result<(), Error> {
    if value > 0.0 && value < 1.0 { Ok(()) } else { Err(Error::NotAFraction { what, found: value }) }
}
