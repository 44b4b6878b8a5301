//! Masks that come into a store after it was prepared, and out again.
//!
//! Invariants: images, and the labels of all other slices, stay as they are; a mask that another takes the place of is kept in
//! `labels/`. New files lie beside the old ones, as `….next`, until all of them are whole; a mark then says that they count, and whoever
//! opens the store next for writing finishes what a process that was ended there began.

use crate::mmap::MappedArray;
use crate::store::{array_path, read_info};
use crate::writer::{CaseFile, Import, case_path, remove_if_there};
use crate::{IGNORED, PresenceSource, SliceLabel, SliceRecord, StoreError, StoreWriter, files, npy};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A case with other masks than before, written and not yet in its place: [`StoreWriter::commit`] puts it there.
#[derive(Debug)]
pub struct Relabelled {
    /// What was imported, or taken back.
    pub import: Import,
}

/// The mark: cases of the index, which the finished store has again.
#[derive(Serialize, Deserialize)]
struct Commit {
    cases: BTreeSet<String>,
}

impl StoreWriter {
    /// Opens a store that is there and whole, to change masks in it.
    ///
    /// # Errors
    /// There is no store, its preparation is unfinished, it is of an older format, or another process is writing to it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (info, _) = read_info(path)?;
        let writer = Self::create(path, info)?;
        if !path.join("index.parquet").exists() {
            return Err(StoreError::Unfinished { path: path.to_path_buf(), missing: "index.parquet" });
        }
        Ok(writer)
    }

    /// The records of a whole case, and what was imported into it.
    ///
    /// # Errors
    /// There is no such case, or its file can't be read.
    pub fn case(&self, case: &str) -> Result<(Vec<SliceRecord>, Vec<Import>), StoreError> {
        self.read_case(case).map(|file| (file.records, file.imports))
    }

    /// Gives slices of a case the masks `masks`, 0, 1 or [`IGNORED`], by slice; `origin` is remembered.
    ///
    /// # Errors
    /// A slice that the case doesn't have, a mask of another size or with another value, and what the operating system says.
    pub fn import(&self, case: &str, masks: &BTreeMap<u32, Vec<u8>>, origin: Value) -> Result<Relabelled, StoreError> {
        let mut file = self.read_case(case)?;
        let error = |problem: String| StoreError::CaseData { case: case.to_owned(), problem };
        let (slices, pixels) = (file.records.len(), self.info().settings.slice_size.pow(2));
        for (slice, mask) in masks {
            if *slice as usize >= slices {
                return Err(error(format!("a mask of slice {slice}, but it has {slices} slices, counted from 0")));
            }
            if mask.len() != pixels || mask.iter().any(|&value| value > 1 && value != IGNORED) {
                return Err(error(format!("its mask of slice {slice} is not {pixels} pixels of 0, 1 or {IGNORED}")));
            }
            if SliceLabel::of_mask(mask) == SliceLabel::Unknown {
                return Err(error(format!(
                    "its mask of slice {slice} has no target and is ignored in part: it says nothing"
                )));
            }
        }
        let mut all = self.masks_of(&file)?;
        let number = file.imports.iter().map(|import| import.number).max().unwrap_or(0) + 1;
        let before = masks.keys().map(|&slice| (slice, file.records[slice as usize].label)).collect();
        let import = Import { number, origin, before };
        let kept: BTreeMap<u32, Vec<u8>> =
            masks.keys().filter_map(|slice| Some((*slice, all.get(slice)?.clone()))).collect();
        if !kept.is_empty() {
            let path = self.kept_path(case, number);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
            }
            let size = self.info().settings.slice_size;
            let masks: Vec<u8> = kept.values().flatten().copied().collect();
            files::replace_file(&next(&path), |to| npy::write(&masks, [kept.len(), size, size], to))?;
        }
        for (slice, mask) in masks {
            file.records[*slice as usize].label = SliceLabel::of_mask(mask);
            all.insert(*slice, mask.clone());
        }
        file.imports.push(import.clone());
        self.staged(file, import, &all)
    }

    /// Takes the last import of a case back: its slices are again what they were before. `None` where nothing was imported.
    ///
    /// # Errors
    /// There is no such case, what was kept can't be read, and what the operating system says.
    pub fn undo_import(&self, case: &str) -> Result<Option<Relabelled>, StoreError> {
        let mut file = self.read_case(case)?;
        let Some(import) = file.imports.pop() else { return Ok(None) };
        let mut all = self.masks_of(&file)?;
        let with_mask = import.before.iter().filter(|(_, label)| label.source() == PresenceSource::Mask);
        let had_mask: Vec<u32> = with_mask.map(|(&slice, _)| slice).collect();
        let (size, path) = (self.info().settings.slice_size, self.kept_path(case, import.number));
        let kept = if had_mask.is_empty() {
            None
        } else {
            Some(MappedArray::<u8>::open(&path, [had_mask.len(), size, size])?)
        };
        for (&slice, &label) in &import.before {
            file.records[slice as usize].label = label;
            all.remove(&slice);
        }
        for (place, &slice) in had_mask.iter().enumerate() {
            all.insert(slice, kept.as_ref().map_or_else(Vec::new, |kept| kept.slice(place).to_vec()));
        }
        self.staged(file, import, &all).map(Some)
    }

    /// Puts the cases with other masks into their places, and makes the index of all. Ended anywhere, it is finished when the store is
    /// opened for writing again.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn commit(&self, relabelled: Vec<Relabelled>) -> Result<Vec<SliceRecord>, StoreError> {
        // Each has its files beside the store's own; which they are, their names say.
        drop(relabelled);
        files::replace_json(&self.mark(), &Commit { cases: self.cases_before().clone() })?;
        self.finish_commit()
    }

    /// Forgets what was written for cases that are not to be in their places after all.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn discard(&self) -> Result<(), StoreError> {
        for folder in self.label_folders()?.into_iter().chain(["masks", "cases"].map(|name| self.path().join(name))) {
            files::remove_files(&folder, NEXT)?;
        }
        Ok(())
    }

    /// Finishes what a process that was ended had begun, or forgets what it had not.
    pub(crate) fn recover(&self) -> Result<(), StoreError> {
        if self.mark().exists() { self.finish_commit().map(drop) } else { self.discard() }
    }

    fn finish_commit(&self) -> Result<Vec<SliceRecord>, StoreError> {
        let Commit { cases } = files::read_json(&self.mark())?;
        remove_if_there(&self.path().join("index.parquet"))?;
        for case in &cases {
            let (file, array) = (case_path(self.path(), case), array_path(self.path(), "masks", case));
            if !next(&file).exists() {
                continue;
            }
            let new: CaseFile = files::read_json(&next(&file))?;
            let numbers: BTreeSet<u32> = new.imports.iter().map(|import| import.number).collect();
            for &number in &numbers {
                rename_if_there(&self.kept_path(case, number))?;
            }
            rename_if_there(&array)?;
            if new.masks_sha256.is_none() {
                remove_if_there(&array)?;
            }
            rename_if_there(&file)?;
            // What was taken back, and is no longer needed.
            let mut number = numbers.last().map_or(1, |last| last + 1);
            while self.kept_path(case, number).exists() {
                remove_if_there(&self.kept_path(case, number))?;
                number += 1;
            }
        }
        let records = self.finish(cases.iter().map(String::as_str))?;
        remove_if_there(&self.mark())?;
        Ok(records)
    }

    fn mark(&self) -> PathBuf {
        self.path().join("commit.json")
    }

    /// The folders of the cases into which anything was imported.
    fn label_folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.path().join("labels");
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&folder).map_err(StoreError::io("list", &folder))?;
        entries.map(|entry| entry.map(|entry| entry.path()).map_err(StoreError::io("list", &folder))).collect()
    }

    /// Where the masks are that an import took the place of.
    fn kept_path(&self, case: &str, number: u32) -> PathBuf {
        self.path().join("labels").join(case).join(format!("before-{number:04}.npy"))
    }

    fn read_case(&self, case: &str) -> Result<CaseFile, StoreError> {
        files::read_json(&case_path(self.path(), case))
    }

    /// All masks of a case, by slice.
    fn masks_of(&self, file: &CaseFile) -> Result<BTreeMap<u32, Vec<u8>>, StoreError> {
        if file.mask_slices.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (size, path) = (self.info().settings.slice_size, array_path(self.path(), "masks", &file.case));
        let masks = MappedArray::<u8>::open(&path, [file.mask_slices.len(), size, size])?;
        Ok(file.mask_slices.iter().enumerate().map(|(place, &slice)| (slice, masks.slice(place).to_vec())).collect())
    }

    /// Writes a case with these masks beside what it was.
    fn staged(
        &self,
        mut file: CaseFile,
        import: Import,
        masks: &BTreeMap<u32, Vec<u8>>,
    ) -> Result<Relabelled, StoreError> {
        let size = self.info().settings.slice_size;
        let count = |mask: &[u8]| -> u32 { mask.iter().map(|&value| u32::from(value == 1)).sum() };
        (file.mask_slices, file.target_pixels) = masks.iter().map(|(slice, mask)| (*slice, count(mask))).unzip();
        file.masks_sha256 = if masks.is_empty() {
            None
        } else {
            let all: Vec<u8> = masks.values().flatten().copied().collect();
            let path = next(&array_path(self.path(), "masks", &file.case));
            Some(files::replace_file_hashed(&path, |to| npy::write(&all, [masks.len(), size, size], to))?)
        };
        files::replace_json(&next(&case_path(self.path(), &file.case)), &file)?;
        Ok(Relabelled { import })
    }
}

/// How the names of new files end, until they are in their places.
const NEXT: &str = "next";

fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(NEXT);
    PathBuf::from(name)
}

/// Gives a new file its own name, unless that was done before.
fn rename_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::rename(next(path), path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("write", path)(error)),
        _ => Ok(()),
    }
}
