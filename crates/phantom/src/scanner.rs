//! From a patient to the slices that a scanner would give: placement in the field of view, slice thickness, the table, the
//! blur of the point spread and correlated noise.

use crate::anatomy::Patient;
use crate::canvas::{Canvas, Frame};
use crate::random::Draw;
use crate::shape::ramp;
use rayon::prelude::*;

/// Number of thin slices that are averaged into one of full thickness.
const THIN_SLICES: usize = 2;

/// One patient's examination: where the patient lies and how the scanner was set.
pub(crate) struct Scan {
    patient: Patient,
    frame: Frame,
    /// Distance between slices in mm.
    pub(crate) spacing_mm: f32,
    /// Height of the lowest slice above the liver's top, in mm.
    lowest_mm: f32,
    noise_hu: f32,
    streaks_hu: f32,
    blur_mm: f32,
    /// Height of the table's middle and its radius of curvature, in mm.
    table: [f32; 2],
    /// World coordinates of the middle of the lowest slice: left, posterior, superior, in mm.
    pub(crate) isocenter_mm: [f32; 3],
}

/// A finished slice, rows from anterior to posterior, columns from the patient's right to the left.
pub(crate) struct Slice {
    pub(crate) hu: Vec<i16>,
    /// 0 elsewhere, 1 liver, 2 lesion of the liver.
    pub(crate) label: Vec<u8>,
}

impl Scan {
    /// Patient `number` of the data set with this seed.
    pub(crate) fn draw(seed: u64, number: usize, slices: usize, size: usize) -> Self {
        let draw = &mut Draw::stream(seed, &format!("patient/{number}"));
        let patient = Patient::draw(draw);
        let stature = draw.within(0.94, 1.06);
        let scale = [0, 1, 2].map(|_| stature * draw.within(0.97, 1.03));
        let skin = patient.skin();
        let width = 2.0 * skin.half_width * scale[0];
        let depth = (skin.front + skin.back) * scale[1];
        let field = width.max(depth).max(320.0) * draw.within(1.05, 1.16);
        let frame = Frame {
            size,
            pixel_mm: field / size as f32,
            offset: [draw.around(0.015 * field), draw.within(-0.045, 0.005) * field],
            angle: draw.around(4.0_f32.to_radians()),
            scale,
        };
        // Of the range, 36 to 44 % lie above and below the liver, a third to a half of that above.
        let free = draw.within(0.36, 0.44);
        let [bottom, top] = patient.liver_range().map(|z| z * scale[2]);
        let range = (top - bottom) / (1.0 - free);
        let spacing_mm = (range / slices as f32 * 4.0).round().max(1.0) / 4.0;
        let above = top + free * range * draw.within(0.33, 0.5);
        let back = frame.offset[1] + skin.back * scale[1];
        Self {
            patient,
            frame,
            spacing_mm,
            lowest_mm: above - spacing_mm * (slices as f32 - 0.5),
            noise_hu: draw.within(17.0, 25.0),
            streaks_hu: draw.within(1.0, 5.0),
            blur_mm: draw.within(0.85, 1.25),
            table: [back + draw.within(6.0, 14.0), draw.within(380.0, 900.0)],
            isocenter_mm: [draw.around(20.0), draw.within(120.0, 180.0), draw.within(-900.0, -500.0)],
        }
    }

    /// Side of a pixel in mm.
    pub(crate) fn pixel_mm(&self) -> f32 {
        self.frame.pixel_mm
    }

    /// All slices, the most inferior first. `stream` names the noise.
    pub(crate) fn slices(&self, seed: u64, number: usize, slices: usize) -> Vec<Slice> {
        (0..slices)
            .into_par_iter()
            .map(|index| {
                let draw = &mut Draw::stream(seed, &format!("patient/{number}/noise/{index}"));
                self.slice(index, draw)
            })
            .collect()
    }

    fn slice(&self, index: usize, draw: &mut Draw) -> Slice {
        let middle = self.lowest_mm + index as f32 * self.spacing_mm;
        let thin: Vec<Canvas> = (0..THIN_SLICES)
            .map(|k| {
                let shift = (k as f32 + 0.5) / THIN_SLICES as f32 - 0.5;
                self.patient.paint(self.frame, (middle + shift * self.spacing_mm) / self.frame.scale[2])
            })
            .collect();
        let mean = |i: usize, of: fn(&Canvas) -> &[f32]| {
            thin.iter().map(|canvas| of(canvas)[i]).sum::<f32>() / THIN_SLICES as f32
        };
        let count = self.frame.size * self.frame.size;
        let mut hu: Vec<f32> = (0..count).map(|i| mean(i, |c| &c.hu[..])).collect();
        let label = (0..count)
            .map(|i| match (mean(i, |c| &c.liver[..]) > 0.5, mean(i, |c| &c.lesion[..]) > 0.5) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => 2,
            })
            .collect();
        self.add_table(&mut hu);
        let size = self.frame.size;
        blur(&mut hu, size, self.blur_mm / self.frame.pixel_mm);
        self.add_noise(&mut hu, draw);
        let hu = hu.iter().map(|v| v.round().clamp(-1024.0, 3071.0) as i16).collect();
        Slice { hu, label }
    }

    /// Two thin curved shells with foam between them.
    fn add_table(&self, hu: &mut [f32]) {
        let [height, radius] = self.table;
        for (i, value) in hu.iter_mut().enumerate() {
            let [x, y] = self.frame.scanner(i / self.frame.size, i % self.frame.size);
            let depth = y - (height - x * x / (2.0 * radius));
            let inside = *value < -300.0 && x.abs() < 215.0;
            if inside && (-1.0..34.0).contains(&depth) {
                let shell = ramp(2.6, 0.4, (depth - 1.0).abs()).max(ramp(2.6, 0.4, (depth - 31.0).abs()));
                *value = value.max(-940.0 + shell * 1500.0);
            }
        }
    }

    /// Noise as filtered back projection makes it: grainy over about two pixels, without low frequencies, stronger in the
    /// middle of the body, with faint horizontal streaks.
    fn add_noise(&self, hu: &mut [f32], draw: &mut Draw) {
        let size = self.frame.size;
        // In pixels; noise is as fine as the matrix, as far as the reconstruction's kernel lets it be.
        let grain = 0.62 * (self.blur_mm / self.frame.pixel_mm).max(0.8);
        let mut fine: Vec<f32> = (0..hu.len()).map(|_| draw.noise()).collect();
        blur(&mut fine, size, grain);
        let mut coarse = fine.clone();
        blur(&mut coarse, size, 2.6 * grain);
        for (f, c) in fine.iter_mut().zip(&coarse) {
            *f -= 0.8 * c;
        }
        let streaks: Vec<f32> = streaks(size, draw);
        let (fine_scale, streak_scale) = (self.noise_hu / deviation(&fine), self.streaks_hu / deviation(&streaks));
        for (i, value) in hu.iter_mut().enumerate() {
            let [x, y] = self.frame.scanner(i / size, i % size);
            let off = ((x / 190.0).powi(2) + (y / 150.0).powi(2)).min(2.0);
            let strength = 1.12 - 0.3 * off;
            *value += strength * (fine_scale * fine[i] + streak_scale * streaks[i]);
        }
    }
}

/// Noise that is long in the rows' direction and short across.
fn streaks(size: usize, draw: &mut Draw) -> Vec<f32> {
    let mut field: Vec<f32> = (0..size * size).map(|_| draw.noise()).collect();
    blur_rows(&mut field, size, size as f32 / 14.0);
    let mut field = transposed(&field, size);
    blur_rows(&mut field, size, 0.9);
    transposed(&field, size)
}

fn deviation(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&v| f64::from(v * v)).sum();
    ((sum / values.len() as f64).sqrt() as f32).max(1e-6)
}

/// Gaussian blur of a square field, `sigma` in pixels; the edges are continued.
fn blur(field: &mut Vec<f32>, size: usize, sigma: f32) {
    blur_rows(field, size, sigma);
    *field = transposed(field, size);
    blur_rows(field, size, sigma);
    *field = transposed(field, size);
}

fn blur_rows(field: &mut [f32], size: usize, sigma: f32) {
    let reach = (3.0 * sigma).ceil() as usize;
    let weights: Vec<f32> =
        (0..=2 * reach).map(|i| (-0.5 * ((i as f32 - reach as f32) / sigma).powi(2)).exp()).collect();
    let total: f32 = weights.iter().sum();
    let mut padded = vec![0.0; size + 2 * reach];
    for row in field.chunks_exact_mut(size) {
        padded[..reach].fill(row[0]);
        padded[reach..reach + size].copy_from_slice(row);
        padded[reach + size..].fill(row[size - 1]);
        row.fill(0.0);
        for (k, weight) in weights.iter().enumerate() {
            for (value, source) in row.iter_mut().zip(&padded[k..]) {
                *value += weight / total * source;
            }
        }
    }
}

fn transposed(field: &[f32], size: usize) -> Vec<f32> {
    (0..size * size).map(|i| field[(i % size) * size + i / size]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blurred_point_is_a_gaussian_of_sum_one() {
        let mut field = vec![0.0; 31 * 31];
        field[15 * 31 + 15] = 1.0;
        blur(&mut field, 31, 1.5);
        assert!((field.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        let expected = 1.0 / (2.0 * std::f32::consts::PI * 1.5 * 1.5);
        assert!((field[15 * 31 + 15] - expected).abs() < 1e-3);
        assert!((field[15 * 31 + 18] / field[15 * 31 + 15] - (-2.0_f32).exp()).abs() < 1e-3);
    }
}
