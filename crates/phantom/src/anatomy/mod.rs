//! The patient: every organ with its shape, place and HU, drawn once, and the order in which a slice of it is painted.
//!
//! All lengths are mm of a reference body that each patient stretches, turns and warps: x to the patient's left, y to
//! posterior, z to superior, 0 at the top of the liver; the spine stands at y = 38.

mod body;
mod bowel;
mod chest;
mod liver;
mod skeleton;
mod upper;
mod vessels;

use crate::canvas::{Canvas, Frame, Voxel, WARP_MM};
use crate::random::Draw;
use crate::shape::{Noise, Point};

/// HU of the tissues that vary with the patient and the phase of contrast.
pub(crate) struct Tissues {
    pub(crate) fat: f32,
    pub(crate) muscle: f32,
    pub(crate) liver: f32,
    pub(crate) spleen: f32,
    pub(crate) cortex: f32,
    pub(crate) medulla: f32,
    pub(crate) arteries: f32,
    pub(crate) veins: f32,
    pub(crate) heart_wall: f32,
    pub(crate) pancreas: f32,
    pub(crate) gut_wall: f32,
    pub(crate) marrow: f32,
    pub(crate) cortical_bone: f32,
}

impl Tissues {
    /// `phase`: 0 late arterial, 0.5 portal venous, 1 delayed.
    fn draw(draw: &mut Draw, phase: f32) -> Self {
        // Close to muscle, so that no interval of HU tells the liver from the rest.
        let muscle = draw.within(68.0, 84.0);
        let liver = (muscle + draw.within(11.0, 27.0)).max(90.0);
        Self {
            fat: draw.within(-112.0, -98.0),
            muscle,
            liver,
            spleen: liver + draw.within(-8.0, 14.0),
            cortex: liver + draw.within(20.0, 60.0) - 20.0 * phase,
            medulla: liver + draw.within(-10.0, 25.0) + 20.0 * phase,
            arteries: liver + 75.0 - 60.0 * phase + draw.around(12.0),
            veins: liver + draw.within(8.0, 34.0),
            heart_wall: liver + draw.within(-12.0, 12.0),
            pancreas: liver + draw.within(-22.0, 5.0),
            gut_wall: liver + draw.within(-14.0, 12.0),
            marrow: draw.within(80.0, 150.0),
            cortical_bone: draw.within(420.0, 560.0),
        }
    }
}

/// One synthetic patient.
pub(crate) struct Patient {
    tissues: Tissues,
    noise: Noise,
    body: body::Body,
    skeleton: skeleton::Skeleton,
    chest: chest::Chest,
    vessels: vessels::Vessels,
    upper: upper::Upper,
    liver: liver::Liver,
    bowel: bowel::Bowel,
}

impl Patient {
    pub(crate) fn draw(draw: &mut Draw) -> Self {
        let noise = Noise::new(draw);
        let phase = draw.within(0.15, 1.0);
        Self {
            tissues: Tissues::draw(draw, phase),
            noise,
            body: body::Body::draw(draw),
            skeleton: skeleton::Skeleton::draw(draw),
            chest: chest::Chest::draw(draw),
            vessels: vessels::Vessels::draw(draw),
            upper: upper::Upper::draw(draw),
            liver: liver::Liver::draw(draw),
            bowel: bowel::Bowel::draw(draw),
        }
    }

    /// How far the skin reaches in front of, beside and behind the reference body's origin, in its mm.
    pub(crate) fn skin(&self) -> crate::shape::Outline {
        self.body.skin(-60.0)
    }

    /// Lowest and highest z of the liver, to about 3 mm of the reference body; its neighbours may take a little of it.
    pub(crate) fn liver_range(&self) -> [f32; 2] {
        let is_in = |z: f32| {
            let columns = (-150..=120).step_by(10);
            columns.into_iter().any(|x| {
                (-100..=90).step_by(10).any(|y| {
                    let mut voxel = Voxel { p: [x as f32, y as f32, z], ..Voxel::default() };
                    self.place_voxel(&mut voxel);
                    self.liver.distance(&voxel) < -1.0
                })
            })
        };
        let heights = || (-70..=10).map(|step| 3.0 * step as f32);
        let low = heights().find(|&z| is_in(z)).unwrap_or(-120.0);
        let high = heights().rev().find(|&z| is_in(z)).unwrap_or(0.0);
        [low, high]
    }

    /// Paints the slice at height `z` (mm of the reference body).
    pub(crate) fn paint(&self, frame: Frame, z: f32) -> Canvas {
        let mut canvas = Canvas::new(frame, z);
        self.lay_out(&mut canvas);
        let t = &self.tissues;
        self.body.paint(&mut canvas, t);
        self.skeleton.paint(&mut canvas, t);
        self.chest.paint(&mut canvas, t);
        self.vessels.paint(&mut canvas, t);
        self.upper.paint_before_liver(&mut canvas, t);
        self.liver.paint(&mut canvas, t);
        self.upper.paint_after_liver(&mut canvas, t, &self.noise);
        self.bowel.paint(&mut canvas, t, &self.noise);
        canvas
    }

    fn lay_out(&self, canvas: &mut Canvas) {
        let (frame, z) = (canvas.frame, canvas.z);
        let skin = self.body.skin(z).grown(12.0);
        for row in 0..frame.size {
            for column in 0..frame.size {
                let scanner = frame.scanner(row, column);
                let [x, y] = frame.body(scanner);
                let voxel = &mut canvas.voxels[row * frame.size + column];
                voxel.p = [x, y, z];
                voxel.gravity = scanner[1];
                voxel.cavity = 1e3;
                voxel.diaphragm = 1e3;
                if x.abs() < skin.half_width && y > -skin.front && y < skin.back {
                    self.place_voxel(voxel);
                }
            }
        }
    }

    fn place_voxel(&self, voxel: &mut Voxel) {
        let at = |p: Point, cell: f32, shift: f32| self.noise.at(p.map(|c| c / cell + shift));
        let p = voxel.p;
        let warp: Point = std::array::from_fn(|i| WARP_MM * at(p, 75.0, 3.3 + 7.7 * i as f32));
        let p: Point = std::array::from_fn(|i| p[i] + warp[i]);
        voxel.p = p;
        voxel.slow = at(p, 75.0, 27.1);
        voxel.mid = at(p, 30.0, 11.5);
        voxel.fine = at(p, 7.0, 19.2);
        let cavity = self.body.cavity(p[2]);
        voxel.cavity = cavity.distance(p[0], p[1]);
        voxel.diaphragm = self.body.above_diaphragm(p, &cavity, voxel.cavity);
    }
}
