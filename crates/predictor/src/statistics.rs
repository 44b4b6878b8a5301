//! What is measured in a predicted volume, slice by slice, and which slices a person should look at.

use crate::predictor::SlicePrediction;
use ct_ingest::{SlicePlan, Volume};
use serde::Serialize;

/// The classifier is not sure that the target is there, nor that it isn't, within these probabilities.
const UNSURE: std::ops::Range<f64> = 0.2..0.8;

/// A mask of which the decoder expects less overlap than this is worth a look.
const LOW_IOU: f64 = 0.7;

/// So is one of which a greater share than this is expected to be wrong.
const MUCH_WRONG: f64 = 0.25;

/// Why a person should look at a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Look {
    /// The classifier's probability is between 0.2 and 0.8.
    UnsurePresence,
    /// The classifier sees the target, and the mask is empty; or the other way round.
    BranchesDisagree,
    /// The decoder expects an intersection over union below 0.7.
    LowIou,
    /// More than a quarter of the mask is expected to be wrong.
    Uncertain,
    /// The mask is empty between two slices that have one.
    Gap,
}

impl Look {
    /// As JSON has it.
    fn name(self) -> &'static str {
        match self {
            Self::UnsurePresence => "unsure-presence",
            Self::BranchesDisagree => "branches-disagree",
            Self::LowIou => "low-iou",
            Self::Uncertain => "uncertain",
            Self::Gap => "gap",
        }
    }
}

/// A slice of a predicted volume.
#[derive(Clone, Debug, Serialize)]
pub struct SliceStatistics {
    /// Its number in the volume's file, counted from 0.
    pub slice: usize,
    /// Of its middle, superior positive; mm.
    pub position_mm: f32,
    /// The classifier's probability that it shows the target.
    pub probability: f64,
    /// The intersection over union that the decoder expects of its mask; absent where it is called empty.
    pub predicted_iou: Option<f64>,
    /// [`SlicePrediction::uncertainty`].
    pub uncertainty: f64,
    /// Of the mask.
    pub voxels: usize,
    /// Of these voxels; absent where there are none.
    pub mean_hu: Option<f64>,
    /// Why to look at it; empty where nothing is doubtful.
    pub look: Vec<Look>,
}

/// A slice as a row of a table.
#[derive(Serialize)]
pub(crate) struct Row {
    slice: usize,
    position_mm: f32,
    probability: f64,
    predicted_iou: Option<f64>,
    uncertainty: f64,
    voxels: usize,
    mean_hu: Option<f64>,
    look: String,
}

impl From<&SliceStatistics> for Row {
    fn from(slice: &SliceStatistics) -> Self {
        let SliceStatistics { slice, position_mm, probability, predicted_iou, uncertainty, voxels, mean_hu, look } =
            slice;
        let look: Vec<&str> = look.iter().map(|look| look.name()).collect();
        Self {
            slice: *slice,
            position_mm: *position_mm,
            probability: *probability,
            predicted_iou: *predicted_iou,
            uncertainty: *uncertainty,
            voxels: *voxels,
            mean_hu: *mean_hu,
            look: look.join(" "),
        }
    }
}

/// Of each slice, the most inferior first. `mask` is the volume's, in its file's order.
pub(crate) fn statistics(
    volume: &Volume,
    mask: &[u8],
    plan: &SlicePlan,
    predicted: &[SlicePrediction],
) -> Vec<SliceStatistics> {
    let numbers = plan.numbers().into_iter().zip(plan.positions());
    let mut slices: Vec<SliceStatistics> = predicted
        .iter()
        .zip(numbers)
        .enumerate()
        .map(|(at, (slice, (number, position)))| {
            let values = plan.plane(at).filter(|&voxel| mask[voxel] != 0).map(|voxel| volume.voxels.get(voxel));
            let (voxels, sum) = values.fold((0usize, 0.0), |(count, sum), hu| (count + 1, sum + hu));
            SliceStatistics {
                slice: number,
                position_mm: position.position_mm,
                probability: slice.classification.probability,
                predicted_iou: slice.scored.as_ref().map(|scored| scored.score),
                uncertainty: slice.uncertainty(),
                voxels,
                mean_hu: (voxels > 0).then(|| sum / voxels as f64),
                look: Vec::new(),
            }
        })
        .collect();
    let has_target: Vec<bool> = slices.iter().map(|slice| slice.voxels > 0).collect();
    for (at, slice) in slices.iter_mut().enumerate() {
        let is_between = has_target[..at].contains(&true) && has_target[at + 1..].contains(&true);
        slice.look = looks(slice, predicted[at].classification.present, is_between);
    }
    slices
}

fn looks(slice: &SliceStatistics, present: bool, is_between: bool) -> Vec<Look> {
    let is_empty = slice.voxels == 0;
    let all = [
        (Look::UnsurePresence, UNSURE.contains(&slice.probability)),
        (Look::BranchesDisagree, present == is_empty),
        (Look::LowIou, !is_empty && slice.predicted_iou.is_some_and(|iou| iou < LOW_IOU)),
        (Look::Uncertain, !is_empty && slice.uncertainty > MUCH_WRONG),
        (Look::Gap, is_empty && is_between),
    ];
    all.into_iter().filter(|(_, is_so)| *is_so).map(|(look, _)| look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_doubt_has_its_name() {
        let sure = SliceStatistics {
            slice: 0,
            position_mm: 0.0,
            probability: 0.99,
            predicted_iou: Some(0.9),
            uncertainty: 0.05,
            voxels: 100,
            mean_hu: Some(60.0),
            look: Vec::new(),
        };
        assert_eq!(looks(&sure, true, true), []);
        let unsure = SliceStatistics { probability: 0.4, predicted_iou: Some(0.5), uncertainty: 0.3, ..sure.clone() };
        let expected = [Look::UnsurePresence, Look::BranchesDisagree, Look::LowIou, Look::Uncertain];
        assert_eq!(looks(&unsure, false, true), expected);
        let empty = SliceStatistics { voxels: 0, predicted_iou: None, ..sure };
        assert_eq!(looks(&empty, true, true), [Look::BranchesDisagree, Look::Gap]);
        assert_eq!(looks(&SliceStatistics { probability: 0.01, ..empty }, false, false), []);
        for look in expected {
            assert_eq!(serde_json::to_value(look).unwrap(), look.name());
        }
    }
}
