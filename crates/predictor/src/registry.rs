//! The stages by name: where an experiment's own classifier is added.

use crate::config::ClassifierChoice;
use anyhow::{Context, Result, bail};
use cam_classifier::{EmbeddingClassifier, EmbeddingSettings, ResNetClassifier, ResNetSettings};
use stage_api::PresenceClassifier;
use std::collections::BTreeMap;
use tch::Device;

/// Builds a classifier from its settings table, a seed and a device.
pub type ClassifierFactory = fn(&toml::Table, u64, Device) -> Result<Box<dyn PresenceClassifier>>;

/// The classifiers that a configuration can name.
pub struct Registry {
    classifiers: BTreeMap<String, ClassifierFactory>,
}

impl Default for Registry {
    /// The stages of this workspace.
    fn default() -> Self {
        Self { classifiers: BTreeMap::new() }
            .with_classifier("resnet", |settings, seed, device| {
                let settings: ResNetSettings = settings.clone().try_into().context("in [classifier.settings]")?;
                Ok(Box::new(ResNetClassifier::new(&settings, seed, device)?))
            })
            .with_classifier("embedding", |settings, seed, device| {
                let settings: EmbeddingSettings = settings.clone().try_into().context("in [classifier.settings]")?;
                Ok(Box::new(EmbeddingClassifier::new(&settings, seed, device)?))
            })
    }
}

impl Registry {
    /// Adds a classifier: `classifier.kind = "<name>"` then chooses it.
    #[must_use]
    pub fn with_classifier(mut self, name: &str, factory: ClassifierFactory) -> Self {
        self.classifiers.insert(name.into(), factory);
        self
    }

    /// Builds the configured classifier.
    pub fn classifier(
        &self,
        choice: &ClassifierChoice,
        seed: u64,
        device: Device,
    ) -> Result<Box<dyn PresenceClassifier>> {
        let Some(factory) = self.classifiers.get(&choice.kind) else {
            let known: Vec<&str> = self.classifiers.keys().map(String::as_str).collect();
            bail!("classifier.kind is \"{}\", expected one of: {}", choice.kind, known.join(", "));
        };
        factory(&choice.settings, seed, device)
    }
}
