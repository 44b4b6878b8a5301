//! Classifiers and segmenters by name.

use crate::config::{ClassifierChoice, ModelConfig, SegmenterConfig};
use crate::no_classifier::NoClassifier;
use crate::weights::weights_path;
use anyhow::{Context, Result, anyhow, bail, ensure};
use baselines::{MultiMix, NnUNet, TransUnet, UNet};
use cam_classifier::{EmbeddingClassifier, EmbeddingSettings, ResNetClassifier, ResNetSettings};
use run_record::RunRecord;
use sam_segmenter::{SamSegmenter, SegmenterSettings};
use serde::de::DeserializeOwned;
use stage_api::{PresenceClassifier, Promptless, Segmenter, SliceNetwork};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Once;
use tch::Device;

/// The kind of segmenter that pretrained weights are of.
const SAM: &str = "sam";

/// The classifier that the segmenter itself has.
pub(crate) const OWN_CLASSIFIER: &str = "own";

/// Builds a classifier from its settings table, a seed and a device.
pub type ClassifierFactory = fn(&toml::Table, u64, Device) -> Result<Box<dyn PresenceClassifier>>;

/// Builds a segmenter from `[segmenter]`, a seed and a device.
pub type SegmenterFactory = fn(&SegmenterConfig, u64, Device) -> Result<Box<dyn Segmenter>>;

/// The classifiers and segmenters that a configuration can name.
pub struct ModelRegistry {
    classifiers: BTreeMap<String, ClassifierFactory>,
    segmenters: BTreeMap<String, SegmenterFactory>,
}

impl Default for ModelRegistry {
    /// The stages of this workspace.
    fn default() -> Self {
        Self { classifiers: BTreeMap::new(), segmenters: BTreeMap::new() }
            .with_classifier("none", |_, _, _| Ok(Box::new(NoClassifier)))
            // What builds it is the segmenter.
            .with_classifier(OWN_CLASSIFIER, |_, _, _| bail!("a segmenter's own classifier is made with it"))
            .with_classifier("resnet", |settings, seed, device| {
                let settings: ResNetSettings = settings.clone().try_into().context("in [classifier.settings]")?;
                Ok(Box::new(ResNetClassifier::new(&settings, seed, device)?))
            })
            .with_classifier("embedding", |settings, seed, device| {
                let settings: EmbeddingSettings = settings.clone().try_into().context("in [classifier.settings]")?;
                Ok(Box::new(EmbeddingClassifier::new(&settings, seed, device)?))
            })
            .with_segmenter(SAM, |config, seed, device| Ok(Box::new(sam(config, seed, device)?)))
            .with_segmenter("unet", |config, seed, device| promptless(UNet::new(&settings(config)?, seed, device)))
            .with_segmenter("nnunet", |config, seed, device| promptless(NnUNet::new(&settings(config)?, seed, device)))
            .with_segmenter("trans-unet", |config, seed, device| {
                promptless(TransUnet::new(&settings(config)?, seed, device))
            })
            .with_segmenter("multi-mix", |config, seed, device| {
                promptless(MultiMix::new(&settings(config)?, seed, device))
            })
    }
}

impl ModelRegistry {
    /// Adds a classifier: `classifier.kind = "<name>"` then chooses it.
    #[must_use]
    pub fn with_classifier(mut self, name: &str, factory: ClassifierFactory) -> Self {
        self.classifiers.insert(name.into(), factory);
        self
    }

    /// Adds a segmenter: `segmenter.kind = "<name>"` then chooses it.
    #[must_use]
    pub fn with_segmenter(mut self, name: &str, factory: SegmenterFactory) -> Self {
        self.segmenters.insert(name.into(), factory);
        self
    }

    /// Builds the configured classifier.
    pub fn classifier(
        &self,
        choice: &ClassifierChoice,
        seed: u64,
        device: Device,
    ) -> Result<Box<dyn PresenceClassifier>> {
        known("classifier.kind", &self.classifiers, &choice.kind)?(&choice.settings, seed, device)
    }

    /// Whether the stages that a run names are here.
    ///
    /// # Errors
    /// Says which one is not, and which program trained the run.
    pub fn has_stages_of(&self, run: &Path, config: &ModelConfig, record: &RunRecord) -> Result<()> {
        known("classifier.kind", &self.classifiers, &config.classifier.kind)
            .map(drop)
            .and_then(|()| known("segmenter.kind", &self.segmenters, &config.segmenter.kind).map(drop))
            .map_err(|unknown| {
                let by = record.other_program().map_or("another program".into(), |name| format!("the program '{name}'"));
                anyhow!(
                    "the run '{}' was trained by {by}, which has stages that this one doesn't: go on, evaluate and predict \
                     with that one (here {unknown})",
                    run.display()
                )
            })
    }

    /// Builds the configured segmenter.
    pub fn segmenter(&self, config: &SegmenterConfig, seed: u64, device: Device) -> Result<Box<dyn Segmenter>> {
        known("segmenter.kind", &self.segmenters, &config.kind)?(config, seed, device)
    }
}

/// What is registered under a name.
///
/// # Errors
/// Lists the names there are.
pub fn known<'a, T>(key: &str, all: &'a BTreeMap<String, T>, name: &str) -> Result<&'a T> {
    all.get(name).with_context(|| {
        let known: Vec<&str> = all.keys().map(String::as_str).collect();
        format!("{key} is \"{name}\", expected one of: {}", known.join(", "))
    })
}

/// `[segmenter.settings]`, as a network has them.
fn settings<T: DeserializeOwned>(config: &SegmenterConfig) -> Result<T> {
    let kind = &config.kind;
    ensure!(
        kind == SAM || config.weights.is_none(),
        "segmenter.weights (or --weights) is of a SAM, but the segmenter is \"{kind}\": leave it out"
    );
    config.settings.clone().try_into().context("in [segmenter.settings]")
}

fn promptless<T: SliceNetwork + 'static>(network: Result<T>) -> Result<Box<dyn Segmenter>> {
    Ok(Box::new(Promptless(network?)))
}

/// The settings of a SAM in `[segmenter]`; the seed is the run's.
pub fn sam_settings(config: &SegmenterConfig) -> Result<SegmenterSettings> {
    settings(config)
}

/// A SAM as `[segmenter]` has it.
pub(crate) fn sam(config: &SegmenterConfig, seed: u64, device: Device) -> Result<SamSegmenter> {
    let settings = SegmenterSettings { seed, ..sam_settings(config)? };
    let weights = weights_path(config)?;
    let segmenter = SamSegmenter::load(&weights, &settings, device)?;
    if let Some(how) = segmenter.read_from() {
        // Training makes the model twice: to check the configuration, and to train it.
        static SAID: Once = Once::new();
        SAID.call_once(|| eprintln!("note: '{}': {how}", weights.display()));
    }
    Ok(segmenter)
}
