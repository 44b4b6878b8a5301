//! Honest evaluation of a run: what counts are the CAM's own boxes over all slices of patients that training never saw, volume
//! by volume, as `predict` does it. Results with true boxes are computed in `oracle_box` and stand apart.

use crate::native::native_results;
use crate::slice_result::{
    BlindBoxes, BoxesOfLiver, CallSummary, Controls, Distances, LiverResult, OracleResult, SliceResult, pack,
};
use anyhow::Result;
use ct_ingest::NativeMasks;
use predictor::{
    Classification, EncodedSlice, Intensity, KnownEmbeddings, Model, ModelConfig, NotANumber, SlicePrediction,
    StepMasks, Ticker, VolumePrediction, VolumeSlices, mask_for_box,
};
use run_record::{Evaluation, LabelBudget, write_json};
use seg_metrics::{MaskView, Overlap, Spacing};
use slice_store::{EvaluationSlices, SliceRecord, counted_of, target_of};
use stage_api::{Adapters, BoxPrompt, ClassifierInput, Embedding, Mode, Segmenter};
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tch::Device;

/// A volume's slices in order, and what the steps took.
type ComparedVolume = (Vec<SliceResult>, Vec<StepCost>);

/// Name of a step, and what it took over all volumes.
pub(crate) struct StepCost {
    pub(crate) name: &'static str,
    pub(crate) seconds: f64,
}

/// A run's model, the data, and where to compute.
pub struct Evaluator<'a> {
    /// The run's configuration, as far as it decides predictions.
    pub config: &'a ModelConfig,
    /// Pixels by which the true box is enlarged for the oracle rows.
    pub oracle_margin_px: f32,
    /// Seconds that an annotator would take to draw one of these boxes.
    pub box_seconds: f64,
    /// Both branches.
    pub model: &'a Model,
    /// The segmenter as its pretrained weights have it; absent where it takes no prompt.
    pub pretrained: Option<&'a dyn Segmenter>,
    /// The prepared data, with masks.
    pub store: &'a EvaluationSlices<'a>,
    /// The masks of the store's volumes at their own resolution, where results on these are wanted.
    pub native: Option<&'a NativeMasks>,
    /// What the run was trained with.
    pub label_budget: &'a LabelBudget,
    /// Where to compute.
    pub device: Device,
    /// Folder that keeps what the pretrained encoder makes of the slices, for other evaluations; absent: nothing is kept.
    pub embeddings: Option<&'a Path>,
    /// Becomes true when the user wants to stop.
    pub stop: &'a AtomicBool,
}

impl Evaluator<'_> {
    /// Evaluates `rows`: all are predicted, since they are neighbours of each other, and those whose truth is known are compared. Writes `<split>.json`, `<split>.parquet` and overlays into `directory`. `None` if it was stopped.
    pub fn run(&self, split: &str, rows: &[usize], directory: &Path) -> Result<Option<Evaluation>> {
        let begun = std::time::Instant::now();
        let volumes = volumes(self.store.records(), rows);
        let known = match self.model.kept_in(self.embeddings) {
            Some(folder) => match KnownEmbeddings::open(
                folder,
                (self.config, self.model),
                self.store,
                &volumes.concat(),
                self.device,
                self.stop,
            )? {
                Some(known) => Some(known),
                None => return Ok(None),
            },
            None => None,
        };
        let left_out = rows.iter().filter(|&&row| self.store.truth(row).is_none()).count();
        let mut results = Vec::with_capacity(rows.len());
        let mut costs: Vec<StepCost> = Vec::new();
        let mut ticker = Ticker::new("evaluating", rows.len(), 0);
        for volume in volumes {
            let compared = self.volume(&volume, known.as_ref(), &mut ticker);
            let at = |error: NotANumber| {
                let slice = self.store.records()[volume[error.slice]].id();
                anyhow::Error::new(error).context(format!("slice '{slice}' of the store"))
            };
            let Some((slices, steps)) = compared.map_err(at)? else { return Ok(None) };
            results.extend(slices);
            if costs.is_empty() {
                costs = steps;
            } else {
                costs.iter_mut().zip(steps).for_each(|(sum, step)| sum.seconds += step.seconds);
            }
        }
        drop(ticker);
        let mut evaluation = self.summary(split, &results, left_out, &costs);
        if let (Some(first), Some(_)) = (evaluation.steps.first_mut(), &known) {
            // The encoder's part is not in it.
            first.milliseconds_per_slice = None;
        }
        evaluation.native =
            self.native.map(|native| native_results(native, self.store, (rows, &results))).transpose()?;
        self.write_table(&results, &directory.join(format!("{split}.parquet")))?;
        self.write_overlays(split, &results, known.as_ref(), directory)?;
        evaluation.seconds = begun.elapsed().as_secs_f64();
        write_json(&directory.join(format!("{split}.json")), &evaluation)?;
        Ok(Some(evaluation))
    }

    /// Predicts the slices of a volume, which never sees their masks, and compares.
    fn volume(
        &self,
        rows: &[usize],
        known: Option<&KnownEmbeddings>,
        ticker: &mut Ticker,
    ) -> Result<Option<ComparedVolume>, NotANumber> {
        let intensity = Intensity::new(&self.config.intensity);
        let slices = |range: Range<usize>| intensity.rows(self.store, &rows[range], self.device);
        let pretrained = known.map(|known| |i: usize| known.of(rows[i]));
        let pretrained = pretrained.as_ref().map(|of| of as &dyn Fn(usize) -> Embedding);
        let slices = VolumeSlices { count: rows.len(), size: self.store.slice_size(), slices: &slices, pretrained };
        let mut controls = Vec::with_capacity(rows.len());
        let mut tick = |i: usize, classification: &Classification, encoded: &EncodedSlice| {
            let pretrained = self.pretrained.filter(|_| self.store.truth(rows[i]).is_some());
            controls
                .push(pretrained.map(|pretrained| self.controls(rows[i], classification.present, encoded, pretrained)));
            ticker.tick("");
        };
        let predictor = self.model.predictor(&self.config.prompt, &self.config.prediction);
        let Some(predicted) = predictor.volume(&slices, self.stop, &mut tick)? else { return Ok(None) };
        let VolumePrediction { slices, steps } = predicted;
        let results = rows.iter().zip(slices).zip(controls).enumerate();
        let results = results.filter(|(_, ((row, _), _))| self.store.truth(**row).is_some());
        let results = results.map(|(i, ((&row, slice), controls))| {
            let overlaps = steps.iter().map(|step| self.overlap(&step.masks[i], row)).collect();
            self.compared(row, slice, overlaps, controls)
        });
        let results = results.collect();
        let costs = steps.into_iter().map(|StepMasks { name, seconds, .. }| StepCost { name, seconds }).collect();
        Ok(Some((results, costs)))
    }

    fn compared(
        &self,
        row: usize,
        slice: SlicePrediction,
        steps: Vec<Overlap>,
        controls: Option<Controls>,
    ) -> SliceResult {
        let (classification, size) = (slice.classification, self.store.slice_size());
        let tight = BoxPrompt::around(&self.target(row), size);
        let blind = controls.as_ref().map(|controls| controls.blind);
        let oracle = controls.and_then(|controls| controls.oracle);
        let liver = tight.map(|tight| LiverResult {
            cam: self.distances(&slice.mask, row),
            boxes: oracle.map(|oracle| BoxesOfLiver {
                cam_box_iou: f64::from(classification.prompt.bounds.iou(&tight)),
                oracle,
            }),
        });
        SliceResult {
            row,
            classification: CallSummary {
                probability: classification.probability,
                present: classification.present,
                empty_cam: classification.prompt.empty,
            },
            bounds: classification.prompt.bounds,
            steps,
            blind,
            liver,
            mask: pack(&slice.mask),
        }
    }

    /// What other boxes give, and the weights as they came. Boxes that look at nothing have the classifier's presence call: a
    /// slice that it calls empty has an empty mask. Boxes from the truth have no such gate.
    fn controls(&self, row: usize, present: bool, encoded: &EncodedSlice, pretrained: &dyn Segmenter) -> Controls {
        let size = self.store.slice_size();
        let blind = |bounds| {
            let mask = if present {
                mask_for_box(self.model.segmenter.as_ref(), encoded.adapted(), bounds, None)
            } else {
                vec![0; size * size]
            };
            self.overlap(&mask, row).dice()
        };
        Controls {
            blind: BlindBoxes {
                whole_image: blind(BoxPrompt::whole(size)),
                central_half: blind(BoxPrompt::central_half(size)),
            },
            oracle: self.oracle(row, encoded, pretrained),
        }
    }

    /// What the true box gives. `None` where there is none.
    fn oracle(&self, row: usize, encoded: &EncodedSlice, pretrained: &dyn Segmenter) -> Option<OracleResult> {
        let size = self.store.slice_size();
        let tight = BoxPrompt::around(&self.target(row), size)?;
        let bounds = tight.enlarged(self.oracle_margin_px, size);
        let mask = oracle_box(self.model.segmenter.as_ref(), encoded.adapted(), bounds);
        // Where training changed the encoder itself, the pretrained one is the other model's.
        let own = self.model.segmenter.embedding_shape().is_none().then(|| {
            let features = pretrained.features(encoded.input(ClassifierInput::Slices));
            pretrained.embed(&features, Adapters::Off, Mode::Eval)
        });
        let seen = own.as_ref().unwrap_or_else(|| encoded.pretrained());
        let by_pretrained = oracle_box(pretrained, seen, bounds);
        let whole_by_pretrained = mask_for_box(pretrained, seen, BoxPrompt::whole(size), None);
        Some(OracleResult {
            distances: self.distances(&mask, row),
            overlap: self.overlap(&mask, row),
            box_iou: f64::from(bounds.iou(&tight)),
            pretrained: self.overlap(&by_pretrained, row).dice(),
            pretrained_whole_image: self.overlap(&whole_by_pretrained, row).dice(),
        })
    }

    /// What a slice that is compared is compared with: 0, 1, or ignored.
    fn truth(&self, row: usize) -> &[u8] {
        self.store.truth(row).expect("slices without a truth are predicted and not compared")
    }

    /// The target's pixels, 0 or 1.
    pub(crate) fn target(&self, row: usize) -> Cow<'_, [u8]> {
        target_of(self.truth(row))
    }

    fn overlap(&self, mask: &[u8], row: usize) -> Overlap {
        let (truth, size) = (self.truth(row), self.store.slice_size());
        Overlap::of(view(&counted_of(mask, truth), size), view(&target_of(truth), size))
    }

    fn distances(&self, mask: &[u8], row: usize) -> Distances {
        let size = self.store.slice_size();
        let (mask, target) = (counted_of(mask, self.truth(row)), self.target(row));
        let (mask, truth) = (view(&mask, size), view(&target, size));
        let record: &SliceRecord = &self.store.records()[row];
        let px = seg_metrics::surface_distances(mask, truth, Spacing::PIXELS);
        let hd95_mm = record.spacing_valid.then(|| {
            let spacing =
                Spacing { row: f64::from(record.row_spacing_mm), column: f64::from(record.column_spacing_mm) };
            seg_metrics::surface_distances(mask, truth, spacing).hausdorff_percentile(95.0)
        });
        Distances { hd_px: px.hausdorff(), hd95_px: px.hausdorff_percentile(95.0), hd95_mm }
    }
}

/// Rows by case, cases as they come first, each case's slices in order. A store may hold every second slice of a volume, say:
/// those that follow each other are neighbours then.
fn volumes(records: &[SliceRecord], rows: &[usize]) -> Vec<Vec<usize>> {
    let mut cases: Vec<&str> = Vec::new();
    let mut volumes: Vec<Vec<usize>> = Vec::new();
    for &row in rows {
        let case = records[row].case.as_str();
        let at = cases.iter().position(|known| *known == case).unwrap_or_else(|| {
            cases.push(case);
            volumes.push(Vec::new());
            cases.len() - 1
        });
        volumes[at].push(row);
    }
    for volume in &mut volumes {
        volume.sort_by_key(|&row| records[row].index);
    }
    volumes
}

/// The mask for a true box. Oracle: it takes ground truth, so it is never part of a prediction.
fn oracle_box(segmenter: &dyn Segmenter, embedding: &Embedding, bounds: BoxPrompt) -> Vec<u8> {
    mask_for_box(segmenter, embedding, bounds, None)
}

/// Panics where the sizes differ, as masks of one store never do.
fn view(mask: &[u8], size: usize) -> MaskView<'_> {
    MaskView::new(mask, size, size).expect("masks have the store's size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_store::IGNORED;

    #[test]
    fn pixels_that_are_ignored_count_in_no_metric() {
        // Right, wrong, missed, nothing; and both kinds of prediction where the truth is ignored.
        let (mask, truth) = ([1, 1, 0, 0, 1, 0, 0, 0, 0], [1, 0, 1, 0, IGNORED, IGNORED, 0, 0, 0]);
        let overlap = Overlap::of(view(&counted_of(&mask, &truth), 3), view(&target_of(&truth), 3));
        assert_eq!((overlap.prediction, overlap.truth, overlap.dice()), (2, 2, 0.5));
        assert_eq!(counted_of(&mask, &[0; 9])[..], mask);
    }
}
