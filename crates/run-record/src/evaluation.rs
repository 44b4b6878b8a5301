//! The results of an evaluation: `evaluation/<split>.json`, and the list of its pictures, `<split>/overlays.json`.

use crate::LabelBudget;
use serde::{Deserialize, Serialize};

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
    /// Slices that were compared.
    pub slices: usize,
    /// Slices that were predicted and not compared, since nobody has annotated what they show.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Slices with the target.
    pub liver_slices: usize,
    /// Slices whose activation map was empty, so that the central half was the box.
    pub empty_cam: usize,
    /// Slices with the target whose predicted mask is empty.
    pub missed: usize,
    /// Slices without the target whose predicted mask is not empty.
    pub false_positive: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A control with a box that looks at nothing, at the same presence calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlindBoxResults {
    /// Mean Dice over all slices.
    pub dice_all: Option<f64>,
    /// Mean Dice over the slices with the target.
    pub dice_liver: Option<f64>,
}

/// The control with the weights as they came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainedResults {
    /// Mean Dice with oracle boxes over the slices with the target.
    pub oracle_dice_liver: Option<f64>,
    /// Mean Dice with the whole image as box over the slices with the target.
    pub whole_image_dice_liver: Option<f64>,
}

/// What the prediction was worth after a step of the inference; the last step's is the prediction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepResults {
    /// The step: `CAM box` (`slice by slice` of a segmenter that takes no prompt, `whole image` of one without classifier), `refined`, `propagated` or `largest component`.
    pub name: String,
    /// Mean Dice over all slices.
    pub dice_all: Option<f64>,
    /// Mean Dice over the slices with the target.
    pub dice_liver: Option<f64>,
    /// Mean over volumes of the Dice of the whole volume.
    pub dice_volume: Option<f64>,
    /// Slices without the target whose mask is not empty.
    pub false_positive: usize,
    /// Slices with the target whose mask is empty.
    pub missed: usize,
    /// What the step itself took, in milliseconds a slice, over all slices; the first step's is with encoder and classifier, and
    /// `None` where embeddings were kept.
    pub milliseconds_per_slice: Option<f64>,
}

/// One volume's results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeResults {
    /// The case.
    pub case: String,
    /// Whose it is; absent in results of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// Its slices.
    pub slices: usize,
    /// Those with the target.
    pub liver_slices: usize,
    /// Dice of the whole volume, CAM boxes.
    pub dice_volume: f64,
    /// Mean Dice over its slices with the target, CAM boxes.
    pub dice_liver: Option<f64>,
    /// Dice of its slices with the target together, true boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oracle_dice_volume: Option<f64>,
    /// Mean Dice over its slices with the target, true boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oracle_dice_liver: Option<f64>,
}

impl VolumeResults {
    /// Whose it is: of results of older programs, the case stands for its patient.
    pub fn patient(&self) -> &str {
        self.patient.as_deref().unwrap_or(&self.case)
    }
}

/// A volume's results on its own voxels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NativeVolume {
    /// The case.
    pub case: String,
    /// Dice of the whole volume.
    pub dice: f64,
    /// Surface Dice, 0 to 1; `None`, as the distances are, where the volume's millimetres can't be trusted.
    pub surface_dice: Option<f64>,
    /// 95th percentile of the surface distances, in mm.
    pub hd95_mm: Option<f64>,
    /// Average symmetric surface distance, in mm.
    pub assd_mm: Option<f64>,
}

/// What the prediction is worth on the volumes' own voxels: means over the volumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NativeResults {
    /// Volumes that were compared.
    pub volumes: usize,
    /// Volumes that were not: not every slice was predicted, or the truth of some voxels is not known.
    pub left_out: usize,
    /// Of surface Dice, in mm.
    pub tolerance_mm: f64,
    /// Dice of whole volumes.
    pub dice: Option<f64>,
    /// Surface Dice.
    pub surface_dice: Option<f64>,
    /// 95th percentile of the surface distances, in mm.
    pub hd95_mm: Option<f64>,
    /// Average symmetric surface distance, in mm.
    pub assd_mm: Option<f64>,
    /// Volume by volume.
    pub per_volume: Vec<NativeVolume>,
}

/// All results of one split: `evaluation/<split>.json`, and what `--json` prints. Of a segmenter that takes no prompt there are no
/// rows that compare prompts, and of a run without classifier none of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `test`, `validation`, or for a store that the run was not trained on, the name of its data set.
    pub split: String,
    /// The store's data set.
    pub dataset: String,
    /// The store's checksum.
    pub store_checksum: String,
    /// Whether it judged by embeddings that a folder keeps, in half precision.
    #[serde(default)]
    pub kept_embeddings: bool,
    /// Numbers of the annotations that the run was trained with; empty in results of older programs.
    #[serde(default)]
    pub label_budget: LabelBudget,
    /// What counts: no ground truth.
    pub cam_box: BoxResults,
    /// With true boxes, over the slices with the target; never what counts.
    pub oracle_box: Option<BoxResults>,
    /// What drawing these boxes would take an annotator, as the configuration has it for one, in seconds; absent in results of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oracle_box_seconds: Option<f64>,
    /// The classifier.
    pub classifier: Option<ClassifierResults>,
    /// Counts.
    pub counts: Counts,
    /// The way to `cam_box`, step by step.
    #[serde(default)]
    pub steps: Vec<StepResults>,
    /// Control: the trained model with the whole image as box.
    pub control_whole_image: Option<BlindBoxResults>,
    /// Control: the trained model with the image's central half as box.
    #[serde(default)]
    pub control_central_half: Option<BlindBoxResults>,
    /// Control: the pretrained weights as they came. Results of older programs call it otherwise.
    #[serde(alias = "untouched_weights")]
    pub pretrained_weights: Option<PretrainedResults>,
    /// Pixels by which the oracle's box is larger than the tight one.
    pub oracle_margin_px: f32,
    /// Volumes.
    pub per_volume: Vec<VolumeResults>,
    /// On the volumes' own voxels, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeResults>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Evaluation {
    /// The figures of true boxes in the place of the prediction's; `None` where there are none. Slices without the target have no such box: volumes
    /// are of those with it alone, and the counts stay the prediction's.
    pub fn with_true_boxes(&self) -> Option<Self> {
        let of_volume = |volume: &VolumeResults| {
            let dice_volume = volume.oracle_dice_volume?;
            Some(VolumeResults { dice_volume, dice_liver: volume.oracle_dice_liver, ..volume.clone() })
        };
        Some(Self {
            cam_box: self.oracle_box.clone()?,
            steps: Vec::new(),
            classifier: None,
            per_volume: self.per_volume.iter().filter_map(of_volume).collect(),
            native: None,
            ..self.clone()
        })
    }
}

/// What failed in a slice. The first that fits, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// Of the predicted and the true mask one is empty and the other is not.
    Presence,
    /// The IoU of the CAM's box with the true one is below 0.5, and Dice below 0.9.
    Cam,
    /// The true box, enlarged as in the oracle rows, gives a mask whose Dice is at least 0.03 higher.
    Box,
    /// The true box would not have helped.
    Mask,
}

impl Failure {
    /// As in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Cam => "cam",
            Self::Box => "box",
            Self::Mask => "mask",
        }
    }
}

/// Which slices a picture stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PictureGroup {
    /// Of the best.
    Best,
    /// Of the middle.
    Median,
    /// Of the worst.
    Worst,
}

impl PictureGroup {
    /// As in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Median => "median",
            Self::Worst => "worst",
        }
    }
}

/// An entry of `overlays.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OverlayRecord {
    /// The PNG's name.
    pub file: String,
    /// The slice's name.
    pub slice: String,
    /// Which slices it stands for.
    pub group: PictureGroup,
    /// What failed, of the worst slices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failure>,
    /// Its Dice with the CAM's box.
    pub dice: f64,
    /// The classifier's probability.
    pub presence: f64,
    /// Anything special.
    pub note: String,
}
