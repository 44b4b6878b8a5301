//! The configuration: a TOML file, overridden by `--set a.b=c`, resolved into [`Config`]. Unknown keys are errors.

use anyhow::{Context, Result, bail};
use cam_classifier::PromptSettings;
use sam_segmenter::SegmenterSettings;
use serde::{Deserialize, Serialize};
use slice_sampling::SamplingSettings;
use slice_store::Window;
use std::path::{Path, PathBuf};

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

/// From HU to what the stages see.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IntensityConfig {
    /// The CT window.
    pub window: Window,
    /// The scale within the window.
    pub normalization: Normalization,
}

/// The scale of windowed intensities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalization {
    /// The window's ends become 0 and 1.
    #[default]
    Window,
    /// The authors' script: `(HU + 3055) / 8866` rounded to half precision: 186 levels between 0.327 and 0.372.
    Authors,
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
    /// Weight α of slices with the target; absent: 0.8 for the class that is rarer in the training set.
    pub positive_weight: Option<f64>,
    /// Training slices in a step, besides its labelled ones.
    pub batch_slices: usize,
    /// Learn "no liver" from crops of the N labelled slices, whose labels follow from their masks.
    pub crop_negatives: bool,
    /// Crops in a step, half of them with the target; used with `crop_negatives`.
    pub batch_crops: usize,
    /// Side of a crop in pixels.
    pub crop_size: usize,
    /// Random gain, gamma, shift and noise on the classifier's training images.
    pub augment: bool,
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
            augment: true,
        }
    }
}

/// The SAM branch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegmenterConfig {
    /// Pretrained weights; absent: the LiteMedSAM file that `cargo xtask setup` installs.
    pub weights: Option<PathBuf>,
    /// How the model is built.
    pub settings: SegmenterSettings,
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

/// The weights of the parts of the segmentation loss, which are added; 0: off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegmentationLossConfig {
    /// Weight of the Dice loss (smooth 1, on the sigmoid).
    pub dice: f64,
    /// Weight of the focal loss (γ = 2, α = 0.5) of the pixels.
    pub focal: f64,
    /// Weight of the binary cross-entropy of the pixels; `bce` is another name for it.
    #[serde(alias = "bce")]
    pub ce: f64,
    /// Weight of the soft Jaccard loss (smooth 1, on the sigmoid).
    pub iou: f64,
    /// Weight of the boundary loss: the mean of probability × signed distance from the target's edge in pixels.
    pub boundary: f64,
    /// Weight of the score head's squared error against the true IoU.
    pub score: f64,
}

impl Default for SegmentationLossConfig {
    fn default() -> Self {
        Self { dice: 0.6, focal: 0.4, ce: 0.0, iou: 0.0, boundary: 0.0, score: 0.1 }
    }
}

/// The optimiser and its learning rates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Which one.
    pub kind: OptimizerKind,
    /// Learning rate of the classifier.
    pub classifier_lr: f64,
    /// Learning rate of prompt encoder and mask decoder.
    pub decoder_lr: f64,
    /// Learning rate of the adapters.
    pub lora_lr: f64,
    /// Weight decay, on everything but biases and normalisation: decoupled in `adamw`, added to the gradient in the others.
    pub weight_decay: f64,
    /// Exponential decay of the two moments of `adamw` and `adam`.
    pub betas: [f64; 2],
    /// Momentum of `sgd`.
    pub momentum: f64,
    /// Whether `sgd` looks ahead.
    pub nesterov: bool,
    /// The schedule of each group over the steps in which it is trained.
    pub schedule: Schedule,
    /// Steps of linear warm-up of each group.
    pub warmup_steps: usize,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            classifier_lr: 1e-3,
            decoder_lr: 1e-4,
            lora_lr: 1e-3,
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            momentum: 0.9,
            nesterov: false,
            schedule: Schedule::Cosine,
            warmup_steps: 20,
        }
    }
}

/// Which optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam (Kingma & Ba, 2015) with decoupled weight decay (Loshchilov & Hutter, 2019).
    AdamW,
    /// Adam, whose weight decay is added to the gradient.
    Adam,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

/// A learning rate's course after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// No change.
    Constant,
    /// Half a cosine down to 2 % at the last update.
    Cosine,
    /// `(1 − share)^0.9`, which would be 0 at the update after the last.
    Poly,
    /// Multiplied by `factor` after each `period` updates.
    Step {
        /// More than 0.
        factor: f64,
        /// Updates of the group.
        period: usize,
    },
}

/// The loader.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderConfig {
    /// Batches that are ready ahead of the training step; memory is bounded by it.
    pub prefetch: usize,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self { prefetch: 4 }
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
    /// What the encoder does.
    #[serde(default)]
    pub encoder: EncoderTraining,
    /// Where the boxes of labelled slices come from.
    #[serde(default)]
    pub prompts: PromptSource,
    /// Whether the classifier learns in this phase.
    #[serde(default = "yes")]
    pub train_classifier: bool,
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
    /// The adapters learn: the method.
    #[default]
    Lora,
    /// The encoder rests; embeddings of the labelled slices are computed once, so that decoder steps are cheap.
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

/// How masks are predicted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PredictionConfig {
    /// A slice whose presence probability is below it gets an empty mask.
    pub presence_threshold: f64,
    /// How often the mask's own box, enlarged by 3 px, prompts once more.
    pub refinements: usize,
}

impl Default for PredictionConfig {
    fn default() -> Self {
        Self { presence_threshold: 0.5, refinements: 0 }
    }
}

/// What evaluation compares with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Pixels by which the true box is enlarged for the oracle rows.
    pub oracle_margin_px: f32,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { oracle_margin_px: 3.0 }
    }
}

impl Config {
    /// Reads a configuration file and applies overrides of the form `a.b=c` (`c` a TOML value, or a bare text).
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read configuration '{}'", path.display()))?;
        Self::parse(&text, overrides).with_context(|| format!("in configuration '{}'", path.display()))
    }

    /// As [`Self::load`], from a text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let mut table: toml::Table = text.parse().context("this is not TOML")?;
        for item in overrides {
            set(&mut table, item)?;
        }
        // Through text again, so that an error can show the place.
        let merged = if overrides.is_empty() { text.to_owned() } else { toml::to_string(&table)? };
        let config: Self = toml::from_str(&merged)
            .map_err(|e| anyhow::anyhow!("{}{}", e.to_string().trim_end(), suggestion(e.message())))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let out_of = |key: &str, found: String, expected: &str| -> Result<()> {
            bail!("`{key}` is {found}, expected {expected}")
        };
        if self.phases.is_empty() {
            bail!("there is no [[phase]]; a run needs at least one");
        }
        if self.classifier.batch_slices == 0 {
            return out_of("classifier.batch_slices", "0".into(), "at least 1");
        }
        if self.classifier.crop_negatives && (self.classifier.batch_crops < 2 || self.classifier.crop_size < 32) {
            return out_of(
                "classifier.batch_crops, crop_size",
                format!("{}, {}", self.classifier.batch_crops, self.classifier.crop_size),
                "at least 2 crops of at least 32 pixels",
            );
        }
        if !self.intensity.window.width.is_finite() || self.intensity.window.width <= 0.0 {
            return out_of("intensity.window.width", self.intensity.window.width.to_string(), "a number above 0 (HU)");
        }
        if self.prompt.threshold <= 0.0 || self.prompt.threshold >= 1.0 {
            return out_of("prompt.threshold", self.prompt.threshold.to_string(), "more than 0, less than 1");
        }
        let thresholds = &self.training_prompts.cam_thresholds;
        if thresholds.is_empty() || thresholds.iter().any(|t| *t <= 0.0 || *t >= 1.0) {
            return out_of("training_prompts.cam_thresholds", format!("{thresholds:?}"), "values between 0 and 1");
        }
        for (key, share) in [
            ("training_prompts.cam_share", self.training_prompts.cam_share),
            ("training_prompts.whole_share", self.training_prompts.whole_share),
            ("prediction.presence_threshold", self.prediction.presence_threshold),
            ("classifier.positive_weight", self.classifier.positive_weight.unwrap_or(0.5)),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return out_of(key, share.to_string(), "0 to 1");
            }
        }
        let optimizer = &self.optimizer;
        if !(0.0..1.0).contains(&optimizer.momentum) {
            return out_of("optimizer.momentum", optimizer.momentum.to_string(), "0 or more, less than 1");
        }
        if optimizer.nesterov && (optimizer.kind != OptimizerKind::Sgd || optimizer.momentum == 0.0) {
            bail!("`optimizer.nesterov` needs `optimizer.kind = \"sgd\"` and a momentum above 0");
        }
        if let Schedule::Step { factor, period } = optimizer.schedule
            && (!factor.is_finite() || factor <= 0.0 || period == 0)
        {
            return out_of(
                "optimizer.schedule.step",
                format!("factor {factor}, period {period}"),
                "a factor above 0 and a period of at least 1",
            );
        }
        let loss = &self.segmentation_loss;
        for (key, weight) in [
            ("segmentation_loss.dice", loss.dice),
            ("segmentation_loss.focal", loss.focal),
            ("segmentation_loss.ce", loss.ce),
            ("segmentation_loss.iou", loss.iou),
            ("segmentation_loss.boundary", loss.boundary),
            ("segmentation_loss.score", loss.score),
        ] {
            if !weight.is_finite() || weight < 0.0 {
                return out_of(key, weight.to_string(), "a number of at least 0");
            }
        }
        Ok(())
    }
}

/// Applies `a.b=c` to a table.
fn set(table: &mut toml::Table, item: &str) -> Result<()> {
    let (path, value) =
        item.split_once('=').with_context(|| format!("--set {item}: expected KEY=VALUE, for example --set seed=1"))?;
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.into()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|k| !k.is_empty()).with_context(|| format!("--set {item}: the key is empty"))?;
    let mut at = table;
    for key in keys {
        at = match at.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new())) {
            toml::Value::Table(inner) => inner,
            other => bail!("--set {item}: `{key}` is a {}, not a table", other.type_str()),
        };
    }
    at.insert(last.into(), value);
    Ok(())
}

/// For "unknown field `x`, expected one of `a`, `b`" (serde) and "unexpected keys in table: x, available keys: a, b"
/// (toml): the known name that is nearest.
fn suggestion(message: &str) -> String {
    let names: Vec<&str> = if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        message.split('`').skip(1).step_by(2).collect()
    } else if let Some(names) = message.strip_prefix("unexpected keys in table: ") {
        names.split(", ").map(|name| name.trim_start_matches("available keys: ")).collect()
    } else {
        return String::new();
    };
    let Some((unknown, known)) = names.split_first() else { return String::new() };
    known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown)))
        .filter(|known| strsim::jaro_winkler(known, unknown) > 0.7)
        .map_or_else(String::new, |known| format!("\ndid you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "[sampling]\nlabelled = 5\n[[phase]]\nname = \"all\"\nepochs = 1\n";

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = Config::parse(&format!("{SMALL}\n[optimizer]\ndecoder_lt = 1e-4\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean `decoder_lr`?") && error.contains("line"), "{error}");
        let nested = Config::parse(SMALL, &["segmenter.settings.lora_ranc=4".into()]).unwrap_err().to_string();
        assert!(nested.contains("did you mean `lora_rank`?"), "{nested}");
    }

    #[test]
    fn overrides_replace_values_of_every_type() {
        let set =
            ["seed=7", "classifier.kind=other", "sampling.labelled=50", "optimizer.lora_lr=2e-4"].map(String::from);
        let config = Config::parse(SMALL, &set).unwrap();
        assert_eq!((config.seed, config.classifier.kind.as_str(), config.sampling.labelled), (7, "other", 50));
        assert_eq!(config.optimizer.lora_lr, 2e-4);
        assert!(Config::parse(SMALL, &["seed".into()]).unwrap_err().to_string().contains("KEY=VALUE"));
        assert!(Config::parse(SMALL, &["seed.x=1".into(), "seed=0".into()]).is_ok());
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_what_was_expected() {
        for (set, expected) in [
            ("segmentation_loss.iou=-1", "`segmentation_loss.iou` is -1, expected a number of at least 0"),
            ("optimizer.schedule={step={factor=0.5,period=0}}", "a period of at least 1"),
            ("optimizer.schedule={step={factor=0.5,perod=9}}", "did you mean `period`?"),
            ("optimizer.kind=adamww", "did you mean `adamw`?"),
            ("optimizer.nesterov=true", "needs `optimizer.kind = \"sgd\"`"),
            ("optimizer.momentum=1.0", "0 or more, less than 1"),
        ] {
            let error = Config::parse(SMALL, &[set.into()]).unwrap_err().to_string();
            assert!(error.contains(expected), "{set}: {error}");
        }
    }

    #[test]
    fn a_resolved_configuration_reads_back_as_itself() {
        let step = "optimizer.schedule={step={factor=0.5,period=9}}".to_owned();
        for set in [vec![], vec![step]] {
            let config = Config::parse(SMALL, &set).unwrap();
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::to_string(&Config::parse(&text, &[]).unwrap()).unwrap(), text);
        }
    }
}
