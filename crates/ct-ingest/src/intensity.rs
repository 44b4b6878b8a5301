//! What an image's values mean: HU, or what makes HU of them.

mod check;
mod sample;

use crate::volume::Scaling;
use crate::{IngestError, Volume};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What an image's values mean. Anything but [`Intensity::CheckedHu`] is a declaration, which is checked against the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Intensity {
    /// HU; values that can't be HU are refused.
    #[default]
    CheckedHu,
    /// HU, whatever they look like.
    Hu,
    /// HU and a constant: 1024 or 1000, where air was to be 0.
    Offset {
        /// What was added to the HU.
        by: f64,
    },
    /// HU are the value times the slope, plus the intercept, as in DICOM.
    Rescale {
        /// HU of a difference of 1, above 0.
        slope: f64,
        /// HU of the value 0.
        intercept: f64,
    },
    /// Grey levels 0 to 255 of a display window: 0 is its lower end, 255 its upper end.
    Grey8 {
        /// Centre of the window, HU.
        level: f64,
        /// Width of the window, HU, above 0.
        width: f64,
    },
    /// Numbers from 0 to 1 of a display window.
    Unit {
        /// Centre of the window, HU.
        level: f64,
        /// Width of the window, HU, above 0.
        width: f64,
    },
    /// Numbers from -1 to 1 of a display window.
    SignedUnit {
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
            Self::Offset { by } => Scaling::new(1.0, -by),
            Self::Rescale { slope, intercept } => Scaling::new(slope, intercept),
            Self::Grey8 { level, width } => Scaling::new(width / 255.0, level - 0.5 * width),
            Self::Unit { level, width } => Scaling::new(width, level - 0.5 * width),
            Self::SignedUnit { level, width } => Scaling::new(0.5 * width, level),
        }
    }

    /// The values that a window's lower and upper end have, of a kind that has a window.
    fn window_values(self) -> Option<[f64; 2]> {
        match self {
            Self::Grey8 { .. } => Some([0.0, 255.0]),
            Self::Unit { .. } => Some([0.0, 1.0]),
            Self::SignedUnit { .. } => Some([-1.0, 1.0]),
            Self::CheckedHu | Self::Hu | Self::Offset { .. } | Self::Rescale { .. } => None,
        }
    }

    /// Checks the parameters.
    pub(crate) fn check(self) -> Result<(), String> {
        let (a, b, expected) = match self {
            Self::CheckedHu | Self::Hu => return Ok(()),
            Self::Offset { by } => (by, 1.0, "a finite number"),
            Self::Rescale { slope, intercept } => (intercept, slope, "finite numbers, the slope above 0"),
            Self::Grey8 { level, width } | Self::Unit { level, width } | Self::SignedUnit { level, width } => {
                (level, width, "finite numbers, the width above 0")
            }
        };
        if a.is_finite() && b.is_finite() && b > 0.0 {
            return Ok(());
        }
        Err(format!("`intensity` is {self}, expected {expected}"))
    }

    /// Refuses an image whose values can't be what they are said to be; `found` is the range of its HU.
    pub(crate) fn check_values(self, volume: &Volume, found: [f32; 2]) -> Result<(), IngestError> {
        let refuse = |problem| Err(IngestError::Intensity { path: volume.path.clone(), problem });
        let [low, high] = found;
        if low > high {
            return refuse("has no voxel that is a number, expected HU".to_owned());
        }
        if low == high {
            return refuse(format!("is {low} everywhere, expected a CT: the file is empty or a mask"));
        }
        check::refusal(self, volume).map_or(Ok(()), refuse)
    }

    /// What is doubtful in values that were taken for what they are said to be.
    pub(crate) fn doubt(self, volume: &Volume) -> Option<String> {
        check::doubt(self, volume)
    }
}

/// As the command line has it.
impl fmt::Display for Intensity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckedHu => write!(f, "HU, checked"),
            Self::Hu => write!(f, "hu"),
            Self::Offset { by } => write!(f, "offset:{by}"),
            Self::Rescale { slope, intercept } => write!(f, "rescale:{slope}:{intercept}"),
            Self::Grey8 { level, width } => write!(f, "grey8:{level}:{width}"),
            Self::Unit { level, width } => write!(f, "unit:{level}:{width}"),
            Self::SignedUnit { level, width } => write!(f, "signed-unit:{level}:{width}"),
        }
    }
}

/// A text is no intensity.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{0}' is no intensity: expected `hu`, `offset:1024`, `rescale:SLOPE:INTERCEPT`, or the window of grey levels, as \
     grey8:LEVEL:WIDTH (0 to 255), unit:LEVEL:WIDTH (0 to 1) or signed-unit:LEVEL:WIDTH (-1 to 1). z-scores and MR have no \
     HU"
)]
pub struct ParseIntensityError(String);

impl FromStr for Intensity {
    type Err = ParseIntensityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseIntensityError(text.to_owned());
        let (kind, numbers) = text.split_once(':').map_or((text, None), |(kind, numbers)| (kind, Some(numbers)));
        let numbers = numbers.into_iter().flat_map(|numbers| numbers.split(':')).map(str::parse::<f64>);
        let numbers = numbers.collect::<Result<Vec<f64>, _>>().map_err(|_| error())?;
        let intensity = match (kind, numbers.as_slice()) {
            ("hu", []) => Self::Hu,
            ("offset", &[by]) => Self::Offset { by },
            ("rescale", &[slope, intercept]) => Self::Rescale { slope, intercept },
            ("grey8", &[level, width]) => Self::Grey8 { level, width },
            ("unit", &[level, width]) => Self::Unit { level, width },
            ("signed-unit", &[level, width]) => Self::SignedUnit { level, width },
            _ => return Err(error()),
        };
        intensity.check().map_err(|_| error()).map(|()| intensity)
    }
}
