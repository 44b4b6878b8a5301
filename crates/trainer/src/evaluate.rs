//! Honest evaluation of a run: what counts are the CAM's own boxes over all slices of patients that training never saw.
//! Results with true boxes are computed in `oracle_box` and stand apart.

use crate::config::Config;
use crate::files::write_json;
use crate::loader::Intensity;
use crate::model::Model;
use crate::overlay::{self, OverlayRecord};
use crate::predictor::{Look, mask_for_box};
use crate::progress::Ticker;
use anyhow::{Context, Result};
use polars::prelude::{Column, DataFrame, ParquetWriter};
use rayon::prelude::*;
use seg_metrics::{MaskView, Overlap, Spacing};
use serde::{Deserialize, Serialize};
use slice_store::{SliceRecord, SliceStore};
use stage_api::{Adapters, BoxPrompt, Mode, PromptedSegmenter};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Device;

/// Slices that the classifier looks at together.
const LOOK_BATCH: usize = 8;

/// A group of results; a mean is over the set that its name says. `None`: not defined here, or not to be trusted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoxResults {
    /// Mean Dice over all slices; an empty mask on an empty slice is 1.
    pub dice_all: Option<f64>,
    /// Mean Dice over the slices with the target.
    pub dice_liver: Option<f64>,
    /// Mean over volumes of the Dice of the whole volume.
    pub dice_volume: Option<f64>,
    /// Mean Hausdorff distance over the slices with the target, in pixels of the store.
    pub hd_px: Option<f64>,
    /// The same of the 95th percentile.
    pub hd95_px: Option<f64>,
    /// The same in millimetres; `None` where a slice's spacing can't be trusted.
    pub hd95_mm: Option<f64>,
    /// Mean IoU of the prompt's box with the tight true one, over the slices with the target.
    pub box_iou: Option<f64>,
}

/// What the classifier is worth, over all slices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassifierResults {
    /// Share of slices called rightly at the presence threshold.
    pub accuracy: f64,
    /// Area under the ROC curve; `None` if all slices are of one class.
    pub auc: Option<f64>,
}

/// Numbers of cases; none is dropped silently.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Slices.
    pub slices: usize,
    /// Slices with the target.
    pub liver_slices: usize,
    /// Slices whose activation map was empty, so that the central half was the box.
    pub empty_cam: usize,
    /// Slices with the target whose predicted mask is empty.
    pub missed: usize,
    /// Slices without the target whose predicted mask is not empty.
    pub false_positive: usize,
}

/// The control with the whole image as box, at the same presence calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WholeImageResults {
    /// Mean Dice over all slices.
    pub dice_all: Option<f64>,
    /// Mean Dice over the slices with the target.
    pub dice_liver: Option<f64>,
}

/// The control with the weights as they came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UntouchedResults {
    /// Mean Dice with oracle boxes over the slices with the target.
    pub oracle_dice_liver: Option<f64>,
    /// Mean Dice with the whole image as box over the slices with the target.
    pub whole_image_dice_liver: Option<f64>,
}

/// One volume's results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeResults {
    /// The case.
    pub case: String,
    /// Its slices.
    pub slices: usize,
    /// Those with the target.
    pub liver_slices: usize,
    /// Dice of the whole volume, CAM boxes.
    pub dice_volume: f64,
    /// Mean Dice over its slices with the target, CAM boxes.
    pub dice_liver: Option<f64>,
}

/// All results of one split: `evaluation/<split>.json`, and what `--json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `test`, `validation`, or for a store that the run was not trained on, the name of its data set.
    pub split: String,
    /// The store's data set.
    pub dataset: String,
    /// The store's checksum.
    pub store_checksum: String,
    /// What counts: no ground truth.
    pub cam_box: BoxResults,
    /// With true boxes, over the slices with the target; never what counts.
    pub oracle_box: BoxResults,
    /// The classifier.
    pub classifier: ClassifierResults,
    /// Counts.
    pub counts: Counts,
    /// Control: the trained model with the whole image as box.
    pub control_whole_image: WholeImageResults,
    /// Control: the pretrained weights as they came.
    pub untouched_weights: UntouchedResults,
    /// Pixels by which the oracle's box is larger than the tight one.
    pub oracle_margin_px: f32,
    /// Volumes.
    pub per_volume: Vec<VolumeResults>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What is known of one slice.
struct SliceResult {
    row: usize,
    look: LookSummary,
    bounds: BoxPrompt,
    cam: Overlap,
    whole: f64,
    /// Slices with the target only.
    liver: Option<LiverResult>,
    /// The predicted mask, a bit a pixel.
    mask: Vec<u8>,
}

struct LookSummary {
    probability: f64,
    present: bool,
    empty_cam: bool,
}

struct LiverResult {
    cam: Distances,
    oracle: Distances,
    oracle_overlap: Overlap,
    cam_box_iou: f64,
    oracle_box_iou: f64,
    untouched_oracle: f64,
    untouched_whole: f64,
}

#[derive(Clone, Copy)]
struct Distances {
    hd_px: f64,
    hd95_px: f64,
    hd95_mm: Option<f64>,
}

/// A run's model, the data, and where to compute.
pub struct Evaluator<'a> {
    /// The run's configuration.
    pub config: &'a Config,
    /// Both branches.
    pub model: &'a Model,
    /// The SAM branch as it came.
    pub untouched: &'a dyn PromptedSegmenter,
    /// The prepared data, with masks.
    pub store: &'a SliceStore,
    /// Where to compute.
    pub device: Device,
    /// Becomes true when the user wants to stop.
    pub stop: &'a AtomicBool,
}

impl Evaluator<'_> {
    /// Evaluates `rows` and writes `<split>.json`, `<split>.parquet` and overlays into `directory`. `None` if it was stopped.
    pub fn run(&self, split: &str, rows: &[usize], directory: &Path) -> Result<Option<Evaluation>> {
        let begun = std::time::Instant::now();
        let mut results = Vec::with_capacity(rows.len());
        let mut ticker = Ticker::new("evaluating", rows.len(), 0);
        let intensity = Intensity::new(&self.config.intensity);
        for chunk in rows.chunks(LOOK_BATCH) {
            let slices = intensity.rows(self.store, chunk, self.device);
            let looks = self.model.predictor(self.config).look(&slices, self.store.slice_size());
            for (i, (&row, look)) in chunk.iter().zip(looks).enumerate() {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                results.push(self.slice(row, &look, &slices.narrow(0, i as i64, 1)));
                ticker.tick("");
            }
        }
        drop(ticker);
        let mut evaluation = self.summary(split, &results);
        self.write_table(&results, &directory.join(format!("{split}.parquet")))?;
        self.write_overlays(split, &results, directory, &intensity)?;
        evaluation.seconds = begun.elapsed().as_secs_f64();
        write_json(&directory.join(format!("{split}.json")), &evaluation)?;
        Ok(Some(evaluation))
    }

    fn slice(&self, row: usize, look: &Look, image: &tch::Tensor) -> SliceResult {
        let (truth, size) = (self.store.mask(row), self.store.slice_size());
        let tight = BoxPrompt::around(truth, size);
        let empty = vec![0u8; size * size];
        let (mut mask, mut whole, mut liver) = (empty.clone(), empty, None);
        // A slice that is called empty and is empty needs no encoder: every row of results has an empty mask there.
        if look.present || tight.is_some() {
            let segmenter = &self.model.segmenter;
            let features = segmenter.features(image);
            let embedding = segmenter.embed(&features, Adapters::On, Mode::Eval);
            if look.present {
                mask = self.model.predictor(self.config).segment(&embedding, &look.prompt);
                whole = mask_for_box(segmenter, &embedding, BoxPrompt::whole(size), None);
            }
            if let Some(tight) = tight {
                let bounds = tight.enlarged(self.config.evaluation.oracle_margin_px, size);
                let oracle = oracle_box(segmenter, &embedding, bounds);
                let untouched = self.untouched.embed(&features, Adapters::Off, Mode::Eval);
                let record = &self.store.records()[row];
                liver = Some(LiverResult {
                    cam: distances(&mask, truth, size, record),
                    oracle: distances(&oracle, truth, size, record),
                    oracle_overlap: overlap(&oracle, truth, size),
                    cam_box_iou: f64::from(look.prompt.bounds.iou(&tight)),
                    oracle_box_iou: f64::from(bounds.iou(&tight)),
                    untouched_oracle: overlap(&oracle_box(self.untouched, &untouched, bounds), truth, size).dice(),
                    untouched_whole: overlap(
                        &mask_for_box(self.untouched, &untouched, BoxPrompt::whole(size), None),
                        truth,
                        size,
                    )
                    .dice(),
                });
            }
        }
        SliceResult {
            row,
            look: LookSummary { probability: look.probability, present: look.present, empty_cam: look.prompt.empty },
            bounds: look.prompt.bounds,
            cam: overlap(&mask, truth, size),
            whole: overlap(&whole, truth, size).dice(),
            liver,
            mask: pack(&mask),
        }
    }

    fn summary(&self, split: &str, results: &[SliceResult]) -> Evaluation {
        let liver: Vec<&LiverResult> = results.iter().filter_map(|r| r.liver.as_ref()).collect();
        let with_liver = || results.iter().filter(|r| r.liver.is_some());
        let of_liver = |f: &dyn Fn(&LiverResult) -> f64| mean(liver.iter().map(|l| f(l)));
        let in_mm = |f: &dyn Fn(&LiverResult) -> Option<f64>| {
            let values: Option<Vec<f64>> = liver.iter().map(|l| f(l)).collect();
            mean(values?.into_iter())
        };
        let mut volumes: BTreeMap<&str, Vec<&SliceResult>> = BTreeMap::new();
        for result in results {
            volumes.entry(&self.store.records()[result.row].case).or_default().push(result);
        }
        let volume_dice = |slices: &[&SliceResult]| slices.iter().map(|r| r.cam).sum::<Overlap>().dice();
        let scores: Vec<f64> = results.iter().map(|r| r.look.probability).collect();
        let labels: Vec<bool> = results.iter().map(|r| r.liver.is_some()).collect();
        let right = results.iter().filter(|r| r.look.present == r.liver.is_some()).count();
        Evaluation {
            split: split.into(),
            dataset: self.store.info().dataset.clone(),
            store_checksum: self.store.checksum().into(),
            cam_box: BoxResults {
                dice_all: mean(results.iter().map(|r| r.cam.dice())),
                dice_liver: mean(with_liver().map(|r| r.cam.dice())),
                dice_volume: mean(volumes.values().map(|v| volume_dice(v))),
                hd_px: of_liver(&|l| l.cam.hd_px),
                hd95_px: of_liver(&|l| l.cam.hd95_px),
                hd95_mm: in_mm(&|l| l.cam.hd95_mm),
                box_iou: of_liver(&|l| l.cam_box_iou),
            },
            oracle_box: BoxResults {
                dice_all: None,
                dice_liver: of_liver(&|l| l.oracle_overlap.dice()),
                dice_volume: mean(volumes.values().filter(|v| v.iter().any(|r| r.liver.is_some())).map(|v| {
                    let overlaps = v.iter().filter_map(|r| r.liver.as_ref()).map(|l| l.oracle_overlap);
                    overlaps.sum::<Overlap>().dice()
                })),
                hd_px: of_liver(&|l| l.oracle.hd_px),
                hd95_px: of_liver(&|l| l.oracle.hd95_px),
                hd95_mm: in_mm(&|l| l.oracle.hd95_mm),
                box_iou: of_liver(&|l| l.oracle_box_iou),
            },
            classifier: ClassifierResults {
                accuracy: right as f64 / results.len().max(1) as f64,
                auc: seg_metrics::auc(&scores, &labels),
            },
            counts: Counts {
                slices: results.len(),
                liver_slices: liver.len(),
                empty_cam: results.iter().filter(|r| r.look.empty_cam).count(),
                missed: with_liver().filter(|r| r.cam.prediction == 0).count(),
                false_positive: results.iter().filter(|r| r.liver.is_none() && r.cam.prediction > 0).count(),
            },
            control_whole_image: WholeImageResults {
                dice_all: mean(results.iter().map(|r| r.whole)),
                dice_liver: mean(with_liver().map(|r| r.whole)),
            },
            untouched_weights: UntouchedResults {
                oracle_dice_liver: of_liver(&|l| l.untouched_oracle),
                whole_image_dice_liver: of_liver(&|l| l.untouched_whole),
            },
            oracle_margin_px: self.config.evaluation.oracle_margin_px,
            per_volume: volumes
                .iter()
                .map(|(case, slices)| VolumeResults {
                    case: (*case).into(),
                    slices: slices.len(),
                    liver_slices: slices.iter().filter(|r| r.liver.is_some()).count(),
                    dice_volume: volume_dice(slices),
                    dice_liver: mean(slices.iter().filter(|r| r.liver.is_some()).map(|r| r.cam.dice())),
                })
                .collect(),
            seconds: 0.0,
        }
    }

    /// A row for each slice.
    fn write_table(&self, results: &[SliceResult], path: &Path) -> Result<()> {
        let record = |r: &SliceResult| &self.store.records()[r.row];
        let liver = |f: fn(&LiverResult) -> f64| -> Vec<Option<f64>> {
            results.iter().map(|r| r.liver.as_ref().map(f)).collect()
        };
        let columns = vec![
            Column::new("case".into(), results.iter().map(|r| record(r).case.as_str()).collect::<Vec<_>>()),
            Column::new("patient".into(), results.iter().map(|r| record(r).patient.as_str()).collect::<Vec<_>>()),
            Column::new("index".into(), results.iter().map(|r| record(r).index).collect::<Vec<_>>()),
            Column::new("has_target".into(), results.iter().map(|r| r.liver.is_some()).collect::<Vec<_>>()),
            Column::new("probability".into(), results.iter().map(|r| r.look.probability).collect::<Vec<_>>()),
            Column::new("empty_cam".into(), results.iter().map(|r| r.look.empty_cam).collect::<Vec<_>>()),
            Column::new("predicted_pixels".into(), results.iter().map(|r| r.cam.prediction as u32).collect::<Vec<_>>()),
            Column::new("target_pixels".into(), results.iter().map(|r| r.cam.truth as u32).collect::<Vec<_>>()),
            Column::new("cam_dice".into(), results.iter().map(|r| r.cam.dice()).collect::<Vec<_>>()),
            Column::new("cam_hd_px".into(), liver(|l| l.cam.hd_px)),
            Column::new("cam_hd95_px".into(), liver(|l| l.cam.hd95_px)),
            Column::new("cam_box_iou".into(), liver(|l| l.cam_box_iou)),
            Column::new("oracle_dice".into(), liver(|l| l.oracle_overlap.dice())),
            Column::new("oracle_hd95_px".into(), liver(|l| l.oracle.hd95_px)),
            Column::new("whole_image_dice".into(), results.iter().map(|r| r.whole).collect::<Vec<_>>()),
            Column::new("untouched_oracle_dice".into(), liver(|l| l.untouched_oracle)),
        ];
        let mut table = DataFrame::new(results.len(), columns)?;
        let mut bytes = Vec::new();
        ParquetWriter::new(&mut bytes).finish(&mut table)?;
        crate::files::write_whole(path, &bytes)
    }

    /// Pictures of the best, median and worst slices with the target by their Dice with CAM boxes.
    fn write_overlays(
        &self,
        split: &str,
        results: &[SliceResult],
        directory: &Path,
        intensity: &Intensity,
    ) -> Result<()> {
        let mut ranked: Vec<&SliceResult> = results.iter().filter(|r| r.liver.is_some()).collect();
        ranked.sort_by(|a, b| b.cam.dice().total_cmp(&a.cam.dice()));
        let each = 4.min(ranked.len().div_ceil(3));
        let middle = (ranked.len() / 2).saturating_sub(each / 2);
        let groups = [("best", 0), ("median", middle), ("worst", ranked.len() - each)];
        let folder = directory.join(split).join("overlays");
        let mut records = Vec::new();
        for (group, start) in groups {
            for result in &ranked[start..start + each] {
                let record = &self.store.records()[result.row];
                let image = intensity.rows(self.store, &[result.row], self.device);
                let look = self.model.predictor(self.config).look(&image, self.store.slice_size()).remove(0);
                let file = format!("{group}-{}-{:04}.png", record.case.replace('/', "_"), record.index);
                let picture = overlay::draw(&overlay::Overlay {
                    image: &intensity.slice(self.store.image(result.row)),
                    cam: &look.cam,
                    bounds: Some(result.bounds),
                    mask: &unpack(&result.mask, self.store.slice_size()),
                    truth: self.store.mask(result.row),
                    size: self.store.slice_size(),
                })?;
                crate::files::write_whole(&folder.join(&file), &picture)?;
                records.push(OverlayRecord {
                    file,
                    slice: record.id().to_string(),
                    group: group.into(),
                    dice: result.cam.dice(),
                    presence: result.look.probability,
                    note: if result.look.empty_cam { "the activation map was empty".into() } else { String::new() },
                });
            }
        }
        write_json(&directory.join(split).join("overlays.json"), &records).context("overlays")
    }
}

/// The mask for a true box. Oracle: it takes ground truth, so it is never part of a prediction.
fn oracle_box(segmenter: &dyn PromptedSegmenter, embedding: &stage_api::Embedding, bounds: BoxPrompt) -> Vec<u8> {
    mask_for_box(segmenter, embedding, bounds, None)
}

/// Panics where the sizes differ, as masks of one store never do.
fn view(mask: &[u8], size: usize) -> MaskView<'_> {
    MaskView::new(mask, size, size).expect("masks have the store's size")
}

fn overlap(mask: &[u8], truth: &[u8], size: usize) -> Overlap {
    Overlap::of(view(mask, size), view(truth, size))
}

fn distances(mask: &[u8], truth: &[u8], size: usize, record: &SliceRecord) -> Distances {
    let px = seg_metrics::surface_distances(view(mask, size), view(truth, size), Spacing::PIXELS);
    let hd95_mm = record.spacing_valid.then(|| {
        let spacing = Spacing { row: f64::from(record.row_spacing_mm), column: f64::from(record.column_spacing_mm) };
        seg_metrics::surface_distances(view(mask, size), view(truth, size), spacing).hausdorff_percentile(95.0)
    });
    Distances { hd_px: px.hausdorff(), hd95_px: px.hausdorff_percentile(95.0), hd95_mm }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(s, n), v| (s + v, n + 1));
    (count > 0).then(|| sum / count as f64)
}

fn pack(mask: &[u8]) -> Vec<u8> {
    mask.par_chunks(8)
        .map(|bits| bits.iter().enumerate().fold(0, |byte, (i, &m)| byte | u8::from(m != 0) << i))
        .collect()
}

fn unpack(bits: &[u8], size: usize) -> Vec<u8> {
    (0..size * size).map(|i| bits[i / 8] >> (i % 8) & 1).collect()
}

/// The table for people.
pub fn table(e: &Evaluation) -> String {
    use std::fmt::Write;
    let cell = |v: Option<f64>, digits: usize| v.map_or_else(|| "n/a".into(), |v| format!("{v:.digits$}"));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} of {}: {} slices, {} with the target\n{:<34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        e.split,
        e.dataset,
        e.counts.slices,
        e.counts.liver_slices,
        "",
        "Dice all",
        "liver",
        "volume",
        "HD px",
        "HD95 px",
        "HD95 mm",
        "box IoU"
    );
    let oracle = format!("oracle box +{} px (not what counts)", e.oracle_margin_px);
    for (name, r) in [("CAM box", &e.cam_box), (oracle.as_str(), &e.oracle_box)] {
        let _ = writeln!(
            text,
            "{name:<34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            cell(r.dice_all, 4),
            cell(r.dice_liver, 4),
            cell(r.dice_volume, 4),
            cell(r.hd_px, 2),
            cell(r.hd95_px, 2),
            cell(r.hd95_mm, 2),
            cell(r.box_iou, 3)
        );
    }
    let whole = &e.control_whole_image;
    let _ = writeln!(
        text,
        "{:<34}{:>9}{:>9}",
        "control: whole image as box",
        cell(whole.dice_all, 4),
        cell(whole.dice_liver, 4)
    );
    let untouched = &e.untouched_weights;
    let _ =
        writeln!(text, "{:<34}{:>9}{:>9}", "untouched weights, oracle box", "", cell(untouched.oracle_dice_liver, 4));
    let _ = writeln!(
        text,
        "{:<34}{:>9}{:>9}",
        "untouched weights, whole image",
        "",
        cell(untouched.whole_image_dice_liver, 4)
    );
    let c = &e.counts;
    let _ = writeln!(
        text,
        "classifier: accuracy {:.4}, AUC {}; empty CAM {}, missed {}, false positive {}",
        e.classifier.accuracy,
        cell(e.classifier.auc, 4),
        c.empty_cam,
        c.missed,
        c.false_positive
    );
    text
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
