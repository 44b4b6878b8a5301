//! What a scanner, its dose and its reconstruction make of the same anatomy.

use crate::Augmentation;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;
use slice_store::Window;

/// One draw of blur, low resolution, intensity, contrast, gamma and noise, made in this order.
#[derive(Clone, Debug)]
pub struct Appearance {
    blur_px: f32,
    low_resolution: f32,
    intensity_hu: f32,
    contrast: f32,
    gamma: f32,
    noise_hu: f32,
    noise_seed: u64,
}

impl Appearance {
    /// A draw within the reach of `settings`.
    pub fn draw(settings: &Augmentation, rng: &mut impl Rng) -> Self {
        let of = settings.probability_of;
        let mut uniform = |reach: f32, share: Option<f64>, low: f32, high: f32| {
            let takes_part = reach > 0.0 && rng.random_bool(share.unwrap_or(settings.probability));
            if takes_part { Some(rng.random_range(low..=high)) } else { None }
        };
        let Augmentation { blur_px, low_resolution, intensity_hu, contrast, gamma, noise_hu, .. } = *settings;
        let exponent = gamma.ln_1p();
        Self {
            blur_px: uniform(blur_px, of.blur_px, 0.0, blur_px).unwrap_or(0.0),
            low_resolution: uniform(low_resolution, of.low_resolution, 1.0, 1.0 + low_resolution).unwrap_or(1.0),
            intensity_hu: uniform(intensity_hu, of.intensity_hu, -intensity_hu, intensity_hu).unwrap_or(0.0),
            contrast: uniform(contrast, of.contrast, 1.0 - contrast, 1.0 + contrast).unwrap_or(1.0),
            gamma: uniform(gamma, of.gamma, -exponent, exponent).map_or(1.0, f32::exp),
            noise_hu: uniform(noise_hu, of.noise_hu, 0.0, noise_hu).unwrap_or(0.0),
            noise_seed: rng.random(),
        }
    }

    /// Changes a square slice of `size` pixels a side, in HU. `window` is what contrast and gamma refer to.
    pub fn apply(&self, hu: &mut [f32], size: usize, window: Window) {
        if self.blur_px > 0.0 {
            blur(hu, size, self.blur_px);
        }
        if self.low_resolution > 1.0 {
            low_resolution(hu, size, self.low_resolution);
        }
        if self.intensity_hu != 0.0 {
            shift_intensity(hu, self.intensity_hu);
        }
        if self.contrast != 1.0 {
            contrast(hu, window, self.contrast);
        }
        if self.gamma != 1.0 {
            gamma(hu, window, self.gamma);
        }
        if self.noise_hu > 0.0 {
            noise(hu, self.noise_hu, self.noise_seed);
        }
    }
}

/// A softer kernel: a Gaussian of standard deviation `sigma` in pixels, cut off at 3 σ; the border repeats.
pub fn blur(hu: &mut [f32], size: usize, sigma: f32) {
    let radius = (3.0 * sigma).ceil() as usize;
    let weights: Vec<f32> =
        (0..=2 * radius).map(|i| (-0.5 * ((i as f32 - radius as f32) / sigma).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    let weights: Vec<f32> = weights.iter().map(|w| w / sum).collect();
    // Along rows, with the border repeated beside them.
    let mut padded = vec![0.0; size + 2 * radius];
    for row in hu.chunks_exact_mut(size) {
        padded[..radius].fill(row[0]);
        padded[radius..radius + size].copy_from_slice(row);
        padded[radius + size..].fill(row[size - 1]);
        row.fill(0.0);
        for (k, &weight) in weights.iter().enumerate() {
            row.iter_mut().zip(&padded[k..]).for_each(|(to, &from)| *to += weight * from);
        }
    }
    // Along columns: each row is a weighted sum of rows.
    let source = hu.to_vec();
    for (row, to) in hu.chunks_exact_mut(size).enumerate() {
        to.fill(0.0);
        for (k, &weight) in weights.iter().enumerate() {
            let from = (row + k).saturating_sub(radius).min(size - 1) * size;
            to.iter_mut().zip(&source[from..from + size]).for_each(|(to, &from)| *to += weight * from);
        }
    }
}

/// Thicker pixels: averaged to a side shorter by `factor`, and enlarged again linearly.
pub fn low_resolution(hu: &mut [f32], size: usize, factor: f32) {
    let side = ((size as f32 / factor).round() as usize).clamp(1, size);
    let small = resized(hu, size, side, FilterType::Box);
    hu.copy_from_slice(&resized(&small, side, size, FilterType::Bilinear));
}

fn resized(pixels: &[f32], from: usize, to: usize, filter: FilterType) -> Vec<f32> {
    let bytes: Vec<u8> = pixels.iter().flat_map(|v| v.to_ne_bytes()).collect();
    let source =
        ImageRef::new(from as u32, from as u32, &bytes, PixelType::F32).expect("as many pixels as a square has");
    let mut target = Image::new(to as u32, to as u32, PixelType::F32);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize(&source, &mut target, &options).expect("both are of the same type");
    target.buffer().as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
}

/// Another calibration: `by` HU more everywhere.
pub fn shift_intensity(hu: &mut [f32], by: f32) {
    for v in hu {
        *v += by;
    }
}

/// Another beam energy or more contrast agent: the height above the window's lower end times `factor`.
pub fn contrast(hu: &mut [f32], window: Window, factor: f32) {
    let low = window.low();
    for v in hu {
        *v = low + (*v - low) * factor;
    }
}

/// Another display: `unit^exponent` within the window, whose ends stay. HU outside it stay too.
pub fn gamma(hu: &mut [f32], window: Window, exponent: f32) {
    // A table with linear interpolation, but for the first cell, where the slope of small exponents has no bound.
    const CELLS: usize = 1024;
    let (low, width) = (window.low(), window.width);
    let table: Vec<f32> = (0..=CELLS + 1).map(|i| low + width * (i as f32 / CELLS as f32).powf(exponent)).collect();
    let to_cells = CELLS as f32 / width;
    for v in hu {
        let place = (*v - low) * to_cells;
        if place > 0.0 && place < 1.0 {
            *v = low + width * (place / CELLS as f32).powf(exponent);
        } else if place >= 1.0 && place < CELLS as f32 {
            let cell = place as i32 as usize;
            *v = table[cell] + (table[cell + 1] - table[cell]) * (place - cell as f32);
        }
    }
}

/// A lower dose: independent normal noise of standard deviation `sigma` in HU.
pub fn noise(hu: &mut [f32], sigma: f32, seed: u64) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    for v in hu {
        let normal: f32 = StandardNormal.sample(&mut rng);
        *v += sigma * normal;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64;
    const WINDOW: Window = Window { level: 40.0, width: 400.0 };

    #[test]
    fn a_blurred_point_is_the_gaussian() {
        let mut hu = vec![0.0; SIZE * SIZE];
        hu[30 * SIZE + 20] = 1000.0;
        blur(&mut hu, SIZE, 2.0);
        assert!((hu.iter().sum::<f32>() - 1000.0).abs() < 0.1);
        let peak = hu[30 * SIZE + 20];
        // 1000 / (2 π σ²), and e^(-1/2 · 3² / σ²) of it three pixels on.
        assert!((peak - 1000.0 / (std::f32::consts::TAU * 4.0)).abs() < 0.5, "{peak}");
        for far in [hu[33 * SIZE + 20], hu[30 * SIZE + 17]] {
            assert!((far / peak - (-9.0f32 / 8.0).exp()).abs() < 1e-4, "{far}");
        }
        let mut flat = vec![37.0; SIZE * SIZE];
        blur(&mut flat, SIZE, 3.0);
        assert!(flat.iter().all(|v| (v - 37.0).abs() < 1e-3), "the border repeats");
    }

    #[test]
    fn low_resolution_keeps_what_is_smooth_and_loses_what_is_fine() {
        let ramp: Vec<f32> = (0..SIZE * SIZE).map(|i| (i % SIZE) as f32).collect();
        let mut changed = ramp.clone();
        low_resolution(&mut changed, SIZE, 2.0);
        let inner = |i: &usize| (4..SIZE - 4).contains(&(i % SIZE));
        assert!((0..SIZE * SIZE).filter(inner).all(|i| (changed[i] - ramp[i]).abs() < 0.01));
        let mut fine: Vec<f32> =
            (0..SIZE * SIZE).map(|i| if (i % SIZE).is_multiple_of(2) { 100.0 } else { -100.0 }).collect();
        low_resolution(&mut fine, SIZE, 2.0);
        assert!(fine.iter().all(|v| v.abs() < 0.01));
    }

    #[test]
    fn intensities_follow_their_formulas() {
        let source = [-500.0f32, -160.0, -60.0, 40.0, 140.0, 240.0, 900.0];
        let changed = |change: &dyn Fn(&mut [f32])| {
            let mut hu = source;
            change(&mut hu);
            hu
        };
        assert_eq!(changed(&|hu| shift_intensity(hu, 25.0)), source.map(|v| v + 25.0));
        assert_eq!(changed(&|hu| contrast(hu, WINDOW, 1.5)), source.map(|v| -160.0 + 1.5 * (v + 160.0)));
        let powers = changed(&|hu| gamma(hu, WINDOW, 2.0));
        // A quarter, a half and three quarters of the window, squared.
        let expected = [-500.0, -160.0, -160.0 + 25.0, -160.0 + 100.0, -160.0 + 225.0, 240.0, 900.0];
        for (found, expected) in powers.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-2, "{powers:?}");
        }
        for exponent in [0.25f32, 0.7, 1.4, 4.0] {
            for step in 0..4000 {
                let unit = step as f32 / 4000.0;
                let mut hu = [-160.0 + 400.0 * unit];
                gamma(&mut hu, WINDOW, exponent);
                let error = (hu[0] + 160.0) / 400.0 - unit.powf(exponent);
                assert!(error.abs() < 5e-3, "{unit}^{exponent}: {error}");
            }
        }
    }

    #[test]
    fn noise_has_its_standard_deviation_and_its_seed() {
        let of = |seed| {
            let mut hu = vec![10.0; 256 * 256];
            noise(&mut hu, 20.0, seed);
            hu
        };
        let hu = of(1);
        let mean = hu.iter().sum::<f32>() / hu.len() as f32;
        let deviation = (hu.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / hu.len() as f32).sqrt();
        assert!((mean - 10.0).abs() < 0.4 && (deviation - 20.0).abs() < 0.3, "{mean} {deviation}");
        assert!(hu == of(1) && hu != of(2));
    }

    #[test]
    fn draws_stay_within_reach_and_take_part_as_often_as_asked() {
        let settings = Augmentation {
            probability: 0.5,
            gamma: 0.4,
            intensity_hu: 40.0,
            low_resolution: 1.0,
            ..Augmentation::default()
        };
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
        let draws: Vec<Appearance> = (0..1000).map(|_| Appearance::draw(&settings, &mut rng)).collect();
        let changed = draws.iter().filter(|d| d.gamma != 1.0).count();
        assert!((430..570).contains(&changed), "{changed}");
        assert!(draws.iter().all(|d| d.noise_hu == 0.0 && d.blur_px == 0.0 && d.contrast == 1.0));
        assert!(draws.iter().all(|d| (1.0 / 1.401..1.401).contains(&d.gamma) && d.intensity_hu.abs() <= 40.0));
        assert!(draws.iter().any(|d| d.gamma < 0.75) && draws.iter().any(|d| d.gamma > 1.35));
        assert!(draws.iter().all(|d| (1.0..=2.0).contains(&d.low_resolution)));
        let off = Augmentation { probability: 0.0, ..settings };
        assert!(off.is_off() && (0..50).all(|_| Appearance::draw(&off, &mut rng).gamma == 1.0));
    }
}
