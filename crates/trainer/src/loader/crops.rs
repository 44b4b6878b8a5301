//! Crops of labelled slices, whose labels follow from their masks.

use super::Intensity;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A random square crop with the target (on more than 3 % of it) or without any (and not just air), in HU; `None` if 200
/// draws find none.
pub(super) fn draw_crop(
    hu: &[i16],
    mask: &[u8],
    size: usize,
    side: usize,
    want: bool,
    intensity: &Intensity,
    rng: &mut ChaCha8Rng,
) -> Option<Vec<i16>> {
    for _ in 0..200 {
        let (y, x) = (rng.random_range(0..=size - side), rng.random_range(0..=size - side));
        let lines = (y..y + side).map(|row| row * size + x..row * size + x + side);
        let target: usize = lines.clone().map(|l| mask[l].iter().filter(|&&m| m != 0).count()).sum();
        let area = (side * side) as f32;
        if want && target as f32 > 0.03 * area || !want && target == 0 {
            let crop: Vec<i16> = lines.flat_map(|l| hu[l].iter().copied()).collect();
            let light = || crop.iter().map(|&hu| intensity.window().unit(f32::from(hu))).sum::<f32>();
            if want || light() > 0.1 * area {
                return Some(crop);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IntensityConfig;
    use crate::plan::stream;

    #[test]
    fn a_crop_without_the_target_has_none_of_it_and_one_with_it_has_some() {
        let size = 64;
        let intensity = Intensity::new(&IntensityConfig::default());
        let mask: Vec<u8> = (0..size * size).map(|i| u8::from(i % size < 20)).collect();
        // The crop's columns can be told from an image that counts them.
        let columns: Vec<i16> = (0..size * size).map(|i| (i % size) as i16).collect();
        for seed in 0..20 {
            let mut rng = stream(seed, "test");
            let without = draw_crop(&columns, &mask, size, 32, false, &intensity, &mut rng).unwrap();
            assert!(without[0] >= 20);
            let with = draw_crop(&columns, &mask, size, 32, true, &intensity, &mut rng).unwrap();
            assert!(with[0] <= 19);
        }
        let none = draw_crop(&columns, &vec![1; size * size], size, 32, false, &intensity, &mut stream(0, "test"));
        assert!(none.is_none());
    }
}
