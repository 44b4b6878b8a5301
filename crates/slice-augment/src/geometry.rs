//! Where each pixel comes from.

use crate::{AIR, Augmentation};
use rand::Rng;

/// One draw of flips, rotation, scale, shift and elastic displacement for square slices of one size: a map from pixels of
/// the changed slice to places in the source. Images are interpolated linearly, once for all changes together; masks take
/// the nearest pixel.
#[derive(Clone, Debug)]
pub struct Geometry {
    size: usize,
    map: Map,
}

#[derive(Clone, Debug)]
enum Map {
    Identity,
    /// The source's row and column, less those of the changed slice: whole pixels, so that nothing is interpolated.
    Shift([isize; 2]),
    General(Affine, Option<Elastic>),
}

/// Place in the source: `x' = m[0][0] x + m[0][1] y + m[0][2]`, `y'` by the second row.
#[derive(Clone, Copy, Debug)]
struct Affine([[f32; 3]; 2]);

impl Geometry {
    /// A draw within the reach of `settings`, for slices of `size` pixels a side.
    pub fn draw(settings: &Augmentation, size: usize, rng: &mut impl Rng) -> Self {
        let of = settings.probability_of;
        let mut takes_part =
            |wanted: bool, share: Option<f64>| wanted && rng.random_bool(share.unwrap_or(settings.probability));
        let left_right = takes_part(settings.flip_left_right, of.flip_left_right);
        let flips = [left_right, takes_part(settings.flip_up_down, of.flip_up_down)];
        let turns = takes_part(settings.rotate_deg > 0.0, of.rotate_deg);
        let scales = takes_part(settings.scale > 0.0, of.scale);
        let shifts = takes_part(settings.shift > 0.0, of.shift);
        let bends = takes_part(settings.elastic_px > 0.0, of.elastic_px);

        let mirror = flips.map(|takes_part| if takes_part && rng.random_bool(0.5) { -1.0 } else { 1.0 });
        let reach = settings.rotate_deg.to_radians();
        let angle = if turns { rng.random_range(-reach..=reach) } else { 0.0 };
        let reach = settings.scale.ln_1p();
        let scale = if scales { rng.random_range(-reach..=reach).exp() } else { 1.0 };
        let reach = (settings.shift * size as f32) as i32;
        let [dy, dx] = if shifts { [(); 2].map(|()| rng.random_range(-reach..=reach)) } else { [0; 2] };
        let elastic = bends.then(|| Elastic::draw(settings.elastic_px, size, rng));

        let map = if elastic.is_none() && mirror == [1.0; 2] && angle == 0.0 && scale == 1.0 {
            if [dy, dx] == [0, 0] { Map::Identity } else { Map::Shift([-dy as isize, -dx as isize]) }
        } else {
            let affine = Affine::back(mirror, angle, scale, [dy as f32, dx as f32], size);
            Map::General(affine, elastic)
        };
        Self { size, map }
    }

    /// The slice that leaves everything where it is.
    pub fn identity(size: usize) -> Self {
        Self { size, map: Map::Identity }
    }

    /// HU of the changed slice; [`AIR`] moves in from outside.
    pub fn image(&self, hu: &[i16], to: &mut [f32]) {
        let size = self.size;
        assert!(hu.len() == size * size && to.len() == size * size, "a slice has {size} x {size} pixels");
        match &self.map {
            Map::Identity => to.iter_mut().zip(hu).for_each(|(to, &from)| *to = f32::from(from)),
            Map::Shift(by) => shifted(hu, to, size, *by, AIR, f32::from),
            Map::General(..) => {
                let hu: Vec<f32> = hu.iter().map(|&v| f32::from(v)).collect();
                self.each_place(to, |x, y| linear(&hu, size, x, y));
            }
        }
    }

    /// The changed mask; 0 moves in from outside.
    pub fn mask(&self, mask: &[u8], to: &mut [f32]) {
        let size = self.size;
        assert!(mask.len() == size * size && to.len() == size * size, "a mask has {size} x {size} pixels");
        match &self.map {
            Map::Identity => to.iter_mut().zip(mask).for_each(|(to, &from)| *to = f32::from(from)),
            // Most slices of a volume have none of the target.
            _ if mask.iter().all(|&m| m == 0) => to.fill(0.0),
            Map::Shift(by) => shifted(mask, to, size, *by, 0.0, f32::from),
            Map::General(..) => self.each_place(to, |x, y| nearest(mask, size, x, y)),
        }
    }

    /// Fills each pixel from its place in the source, which is a column and a row in [`Fixed`] numbers.
    fn each_place(&self, to: &mut [f32], value: impl Fn(Fixed, Fixed) -> f32) {
        let Map::General(Affine([x_of, y_of]), elastic) = &self.map else { return };
        let mut bend = [vec![0.0; self.size], vec![0.0; self.size]];
        let steps = [fixed(x_of[0]), fixed(y_of[0])];
        for (row, pixels) in to.chunks_exact_mut(self.size).enumerate() {
            let first = [x_of, y_of].map(|m| fixed(m[1] * row as f32 + m[2]));
            let place = |axis: usize, column: usize| first[axis] + steps[axis] * column as Fixed;
            if let Some(elastic) = elastic {
                elastic.row(row, &mut bend);
                let bends = bend[0].iter().zip(&bend[1]);
                for ((column, pixel), (&dx, &dy)) in pixels.iter_mut().enumerate().zip(bends) {
                    *pixel = value(place(0, column) + fixed(dx), place(1, column) + fixed(dy));
                }
            } else {
                for (column, pixel) in pixels.iter_mut().enumerate() {
                    *pixel = value(place(0, column), place(1, column));
                }
            }
        }
    }
}

/// A place along an axis, in pixels × 2³²: floor and fraction cost a shift each, where floats need slow conversions.
type Fixed = i64;

const ONE: f32 = 4_294_967_296.0;

fn fixed(value: f32) -> Fixed {
    (value * ONE) as Fixed
}

/// The floor; below 0 it is beyond any side.
#[inline]
fn whole(place: Fixed) -> usize {
    (place >> 32) as usize
}

/// The fraction, 0 to 1.
#[inline]
fn fraction(place: Fixed) -> f32 {
    // 24 bits, as many as a float has.
    ((place as u32) >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
}

impl Affine {
    /// From a pixel of the changed slice back to the source: about the middle, the inverses in the opposite order.
    fn back(mirror: [f32; 2], angle: f32, scale: f32, shift: [f32; 2], size: usize) -> Self {
        let middle = (size as f32 - 1.0) / 2.0;
        let (sin, cos) = angle.sin_cos();
        let linear =
            [[mirror[0] * cos / scale, mirror[0] * sin / scale], [-mirror[1] * sin / scale, mirror[1] * cos / scale]];
        let [dy, dx] = shift;
        Self(linear.map(|[x, y]| [x, y, middle - x * (middle + dx) - y * (middle + dy)]))
    }
}

/// Copies rows; places outside the source get `outside`.
fn shifted<T: Copy>(from: &[T], to: &mut [f32], size: usize, by: [isize; 2], outside: f32, value: impl Fn(T) -> f32) {
    let [dy, dx] = by;
    // Columns of the changed slice whose source is inside.
    let first = (-dx).clamp(0, size as isize) as usize;
    let last = (size as isize - dx).clamp(0, size as isize) as usize;
    for (row, pixels) in to.chunks_exact_mut(size).enumerate() {
        let source = row as isize + dy;
        if !(0..size as isize).contains(&source) || first >= last {
            pixels.fill(outside);
            continue;
        }
        pixels[..first].fill(outside);
        pixels[last..].fill(outside);
        let begin = source as usize * size + (first as isize + dx) as usize;
        pixels[first..last].iter_mut().zip(&from[begin..]).for_each(|(to, &from)| *to = value(from));
    }
}

/// Linear interpolation between pixels, with air around the slice.
#[inline]
fn linear(hu: &[f32], size: usize, x: Fixed, y: Fixed) -> f32 {
    let (column, row) = (whole(x), whole(y));
    let four = if column < size - 1 && row < size - 1 {
        let begin = row * size + column;
        let (upper, lower) = (&hu[begin..begin + 2], &hu[begin + size..begin + size + 2]);
        [upper[0], upper[1], lower[0], lower[1]]
    } else {
        at_the_border(hu, size, column, row)
    };
    let upper = four[0] + (four[1] - four[0]) * fraction(x);
    let lower = four[2] + (four[3] - four[2]) * fraction(x);
    upper + (lower - upper) * fraction(y)
}

/// A pixel, its right, lower and lower right neighbours, some of which may be outside.
#[cold]
fn at_the_border(hu: &[f32], size: usize, column: usize, row: usize) -> [f32; 4] {
    let (right, below) = (column.wrapping_add(1), row.wrapping_add(1));
    [(column, row), (right, row), (column, below), (right, below)]
        .map(|(column, row)| if column < size && row < size { hu[row * size + column] } else { AIR })
}

/// The nearest pixel, 0 outside.
#[inline]
fn nearest(mask: &[u8], size: usize, x: Fixed, y: Fixed) -> f32 {
    const HALF: Fixed = 1 << 31;
    let (column, row) = (whole(x + HALF), whole(y + HALF));
    if column < size && row < size { f32::from(mask[row * size + column]) } else { 0.0 }
}

/// Displacements on a lattice, with uniform cubic B-splines between its points.
#[derive(Clone, Debug)]
struct Elastic {
    /// Pixels between lattice points.
    spacing: usize,
    /// Lattice points along a side.
    side: usize,
    /// Of columns and of rows, in pixels.
    points: [Vec<f32>; 2],
    /// The four weights at each pixel between two lattice points.
    weights: Vec<[f32; 4]>,
}

impl Elastic {
    fn draw(reach: f32, size: usize, rng: &mut impl Rng) -> Self {
        let spacing = size.div_ceil(8);
        let side = size.div_ceil(spacing) + 3;
        let points = [(); 2].map(|()| (0..side * side).map(|_| rng.random_range(-reach..=reach)).collect());
        let weights = (0..spacing).map(|i| cubic_b_spline(i as f32 / spacing as f32)).collect();
        Self { spacing, side, points, weights }
    }

    /// The displacements of a row's pixels.
    fn row(&self, row: usize, to: &mut [Vec<f32>; 2]) {
        let (first, weights) = (row / self.spacing, self.weights[row % self.spacing]);
        for (points, to) in self.points.iter().zip(to) {
            let line: Vec<f32> = (0..self.side)
                .map(|column| (0..4).map(|k| weights[k] * points[(first + k) * self.side + column]).sum())
                .collect();
            for (pixels, four) in to.chunks_mut(self.spacing).zip(line.windows(4)) {
                for (pixel, weights) in pixels.iter_mut().zip(&self.weights) {
                    *pixel = weights[0] * four[0] + weights[1] * four[1] + weights[2] * four[2] + weights[3] * four[3];
                }
            }
        }
    }
}

/// The four weights of the uniform cubic B-spline at `t` in `[0, 1)`; their sum is 1.
fn cubic_b_spline(t: f32) -> [f32; 4] {
    let s = 1.0 - t;
    let middle = |t: f32| (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0;
    [s * s * s / 6.0, middle(t), middle(s), t * t * t / 6.0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const SIZE: usize = 64;

    fn general(mirror: [f32; 2], angle: f32, scale: f32, shift: [f32; 2]) -> Geometry {
        Geometry { size: SIZE, map: Map::General(Affine::back(mirror, angle, scale, shift, SIZE), None) }
    }

    fn image(geometry: &Geometry, hu: &[i16]) -> Vec<f32> {
        let mut to = vec![f32::NAN; SIZE * SIZE];
        geometry.image(hu, &mut to);
        to
    }

    /// No two pixels are equal.
    fn slice() -> Vec<i16> {
        (0..SIZE * SIZE).map(|i| (i * 7 % 4001) as i16 - 1000).collect()
    }

    fn at(pixels: &[f32], row: usize, column: usize) -> f32 {
        pixels[row * SIZE + column]
    }

    #[test]
    fn flips_quarter_turns_and_shifts_move_pixels_to_their_places() {
        let hu = slice();
        let source: Vec<f32> = hu.iter().map(|&v| f32::from(v)).collect();
        let (mirrored, upside) = (general([-1.0, 1.0], 0.0, 1.0, [0.0; 2]), general([1.0, -1.0], 0.0, 1.0, [0.0; 2]));
        let quarter = general([1.0, 1.0], std::f32::consts::FRAC_PI_2, 1.0, [0.0; 2]);
        let moved = general([1.0, 1.0], 0.0, 1.0, [5.0, -3.0]);
        let same = Geometry { size: SIZE, map: Map::Shift([-5, 3]) };
        let close = |a: f32, b: f32| assert!((a - b).abs() < 0.5, "{a} {b}");
        for (row, column) in [(10, 20), (40, 3), (30, 33)] {
            close(at(&image(&mirrored, &hu), row, SIZE - 1 - column), at(&source, row, column));
            close(at(&image(&upside, &hu), SIZE - 1 - row, column), at(&source, row, column));
            // A positive angle turns the picture from the columns' axis to the rows': clockwise on the screen.
            close(at(&image(&quarter, &hu), column, SIZE - 1 - row), at(&source, row, column));
            if column >= 3 {
                close(at(&image(&moved, &hu), row + 5, column - 3), at(&source, row, column));
            }
        }
        assert_eq!(image(&moved, &hu), image(&same, &hu));
        assert_eq!(at(&image(&same, &hu), 2, 10), AIR);
    }

    #[test]
    fn a_box_around_the_changed_mask_is_where_the_corners_go() {
        let mut mask = vec![0u8; SIZE * SIZE];
        for row in 20..30 {
            mask[row * SIZE + 25..row * SIZE + 45].fill(1);
        }
        let mut changed = vec![0.0; SIZE * SIZE];
        // Twice the size about the middle at 31.5, then 4 down: rows 20..=29 reach from 8.5 - 0.5 to 26.5 + 0.5, plus 4.
        general([1.0, 1.0], 0.0, 2.0, [4.0, 0.0]).mask(&mask, &mut changed);
        let inside = |i: &usize| changed[*i] == 1.0;
        let rows: Vec<usize> = (0..SIZE * SIZE).filter(inside).map(|i| i / SIZE).collect();
        let columns: Vec<usize> = (0..SIZE * SIZE).filter(inside).map(|i| i % SIZE).collect();
        assert_eq!((*rows.iter().min().unwrap(), *rows.iter().max().unwrap()), (12, 31));
        assert_eq!((*columns.iter().min().unwrap(), *columns.iter().max().unwrap()), (18, 57));
        assert_eq!(rows.len(), 4 * 200);
    }

    #[test]
    fn an_image_and_its_mask_move_together() {
        // The image is bright exactly where the mask is: after any draw it is bright where the changed mask is.
        let mask: Vec<u8> = (0..SIZE * SIZE)
            .map(|i| u8::from((i / SIZE).abs_diff(30).pow(2) + (i % SIZE).abs_diff(25).pow(2) < 150))
            .collect();
        let hu: Vec<i16> = mask.iter().map(|&m| if m == 1 { 1000 } else { -1000 }).collect();
        let settings = Augmentation {
            flip_left_right: true,
            flip_up_down: true,
            rotate_deg: 30.0,
            scale: 0.3,
            shift: 0.1,
            elastic_px: 4.0,
            ..Augmentation::default()
        };
        for seed in 0..20 {
            let geometry = Geometry::draw(&settings, SIZE, &mut ChaCha8Rng::seed_from_u64(seed));
            let mut moved = vec![0.0; SIZE * SIZE];
            geometry.mask(&mask, &mut moved);
            let bright = image(&geometry, &hu);
            let differ = bright.iter().zip(&moved).filter(|&(&hu, &m)| (hu > 0.0) != (m == 1.0)).count();
            let area = moved.iter().sum::<f32>();
            assert!((150.0..900.0).contains(&area), "seed {seed}: {area}");
            // Only on the edge itself, where linear and nearest can round apart.
            assert!((differ as f32) < 0.06 * area, "seed {seed}: {differ} of {area} pixels");
        }
    }

    #[test]
    fn without_reach_nothing_moves() {
        let geometry = Geometry::draw(&Augmentation::default(), SIZE, &mut ChaCha8Rng::seed_from_u64(0));
        let hu = slice();
        assert!(image(&geometry, &hu).iter().zip(&hu).all(|(&a, &b)| a == f32::from(b)));
        // The general way gives the same as the short ones.
        let general = image(&general([1.0; 2], 0.0, 1.0, [0.0; 2]), &hu);
        assert!(general.iter().zip(&hu).all(|(&a, &b)| (a - f32::from(b)).abs() < 0.05));
    }

    #[test]
    fn elastic_displacements_are_smooth_and_within_reach() {
        let elastic = Elastic::draw(6.0, SIZE, &mut ChaCha8Rng::seed_from_u64(3));
        // For each axis the displacements of a whole slice.
        let mut axes = [Vec::new(), Vec::new()];
        for row in 0..SIZE {
            let mut to = [vec![0.0; SIZE], vec![0.0; SIZE]];
            elastic.row(row, &mut to);
            axes.iter_mut().zip(to).for_each(|(axis, row)| axis.extend(row));
        }
        let mut largest = 0f32;
        for axis in &axes {
            for row in 1..SIZE {
                for column in 1..SIZE {
                    let here = at(axis, row, column);
                    largest = largest.max(here.abs());
                    // The slope of a B-spline is at most the difference of neighbours over their distance.
                    let steps = [here - at(axis, row - 1, column), here - at(axis, row, column - 1)];
                    assert!(steps.iter().all(|s| s.abs() <= 12.0 / 8.0 + 1e-3), "{steps:?}");
                }
            }
        }
        assert!(largest <= 6.0 && largest > 1.0, "{largest}");
        assert!((cubic_b_spline(0.3).iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
