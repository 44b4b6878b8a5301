//! Spine, ribs and breastbone, and the muscles beside the spine.

use super::Tissues;
use crate::canvas::{Area, Canvas, NOWHERE};
use crate::random::Draw;
use crate::shape::{Ellipsoid, Rod, ellipse, melt, ramp};

/// Height of the spine's centre behind the origin, in mm.
const SPINE_Y: f32 = 38.0;

/// The skeleton of one patient.
pub(crate) struct Skeleton {
    /// Distance from vertebra to vertebra and height of the first one's middle, in mm.
    vertebra: [f32; 2],
    /// Half width and half depth of a vertebral body, in mm.
    body: [f32; 2],
    /// Distance from rib to rib and height of the ninth at the spine, in mm.
    rib: [f32; 2],
    /// How far a rib falls from the spine to its lowest point, in mm.
    rib_fall: f32,
    psoas: f32,
    calcified_cartilage: f32,
}

impl Skeleton {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        Self {
            vertebra: [draw.within(31.0, 36.0), draw.around(16.0)],
            body: [draw.within(21.0, 25.0), draw.within(16.0, 18.5)],
            rib: [draw.within(22.0, 26.0), draw.within(0.0, 20.0)],
            rib_fall: draw.within(105.0, 135.0),
            psoas: draw.within(16.0, 24.0),
            calcified_cartilage: draw.within(100.0, 190.0),
        }
    }

    pub(crate) fn paint(&self, canvas: &mut Canvas, t: &Tissues) {
        self.paint_muscles(canvas, t);
        self.paint_ribs(canvas, t);
        paint_breastbone(canvas, t);
        self.paint_spine(canvas, t);
    }

    fn paint_muscles(&self, canvas: &mut Canvas, t: &Tissues) {
        let z = canvas.z;
        let back = Area { low: [-90.0, 20.0], high: [90.0, 95.0] };
        // The muscles of the back come forward to the ribs' heads and, lower, to the quadratus lumborum.
        canvas.place(back, 0.5, |v| {
            let x = v.p[0].abs();
            let spinal = ellipse(x - 26.0, v.p[1] - 76.0, 30.0, 22.0);
            let loin = ellipse(x - 60.0, v.p[1] - 60.0, 19.0, 9.0 * ramp(-70.0, -110.0, z) + 0.5);
            let d = if z < -70.0 { spinal.min(loin) } else { spinal };
            // Only its front, which lies in the cavity, is painted: the back's own texture stays.
            (d.max(v.cavity), t.muscle + 9.0 * v.fine)
        });
        if z < -70.0 {
            let r = self.psoas * ramp(-60.0, -190.0, z) + 3.0;
            canvas.place(back, 2.0, |v| {
                let x = v.p[0].abs() - self.body[0] - 0.75 * r;
                (ellipse(x, v.p[1] - SPINE_Y - 4.0, r, 1.25 * r), t.muscle + 8.0 * v.fine)
            });
        }
    }

    fn paint_ribs(&self, canvas: &mut Canvas, t: &Tissues) {
        let [spacing, ninth] = self.rib;
        canvas.place(Area::ALL, 0.5, |v| {
            let out = v.cavity - 5.0;
            if out.abs() > 10.0 {
                return NOWHERE;
            }
            let turn = v.p[0].abs().atan2(v.p[1]);
            let fall = if turn < 2.25 { turn / 2.25 } else { 1.0 - 0.55 * (turn - 2.25) };
            let level = (ninth - self.rib_fall * fall - v.p[2]) / spacing;
            let number = level.round();
            let end = match number as i32 {
                ..=0 => 2.95,
                1 => 2.3,
                2 => 1.55,
                3 => 0.95,
                _ => 0.0,
            };
            if turn > end || turn < 0.3 {
                return NOWHERE;
            }
            let (u, w) = (out / 3.7, (level - number) * spacing / 6.0);
            let depth = ((u * u + w * w).sqrt() - 1.0) * 3.7;
            let bone = if depth > -1.8 { t.cortical_bone } else { t.marrow + 20.0 };
            let cartilage = ramp(2.1, 2.25, turn);
            (depth, bone + cartilage * (self.calcified_cartilage - bone))
        });
    }

    fn paint_spine(&self, canvas: &mut Canvas, t: &Tissues) {
        let [height, first] = self.vertebra;
        let [a, b] = self.body;
        // 0 at the middle of a vertebral body, 0.5 in the middle of a disc.
        let phase = (canvas.z - first) / height;
        let phase = phase - phase.round();
        let disc = ramp(0.34, 0.42, phase.abs());
        let endplate = 1.0 - ramp(0.03, 0.08, (phase.abs() - 0.35).abs());
        let arch = ramp(0.42, 0.3, (phase + 0.1).abs());
        let canal_y = SPINE_Y + b + 7.5;
        let area = Area { low: [-60.0, 10.0], high: [60.0, 105.0] };
        canvas.place(area, 1.5, |v| {
            let [x, y, _] = v.p;
            let body = ellipse(x, y - SPINE_Y, a, b).max(-ellipse(x, y - canal_y, 13.0, 10.0)) + 0.8 * v.mid;
            let spongy = t.marrow + 60.0 * v.fine + 130.0 * endplate;
            let shell = ramp(-2.6, -1.0, body) * (t.cortical_bone - spongy);
            (body, (1.0 - disc) * (spongy + shell) + disc * (85.0 + 15.0 * v.fine))
        });
        canvas.fill(area, |v| (ellipse(v.p[0], v.p[1] - canal_y, 11.5, 9.0), t.fat * 0.3));
        canvas.fill(area, |v| (ellipse(v.p[0], v.p[1] - canal_y - 0.5, 8.5, 7.0), 38.0));
        let rods = [
            Rod::new([12.0, canal_y - 8.0, 0.0], [15.0, canal_y + 3.0, 0.0], [4.5 * arch, 4.5]),
            Rod::new([15.0, canal_y + 3.0, 0.0], [3.0, canal_y + 13.0, 0.0], [4.5, 3.8]),
            Rod::new([17.0, canal_y + 1.0, 0.0], [16.0 + 22.0 * arch, canal_y + 6.0 * arch, 0.0], [4.5, 2.6]),
            Rod::new([0.0, canal_y + 13.0, 0.0], [0.0, canal_y + 16.0 + 14.0 * arch, 0.0], [3.6, 2.8]),
        ];
        canvas.fill(area, |v| {
            let p = [v.p[0].abs(), v.p[1], 0.0];
            let d = rods.iter().map(|r| r.distance(p)).reduce(|m, d| melt(m, d, 3.0)).unwrap_or(f32::MAX);
            (d + 0.6 * v.fine, if d > -1.6 { t.cortical_bone } else { t.marrow + 90.0 })
        });
    }
}

fn paint_breastbone(canvas: &mut Canvas, t: &Tissues) {
    if canvas.cuts(-25.0, 200.0) {
        let bone = Ellipsoid::new([0.0, 0.0, 80.0], [19.0, 5.5, 102.0]);
        canvas.place(Area::around([0.0, -90.0, 0.0], [30.0, 30.0]), 0.5, |v| {
            let d = bone.distance([v.p[0], v.cavity - 4.0, v.p[2]]);
            let d = if v.p[1] < 0.0 { d } else { 10.0 };
            (d, if d > -1.6 { t.cortical_bone * 0.8 } else { t.marrow })
        });
    }
}
