//! What to label next: slices that an annotator is asked to draw, chosen without any mask.
//!
//! Invariants: a larger budget asks for the same slices and more; what was drawn before counts; no slice of a test patient is asked for.

use crate::subset::chosen_by;
use crate::{
    Pool, SamplingError, SamplingSettings, Sights, StratifiedSubset, SubsetStrategy, keep_middle, split_patients,
};
use serde::Serialize;
use slice_store::{Presence, SliceId, SliceRecord};

/// What a slice that is asked for will be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Its mask trains the segmenter.
    Train,
    /// Its mask chooses the checkpoint.
    Validation,
}

/// A slice that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub slice: SliceId,
    /// What for.
    pub purpose: Purpose,
    /// Why this one, for people.
    pub why: String,
}

/// What to label, in the order in which it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worklist {
    /// The slices.
    pub wanted: Vec<Wanted>,
    /// Slices of training and of validation patients that show the target and have a mask already; they count.
    pub drawn: [usize; 2],
    /// Candidates of which nobody has said whether they show the target: drawing them may give empty masks.
    pub unknown: usize,
}

/// The slices to draw until `settings.labelled` slices of training patients and, if there are so many, `settings.validation_slices` of
/// validation patients have a mask that shows the target. Candidates have no mask and are not known to be without the target; where slices of a volume
/// without a mask are known to show it, only these are.
///
/// # Errors
/// The settings are out of their ranges, patients can't be split as they say, there are fewer candidates than are asked for, or the
/// strategy fails.
pub fn worklist(
    records: &[SliceRecord],
    settings: &SamplingSettings,
    (strategy, sights): (&dyn SubsetStrategy, &dyn Sights),
    seed: u64,
) -> Result<Worklist, SamplingError> {
    settings.check()?;
    let split = split_patients(records, &settings.split, seed)?;
    let mut list = Worklist::default();
    let parts = [
        (Purpose::Train, &split.train, settings.labelled, strategy),
        // As they are used: spread over the patients.
        (Purpose::Validation, &split.validation, settings.validation_slices.into(), &StratifiedSubset),
    ];
    for (part, (purpose, patients, budget, strategy)) in parts.into_iter().enumerate() {
        let of_patients = records.iter().filter(|record| patients.contains(&record.patient));
        let mut pool: Vec<&SliceRecord> = of_patients.collect();
        if purpose == Purpose::Train {
            pool = keep_middle(&pool, settings.keep_rate);
        }
        let drawn: Vec<usize> = (0..pool.len()).filter(|&at| pool[at].has_mask() && pool[at].has_target()).collect();
        list.drawn[part] = drawn.len();
        let candidates = candidates(&pool);
        let mut count = budget.of(drawn.len() + candidates.len()).saturating_sub(drawn.len());
        if purpose == Purpose::Validation {
            // As training takes them: so many at most.
            count = count.min(candidates.len());
        }
        if candidates.len() < count {
            return Err(SamplingError::TooFewCandidates {
                asked: count,
                found: candidates.len(),
                drawn: list.drawn[part],
            });
        }
        list.unknown += candidates.iter().filter(|&&at| pool[at].presence() == Presence::Unknown).count();
        let of = Pool { slices: &pool, candidates: &candidates, drawn: &drawn, sights };
        let chosen = chosen_by(strategy, &of, count, seed)?;
        let wanted =
            chosen.into_iter().map(|choice| Wanted { slice: pool[choice.place].id(), purpose, why: choice.why });
        list.wanted.extend(wanted);
    }
    Ok(list)
}

/// Places of slices without a mask that may show the target.
fn candidates(pool: &[&SliceRecord]) -> Vec<usize> {
    let (mut found, mut first) = (Vec::new(), 0);
    for volume in pool.chunk_by(|a, b| a.case == b.case) {
        let told = volume.iter().any(|record| record.has_target() && !record.has_mask());
        let may = |record: &SliceRecord| match record.presence() {
            Presence::Present => true,
            Presence::Absent => false,
            Presence::Unknown => !told,
        };
        let open = volume.iter().enumerate().filter(|(_, record)| !record.has_mask() && may(record));
        found.extend(open.map(|(at, _)| first + at));
        first += volume.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoSights, SplitRule, UniformSubset};
    use slice_store::SliceLabel;

    /// Patients a, b and c train, v is for validation, t for tests: a volume of ten slices each, twenty of `c`.
    fn records(label: impl Fn(&str, u32) -> SliceLabel) -> Vec<SliceRecord> {
        let volume = |patient: &'static str| {
            let label = &label;
            (0..if patient == "c" { 20 } else { 10 }).map(move |index| SliceRecord {
                case: patient.to_owned(),
                patient: patient.to_owned(),
                index,
                position_mm: index as f32,
                row_spacing_mm: 1.0,
                column_spacing_mm: 1.0,
                slice_spacing_mm: 1.0,
                spacing_valid: true,
                label: label(patient, index),
                source_sha256: String::new(),
            })
        };
        ["a", "b", "c", "t", "v"].into_iter().flat_map(volume).collect()
    }

    fn settings(labelled: usize) -> SamplingSettings {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        SamplingSettings {
            split: SplitRule::Given { train: names(&["a", "b", "c"]), validation: names(&["v"]), test: names(&["t"]) },
            labelled: labelled.into(),
            keep_rate: 1.0,
            validation_slices: 2,
            strategy: "uniform".into(),
            run: None,
        }
    }

    fn names(list: &Worklist, purpose: Purpose) -> Vec<String> {
        list.wanted.iter().filter(|wanted| wanted.purpose == purpose).map(|wanted| wanted.slice.to_string()).collect()
    }

    #[test]
    fn five_are_among_fifty_and_no_test_patient_is_asked() {
        let records = records(|_, _| SliceLabel::Unknown);
        for strategy in [&UniformSubset as &dyn SubsetStrategy, &StratifiedSubset] {
            for seed in 0..5 {
                let of = |labelled| worklist(&records, &settings(labelled), (strategy, &NoSights), seed).unwrap();
                let (few, many) = (of(5), of(30));
                let (few, many) = (names(&few, Purpose::Train), names(&many, Purpose::Train));
                assert_eq!((few.len(), many.len()), (5, 30));
                assert_eq!(few, many[..5]);
                assert!(many.iter().all(|name| !name.starts_with(['t', 'v'])));
            }
        }
        let list = worklist(&records, &settings(5), (&UniformSubset, &NoSights), 0).unwrap();
        assert_eq!((names(&list, Purpose::Validation).len(), list.drawn, list.unknown), (2, [0, 0], 50));
        let all = SamplingSettings { validation_slices: 32, ..settings(1) };
        let list = worklist(&records, &all, (&UniformSubset, &NoSights), 0).unwrap();
        assert_eq!(names(&list, Purpose::Validation).len(), 10, "all that the patient has");
        let refused = worklist(&records, &settings(41), (&UniformSubset, &NoSights), 0).unwrap_err().to_string();
        assert!(refused.contains("41 slices are to be drawn") && refused.contains("40 candidates"), "{refused}");
    }

    #[test]
    fn patients_take_turns_and_their_slices_lie_apart() {
        let records = records(|_, _| SliceLabel::Unknown);
        let list = worklist(&records, &settings(6), (&StratifiedSubset, &NoSights), 3).unwrap();
        let mut chosen = names(&list, Purpose::Train);
        let first: Vec<char> = chosen[..3].iter().filter_map(|name| name.chars().next()).collect();
        assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{chosen:?}");
        chosen.sort();
        assert_eq!(chosen, ["a/0000", "a/0005", "b/0000", "b/0005", "c/0000", "c/0010"]);
    }

    #[test]
    fn what_is_known_is_used_and_what_is_drawn_counts() {
        use SliceLabel::{ListAbsent, ListPresent, MaskAbsent, MaskPresent, Unknown};
        let records = records(|patient, index| match (patient, index) {
            ("a", 0) => MaskPresent,
            ("a", 1) => MaskAbsent,
            ("a", 2..=4) => ListPresent,
            ("b", 0..=8) | ("c" | "v", _) => ListAbsent,
            _ => Unknown,
        });
        let settings = SamplingSettings { validation_slices: 0, ..settings(5) };
        let list = worklist(&records, &settings, (&UniformSubset, &NoSights), 0).unwrap();
        let mut chosen = names(&list, Purpose::Train);
        chosen.sort();
        assert_eq!(chosen, ["a/0002", "a/0003", "a/0004", "b/0009"]);
        assert_eq!((list.drawn, list.unknown), ([1, 0], 1));
        // Training would pass over what lies outside of the middle share.
        let middle = SamplingSettings { keep_rate: 0.4, labelled: 2.into(), ..settings };
        let list = worklist(&records, &middle, (&UniformSubset, &NoSights), 0).unwrap();
        assert_eq!((names(&list, Purpose::Train).len(), list.drawn), (2, [0, 0]));
        assert!(names(&list, Purpose::Train).iter().all(|name| ["a/0003", "a/0004"].contains(&name.as_str())));
        let too_many = SamplingSettings { validation_slices: 33, ..middle };
        let refused = worklist(&records, &too_many, (&UniformSubset, &NoSights), 0).unwrap_err().to_string();
        assert!(refused.contains("sampling.validation_slices is 33, expected at most 32"), "{refused}");
    }
}
