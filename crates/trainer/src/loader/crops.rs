//! Crops of slices: of labelled ones, whose masks say what they show; and of any, drawn by what their images show.

use predictor::Intensity;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A slice from which crops are drawn.
#[derive(Clone, Copy)]
pub(super) struct CropSource<'a> {
    pub hu: &'a [i16],
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
    pub fn draw(self, mask: &[u8], want: bool, intensity: &Intensity, rng: &mut ChaCha8Rng) -> Option<[usize; 2]> {
        let area = (self.side * self.side) as f32;
        self.first(rng, |place| {
            let count = |is: fn(u8) -> bool| -> usize {
                self.lines(place).map(|line| mask[line].iter().filter(|&&value| is(value)).count()).sum()
            };
            // What is ignored may be the target.
            if want {
                count(|value| value == 1) as f32 > 0.03 * area
            } else {
                count(|value| value != 0) == 0 && self.has_body(place, intensity)
            }
        })
    }

    /// The same of one that is not just air, whatever else it shows: no mask is asked.
    pub fn draw_body(self, intensity: &Intensity, rng: &mut ChaCha8Rng) -> Option<[usize; 2]> {
        self.first(rng, |place| self.has_body(place, intensity))
    }

    fn first(self, rng: &mut ChaCha8Rng, is_wanted: impl Fn([usize; 2]) -> bool) -> Option<[usize; 2]> {
        let last = (self.size - self.side) / self.grid;
        let mut place = || [(); 2].map(|()| rng.random_range(0..=last) * self.grid);
        (0..200).map(|_| place()).find(|&place| is_wanted(place))
    }

    /// Whether the crop's mean intensity in the window is more than a tenth.
    fn has_body(self, place: [usize; 2], intensity: &Intensity) -> bool {
        let unit = |&hu: &i16| intensity.window().unit(f32::from(hu));
        self.lines(place).flat_map(|l| &self.hu[l]).map(unit).sum::<f32>() > 0.1 * (self.side * self.side) as f32
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
            let source = CropSource { hu: &columns, size, side: 32, grid: 1 };
            let without = source.crop(source.draw(&mask, false, &intensity, &mut rng).unwrap());
            assert!(without.len() == 32 * 32 && without[0] >= 20);
            let with = source.crop(source.draw(&mask, true, &intensity, &mut rng).unwrap());
            assert!(with[0] <= 19);
            let place = CropSource { grid: 4, ..source }.draw(&mask, false, &intensity, &mut rng).unwrap();
            assert!(place.iter().all(|p| p % 4 == 0), "{place:?}");
        }
        let source = CropSource { hu: &columns, size, side: 32, grid: 1 };
        assert!(source.draw(&vec![1; size * size], false, &intensity, &mut stream(0, "test")).is_none());
    }

    #[test]
    fn a_crop_of_an_unlabelled_slice_lies_where_the_image_shows_a_body() {
        let size = 64;
        let intensity = Intensity::new(&IntensityConfig::default());
        // Water in a corner of 20 × 20 pixels, in air.
        let hu: Vec<i16> = (0..size * size).map(|i| if i % size < 20 && i / size < 20 { 40 } else { -1000 }).collect();
        let source = CropSource { hu: &hu, size, side: 32, grid: 4 };
        let places: Vec<[usize; 2]> =
            (0..20).map(|seed| source.draw_body(&intensity, &mut stream(seed, "test")).unwrap()).collect();
        // The window's middle is 0.5: more than a tenth is more than a fifth of 32 × 32 pixels of water.
        assert!(places.iter().all(|[y, x]| (20 - y.min(&20)) * (20 - x.min(&20)) * 5 > 32 * 32), "{places:?}");
        assert!(places.iter().any(|place| place != &places[0]), "{places:?}");
        let air = vec![-1000; size * size];
        assert!(CropSource { hu: &air, ..source }.draw_body(&intensity, &mut stream(0, "test")).is_none());
    }
}
