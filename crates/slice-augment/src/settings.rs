//! How far each change may go.

use serde::{Deserialize, Serialize};

/// The reach of each change; 0 or `false` leaves it out, and the default leaves out all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Share of the draws in which a change takes part, 0 to 1; drawn for each change by itself.
    pub probability: f64,
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

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            probability: 1.0,
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
        self.probability == 0.0 || *self == Self { probability: self.probability, ..Self::default() }
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
