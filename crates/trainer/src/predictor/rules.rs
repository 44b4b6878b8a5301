//! What slices of a volume say of their neighbours: pure functions on masks, boxes and scores.
//!
//! Slices are in their order; neighbours are those that follow each other there, whatever lies between them in the volume.

use super::ScoredMask;
use seg_metrics::{MaskView, dice};

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

/// Follows a run's parents to the first, and makes the way shorter for the next time.
fn root(parents: &mut [usize], mut of: usize) -> usize {
    while parents[of] != of {
        parents[of] = parents[parents[of]];
        of = parents[of];
    }
    of
}

/// The slice to begin with: the highest confidence; of equal ones the first. `None` if no slice has one.
pub fn seed(confidences: &[Option<f64>]) -> Option<usize> {
    let confident = confidences.iter().enumerate().filter_map(|(i, c)| c.map(|c| (i, c)));
    confident.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(i, _)| i)
}

/// The ways from a slice to the volume's two ends, as pairs of a slice and the neighbour that it comes from.
pub fn ways(seed: usize, count: usize) -> [Vec<(usize, usize)>; 2] {
    [(seed + 1..count).map(|i| (i, i - 1)).collect(), (0..seed).rev().map(|i| (i, i + 1)).collect()]
}

/// The candidate with the highest score × Dice with the neighbour's mask; of equal ones the first. `None` if none of them has
/// a pixel in common with it.
pub fn in_line_with(neighbour: &[u8], size: usize, candidates: Vec<ScoredMask>) -> Option<ScoredMask> {
    let worth = |candidate: &ScoredMask| candidate.score * dice(view(&candidate.mask, size), view(neighbour, size));
    candidates
        .into_iter()
        .map(|candidate| (worth(&candidate), candidate))
        .filter(|(worth, _)| *worth > 0.0)
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
    fn the_surest_slice_is_the_seed() {
        assert_eq!(seed(&[None, Some(0.4), Some(0.9), Some(0.9), None]), Some(2));
        assert_eq!(seed(&[None, None]), None);
    }

    #[test]
    fn ways_lead_from_the_seed_to_both_ends() {
        assert_eq!(ways(1, 4), [vec![(2, 1), (3, 2)], vec![(0, 1)]]);
        assert_eq!(ways(0, 1), [vec![], vec![]]);
    }

    #[test]
    fn the_candidate_in_line_with_its_neighbour_is_taken() {
        let scored = |mask: [u8; 4], score| ScoredMask { mask: mask.to_vec(), score };
        let (own, from_neighbour) = (scored([0, 0, 1, 1], 0.9), scored([1, 1, 0, 0], 0.5));
        // 0.9 · 2/4 against 0.5 · 1 with the whole of the upper row; with one pixel more of the lower row 0.9 · 2·1/3.
        let taken = in_line_with(&[1, 1, 0, 0], 2, vec![own.clone(), from_neighbour.clone()]);
        assert_eq!(taken, Some(from_neighbour.clone()));
        let taken = in_line_with(&[0, 0, 1, 0], 2, vec![own.clone(), from_neighbour]);
        assert_eq!(taken, Some(own.clone()));
        assert_eq!(in_line_with(&[1, 0, 0, 0], 2, vec![own]), None);
    }
}
