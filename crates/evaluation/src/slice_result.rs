//! What an evaluation knows of one slice, and means over slices and volumes.

use rayon::prelude::*;
use seg_metrics::Overlap;
use stage_api::BoxPrompt;

/// What is known of one slice.
pub(crate) struct SliceResult {
    pub(crate) row: usize,
    pub(crate) classification: CallSummary,
    pub(crate) bounds: BoxPrompt,
    /// After each step of the inference; the last is the prediction.
    pub(crate) steps: Vec<Overlap>,
    /// Absent where the segmenter takes no prompt.
    pub(crate) blind: Option<BlindBoxes>,
    /// Slices with the target only.
    pub(crate) liver: Option<LiverResult>,
    /// The predicted mask, a bit a pixel.
    pub(crate) mask: Vec<u8>,
}

impl SliceResult {
    /// Of the prediction.
    pub(crate) fn overlap(&self) -> Overlap {
        self.steps.last().copied().unwrap_or_default()
    }

    pub(crate) fn dice(&self) -> f64 {
        self.overlap().dice()
    }
}

pub(crate) struct CallSummary {
    pub(crate) probability: f64,
    pub(crate) present: bool,
    pub(crate) empty_cam: bool,
}

/// Dice of masks that the prediction has no part in.
pub(crate) struct Controls {
    pub(crate) blind: BlindBoxes,
    pub(crate) oracle: Option<OracleResult>,
}

/// Dice with boxes that look at nothing.
#[derive(Clone, Copy)]
pub(crate) struct BlindBoxes {
    pub(crate) whole_image: f64,
    pub(crate) central_half: f64,
}

/// What true boxes give.
pub(crate) struct OracleResult {
    pub(crate) distances: Distances,
    pub(crate) overlap: Overlap,
    pub(crate) box_iou: f64,
    pub(crate) pretrained: f64,
    pub(crate) pretrained_whole_image: f64,
}

pub(crate) struct LiverResult {
    pub(crate) cam: Distances,
    /// Absent where the segmenter takes no prompt.
    pub(crate) boxes: Option<BoxesOfLiver>,
}

pub(crate) struct BoxesOfLiver {
    pub(crate) cam_box_iou: f64,
    pub(crate) oracle: OracleResult,
}

#[derive(Clone, Copy)]
pub(crate) struct Distances {
    pub(crate) hd_px: f64,
    pub(crate) hd95_px: f64,
    pub(crate) hd95_mm: Option<f64>,
}

pub(crate) fn pack(mask: &[u8]) -> Vec<u8> {
    mask.par_chunks(8)
        .map(|bits| bits.iter().enumerate().fold(0, |byte, (i, &m)| byte | u8::from(m != 0) << i))
        .collect()
}

pub(crate) fn unpack(bits: &[u8], size: usize) -> Vec<u8> {
    (0..size * size).map(|i| bits[i / 8] >> (i % 8) & 1).collect()
}

pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(s, n), v| (s + v, n + 1));
    (count > 0).then(|| sum / count as f64)
}

/// `None` if any of them is.
pub(crate) fn mean_if_all(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    mean(values.collect::<Option<Vec<f64>>>()?.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_masks_unpack_to_themselves() {
        let mask: Vec<u8> = (0..64).map(|i| u8::from(i % 3 == 0)).collect();
        assert_eq!(unpack(&pack(&mask), 8), mask);
    }
}
