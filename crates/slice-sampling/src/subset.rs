//! The labelled subset.

use crate::SamplingError;
use crate::random::stream;
use rand::seq::index;
use slice_store::{SliceId, SliceRecord};
use std::collections::BTreeMap;

/// Chooses the slices whose masks training may see. An experiment's own way of choosing implements this.
pub trait SubsetStrategy {
    /// `budget` distinct slices with the target, which have a mask, out of `pool`, in the pool's order. The result depends on
    /// nothing else.
    fn choose(&self, pool: &[&SliceRecord], budget: usize, seed: u64) -> Result<Vec<SliceId>, SamplingError>;
}

/// Uniform without replacement over the slices with the target: the method's.
#[derive(Clone, Copy, Debug)]
pub struct UniformSubset;

impl SubsetStrategy for UniformSubset {
    fn choose(&self, pool: &[&SliceRecord], budget: usize, seed: u64) -> Result<Vec<SliceId>, SamplingError> {
        let candidates: Vec<&SliceRecord> = pool.iter().copied().filter(|r| r.has_target() && r.has_mask()).collect();
        if candidates.len() < budget {
            return Err(SamplingError::TooFewSlices { asked: budget, found: candidates.len() });
        }
        let mut chosen = index::sample(&mut stream(seed, "subset"), candidates.len(), budget).into_vec();
        chosen.sort_unstable();
        Ok(chosen.into_iter().map(|i| candidates[i].id()).collect())
    }
}

/// The middle share of each volume's slices, in `(0, 1]`; at least one slice of each.
pub fn keep_middle<'a>(records: &[&'a SliceRecord], keep_rate: f64) -> Vec<&'a SliceRecord> {
    let mut cases: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records {
        *cases.entry(&record.case).or_default() += 1;
    }
    records
        .iter()
        .copied()
        .filter(|record| {
            let count = cases[record.case.as_str()];
            let kept = ((count as f64 * keep_rate).round() as usize).clamp(1, count);
            let first = (count - kept) / 2;
            (first..first + kept).contains(&(record.index as usize))
        })
        .collect()
}
