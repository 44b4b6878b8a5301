//! What can't be sampled, and why.

use std::path::PathBuf;

/// A choice that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SamplingError {
    /// Shares of the split that are no shares.
    #[error("split fractions are {train}, {validation}, {test}; expected three numbers of at least 0 that sum to 1")]
    Fractions {
        /// Share of training.
        train: f64,
        /// Share of validation.
        validation: f64,
        /// Share of test.
        test: f64,
    },
    /// Too few patients for the shares.
    #[error(
        "{patients} patients can't be split so that training and every split with a share has one; more data or a given split is the way out"
    )]
    TooFewPatients {
        /// In the store.
        patients: usize,
    },
    /// A given patient that the store doesn't have.
    #[error(
        "the split names patient '{patient}', which the store doesn't have; it has: {known}. Name these in `sampling.split`, or have them \
         drawn: --set 'sampling.split={{fractions={{train=0.7,validation=0.1,test=0.2}}}}'"
    )]
    UnknownPatient {
        /// The key.
        patient: String,
        /// The store's keys.
        known: String,
    },
    /// A patient who is named twice.
    #[error("the split names patient '{patient}' twice; a patient belongs to one split")]
    PatientTwice {
        /// The key.
        patient: String,
    },
    /// A split without training patients.
    #[error("the split has no training patient")]
    NoTraining,
    /// More labelled slices asked for than there are.
    #[error(
        "{asked} labelled slices are asked for, but the training patients have {found} slices with the target and its mask"
    )]
    TooFewSlices {
        /// N.
        asked: usize,
        /// Slices with the target, which have a mask.
        found: usize,
    },
    /// More slices are to be drawn than there are.
    #[error(
        "{asked} slices are to be drawn beside the {drawn} that have a mask, but there are {found} candidates: slices without a mask that \
         are not known to be without the target; ask for fewer, or add patients"
    )]
    TooFewCandidates {
        /// How many.
        asked: usize,
        /// Candidates.
        found: usize,
        /// Slices that have a mask already.
        drawn: usize,
    },
    /// What a strategy looks at is not there.
    #[error(
        "the strategy looks at {what}, and there are none: `sampling.run` (choose: --run) names the run that predicts, `segmenter.weights` the \
         encoder; `uniform` and `stratified` need neither"
    )]
    NoSight {
        /// What.
        what: &'static str,
    },
    /// A strategy doesn't do what it promises.
    #[error("the strategy gave {found} slices, expected {asked} distinct candidates: mend it, or take another")]
    Strategy {
        /// How many were asked for.
        asked: usize,
        /// How many came.
        found: usize,
    },
    /// The run that came before has other slices.
    #[error(
        "the run that `sampling.run` names has {known} labelled slices, of which {among} have a mask that shows the target among the training \
         slices, and {asked} are asked for: name a run on the same store and patients, with fewer slices"
    )]
    Drawn {
        /// Labelled slices of the run.
        known: usize,
        /// Those that can be labelled here.
        among: usize,
        /// N.
        asked: usize,
    },
    /// What a strategy looks at can't be had.
    #[error("{0}")]
    Sight(String),
    /// A setting out of its range.
    #[error("sampling.{key} is {found}, expected {expected}")]
    Setting {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// Its range.
        expected: String,
    },
    /// A choice that was made on another store.
    #[error(
        "selection '{}' was made on a store with checksum {expected}, but '{}' has {found}: name the store that it was made \
         on; or, if the slices are the same, take `store_checksum` out of a copy of the file, which is then compared slice by \
         slice",
        path.display(), store.display()
    )]
    OtherStore {
        /// The selection.
        path: PathBuf,
        /// What it says.
        expected: String,
        /// The store.
        store: PathBuf,
        /// What it has.
        found: String,
    },
    /// A choice that is none, or not one of that store.
    #[error(
        "selection '{}' can't be used with the store '{}':\n  {problems}\nName the store that it was made on, mend the file, or let \
         `sampling` choose anew",
        path.display(), store.display()
    )]
    Selection {
        /// The selection.
        path: PathBuf,
        /// The store.
        store: PathBuf,
        /// A line for each.
        problems: String,
    },
    /// A run's slice that the store doesn't have.
    #[error("the run uses slice '{slice}', which the store '{}' doesn't have: it is another store", store.display())]
    UnknownSlice {
        /// Its name.
        slice: slice_store::SliceId,
        /// Where it was looked for.
        store: PathBuf,
    },
    /// A file that can't be written.
    #[error(transparent)]
    Store(#[from] slice_store::StoreError),
    /// A file that can't be read.
    #[error("selection '{}': {reason}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}
