//! Pixels to outlines that every reader makes the same pixels of.
//!
//! An outline follows the edges of pixels, a little inside of them. So a centre is about half a pixel away from it, for readers that ask
//! whether centres are inside; and a reader that rounds corners to whole pixels and fills the polygon between them, outline included,
//! lands on the edge pixels. Pixels that touch in a corner only are told apart. A hole is part of the outline around it, by a channel
//! of no width ("keyhole", PS3.3, C.8.8.6.3), which runs beside centres as well.

use super::Polygon;

/// How far inside, in pixels.
const INSET: f64 = 1.0 / 64.0;

/// Right, down, left, up.
const STEPS: [[i64; 2]; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];

/// The outlines of a slice's mask, whose value is asked for by column and row.
pub(super) fn outlines(is_set: impl Fn(usize, usize) -> bool, [columns, rows]: [usize; 2]) -> Vec<Polygon> {
    let (mut outer, mut holes): (Vec<Polygon>, Vec<Polygon>) =
        loops(is_set, [columns, rows]).into_iter().partition(|polygon| area(polygon) > 0.0);
    // From the top: what a hole's channel meets, going left, then is an outline that all earlier holes are part of.
    let key = |polygon: &Polygon| polygon.iter().copied().min_by(|a, b| by_row(*a, *b)).unwrap_or_default();
    holes.sort_by(|a, b| by_row(key(a), key(b)));
    for mut hole in holes {
        let start = key(&hole);
        let place = hole.iter().position(|point| *point == start).unwrap_or_default();
        hole.rotate_left(place);
        match to_the_left(&outer, start) {
            Some((polygon, edge, meets)) => {
                let channel = [meets].into_iter().chain(hole).chain([start, meets]);
                outer[polygon].splice(edge + 1..=edge, channel);
            }
            None => outer.push(hole),
        }
    }
    for polygon in &mut outer {
        polygon.dedup();
        if polygon.first() == polygon.last() {
            polygon.pop();
        }
    }
    outer
}

fn by_row([x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) -> std::cmp::Ordering {
    y1.total_cmp(&y2).then(x1.total_cmp(&x2))
}

/// The nearest edge of a polygon to the left of a point: polygon, edge, and where it is met.
fn to_the_left(polygons: &[Polygon], [x, y]: [f64; 2]) -> Option<(usize, usize, [f64; 2])> {
    let mut nearest: Option<(usize, usize, [f64; 2])> = None;
    for (number, polygon) in polygons.iter().enumerate() {
        for (edge, [x1, y1]) in polygon.iter().copied().enumerate() {
            let [x2, y2] = polygon[(edge + 1) % polygon.len()];
            let is_met = x1 == x2 && x1 < x && y1.min(y2) <= y && y <= y1.max(y2);
            if is_met && nearest.is_none_or(|(.., [best, _])| x1 > best) {
                nearest = Some((number, edge, [x1, y]));
            }
        }
    }
    nearest
}

/// Twice the area, above 0 where the inside is at the right hand.
fn area(polygon: &Polygon) -> f64 {
    let next = |i: usize| polygon[(i + 1) % polygon.len()];
    (0..polygon.len()).map(|i| polygon[i][0] * next(i)[1] - next(i)[0] * polygon[i][1]).sum()
}

/// Every line between set and other pixels, with the set ones at its right hand: corners only.
fn loops(is_set: impl Fn(usize, usize) -> bool, [columns, rows]: [usize; 2]) -> Vec<Polygon> {
    let set = |column: i64, row: i64| {
        (0..columns as i64).contains(&column)
            && (0..rows as i64).contains(&row)
            && is_set(column as usize, row as usize)
    };
    // A bit for each direction in which a line leaves a corner; corner (i, j) is the upper left one of pixel (i, j).
    let width = columns + 1;
    let mut leaves = vec![0_u8; width * (rows + 1)];
    for row in 0..rows as i64 {
        for column in 0..columns as i64 {
            if !set(column, row) {
                continue;
            }
            let lines = [(0, -1, 0, 0), (1, 0, 1, 0), (0, 1, 1, 1), (-1, 0, 0, 1)];
            for (direction, (dx, dy, i, j)) in lines.into_iter().enumerate() {
                if !set(column + dx, row + dy) {
                    leaves[(column + i) as usize + width * (row + j) as usize] |= 1 << direction;
                }
            }
        }
    }
    let mut loops = Vec::new();
    for first in 0..leaves.len() {
        while leaves[first] != 0 {
            let mut polygon = Polygon::new();
            let start = leaves[first].trailing_zeros() as usize;
            let (mut corner, mut direction) = (first, start);
            // The first line stays noted until it is come to again.
            loop {
                let [dx, dy] = STEPS[direction];
                corner = (corner as i64 + dx + dy * width as i64) as usize;
                // To the right first: around the same pixel, where two touch in a corner.
                let turns = [(direction + 1) % 4, direction, (direction + 3) % 4];
                let next = turns.into_iter().find(|turn| leaves[corner] >> turn & 1 == 1).unwrap_or(start);
                if next != direction {
                    polygon.push(inside([corner % width, corner / width], direction, next));
                }
                leaves[corner] &= !(1 << next);
                if corner == first && next == start {
                    break;
                }
                direction = next;
            }
            loops.push(polygon);
        }
    }
    loops
}

/// A corner, moved to the right of both lines that meet in it; pixels' centres are at whole numbers.
fn inside([i, j]: [usize; 2], from: usize, to: usize) -> [f64; 2] {
    let right = |direction: usize| STEPS[(direction + 1) % 4];
    let moved = |axis: usize| INSET * (right(from)[axis] + right(to)[axis]) as f64;
    [i as f64 - 0.5 + moved(0), j as f64 - 0.5 + moved(1)]
}

#[cfg(test)]
mod tests {
    use super::super::fill::fill;
    use super::*;
    use proptest::prelude::*;

    fn filled(polygons: &[Polygon], [columns, rows]: [usize; 2]) -> Vec<bool> {
        let mut mask = vec![false; columns * rows];
        fill(polygons, [columns, rows], |column, row| mask[column + columns * row] = true);
        mask
    }

    fn drawn(lines: &[&str]) -> (Vec<bool>, [usize; 2]) {
        (lines.concat().chars().map(|pixel| pixel == '#').collect(), [lines[0].len(), lines.len()])
    }

    fn of(mask: &[bool], [columns, rows]: [usize; 2]) -> Vec<Polygon> {
        outlines(|column, row| mask[column + columns * row], [columns, rows])
    }

    #[test]
    fn one_pixel_has_four_corners_a_little_inside_of_its_edges() {
        let (mask, size) = drawn(&["...", ".#.", "..."]);
        let (near, far) = (0.5 + INSET, 1.5 - INSET);
        assert_eq!(of(&mask, size), [[[far, near], [far, far], [near, far], [near, near]]]);
    }

    #[test]
    fn a_hole_is_a_part_of_the_outline_around_it_and_corners_don_t_join() {
        let (mask, size) = drawn(&["#####..", "#.#.#..", "#####..", "##.##.#", "#####..", "......#", ".#.#..."]);
        // The ring with three holes, and four pixels by themselves.
        assert_eq!(of(&mask, size).len(), 5);
        let (mask, size) = drawn(&["##..", "##..", "..##", "..##"]);
        assert_eq!(of(&mask, size).len(), 2);
    }

    fn same_for_every_reader(mask: &[bool], size: [usize; 2]) -> Result<(), TestCaseError> {
        let polygons = of(mask, size);
        prop_assert!(filled(&polygons, size) == mask, "by centres");
        // Corners rounded to whole pixels, outlines included: OpenCV's way.
        let round = |polygon: &Polygon| polygon.iter().map(|point| point.map(f64::round)).collect();
        let rounded: Vec<Polygon> = polygons.iter().map(round).collect();
        let mut all = vec![false; mask.len()];
        for polygon in rounded {
            for (pixel, set) in filled(&[polygon], size).into_iter().enumerate() {
                all[pixel] |= set;
            }
        }
        prop_assert!(all == mask, "rounded");
        // By the winding number, in whatever direction.
        for (pixel, &set) in mask.iter().enumerate() {
            let [x, y] = [pixel % size[0], pixel / size[0]].map(|i| i as f64);
            let winding: i32 = polygons.iter().map(|polygon| winding_number(polygon, x, y)).sum();
            prop_assert_eq!(winding, i32::from(set));
        }
        Ok(())
    }

    fn winding_number(polygon: &Polygon, x: f64, y: f64) -> i32 {
        let edge = |i: usize| {
            let ([x1, y1], [x2, y2]) = (polygon[i], polygon[(i + 1) % polygon.len()]);
            // Edges are straight along rows or columns: those along columns cross the line to the right.
            if x1 == x2 && x1 > x { i32::from(y1 <= y && y < y2) - i32::from(y2 <= y && y < y1) } else { 0 }
        };
        (0..polygon.len()).map(edge).sum()
    }

    proptest! {
        #[test]
        fn every_mask_comes_back_by_every_rule(
            size in [1_usize..14, 1_usize..14],
            density in 0.05_f64..0.98,
            seed in proptest::collection::vec(0.0_f64..1.0, 14 * 14),
        ) {
            let mask: Vec<bool> = seed[..size[0] * size[1]].iter().map(|&value| value < density).collect();
            same_for_every_reader(&mask, size)?;
        }
    }
}
