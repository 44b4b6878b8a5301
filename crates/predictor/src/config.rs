//! What decides a prediction: the sections of a run's configuration that training and prediction share.

use cam_classifier::PromptSettings;
use serde::{Deserialize, Serialize};
use slice_store::Window;
use std::path::PathBuf;

/// What it takes to build both branches and to predict with them.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Of the weights that no file gives.
    pub seed: u64,
    /// `[intensity]`
    pub intensity: IntensityConfig,
    /// `classifier.kind` and `[classifier.settings]`
    pub classifier: ClassifierChoice,
    /// `[prompt]`: from the activation map to the prompt.
    pub prompt: PromptSettings,
    /// `[segmenter]`
    pub segmenter: SegmenterConfig,
    /// `[prediction]`
    pub prediction: PredictionConfig,
}

/// Which classifier.
#[derive(Clone, Debug)]
pub struct ClassifierChoice {
    /// Its name in the registry.
    pub kind: String,
    /// Its own settings.
    pub settings: toml::Table,
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

/// The segmenter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegmenterConfig {
    /// Its name in the registry.
    pub kind: String,
    /// Pretrained weights; absent: the LiteMedSAM file that `cargo xtask setup` installs, if it is a SAM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Its own settings.
    pub settings: toml::Table,
}

impl SegmenterConfig {
    /// For a model whose weights a checkpoint holds: the file that its setting `weights` began from isn't needed again.
    #[must_use]
    pub fn of_checkpoint(&self) -> Self {
        let mut own = self.clone();
        own.settings.remove("weights");
        own
    }
}

impl Default for SegmenterConfig {
    fn default() -> Self {
        Self { kind: "sam".into(), weights: None, settings: toml::Table::new() }
    }
}

/// How masks are predicted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PredictionConfig {
    /// A slice whose presence probability is below it gets an empty mask.
    pub presence_threshold: f64,
    /// How often the mask's own box, enlarged by 3 px, prompts once more.
    pub refinements: usize,
    /// Where between the pretrained weights (0) and the trained ones (1) the segmenter stands: what lies between keeps more
    /// of what the pretrained one can do on other scanners (Wortsman et al., 2022).
    pub trained_share: f64,
    /// What neighbouring slices say of each other.
    pub volume: VolumeConfig,
}

impl Default for PredictionConfig {
    fn default() -> Self {
        Self { presence_threshold: 0.5, refinements: 0, trained_share: 1.0, volume: VolumeConfig::default() }
    }
}

/// What neighbouring slices say of each other when a whole volume is predicted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeConfig {
    /// Masks go on from the surest slices to their neighbours, and on to both ends.
    pub propagate: bool,
    /// Pixels by which the box of a neighbour's mask is enlarged.
    pub margin_px: f32,
    /// A way ends at a slice whose mask has a lower mean of the map inside; 0: the map ends none.
    pub support: f64,
    /// A way ends where the target's section grows again after it fell below this share of the largest one; 0: nowhere.
    pub taper: f64,
    /// Of the volume's mask the largest component is kept.
    pub largest_component: bool,
}

impl Default for VolumeConfig {
    fn default() -> Self {
        Self { propagate: false, margin_px: 5.0, support: 0.5, taper: 0.0, largest_component: false }
    }
}
