//! Signed distances (mm, negative inside) of the solids that organs are made of, and smooth noise to make them irregular.
//!
//! Ellipsoids and outlines give first-order distances: right at the surface, which is where they are used.

use crate::random::Draw;

/// A point of the patient in mm: x to the patient's left, y to posterior, z to superior.
pub(crate) type Point = [f32; 3];

pub(crate) fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(crate) fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// `a + t * v`.
pub(crate) fn along(a: Point, v: Point, t: f32) -> Point {
    [a[0] + t * v[0], a[1] + t * v[1], a[2] + t * v[2]]
}

/// An ellipsoid with axes along the patient's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ellipsoid {
    pub(crate) center: Point,
    pub(crate) radii: Point,
}

impl Ellipsoid {
    pub(crate) fn new(center: Point, radii: Point) -> Self {
        Self { center, radii }
    }

    pub(crate) fn distance(&self, p: Point) -> f32 {
        let [x, y, z] = sub(p, self.center);
        let [a, b, c] = self.radii;
        let (u, v, w) = (x / a, y / b, z / c);
        let level = (u * u + v * v + w * w).sqrt();
        let slope = ((u / a).powi(2) + (v / b).powi(2) + (w / c).powi(2)).sqrt();
        if slope < 1e-6 { -a.min(b).min(c) } else { level * (level - 1.0) / slope }
    }
}

/// Distance to an upright elliptic cylinder.
pub(crate) fn ellipse(x: f32, y: f32, a: f32, b: f32) -> f32 {
    let (u, v) = (x / a, y / b);
    let level = (u * u + v * v).sqrt();
    let slope = ((u / a).powi(2) + (v / b).powi(2)).sqrt();
    if slope < 1e-6 { -a.min(b) } else { level * (level - 1.0) / slope }
}

/// A tapered, round-ended rod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rod {
    pub(crate) from: Point,
    pub(crate) to: Point,
    /// Radius in mm at `from` and at `to`.
    pub(crate) radii: [f32; 2],
}

impl Rod {
    pub(crate) fn new(from: Point, to: Point, radii: [f32; 2]) -> Self {
        Self { from, to, radii }
    }

    pub(crate) fn distance(&self, p: Point) -> f32 {
        let (axis, offset) = (sub(self.to, self.from), sub(p, self.from));
        let t = (dot(axis, offset) / dot(axis, axis).max(1e-6)).clamp(0.0, 1.0);
        let gap = along(offset, axis, -t);
        dot(gap, gap).sqrt() - (self.radii[0] + t * (self.radii[1] - self.radii[0]))
    }
}

/// An oval that may be flattened in front and behind by its own depths: the trunk's cross-section (superellipse of
/// exponent 2.5, centred on x = y = 0).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline {
    pub(crate) half_width: f32,
    pub(crate) front: f32,
    pub(crate) back: f32,
}

impl Outline {
    pub(crate) fn distance(&self, x: f32, y: f32) -> f32 {
        let depth = if y < 0.0 { self.front } else { self.back };
        let (u, v) = (x.abs() / self.half_width, y.abs() / depth);
        let sum = u * u * u.sqrt() + v * v * v.sqrt();
        if sum < 1e-4 {
            return -self.half_width.min(depth);
        }
        let level = sum.powf(0.4);
        let scale = level / sum;
        let (gx, gy) = (u * u.sqrt() * scale / self.half_width, v * v.sqrt() * scale / depth);
        (level - 1.0) / (gx * gx + gy * gy).sqrt()
    }

    pub(crate) fn grown(&self, mm: f32) -> Self {
        Self { half_width: self.half_width + mm, front: self.front + mm, back: self.back + mm }
    }
}

/// The union of two solids, melted together over about `width` mm (polynomial smooth minimum, Quilez).
pub(crate) fn melt(a: f32, b: f32, width: f32) -> f32 {
    let h = (width - (a - b).abs()).max(0.0) / width;
    a.min(b) - 0.25 * h * h * width
}

/// The union of many ellipsoids, melted together.
pub(crate) fn melt_all(parts: &[Ellipsoid], p: Point, width: f32) -> f32 {
    parts.iter().map(|e| e.distance(p)).reduce(|a, b| melt(a, b, width)).unwrap_or(f32::MAX)
}

/// 0 below `low`, 1 above `high`, smooth in between.
pub(crate) fn ramp(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

const CELLS: usize = 32;

/// Periodic value noise: random values on a grid of cells, interpolated smoothly. Range [-1, 1], deviation about 0.35.
pub(crate) struct Noise(Vec<f32>);

impl Noise {
    pub(crate) fn new(draw: &mut Draw) -> Self {
        Self((0..CELLS * CELLS * CELLS).map(|_| draw.around(1.0)).collect())
    }

    /// The value at `p`, in cells.
    pub(crate) fn at(&self, p: Point) -> f32 {
        // Floor, without the call into libm.
        let base = p.map(|c| c as i32 - i32::from(c < 0.0));
        let f: Point = std::array::from_fn(|i| {
            let t = p[i] - base[i] as f32;
            t * t * (3.0 - 2.0 * t)
        });
        let [x0, y0, z0] = base.map(|v| v as usize % CELLS);
        let [x1, y1, z1] = [x0, y0, z0].map(|v| (v + 1) % CELLS);
        let at = |x: usize, y: usize, z: usize| self.0[(z * CELLS + y) * CELLS + x];
        let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
        let row = |y, z| mix(at(x0, y, z), at(x1, y, z), f[0]);
        mix(mix(row(y0, z0), row(y1, z0), f[1]), mix(row(y0, z1), row(y1, z1), f[1]), f[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ball_has_its_exact_distance() {
        let ball = Ellipsoid::new([1.0, 2.0, 3.0], [5.0; 3]);
        assert!((ball.distance([1.0, 2.0, 10.0]) - 2.0).abs() < 1e-5);
        assert!((ball.distance([1.0, 4.0, 3.0]) + 3.0).abs() < 1e-5);
    }

    #[test]
    fn a_rod_tapers_between_its_ends() {
        let rod = Rod::new([0.0; 3], [10.0, 0.0, 0.0], [4.0, 2.0]);
        assert!((rod.distance([5.0, 5.0, 0.0]) - 2.0).abs() < 1e-5);
        assert!((rod.distance([13.0, 0.0, 0.0]) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn an_outline_passes_through_its_four_extremes() {
        let outline = Outline { half_width: 150.0, front: 80.0, back: 100.0 };
        for (x, y) in [(150.0, 0.0), (-150.0, 0.0), (0.0, -80.0), (0.0, 100.0)] {
            assert!(outline.distance(x, y).abs() < 1e-2, "({x}, {y})");
        }
        assert!((outline.distance(0.0, 110.0) - 10.0).abs() < 0.5);
    }

    #[test]
    fn noise_is_smooth_and_bounded() {
        let noise = Noise::new(&mut Draw::stream(0, "n"));
        for i in 0..1000 {
            let x = i as f32 * 0.173 - 40.0;
            let (a, b) = (noise.at([x, 2.0 * x, -x]), noise.at([x + 0.01, 2.0 * x, -x]));
            assert!(a.abs() <= 1.0 && (a - b).abs() < 0.05);
        }
    }
}
