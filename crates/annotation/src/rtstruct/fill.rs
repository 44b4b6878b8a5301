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
    let heights = || polygons.iter().flatten().map(|point| point[1]);
    let (top, bottom) = (heights().fold(f64::INFINITY, f64::min), heights().fold(f64::NEG_INFINITY, f64::max));
    // One at a time: memory then is that of the outlines, whatever they are like.
    let (mut crossings, mut lying) = (Vec::new(), Vec::new());
    for row in (0..rows).filter(|&row| (top..=bottom).contains(&(row as f64))) {
        let y = row as f64;
        crossings.clear();
        lying.clear();
        for [[x1, y1], [x2, y2]] in edges() {
            if (y1 <= y) != (y2 <= y) {
                crossings.push(x1 + (y - y1) * (x2 - x1) / (y2 - y1));
            }
            // What lies on the row, and corners that only touch it.
            if y1 == y {
                let end = if y2 == y { x2 } else { x1 };
                lying.push([x1.min(end), x1.max(end)]);
            }
        }
        crossings.sort_by(f64::total_cmp);
        for &[from, to] in crossings.as_chunks::<2>().0.iter().chain(&lying) {
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
