//! From an activation map to SAM's prompts: bilinear to the slice, threshold at a share of the maximum, one component,
//! its mask and its tight box.

use serde::{Deserialize, Serialize};
use stage_api::BoxPrompt;
use tch::{Kind, Tensor};

/// How a map becomes a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptSettings {
    /// Share of the map's maximum above which a pixel counts, in `(0, 1)`. 0.20 was measured from the paper's figure.
    pub threshold: f32,
    /// The threshold is a value of the map itself, and not a share of its maximum: for classifiers whose map is a
    /// probability.
    pub absolute: bool,
    /// The box where the map has nothing above the threshold.
    pub empty: EmptyMap,
}

/// The box of an empty map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyMap {
    /// The central half of the slice.
    #[default]
    CentralHalf,
    /// The whole slice. With `classifier.kind = "none"` every slice is prompted by it.
    Whole,
}

impl EmptyMap {
    fn bounds(self, size: usize) -> BoxPrompt {
        match self {
            Self::CentralHalf => BoxPrompt::central_half(size),
            Self::Whole => BoxPrompt::whole(size),
        }
    }
}

impl Default for PromptSettings {
    fn default() -> Self {
        Self { threshold: 0.2, absolute: false, empty: EmptyMap::CentralHalf }
    }
}

/// The prompt that one slice's map gives.
#[derive(Clone, Debug, PartialEq)]
pub struct CamPrompt {
    /// The tight box around the component, no margin; what [`PromptSettings::empty`] says where the map is empty.
    pub bounds: BoxPrompt,
    /// Row-major, `size × size`, 1 inside the component; all 0 where the map is empty.
    pub mask: Vec<u8>,
    /// The map had nothing above the threshold, and `bounds` is the fallback.
    pub empty: bool,
}

/// Prompts of a batch of maps `[B, 1, h, w]`, for square slices of `size` pixels.
pub fn cam_prompts(cam: &Tensor, size: usize, settings: &PromptSettings) -> Vec<CamPrompt> {
    let side = size as i64;
    let full =
        cam.to_kind(Kind::Float).upsample_bilinear2d([side, side], false, None, None).to_device(tch::Device::Cpu);
    let batch = cam.size()[0] as usize;
    let mut values = vec![0f32; batch * size * size];
    let count = values.len();
    full.contiguous().copy_data(&mut values, count);
    values.chunks_exact(size * size).map(|map| cam_prompt(map, size, settings)).collect()
}

/// The prompt of one map that already has the slice's size (row-major, `size × size`, ≥ 0). A value that is not a finite
/// number says nothing: it is in no component.
pub fn cam_prompt(map: &[f32], size: usize, settings: &PromptSettings) -> CamPrompt {
    let peak = map.iter().copied().filter(|v| v.is_finite()).fold(0.0, f32::max);
    let level = if settings.absolute { settings.threshold } else { settings.threshold * peak };
    let component = if peak > 0.0 { main_component(map, size, level) } else { None };
    let mask = component.unwrap_or_else(|| vec![0; map.len()]);
    match BoxPrompt::around(&mask, size) {
        Some(bounds) => CamPrompt { bounds, mask, empty: false },
        None => CamPrompt { bounds: settings.empty.bounds(size), mask, empty: true },
    }
}

/// The largest 4-connected component above `level`; of equally large ones that with the higher peak.
fn main_component(map: &[f32], size: usize, level: f32) -> Option<Vec<u8>> {
    let counts = |pixel: usize| map[pixel].is_finite() && map[pixel] > level;
    let mut seen = vec![false; map.len()];
    let mut best: Option<(usize, f32, Vec<usize>)> = None;
    for start in 0..map.len() {
        if seen[start] || !counts(start) {
            continue;
        }
        let mut pixels = vec![start];
        seen[start] = true;
        let mut next = 0;
        while let Some(&at) = pixels.get(next) {
            next += 1;
            let (y, x) = (at / size, at % size);
            let neighbours = [
                (x > 0).then(|| at - 1),
                (x + 1 < size).then(|| at + 1),
                (y > 0).then(|| at - size),
                (at + size < map.len()).then(|| at + size),
            ];
            for n in neighbours.into_iter().flatten() {
                if !seen[n] && counts(n) {
                    seen[n] = true;
                    pixels.push(n);
                }
            }
        }
        let peak = pixels.iter().map(|&p| map[p]).fold(0.0, f32::max);
        if best.as_ref().is_none_or(|b| (pixels.len(), peak) > (b.0, b.1)) {
            best = Some((pixels.len(), peak, pixels));
        }
    }
    best.map(|(_, _, pixels)| {
        let mut mask = vec![0; map.len()];
        for p in pixels {
            mask[p] = 1;
        }
        mask
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prompt(map: &[f32], size: usize) -> CamPrompt {
        cam_prompt(map, size, &PromptSettings::default())
    }

    #[test]
    fn the_largest_component_is_kept_and_diagonals_do_not_join() {
        #[rustfmt::skip]
        let map = [9., 0., 0., 0.,
                   0., 5., 5., 0.,
                   0., 0., 5., 0.,
                   7., 0., 0., 1.];
        let found = prompt(&map, 4);
        assert_eq!(found.mask, [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(found.bounds, BoxPrompt { x0: 1.0, y0: 1.0, x1: 2.0, y1: 2.0 });
    }

    #[test]
    fn equal_components_are_decided_by_their_peak() {
        assert_eq!(prompt(&[5., 0., 9., 0.], 2).mask, [1, 0, 1, 0]);
        #[rustfmt::skip]
        let map = [5., 0., 9.,
                   0., 0., 0.,
                   7., 0., 0.];
        assert_eq!(prompt(&map, 3).bounds, BoxPrompt { x0: 2.0, y0: 0.0, x1: 2.0, y1: 0.0 });
    }

    #[test]
    fn an_empty_map_falls_back_to_the_central_half() {
        for map in [[0.0; 64], [f32::NAN; 64]] {
            let found = prompt(&map, 8);
            assert!(found.empty && found.mask.iter().all(|&m| m == 0));
            assert_eq!(found.bounds, BoxPrompt { x0: 2.0, y0: 2.0, x1: 5.0, y1: 5.0 });
        }
    }

    #[test]
    fn pixels_that_are_no_finite_number_are_in_no_component() {
        for nothing in [f32::NAN, f32::INFINITY] {
            let n = nothing;
            // Three of them side by side, beside two that say something.
            #[rustfmt::skip]
            let map = [ n,  n,  n,
                       0., 0., 0.,
                       5., 5.,  n];
            assert_eq!(prompt(&map, 3).mask, [0, 0, 0, 0, 0, 0, 1, 1, 0]);
            let absolute = PromptSettings { threshold: 0.5, absolute: true, ..PromptSettings::default() };
            let below = [n, 0.1, 0.1, 0.1];
            assert!(cam_prompt(&below, 2, &absolute).empty, "nothing is above the threshold");
        }
    }

    #[test]
    fn a_coarse_map_is_enlarged_to_the_slice() {
        let cam = Tensor::from_slice(&[0.0f32, 0.0, 0.0, 1.0]).reshape([1, 1, 2, 2]);
        let found = &cam_prompts(&cam, 8, &PromptSettings::default())[0];
        // Bilinear, pixel centres at ±0.5: the value along the last row reaches 0.2 at column 3 (0.25 · 0.875 > 0.2 at y = 7).
        assert!(!found.empty && found.bounds.x1 == 7.0 && found.bounds.y1 == 7.0 && found.bounds.x0 >= 2.0);
        assert_eq!(found.mask[7 * 8 + 7], 1);
        assert_eq!(found.mask[0], 0);
    }

    #[test]
    fn an_absolute_threshold_is_the_maps_own() {
        let settings = PromptSettings { threshold: 0.5, absolute: true, ..PromptSettings::default() };
        let bounds = |map: &[f32]| cam_prompt(map, 3, &settings).bounds;
        assert_eq!(bounds(&[0.6, 0.4, 0., 0., 0., 0., 0., 0., 0.]), BoxPrompt { x0: 0.0, y0: 0.0, x1: 0.0, y1: 0.0 });
        assert!(cam_prompt(&[0.4; 9], 3, &settings).empty);
    }

    proptest! {
        #[test]
        fn the_box_is_tight_around_the_mask(map in prop::collection::vec(0f32..1.0, 36)) {
            let found = prompt(&map, 6);
            prop_assert_eq!(BoxPrompt::around(&found.mask, 6), Some(found.bounds));
        }
    }
}
