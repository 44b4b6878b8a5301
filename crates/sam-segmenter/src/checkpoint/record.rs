//! What a safetensors file that was written here says of itself, in the metadata of its header.
//!
//! All values there are text, so that Python reads them as they are:
//! `safetensors.safe_open(file, "pt").metadata()`.

use std::collections::{BTreeMap, HashMap};

use crate::family::Family;
use crate::lora_target::LoraTarget;

/// Version of these entries.
const VERSION: u32 = 1;

const FORMAT_VERSION: &str = "sam_mix_format";
const CONTENT: &str = "content";
const FAMILY: &str = "family";
const ARCHITECTURE: &str = "architecture";
const INPUT_SIZE: &str = "input_size";
const BASE: &str = "base_sha256";
const RANK: &str = "lora_rank";
const TARGETS: &str = "lora_targets";
const ALPHA: &str = "lora_alpha";

/// `content` of a file of adapters, and of any other.
const ADAPTERS: &str = "adapters";
const WEIGHTS: &str = "weights";

/// What a file says of itself; of foreign files nothing is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) family: Option<Family>,
    /// Side of the encoder's input, in pixels.
    pub(crate) input_size: Option<i64>,
    /// Present in files of adapters.
    pub(crate) adapters: Option<AdapterRecord>,
    /// Entries for other readers; they are written and not read.
    pub(crate) notes: BTreeMap<String, String>,
}

/// What adapters belong to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdapterRecord {
    /// Name of the encoder.
    pub(crate) architecture: String,
    pub(crate) rank: usize,
    /// In the order of [`LoraTarget::ALL`].
    pub(crate) targets: Vec<LoraTarget>,
    pub(crate) alpha: Option<f64>,
    /// SHA-256 of the weights that they were trained beside.
    pub(crate) base_sha256: String,
}

impl Record {
    /// From the entries of a header; those of other programs mean nothing.
    pub(super) fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self, String> {
        if !metadata.contains_key(FORMAT_VERSION) {
            return Ok(Self::default());
        }
        let family = metadata.get(FAMILY).and_then(|name| Family::named(name));
        let input_size = metadata.get(INPUT_SIZE).and_then(|text| text.parse().ok());
        let record = Self { family, input_size, ..Self::default() };
        if metadata.get(CONTENT).is_none_or(|content| content != ADAPTERS) {
            return Ok(record);
        }
        let entry = |key: &str| {
            metadata.get(key).ok_or_else(|| format!("its metadata has no '{key}', which files of adapters have"))
        };
        let broken = |key: &str, found: &str| format!("its metadata has '{key}' = '{found}', which can't be read");
        let version: u32 =
            entry(FORMAT_VERSION)?.parse().map_err(|_| broken(FORMAT_VERSION, &metadata[FORMAT_VERSION]))?;
        if version > VERSION {
            return Err(format!(
                "its format has version {version}, expected at most {VERSION}: a newer program wrote it"
            ));
        }
        let targets = entry(TARGETS)?;
        let alpha = metadata.get(ALPHA);
        let adapters = AdapterRecord {
            architecture: entry(ARCHITECTURE)?.clone(),
            rank: entry(RANK)?.parse().map_err(|_| broken(RANK, &metadata[RANK]))?,
            targets: targets
                .split(',')
                .map(LoraTarget::named)
                .collect::<Option<_>>()
                .ok_or_else(|| broken(TARGETS, targets))?,
            alpha: alpha.map(|text| text.parse().map_err(|_| broken(ALPHA, text))).transpose()?,
            base_sha256: entry(BASE)?.clone(),
        };
        Ok(Self { adapters: Some(adapters), ..record })
    }

    /// The entries of a header.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        let mut all = self.notes.clone();
        let mut note = |key: &str, value: String| all.insert(key.to_owned(), value);
        note(FORMAT_VERSION, VERSION.to_string());
        note(CONTENT, if self.adapters.is_some() { ADAPTERS } else { WEIGHTS }.to_owned());
        if let Some(family) = self.family {
            note(FAMILY, family.name().to_owned());
        }
        if let Some(input_size) = self.input_size {
            note(INPUT_SIZE, input_size.to_string());
        }
        if let Some(adapters) = &self.adapters {
            note(ARCHITECTURE, adapters.architecture.clone());
            note(RANK, adapters.rank.to_string());
            note(TARGETS, LoraTarget::list(&adapters.targets));
            if let Some(alpha) = adapters.alpha {
                note(ALPHA, alpha.to_string());
            }
            note(BASE, adapters.base_sha256.clone());
        }
        all
    }

    /// Everything in which a file's adapters are others than the model's; `self` is the model's. `None` where one of them
    /// has no adapters.
    pub(crate) fn differences(&self, found: &Self) -> Option<Vec<String>> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let entries = |of: &Self| {
            let adapters = of.adapters.as_ref()?;
            Some([
                ("family", text(of.family.map(|family| family.name().to_owned()))),
                ("encoder", adapters.architecture.clone()),
                ("input size", text(of.input_size.map(|size| size.to_string()))),
                ("rank", adapters.rank.to_string()),
                ("targets", LoraTarget::list(&adapters.targets)),
                ("alpha", text(adapters.alpha.map(|alpha| alpha.to_string()))),
                ("base weights' SHA-256", adapters.base_sha256.clone()),
            ])
        };
        let pairs = entries(found)?.into_iter().zip(entries(self)?);
        let other = pairs.filter(|((_, found), (_, expected))| found != expected);
        let sentence = |((what, found), (_, expected))| format!("its adapters' {what} is {found}, expected {expected}");
        Some(other.map(sentence).collect())
    }
}
