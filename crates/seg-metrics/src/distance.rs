//! Exact Euclidean distances to the nearest marked point of a grid, one axis after the other: steps along the first, the
//! lower envelope of parabolas across the second, and across the third that envelope again ([`distance_transform`]) or,
//! for single points, a search ([`distances`]).

use crate::boundary::{Boundary, Field, Region, is_empty};
use crate::{MaskView, Spacing};

/// Distance of every pixel to the nearest foreground pixel, row-major `[height · width]`, in the unit of `spacing`; 0 on
/// the foreground, infinite everywhere in an empty mask.
///
/// Linear in the number of pixels (Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled Functions", 2012).
pub fn distance_transform(mask: MaskView<'_>, spacing: Spacing) -> Vec<f64> {
    let width = mask.width().max(1);
    let steps = steps(mask.pixels().chunks_exact(width), mask.height(), mask.width());
    let mut distances: Vec<f64> = steps.into_iter().map(|steps| squared(steps, spacing.row)).collect();
    let mut envelope = Envelope::default();
    for row in distances.chunks_exact_mut(width) {
        envelope.replace(row, spacing.column);
        for distance in row {
            *distance = distance.sqrt();
        }
    }
    distances
}

/// Value and distance to the boundary of `to`, which has one, of every point on that of `from`.
///
/// Between the axes the work is a search: for boundaries that lie close together, as those of a prediction and its truth
/// do, an order of magnitude less than a transform. Of the region, 4 bytes a point are held, and a slice of distances.
pub(crate) fn distances(region: Region, boundary: Boundary, from: Field<'_>, to: Field<'_>) -> Vec<(u8, f64)> {
    let [depth, height, width] = region.points(boundary);
    let steps = steps(region.slices(to, boundary), depth, height * width);
    let mut distances = Vec::new();
    let mut envelope = Envelope::default();
    let mut column = vec![0.0; height];
    let mut squares = vec![0.0; height * width];
    for (marked, steps) in region.slices(from, boundary).zip(steps.chunks_exact(height * width)) {
        if is_empty(&marked) {
            continue;
        }
        squares.iter_mut().zip(steps).for_each(|(square, &steps)| *square = squared(steps, from.spacing[0]));
        for x in 0..if height > 1 { width } else { 0 } {
            column.iter_mut().zip(squares[x..].iter().step_by(width)).for_each(|(to, from)| *to = *from);
            envelope.replace(&mut column, from.spacing[1]);
            squares[x..].iter_mut().step_by(width).zip(&column).for_each(|(to, from)| *to = *from);
        }
        for (marked, squares) in marked.chunks_exact(width).zip(squares.chunks_exact(width)) {
            for (x, &value) in marked.iter().enumerate() {
                if value != 0 {
                    distances.push((value, nearest(squares, x, from.spacing[2]).sqrt()));
                }
            }
        }
    }
    distances
}

/// Smallest sum of a row's value and the square of the distance to it from column `x`: looks outwards until the way along
/// the row alone is longer than the best sum.
fn nearest(row: &[f64], x: usize, spacing: f64) -> f64 {
    let mut best = row[x];
    for step in 1..row.len() {
        let across = (step as f64 * spacing).powi(2);
        if across >= best {
            break;
        }
        let left = x.checked_sub(step).map(|x| row[x]);
        for square in [left, row.get(x + step).copied()].into_iter().flatten() {
            best = best.min(square + across);
        }
    }
    best
}

/// Steps along the first axis from every point to the nearest marked one; infinite where that axis has none. Whole numbers,
/// exact below 2²⁴, as 32-bit floats: half the memory of the distances, and the baseline of x86-64 has their minimum.
fn steps(slices: impl Iterator<Item = impl AsRef<[u8]>>, depth: usize, points: usize) -> Vec<f32> {
    let mut steps = vec![f32::INFINITY; depth * points];
    for (z, marked) in slices.enumerate() {
        let (before, here) = steps.split_at_mut(z * points);
        if z > 0 {
            take_step(&before[(z - 1) * points..], &mut here[..points]);
        }
        here.iter_mut().zip(marked.as_ref()).for_each(|(steps, &mark)| *steps = if mark == 0 { *steps } else { 0.0 });
    }
    for z in (1..depth).rev() {
        let (before, here) = steps.split_at_mut(z * points);
        take_step(&here[..points], &mut before[(z - 1) * points..]);
    }
    steps
}

/// A slice is at most one step further away than its neighbour.
fn take_step(from: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = to.min(*from + 1.0));
}

fn squared(steps: f32, spacing: f64) -> f64 {
    (f64::from(steps) * spacing).powi(2)
}

/// Lower envelope of the parabolas (x - vertex)² + height over a row, reused from row to row.
#[derive(Default)]
struct Envelope {
    /// (point, height, first x at which this parabola is the lowest), from left to right.
    parabolas: Vec<(usize, f64, f64)>,
}

impl Envelope {
    /// Takes heights and gives the envelope at the same points, infinite where no height is finite.
    fn replace(&mut self, row: &mut [f64], spacing: f64) {
        self.build(row, spacing);
        let mut current = 0;
        for (point, value) in row.iter_mut().enumerate() {
            let x = point as f64 * spacing;
            while self.parabolas.get(current + 1).is_some_and(|&(_, _, start)| start <= x) {
                current += 1;
            }
            // Whole steps first, then their length: the same bits as SciPy's, so that what lies at a tolerance agrees.
            *value = self.parabolas.get(current).map_or(f64::INFINITY, |&(vertex, height, _)| {
                (point.abs_diff(vertex) as f64 * spacing).powi(2) + height
            });
        }
    }

    fn build(&mut self, heights: &[f64], spacing: f64) {
        self.parabolas.clear();
        for (point, &height) in heights.iter().enumerate().filter(|(_, height)| height.is_finite()) {
            let vertex = point as f64 * spacing;
            let mut start = f64::NEG_INFINITY;
            while let Some(&(other, other_height, other_start)) = self.parabolas.last() {
                let other = other as f64 * spacing;
                // Where the two parabolas meet: from here on the new one is lower.
                start = ((height + vertex * vertex) - (other_height + other * other)) / (2.0 * (vertex - other));
                if start > other_start {
                    break;
                }
                self.parabolas.pop();
                start = f64::NEG_INFINITY;
            }
            self.parabolas.push((point, height, start));
        }
    }
}
