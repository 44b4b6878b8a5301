//! Whether a choice is one: of slices that a store has, each in its patient's split, each once.

use crate::{SamplingError, Selection};
use slice_store::{SliceId, SliceRecord, SliceStore};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

impl Selection {
    /// Compares what was read from `path` with the store that is to be used: a file may be of another store, or have been
    /// changed by hand.
    ///
    /// # Errors
    /// All that is wrong with it: another store's checksum; slices or patients that the store doesn't have; a slice twice in a
    /// list; a patient in two splits; a slice that is not of a patient of its split; no labelled slice; a labelled slice that
    /// is no training slice.
    pub fn check(&self, path: &Path, store: &SliceStore) -> Result<(), SamplingError> {
        if let Some(made_on) = self.store_checksum.as_deref().filter(|made_on| *made_on != store.checksum()) {
            return Err(SamplingError::OtherStore {
                path: path.into(),
                expected: made_on.into(),
                store: store.path().into(),
                found: store.checksum().into(),
            });
        }
        let problems = self.problems(store.records());
        if problems.is_empty() {
            return Ok(());
        }
        let problems = problems.join("\n  ");
        Err(SamplingError::Selection { path: path.into(), store: store.path().into(), problems })
    }

    /// One of each kind and list, with the number of the others.
    fn problems(&self, records: &[SliceRecord]) -> Vec<String> {
        let patient_of: BTreeMap<SliceId, &str> = records.iter().map(|r| (r.id(), r.patient.as_str())).collect();
        let known: BTreeSet<&str> = patient_of.values().copied().collect();
        let lists = [
            ("train", &self.train, "train", &self.split.train),
            ("labelled", &self.labelled, "train", &self.split.train),
            ("validation", &self.validation, "validation", &self.split.validation),
            ("test", &self.test, "test", &self.split.test),
        ];
        let mut found = Vec::new();
        let splits = [&lists[0], &lists[2], &lists[3]].map(|(_, _, split, patients)| (*split, *patients));
        for (i, (split, patients)) in splits.into_iter().enumerate() {
            let patients = || patients.iter().map(String::as_str);
            say(&mut found, patients().filter(|patient| !known.contains(patient)), |patient| {
                format!("`split.{split}` has patient '{patient}', which the store doesn't have")
            });
            say(&mut found, repeated(patients()), |patient| {
                format!("`split.{split}` has patient '{patient}' twice, expected once")
            });
            for (other, others) in &splits[i + 1..] {
                say(&mut found, patients().filter(|patient| others.iter().any(|p| p == patient)), |patient| {
                    format!("patient '{patient}' is in `split.{split}` and in `split.{other}`, expected in one")
                });
            }
        }
        for (list, ids, split, patients) in lists {
            let patients: BTreeSet<&str> = patients.iter().map(String::as_str).collect();
            say(&mut found, ids.iter().filter(|id| !patient_of.contains_key(id)), |id| {
                format!("`{list}` has slice '{id}', which the store doesn't have")
            });
            say(&mut found, repeated(ids.iter()), |id| format!("`{list}` has slice '{id}' twice, expected once"));
            let strays = ids.iter().filter_map(|id| Some((id, *patient_of.get(id)?)));
            say(&mut found, strays.filter(|(_, patient)| !patients.contains(patient)), |(id, patient)| {
                format!("`{list}` has slice '{id}' of patient '{patient}', expected a patient of `split.{split}`")
            });
        }
        if self.labelled.is_empty() {
            found.push("`labelled` is empty, expected at least one slice".into());
        }
        let train: BTreeSet<&SliceId> = self.train.iter().collect();
        say(&mut found, self.labelled.iter().filter(|id| !train.contains(id)), |id| {
            format!("`labelled` has slice '{id}', which is not in `train`")
        });
        found
    }
}

/// The first of `what`, and how many more there are.
fn say<T>(into: &mut Vec<String>, mut what: impl Iterator<Item = T>, problem: impl Fn(T) -> String) {
    let Some(first) = what.next().map(problem) else { return };
    into.push(match what.count() {
        0 => first,
        more => format!("{first} (and {more} more like it)"),
    });
}

/// What is there for the second time, or a later one.
fn repeated<T: Ord + Copy>(items: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let mut seen = BTreeSet::new();
    items.filter(move |item| !seen.insert(*item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;

    /// Patients `a`, `b` and `c` have a volume of four slices each, `d` takes no part.
    fn problems(change: impl Fn(&mut Selection)) -> Vec<String> {
        let record = |(patient, index): (&str, u32)| -> SliceRecord {
            let text = format!(
                r#"{{ "case": "{patient}1", "patient": "{patient}", "index": {index}, "position_mm": 0.0,
                    "row_spacing_mm": 1.0, "column_spacing_mm": 1.0, "slice_spacing_mm": 1.0, "spacing_valid": true,
                    "label": "mask-present", "source_sha256": "" }}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let records: Vec<SliceRecord> = ["a", "b", "c", "d"]
            .into_iter()
            .flat_map(|patient| (0..4).map(move |i| (patient, i)))
            .map(record)
            .collect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut selection = Selection {
            store_checksum: None,
            seed: 0,
            split: Split { train: names(&["a"]), validation: names(&["b"]), test: names(&["c"]) },
            labelled: ids(&["a1/0001", "a1/0002"]),
            validation: ids(&["b1/0000"]),
            train: ids(&["a1/0000", "a1/0001", "a1/0002"]),
            test: ids(&["c1/0000", "c1/0003"]),
        };
        change(&mut selection);
        selection.problems(&records)
    }

    type Change = fn(&mut Selection);

    fn ids(names: &[&str]) -> Vec<SliceId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_choice_of_the_stores_slices_by_patient_has_no_problem() {
        assert_eq!(problems(|_| ()), Vec::<String>::new());
        assert_eq!(problems(|s| (s.test, s.split.test) = (Vec::new(), Vec::new())), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_problem_is_named_with_its_slice_or_patient() {
        let cases: [(Change, &str); 10] = [
            (
                |s| s.train.extend(ids(&["c1/0000", "c1/0003"])),
                "`train` has slice 'c1/0000' of patient 'c', expected a patient of `split.train` (and 1 more like it)",
            ),
            (|s| s.split.test.push("a".into()), "patient 'a' is in `split.train` and in `split.test`, expected in one"),
            (|s| s.split.test.push("c".into()), "`split.test` has patient 'c' twice, expected once"),
            (|s| s.split.test.push("x".into()), "`split.test` has patient 'x', which the store doesn't have"),
            (|s| s.labelled.extend(ids(&["a1/0001"])), "`labelled` has slice 'a1/0001' twice, expected once"),
            (|s| s.train.extend(ids(&["a1/0004"])), "`train` has slice 'a1/0004', which the store doesn't have"),
            (|s| s.labelled.clear(), "`labelled` is empty, expected at least one slice"),
            (|s| s.labelled = ids(&["a1/0003"]), "`labelled` has slice 'a1/0003', which is not in `train`"),
            (
                |s| s.validation = ids(&["a1/0003"]),
                "`validation` has slice 'a1/0003' of patient 'a', expected a patient of `split.validation`",
            ),
            (
                |s| s.test = ids(&["d1/0003"]),
                "`test` has slice 'd1/0003' of patient 'd', expected a patient of `split.test`",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(problems(change), [expected]);
        }
    }
}
