//! A data set, a place for stores, and `sam-mix-data` as a person uses it.
#![allow(dead_code)]

use super::data_set;
use serde_json::Value;
use slice_store::SliceStore;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sam-mix-data");

/// A data set and a place for stores.
pub struct Scratch {
    pub directory: tempfile::TempDir,
}

impl Scratch {
    pub fn with_cases(cases: usize, shape: [usize; 3]) -> Self {
        let scratch = Self { directory: tempfile::tempdir().unwrap() };
        data_set(&scratch.data(), cases, shape);
        scratch
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn store(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn command(&self, store: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        // The manifest is looked for from the working directory upward.
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["prepare", "--manifest", "lits", "--size", "32"]);
        command.arg("--data").arg(self.data()).arg("--store").arg(self.store(store));
        command
    }

    pub fn prepare(&self, store: &str, more: &[&str]) -> Output {
        self.command(store).args(more).output().unwrap()
    }

    pub fn prepared(&self, store: &str, more: &[&str]) -> SliceStore {
        let output = self.prepare(store, more);
        assert!(output.status.success(), "{}", text(&output.stderr));
        SliceStore::open(&self.store(store)).unwrap()
    }

    /// The LiTS manifest, changed; its path.
    pub fn manifest(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests/lits.json");
        let mut manifest: Value = serde_json::from_slice(&fs::read(shipped).unwrap()).unwrap();
        change(&mut manifest);
        let path = self.directory.path().join(format!("{name}.json"));
        fs::write(&path, manifest.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file of a store but its lock.
pub fn content(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for directory in [store.to_path_buf(), store.join("images"), store.join("masks"), store.join("cases")] {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.ends_with(".lock") {
                files.insert(path.strip_prefix(store).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    files
}
