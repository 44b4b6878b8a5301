//! The trunk: skin, fat, the muscular wall with its layers, the cavity inside, and the diaphragm.

use super::Tissues;
use crate::canvas::{Area, Canvas, NOWHERE, Voxel};
use crate::random::Draw;
use crate::shape::{Outline, Point, ellipse, ramp};

/// The trunk of one patient.
pub(crate) struct Body {
    cavity: Outline,
    /// Narrowing at the waist, in mm.
    waist: f32,
    /// Bulge of the belly forward, in mm.
    belly: f32,
    /// Thickness of the wall's muscles, in mm.
    wall: f32,
    fat_side: f32,
    fat_front: f32,
    fat_back: f32,
    /// Fatty streaks in the back's muscles, 0 to 1.
    marbling: f32,
    /// Height of the left dome of the diaphragm and of the saddle between the domes, below the right dome, in mm.
    left_dome: f32,
    saddle: f32,
    /// How far down the lung reaches at the wall: behind and in front, in mm.
    sulcus: [f32; 2],
}

impl Body {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let fat = draw.within(0.25, 1.0);
        Self {
            cavity: Outline {
                half_width: draw.within(121.0, 133.0),
                front: draw.within(88.0, 108.0),
                back: draw.within(66.0, 74.0),
            },
            waist: draw.within(0.0, 9.0),
            belly: fat * draw.within(2.0, 18.0),
            wall: draw.within(11.0, 16.0),
            fat_side: 5.0 + fat * draw.within(8.0, 22.0),
            fat_front: 4.0 + fat * draw.within(6.0, 20.0),
            fat_back: 6.0 + fat * draw.within(8.0, 20.0),
            marbling: draw.within(0.1, 1.0),
            left_dome: draw.within(4.0, 20.0),
            saddle: draw.within(24.0, 40.0),
            sulcus: [draw.within(72.0, 98.0), draw.within(20.0, 40.0)],
        }
    }

    /// The inner wall of chest and belly at height `z`.
    pub(crate) fn cavity(&self, z: f32) -> Outline {
        let waist = self.waist * (-((z + 130.0) / 40.0).powi(2)).exp();
        let shoulder = 8.0 * ramp(10.0, 90.0, z);
        let belly = self.belly * ramp(-30.0, -130.0, z);
        Outline {
            half_width: self.cavity.half_width - waist - shoulder,
            front: self.cavity.front + belly - 0.5 * shoulder,
            back: self.cavity.back,
        }
    }

    fn muscle(&self, z: f32) -> Outline {
        let cavity = self.cavity(z);
        let chest = ramp(-90.0, -40.0, z);
        Outline {
            half_width: cavity.half_width + self.wall + 3.0 * chest,
            front: cavity.front + 8.0 + 3.0 * chest,
            back: cavity.back + 24.0,
        }
    }

    /// The skin at height `z`.
    pub(crate) fn skin(&self, z: f32) -> Outline {
        let muscle = self.muscle(z);
        let hips = ramp(-110.0, -200.0, z);
        Outline {
            half_width: muscle.half_width + self.fat_side * (1.0 + 0.35 * hips),
            front: muscle.front + self.fat_front * (1.0 - 0.4 * ramp(-60.0, 10.0, z)),
            back: muscle.back + self.fat_back * (1.0 + 0.4 * hips),
        }
    }

    /// Distance above the diaphragm: domes on both sides that fall steeply to the wall, deepest behind.
    pub(crate) fn above_diaphragm(&self, p: Point, cavity: &Outline, wall: f32) -> f32 {
        // Far from it, only the side matters.
        if wall > 20.0 || p[2] > 30.0 || p[2] < -170.0 {
            return p[2] + 70.0;
        }
        let here = self.dome(p, wall);
        let slope = |dx: f32, dy: f32| {
            let q = [p[0] + dx, p[1] + dy, p[2]];
            (self.dome(q, cavity.distance(q[0], q[1])) - here) / 2.0
        };
        let (sx, sy) = (slope(2.0, 0.0), slope(0.0, 2.0));
        (p[2] - here) / (1.0 + sx * sx + sy * sy).sqrt()
    }

    fn dome(&self, p: Point, wall: f32) -> f32 {
        let bowl = |x: f32, y: f32, rx: f32, ry: f32| {
            let (u, v) = ((p[0] - x) / rx, (p[1] - y) / ry);
            u * u + v * v
        };
        let right = -20.0 * bowl(-68.0, -6.0, 62.0, 74.0);
        let left = -self.left_dome - 20.0 * bowl(72.0, 6.0, 76.0, 90.0);
        let middle = -self.saddle - 14.0 * bowl(0.0, -30.0, 50.0, 50.0);
        let top = -crate::shape::melt(crate::shape::melt(-right, -left, 14.0), -middle, 14.0);
        let [behind, before] = self.sulcus;
        let depth = before + (behind - before) * ramp(-75.0, 30.0, p[1]);
        top - depth * (wall.min(0.0) / 13.0).exp()
    }

    /// Paints skin, fat, muscles and the fat that fills the cavity.
    pub(crate) fn paint(&self, canvas: &mut Canvas, t: &Tissues) {
        let z = canvas.z;
        let (skin, muscle) = (self.skin(z), self.muscle(z));
        // The furrow along the spine, between the muscles of the back.
        let furrow = |p: &Point| if p[1] > 0.0 { 7.0 * (-(p[0] / 15.0).powi(2)).exp() } else { 0.0 };
        // Too deep to be seen once the cavity is filled, or outside the body.
        let hidden = |v: &Voxel| v.cavity < -8.0 || v.cavity > 900.0;
        canvas.fill(Area::ALL, |v| {
            if hidden(v) {
                return NOWHERE;
            }
            let depth = skin.distance(v.p[0], v.p[1] + 0.6 * furrow(&v.p)) + 2.0 * v.mid + 7.0 * v.slow;
            let septa = 28.0 * (1.0 - 9.0 * v.fine.abs()).max(0.0);
            (depth, if depth > -2.0 { 5.0 } else { t.fat + septa + 6.0 * v.mid })
        });
        canvas.fill(Area::ALL, |v| {
            if hidden(v) {
                return NOWHERE;
            }
            let edge = muscle.distance(v.p[0], v.p[1] + furrow(&v.p)) + 2.0 * v.mid + 2.5 * v.slow;
            (edge, self.wall_hu(v, t, z))
        });
        canvas.fill(Area::ALL, |v| (v.cavity + 1.2 * v.mid, t.fat + 5.0 * v.mid + 12.0 * v.fine.max(0.0)));
        if z < 60.0 {
            canvas.fill(Area::ALL, |v| ((v.diaphragm + 1.6).abs().max(v.cavity) - 1.6, t.muscle));
        }
    }

    /// HU of the wall: muscle with thin planes of fat between its layers and streaks of fat in the back.
    fn wall_hu(&self, v: &Voxel, t: &Tissues, z: f32) -> f32 {
        let [x, y, _] = v.p;
        let muscle = t.muscle + 9.0 * v.fine + 4.0 * v.mid;
        let plane = |distance: f32, width: f32| (1.0 - (distance / width).abs()).max(0.0);
        let side = ramp(55.0, 75.0, x.abs()) * ramp(62.0, 45.0, y);
        let mut fat = if z < -60.0 {
            // Transverse, internal and external oblique; the rectus ends at the semilunar line.
            let layers = plane(v.cavity - 0.33 * self.wall + 1.5 * v.mid, 1.7)
                .max(plane(v.cavity - 0.66 * self.wall + 2.0 * v.slow, 1.7));
            let front = ramp(-50.0, -60.0, y);
            (side * layers).max(front * plane(x.abs() - 58.0, 6.0)).max(front * plane(x, 4.0))
        } else {
            // Between the ribs and the muscles that cover them.
            side * plane(v.cavity - 10.5 - 2.5 * v.mid, 2.4)
        };
        if y > 30.0 {
            let groups = plane(ellipse(x.abs() - 22.0, y - 74.0, 19.0, 18.0) + 4.0 * v.mid, 2.2)
                .max(plane(ellipse(x.abs() - 50.0, y - 68.0, 16.0, 14.0) + 4.0 * v.slow, 2.0));
            fat = fat
                .max(groups * ramp(38.0, 50.0, y) * ramp(-0.4, 0.4, v.fine + v.mid))
                .max(self.marbling * ramp(0.35, 0.75, v.fine));
        }
        muscle + 0.75 * fat * (t.fat - muscle)
    }
}
