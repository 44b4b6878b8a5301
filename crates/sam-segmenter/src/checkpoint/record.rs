//! What a safetensors file that was written here says of itself, in the metadata of its header.
//!
//! All values there are text, so that Python reads them as they are:
//! `safetensors.safe_open(file, "pt").metadata()`.

use std::collections::{BTreeMap, HashMap};

use crate::architecture::Family;
use crate::settings::LoraTarget;

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
    pub(crate) input_size: i64,
    pub(crate) rank: usize,
    /// In the order of [`LoraTarget::ALL`].
    pub(crate) targets: Vec<LoraTarget>,
    pub(crate) alpha: Option<f64>,
    /// SHA-256 of the weights that they were trained beside.
    pub(crate) base_sha256: String,
}

impl Record {
    /// From the entries of a header. A family that isn't known here is none: the key may be another program's.
    pub(super) fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self, String> {
        let family = metadata.get(FAMILY).and_then(|name| Family::named(name));
        if metadata.get(CONTENT).is_none_or(|content| content != ADAPTERS) {
            return Ok(Self { family, ..Self::default() });
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
            input_size: entry(INPUT_SIZE)?.parse().map_err(|_| broken(INPUT_SIZE, &metadata[INPUT_SIZE]))?,
            rank: entry(RANK)?.parse().map_err(|_| broken(RANK, &metadata[RANK]))?,
            targets: targets
                .split(',')
                .map(LoraTarget::named)
                .collect::<Option<_>>()
                .ok_or_else(|| broken(TARGETS, targets))?,
            alpha: alpha.map(|text| text.parse().map_err(|_| broken(ALPHA, text))).transpose()?,
            base_sha256: entry(BASE)?.clone(),
        };
        Ok(Self { family, adapters: Some(adapters), notes: BTreeMap::new() })
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
        if let Some(adapters) = &self.adapters {
            note(ARCHITECTURE, adapters.architecture.clone());
            note(INPUT_SIZE, adapters.input_size.to_string());
            note(RANK, adapters.rank.to_string());
            note(TARGETS, LoraTarget::list(&adapters.targets));
            if let Some(alpha) = adapters.alpha {
                note(ALPHA, alpha.to_string());
            }
            note(BASE, adapters.base_sha256.clone());
        }
        all
    }
}

impl AdapterRecord {
    /// Everything in which a file's adapters are others than the model's; `self` is the model's.
    pub(crate) fn differences(&self, found: &Self) -> Vec<String> {
        let alpha = |of: &Self| of.alpha.map_or_else(|| "none".to_owned(), |alpha| alpha.to_string());
        let entries = |of: &Self| {
            [
                ("encoder", of.architecture.clone()),
                ("input size", of.input_size.to_string()),
                ("rank", of.rank.to_string()),
                ("targets", LoraTarget::list(&of.targets)),
                ("alpha", alpha(of)),
                ("base weights' SHA-256", of.base_sha256.clone()),
            ]
        };
        let pairs = entries(found).into_iter().zip(entries(self));
        let other = pairs.filter(|((_, found), (_, expected))| found != expected);
        other
            .map(|((what, found), (_, expected))| format!("its adapters' {what} is {found}, expected {expected}"))
            .collect()
    }
}
