//! Data manifests: where a data set keeps its images and masks, and what its labels mean.

use crate::slices::MaskLabels;
use crate::{
    AffineChoice, GeometryTolerance, IngestError, Intensity, MaskCoverage, Orientation, Pattern, ReadOptions,
    SegmentLabels,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// The name of the label of voxels of which nobody knows what they are, as nnU-Net has it.
const IGNORE: &str = "ignore";

/// A data set's description, one JSON file. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the store calls the data set.
    pub name: String,
    /// What it is, in a sentence.
    #[serde(default)]
    pub description: String,
    /// Under which terms it may be used.
    #[serde(default)]
    pub licence: String,
    /// What to cite.
    #[serde(default)]
    pub citation: String,
    /// Where it comes from and how to lay it out.
    #[serde(default)]
    pub how_to_get: String,
    /// Where images are, relative to the data directory: see [`Pattern`]. With a slash at its end: the folder of a DICOM
    /// series.
    pub image: String,
    /// Where masks are; `{case}` stands for the image's case. Several patterns: each case has a file of each, and what is
    /// the target in any of them is the target.
    pub mask: OneOrMore,
    /// The masks' values by name. A mask with any other value is refused. Voxels of the label `ignore`, where there is one, count in no loss
    /// and no metric.
    pub labels: BTreeMap<String, i32>,
    /// The organ that is looked for, for example `liver`.
    pub target: String,
    /// Names of the labels that are the target together.
    pub target_labels: Vec<String>,
    /// Which slices the masks speak of. Where it is said, cases may be without a mask; else every case has one, of all its slices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_coverage: Option<MaskCoverage>,
    /// A list of image-level labels (CSV), below the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<PathBuf>,
    /// Which patient a case belongs to; by default each case is a patient. For folders of DICOM series it must be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<PatientRule>,
    /// What the images' values mean.
    #[serde(default, skip_serializing_if = "is_default")]
    pub intensity: Intensity,
    /// Which affine counts in NIfTI files whose two affines disagree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affine: Option<AffineChoice>,
    /// The series (its instance UID or number) of cases whose folder has several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub series: BTreeMap<String, String>,
    /// The true orientation of cases whose header is wrong.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub orientation: BTreeMap<String, Orientation>,
    /// How far apart, in voxels at the farthest corner, an image and its mask may be that belong together; and how far DICOM slices may
    /// be from an even row.
    #[serde(default, skip_serializing_if = "is_default")]
    pub geometry_tolerance: GeometryTolerance,
    /// Whether the headers' millimetres are true. Headers with identity affines are never trusted.
    #[serde(default = "trusted")]
    pub spacing_trusted: bool,
}

/// A pattern, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// The patterns.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(several) => several,
        }
    }
}

/// How a case tells its patient. The patient's key goes into the store, so it should not be a person's name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatientRule {
    /// Each case is a patient.
    #[default]
    Case,
    /// The part of the case before the first occurrence of this text: `{"before": "_"}`.
    Before(String),
    /// A table from case to patient: `{"map": {"scan-a": "p1", "scan-b": "p1"}}`.
    Map(BTreeMap<String, String>),
    /// `{"hash": "a secret"}`: case and patient are called by pseudonyms, made with this secret, of the case's name and of the
    /// DICOM patient ID (of the case's name where there is none). Neither the secret nor a name on disk nor a DICOM UID goes
    /// into the store or into messages.
    Hash(String),
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn trusted() -> bool {
    true
}

impl Manifest {
    /// Loads a manifest: by path, if the text has a slash or ends with `.json`, else `data-manifests/NAME.json` in the
    /// directory `from` or the nearest one above it.
    pub fn load(name: &str, from: &Path) -> Result<Self, IngestError> {
        let path = Path::new(name);
        if path.extension().is_some_and(|extension| extension == "json") || path.components().count() > 1 {
            return Self::read(path);
        }
        let mut known = Vec::new();
        for directory in from.ancestors().map(|directory| directory.join("data-manifests")) {
            let path = directory.join(format!("{name}.json"));
            if path.is_file() {
                return Self::read(&path);
            }
            known.extend(names_in(&directory));
        }
        let hint = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean '{near}'? There are: {}", known.join(", ")),
            None if known.is_empty() => {
                format!("no data-manifests/ in '{}' or above it; give the path of a .json file", from.display())
            }
            None => format!("there are: {}", known.join(", ")),
        };
        Err(IngestError::ManifestNotFound { name: name.to_owned(), hint })
    }

    /// Reads and checks a manifest.
    pub fn read(path: &Path) -> Result<Self, IngestError> {
        let text = std::fs::read(path).map_err(IngestError::io("read", path))?;
        let error = |problem| IngestError::Manifest { path: path.to_path_buf(), problem };
        let manifest: Self = serde_json::from_slice(&text).map_err(|problem| error(explain(&problem)))?;
        manifest.check().map_err(error)?;
        Ok(manifest)
    }

    /// Whether a case may be without a mask.
    pub fn allows_no_mask(&self) -> bool {
        self.mask_coverage.is_some() || self.presence.is_some()
    }

    /// All values that a mask may have.
    pub fn known_labels(&self) -> Vec<i32> {
        let mut values: Vec<i32> = self.labels.values().copied().collect();
        values.sort_unstable();
        values
    }

    /// The values that are the target.
    pub fn target_values(&self) -> Vec<i32> {
        self.target_labels.iter().filter_map(|name| self.labels.get(name)).copied().collect()
    }

    /// What the values of a mask mean.
    pub(crate) fn mask_labels(&self) -> MaskLabels {
        MaskLabels {
            known: self.known_labels(),
            target: self.target_values(),
            ignored: self.labels.get(IGNORE).copied(),
        }
    }

    /// How a case's image is to be read.
    pub fn image_options(&self, case: &str) -> ReadOptions {
        ReadOptions {
            intensity: self.intensity,
            affine: self.affine,
            series: self.series.get(case).cloned(),
            geometry_tolerance: self.geometry_tolerance,
            segments: None,
        }
    }

    /// How its masks are to be read.
    pub fn mask_options(&self) -> ReadOptions {
        // The target's come last, since they count where segments overlap.
        let mut values: Vec<(String, i32)> = self.labels.iter().map(|(name, value)| (name.clone(), *value)).collect();
        values.sort_by_key(|(name, _)| self.target_labels.contains(name));
        let segments = Some(SegmentLabels { values, needed: self.target_labels.clone() });
        ReadOptions {
            affine: self.affine,
            geometry_tolerance: self.geometry_tolerance,
            segments,
            ..ReadOptions::default()
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("`name` is empty".to_owned());
        }
        let parse =
            |key: &str, text: &str| Pattern::parse(text).map_err(|problem| format!("`{key}` is '{text}': {problem}"));
        let image = parse("image", &self.image)?;
        if self.mask.as_slice().is_empty() {
            return Err("`mask` is empty, expected a pattern or several".to_owned());
        }
        for mask in self.mask.as_slice() {
            if parse("mask", mask)?.is_folder() {
                return Err(format!("`mask` is '{mask}', a folder; expected files"));
            }
        }
        if image.is_folder() && self.patient.is_none() {
            return Err("`patient` is missing, and folders of DICOM series may be named after people: expected \
                        {\"hash\": \"a secret of yours\"}, or \"case\" if the folders' names are no secret"
                .to_owned());
        }
        self.intensity.check()?;
        if self.target_labels.is_empty() {
            return Err("`target_labels` is empty, expected at least one name of `labels`".to_owned());
        }
        for name in &self.target_labels {
            if !self.labels.contains_key(name) {
                let suggestion = nearest(name, self.labels.keys().map(String::as_str));
                let suggestion = suggestion.map_or(String::new(), |near| format!("; did you mean '{near}'?"));
                return Err(format!("`target_labels` has '{name}', which is not in `labels`{suggestion}"));
            }
        }
        if self.target_labels.iter().any(|name| name == IGNORE) {
            return Err(format!(
                "`target_labels` has '{IGNORE}', the name of what counts as nothing; call the target otherwise"
            ));
        }
        if self.labels.get(IGNORE) == Some(&0) {
            return Err(format!("`labels` has the value 0 for '{IGNORE}', expected another: 0 is the background"));
        }
        if self.target_values().contains(&0) {
            return Err("`target_labels` has the label of value 0, expected the background's value to be 0".to_owned());
        }
        let mut seen = HashSet::new();
        if let Some((name, value)) = self.labels.iter().find(|(_, value)| !seen.insert(**value)) {
            return Err(format!("`labels` has the value {value} twice, the second time for '{name}'"));
        }
        Ok(())
    }
}

/// Names of the manifests in a directory, in order.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let name = |path: PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned());
    let mut names: Vec<String> = entries.filter_map(|entry| name(entry.path())).collect();
    names.sort();
    names
}

/// serde's message, with the nearest known key where there is one.
fn explain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match (message.starts_with("unknown"), quoted.split_first()) {
        (true, Some((wrong, known))) => match nearest(wrong, known.iter().copied()) {
            Some(near) => format!("{message}; did you mean `{near}`?"),
            None => message,
        },
        _ => message,
    }
}

/// The candidate that a mistyped name resembles.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests")
    }

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let mut value: serde_json::Value =
            serde_json::from_slice(&std::fs::read(shipped().join("lits.json")).unwrap()).unwrap();
        change(&mut value);
        let path = directory.path().join("m.json");
        std::fs::write(&path, value.to_string()).unwrap();
        Manifest::read(&path).unwrap_err().to_string()
    }

    #[test]
    fn shipped_manifests_are_named_as_their_files_and_find_the_liver() {
        for name in ["phantom", "lits", "msd-task03-liver", "totalsegmentator", "nnunet", "dicom"] {
            // From a directory below, as `cargo test` runs in the crate's own.
            let manifest = Manifest::load(name, Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
            assert_eq!((manifest.name.as_str(), manifest.target.as_str()), (name, "liver"));
            assert!(manifest.target_values().contains(&1));
            assert!(!manifest.licence.is_empty() && !manifest.how_to_get.is_empty());
        }
        assert_eq!(names_in(&shipped()).len(), 6);
    }

    #[test]
    fn tumour_counts_as_liver_in_lits() {
        assert_eq!(Manifest::read(&shipped().join("lits.json")).unwrap().target_values(), [1, 2]);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let message = refusal(|value| value["pateint"] = "case".into());
        assert!(
            message.contains("unknown field `pateint`") && message.ends_with("did you mean `patient`?"),
            "{message}"
        );
        let message = refusal(|value| value["patient"] = serde_json::json!({ "befor": "_" }));
        assert!(message.ends_with("did you mean `before`?"), "{message}");
    }

    #[test]
    fn the_geometry_tolerance_is_a_twentieth_of_a_voxel_and_at_most_half_a_voxel() {
        let mut manifest = Manifest::read(&shipped().join("lits.json")).unwrap();
        assert_eq!(manifest.geometry_tolerance.voxels(), 0.05);
        assert!(!serde_json::to_string(&manifest).unwrap().contains("tolerance"));
        manifest.geometry_tolerance = 0.5.try_into().unwrap();
        let text = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
        for wrong in [0.0, -0.1, 0.51, f64::INFINITY] {
            assert!(GeometryTolerance::try_from(wrong).is_err(), "{wrong}");
        }
        let message = refusal(|value| value["geometry_tolerance"] = 3.into());
        assert!(message.contains("`geometry_tolerance` is 3, expected voxels: above 0, at most 0.5"), "{message}");
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(refusal(|v| v["target_labels"][0] = "livver".into()).contains("did you mean 'liver'?"));
        assert!(refusal(|v| v["target_labels"] = serde_json::json!([])).contains("`target_labels` is empty"));
        assert!(refusal(|v| v["labels"]["liver"] = 0.into()).contains("background's value"));
        assert!(refusal(|v| v["labels"]["spleen"] = 1.into()).contains("the value 1 twice"));
        assert!(refusal(|v| v["labels"]["ignore"] = 0.into()).contains("the value 0"));
        assert!(refusal(|v| v["image"] = "volume.nii".into()).contains("{case}"));
        assert!(
            refusal(|v| v["orientation"] = serde_json::json!({ "28": "LL" })).contains("'LL' is not an orientation")
        );
    }

    #[test]
    fn an_unknown_manifest_is_refused_with_the_nearest_name() {
        let message = Manifest::load("litts", &shipped().join("..")).unwrap_err().to_string();
        assert!(message.contains("did you mean 'lits'?"), "{message}");
        let elsewhere = tempfile::tempdir().unwrap();
        let message = Manifest::load("lits", elsewhere.path()).unwrap_err().to_string();
        assert!(message.contains("no data-manifests/ in"), "{message}");
    }

    #[test]
    fn folders_of_dicom_series_must_say_how_patients_are_called() {
        let message = refusal(|value| {
            value["image"] = "{case}/".into();
            value.as_object_mut().unwrap().remove("patient");
        });
        assert!(message.contains("`patient` is missing") && message.contains("\"hash\""), "{message}");
        assert!(refusal(|value| value["mask"] = "{case}/".into()).contains("a folder; expected files"));
        assert!(refusal(|value| value["mask"] = serde_json::json!([])).contains("`mask` is empty"));
    }
}
