//! One slice while it is being painted: tissues are laid down in order, each with soft edges, and organs that come later
//! make room for those that are already there.
//!
//! Invariant: liver and lesion are shares of a voxel in [0, 1], and lesion never exceeds liver.

use crate::shape::{Point, Rod};

/// Largest shift of the warp in mm; areas are enlarged by it.
pub(crate) const WARP_MM: f32 = 7.0;

/// What a painter returns where its tissue certainly is not.
pub(crate) const NOWHERE: (f32, f32) = (1e3, 0.0);

/// What is known of a voxel before anything is painted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Voxel {
    /// Position in the reference body, in mm.
    pub(crate) p: Point,
    /// Distance to the inner wall of chest and belly in mm, negative inside.
    pub(crate) cavity: f32,
    /// Distance above the diaphragm in mm, negative below.
    pub(crate) diaphragm: f32,
    /// Smooth noise of about 75, 30 and 7 mm, in [-1, 1].
    pub(crate) slow: f32,
    pub(crate) mid: f32,
    pub(crate) fine: f32,
    /// Height along gravity in mm, growing downwards: fluids find their level by it.
    pub(crate) gravity: f32,
}

impl Voxel {
    /// Distance to the space below the diaphragm and inside the wall, negative inside.
    pub(crate) fn abdomen(&self) -> f32 {
        self.cavity.max(self.diaphragm)
    }
}

/// A rectangle of the reference body that holds what is painted, in mm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) low: [f32; 2],
    pub(crate) high: [f32; 2],
}

impl Area {
    pub(crate) const ALL: Self = Self { low: [-1e4; 2], high: [1e4; 2] };

    pub(crate) fn around(center: Point, half: [f32; 2]) -> Self {
        Self { low: [center[0] - half[0], center[1] - half[1]], high: [center[0] + half[0], center[1] + half[1]] }
    }

    pub(crate) fn of_rod(rod: &Rod) -> Self {
        let reach = rod.radii[0].max(rod.radii[1]) + 2.0;
        Self {
            low: [rod.from[0].min(rod.to[0]) - reach, rod.from[1].min(rod.to[1]) - reach],
            high: [rod.from[0].max(rod.to[0]) + reach, rod.from[1].max(rod.to[1]) + reach],
        }
    }
}

/// Where the patient lies in the scanner: from pixels to the reference body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) size: usize,
    pub(crate) pixel_mm: f32,
    /// The reference body's origin in the scanner, in mm from the centre of the field of view.
    pub(crate) offset: [f32; 2],
    /// Rotation in the slice's plane, in radians.
    pub(crate) angle: f32,
    /// Patient's size by that of the reference body, per axis.
    pub(crate) scale: Point,
}

impl Frame {
    /// Position of a pixel in the scanner, in mm from the centre of the field of view.
    pub(crate) fn scanner(&self, row: usize, column: usize) -> [f32; 2] {
        let middle = (self.size as f32 - 1.0) / 2.0;
        [(column as f32 - middle) * self.pixel_mm, (row as f32 - middle) * self.pixel_mm]
    }

    /// The reference body's x and y of a position in the scanner.
    pub(crate) fn body(&self, scanner: [f32; 2]) -> [f32; 2] {
        let (sin, cos) = self.angle.sin_cos();
        let (x, y) = (scanner[0] - self.offset[0], scanner[1] - self.offset[1]);
        [(cos * x + sin * y) / self.scale[0], (cos * y - sin * x) / self.scale[1]]
    }

    /// Rows and columns that can hold a point of the area, as `[first row, end row, first column, end column]`.
    fn pixels(&self, area: &Area) -> [usize; 4] {
        let (sin, cos) = self.angle.sin_cos();
        let middle = (self.size as f32 - 1.0) / 2.0;
        let mut bounds = [f32::MAX, f32::MIN, f32::MAX, f32::MIN];
        for (x, y) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let pick = |high: i32, axis: usize| {
                if high == 0 { area.low[axis] - WARP_MM } else { area.high[axis] + WARP_MM }
            };
            let (x, y) = (pick(x, 0) * self.scale[0], pick(y, 1) * self.scale[1]);
            let column = (cos * x - sin * y + self.offset[0]) / self.pixel_mm + middle;
            let row = (sin * x + cos * y + self.offset[1]) / self.pixel_mm + middle;
            bounds = [bounds[0].min(row), bounds[1].max(row), bounds[2].min(column), bounds[3].max(column)];
        }
        let clip = |v: f32| v.clamp(0.0, self.size as f32) as usize;
        [clip(bounds[0].floor()), clip(bounds[1].ceil() + 1.0), clip(bounds[2].floor()), clip(bounds[3].ceil() + 1.0)]
    }
}

/// A slice of `size` x `size` voxels, row by row.
pub(crate) struct Canvas {
    pub(crate) frame: Frame,
    /// Height of the slice in the reference body, in mm.
    pub(crate) z: f32,
    pub(crate) voxels: Vec<Voxel>,
    pub(crate) hu: Vec<f32>,
    /// Share of each voxel that is liver, its lesions included.
    pub(crate) liver: Vec<f32>,
    pub(crate) lesion: Vec<f32>,
    /// Distance to the nearest organ in place, less the room it wants around itself.
    near: Vec<f32>,
    /// Width in mm over which an edge fades.
    edge: f32,
}

impl Canvas {
    /// An empty slice: air everywhere. The voxels are for the caller to fill.
    pub(crate) fn new(frame: Frame, z: f32) -> Self {
        let count = frame.size * frame.size;
        Self {
            frame,
            z,
            voxels: vec![Voxel::default(); count],
            hu: vec![-1000.0; count],
            liver: vec![0.0; count],
            lesion: vec![0.0; count],
            near: vec![f32::MAX; count],
            edge: (frame.pixel_mm / frame.scale[0].min(frame.scale[1])).max(0.8),
        }
    }

    /// Whether something between these heights can show in this slice.
    pub(crate) fn cuts(&self, low: f32, high: f32) -> bool {
        (low - WARP_MM..high + WARP_MM).contains(&self.z)
    }

    /// Whether the slice cuts a rod.
    pub(crate) fn cuts_rod(&self, rod: &Rod) -> bool {
        let reach = rod.radii[0].max(rod.radii[1]);
        self.cuts(rod.from[2].min(rod.to[2]) - reach, rod.from[2].max(rod.to[2]) + reach)
    }

    /// Paints over what is there. `tissue` gives the distance to its surface (mm, negative inside) and its HU.
    pub(crate) fn fill(&mut self, area: Area, tissue: impl Fn(&Voxel) -> (f32, f32)) {
        self.each(area, |canvas, i| {
            let (distance, hu) = tissue(&canvas.voxels[i]);
            let alpha = canvas.coverage(distance);
            canvas.blend(i, alpha, hu);
        });
    }

    /// Puts an organ into what room is left and keeps `room` mm around it free of the organs that follow.
    pub(crate) fn place(&mut self, area: Area, room: f32, organ: impl Fn(&Voxel) -> (f32, f32)) {
        self.each(area, |canvas, i| {
            let (distance, hu) = organ(&canvas.voxels[i]);
            let distance = distance.max(-canvas.near[i]);
            let alpha = canvas.coverage(distance);
            canvas.blend(i, alpha, hu);
            canvas.near[i] = canvas.near[i].min(distance - room);
        });
    }

    /// Like `place`, where the HU depends on how deep below the organ's surface, as it came out, the voxel lies.
    pub(crate) fn place_layered(
        &mut self,
        area: Area,
        room: f32,
        organ: impl Fn(&Voxel) -> f32,
        hu: impl Fn(&Voxel, f32) -> f32,
    ) {
        self.each(area, |canvas, i| {
            let distance = organ(&canvas.voxels[i]).max(-canvas.near[i]);
            let alpha = canvas.coverage(distance);
            if alpha > 0.0 {
                let hu = hu(&canvas.voxels[i], distance);
                canvas.blend(i, alpha, hu);
            }
            canvas.near[i] = canvas.near[i].min(distance - room);
        });
    }

    /// Places the liver, which is what the mask counts.
    pub(crate) fn place_liver(&mut self, area: Area, room: f32, organ: impl Fn(&Voxel) -> (f32, f32)) {
        self.each(area, |canvas, i| {
            let (distance, hu) = organ(&canvas.voxels[i]);
            let distance = distance.max(-canvas.near[i]);
            let alpha = canvas.coverage(distance);
            canvas.blend(i, alpha, hu);
            canvas.liver[i] += alpha;
            canvas.near[i] = canvas.near[i].min(distance - room);
        });
    }

    /// Keeps a place free without painting it.
    pub(crate) fn reserve(&mut self, area: Area, place: impl Fn(&Voxel) -> f32) {
        self.each(area, |canvas, i| canvas.near[i] = canvas.near[i].min(place(&canvas.voxels[i])));
    }

    /// Shifts the HU of the liver, and of nothing else, inside a solid: vessels and texture.
    pub(crate) fn tint_liver(&mut self, area: Area, solid: impl Fn(&Voxel) -> (f32, f32)) {
        self.each(area, |canvas, i| {
            if canvas.liver[i] > 0.0 {
                let (distance, shift) = solid(&canvas.voxels[i]);
                canvas.hu[i] += canvas.coverage(distance) * canvas.liver[i] * shift;
            }
        });
    }

    /// Like `tint_liver`, and the voxels count as lesion.
    pub(crate) fn lesion(&mut self, area: Area, solid: impl Fn(&Voxel) -> (f32, f32)) {
        self.each(area, |canvas, i| {
            if canvas.liver[i] > 0.0 {
                let (distance, shift) = solid(&canvas.voxels[i]);
                let share = canvas.coverage(distance) * canvas.liver[i];
                canvas.hu[i] += share * shift;
                canvas.lesion[i] = canvas.lesion[i].max(share);
            }
        });
    }

    fn each(&mut self, area: Area, mut work: impl FnMut(&mut Self, usize)) {
        let [top, bottom, left, right] = self.frame.pixels(&area);
        for row in top..bottom {
            for i in row * self.frame.size + left..row * self.frame.size + right {
                work(self, i);
            }
        }
    }

    fn coverage(&self, distance: f32) -> f32 {
        (0.5 - distance / self.edge).clamp(0.0, 1.0)
    }

    fn blend(&mut self, i: usize, alpha: f32, hu: f32) {
        if alpha > 0.0 {
            self.hu[i] += alpha * (hu - self.hu[i]);
            self.liver[i] *= 1.0 - alpha;
            self.lesion[i] *= 1.0 - alpha;
        }
    }
}
