//! How far each change may go.

use serde::{Deserialize, Serialize};

/// The reach of each change; 0 or `false` leaves it out, and the default leaves out all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Share of the draws in which a change takes part, 0 to 1; drawn for each change by itself.
    pub probability: f64,
    /// The same of single changes, in its place.
    #[serde(skip_serializing_if = "ProbabilityOf::is_absent")]
    pub probability_of: ProbabilityOf,
    /// Mirror left and right in half of the draws. Not for organs that lie on one side: a mirrored liver is no liver.
    pub flip_left_right: bool,
    /// Mirror front and back in half of the draws.
    pub flip_up_down: bool,
    /// Rotation about the middle by up to so many degrees either way.
    pub rotate_deg: f32,
    /// Size times `1 / (1 + scale)` to `1 + scale`, evenly on a logarithmic scale.
    pub scale: f32,
    /// Shift of each axis by whole pixels, up to this share of the side either way, less than 1.
    pub shift: f32,
    /// Elastic: control points every eighth of the side move by up to so many pixels along each axis; cubic B-splines
    /// between them.
    pub elastic_px: f32,
    /// Blur with a Gaussian of a standard deviation of up to so many pixels.
    pub blur_px: f32,
    /// As if taken at a resolution lower by a factor of up to `1 + low_resolution`.
    pub low_resolution: f32,
    /// Added to all HU: up to so many either way.
    pub intensity_hu: f32,
    /// Height above the window's lower end times `1 - contrast` to `1 + contrast`; less than 1.
    pub contrast: f32,
    /// Exponent `1 / (1 + gamma)` to `1 + gamma` within the window, evenly on a logarithmic scale.
    pub gamma: f32,
    /// Normal noise, independent for each pixel, of a standard deviation of up to so many HU.
    pub noise_hu: f32,
}

/// Shares of the draws in which single changes take part, 0 to 1; absent: that of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbabilityOf {
    /// Of `flip_left_right`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip_left_right: Option<f64>,
    /// Of `flip_up_down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip_up_down: Option<f64>,
    /// Of `rotate_deg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_deg: Option<f64>,
    /// Of `scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Of `shift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<f64>,
    /// Of `elastic_px`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elastic_px: Option<f64>,
    /// Of `blur_px`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blur_px: Option<f64>,
    /// Of `low_resolution`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_resolution: Option<f64>,
    /// Of `intensity_hu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intensity_hu: Option<f64>,
    /// Of `contrast`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<f64>,
    /// Of `gamma`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// Of `noise_hu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise_hu: Option<f64>,
}

impl ProbabilityOf {
    fn is_absent(&self) -> bool {
        *self == Self::default()
    }

    /// Each with its key.
    fn all(&self) -> [(&'static str, Option<f64>); 12] {
        [
            ("probability_of.flip_left_right", self.flip_left_right),
            ("probability_of.flip_up_down", self.flip_up_down),
            ("probability_of.rotate_deg", self.rotate_deg),
            ("probability_of.scale", self.scale),
            ("probability_of.shift", self.shift),
            ("probability_of.elastic_px", self.elastic_px),
            ("probability_of.blur_px", self.blur_px),
            ("probability_of.low_resolution", self.low_resolution),
            ("probability_of.intensity_hu", self.intensity_hu),
            ("probability_of.contrast", self.contrast),
            ("probability_of.gamma", self.gamma),
            ("probability_of.noise_hu", self.noise_hu),
        ]
    }
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            probability: 1.0,
            probability_of: ProbabilityOf::default(),
            flip_left_right: false,
            flip_up_down: false,
            rotate_deg: 0.0,
            scale: 0.0,
            shift: 0.0,
            elastic_px: 0.0,
            blur_px: 0.0,
            low_resolution: 0.0,
            intensity_hu: 0.0,
            contrast: 0.0,
            gamma: 0.0,
            noise_hu: 0.0,
        }
    }
}

/// A setting out of its range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("`{key}` is {found}, expected {expected}")]
pub struct SettingError {
    /// The key within its table.
    pub key: &'static str,
    /// What it is.
    pub found: f64,
    /// What it may be.
    pub expected: &'static str,
}

impl Augmentation {
    /// Whether it changes anything.
    pub fn is_off(&self) -> bool {
        let Self { probability, probability_of, .. } = *self;
        let is_never = probability == 0.0 && probability_of.all().iter().all(|(_, of)| of.unwrap_or(0.0) == 0.0);
        is_never || *self == Self { probability, probability_of, ..Self::default() }
    }

    /// Checks every range; the error names the key.
    pub fn check(&self) -> Result<(), SettingError> {
        let check = |key, value: f64, max: f64, expected| {
            if value.is_finite() && (0.0..=max).contains(&value) {
                return Ok(());
            }
            Err(SettingError { key, found: value, expected })
        };
        check("probability", self.probability, 1.0, "0 to 1")?;
        for (key, value) in self.probability_of.all() {
            check(key, value.unwrap_or(0.0), 1.0, "0 to 1")?;
        }
        check("rotate_deg", self.rotate_deg.into(), 180.0, "0 to 180 degrees")?;
        check("shift", self.shift.into(), 0.9, "0 to 0.9 of the side")?;
        check("contrast", self.contrast.into(), 0.9, "0 to 0.9")?;
        let rest = [
            ("scale", self.scale, 3.0, "0 to 3"),
            ("elastic_px", self.elastic_px, 100.0, "0 to 100 pixels"),
            ("blur_px", self.blur_px, 10.0, "0 to 10 pixels"),
            ("low_resolution", self.low_resolution, 7.0, "0 to 7"),
            ("intensity_hu", self.intensity_hu, 1000.0, "0 to 1000 HU"),
            ("gamma", self.gamma, 3.0, "0 to 3"),
            ("noise_hu", self.noise_hu, 1000.0, "0 to 1000 HU"),
        ];
        rest.into_iter().try_for_each(|(key, value, max, expected)| check(key, value.into(), max, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Appearance;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    #[test]
    fn a_change_with_a_share_of_its_own_takes_part_as_often_as_that_says() {
        let probability_of = ProbabilityOf { gamma: Some(1.0), blur_px: Some(0.0), ..ProbabilityOf::default() };
        let settings = Augmentation {
            probability: 0.3,
            probability_of,
            gamma: 0.5,
            blur_px: 1.0,
            noise_hu: 9.0,
            ..Augmentation::default()
        };
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
        let drawn: Vec<String> = (0..400).map(|_| format!("{:?}", Appearance::draw(&settings, &mut rng))).collect();
        let count = |text: &str| drawn.iter().filter(|draw| draw.contains(text)).count();
        assert_eq!((count(" gamma: 1.0,"), count("blur_px: 0.0,")), (0, 400));
        assert!((240..320).contains(&count("noise_hu: 0.0,")), "{}", count("noise_hu: 0.0,"));
        assert!(!settings.is_off() && Augmentation { probability: 0.0, ..settings }.check().is_ok());
        let wrong = ProbabilityOf { shift: Some(1.5), ..ProbabilityOf::default() };
        let error = Augmentation { probability_of: wrong, ..settings }.check().unwrap_err();
        assert_eq!((error.key, error.found), ("probability_of.shift", 1.5));
        let never = ProbabilityOf { gamma: Some(0.0), ..ProbabilityOf::default() };
        assert!(Augmentation { probability: 0.0, probability_of: never, ..settings }.is_off());
    }
}
