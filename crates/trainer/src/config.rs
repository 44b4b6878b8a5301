//! The configuration: a TOML file, overridden by `--set a.b=c`, resolved into [`Config`]. Unknown keys are errors.

mod check;
mod load;
mod ranges;

use anyhow::Result;
use cam_classifier::PromptSettings;
use evaluation::EvaluationConfig;
use losses::{SegmentationLosses, SegmentationPart};
use predictor::{ClassifierChoice, IntensityConfig, ModelConfig, PredictionConfig, SegmenterConfig, known};
use run_record::LabelSeconds;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use slice_augment::Augmentation;
use slice_sampling::SamplingSettings;
use std::collections::BTreeMap;

pub use optimizers::config::{OptimizerConfig, OptimizerKind, Schedule};

/// Everything that decides a run, but for the store, the device and the number of threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The one seed from which every random stream is derived.
    #[serde(default)]
    pub seed: u64,
    /// Which patients and slices are used for what.
    pub sampling: SamplingSettings,
    /// From HU to the `[0, 1]` that the stages see.
    #[serde(default)]
    pub intensity: IntensityConfig,
    /// Random changes of the training slices.
    #[serde(default)]
    pub augmentation: AugmentationConfig,
    /// Augmented copies of the labelled slices, of which the encoder's results are kept.
    #[serde(default)]
    pub augmented_copies: CopiesConfig,
    /// The classifier branch.
    #[serde(default)]
    pub classifier: ClassifierConfig,
    /// From the classifier's activation map to the prompt.
    #[serde(default)]
    pub prompt: PromptSettings,
    /// The SAM branch.
    #[serde(default)]
    pub segmenter: SegmenterConfig,
    /// How prompts of labelled slices are drawn in training.
    #[serde(default)]
    pub training_prompts: TrainingPromptConfig,
    /// Weights of the segmentation loss.
    #[serde(default)]
    pub segmentation_loss: SegmentationLossConfig,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// The loader.
    #[serde(default)]
    pub loader: LoaderConfig,
    /// What one annotation takes an annotator, in seconds: what the label budget says of its cost.
    #[serde(default)]
    pub label_seconds: LabelSeconds,
    /// The phases of training, in their order.
    #[serde(rename = "phase")]
    pub phases: Vec<PhaseConfig>,
    /// How masks are predicted.
    #[serde(default)]
    pub prediction: PredictionConfig,
    /// What evaluation compares with.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
}

impl Config {
    /// What prediction needs of it.
    pub fn model(&self) -> ModelConfig {
        ModelConfig {
            seed: self.seed,
            intensity: self.intensity.clone(),
            classifier: ClassifierChoice {
                kind: self.classifier.kind.clone(),
                settings: self.classifier.settings.clone(),
            },
            prompt: self.prompt,
            segmenter: self.segmenter.clone(),
            prediction: self.prediction.clone(),
        }
    }
}

/// Random changes of the training slices, for each of their uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentationConfig {
    /// The classifier's slices and crops.
    #[serde(deserialize_with = "over_classifier")]
    pub classifier: Augmentation,
    /// The second, strongly augmented copy of the classifier's slices, with `classifier.consistency`; its geometry is the first's.
    #[serde(deserialize_with = "over_strong")]
    pub strong: Augmentation,
    /// The labelled slices of a step, with their masks and boxes, for both branches. The encoder then can't keep what it made
    /// of them.
    pub labelled: Augmentation,
}

/// Keys that a table leaves out have that table's own default, and not [`Augmentation`]'s, which is off.
fn over<'de, D: Deserializer<'de>>(default: &Augmentation, deserializer: D) -> Result<Augmentation, D::Error> {
    let given = toml::Table::deserialize(deserializer)?;
    let mut all = toml::Table::try_from(default).map_err(D::Error::custom)?;
    all.extend(given);
    all.try_into().map_err(|error: toml::de::Error| D::Error::custom(error.message()))
}

fn over_classifier<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Augmentation, D::Error> {
    over(&AugmentationConfig::default().classifier, deserializer)
}

fn over_strong<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Augmentation, D::Error> {
    over(&AugmentationConfig::default().strong, deserializer)
}

impl Default for AugmentationConfig {
    /// Changes of scanner and position that keep left and right, for the classifier alone.
    fn default() -> Self {
        let classifier = Augmentation {
            shift: 0.125,
            intensity_hu: 40.0,
            contrast: 0.2,
            gamma: 0.4,
            noise_hu: 12.0,
            ..Augmentation::default()
        };
        let strong = Augmentation {
            blur_px: 1.0,
            low_resolution: 1.0,
            intensity_hu: 60.0,
            contrast: 0.4,
            gamma: 0.6,
            noise_hu: 40.0,
            ..Augmentation::default()
        };
        Self { classifier, strong, labelled: Augmentation::default() }
    }
}

/// The classifier branch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifierConfig {
    /// Name in the registry of classifiers.
    pub kind: String,
    /// Settings of that kind; for `resnet` see `cam_classifier::ResNetSettings`.
    pub settings: toml::Table,
    /// Focusing parameter γ of the focal loss.
    pub focal_gamma: f64,
    /// Weight α of slices with the target; absent: 0.8 for the class that is rarer in the training set; with `weak_crops` what
    /// gives both kinds of crops the same weight together.
    pub positive_weight: Option<f64>,
    /// Training slices in a step, besides its labelled ones.
    pub batch_slices: usize,
    /// Learn "no liver" from crops of the N labelled slices, whose labels follow from their masks.
    pub crop_negatives: bool,
    /// Crops in a step, half of them with the target; used with `crop_negatives`.
    pub batch_crops: usize,
    /// Side of a crop in pixels.
    pub crop_size: usize,
    /// Weight of what a strongly augmented copy of a slice should say as the slice does; 0: there is no copy.
    pub consistency: f64,
    /// Copies learn what slices are called, where the probability is at least this; absent: the squared difference of the probabilities counts.
    pub pseudo_label_confidence: Option<f64>,
    /// What stands for a training slice where a classifier reads embeddings.
    pub weak_crops: WeakCrops,
    /// Learn from volumes of which it is only known that they show the target: of `batch_slices` slices of each, once an epoch, the surest
    /// one does.
    pub bags: bool,
    /// Copies of labelled slices in a step whose masks teach the classifier's map; 0: image-level labels alone.
    pub batch_masks: usize,
    /// Weight of what these masks teach (binary cross-entropy and Dice of the map) beside the image-level loss.
    pub mask_weight: f64,
}

/// What stands for a training slice where a classifier reads embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeakCrops {
    /// The slice, with its image-level label: does it show the target?
    #[default]
    Off,
    /// One fixed crop of it, drawn by the seed where its image shows a body, a quarter of its area, with a label of its own,
    /// which the budget counts: for data without slices that lack the target.
    OnePerSlice,
}

/// Augmented copies of the labelled slices.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CopiesConfig {
    /// Copies in all, besides the slices as they are, shared evenly among the labelled slices; drawn once, as
    /// `augmentation.labelled` says.
    pub count: usize,
    /// Training slices that are encoded beside the labelled ones, at most, evenly spaced; 0: all.
    pub slices: usize,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self {
            kind: "resnet".into(),
            settings: toml::Table::new(),
            focal_gamma: 2.0,
            positive_weight: None,
            batch_slices: 4,
            crop_negatives: false,
            batch_crops: 16,
            crop_size: 128,
            consistency: 0.0,
            pseudo_label_confidence: None,
            weak_crops: WeakCrops::Off,
            bags: false,
            batch_masks: 0,
            mask_weight: 1.0,
        }
    }
}

/// How the prompt of a labelled slice is drawn. A curriculum is made by phases that set `prompts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingPromptConfig {
    /// In `mix`, the share of the CAM's own boxes; the others are jittered true boxes.
    pub cam_share: f64,
    /// Thresholds of which one is drawn for each of the CAM's boxes.
    pub cam_thresholds: Vec<f32>,
    /// Each side of a true box moves outward by up to this many pixels (uniform).
    pub jitter_outward_px: f32,
    /// … and inward by up to this many.
    pub jitter_inward_px: f32,
    /// The share of steps whose box is the whole slice.
    pub whole_share: f64,
}

impl Default for TrainingPromptConfig {
    fn default() -> Self {
        Self {
            cam_share: 0.5,
            cam_thresholds: vec![0.2, 0.3, 0.4],
            jitter_outward_px: 25.0,
            jitter_inward_px: 12.0,
            whole_share: 0.15,
        }
    }
}

/// The weights of the parts of the segmentation loss, which are added, by their names in the registry; 0: off. Those of this
/// workspace: `dice`, `focal`, `ce` (or `bce`), `iou` and `boundary`. `score` weighs the score head's squared error against the
/// true IoU.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct SegmentationLossConfig(BTreeMap<String, f64>);

impl SegmentationLossConfig {
    const SCORE: &str = "score";

    /// Of exactly these weights.
    pub fn only(parts: &[(&str, f64)]) -> Self {
        Self(parts.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect())
    }

    /// All weights, `score` among them.
    pub fn weights(&self) -> &BTreeMap<String, f64> {
        &self.0
    }

    /// The losses of these names.
    ///
    /// # Errors
    /// If one is not registered.
    pub fn of(&self, registered: &BTreeMap<String, SegmentationPart>) -> Result<SegmentationLosses> {
        let parts = self.0.iter().filter(|(name, _)| *name != Self::SCORE);
        let part = |(name, weight): (&String, &f64)| {
            Ok((*weight, *known("a key of `[segmentation_loss]`", registered, name)?))
        };
        let score = self.0.get(Self::SCORE).copied().unwrap_or(0.0);
        Ok(SegmentationLosses::new(parts.map(part).collect::<Result<Vec<_>>>()?, score))
    }
}

impl Default for SegmentationLossConfig {
    fn default() -> Self {
        Self::only(&[("dice", 0.6), ("focal", 0.4), (Self::SCORE, 0.1)])
    }
}

impl<'de> Deserialize<'de> for SegmentationLossConfig {
    /// Laid over the default.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut given = BTreeMap::<String, f64>::deserialize(deserializer)?;
        if let Some(weight) = given.remove("bce") {
            given.insert("ce".into(), weight);
        }
        let mut all = Self::default();
        all.0.extend(given);
        Ok(all)
    }
}

/// The loader.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderConfig {
    /// Batches that are in memory, half of them in use and half ready or in work; memory is bounded by it.
    pub prefetch: usize,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self { prefetch: 16 }
    }
}

/// A stretch of training in which the same parts learn.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseConfig {
    /// Its name in logs and reports.
    pub name: String,
    /// Passes over all training slices.
    pub epochs: usize,
    /// Passes over the N labelled slices in each epoch, spread evenly; 0: the classifier alone. The paper's is 1.
    #[serde(default = "one")]
    pub labelled_passes: usize,
    /// Steps with labelled slices in each epoch, whatever their number, instead of `labelled_passes`; 0: as that says.
    #[serde(default)]
    pub labelled_steps: usize,
    /// Labelled slices of a step.
    #[serde(default = "one")]
    pub batch_labelled: usize,
    /// Slices that are known to be without the target, beside them: an image-level label says that their masks are empty.
    #[serde(default)]
    pub batch_absent: usize,
    /// What the encoder does.
    #[serde(default)]
    pub encoder: EncoderTraining,
    /// Where the boxes of labelled slices come from.
    #[serde(default)]
    pub prompts: PromptSource,
    /// So many epochs without a better validation Dice end the phase early; 0: it goes its whole way.
    #[serde(default)]
    pub patience: usize,
    /// Whether the classifier learns in this phase.
    #[serde(default = "yes")]
    pub train_classifier: bool,
}

impl PhaseConfig {
    /// Whether the segmenter learns.
    pub fn is_guided(&self) -> bool {
        self.labelled_passes + self.labelled_steps > 0
    }
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// What the image encoder does in a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EncoderTraining {
    /// The adapters learn: the method. Of a segmenter without adapters, the whole.
    #[default]
    #[serde(alias = "trained")]
    Lora,
    /// The encoder is frozen; embeddings of the labelled slices are computed once, so that decoder steps are cheap.
    Frozen,
}

/// Where the box of a labelled slice comes from in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptSource {
    /// The true box, jittered.
    Gt,
    /// The CAM's box or the jittered true box.
    #[default]
    Mix,
    /// The CAM's box.
    Cam,
}
