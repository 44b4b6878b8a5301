//! The stores that runs are trained on and evaluated on, as far as they tell without their slices being read.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

use run_record::read_json;
use serde_json::Value;

/// A prepared store.
pub struct Store {
    pub path: PathBuf,
    pub dataset: String,
    /// The organ.
    pub target: String,
    /// Of its content; `None` in a dry run, which starts nothing that could tell it.
    pub checksum: Option<String>,
}

impl Store {
    /// Reads what it says of itself.
    pub fn open(path: &Path) -> Result<Self> {
        for file in ["store.json", "index.sha256"] {
            ensure!(
                path.join(file).is_file(),
                "'{}' is no store ('{file}' is missing): `cargo xtask prepare --store {}` makes one",
                path.display(),
                path.display()
            );
        }
        let info: Value = read_json(&path.join("store.json"))?;
        let text = |key: &str| {
            let text = info[key].as_str().with_context(|| format!("'{}/store.json' has no {key}", path.display()))?;
            anyhow::Ok(text.to_owned())
        };
        Ok(Self { path: path.into(), dataset: text("dataset")?, target: text("target")?, checksum: None })
    }
}

/// An evaluation is named after its data set.
pub fn check_names(stores: &[Store]) -> Result<()> {
    for (index, store) in stores.iter().enumerate().skip(1) {
        let Store { path, dataset, .. } = store;
        let same = |other: &&Store| other.path == *path || other.dataset == *dataset;
        if stores[0].path == *path {
            bail!("--across '{}' is the store that is trained on", path.display());
        }
        if let Some(other) = stores[1..index].iter().find(same) {
            bail!(
                "'{}' and '{}' are both of the data set `{dataset}`, and would be evaluated into the same file: give one of them",
                other.path.display(),
                path.display()
            );
        }
        ensure!(
            dataset != "test" && dataset != "validation",
            "the data set of '{}' is called `{dataset}`, as a split is: its evaluation would take that one's place",
            path.display()
        );
    }
    Ok(())
}
