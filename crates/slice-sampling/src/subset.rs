//! Which slices are labelled: what a strategy may look at, and the strategies that come with it.
//!
//! Invariants: no strategy can see a mask; the slices of a smaller number are the first of a larger one.

use crate::{SamplingError, stream_seed};
use slice_store::{SliceId, SliceRecord};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The slices that a strategy chooses among.
pub struct Pool<'a> {
    /// Slices of the training patients, in the store's order.
    pub slices: &'a [&'a SliceRecord],
    /// Those that can be chosen: places in `slices`, ascending.
    pub candidates: &'a [usize],
    /// Those that are labelled already.
    pub drawn: &'a [usize],
    /// What they look like.
    pub sights: &'a dyn Sights,
}

/// What a strategy can look at beside the records. Each is made when it is asked for.
pub trait Sights {
    /// HU, row-major, the store's `slice_size²`.
    ///
    /// # Errors
    /// There are no images.
    fn image(&self, slice: &SliceRecord) -> Result<&[i16], SamplingError>;

    /// For each slice the mean over all places of what the pretrained encoder makes of it.
    ///
    /// # Errors
    /// There is no encoder; it can't be read; or it was stopped.
    fn embeddings(&self, slices: &[&SliceRecord]) -> Result<Vec<Vec<f32>>, SamplingError>;

    /// What a run predicts of each slice, its neighbours beside it.
    ///
    /// # Errors
    /// There is no run; it can't be read; or it was stopped.
    fn predictions(&self, slices: &[&SliceRecord]) -> Result<Vec<PredictedSlice>, SamplingError>;

    /// Slices that are labelled already and count: those of the run.
    fn drawn(&self) -> &[SliceId] {
        &[]
    }
}

/// What a run makes of a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictedSlice {
    /// The classifier's probability that it shows the target.
    pub probability: f64,
    /// The share of its mask that is expected to be wrong by the mask's own probabilities: `Σ min(p, 1 − p) / Σ p`, at most 1; of a slice
    /// that is called empty the classifier's `min(p, 1 − p)`.
    pub uncertainty: f64,
    /// `1 − Dice` of the classifier's region and the segmenter's mask.
    pub disagreement: f64,
}

/// Records are all there is.
#[derive(Clone, Copy, Debug)]
pub struct NoSights;

impl Sights for NoSights {
    fn image(&self, _: &SliceRecord) -> Result<&[i16], SamplingError> {
        Err(SamplingError::NoSight { what: "images" })
    }

    fn embeddings(&self, _: &[&SliceRecord]) -> Result<Vec<Vec<f32>>, SamplingError> {
        Err(SamplingError::NoSight { what: "an encoder's embeddings" })
    }

    fn predictions(&self, _: &[&SliceRecord]) -> Result<Vec<PredictedSlice>, SamplingError> {
        Err(SamplingError::NoSight { what: "a run's predictions" })
    }
}

/// A slice that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its place in [`Pool::slices`], one of the candidates.
    pub place: usize,
    /// Why this one, for people.
    pub why: String,
}

/// Chooses the slices whose masks training may see, or that are drawn next. An experiment's own way of choosing implements this.
pub trait SubsetStrategy {
    /// `count` distinct candidates, of which there are at least so many; those that matter most come first. The result depends on
    /// nothing else.
    ///
    /// # Errors
    /// What it looks at isn't there.
    fn choose(&self, pool: &Pool, count: usize, seed: u64) -> Result<Vec<Choice>, SamplingError>;
}

/// What a strategy chooses, none asked for none, if that is what was asked for.
///
/// # Errors
/// As the strategy's; or what it gives are not `count` distinct candidates.
pub(crate) fn chosen_by(
    strategy: &dyn SubsetStrategy,
    pool: &Pool,
    count: usize,
    seed: u64,
) -> Result<Vec<Choice>, SamplingError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let chosen = strategy.choose(pool, count, seed)?;
    let distinct: BTreeSet<usize> = chosen.iter().map(|choice| choice.place).collect();
    let is_right = chosen.len() == count
        && distinct.len() == count
        && distinct.iter().all(|place| pool.candidates.binary_search(place).is_ok());
    if is_right { Ok(chosen) } else { Err(SamplingError::Strategy { asked: count, found: chosen.len() }) }
}

/// Uniform without replacement over the candidates: the method's.
#[derive(Clone, Copy, Debug)]
pub struct UniformSubset;

impl SubsetStrategy for UniformSubset {
    /// Each slice has a number of its own, which the seed and its name decide; the lowest come first.
    fn choose(&self, pool: &Pool, count: usize, seed: u64) -> Result<Vec<Choice>, SamplingError> {
        let mut drawn = pool.candidates.to_vec();
        drawn.sort_by_cached_key(|&place| key(seed, pool.slices[place]));
        let why = format!("drawn from {} candidates", drawn.len());
        Ok(drawn.into_iter().take(count).map(|place| Choice { place, why: why.clone() }).collect())
    }
}

/// Patients in turn, each one's slices far from those that it has.
#[derive(Clone, Copy, Debug)]
pub struct StratifiedSubset;

impl SubsetStrategy for StratifiedSubset {
    fn choose(&self, pool: &Pool, count: usize, seed: u64) -> Result<Vec<Choice>, SamplingError> {
        let next = |own: &[usize], had: &[usize]| {
            let why = match had.len() {
                0 => "the middle of what may show the target".to_owned(),
                others => format!("farthest from its other {others}"),
            };
            farthest(pool, own, had, seed).map(|place| (place, why))
        };
        Ok(in_turn(pool, count, seed, &next))
    }
}

/// The greedy k-center of the slices' embeddings: each next slice is the one farthest from those that are labelled (Sener and Savarese,
/// 2018, "Active learning for convolutional neural networks: a core-set approach", algorithm 1). The first, where there is none, is drawn.
#[derive(Clone, Copy, Debug)]
pub struct KCenterSubset;

impl SubsetStrategy for KCenterSubset {
    fn choose(&self, pool: &Pool, count: usize, seed: u64) -> Result<Vec<Choice>, SamplingError> {
        let embeddings = pool.sights.embeddings(pool.slices)?;
        // By candidate: the distance from the nearest that is labelled.
        let mut nearest = vec![f32::INFINITY; pool.candidates.len()];
        let bring_nearer = |nearest: &mut [f32], to: usize| {
            for (distance, &place) in nearest.iter_mut().zip(pool.candidates) {
                *distance = distance.min(apart(&embeddings[place], &embeddings[to]));
            }
        };
        pool.drawn.iter().for_each(|&place| bring_nearer(&mut nearest, place));
        let mut chosen: Vec<Choice> = Vec::with_capacity(count);
        while chosen.len() < count {
            let free = (0..pool.candidates.len()).filter(|&at| chosen.iter().all(|c| c.place != pool.candidates[at]));
            let next = free.max_by(|&a, &b| {
                let key = |at: usize| Reverse(key(seed, pool.slices[pool.candidates[at]]));
                nearest[a].total_cmp(&nearest[b]).then_with(|| key(a).cmp(&key(b)))
            });
            let Some(next) = next else { break };
            let why = if nearest[next].is_finite() {
                format!(
                    "looks least like the {} before it: {:.2} apart",
                    pool.drawn.len() + chosen.len(),
                    nearest[next]
                )
            } else {
                "the first, drawn".to_owned()
            };
            let place = pool.candidates[next];
            bring_nearer(&mut nearest, place);
            chosen.push(Choice { place, why });
        }
        Ok(chosen)
    }
}

/// Patients in turn, of each the slice that a run is least sure of.
#[derive(Clone, Copy, Debug)]
pub struct UncertainSubset;

impl SubsetStrategy for UncertainSubset {
    fn choose(&self, pool: &Pool, count: usize, seed: u64) -> Result<Vec<Choice>, SamplingError> {
        by_prediction(pool, count, seed, &|predicted| {
            (predicted.uncertainty, format!("expects {:.0} % of it to be wrong", 100.0 * predicted.uncertainty))
        })
    }
}

/// Patients in turn, of each the slice where a run's two branches differ most.
#[derive(Clone, Copy, Debug)]
pub struct DisagreeingSubset;

impl SubsetStrategy for DisagreeingSubset {
    fn choose(&self, pool: &Pool, count: usize, seed: u64) -> Result<Vec<Choice>, SamplingError> {
        by_prediction(pool, count, seed, &|predicted| {
            (predicted.disagreement, format!("classifier and segmenter: Dice {:.2}", 1.0 - predicted.disagreement))
        })
    }
}

/// So many slices to either side of a labelled one show almost the same.
const NEAR: u32 = 2;

/// Patients in turn, of each the slice of the greatest value; neighbours of labelled ones only when all others are.
fn by_prediction(
    pool: &Pool,
    count: usize,
    seed: u64,
    value: &dyn Fn(&PredictedSlice) -> (f64, String),
) -> Result<Vec<Choice>, SamplingError> {
    let predictions = pool.sights.predictions(pool.slices)?;
    let next = |own: &[usize], had: &[usize]| {
        let is_near = |place: usize| {
            let is_neighbour = |other: &SliceRecord| {
                other.case == pool.slices[place].case && other.index.abs_diff(pool.slices[place].index) <= NEAR
            };
            had.iter().any(|&other| is_neighbour(pool.slices[other]))
        };
        let best = own.iter().copied().max_by(|&a, &b| {
            let of = |place: usize| value(&predictions[place]).0;
            (!is_near(a)).cmp(&!is_near(b)).then_with(|| of(a).total_cmp(&of(b))).then_with(|| {
                let [a, b] = [a, b].map(|place| Reverse(key(seed, pool.slices[place])));
                a.cmp(&b)
            })
        });
        best.map(|place| (place, value(&predictions[place]).1))
    };
    Ok(in_turn(pool, count, seed, &next))
}

/// A patient's next slice out of its candidates, and why; the second are those of its slices that are labelled.
type Next<'a> = dyn Fn(&[usize], &[usize]) -> Option<(usize, String)> + 'a;

/// `count` candidates: the patient with the fewest slices is next.
fn in_turn(pool: &Pool, count: usize, seed: u64, next: &Next) -> Vec<Choice> {
    let by_patient = |places: &[usize]| {
        let mut patients: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for &place in places {
            patients.entry(&pool.slices[place].patient).or_default().push(place);
        }
        patients
    };
    let (mut open, mut has) = (by_patient(pool.candidates), by_patient(pool.drawn));
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let number = |patient: &str| has.get(patient).map_or(0, Vec::len);
        let turn =
            |(patient, _): &(&&str, &Vec<usize>)| (number(patient), stream_seed(seed, &format!("worklist/{patient}")));
        let Some((&patient, own)) = open.iter().min_by_key(turn) else { break };
        let had = has.entry(patient).or_default();
        let Some((place, why)) = next(own, had) else { break };
        had.push(place);
        chosen.push(Choice { place, why: format!("patient {patient}: {why}") });
        let left = open.entry(patient).or_default();
        left.retain(|&other| other != place);
        if left.is_empty() {
            open.remove(patient);
        }
    }
    chosen
}

/// The candidate with the greatest distance, in slices, from what the patient has in the same volume; without any, the middle one of
/// the longest volume.
fn farthest(pool: &Pool, own: &[usize], had: &[usize], seed: u64) -> Option<usize> {
    let of = |place: usize| pool.slices[place];
    let distance = |place: usize| {
        let same = had.iter().filter(|&&other| of(other).case == of(place).case);
        same.map(|&other| of(other).index.abs_diff(of(place).index)).min()
    };
    let fresh: Vec<usize> = own.iter().copied().filter(|&place| distance(place).is_none()).collect();
    if fresh.is_empty() {
        return own.iter().copied().max_by_key(|&place| (distance(place), Reverse(key(seed, of(place)))));
    }
    let volume = fresh.chunk_by(|&a, &b| of(a).case == of(b).case).max_by_key(|volume| volume.len())?;
    volume.get(volume.len() / 2).copied()
}

/// Squared Euclidean distance's root.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

fn key(seed: u64, record: &SliceRecord) -> u64 {
    stream_seed(seed, &format!("worklist/{}", record.id()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use slice_store::SliceLabel;

    /// Two patients of ten slices; a slice's embedding is its index, of `b` 100 more, and what is predicted of it follows.
    struct Made;

    impl Sights for Made {
        fn image(&self, _: &SliceRecord) -> Result<&[i16], SamplingError> {
            NoSights.image(&record("a", 0))
        }

        fn embeddings(&self, slices: &[&SliceRecord]) -> Result<Vec<Vec<f32>>, SamplingError> {
            let of = |slice: &&SliceRecord| vec![slice.index as f32 + if slice.case == "b" { 100.0 } else { 0.0 }];
            Ok(slices.iter().map(of).collect())
        }

        fn predictions(&self, slices: &[&SliceRecord]) -> Result<Vec<PredictedSlice>, SamplingError> {
            let of = |slice: &&SliceRecord| {
                let share = f64::from(slice.index) / 10.0;
                PredictedSlice { probability: 1.0, uncertainty: share, disagreement: 1.0 - share }
            };
            Ok(slices.iter().map(of).collect())
        }
    }

    fn record(patient: &str, index: u32) -> SliceRecord {
        SliceRecord {
            case: patient.to_owned(),
            patient: patient.to_owned(),
            index,
            position_mm: index as f32,
            row_spacing_mm: 1.0,
            column_spacing_mm: 1.0,
            slice_spacing_mm: 1.0,
            spacing_valid: true,
            label: SliceLabel::Unknown,
            source_sha256: String::new(),
        }
    }

    fn chosen(strategy: &dyn SubsetStrategy, drawn: &[usize], count: usize, seed: u64) -> Vec<String> {
        let records: Vec<SliceRecord> = ["a", "b"].iter().flat_map(|p| (0..10).map(|i| record(p, i))).collect();
        let slices: Vec<&SliceRecord> = records.iter().collect();
        let candidates: Vec<usize> = (0..20).filter(|place| !drawn.contains(place)).collect();
        let pool = Pool { slices: &slices, candidates: &candidates, drawn, sights: &Made };
        let chosen = strategy.choose(&pool, count, seed).unwrap();
        chosen.iter().map(|choice| slices[choice.place].id().to_string()).collect()
    }

    #[test]
    fn each_next_center_is_the_slice_farthest_from_all_that_are_labelled() {
        // Labelled is a/0000: the other end is b/0009; then a/0009 and b/0000, each 9 from a labelled one; then a middle, 4 from both.
        let found = chosen(&KCenterSubset, &[0], 4, 0);
        let ends: std::collections::BTreeSet<&str> = found[1..3].iter().map(String::as_str).collect();
        assert_eq!((found[0].as_str(), ends), ("b/0009", ["a/0009", "b/0000"].into()));
        assert!(["a/0004", "a/0005", "b/0004", "b/0005"].contains(&found[3].as_str()), "{found:?}");
        let firsts: std::collections::BTreeSet<String> =
            (0..8).map(|seed| chosen(&KCenterSubset, &[], 1, seed).remove(0)).collect();
        assert!(firsts.len() > 1, "the first is drawn: {firsts:?}");
    }

    #[test]
    fn the_least_sure_slices_come_first_patients_in_turn_and_no_neighbours() {
        let sure = chosen(&UncertainSubset, &[], 6, 0);
        let of = |patient: char| -> Vec<&str> {
            sure.iter().filter(|name| name.starts_with(patient)).map(|name| &name[2..]).collect()
        };
        assert_eq!((of('a'), of('b')), (vec!["0009", "0006", "0003"], vec!["0009", "0006", "0003"]));
        // a/0000 is labelled: its patient waits, and its neighbours too.
        let differ = chosen(&DisagreeingSubset, &[0], 3, 0);
        assert_eq!(differ[0], "b/0000");
        assert!(differ.contains(&"a/0003".to_owned()), "{differ:?}");
    }

    #[test]
    fn of_every_strategy_five_are_among_fifty() {
        for strategy in [
            &UniformSubset as &dyn SubsetStrategy,
            &StratifiedSubset,
            &KCenterSubset,
            &UncertainSubset,
            &DisagreeingSubset,
        ] {
            for seed in 0..4 {
                let (few, all) = (chosen(strategy, &[], 5, seed), chosen(strategy, &[], 20, seed));
                assert_eq!(few, all[..5]);
                let each: std::collections::BTreeSet<&String> = all.iter().collect();
                assert_eq!(each.len(), 20);
            }
        }
    }

    #[test]
    fn a_strategy_that_gives_something_else_than_was_asked_for_is_refused() {
        struct Gives(Vec<usize>);
        impl SubsetStrategy for Gives {
            fn choose(&self, _: &Pool, _: usize, _: u64) -> Result<Vec<Choice>, SamplingError> {
                Ok(self.0.iter().map(|&place| Choice { place, why: String::new() }).collect())
            }
        }
        let records: Vec<SliceRecord> = (0..4).map(|i| record("a", i)).collect();
        let slices: Vec<&SliceRecord> = records.iter().collect();
        let pool = Pool { slices: &slices, candidates: &[1, 3], drawn: &[], sights: &NoSights };
        let given = |places: &[usize]| chosen_by(&Gives(places.to_vec()), &pool, 2, 0);
        assert_eq!(given(&[3, 1]).unwrap().len(), 2);
        for wrong in [&[1][..], &[1, 1], &[1, 2], &[1, 9], &[1, 3, 0]] {
            assert!(given(wrong).unwrap_err().to_string().contains("2 distinct candidates"), "{wrong:?}");
        }
        assert!(chosen_by(&Gives(vec![9]), &pool, 0, 0).unwrap().is_empty());
    }

    #[test]
    fn what_looks_at_nothing_that_is_there_says_what_is_missing() {
        let record = record("a", 0);
        let pool = Pool { slices: &[&record], candidates: &[0], drawn: &[], sights: &NoSights };
        let missing = |strategy: &dyn SubsetStrategy| strategy.choose(&pool, 1, 0).unwrap_err().to_string();
        assert!(missing(&KCenterSubset).contains("an encoder's embeddings"));
        assert!(missing(&UncertainSubset).contains("a run's predictions"));
    }
}
