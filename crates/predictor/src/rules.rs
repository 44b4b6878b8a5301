//! What slices of a volume say of their neighbours: pure functions on masks, boxes and scores.
//!
//! Slices are in their order; neighbours are those that follow each other there, whatever lies between them in the volume.

use crate::predictor::ScoredMask;
use seg_metrics::{MaskView, dice};

/// A section that is larger than the smallest one by this factor has grown again.
const REGROWTH: f64 = 1.5;

/// Keeps the largest component of a volume, pixels being joined to the four around them and to those at the same place of the
/// slices before and after; of equally large ones the first.
pub fn keep_largest_component(masks: &mut [Vec<u8>], size: usize) {
    let runs = Runs::of(masks, size);
    let roots = runs.components(size);
    let mut sizes = vec![0; roots.len()];
    for (run, &root) in runs.all.iter().zip(&roots) {
        sizes[root] += run.to - run.from;
    }
    // A component's root is its first run.
    let largest = sizes.iter().enumerate().rev().max_by_key(|(_, size)| **size).map(|(root, _)| root);
    for (run, root) in runs.all.iter().zip(roots) {
        if Some(root) != largest {
            masks[run.line / size][run.line % size * size..][run.from..run.to].fill(0);
        }
    }
}

/// Pixels of a row that follow each other: a mask has some thousand times fewer of them than pixels.
struct Run {
    /// The row, counted through all slices.
    line: usize,
    from: usize,
    /// Not in it any more.
    to: usize,
}

struct Runs {
    all: Vec<Run>,
    /// Where each line's runs begin, and where the last line's end.
    starts: Vec<usize>,
}

impl Runs {
    fn of(masks: &[Vec<u8>], size: usize) -> Self {
        let (mut all, mut starts) = (Vec::new(), vec![0]);
        for (line, row) in masks.iter().flat_map(|mask| mask.chunks_exact(size)).enumerate() {
            let mut from = 0;
            for pixels in row.chunk_by(|a, b| (*a == 0) == (*b == 0)) {
                let to = from + pixels.len();
                if pixels[0] != 0 {
                    all.push(Run { line, from, to });
                }
                from = to;
            }
            starts.push(all.len());
        }
        Self { all, starts }
    }

    /// For each run the first run of its component.
    fn components(&self, size: usize) -> Vec<usize> {
        let mut parents: Vec<usize> = (0..self.all.len()).collect();
        for (i, run) in self.all.iter().enumerate() {
            let above = (run.line % size > 0).then(|| run.line - 1);
            let before = run.line.checked_sub(size);
            for line in [above, before].into_iter().flatten() {
                for j in self.starts[line]..self.starts[line + 1] {
                    if run.from < self.all[j].to && self.all[j].from < run.to {
                        let (a, b) = (root(&mut parents, i), root(&mut parents, j));
                        parents[a.max(b)] = a.min(b);
                    }
                }
            }
        }
        (0..parents.len()).map(|i| root(&mut parents, i)).collect()
    }
}

/// Follows a run's parents to the first, and shortens the path for the next time.
fn root(parents: &mut [usize], mut of: usize) -> usize {
    while parents[of] != of {
        parents[of] = parents[parents[of]];
        of = parents[of];
    }
    of
}

/// The slice to begin with: the highest confidence; of equal ones the first. `None` if no slice has one.
pub fn surest(confidences: &[Option<f64>]) -> Option<usize> {
    let confident = confidences.iter().enumerate().filter_map(|(i, c)| c.map(|c| (i, c)));
    confident.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(i, _)| i)
}

/// The slices from one to the volume's two ends, without itself.
pub fn directions(start: usize, count: usize) -> [Vec<usize>; 2] {
    [(start + 1..count).collect(), (0..start).rev().collect()]
}

/// Soft Dice of masks with the probability at each place, over all slices together, in `[0, 1]`: 2·Σpm / (Σp + Σm); 0 where
/// both are empty.
pub fn agreement<'a, P: AsRef<[f32]>>(slices: impl IntoIterator<Item = (P, &'a [u8])>) -> f64 {
    let (mut both, mut sum) = (0.0, 0.0);
    for (probabilities, mask) in slices {
        for (&p, &m) in probabilities.as_ref().iter().zip(mask) {
            both += if m == 0 { 0.0 } else { f64::from(p) };
            sum += f64::from(p) + f64::from(m);
        }
    }
    if sum > 0.0 { 2.0 * both / sum } else { 0.0 }
}

/// Whether most of a mask lies in another.
pub fn lies_in(mask: &[u8], other: &[u8]) -> bool {
    let both = mask.iter().zip(other).filter(|(m, o)| **m != 0 && **o != 0).count();
    2 * both > mask.iter().filter(|m| **m != 0).count()
}

/// Whether two volumes' masks have a pixel in common.
pub fn meet(masks: &[Vec<u8>], others: &[Vec<u8>]) -> bool {
    masks.iter().flatten().zip(others.iter().flatten()).any(|(a, b)| *a != 0 && *b != 0)
}

/// The mean probability inside a mask; 0 where it is empty.
pub fn mean_inside(probabilities: &[f32], mask: &[u8]) -> f64 {
    let inside = probabilities.iter().zip(mask).filter(|(_, m)| **m != 0);
    let (sum, count) = inside.fold((0.0, 0usize), |(sum, count), (&p, _)| (sum + f64::from(p), count + 1));
    if count > 0 { sum / count as f64 } else { 0.0 }
}

/// Where a target ends along a direction: an organ's sections become small toward its ends, and what grows again from there is
/// something else that lies next to it, such as the bowel below the liver.
pub struct Taper {
    share: f64,
    largest: usize,
    /// Since the largest.
    smallest: usize,
}

impl Taper {
    /// `share` of the largest section below which it has tapered off, 0: never; `seed` is the first section, in pixels.
    pub fn new(share: f64, seed: usize) -> Self {
        Self { share, largest: seed, smallest: seed }
    }

    /// Whether a next section of so many pixels still belongs to the target.
    pub fn allows(&mut self, section: usize) -> bool {
        let has_tapered = (self.smallest as f64) < self.share * self.largest as f64;
        if has_tapered && section as f64 > REGROWTH * self.smallest as f64 {
            return false;
        }
        if section > self.largest {
            (self.largest, self.smallest) = (section, section);
        }
        self.smallest = self.smallest.min(section);
        true
    }
}

/// The candidate for which most speaks: its score + its Dice with the neighbour's mask; of equal ones the first.
pub fn best_candidate(candidates: Vec<ScoredMask>, neighbour: &[u8], size: usize) -> Option<ScoredMask> {
    let worth =
        |candidate: &ScoredMask| candidate.scored.score + dice(view(&candidate.mask, size), view(neighbour, size));
    candidates
        .into_iter()
        .map(|candidate| (worth(&candidate), candidate))
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, candidate)| candidate)
}

/// Panics where the sizes differ, as masks of one volume never do.
fn view(mask: &[u8], size: usize) -> MaskView<'_> {
    MaskView::new(mask, size, size).expect("masks have the slice's size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_component_goes_on_through_slices_and_diagonals_do_not_join() {
        #[rustfmt::skip]
        let mut masks = vec![
            vec![1, 1, 0,
                 1, 0, 0,
                 0, 0, 1],
            vec![0, 0, 0,
                 0, 0, 1,
                 0, 1, 1],
            vec![0, 0, 0,
                 0, 0, 0,
                 1, 0, 0],
        ];
        keep_largest_component(&mut masks, 3);
        // Four pixels in two slices against three in one; the last slice's pixel touches a corner only.
        #[rustfmt::skip]
        let expected = [
            [0, 0, 0,
             0, 0, 0,
             0, 0, 1],
            [0, 0, 0,
             0, 0, 1,
             0, 1, 1],
            [0; 9],
        ];
        assert_eq!(masks, expected);
    }

    #[test]
    fn a_row_of_the_slice_does_not_go_on_in_the_next_row_or_slice() {
        // The last pixel of a row and the first of the next follow each other in memory, as do slices' ends.
        #[rustfmt::skip]
        let mut masks = vec![
            vec![0, 0, 1,
                 1, 1, 0,
                 0, 0, 1],
            vec![1, 0, 0,
                 0, 0, 0,
                 0, 0, 0],
        ];
        keep_largest_component(&mut masks, 3);
        assert_eq!(masks, [[0, 0, 0, 1, 1, 0, 0, 0, 0], [0; 9]]);
    }

    #[test]
    fn empty_volumes_stay_empty() {
        let mut none: Vec<Vec<u8>> = Vec::new();
        keep_largest_component(&mut none, 4);
        let mut empty = vec![vec![0; 4]; 3];
        keep_largest_component(&mut empty, 2);
        assert_eq!(empty, vec![vec![0; 4]; 3]);
    }

    #[test]
    fn the_surest_slice_is_the_first_to_begin_with() {
        assert_eq!(surest(&[None, Some(0.4), Some(0.9), Some(0.9), None]), Some(2));
        assert_eq!(surest(&[None, None]), None);
    }

    #[test]
    fn directions_lead_from_the_start_to_both_ends() {
        assert_eq!(directions(2, 5), [vec![3, 4], vec![1, 0]]);
        assert!(directions(0, 1).iter().all(Vec::is_empty));
    }

    #[test]
    fn agreement_is_dice_for_a_map_that_is_sure() {
        let one = |p: [f32; 4], m: [u8; 4]| agreement([(p, m.as_slice())]);
        assert_eq!(one([1.0, 1.0, 0.0, 0.0], [0, 1, 1, 1]), 2.0 / 5.0);
        // 2 · (0.5 + 0.25) / (0.5 + 0.25 + 0.25 + 2).
        assert_eq!(one([0.5, 0.25, 0.25, 0.0], [1, 1, 0, 0]), 0.5);
        assert_eq!(one([0.0; 4], [0; 4]), 0.0);
        // Slices count together: 2 · 1 / (1 + 1 + 2).
        assert_eq!(agreement([([1.0f32, 0.0], [1u8, 0].as_slice()), ([1.0, 0.0], &[0, 1])]), 2.0 / 4.0);
    }

    #[test]
    fn masks_lie_in_others_and_meet() {
        assert!(lies_in(&[1, 1, 1, 0], &[1, 1, 0, 1]));
        assert!(!lies_in(&[1, 1, 0, 0], &[1, 0, 1, 1]));
        assert!(meet(&[vec![0, 0], vec![1, 1]], &[vec![1, 0], vec![0, 1]]));
        assert!(!meet(&[vec![0, 1], vec![0, 0]], &[vec![1, 0], vec![1, 1]]));
    }

    #[test]
    fn only_places_inside_the_mask_count_for_its_mean() {
        assert_eq!(mean_inside(&[0.5, 0.25, 1.0, 0.0], &[1, 1, 0, 0]), 0.375);
        assert_eq!(mean_inside(&[0.5; 4], &[0; 4]), 0.0);
    }

    #[test]
    fn the_candidate_for_which_most_speaks_is_taken() {
        let scored = |mask: [u8; 4], score| ScoredMask {
            mask: mask.to_vec(),
            scored: crate::predictor::Scored { score, probabilities: Vec::new() },
        };
        let (upper, lower) = (scored([1, 1, 0, 0], 0.5), scored([0, 0, 1, 1], 0.9));
        let taken = |neighbour: &[u8]| best_candidate(vec![upper.clone(), lower.clone()], neighbour, 2).unwrap();
        // 0.5 + 1 against 0.9: the neighbour's mask is the upper row.
        assert_eq!(taken(&[1, 1, 0, 0]), upper);
        // 0.5 + 2·1/3 against 0.9 + 2·1/3.
        assert_eq!(taken(&[1, 0, 1, 0]), lower);
        assert_eq!(best_candidate(Vec::new(), &[0; 4], 2), None);
    }

    #[test]
    fn what_grows_again_after_the_target_tapered_off_ends_the_way() {
        let went = |sections: &[usize], share: f64| {
            let mut taper = Taper::new(share, sections[0]);
            sections[1..].iter().take_while(|&&section| taper.allows(section)).count()
        };
        // Below a tenth of 1000 at 90; 130 is less than 1.5 × 90, 140 more.
        assert_eq!(went(&[800, 1000, 300, 90, 130, 140, 60], 0.1), 4);
        assert_eq!(went(&[800, 1000, 300, 90, 130, 140, 60], 0.0), 6);
        // A small seed grows as the target does.
        assert_eq!(went(&[10, 40, 300, 1000, 400, 90, 80], 0.1), 6);
    }
}
