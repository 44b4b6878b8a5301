//! The great vessels in front of the spine, the crura of the diaphragm beside them, and the vessels of the mesentery.

use super::Tissues;
use crate::canvas::{Area, Canvas};
use crate::random::Draw;
use crate::shape::{Rod, ellipse, ramp};

/// The vessels of one patient.
pub(crate) struct Vessels {
    aorta: Vec<Rod>,
    calcified: bool,
    cava: Vec<Rod>,
    mesenteric: [Rod; 2],
    crus: f32,
}

impl Vessels {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let r = draw.within(9.0, 13.5);
        let [a, b] = [draw.around(3.0), draw.around(3.0)];
        let aorta = vec![
            Rod::new([17.0, 15.0, 120.0], [15.0, 12.0, 10.0], [r + 1.5, r + 1.0]),
            Rod::new([15.0, 12.0, 10.0], [6.0 + a, 7.0, -60.0], [r + 1.0, r]),
            Rod::new([6.0 + a, 7.0, -60.0], [6.0 + b, 8.0, -250.0], [r, r - 2.0]),
        ];
        let r = draw.within(10.0, 14.0);
        let cava = vec![
            Rod::new([-22.0, -6.0, 40.0], [-24.0, -2.0, -10.0], [r, r + 1.0]),
            Rod::new([-24.0, -2.0, -10.0], [-25.0, 6.0, -60.0], [r + 1.0, r]),
            Rod::new([-25.0, 6.0, -60.0], [-20.0, 10.0, -250.0], [r, r - 1.0]),
        ];
        let mesenteric = [
            Rod::new([8.0, -12.0, -72.0], [5.0, -26.0, -200.0], [4.6, 3.2]),
            Rod::new([-10.0, -16.0, -80.0], [-12.0, -28.0, -200.0], [6.5, 4.0]),
        ];
        Self { aorta, calcified: draw.chance(0.4), cava, mesenteric, crus: draw.within(3.0, 6.0) }
    }

    pub(crate) fn paint(&self, canvas: &mut Canvas, t: &Tissues) {
        let front = Area { low: [-60.0, -40.0], high: [50.0, 45.0] };
        let nearest = |rods: &[Rod], p| rods.iter().map(|r| r.distance(p)).fold(f32::MAX, f32::min);
        canvas.place_layered(
            front,
            2.0,
            |v| nearest(&self.aorta, v.p) + 0.8 * v.mid,
            |v, depth| {
                let plaque = if self.calcified && depth > -2.4 { ramp(0.25, 0.45, v.fine) } else { 0.0 };
                t.arteries + 4.0 * v.fine + plaque * 400.0
            },
        );
        if canvas.cuts(-110.0, -5.0) {
            canvas.place(front, 0.6, |v| {
                let ring = ellipse(v.p[0] - 5.0, v.p[1] - 18.0, 27.0, 24.0).abs() - self.crus * (1.0 + 0.5 * v.mid);
                let behind = ring.max(4.0 - v.p[1]);
                (behind.max(v.p[2] + 10.0).max(-120.0 - v.p[2]), t.muscle + 6.0 * v.fine)
            });
        }
        canvas.place(front, -0.6, |v| (nearest(&self.cava, v.p) + 1.2 * v.mid, t.veins + 4.0 * v.fine));
        for rod in &self.mesenteric {
            if canvas.cuts_rod(rod) {
                canvas.place(Area::of_rod(rod), 2.0, |v| (rod.distance(v.p), t.veins + 5.0));
            }
        }
    }
}
