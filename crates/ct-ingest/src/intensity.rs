//! What an image's values mean, and whether they can be HU.

use crate::volume::Scaling;
use crate::{IngestError, Volume};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What an image's values mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Intensity {
    /// HU; values that can't be HU are refused.
    #[default]
    CheckedHu,
    /// HU, whatever they look like.
    Hu,
    /// Grey levels 0 to 255 of a display window: 0 is its lower end, 255 its upper end.
    Grey8 {
        /// Centre of the window, HU.
        level: f64,
        /// Width of the window, HU, above 0.
        width: f64,
    },
}

impl Intensity {
    /// What makes HU of the values.
    pub(crate) fn scaling(self) -> Scaling {
        match self {
            Self::CheckedHu | Self::Hu => Scaling::NONE,
            Self::Grey8 { level, width } => Scaling::new(width / 255.0, level - 0.5 * width),
        }
    }

    /// Checks the parameters.
    pub(crate) fn check(self) -> Result<(), String> {
        match self {
            Self::Grey8 { level, width } if !(level.is_finite() && width.is_finite() && width > 0.0) => Err(format!(
                "`intensity` has level {level} and width {width}, expected finite numbers, the width above 0"
            )),
            _ => Ok(()),
        }
    }

    /// Refuses an image whose values, `low` to `high`, can't be a CT's HU.
    pub(crate) fn check_range(self, volume: &Volume, low: f32, high: f32) -> Result<(), IngestError> {
        let refuse = |problem: String| Err(IngestError::Intensity { path: volume.path.clone(), problem });
        if low > high {
            return refuse("has no voxel that is a number, expected HU".to_owned());
        }
        if low == high {
            return refuse(format!("is {low} everywhere, expected a CT: the file is empty or a mask"));
        }
        let declare = "`\"intensity\": {\"kind\": \"hu\"}` in the manifest (--intensity hu of predict) if they are HU all the same";
        match self {
            Self::CheckedHu if low >= 0.0 && high <= 255.0 => refuse(format!(
                "has values from {low} to {high}, which can't be HU (air is -1000): it looks like 8-bit grey levels. If it is, say of which \
                 window: `\"intensity\": {{\"kind\": \"grey8\", \"level\": 40, \"width\": 400}}` in the manifest \
                 (--intensity grey8:40:400 of predict); or {declare}"
            )),
            Self::CheckedHu if low >= 0.0 && high == 4095.0 => refuse(format!(
                "has values from {low} to {high}, which can't be HU (air is -1000): it looks like a scanner's 12-bit numbers without \
                 rescale slope and intercept. Convert it anew with them; or {declare}"
            )),
            _ => Ok(()),
        }
    }
}

/// A text is no intensity.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no intensity: expected `hu`, or `grey8:LEVEL:WIDTH`, for example grey8:40:400")]
pub struct ParseIntensityError(String);

impl FromStr for Intensity {
    type Err = ParseIntensityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseIntensityError(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        let intensity = match parts.as_slice() {
            ["hu"] => Self::Hu,
            ["grey8", level, width] => {
                Self::Grey8 { level: level.parse().map_err(|_| error())?, width: width.parse().map_err(|_| error())? }
            }
            _ => return Err(error()),
        };
        intensity.check().map_err(|_| error()).map(|()| intensity)
    }
}
