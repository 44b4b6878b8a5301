//! Pictures of slices: a few of the best and of the middle, and the worst, sorted by what failed.

use crate::evaluator::Evaluator;
use crate::overlay::{self, Overlay};
use crate::slice_result::{SliceResult, unpack};
use anyhow::{Context, Result};
use predictor::{EncodedSlice, Intensity, KnownEmbeddings, Model};
use run_record::{Failure, OverlayRecord, PictureGroup, write_json, write_whole};
use stage_api::PromptKinds;
use std::path::Path;
use tch::Tensor;

/// Slices in `worst`, at most.
const WORST: usize = 20;
/// Slices in `best` and in `median`, at most.
const SOME: usize = 4;

fn failure(result: &SliceResult) -> Failure {
    let Some(liver) = result.liver.as_ref().filter(|_| result.overlap().prediction > 0) else {
        return Failure::Presence;
    };
    liver
        .boxes
        .as_ref()
        .map_or(Failure::Mask, |boxes| failure_of_found(result.dice(), boxes.cam_box_iou, boxes.oracle.overlap.dice()))
}

/// Where both masks have pixels.
fn failure_of_found(dice: f64, cam_box_iou: f64, oracle_dice: f64) -> Failure {
    if cam_box_iou < 0.5 && dice < 0.9 {
        Failure::Cam
    } else if oracle_dice - dice >= 0.03 {
        Failure::Box
    } else {
        Failure::Mask
    }
}

impl Evaluator<'_> {
    pub(crate) fn write_overlays(
        &self,
        split: &str,
        results: &[SliceResult],
        known: Option<&KnownEmbeddings>,
        directory: &Path,
    ) -> Result<()> {
        let folder = directory.join(split).join("overlays");
        let mut records = Vec::new();
        let [best, median, worst] = chosen(results);
        let shown = [(PictureGroup::Best, best), (PictureGroup::Median, median)];
        for (group, result) in shown.into_iter().flat_map(|(group, of)| of.into_iter().map(move |r| (group, r))) {
            records.push(self.picture(group, None, result, known, &folder)?);
        }
        let mut worst: Vec<_> = worst.into_iter().map(|result| (failure(result), result)).collect();
        worst.sort_by_key(|(failed, _)| *failed);
        for (failed, result) in worst {
            records.push(self.picture(PictureGroup::Worst, Some(failed), result, known, &folder)?);
        }
        write_json(&directory.join(split).join("overlays.json"), &records).context("overlays")
    }

    fn picture(
        &self,
        group: PictureGroup,
        failed: Option<Failure>,
        result: &SliceResult,
        known: Option<&KnownEmbeddings>,
        folder: &Path,
    ) -> Result<OverlayRecord> {
        let (record, size) = (&self.store.records()[result.row], self.store.slice_size());
        let intensity = Intensity::new(&self.config.intensity);
        let takes_prompts = self.model.segmenter.prompts() != PromptKinds::None;
        // Maps of all slices were too much to keep.
        let image = intensity.rows(self.store, &[result.row], self.device);
        let slice = encoded(self.model, result.row, image, known);
        let input = slice.input(self.model.classifier.input());
        let classification =
            self.model.predictor(&self.config.prompt, &self.config.prediction).classify(input, size)?.remove(0);
        let file = format!("{}-{}-{:04}.png", group.name(), record.case.replace('/', "_"), record.index);
        let picture = overlay::draw(&Overlay {
            image: &intensity.slice(self.store.image(result.row)),
            cam: &classification.cam,
            bounds: takes_prompts.then_some(result.bounds),
            mask: &unpack(&result.mask, size),
            truth: &self.target(result.row),
            size,
        })?;
        write_whole(&folder.join(&file), &picture)?;
        Ok(OverlayRecord {
            file,
            slice: record.id().to_string(),
            group,
            failed,
            dice: result.dice(),
            presence: result.classification.probability,
            note: if takes_prompts && result.classification.empty_cam {
                "the activation map was empty".into()
            } else {
                String::new()
            },
        })
    }
}

/// The best and the median slices with the target, and of all others the worst: by Dice, and of equal ones those with more
/// wrong pixels first, as slices without the target have Dice 0 for one pixel or a thousand.
fn chosen(results: &[SliceResult]) -> [Vec<&SliceResult>; 3] {
    let mut ranked: Vec<&SliceResult> = results.iter().filter(|r| r.liver.is_some()).collect();
    ranked.sort_by(|a, b| b.dice().total_cmp(&a.dice()));
    let each = SOME.min(ranked.len().div_ceil(3));
    let middle = (ranked.len() / 2).saturating_sub(each / 2);
    let best = ranked[..each].to_vec();
    let median: Vec<_> =
        ranked[middle..(middle + each).min(ranked.len())].iter().copied().filter(|r| !is_in(&best, r)).collect();
    let wrong = |r: &SliceResult| {
        let overlap = r.overlap();
        overlap.prediction + overlap.truth - 2 * overlap.intersection
    };
    let mut worst: Vec<&SliceResult> =
        results.iter().filter(|r| r.dice() < 1.0 && !is_in(&best, r) && !is_in(&median, r)).collect();
    worst.sort_by(|a, b| a.dice().total_cmp(&b.dice()).then(wrong(b).cmp(&wrong(a))));
    worst.truncate(WORST);
    [best, median, worst]
}

fn is_in(group: &[&SliceResult], result: &SliceResult) -> bool {
    group.iter().any(|r| r.row == result.row)
}

/// A slice on its way through the encoder.
fn encoded<'a>(model: &'a Model, row: usize, image: Tensor, known: Option<&KnownEmbeddings>) -> EncodedSlice<'a> {
    let segmenter = model.segmenter.as_ref();
    let encoded = EncodedSlice::new(segmenter, segmenter.is_adapted(), image);
    match known {
        Some(known) => encoded.with_pretrained(known.of(row)),
        None => encoded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        assert_eq!(failure_of_found(0.6, 0.4, 0.95), Failure::Cam);
        assert_eq!(failure_of_found(0.92, 0.4, 0.96), Failure::Box, "the refinements found it though the CAM did not");
        assert_eq!(failure_of_found(0.6, 0.7, 0.95), Failure::Box);
        assert_eq!(failure_of_found(0.6, 0.7, 0.61), Failure::Mask);
    }
}
