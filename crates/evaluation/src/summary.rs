//! From slices to means, and to a row for each slice.

use crate::evaluator::{Evaluator, StepCost};
use crate::slice_result::{BlindBoxes, BoxesOfLiver, LiverResult, OracleResult, SliceResult, mean, mean_if_all};
use anyhow::Result;
use polars::prelude::{Column, DataFrame, ParquetWriter};
use run_record::{
    BlindBoxResults, BoxResults, ClassifierResults, Counts, Evaluation, PretrainedResults, StepResults, VolumeResults,
    write_whole,
};
use seg_metrics::Overlap;
use std::collections::BTreeMap;
use std::path::Path;

type Volumes<'a> = BTreeMap<&'a str, Vec<&'a SliceResult>>;

impl Evaluator<'_> {
    /// Everything but the seconds.
    pub(crate) fn summary(
        &self,
        split: &str,
        results: &[SliceResult],
        left_out: usize,
        costs: &[StepCost],
    ) -> Evaluation {
        let mut volumes = Volumes::new();
        for result in results {
            volumes.entry(&self.store.records()[result.row].case).or_default().push(result);
        }
        let has_prompts = self.pretrained.is_some();
        let blind = |dice: fn(&BlindBoxes) -> f64| {
            let of = |r: &SliceResult| r.blind.as_ref().map(dice);
            has_prompts.then(|| BlindBoxResults {
                dice_all: mean(results.iter().filter_map(of)),
                dice_liver: mean(with_liver(results).filter_map(of)),
            })
        };
        let pretrained = |dice: fn(&OracleResult) -> f64| mean(boxes(results).map(|b| dice(&b.oracle)));
        let has_classifier = self.config.classifier.kind != "none";
        Evaluation {
            split: split.into(),
            dataset: self.store.info().dataset.clone(),
            store_checksum: self.store.checksum().into(),
            kept_embeddings: self.model.kept_in(self.embeddings).is_some(),
            label_budget: self.label_budget.counts(),
            cam_box: cam_box(results, &volumes),
            oracle_box: has_prompts.then(|| oracle_box(results, &volumes)),
            oracle_box_seconds: has_prompts.then(|| boxes(results).count() as f64 * self.box_seconds),
            classifier: has_classifier.then(|| classifier(results)),
            counts: Counts {
                empty_cam: results.iter().filter(|r| has_classifier && r.classification.empty_cam).count(),
                ..counts(results, left_out)
            },
            steps: costs.iter().enumerate().map(|(i, cost)| step(i, cost, (results, left_out), &volumes)).collect(),
            control_whole_image: blind(|b| b.whole_image),
            control_central_half: blind(|b| b.central_half),
            pretrained_weights: has_prompts.then(|| PretrainedResults {
                oracle_dice_liver: pretrained(|o| o.pretrained),
                whole_image_dice_liver: pretrained(|o| o.pretrained_whole_image),
            }),
            oracle_margin_px: self.oracle_margin_px,
            per_volume: volumes
                .iter()
                .map(|(case, slices)| VolumeResults {
                    case: (*case).into(),
                    patient: slices.first().map(|r| self.store.records()[r.row].patient.clone()),
                    slices: slices.len(),
                    liver_slices: slices.iter().filter(|r| r.liver.is_some()).count(),
                    dice_volume: slices.iter().map(|r| r.overlap()).sum::<Overlap>().dice(),
                    dice_liver: mean(slices.iter().filter(|r| r.liver.is_some()).map(|r| r.dice())),
                    oracle_dice_volume: oracle_dice_volume(slices),
                    oracle_dice_liver: mean(oracles(slices).map(|oracle| oracle.overlap.dice())),
                })
                .collect(),
            native: None,
            seconds: 0.0,
        }
    }

    /// A row for each slice.
    pub(crate) fn write_table(&self, results: &[SliceResult], path: &Path) -> Result<()> {
        let record = |r: &SliceResult| &self.store.records()[r.row];
        let liver = |name: &str, f: fn(&LiverResult) -> Option<f64>| {
            numbers(name, results.iter().map(|r| r.liver.as_ref().and_then(f)))
        };
        let blind =
            |name: &str, f: fn(&BlindBoxes) -> f64| numbers(name, results.iter().map(|r| r.blind.as_ref().map(f)));
        let has_classifier = self.config.classifier.kind != "none";
        let columns = vec![
            Column::new("case".into(), results.iter().map(|r| record(r).case.as_str()).collect::<Vec<_>>()),
            Column::new("patient".into(), results.iter().map(|r| record(r).patient.as_str()).collect::<Vec<_>>()),
            Column::new("index".into(), results.iter().map(|r| record(r).index).collect::<Vec<_>>()),
            Column::new("has_target".into(), results.iter().map(|r| r.liver.is_some()).collect::<Vec<_>>()),
            numbers("probability", results.iter().map(|r| has_classifier.then_some(r.classification.probability))),
            Column::new(
                "empty_cam".into(),
                results.iter().map(|r| has_classifier.then_some(r.classification.empty_cam)).collect::<Vec<_>>(),
            ),
            Column::new(
                "predicted_pixels".into(),
                results.iter().map(|r| r.overlap().prediction as u32).collect::<Vec<_>>(),
            ),
            Column::new("target_pixels".into(), results.iter().map(|r| r.overlap().truth as u32).collect::<Vec<_>>()),
            numbers("cam_dice", results.iter().map(|r| Some(r.dice()))),
            liver("cam_hd_px", |l| Some(l.cam.hd_px)),
            liver("cam_hd95_px", |l| Some(l.cam.hd95_px)),
            liver("cam_box_iou", |l| Some(l.boxes.as_ref()?.cam_box_iou)),
            liver("oracle_dice", |l| Some(l.boxes.as_ref()?.oracle.overlap.dice())),
            liver("oracle_hd95_px", |l| Some(l.boxes.as_ref()?.oracle.distances.hd95_px)),
            blind("whole_image_dice", |b| b.whole_image),
            blind("central_half_dice", |b| b.central_half),
            liver("pretrained_oracle_dice", |l| Some(l.boxes.as_ref()?.oracle.pretrained)),
        ];
        let mut table = DataFrame::new(results.len(), columns)?;
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes).finish(&mut table)?;
        Ok(write_whole(path, &bytes)?)
    }
}

/// A column of numbers. What is absent is null, never NaN: programs that skip parts of a file by the smallest and largest value in
/// it, as DuckDB does, find no NaN there.
fn numbers(name: &str, values: impl Iterator<Item = Option<f64>>) -> Column {
    Column::new(name.into(), values.map(|value| value.filter(|value| !value.is_nan())).collect::<Vec<_>>())
}

fn with_liver(results: &[SliceResult]) -> impl Iterator<Item = &SliceResult> {
    results.iter().filter(|r| r.liver.is_some())
}

fn liver(results: &[SliceResult]) -> impl Iterator<Item = &LiverResult> {
    results.iter().filter_map(|r| r.liver.as_ref())
}

fn boxes(results: &[SliceResult]) -> impl Iterator<Item = &BoxesOfLiver> {
    liver(results).filter_map(|l| l.boxes.as_ref())
}

fn cam_box(results: &[SliceResult], volumes: &Volumes) -> BoxResults {
    BoxResults {
        dice_all: mean(results.iter().map(SliceResult::dice)),
        dice_liver: mean(with_liver(results).map(SliceResult::dice)),
        dice_volume: mean(volumes.values().map(|v| v.iter().map(|r| r.overlap()).sum::<Overlap>().dice())),
        hd_px: mean(liver(results).map(|l| l.cam.hd_px)),
        hd95_px: mean(liver(results).map(|l| l.cam.hd95_px)),
        hd95_mm: mean_if_all(liver(results).map(|l| l.cam.hd95_mm)),
        box_iou: mean(boxes(results).map(|b| b.cam_box_iou)),
    }
}

fn oracle_box(results: &[SliceResult], volumes: &Volumes) -> BoxResults {
    BoxResults {
        dice_all: None,
        dice_liver: mean(boxes(results).map(|b| b.oracle.overlap.dice())),
        dice_volume: mean(volumes.values().filter_map(|slices| oracle_dice_volume(slices))),
        hd_px: mean(boxes(results).map(|b| b.oracle.distances.hd_px)),
        hd95_px: mean(boxes(results).map(|b| b.oracle.distances.hd95_px)),
        hd95_mm: mean_if_all(boxes(results).map(|b| b.oracle.distances.hd95_mm)),
        box_iou: mean(boxes(results).map(|b| b.oracle.box_iou)),
    }
}

/// Of the slices with the target together.
fn oracle_dice_volume(slices: &[&SliceResult]) -> Option<f64> {
    let overlaps: Vec<Overlap> = oracles(slices).map(|oracle| oracle.overlap).collect();
    (!overlaps.is_empty()).then(|| overlaps.into_iter().sum::<Overlap>().dice())
}

/// With true boxes, of the slices with the target.
fn oracles<'a>(slices: &'a [&SliceResult]) -> impl Iterator<Item = &'a OracleResult> {
    slices.iter().filter_map(|r| Some(&r.liver.as_ref()?.boxes.as_ref()?.oracle))
}

fn classifier(results: &[SliceResult]) -> ClassifierResults {
    let scores: Vec<f64> = results.iter().map(|r| r.classification.probability).collect();
    let labels: Vec<bool> = results.iter().map(|r| r.liver.is_some()).collect();
    let right = results.iter().filter(|r| r.classification.present == r.liver.is_some()).count();
    ClassifierResults { accuracy: right as f64 / results.len().max(1) as f64, auc: seg_metrics::auc(&scores, &labels) }
}

fn counts(results: &[SliceResult], left_out: usize) -> Counts {
    Counts {
        slices: results.len(),
        left_out,
        liver_slices: with_liver(results).count(),
        empty_cam: 0,
        missed: with_liver(results).filter(|r| r.overlap().prediction == 0).count(),
        false_positive: results.iter().filter(|r| r.liver.is_none() && r.overlap().prediction > 0).count(),
    }
}

/// The masks as the step left them.
fn step(i: usize, cost: &StepCost, (results, left_out): (&[SliceResult], usize), volumes: &Volumes) -> StepResults {
    let dice = |r: &SliceResult| r.steps[i].dice();
    StepResults {
        name: cost.name.into(),
        dice_all: mean(results.iter().map(dice)),
        dice_liver: mean(with_liver(results).map(dice)),
        dice_volume: mean(volumes.values().map(|v| v.iter().map(|r| r.steps[i]).sum::<Overlap>().dice())),
        false_positive: results.iter().filter(|r| r.liver.is_none() && r.steps[i].prediction > 0).count(),
        missed: with_liver(results).filter(|r| r.steps[i].prediction == 0).count(),
        milliseconds_per_slice: Some(1e3 * cost.seconds / (results.len() + left_out).max(1) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_or_nan_is_null_in_a_table() {
        let column = numbers("x", [Some(0.5), None, Some(f64::NAN), Some(0.0)].into_iter());
        assert_eq!(column.f64().unwrap().iter().collect::<Vec<_>>(), [Some(0.5), None, None, Some(0.0)]);
    }
}
