//! Values that a type can't rule out.

use super::{Config, OptimizerKind, Schedule, ranges};
use anyhow::{Result, anyhow, bail};

impl Config {
    /// The first value that makes no sense, as an error.
    pub(super) fn check(&self) -> Result<()> {
        let out_of = |key: &str, found: String, expected: &str| -> Result<()> {
            bail!("`{key}` is {found}, expected {expected}")
        };
        if self.phases.is_empty() {
            bail!("there is no [[phase]]; a run needs at least one");
        }
        for phase in self.phases.iter().filter(|p| p.patience > 0) {
            if !phase.is_guided() || self.sampling.validation_slices == 0 {
                bail!(
                    "phase '{}' has `patience = {}`, but no validation Dice to wait for: that needs `labelled_passes` and \
                     `sampling.validation_slices` above 0",
                    phase.name,
                    phase.patience
                );
            }
        }
        if let Some(phase) = self.phases.iter().find(|p| p.batch_labelled == 0) {
            bail!("phase '{}' has `batch_labelled = 0`, expected at least 1", phase.name);
        }
        if self.augmented_copies.count > 0 && self.augmentation.labelled.is_off() {
            bail!(
                "`augmented_copies.count` is {}, but `[augmentation.labelled]` changes nothing: every copy would be the slice as it is",
                self.augmented_copies.count
            );
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
        if !self.classifier.focal_gamma.is_finite() || self.classifier.focal_gamma < 0.0 {
            return out_of("classifier.focal_gamma", self.classifier.focal_gamma.to_string(), "a number of at least 0");
        }
        for (name, augmentation) in [
            ("classifier", &self.augmentation.classifier),
            ("strong", &self.augmentation.strong),
            ("labelled", &self.augmentation.labelled),
        ] {
            augmentation
                .check()
                .map_err(|e| anyhow!("`augmentation.{name}.{}` is {}, expected {}", e.key, e.found, e.expected))?;
        }
        ranges::check(self)?;
        let strong = &self.augmentation.strong;
        let geometry = [
            ("flip_left_right", strong.flip_left_right),
            ("flip_up_down", strong.flip_up_down),
            ("rotate_deg", strong.rotate_deg != 0.0),
            ("scale", strong.scale != 0.0),
            ("shift", strong.shift != 0.0),
            ("elastic_px", strong.elastic_px != 0.0),
        ];
        if let Some((key, _)) = geometry.iter().find(|(_, is_set)| *is_set) {
            bail!(
                "`augmentation.strong.{key}` has no effect: a strongly augmented copy lies where its weak one does, and \
                   `augmentation.classifier.{key}` moves both"
            );
        }
        let optimizer = &self.optimizer;
        if optimizer.nesterov && (optimizer.kind != OptimizerKind::Sgd || optimizer.momentum == 0.0) {
            bail!("`optimizer.nesterov` needs `optimizer.kind = \"sgd\"` and a momentum above 0");
        }
        if optimizer.accumulate_steps == 0 {
            return out_of("optimizer.accumulate_steps", "0".into(), "at least 1");
        }
        if let Schedule::Step { period: 0, .. } = optimizer.schedule {
            return out_of("optimizer.schedule.step.period", "0".into(), "a period of at least 1");
        }
        Ok(())
    }
}
