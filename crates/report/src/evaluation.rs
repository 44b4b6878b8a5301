//! `evaluation/<split>.json` and the pictures beside it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::error::{ReportError, read, read_json};

/// Results on one split.
#[derive(Deserialize)]
pub struct Evaluation {
    pub split: String,
    /// Name of the data set.
    pub dataset: Option<String>,
    /// The result that counts: prompts from the classifier's CAM.
    pub cam_box: Option<Prompted>,
    /// Prompts from ground truth.
    pub oracle_box: Option<Prompted>,
    /// The whole image as box.
    pub control_whole_image: Option<Prompted>,
    /// Its central half as box.
    pub control_central_half: Option<Prompted>,
    /// The way to `cam_box`; evaluations of older versions have none.
    #[serde(default)]
    pub steps: Vec<Step>,
    pub untouched_weights: Option<Untouched>,
    pub classifier: Option<Classifier>,
    pub counts: Option<Counts>,
    #[serde(default)]
    pub oracle_margin_px: Figure,
    /// Free-form rows, one per volume.
    #[serde(default)]
    pub per_volume: Vec<Map<String, Value>>,
    /// From `<split>/overlays.json`; `None` where that is missing.
    #[serde(skip)]
    pub overlays: Option<Vec<Overlay>>,
}

/// A result that may be undefined or not to be trusted.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub enum Figure {
    /// The key is not there: this result does not exist for this row.
    #[default]
    Absent,
    /// The key is `null`.
    NotAvailable,
    Value(f64),
}

/// Means over a split with one kind of prompt.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct Prompted {
    pub dice_all: Figure,
    pub dice_liver: Figure,
    pub dice_volume: Figure,
    pub hd_px: Figure,
    pub hd95_px: Figure,
    pub hd95_mm: Figure,
    pub box_iou: Figure,
}

/// The prediction after a step of the inference.
#[derive(Deserialize)]
pub struct Step {
    pub name: String,
    #[serde(default)]
    pub dice_all: Figure,
    #[serde(default)]
    pub dice_liver: Figure,
    #[serde(default)]
    pub dice_volume: Figure,
    pub false_positive: Option<u64>,
    pub missed: Option<u64>,
    #[serde(default)]
    pub milliseconds_per_slice: Figure,
}

#[derive(Deserialize)]
pub struct Untouched {
    #[serde(default)]
    pub oracle_dice_liver: Figure,
    #[serde(default)]
    pub whole_image_dice_liver: Figure,
}

#[derive(Deserialize)]
pub struct Classifier {
    #[serde(default)]
    pub accuracy: Figure,
    #[serde(default)]
    pub auc: Figure,
}

/// Numbers of slices.
#[derive(Deserialize)]
pub struct Counts {
    pub slices: u64,
    pub liver_slices: u64,
    pub empty_cam: Option<u64>,
    pub missed: Option<u64>,
    pub false_positive: Option<u64>,
}

/// A picture of a slice with its prediction, drawn by the evaluation.
#[derive(Deserialize)]
pub struct Overlay {
    /// Name within `<split>/overlays/`.
    #[serde(deserialize_with = "file_name")]
    pub file: String,
    pub slice: String,
    pub group: Group,
    /// What failed, of the worst slices.
    #[serde(default)]
    pub failed: Option<String>,
    #[serde(default)]
    pub dice: Figure,
    #[serde(default)]
    pub presence: Figure,
    #[serde(default)]
    pub note: Option<String>,
    /// The picture as a `data:` address; `None` where the file is missing.
    #[serde(skip)]
    pub picture: Option<String>,
}

/// Which slices a picture stands for.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    Best,
    Median,
    Worst,
}

impl Evaluation {
    /// All `*.json` of the directory, the test split first; none where the directory is missing.
    pub fn read_all(directory: &Path) -> Result<Vec<Self>, ReportError> {
        let unreadable = |source| ReportError::Read { path: directory.to_owned(), source };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut evaluations = Vec::new();
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(evaluation) = read_json::<Self>(&path)?
            {
                evaluations.push(Self { overlays: Overlay::read_all(&path.with_extension(""))?, ..evaluation });
            }
        }
        evaluations.sort_by_key(|evaluation| (evaluation.split != "test", evaluation.split.clone()));
        Ok(evaluations)
    }
}

impl Overlay {
    fn read_all(directory: &Path) -> Result<Option<Vec<Self>>, ReportError> {
        let Some(mut overlays) = read_json::<Vec<Self>>(&directory.join("overlays.json"))? else { return Ok(None) };
        for overlay in &mut overlays {
            overlay.picture = read(&directory.join("overlays").join(&overlay.file))?
                .map(|png| format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png)));
        }
        Ok(Some(overlays))
    }
}

impl Figure {
    pub fn value(self) -> Option<f64> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::NotAvailable => None,
        }
    }
}

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::NotAvailable, Self::Value))
    }
}

/// A name and not a path: a report must not carry files from elsewhere away.
fn file_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if Path::new(&name).file_name() == Some(OsStr::new(&name)) {
        Ok(name)
    } else {
        Err(D::Error::custom(format!("'{name}' is not the plain name of a file in overlays/")))
    }
}
