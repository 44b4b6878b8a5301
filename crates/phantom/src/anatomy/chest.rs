//! Heart, lungs with their vessels, and the mediastinum between them.

use super::Tissues;
use crate::canvas::{Area, Canvas, NOWHERE, Voxel};
use crate::random::Draw;
use crate::shape::{Ellipsoid, Point, Rod, along, melt, melt_all, ramp};

/// The chest of one patient.
pub(crate) struct Chest {
    heart: [Ellipsoid; 2],
    /// Left ventricle, right ventricle, right atrium.
    chambers: [Ellipsoid; 3],
    pericardial_fat: f32,
    lung_hu: f32,
    lung_vessels: Vec<Rod>,
}

impl Chest {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let [dx, dy, dz] = draw.near([0.0; 3], [8.0, 6.0, 5.0]);
        let size = draw.within(0.9, 1.12);
        let solid = |c: Point, r: Point| Ellipsoid::new([c[0] + dx, c[1] + dy, c[2] + dz], r.map(|r| r * size));
        Self {
            heart: [solid([34.0, -30.0, 8.0], [50.0, 42.0, 44.0]), solid([-14.0, -32.0, 20.0], [38.0, 38.0, 48.0])],
            chambers: [
                solid([46.0, -20.0, 8.0], [24.0, 20.0, 28.0]),
                solid([14.0, -50.0, 10.0], [38.0, 15.0, 32.0]),
                solid([-28.0, -28.0, 20.0], [19.0, 25.0, 36.0]),
            ],
            pericardial_fat: draw.within(3.0, 9.0),
            lung_hu: draw.within(-880.0, -820.0),
            lung_vessels: lung_vessels(draw),
        }
    }

    fn heart(&self, v: &Voxel) -> f32 {
        melt_all(&self.heart, v.p, 12.0) + 2.0 * v.mid
    }

    /// The heart in its fat, and the column in front of the spine: what the lungs leave free.
    fn mediastinum(&self, v: &Voxel) -> f32 {
        let heart = self.heart(v) - self.pericardial_fat;
        let column = Rod::new([4.0, 16.0, -200.0], [4.0, 16.0, 200.0], [17.0; 2]).distance(v.p);
        let front = Rod::new([4.0, -95.0, -200.0], [4.0, -95.0, 200.0], [22.0; 2]).distance(v.p);
        melt(melt(heart, column, 16.0), front, 16.0)
    }

    pub(crate) fn paint(&self, canvas: &mut Canvas, t: &Tissues) {
        if !canvas.cuts(-140.0, 400.0) {
            return;
        }
        let z = canvas.z;
        let lung = |v: &Voxel| v.cavity.max(-v.diaphragm).max(-self.mediastinum(v));
        canvas.place(Area::ALL, 0.0, |v| {
            if v.cavity > 2.0 || v.diaphragm < -2.0 {
                return NOWHERE;
            }
            (lung(v) + 1.0, self.lung_hu + 25.0 * v.mid + 20.0 * v.fine)
        });
        for rod in &self.lung_vessels {
            if canvas.cuts_rod(rod) {
                canvas.fill(Area::of_rod(rod), |v| (rod.distance(v.p).max(lung(v) + 4.0), t.veins));
            }
        }
        if z > -60.0 {
            let contrast = 0.6 * t.veins + 0.4 * t.arteries;
            canvas.place_layered(
                Area { low: [-90.0, -90.0], high: [110.0, 50.0] },
                2.0,
                |v| self.heart(v).max(3.0 - v.diaphragm).max(v.cavity + 3.0),
                |v, depth| {
                    let chamber = melt_all(&self.chambers, v.p, 1.0) + 1.5 * v.fine;
                    let inside = ramp(2.0, -2.0, chamber);
                    let epicardial = ramp(-3.5, -1.0, depth) * ramp(0.05, 0.4, v.mid);
                    let wall = t.heart_wall + 5.0 * v.mid;
                    let hu = wall + inside * (contrast - wall);
                    hu + epicardial * (t.fat - hu)
                },
            );
        }
        canvas.place(Area::around([2.0, 0.0, 0.0], [25.0, 25.0]), 1.0, |v| {
            // Oesophagus; it joins the stomach below the diaphragm.
            let gullet = Rod::new([10.0, 0.0, -14.0], [2.0, 8.0, 60.0], [7.5, 8.5]);
            (gullet.distance(v.p), t.gut_wall - 20.0 + 14.0 * v.fine)
        });
    }
}

/// Branches from each hilum downwards and outwards; where a slice cuts them, dots and short streaks.
fn lung_vessels(draw: &mut Draw) -> Vec<Rod> {
    let mut rods = Vec::new();
    for side in [-1.0, 1.0] {
        for _ in 0..70 {
            let mut at = draw.near([side * 48.0, 8.0, 75.0], [10.0, 14.0, 12.0]);
            let target = [side * draw.within(45.0, 118.0), draw.within(-62.0, 66.0), draw.within(-95.0, 30.0)];
            let mut radius = draw.within(2.8, 5.4);
            let step = 0.22;
            for _ in 0..4 {
                let way = crate::shape::sub(target, at);
                let next = draw.near(along(at, way, step / (1.0 - step * 0.5)), [5.0; 3]);
                rods.push(Rod::new(at, next, [radius, radius * 0.85]));
                (at, radius) = (next, radius * 0.85);
            }
        }
    }
    rods
}
