//! Outlines to pixels.
//!
//! A centre on an outline counts. Contours through the centres of edge pixels, as some programs draw them, then give the mask that they
//! were drawn from; no other rule costs the mask less, and outlines between centres are not concerned.

use super::Polygon;

/// Coordinates are taken to this part of a pixel, so that the noise of decimal numbers doesn't decide what is on an outline.
const FINEST: f64 = 1.0 / 1024.0;

/// Calls `set` with each column and row of the slice that is inside of an odd number of the polygons, or on one of them; some more than
/// once.
pub(super) fn fill(polygons: &[Polygon], [columns, rows]: [usize; 2], mut set: impl FnMut(usize, usize)) {
    let rounded = |point: &[f64; 2]| point.map(|value| (value / FINEST).round() * FINEST);
    let polygons: Vec<Polygon> = polygons.iter().map(|polygon| polygon.iter().map(rounded).collect()).collect();
    let edges = || {
        polygons.iter().flat_map(|polygon| (0..polygon.len()).map(|i| [polygon[i], polygon[(i + 1) % polygon.len()]]))
    };
    // By row: where outlines cross it, and the stretches of them that lie on it.
    let mut crossings: Vec<Vec<f64>> = vec![Vec::new(); rows];
    let mut lying: Vec<Vec<[f64; 2]>> = vec![Vec::new(); rows];
    let within = |low: f64, high: f64| {
        let (first, last) = (low.ceil().max(0.0), high.floor().min(rows as f64 - 1.0));
        if first <= last { first as usize..last as usize + 1 } else { 0..0 }
    };
    for [[x1, y1], [x2, y2]] in edges() {
        for row in within(y1.min(y2), y1.max(y2)) {
            let y = row as f64;
            if (y1 <= y) != (y2 <= y) {
                crossings[row].push(x1 + (y - y1) * (x2 - x1) / (y2 - y1));
            }
            if y1 == y && y2 == y {
                lying[row].push([x1.min(x2), x1.max(x2)]);
            } else if y1 == y {
                lying[row].push([x1, x1]);
            }
        }
    }
    for row in 0..rows {
        crossings[row].sort_by(f64::total_cmp);
        let pairs = crossings[row].as_chunks::<2>().0;
        for &[from, to] in pairs.iter().chain(&lying[row]) {
            let (first, last) = ((from - FINEST).ceil().max(0.0), (to + FINEST).floor().min(columns as f64 - 1.0));
            if first <= last {
                (first as usize..=last as usize).for_each(|column| set(column, row));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing(polygons: &[Polygon]) -> Vec<String> {
        let mut picture = vec![vec!['.'; 8]; 6];
        fill(polygons, [8, 6], |column, row| picture[row][column] = '#');
        picture.into_iter().map(|line| line.into_iter().collect()).collect()
    }

    #[test]
    fn centres_inside_count_and_those_on_the_outline_too() {
        let between = vec![[0.5, 0.5], [4.5, 0.5], [4.5, 3.5], [0.5, 3.5]];
        assert_eq!(drawing(&[between]), ["........", ".####...", ".####...", ".####...", "........", "........"]);
        let through = vec![[1.0, 1.0], [4.0, 1.0], [4.0, 3.0], [1.0, 3.0]];
        assert_eq!(drawing(&[through]), ["........", ".####...", ".####...", ".####...", "........", "........"]);
        // A diamond whose corners are centres, and one that just misses them.
        let diamond = |r: f64| vec![[3.0, 3.0 - r], [3.0 + r, 3.0], [3.0, 3.0 + r], [3.0 - r, 3.0]];
        assert_eq!(drawing(&[diamond(2.0)]), ["........", "...#....", "..###...", ".#####..", "..###...", "...#...."]);
        assert_eq!(drawing(&[diamond(1.9)]), ["........", "........", "...#....", "..###...", "...#....", "........"]);
    }

    #[test]
    fn holes_are_contours_inside_or_keyholes() {
        let outer = vec![[0.5, 0.5], [6.5, 0.5], [6.5, 5.5], [0.5, 5.5]];
        let hole = vec![[2.5, 1.5], [4.5, 1.5], [4.5, 3.5], [2.5, 3.5]];
        let ring = ["........", ".######.", ".##..##.", ".##..##.", ".######.", ".######."];
        assert_eq!(drawing(&[outer.clone(), hole.clone()]), ring);
        let turned: Polygon = hole.iter().rev().copied().collect();
        assert_eq!(drawing(&[outer, turned]), ring);
        // In by a channel of no width through centres, around the hole, and out again.
        let keyhole = vec![
            [0.5, 0.5],
            [6.5, 0.5],
            [6.5, 5.5],
            [0.5, 5.5],
            [0.5, 2.0],
            [2.5, 2.0],
            [2.5, 3.5],
            [4.5, 3.5],
            [4.5, 1.5],
            [2.5, 1.5],
            [2.5, 2.0],
            [0.5, 2.0],
        ];
        assert_eq!(drawing(&[keyhole]), ring);
        // An island in the hole.
        let [outer, hole] =
            [0.0, 1.0].map(|d| vec![[d - 0.5, d - 0.5], [6.5 - d, d - 0.5], [6.5 - d, 5.5 - d], [d - 0.5, 5.5 - d]]);
        let island = vec![[2.5, 1.5], [3.5, 1.5], [3.5, 2.5], [2.5, 2.5]];
        assert_eq!(
            drawing(&[outer, hole, island]),
            ["#######.", "#.....#.", "#..#..#.", "#.....#.", "#.....#.", "#######."]
        );
    }

    #[test]
    fn what_lies_beside_the_picture_is_cut() {
        assert_eq!(
            drawing(&[vec![[-9.0, -9.0], [1.2, -9.0], [1.2, 1.2], [-9.0, 1.2]]])[..3],
            ["##......", "##......", "........"]
        );
        assert_eq!(drawing(&[vec![[90.0, 90.0], [99.0, 90.0], [99.0, 99.0]]]), ["........"; 6]);
    }
}
