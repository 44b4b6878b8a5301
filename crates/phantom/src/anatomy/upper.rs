//! The organs around the liver: kidneys and gallbladder, to which it yields, and spleen, stomach, pancreas and duodenum,
//! which yield to it.

use super::Tissues;
use crate::canvas::{Area, Canvas, Voxel};
use crate::random::Draw;
use crate::shape::{Ellipsoid, Noise, Point, Rod, melt, melt_all, ramp};

struct Kidney {
    center: Point,
    radii: Point,
    /// +1 on the patient's left, -1 on the right.
    side: f32,
    cortex_mm: f32,
    cyst: Option<Ellipsoid>,
}

/// What the stomach holds.
struct Meal {
    hu: f32,
    /// HU of lumps.
    lumps: f32,
    /// Height of the fluid's level in the scanner, in mm; above it is air.
    level: f32,
}

/// Kidneys, gallbladder, spleen, stomach, pancreas and duodenum of one patient.
pub(crate) struct Upper {
    kidneys: [Kidney; 2],
    gallbladder: Option<Ellipsoid>,
    spleen: [Ellipsoid; 2],
    stomach: Vec<Ellipsoid>,
    stomach_wall: f32,
    meal: Meal,
    pancreas: Vec<Rod>,
    duodenum: Rod,
}

impl Upper {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let kidney = |draw: &mut Draw, side: f32, z: f32| {
            let center = draw.near([side * 55.0, 41.0, z], [5.0, 4.0, 10.0]);
            let size = draw.within(0.88, 1.12);
            let cyst = draw.chance(0.3).then(|| {
                let r = draw.within(6.0, 17.0);
                Ellipsoid::new(along_side(center, side, draw), [r; 3])
            });
            let radii = [25.0 * size, 27.0 * size, 52.0 * size];
            Kidney { center, radii, side, cortex_mm: draw.within(5.0, 8.5), cyst }
        };
        let full = draw.within(0.72, 1.15);
        let mut spot =
            |center: Point, radii: Point| Ellipsoid::new(draw.near(center, [6.0, 5.0, 5.0]), radii.map(|r| r * full));
        let stomach = vec![
            spot([66.0, 14.0, -26.0], [34.0, 32.0, 28.0]),
            spot([70.0, -24.0, -52.0], [34.0, 34.0, 38.0]),
            spot([38.0, -46.0, -80.0], [36.0, 20.0, 22.0]),
            spot([0.0, -38.0, -88.0], [20.0, 14.0, 14.0]),
        ];
        let lumps = draw.within(20.0, 60.0);
        let meal = match draw.count(0, 4) {
            0 => Meal { hu: 300.0, lumps, level: draw.within(-75.0, -35.0) },
            1 => Meal { hu: 12.0, lumps: 10.0, level: draw.within(-70.0, -30.0) },
            _ => Meal { hu: draw.within(45.0, 90.0), lumps, level: draw.within(-85.0, -15.0) },
        };
        let spleen_size = draw.within(0.85, 1.2);
        let spleen = draw.near([94.0, 30.0, -50.0], [5.0, 8.0, 8.0]);
        let hollow = Ellipsoid::new(draw.near([50.0, -4.0, -50.0], [6.0, 6.0, 6.0]), [40.0, 44.0, 60.0]);
        let lump = |draw: &mut Draw, p: Point| draw.near(p, [4.0, 4.0, 4.0]);
        let [head, neck, body, tail] = [
            lump(draw, [-32.0, -14.0, -104.0]),
            lump(draw, [-6.0, -28.0, -92.0]),
            lump(draw, [28.0, -16.0, -82.0]),
            lump(draw, [78.0, 14.0, -70.0]),
        ];
        let thick = draw.within(0.8, 1.15);
        Self {
            kidneys: [kidney(draw, -1.0, -112.0), kidney(draw, 1.0, -100.0)],
            gallbladder: draw.chance(0.8).then(|| {
                let r = draw.within(0.7, 1.3);
                Ellipsoid::new(draw.near([-52.0, -46.0, -98.0], [8.0, 8.0, 8.0]), [13.0 * r, 17.0 * r, 22.0 * r])
            }),
            spleen: [Ellipsoid::new(spleen, [38.0, 56.0, 48.0].map(|r| r * spleen_size)), hollow],
            stomach,
            stomach_wall: draw.within(3.5, 7.0),
            meal,
            pancreas: vec![
                Rod::new([head[0], head[1], head[2] - 10.0], head, [11.0 * thick, 15.0 * thick]),
                Rod::new(head, neck, [14.0 * thick, 8.0 * thick]),
                Rod::new(neck, body, [8.5 * thick, 10.0 * thick]),
                Rod::new(body, tail, [10.0 * thick, 10.0 * thick]),
            ],
            duodenum: Rod::new([-46.0, -24.0, -88.0], [-50.0, -4.0, -135.0], [11.0, 12.0]),
        }
    }

    pub(crate) fn paint_before_liver(&self, canvas: &mut Canvas, t: &Tissues) {
        for kidney in &self.kidneys {
            kidney.paint(canvas, t);
        }
        if let Some(bladder) = &self.gallbladder {
            canvas.place(Area::around(bladder.center, [34.0, 34.0]), 0.6, |v| {
                let d = bladder.distance(v.p) + 1.5 * v.mid;
                (d, if d > -1.5 { 60.0 } else { 10.0 })
            });
        }
        // The fat of the liver's hilum, with the portal vein and the hepatic artery in it.
        let trunk = Rod::new([-8.0, -10.0, -92.0], [-26.0, -14.0, -76.0], [7.5, 6.5]);
        let hilum = Ellipsoid::new([-28.0, -18.0, -80.0], [21.0, 10.0, 10.0]);
        canvas.place(Area::of_rod(&trunk), 2.0, |v| (trunk.distance(v.p), t.veins));
        canvas.reserve(Area::around(hilum.center, [26.0, 16.0]), |v| hilum.distance(v.p) + 2.0 * v.mid);
    }

    pub(crate) fn paint_after_liver(&self, canvas: &mut Canvas, t: &Tissues, noise: &Noise) {
        if canvas.cuts(-125.0, 10.0) {
            let [spleen, hollow] = &self.spleen;
            canvas.place(Area::around(spleen.center, [50.0, 70.0]), 2.5, |v| {
                let d = spleen.distance(v.p).max(4.0 - hollow.distance(v.p)) + 2.5 * v.mid;
                (d.max(v.abdomen() + 3.5), t.spleen + 4.0 * v.fine)
            });
        }
        if canvas.cuts(-135.0, 10.0) {
            self.paint_stomach(canvas, t, noise);
        }
        if canvas.cuts(-140.0, -50.0) {
            canvas.place(Area { low: [-60.0, -60.0], high: [105.0, 45.0] }, 1.5, |v| {
                let d = self.pancreas.iter().map(|r| r.distance(v.p)).reduce(|a, b| melt(a, b, 6.0));
                let lobules = 4.5 * v.fine + 2.0 * v.mid;
                (d.unwrap_or(f32::MAX) + lobules, t.pancreas + 10.0 * v.fine)
            });
        }
        if canvas.cuts_rod(&self.duodenum) {
            canvas.place_layered(
                Area::of_rod(&self.duodenum),
                2.0,
                |v| self.duodenum.distance(v.p) + 2.5 * v.mid,
                |v, depth| {
                    let inside = ramp(-2.5, -4.5, depth);
                    t.gut_wall + inside * (40.0 + 20.0 * v.fine - t.gut_wall)
                },
            );
        }
    }

    fn paint_stomach(&self, canvas: &mut Canvas, t: &Tissues, noise: &Noise) {
        canvas.place_layered(
            Area { low: [-45.0, -95.0], high: [125.0, 70.0] },
            2.5,
            |v| (melt_all(&self.stomach, v.p, 16.0) + 3.5 * v.mid).max(v.abdomen() + 3.0),
            |v, depth| {
                let lumps = noise.at(v.p.map(|c| c / 5.0)).max(0.0);
                let folds = 2.5 * v.fine;
                let inside = ramp(-self.stomach_wall + 1.0, -self.stomach_wall - 1.0, depth + folds);
                let air = ramp(self.meal.level + 1.0, self.meal.level - 1.0, v.gravity);
                let food = self.meal.hu + self.meal.lumps * lumps;
                let content = food + air * (-960.0 - food);
                t.gut_wall + inside * (content - t.gut_wall)
            },
        );
    }
}

impl Kidney {
    fn paint(&self, canvas: &mut Canvas, t: &Tissues) {
        let reach = self.radii[2] + 15.0;
        if !canvas.cuts(self.center[2] - reach, self.center[2] + reach) {
            return;
        }
        let area = Area::around(self.center, [50.0, 50.0]);
        // The upper pole leans to the spine and backwards.
        let own = |v: &Voxel| {
            let dz = v.p[2] - self.center[2];
            [(v.p[0] - self.center[0]) * self.side + 0.18 * dz, v.p[1] - self.center[1] - 0.12 * dz, dz]
        };
        let whole = Ellipsoid::new([0.0; 3], self.radii);
        let [a, b, c] = self.radii;
        let sinus = Ellipsoid::new([-0.75 * a, -0.1 * b, 0.0], [0.85 * a, 0.36 * b, 0.48 * c]);
        let pelvis = Ellipsoid::new([-0.7 * a, -0.1 * b, 0.0], [0.4 * a, 0.2 * b, 0.25 * c]);
        canvas.place(area, 5.0, |v| {
            let q = own(v);
            let d = whole.distance(q).max(-sinus.distance(q) - 2.0 * v.fine) + 1.0 * v.mid;
            let pyramids = ramp(-self.cortex_mm + 2.0, -self.cortex_mm - 2.0, whole.distance(q) + 3.0 * v.fine);
            (d, t.cortex + pyramids * (t.medulla - t.cortex))
        });
        canvas.fill(area, |v| (pelvis.distance(own(v)) + v.fine, 0.5 * t.veins));
        if let Some(cyst) = &self.cyst {
            canvas.place(Area::around(cyst.center, [20.0, 20.0]), 4.0, |v| (cyst.distance(v.p), 8.0));
        }
        // What lies in front of the kidney keeps to the fat around it.
        let fat = Ellipsoid::new([-0.25 * a, 0.3 * b, 0.08 * c], [1.3 * a, 1.3 * b, 1.25 * c]);
        canvas.reserve(area, |v| fat.distance(own(v)) + 5.0 * v.mid);
    }
}

fn along_side(center: Point, side: f32, draw: &mut Draw) -> Point {
    [center[0] + side * draw.within(12.0, 26.0), center[1] + draw.around(20.0), center[2] + draw.around(30.0)]
}
