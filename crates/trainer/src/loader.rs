//! From the slice store to batches: the one place that turns HU into what the stages see, and the only one that augments.
//!
//! A thread walks the plan; rayon prepares the images of a batch in parallel; a bounded channel holds the batches that are
//! ready. Memory is bounded by the channel's depth × one batch, and nothing depends on the number of threads.

use crate::config::{ClassifierConfig, Config, IntensityConfig, Normalization};
use crate::plan::{Step, stream};
use crossbeam::channel::{Receiver, bounded};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use slice_store::SliceStore;
use tch::{Device, Kind, Tensor};

/// What a step works on, on its device.
pub struct Batch {
    /// The plan of the step.
    pub step: Step,
    /// The classifier's slices `[n, 1, H, W]` and whether they show the target `[n]`.
    pub slices: Option<(Tensor, Tensor)>,
    /// The classifier's crops `[k, 1, c, c]` and labels `[k]`.
    pub crops: Option<(Tensor, Tensor)>,
    /// The labelled slices `[m, 1, H, W]`, not augmented, and their masks `[m, 1, H, W]`.
    pub labelled: Option<(Tensor, Tensor)>,
}

/// HU to the stages' intensities.
#[derive(Clone, Debug)]
pub struct Intensity(IntensityConfig);

impl Intensity {
    /// As configured.
    pub fn new(config: &IntensityConfig) -> Self {
        Self(config.clone())
    }

    /// One intensity.
    pub fn of(&self, hu: i16) -> f32 {
        let window = self.0.window;
        match self.0.normalization {
            Normalization::Window => window.unit(f32::from(hu)),
            Normalization::Authors => {
                let clipped = f32::from(hu).clamp(window.low(), window.high());
                half_precision((clipped + 3055.0) / 8866.0)
            }
        }
    }

    /// A slice.
    pub fn slice(&self, hu: &[i16]) -> Vec<f32> {
        hu.iter().map(|&v| self.of(v)).collect()
    }

    /// Rows of a store as `[n, 1, H, W]`.
    pub fn rows(&self, store: &SliceStore, rows: &[usize], device: Device) -> Tensor {
        let images: Vec<Vec<f32>> = rows.par_iter().map(|&row| self.slice(store.image(row))).collect();
        stack(&images, store.slice_size(), device)
    }
}

/// Rounds to 11 significant bits, as a half-precision float of normal range stores it.
fn half_precision(value: f32) -> f32 {
    let step = 2f32.powi(value.log2().floor() as i32 - 10);
    (value / step).round_ties_even() * step
}

/// Starts the loader over `steps`; batches come in their order.
///
/// `scope` ends when the receiver is dropped or the steps are over.
pub fn start<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    store: &'scope SliceStore,
    config: &'scope Config,
    steps: &'scope [Step],
    device: Device,
) -> Receiver<Batch> {
    let (sender, receiver) = bounded(config.loader.prefetch.max(1));
    scope.spawn(move || {
        let intensity = Intensity::new(&config.intensity);
        for step in steps {
            if sender.send(load(store, config, &intensity, step, device)).is_err() {
                break;
            }
        }
    });
    receiver
}

fn load(store: &SliceStore, config: &Config, intensity: &Intensity, step: &Step, device: Device) -> Batch {
    let size = store.slice_size();
    let random = |part: &str, i: usize| stream(config.seed, &format!("augment/{}/{part}/{i}", step.index));
    let slices: Vec<Vec<f32>> = step
        .slices
        .par_iter()
        .enumerate()
        .map(|(i, &row)| augment(intensity.slice(store.image(row)), size, &config.classifier, &mut random("slice", i)))
        .collect();
    let slice_labels: Vec<bool> = step.slices.iter().map(|&row| store.records()[row].has_target()).collect();
    let side = config.classifier.crop_size.min(size);
    let crops: Vec<(Vec<f32>, bool)> = step
        .crops
        .par_iter()
        .enumerate()
        .filter_map(|(i, &(row, want))| {
            let mut rng = random("crop", i);
            let image = intensity.slice(store.image(row));
            let crop = draw_crop(&image, store.mask(row), size, side, want, &mut rng)?;
            Some((augment(crop, side, &config.classifier, &mut rng), want))
        })
        .collect();
    let (crop_images, crop_labels): (Vec<_>, Vec<_>) = crops.into_iter().unzip();
    let masks: Vec<Vec<f32>> =
        step.labelled.iter().map(|&row| store.mask(row).iter().map(|&m| f32::from(m)).collect()).collect();
    Batch {
        slices: (!slices.is_empty()).then(|| (stack(&slices, size, device), labels(&slice_labels, device))),
        crops: (!crop_images.is_empty()).then(|| (stack(&crop_images, side, device), labels(&crop_labels, device))),
        labelled: (!masks.is_empty())
            .then(|| (intensity.rows(store, &step.labelled, device), stack(&masks, size, device))),
        step: step.clone(),
    }
}

/// `[n, 1, size, size]` on the device; on a GPU by way of page-locked memory, without waiting for the copy.
fn stack(images: &[Vec<f32>], size: usize, device: Device) -> Tensor {
    let all = images.concat();
    let host = Tensor::from_slice(&all).reshape([images.len() as i64, 1, size as i64, size as i64]);
    match device {
        Device::Cpu => host,
        gpu => host.pin_memory(gpu).to_device_(gpu, Kind::Float, true, false),
    }
}

fn labels(positive: &[bool], device: Device) -> Tensor {
    let values: Vec<f32> = positive.iter().map(|&p| f32::from(u8::from(p))).collect();
    Tensor::from_slice(&values).to_device(device)
}

/// A random square crop with the target (on more than 3 % of it) or without any (and not just air); `None` if 200 draws
/// find none.
fn draw_crop(
    image: &[f32],
    mask: &[u8],
    size: usize,
    side: usize,
    want: bool,
    rng: &mut ChaCha8Rng,
) -> Option<Vec<f32>> {
    for _ in 0..200 {
        let (y, x) = (rng.random_range(0..=size - side), rng.random_range(0..=size - side));
        let lines = (y..y + side).map(|row| row * size + x..row * size + x + side);
        let target: usize = lines.clone().map(|l| mask[l].iter().filter(|&&m| m != 0).count()).sum();
        let area = (side * side) as f32;
        if want && target as f32 > 0.03 * area || !want && target == 0 {
            let crop: Vec<f32> = lines.flat_map(|l| image[l].iter().copied()).collect();
            if want || crop.iter().sum::<f32>() > 0.1 * area {
                return Some(crop);
            }
        }
    }
    None
}

/// Gamma, gain, offset, a shift of up to an eighth of the side (air moves in) and noise: changes of scanner and position
/// that keep left and right, which anatomy does not let be swapped.
fn augment(mut image: Vec<f32>, size: usize, config: &ClassifierConfig, rng: &mut ChaCha8Rng) -> Vec<f32> {
    if !config.augment {
        return image;
    }
    let reach = size as i64 / 8;
    let (dy, dx) = (rng.random_range(-reach..=reach), rng.random_range(-reach..=reach));
    let (gamma, gain, offset): (f32, f32, f32) =
        (rng.random_range(0.7..1.4), rng.random_range(0.8..1.2), rng.random_range(-0.1..0.1));
    let source = std::mem::take(&mut image);
    let inside = |v: i64| (0..size as i64).contains(&v);
    image.reserve(source.len());
    for y in 0..size as i64 {
        for x in 0..size as i64 {
            let (sy, sx) = (y - dy, x - dx);
            let value = if inside(sy) && inside(sx) { source[sy as usize * size + sx as usize] } else { 0.0 };
            // The mean of three uniforms stands for a normal deviate of standard deviation 0.02.
            let noise = (rng.random::<f32>() + rng.random::<f32>() + rng.random::<f32>() - 1.5) * 0.04;
            image.push(value.powf(gamma) * gain + offset + noise);
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_normalisation_has_the_levels_of_their_script() {
        let authors =
            Intensity::new(&IntensityConfig { normalization: Normalization::Authors, ..IntensityConfig::default() });
        let mut levels: Vec<u32> = (-1024..=3071).map(|hu| authors.of(hu).to_bits()).collect();
        levels.sort_unstable();
        levels.dedup();
        // The method's notes counted 186 distinct levels in 0.327–0.372.
        assert_eq!(levels.len(), 186);
        let bounds = [f32::from_bits(levels[0]), f32::from_bits(levels[185])];
        assert!((bounds[0] - 0.3265).abs() < 5e-4 && (bounds[1] - 0.3717).abs() < 5e-4, "{bounds:?}");
    }

    #[test]
    fn a_crop_without_the_target_has_none_of_it_and_one_with_it_has_some() {
        let size = 64;
        let image = vec![0.5f32; size * size];
        let mask: Vec<u8> = (0..size * size).map(|i| u8::from(i % size < 20)).collect();
        // The crop's columns can be told from an image that counts them.
        let columns: Vec<f32> = (0..size * size).map(|i| 1.0 + (i % size) as f32).collect();
        for seed in 0..20 {
            let mut rng = stream(seed, "test");
            let without = draw_crop(&columns, &mask, size, 32, false, &mut rng).unwrap();
            assert!(without[0] >= 21.0);
            let with = draw_crop(&columns, &mask, size, 32, true, &mut rng).unwrap();
            assert!(with[0] <= 20.0);
        }
        assert!(draw_crop(&image, &vec![1; size * size], size, 32, false, &mut stream(0, "test")).is_none());
    }
}
