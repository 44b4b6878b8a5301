//! From a TOML file and overrides to a [`Config`].

use super::Config;
use anyhow::{Context, Result};
use run_record::{SettingsError, read_settings};
use sam_segmenter::SegmenterSettings;
use std::path::Path;

impl Config {
    /// Reads a configuration file and applies overrides of the form `a.b=c` (`c` a TOML value, or a bare text).
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read configuration '{}'", path.display()))?;
        Self::parse(&text, overrides).with_context(|| format!("in configuration '{}'", path.display()))
    }

    /// As [`Self::load`], from a text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let mut config: Self = read_settings(text, overrides)?;
        config.resolve().map_err(SettingsError::from)?;
        config.check()?;
        Ok(config)
    }

    /// Fills in what follows from other keys.
    fn resolve(&mut self) -> Result<(), toml::de::Error> {
        if self.segmenter.kind == "sam" {
            // A SAM's settings are known here: the resolved configuration has all of them.
            let settings: SegmenterSettings = self.segmenter.settings.clone().try_into()?;
            settings.check().map_err(serde::de::Error::custom)?;
            self.segmenter.settings = toml::Table::try_from(settings).map_err(serde::de::Error::custom)?;
        }
        if self.classifier.kind == "none" {
            for phase in &mut self.phases {
                phase.train_classifier = false;
            }
        }
        Ok(())
    }
}
