//! Exact Euclidean distances to the nearest marked point of a grid, in two passes: along the columns, then across them.
//! [`distance_transform`] answers for every pixel, [`Nearest`] for single points only.

use crate::edges::Grid;
use crate::{MaskView, Spacing};

/// Distance of every pixel to the nearest foreground pixel, row-major `[height · width]`, in the unit of `spacing`; 0 on
/// the foreground, infinite everywhere in an empty mask.
///
/// Linear in the number of pixels (Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled Functions", 2012).
pub fn distance_transform(mask: MaskView<'_>, spacing: Spacing) -> Vec<f64> {
    let (height, width) = (mask.height(), mask.width());
    let mut distances = column_distances(mask.pixels(), height, width, spacing.row);
    let mut envelope = Envelope::default();
    for row in distances.chunks_exact_mut(width.max(1)) {
        for distance in row.iter_mut() {
            *distance *= *distance;
        }
        envelope.build(row, spacing.column);
        envelope.sample(row, spacing.column);
    }
    distances
}

/// Nearest-point queries on a grid. For contours that lie close together, as those of a prediction and its truth do,
/// this is an order of magnitude less work than a transform of the whole grid.
pub(crate) struct Nearest {
    /// Distance to the nearest marked point of the same column; infinite in a column without any.
    along_column: Vec<f64>,
    width: usize,
    spacing: Spacing,
}

impl Nearest {
    pub fn new(marked: &Grid, spacing: Spacing) -> Self {
        let along_column = column_distances(&marked.cells, marked.height, marked.width, spacing.row);
        Self { along_column, width: marked.width, spacing }
    }

    /// Distance of point (`y`, `x`) to the nearest marked point: looks outwards along the row until the columns alone are
    /// further away than the best point found.
    pub fn distance(&self, y: usize, x: usize) -> f64 {
        let row = &self.along_column[y * self.width..][..self.width];
        let mut best = row[x] * row[x];
        for step in 1..self.width {
            let across = step as f64 * self.spacing.column;
            let across = across * across;
            if across >= best {
                break;
            }
            let left = x.checked_sub(step).map(|x| row[x]);
            for along in [left, row.get(x + step).copied()].into_iter().flatten() {
                best = best.min(along * along + across);
            }
        }
        best.sqrt()
    }
}

/// First pass: distance of every point to the nearest marked point of its own column.
fn column_distances(marked: &[u8], height: usize, width: usize, spacing: f64) -> Vec<f64> {
    let mut rows_away: Vec<f64> = marked.iter().map(|&mark| if mark == 0 { f64::INFINITY } else { 0.0 }).collect();
    for y in 1..height {
        let (above, below) = rows_away.split_at_mut(y * width);
        step(&above[(y - 1) * width..], &mut below[..width]);
    }
    for y in (1..height).rev() {
        let (above, below) = rows_away.split_at_mut(y * width);
        step(&below[..width], &mut above[(y - 1) * width..]);
    }
    for rows in &mut rows_away {
        *rows *= spacing;
    }
    rows_away
}

/// A row is at most one step further away than its neighbour.
fn step(from: &[f64], to: &mut [f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = to.min(*from + 1.0));
}

/// Lower envelope of the parabolas (x - vertex)² + height over a row, reused from row to row.
#[derive(Default)]
struct Envelope {
    /// (column, height, first x at which this parabola is the lowest), from left to right.
    parabolas: Vec<(f64, f64, f64)>,
}

impl Envelope {
    fn build(&mut self, heights: &[f64], spacing: f64) {
        self.parabolas.clear();
        for (column, &height) in heights.iter().enumerate().filter(|(_, height)| height.is_finite()) {
            let vertex = column as f64 * spacing;
            let mut start = f64::NEG_INFINITY;
            while let Some(&(other, other_height, other_start)) = self.parabolas.last() {
                // Where the two parabolas meet: from here on the new one is lower.
                start = ((height + vertex * vertex) - (other_height + other * other)) / (2.0 * (vertex - other));
                if start > other_start {
                    break;
                }
                self.parabolas.pop();
                start = f64::NEG_INFINITY;
            }
            self.parabolas.push((vertex, height, start));
        }
    }

    /// Writes the square root of the envelope at every column; infinity where the row has no parabola.
    fn sample(&self, row: &mut [f64], spacing: f64) {
        let mut current = 0;
        for (column, distance) in row.iter_mut().enumerate() {
            let x = column as f64 * spacing;
            while self.parabolas.get(current + 1).is_some_and(|&(_, _, start)| start <= x) {
                current += 1;
            }
            *distance = self
                .parabolas
                .get(current)
                .map_or(f64::INFINITY, |&(vertex, height, _)| ((x - vertex) * (x - vertex) + height).sqrt());
        }
    }
}
