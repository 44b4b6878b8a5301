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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AugmentationConfig;
    use slice_augment::Augmentation;

    const SMALL: &str = "[sampling]\nlabelled = 5\n[[phase]]\nname = \"all\"\nepochs = 1\n";

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = Config::parse(&format!("{SMALL}\n[optimizer]\nema_decya = 0.9\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean `ema_decay`?") && error.contains("line"), "{error}");
        let nested = Config::parse(SMALL, &["segmenter.settings.lora_ranc=4".into()]).unwrap_err().to_string();
        assert!(nested.contains("did you mean `lora_rank`?"), "{nested}");
    }

    #[test]
    fn overrides_replace_values_of_every_type() {
        let set =
            ["seed=7", "classifier.kind=other", "sampling.labelled=50", "optimizer.lr.lora=2e-4"].map(String::from);
        let config = Config::parse(SMALL, &set).unwrap();
        assert_eq!((config.seed, config.classifier.kind.as_str(), config.sampling.labelled), (7, "other", 50));
        assert_eq!(config.optimizer.rate("lora"), 2e-4);
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
            ("classifier.focal_gamma=-0.5", "`classifier.focal_gamma` is -0.5, expected a number of at least 0"),
            ("prompt.threshold=nan", "`prompt.threshold` is NaN, expected more than 0, less than 1"),
            ("training_prompts.cam_thresholds=[0.2, nan]", "`training_prompts.cam_thresholds[1]` is NaN, expected"),
            ("segmenter.settings.lora_dropout=nan", "`lora_dropout` is NaN, expected 0 or more, less than 1"),
        ] {
            let error = Config::parse(SMALL, &[set.into()]).unwrap_err().to_string();
            assert!(error.contains(expected), "{set}: {error}");
        }
    }

    #[test]
    fn an_augmentation_table_is_laid_over_its_own_default() {
        let set = ["augmentation.classifier.noise_hu=0", "augmentation.strong.blur_px=2"].map(String::from);
        let found = Config::parse(SMALL, &set).unwrap().augmentation;
        let default = AugmentationConfig::default();
        assert_eq!(found.classifier, Augmentation { noise_hu: 0.0, ..default.classifier });
        assert_eq!(found.strong, Augmentation { blur_px: 2.0, ..default.strong });
        assert!(found.labelled.is_off() && !default.classifier.is_off());
        for (set, expected) in [
            ("augmentation.classifier.noise=3", "did you mean `noise_hu`?"),
            ("augmentation.labelled.shift=2", "`augmentation.labelled.shift` is 2, expected 0 to 0.9"),
            ("augmentation.strong.rotate_deg=5", "`augmentation.strong.rotate_deg` has no effect"),
        ] {
            let error = format!("{:#}", Config::parse(SMALL, &[set.into()]).unwrap_err());
            assert!(error.contains(expected), "{set}: {error}");
        }
    }

    #[test]
    fn patience_needs_something_to_wait_for() {
        let text = format!("{SMALL}patience = 2\n");
        assert_eq!(Config::parse(&text, &[]).unwrap().phases[0].patience, 2);
        for text in [format!("{text}labelled_passes = 0\n"), text.replace("= 5\n", "= 5\nvalidation_slices = 0\n")] {
            assert!(Config::parse(&text, &[]).unwrap_err().to_string().contains("no validation Dice to wait for"));
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
