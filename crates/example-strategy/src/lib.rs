//! An experiment's own way of choosing the labelled slices: as many patients as there are labelled slices, or all of them, and of
//! each the slices in the middle of its organ.
//!
//! This is all that it takes: a type that implements [`SubsetStrategy`] and a program that adds it to the registry
//! (`src/main.rs`). The configuration then says `sampling.strategy = "middle"`, and `choose --strategy middle` takes it too. One that looks
//! at images, embeddings or a run's predictions asks [`Pool::sights`] for them.

use slice_sampling::{Choice, Pool, SamplingError, SubsetStrategy};
use std::collections::BTreeMap;
use trainer::registry::Registry;

/// The registry of this workspace with the example in it.
pub fn registry() -> Registry {
    Registry::default().with_strategy("middle", MiddleSlices)
}

/// The middle slices of each patient in turn.
#[derive(Clone, Copy, Debug)]
pub struct MiddleSlices;

impl SubsetStrategy for MiddleSlices {
    fn choose(&self, pool: &Pool, count: usize, _: u64) -> Result<Vec<Choice>, SamplingError> {
        let mut patients: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for &place in pool.candidates {
            patients.entry(&pool.slices[place].patient).or_default().push(place);
        }
        for slices in patients.values_mut() {
            let middle = slices.len() / 2;
            let mut order: Vec<usize> = (0..slices.len()).collect();
            order.sort_by_key(|&i| i.abs_diff(middle));
            *slices = order.into_iter().map(|i| slices[i]).collect();
        }
        let longest = patients.values().map(Vec::len).max().unwrap_or(0);
        let in_turn = (0..longest).flat_map(|i| patients.values().filter_map(move |slices| slices.get(i).copied()));
        let choice = |place| Choice { place, why: "near the middle of its patient".into() };
        Ok(in_turn.take(count).map(choice).collect())
    }
}
