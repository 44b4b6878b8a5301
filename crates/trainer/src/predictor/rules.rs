//! What slices of a volume say of their neighbours: pure functions on masks, boxes and scores.
//!
//! Slices are in their order; neighbours are those that follow each other there, whatever lies between them in the volume.

use super::ScoredMask;
use seg_metrics::{MaskView, dice};

/// Keeps the largest component of a volume, pixels being joined to the four around them and to those at the same place of the
/// slices before and after; of equally large ones the first.
pub fn keep_largest_component(masks: &mut [Vec<u8>], size: usize) {
    let area = size * size;
    let is_set = |masks: &[Vec<u8>], at: usize| masks[at / area][at % area] != 0;
    let voxels = masks.len() * area;
    let mut component = vec![0u32; voxels];
    let (mut count, mut largest) = (0, (0, 0));
    let mut pending = Vec::new();
    for start in 0..voxels {
        if component[start] != 0 || !is_set(masks, start) {
            continue;
        }
        count += 1;
        component[start] = count;
        pending.push(start);
        let mut members = 0;
        while let Some(at) = pending.pop() {
            members += 1;
            let (y, x) = (at % area / size, at % size);
            let neighbours = [
                (x > 0).then(|| at - 1),
                (x + 1 < size).then(|| at + 1),
                (y > 0).then(|| at - size),
                (y + 1 < size).then(|| at + size),
                (at >= area).then(|| at - area),
                (at + area < voxels).then(|| at + area),
            ];
            for next in neighbours.into_iter().flatten() {
                if component[next] == 0 && is_set(masks, next) {
                    component[next] = count;
                    pending.push(next);
                }
            }
        }
        if members > largest.0 {
            largest = (members, count);
        }
    }
    for (mask, of) in masks.iter_mut().zip(component.chunks_exact(area)) {
        mask.iter_mut().zip(of).filter(|(_, of)| **of != largest.1).for_each(|(pixel, _)| *pixel = 0);
    }
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
