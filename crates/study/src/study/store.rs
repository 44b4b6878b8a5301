//! The stores that runs are trained on and evaluated on, as far as they tell without their slices being read.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

use run_record::read_json;
use serde_json::Value;

use super::file::DataSet;
use crate::located;

/// A prepared store, or the place of one.
pub struct Store {
    pub path: PathBuf,
    /// Empty where the store is not there.
    pub dataset: String,
    /// The organ.
    pub target: String,
    /// Of its content; `None` in a plan, which starts nothing that could tell it.
    pub checksum: Option<String>,
    /// The data set that it was prepared from, where figures on its volumes' own voxels are wanted.
    pub volumes: Option<PathBuf>,
    /// What to do, where it can't be used.
    pub missing: Option<String>,
    /// Whether its figures are no result.
    pub development: bool,
}

impl Store {
    /// Looks for it from here and from the study's folder upward, and reads what it says of itself.
    pub fn find(of: &DataSet, folder: &Path) -> Self {
        let path = located(&of.store, folder);
        let read = Self::read(&path);
        let missing = read.as_ref().err().map(|error| match &of.prepare {
            Some(prepare) => format!("{error:#}: `{prepare}` makes it"),
            None => format!("{error:#}: `cargo xtask prepare --store {}` makes one", of.store.display()),
        });
        let volumes = of.volumes.as_ref().map(|volumes| located(volumes, folder));
        let missing = missing.or_else(|| {
            let absent = volumes.as_ref().filter(|volumes| !volumes.is_dir())?;
            let store = path.display();
            Some(format!(
                "'{}' is no folder: the data set that '{store}' was prepared from, for `volumes`",
                absent.display()
            ))
        });
        let (dataset, target) = read.unwrap_or_else(|_| (String::new(), "target".into()));
        Self { path, dataset, target, checksum: None, volumes, missing, development: of.development }
    }

    fn read(path: &Path) -> Result<(String, String)> {
        for file in ["store.json", "index.sha256"] {
            ensure!(path.join(file).is_file(), "'{}' is no store ('{file}' is missing)", path.display());
        }
        let info: Value = read_json(&path.join("store.json"))?;
        let text = |key: &str| {
            let text = info[key].as_str().with_context(|| format!("'{}/store.json' has no {key}", path.display()))?;
            anyhow::Ok(text.to_owned())
        };
        Ok((text("dataset")?, text("target")?))
    }

    /// As it is called in tables.
    pub fn label(&self) -> String {
        format!("`{}`{}", self.path.display(), if self.development { " (development data: no result)" } else { "" })
    }
}

/// An evaluation is named after its data set.
pub fn check_names(stores: &[Store]) -> Result<()> {
    for (index, store) in stores.iter().enumerate().skip(1).filter(|(_, store)| store.missing.is_none()) {
        let Store { path, dataset, .. } = store;
        let same = |other: &&Store| other.path == *path || other.dataset == *dataset;
        if stores[0].path == *path {
            bail!("`across` has '{}', the store that is trained on", path.display());
        }
        if let Some(other) = stores[1..index].iter().find(same) {
            bail!(
                "'{}' and '{}' are both of the data set `{dataset}`, and would be evaluated into the same file: keep one of them",
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
