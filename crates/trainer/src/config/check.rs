//! Values that a type can't rule out.

use super::{Config, OptimizerKind, Schedule};
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
        if self.views.count > 0 && self.augmentation.labelled.is_off() {
            bail!(
                "`views.count` is {}, but `[augmentation.labelled]` changes nothing: every view would be the slice as it is",
                self.views.count
            );
        }
        if !self.classifier.mask_weight.is_finite() || self.classifier.mask_weight < 0.0 {
            return out_of("classifier.mask_weight", self.classifier.mask_weight.to_string(), "a number of at least 0");
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
                "`augmentation.strong.{key}` has no effect: a strong view lies where its weak one does, and \
                   `augmentation.classifier.{key}` moves both"
            );
        }
        if !self.classifier.consistency.is_finite() || self.classifier.consistency < 0.0 {
            return out_of("classifier.consistency", self.classifier.consistency.to_string(), "a number of at least 0");
        }
        if !self.intensity.window.width.is_finite() || self.intensity.window.width <= 0.0 {
            return out_of("intensity.window.width", self.intensity.window.width.to_string(), "a number above 0 (HU)");
        }
        // NaN, which TOML can write, is in no order.
        let is_share = |t: f32| t > 0.0 && t < 1.0;
        if !is_share(self.prompt.threshold) {
            return out_of("prompt.threshold", self.prompt.threshold.to_string(), "more than 0, less than 1");
        }
        let thresholds = &self.training_prompts.cam_thresholds;
        if thresholds.is_empty() || !thresholds.iter().all(|&t| is_share(t)) {
            return out_of("training_prompts.cam_thresholds", format!("{thresholds:?}"), "values between 0 and 1");
        }
        for (key, share) in [
            ("training_prompts.cam_share", self.training_prompts.cam_share),
            ("training_prompts.whole_share", self.training_prompts.whole_share),
            ("prediction.presence_threshold", self.prediction.presence_threshold),
            ("prediction.trained_share", self.prediction.trained_share),
            ("prediction.volume.taper", self.prediction.volume.taper),
            ("prediction.volume.support", self.prediction.volume.support),
            ("classifier.positive_weight", self.classifier.positive_weight.unwrap_or(0.5)),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return out_of(key, share.to_string(), "0 to 1");
            }
        }
        let volume = &self.prediction.volume;
        if !volume.margin_px.is_finite() || volume.margin_px < 0.0 {
            return out_of("prediction.volume.margin_px", volume.margin_px.to_string(), "a number of at least 0");
        }
        let optimizer = &self.optimizer;
        if !(0.0..1.0).contains(&optimizer.momentum) {
            return out_of("optimizer.momentum", optimizer.momentum.to_string(), "0 or more, less than 1");
        }
        if optimizer.nesterov && (optimizer.kind != OptimizerKind::Sgd || optimizer.momentum == 0.0) {
            bail!("`optimizer.nesterov` needs `optimizer.kind = \"sgd\"` and a momentum above 0");
        }
        if !(0.0..1.0).contains(&optimizer.ema_decay) {
            return out_of("optimizer.ema_decay", optimizer.ema_decay.to_string(), "0 or more, less than 1");
        }
        if optimizer.accumulate_steps == 0 {
            return out_of("optimizer.accumulate_steps", "0".into(), "at least 1");
        }
        if !optimizer.clip_norm.is_finite() || optimizer.clip_norm < 0.0 {
            return out_of("optimizer.clip_norm", optimizer.clip_norm.to_string(), "a number of at least 0");
        }
        if let Some((pattern, factor)) = optimizer.lr_scale.iter().find(|(_, f)| !f.is_finite() || **f <= 0.0) {
            return out_of(&format!("optimizer.lr_scale.\"{pattern}\""), factor.to_string(), "a number above 0");
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
        for (name, weight) in self.segmentation_loss.weights() {
            if !weight.is_finite() || *weight < 0.0 {
                return out_of(&format!("segmentation_loss.{name}"), weight.to_string(), "a number of at least 0");
            }
        }
        for (group, rate) in &self.optimizer.lr {
            if !rate.is_finite() || *rate < 0.0 {
                return out_of(&format!("optimizer.lr.{group}"), rate.to_string(), "a number of at least 0");
            }
        }
        Ok(())
    }
}
