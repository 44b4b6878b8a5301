//! Overlap of two masks: Dice and IoU per slice, and Dice per volume from counts added up over its slices.

use std::iter::Sum;
use std::ops::AddAssign;

use crate::MaskView;

/// Pixel counts of a prediction and its truth. Counts of several slices add up to those of their volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Foreground in both masks.
    pub intersection: u64,
    /// Foreground of the prediction.
    pub prediction: u64,
    /// Foreground of the truth.
    pub truth: u64,
}

impl Overlap {
    /// Counts two masks of one size.
    pub fn of(prediction: MaskView<'_>, truth: MaskView<'_>) -> Self {
        prediction.assert_same_size(&truth);
        let mut overlap = Self::default();
        for (&p, &t) in prediction.pixels().iter().zip(truth.pixels()) {
            overlap.intersection += u64::from(p != 0 && t != 0);
            overlap.prediction += u64::from(p != 0);
            overlap.truth += u64::from(t != 0);
        }
        overlap
    }

    /// 2·|P ∩ T| / (|P| + |T|) in [0, 1]; 1 where both are empty.
    pub fn dice(self) -> f64 {
        ratio(2 * self.intersection, self.prediction + self.truth)
    }

    /// |P ∩ T| / |P ∪ T| in [0, 1]; 1 where both are empty.
    pub fn iou(self) -> f64 {
        ratio(self.intersection, self.prediction + self.truth - self.intersection)
    }
}

impl AddAssign for Overlap {
    fn add_assign(&mut self, other: Self) {
        self.intersection += other.intersection;
        self.prediction += other.prediction;
        self.truth += other.truth;
    }
}

impl Sum for Overlap {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |mut total, overlap| {
            total += overlap;
            total
        })
    }
}

/// Dice of two masks: 1 where both are empty, 0 where exactly one is.
pub fn dice(prediction: MaskView<'_>, truth: MaskView<'_>) -> f64 {
    Overlap::of(prediction, truth).dice()
}

/// Intersection over union of two masks: 1 where both are empty, 0 where exactly one is.
pub fn iou(prediction: MaskView<'_>, truth: MaskView<'_>) -> f64 {
    Overlap::of(prediction, truth).iou()
}

/// Dice of a whole volume from its slices as `(prediction, truth)`: counts are added before dividing, so that large
/// slices weigh more than small ones. A volume that is evaluated slice by slice sums [`Overlap`]s instead.
pub fn volume_dice<'a>(slices: impl IntoIterator<Item = (MaskView<'a>, MaskView<'a>)>) -> f64 {
    slices.into_iter().map(|(prediction, truth)| Overlap::of(prediction, truth)).sum::<Overlap>().dice()
}

/// Nothing of nothing is full agreement.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}
