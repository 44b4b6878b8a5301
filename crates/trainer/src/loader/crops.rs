//! Crops of labelled slices, whose labels follow from their masks.

use predictor::Intensity;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A slice from which crops are drawn.
#[derive(Clone, Copy)]
pub(super) struct CropSource<'a> {
    pub hu: &'a [i16],
    pub mask: &'a [u8],
    /// Pixels along each axis.
    pub size: usize,
    /// Side of a crop in pixels.
    pub side: usize,
    /// Crops begin at multiples of so many pixels.
    pub grid: usize,
}

impl CropSource<'_> {
    /// The upper row and left column of a random square crop with the target (on more than 3 % of it) or without any (and not
    /// just air); `None` if 200 draws find none.
    pub fn draw(self, want: bool, intensity: &Intensity, rng: &mut ChaCha8Rng) -> Option<[usize; 2]> {
        let last = (self.size - self.side) / self.grid;
        let area = (self.side * self.side) as f32;
        for _ in 0..200 {
            let place = [rng.random_range(0..=last) * self.grid, rng.random_range(0..=last) * self.grid];
            let target: usize = self.lines(place).map(|l| self.mask[l].iter().filter(|&&m| m != 0).count()).sum();
            if want && target as f32 > 0.03 * area || !want && target == 0 {
                let unit = |&hu: &i16| intensity.window().unit(f32::from(hu));
                let light = || self.lines(place).flat_map(|l| &self.hu[l]).map(unit).sum::<f32>();
                if want || light() > 0.1 * area {
                    return Some(place);
                }
            }
        }
        None
    }

    /// The crop at a place, in HU.
    pub fn crop(self, place: [usize; 2]) -> Vec<i16> {
        self.lines(place).flat_map(|l| self.hu[l].iter().copied()).collect()
    }

    fn lines(self, [y, x]: [usize; 2]) -> impl Iterator<Item = std::ops::Range<usize>> {
        (y..y + self.side).map(move |row| row * self.size + x..row * self.size + x + self.side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::stream;
    use predictor::IntensityConfig;

    #[test]
    fn a_crop_without_the_target_has_none_of_it_and_one_with_it_has_some() {
        let size = 64;
        let intensity = Intensity::new(&IntensityConfig::default());
        let mask: Vec<u8> = (0..size * size).map(|i| u8::from(i % size < 20)).collect();
        // The crop's columns can be told from an image that counts them.
        let columns: Vec<i16> = (0..size * size).map(|i| (i % size) as i16).collect();
        for seed in 0..20 {
            let mut rng = stream(seed, "test");
            let source = CropSource { hu: &columns, mask: &mask, size, side: 32, grid: 1 };
            let without = source.crop(source.draw(false, &intensity, &mut rng).unwrap());
            assert!(without.len() == 32 * 32 && without[0] >= 20);
            let with = source.crop(source.draw(true, &intensity, &mut rng).unwrap());
            assert!(with[0] <= 19);
            let place = CropSource { grid: 4, ..source }.draw(false, &intensity, &mut rng).unwrap();
            assert!(place.iter().all(|p| p % 4 == 0), "{place:?}");
        }
        let full = CropSource { hu: &columns, mask: &vec![1; size * size], size, side: 32, grid: 1 };
        assert!(full.draw(false, &intensity, &mut stream(0, "test")).is_none());
    }
}
