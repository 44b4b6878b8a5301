//! What a table of models may say: means over seeds, intervals over patients, paired tests, and whether there are
//! patients enough for a verdict. Pure Rust, one thread; knows none of the other crates.
//!
//! Patients are the unit. Slices of a patient are not independent, and seeds are not patients: values of several seeds
//! are averaged first, slice by slice, and all slices of a patient are drawn, or change sign, together. An interval over
//! patients says what other patients would give; the SD over seeds says what another training would.
//!
//! Invariant: the same values give the same bits, in any order of rows, slices and patients, on any number of threads.
//! Input that has no answer gets an [`Error`] or a documented result; nothing becomes NaN.
//!
//! ```
//! use statistics::{Cell, Resampling, Score, Scores, Statistic, compare, sign_flip_test};
//!
//! let scores = |values: [f64; 3]| {
//!     Scores::new(["a", "b", "c"].into_iter().zip(values).map(|(patient, value)| Score { patient, slice: 0, seed: 1, value }))
//! };
//! let (ours, theirs) = (scores([0.91, 0.88, 0.95])?, scores([0.85, 0.80, 0.93])?);
//! let mut cell = Cell::new(&ours, Statistic::PatientMean, &Resampling::default())?;
//! let test = sign_flip_test(&ours.minus(&theirs)?, Statistic::PatientMean, 1);
//! assert_eq!((test.p, test.smallest_p), (0.25, 0.25));
//! cell.comparison = Some(compare(&[test], 0.05)?[0]);
//! assert_eq!(
//!     cell.to_string(),
//!     "0.913 [0.890, 0.950], 3 patients, 1 seed; too few patients: +0.053, p = 0.250, no less than 0.250 possible"
//! );
//! # Ok::<(), statistics::Error>(())
//! ```

mod bootstrap;
mod cell;
mod error;
mod holm;
mod scores;
mod seeds;
mod sign_flip;

pub use bootstrap::{IntervalMethod, Resampling, bootstrap};
pub use cell::{Cell, Comparison, Verdict, compare};
pub use error::Error;
pub use holm::holm;
pub use scores::{Patients, Score, Scores, Statistic};
pub use seeds::{Interval, MeanSd, mean_sd, student_t, t_interval};
pub use sign_flip::{EXACT_UP_TO, MONTE_CARLO_DRAWS, PairedTest, sign_flip_test};
