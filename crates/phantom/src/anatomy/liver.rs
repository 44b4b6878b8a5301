//! The liver: lobes melted together, cut by fissures, with hepatic and portal veins and with lesions.

use super::Tissues;
use crate::canvas::{Area, Canvas, Voxel};
use crate::random::Draw;
use crate::shape::{Ellipsoid, Point, Rod, along, dot, melt_all, ramp, sub};

struct Lesion {
    ball: Ellipsoid,
    /// HU by which the middle differs from the liver, and the rim.
    shift: [f32; 2],
    /// Irregularity of the boundary in mm.
    rough: f32,
}

/// The box in which lesions are sought, as its middle and half sides.
const LESIONS: Ellipsoid = Ellipsoid { center: [-45.0, -10.0, -60.0], radii: [85.0, 70.0, 60.0] };

/// The liver of one patient.
pub(crate) struct Liver {
    lobes: Vec<Ellipsoid>,
    /// Fissure of the round ligament: its x at the front and its half width, in mm.
    fissure: [f32; 2],
    vessels: Vec<Rod>,
    lesions: Vec<Lesion>,
    /// Brightness of hepatic and portal veins against the liver, in HU.
    vessel_shift: f32,
    /// Uneven fat in the liver, in HU.
    patchiness: f32,
}

impl Liver {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let size = draw.within(0.9, 1.06);
        let left = draw.within(0.55, 1.2);
        let tip = draw.within(30.0, 52.0);
        let mut lobe = |center: Point, radii: Point| Ellipsoid::new(draw.near(center, [5.0, 5.0, 3.0]), radii);
        let lobes = vec![
            lobe([-72.0, -4.0, -58.0], [72.0 * size, 78.0 * size, 58.0 * size]),
            lobe([-98.0, 12.0, -84.0], [34.0, 52.0 * size, tip]),
            lobe([-8.0, -44.0, -46.0], [58.0, 38.0 * size, 36.0 * size]),
            lobe([42.0 * left, -46.0, -38.0], [52.0 * left, 26.0 * size, 26.0 * size]),
            lobe([-12.0, 0.0, -52.0], [15.0, 15.0, 24.0]),
        ];
        let vessels = vessel_tree(draw);
        let lesions = (0..draw.count(0, 7)).map(|_| Lesion::draw(draw, &lobes)).collect();
        Self {
            lobes,
            fissure: [draw.within(8.0, 24.0), draw.within(1.0, 3.5)],
            vessels,
            lesions,
            vessel_shift: if draw.chance(0.15) { draw.within(-22.0, -12.0) } else { draw.within(24.0, 58.0) },
            patchiness: draw.within(1.0, 7.0),
        }
    }

    /// Lowest point of the lobes, in mm.
    fn bottom(&self) -> f32 {
        self.lobes.iter().map(|lobe| lobe.center[2] - lobe.radii[2]).fold(0.0, f32::min)
    }

    /// Distance to the liver before its neighbours take their room, in mm, negative inside.
    pub(crate) fn distance(&self, v: &Voxel) -> f32 {
        let lobes = melt_all(&self.lobes, v.p, 18.0) + 5.0 * v.mid + 0.9 * v.fine;
        let [x, y, z] = v.p;
        // A cleft from the front edge upwards, and one behind the left lobe that sets the caudate lobe apart.
        let [at, width] = self.fissure;
        let umbilical =
            (x - at + 0.3 * (y + 60.0) + 9.0 * v.mid + 6.0 * v.slow).abs() - width - 0.08 * (-z - 50.0).max(0.0);
        let umbilical = umbilical.max(z + 50.0 + 12.0 * v.mid).max(y + 30.0 + 10.0 * v.slow);
        let venous = (y + 16.0 - 0.45 * x + 8.0 * v.mid).abs() - 1.2;
        let venous = venous.max((x - 8.0).abs() - 24.0).max((z + 58.0).abs() - 26.0);
        lobes.max(-umbilical).max(-venous).max(v.abdomen() + 2.5)
    }

    pub(crate) fn paint(&self, canvas: &mut Canvas, t: &Tissues) {
        if !canvas.cuts(self.bottom() - 5.0, 25.0) {
            return;
        }
        let area = Area { low: [-160.0, -110.0], high: [130.0, 90.0] };
        canvas.place_liver(area, 2.0, |v| (self.distance(v), t.liver + self.patchiness * v.mid + 3.0 * v.fine));
        for rod in &self.vessels {
            if canvas.cuts_rod(rod) {
                canvas.tint_liver(Area::of_rod(rod), |v| (rod.distance(v.p) + 0.4 * v.fine, self.vessel_shift));
            }
        }
        for lesion in &self.lesions {
            let (center, r) = (lesion.ball.center, lesion.ball.radii[0]);
            if canvas.cuts(center[2] - r, center[2] + r) {
                canvas.lesion(Area::around(center, [r + 6.0, r + 6.0]), |v| {
                    let d = lesion.ball.distance(v.p) + lesion.rough * (v.mid + 0.6 * v.fine);
                    let [middle, rim] = lesion.shift;
                    (d, rim + ramp(-2.0, -0.45 * r - 2.0, d) * (middle - rim) + 8.0 * v.fine)
                });
            }
        }
    }
}

impl Lesion {
    fn draw(draw: &mut Draw, lobes: &[Ellipsoid]) -> Self {
        let r = 4.0 + 22.0 * draw.within(0.0, 1.0).powi(2);
        let mut center = draw.near(LESIONS.center, LESIONS.radii);
        // Most of it within the lobes.
        for _ in 0..50 {
            if melt_all(lobes, center, 18.0) < -0.6 * r - 3.0 {
                break;
            }
            center = draw.near(LESIONS.center, LESIONS.radii);
        }
        let middle = draw.within(-75.0, -28.0);
        let rim = if draw.chance(0.3) { draw.within(-10.0, 18.0) } else { middle * draw.within(0.5, 0.9) };
        Self {
            ball: Ellipsoid::new(center, [r, r * draw.within(0.75, 1.2), r * draw.within(0.8, 1.2)]),
            shift: [middle, rim],
            rough: draw.within(1.0, 4.5),
        }
    }
}

/// Three hepatic veins that join the vena cava under the diaphragm, and the portal vein's two branches.
fn vessel_tree(draw: &mut Draw) -> Vec<Rod> {
    let mut rods = Vec::new();
    let cava = [-24.0, -4.0, -16.0];
    let portal = [-28.0, -16.0, -74.0];
    let mut limb = |from: Point, to: Point, radius: f32| {
        let to = draw.near(to, [10.0, 10.0, 8.0]);
        branch(draw, &mut rods, from, to, radius, 3);
    };
    limb(cava, [-112.0, 22.0, -60.0], 5.5);
    limb(cava, [-62.0, -62.0, -62.0], 5.0);
    limb(cava, [30.0, -52.0, -40.0], 4.5);
    limb(portal, [-108.0, 30.0, -92.0], 5.5);
    limb(portal, [-92.0, -46.0, -70.0], 5.5);
    limb(portal, [16.0, -50.0, -54.0], 5.0);
    rods
}

/// A vessel from `from` to `to` that gives off side branches, `order` generations of them.
fn branch(draw: &mut Draw, rods: &mut Vec<Rod>, from: Point, to: Point, radius: f32, order: usize) {
    const STEPS: usize = 4;
    let length = dot(sub(to, from), sub(to, from)).sqrt();
    let (mut at, mut r) = (from, radius);
    for step in 1..=STEPS {
        let bend = 0.06 * length;
        let next = draw.near(along(from, sub(to, from), step as f32 / STEPS as f32), [bend; 3]);
        let thinner = (r * 0.84).max(0.8);
        rods.push(Rod::new(at, next, [r, thinner]));
        (at, r) = (next, thinner);
        if order > 0 {
            let way = sub(to, from).map(|c| c / length.max(1.0));
            let side = along(draw.direction(), way, 0.8);
            let end = along(at, side, length * draw.within(0.35, 0.6));
            branch(draw, rods, at, end, r * 0.62, order - 1);
        }
    }
}
