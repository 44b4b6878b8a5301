//! What the fractional numbers of a configuration may be, a line each. TOML can write `nan` and `inf`, which are in no range.

use super::{Config, Schedule};
use anyhow::{Result, ensure};
use slice_sampling::SplitRule;

/// What a number may be.
#[derive(Clone, Copy)]
enum Range {
    /// Any number.
    Finite,
    /// A weight, a width, a rate.
    AtLeast0,
    /// What divides or multiplies.
    Above0,
    /// 0 to 1.
    Share,
    /// More than 0, at most 1.
    Kept,
    /// Between 0 and 1, neither of them.
    Inside,
    /// A decay, which would never end at 1.
    Below1,
}

impl Range {
    fn has(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::Finite => true,
                Self::AtLeast0 => value >= 0.0,
                Self::Above0 => value > 0.0,
                Self::Share => (0.0..=1.0).contains(&value),
                Self::Kept => value > 0.0 && value <= 1.0,
                Self::Inside => value > 0.0 && value < 1.0,
                Self::Below1 => (0.0..1.0).contains(&value),
            }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Finite => "a number",
            Self::AtLeast0 => "a number of at least 0",
            Self::Above0 => "a number above 0",
            Self::Share => "0 to 1",
            Self::Kept => "more than 0, at most 1",
            Self::Inside => "more than 0, less than 1",
            Self::Below1 => "0 or more, less than 1",
        }
    }
}

/// The first number that is out of its range, as an error. Augmentation and the stages' own settings have ranges of their own.
pub(super) fn check(config: &Config) -> Result<()> {
    use Range::{Above0, AtLeast0, Below1, Finite, Inside, Kept, Share};
    let Config { classifier, optimizer, prediction, training_prompts: prompts, .. } = config;
    let numbers = [
        ("sampling.keep_rate", config.sampling.keep_rate, Kept),
        ("intensity.window.level", config.intensity.window.level.into(), Finite),
        ("intensity.window.width", config.intensity.window.width.into(), Above0),
        ("classifier.focal_gamma", classifier.focal_gamma, AtLeast0),
        ("classifier.positive_weight", classifier.positive_weight.unwrap_or(0.5), Share),
        ("classifier.consistency", classifier.consistency, AtLeast0),
        ("classifier.pseudo_label_confidence", classifier.pseudo_label_confidence.unwrap_or(0.5), Share),
        ("classifier.mask_weight", classifier.mask_weight, AtLeast0),
        ("prompt.threshold", config.prompt.threshold.into(), Inside),
        ("training_prompts.cam_share", prompts.cam_share, Share),
        ("training_prompts.jitter_outward_px", prompts.jitter_outward_px.into(), AtLeast0),
        ("training_prompts.jitter_inward_px", prompts.jitter_inward_px.into(), AtLeast0),
        ("training_prompts.whole_share", prompts.whole_share, Share),
        ("label_seconds.mask", config.label_seconds.mask, AtLeast0),
        ("label_seconds.crop", config.label_seconds.crop, AtLeast0),
        ("label_seconds.image_level", config.label_seconds.image_level, AtLeast0),
        ("label_seconds.volume_level", config.label_seconds.volume_level, AtLeast0),
        ("label_seconds.box", config.label_seconds.box_around, AtLeast0),
        ("optimizer.weight_decay", optimizer.weight_decay, AtLeast0),
        ("optimizer.betas[0]", optimizer.betas[0], Below1),
        ("optimizer.betas[1]", optimizer.betas[1], Below1),
        ("optimizer.momentum", optimizer.momentum, Below1),
        ("optimizer.clip_norm", optimizer.clip_norm, AtLeast0),
        ("optimizer.ema_decay", optimizer.ema_decay, Below1),
        ("prediction.presence_threshold", prediction.presence_threshold, Share),
        ("prediction.trained_share", prediction.trained_share, Share),
        ("prediction.volume.margin_px", prediction.volume.margin_px.into(), AtLeast0),
        ("prediction.volume.support", prediction.volume.support, Share),
        ("prediction.volume.taper", prediction.volume.taper, Share),
        ("evaluation.oracle_margin_px", config.evaluation.oracle_margin_px.into(), AtLeast0),
    ];
    for (key, value, range) in numbers {
        one(key, value, range)?;
    }
    if let SplitRule::Fractions { train, validation, test } = config.sampling.split {
        for (part, share) in [("train", train), ("validation", validation), ("test", test)] {
            one(&format!("sampling.split.fractions.{part}"), share, Share)?;
        }
    }
    for (i, &threshold) in prompts.cam_thresholds.iter().enumerate() {
        one(&format!("training_prompts.cam_thresholds[{i}]"), threshold.into(), Inside)?;
    }
    ensure!(!prompts.cam_thresholds.is_empty(), "`training_prompts.cam_thresholds` is empty, expected at least one");
    for (part, &weight) in config.segmentation_loss.weights() {
        one(&format!("segmentation_loss.{part}"), weight, AtLeast0)?;
    }
    for (group, &rate) in &optimizer.lr {
        one(&format!("optimizer.lr.{group}"), rate, AtLeast0)?;
    }
    for (pattern, &factor) in &optimizer.lr_scale {
        one(&format!("optimizer.lr_scale.\"{pattern}\""), factor, Above0)?;
    }
    if let Schedule::Step { factor, .. } = optimizer.schedule {
        one("optimizer.schedule.step.factor", factor, Above0)?;
    }
    Ok(())
}

fn one(key: &str, value: f64, range: Range) -> Result<()> {
    ensure!(range.has(value), "`{key}` is {value}, expected {}", range.expected());
    Ok(())
}
