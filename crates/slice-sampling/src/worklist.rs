//! What to label next: slices that an annotator is asked to draw, chosen without any mask.
//!
//! Invariants: a larger budget asks for the same slices and more; what was drawn before counts; no slice of a test patient is asked for.

use crate::{SamplingError, SamplingSettings, keep_middle, split_patients, stream_seed};
use serde::Serialize;
use slice_store::{Presence, SliceId, SliceRecord};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How slices are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorklistOrder {
    /// Drawn from all candidates alike: patients with long volumes get more.
    Uniform,
    /// Patients in turn, each one's slices far from those that it has already.
    Stratified,
}

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
/// The settings are out of their ranges, patients can't be split as they say, or there are fewer candidates than are asked for.
pub fn worklist(
    records: &[SliceRecord],
    settings: &SamplingSettings,
    order: WorklistOrder,
    seed: u64,
) -> Result<Worklist, SamplingError> {
    settings.check()?;
    let split = split_patients(records, &settings.split, seed)?;
    let mut list = Worklist::default();
    let parts = [
        (Purpose::Train, &split.train, settings.labelled, order),
        // As they are used: spread over the patients.
        (Purpose::Validation, &split.validation, settings.validation_slices, WorklistOrder::Stratified),
    ];
    for (part, (purpose, patients, budget, order)) in parts.into_iter().enumerate() {
        let of_patients = records.iter().filter(|record| patients.contains(&record.patient));
        let mut pool: Vec<&SliceRecord> = of_patients.collect();
        if purpose == Purpose::Train {
            pool = keep_middle(&pool, settings.keep_rate);
        }
        list.drawn[part] = pool.iter().filter(|record| record.has_mask() && record.has_target()).count();
        let mut count = budget.saturating_sub(list.drawn[part]);
        let candidates = candidates(&pool);
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
        list.unknown += candidates.iter().filter(|record| record.presence() == Presence::Unknown).count();
        let ordered = match order {
            WorklistOrder::Uniform => uniform(&candidates, seed),
            WorklistOrder::Stratified => stratified(&pool, &candidates, count, seed),
        };
        list.wanted.extend(ordered.into_iter().take(count).map(|(record, why)| Wanted {
            slice: record.id(),
            purpose,
            why,
        }));
    }
    Ok(list)
}

/// Slices without a mask that may show the target.
fn candidates<'a>(pool: &[&'a SliceRecord]) -> Vec<&'a SliceRecord> {
    let volumes = pool.chunk_by(|a, b| a.case == b.case);
    volumes
        .flat_map(|volume| {
            let told = volume.iter().any(|record| record.has_target() && !record.has_mask());
            let may = move |record: &&&'a SliceRecord| match record.presence() {
                Presence::Present => true,
                Presence::Absent => false,
                Presence::Unknown => !told,
            };
            volume.iter().filter(|record| !record.has_mask()).filter(may).copied()
        })
        .collect()
}

/// Each slice has a number of its own, which the seed and its name decide; the lowest come first, whatever the budget.
fn uniform<'a>(candidates: &[&'a SliceRecord], seed: u64) -> Vec<(&'a SliceRecord, String)> {
    let mut drawn: Vec<(u64, &SliceRecord)> = candidates.iter().map(|record| (key(seed, record), *record)).collect();
    drawn.sort_unstable_by_key(|(key, _)| *key);
    let why = format!("drawn from {} candidates", candidates.len());
    drawn.into_iter().map(|(_, record)| (record, why.clone())).collect()
}

/// `count` candidates: the patient with the fewest slices is next; of its candidates, the one that is farthest from those that it has.
fn stratified<'a>(
    pool: &[&'a SliceRecord],
    candidates: &[&'a SliceRecord],
    count: usize,
    seed: u64,
) -> Vec<(&'a SliceRecord, String)> {
    let by_patient = |records: &mut dyn Iterator<Item = &'a SliceRecord>| {
        let mut patients: BTreeMap<&str, Vec<&SliceRecord>> = BTreeMap::new();
        records.for_each(|record| patients.entry(&record.patient).or_default().push(record));
        patients
    };
    let mut open = by_patient(&mut candidates.iter().copied());
    let mut has = by_patient(&mut pool.iter().copied().filter(|record| record.has_mask() && record.has_target()));
    let mut ordered = Vec::with_capacity(count);
    while ordered.len() < count {
        let number = |patient: &str| has.get(patient).map_or(0, Vec::len);
        let turn = |(patient, _): &(&&'a str, &Vec<&SliceRecord>)| {
            (number(patient), stream_seed(seed, &format!("worklist/{patient}")))
        };
        let Some((&patient, own)) = open.iter().min_by_key(turn) else { break };
        let had = has.entry(patient).or_default();
        let Some(record) = farthest(own, had, seed) else { break };
        let why = match had.len() {
            0 => format!("patient {patient}: the middle of what may show the target"),
            others => format!("patient {patient}: farthest from its other {others}"),
        };
        had.push(record);
        ordered.push((record, why));
        let left = open.entry(patient).or_default();
        left.retain(|other| other.id() != record.id());
        if left.is_empty() {
            open.remove(patient);
        }
    }
    ordered
}

/// The candidate with the greatest distance, in slices, from what the patient has in the same volume; without any, the middle one of
/// the longest volume.
fn farthest<'a>(own: &[&'a SliceRecord], had: &[&SliceRecord], seed: u64) -> Option<&'a SliceRecord> {
    let distance = |record: &SliceRecord| {
        let same = had.iter().filter(|other| other.case == record.case);
        same.map(|other| other.index.abs_diff(record.index)).min()
    };
    if own.iter().all(|record| distance(record).is_some()) {
        return own.iter().copied().max_by_key(|record| (distance(record), Reverse(key(seed, record))));
    }
    let fresh: Vec<&SliceRecord> = own.iter().copied().filter(|record| distance(record).is_none()).collect();
    let volume = fresh.chunk_by(|a, b| a.case == b.case).max_by_key(|volume| volume.len())?;
    volume.get(volume.len() / 2).copied()
}

fn key(seed: u64, record: &SliceRecord) -> u64 {
    stream_seed(seed, &format!("worklist/{}", record.id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitRule;
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
            labelled,
            keep_rate: 1.0,
            validation_slices: 2,
            strategy: "uniform".into(),
        }
    }

    fn names(list: &Worklist, purpose: Purpose) -> Vec<String> {
        list.wanted.iter().filter(|wanted| wanted.purpose == purpose).map(|wanted| wanted.slice.to_string()).collect()
    }

    #[test]
    fn five_are_among_fifty_and_no_test_patient_is_asked() {
        let records = records(|_, _| SliceLabel::Unknown);
        for order in [WorklistOrder::Uniform, WorklistOrder::Stratified] {
            for seed in 0..5 {
                let of = |labelled| worklist(&records, &settings(labelled), order, seed).unwrap();
                let (few, many) = (of(5), of(30));
                let (few, many) = (names(&few, Purpose::Train), names(&many, Purpose::Train));
                assert_eq!((few.len(), many.len()), (5, 30));
                assert_eq!(few, many[..5], "{order:?}");
                assert!(many.iter().all(|name| !name.starts_with(['t', 'v'])));
            }
        }
        let list = worklist(&records, &settings(5), WorklistOrder::Uniform, 0).unwrap();
        assert_eq!((names(&list, Purpose::Validation).len(), list.drawn, list.unknown), (2, [0, 0], 50));
        let all = SamplingSettings { validation_slices: 32, ..settings(1) };
        let list = worklist(&records, &all, WorklistOrder::Uniform, 0).unwrap();
        assert_eq!(names(&list, Purpose::Validation).len(), 10, "all that the patient has");
        let refused = worklist(&records, &settings(41), WorklistOrder::Uniform, 0).unwrap_err().to_string();
        assert!(refused.contains("41 slices are to be drawn") && refused.contains("40 candidates"), "{refused}");
    }

    #[test]
    fn patients_take_turns_and_their_slices_lie_apart() {
        let records = records(|_, _| SliceLabel::Unknown);
        let list = worklist(&records, &settings(6), WorklistOrder::Stratified, 3).unwrap();
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
        let list = worklist(&records, &settings, WorklistOrder::Uniform, 0).unwrap();
        let mut chosen = names(&list, Purpose::Train);
        chosen.sort();
        assert_eq!(chosen, ["a/0002", "a/0003", "a/0004", "b/0009"]);
        assert_eq!((list.drawn, list.unknown), ([1, 0], 1));
        // Training would pass over what lies outside of the middle share.
        let middle = SamplingSettings { keep_rate: 0.4, labelled: 2, ..settings };
        let list = worklist(&records, &middle, WorklistOrder::Uniform, 0).unwrap();
        assert_eq!((names(&list, Purpose::Train).len(), list.drawn), (2, [0, 0]));
        assert!(names(&list, Purpose::Train).iter().all(|name| ["a/0003", "a/0004"].contains(&name.as_str())));
        let too_many = SamplingSettings { validation_slices: 33, ..middle };
        let refused = worklist(&records, &too_many, WorklistOrder::Uniform, 0).unwrap_err().to_string();
        assert!(refused.contains("sampling.validation_slices is 33, expected at most 32"), "{refused}");
    }
}
