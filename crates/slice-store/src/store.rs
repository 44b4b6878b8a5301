//! Reading a store: everything is checked when it is opened, so that reading slices can't fail.

use crate::mmap::MappedArray;
use crate::{FORMAT_VERSION, SliceId, SliceRecord, StoreError, StoreInfo, files, index};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A prepared data set; its pixels are memory-mapped.
pub struct SliceStore {
    path: PathBuf,
    info: StoreInfo,
    records: Vec<SliceRecord>,
    /// For each row, its place in `cases`.
    case_of_row: Vec<usize>,
    cases: Vec<Case>,
    checksum: String,
}

/// The pixels of a case; without masks where the store has none.
struct Case {
    images: MappedArray<i16>,
    masks: Option<MappedArray<u8>>,
}

impl SliceStore {
    /// Opens a store and checks all of it but the pixels: the version, the settings, the index, and the header and
    /// length of each `.npy` file against the index.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let info = read_info(path)?;
        for missing in ["index.parquet", "index.sha256"] {
            if !path.join(missing).exists() {
                return Err(StoreError::Unfinished { path: path.to_path_buf(), missing });
            }
        }
        let index_path = path.join("index.parquet");
        let mut records = index::read(&index_path)?;
        records.sort_by_cached_key(SliceRecord::id);
        let mut cases = Vec::new();
        let mut case_of_row = Vec::with_capacity(records.len());
        for rows in records.chunk_by(|a, b| a.case == b.case) {
            check_rows(&index_path, rows)?;
            case_of_row.resize(case_of_row.len() + rows.len(), cases.len());
            cases.push(Case::open(path, &rows[0].case, rows.len(), &info)?);
        }
        let checksum = checksum(&info, &records);
        Ok(Self { path: path.to_path_buf(), info, records, case_of_row, cases, checksum })
    }

    /// What the store was made of and how.
    pub fn info(&self) -> &StoreInfo {
        &self.info
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Side of the square slices in pixels.
    pub fn slice_size(&self) -> usize {
        self.info.settings.slice_size
    }

    /// A row for each slice, by case in natural order, then by index.
    pub fn records(&self) -> &[SliceRecord] {
        &self.records
    }

    /// The row of a slice; `None` if the store has no such slice.
    pub fn position(&self, id: &SliceId) -> Option<usize> {
        self.records.binary_search_by(|r| crate::natural_order(&r.case, &id.case).then(r.index.cmp(&id.index))).ok()
    }

    /// The image in a row of the index: HU, `size * size` pixels, row by row. Panics where there is no such row.
    pub fn image(&self, row: usize) -> &[i16] {
        self.cases[self.case_of_row[row]].images.slice(self.records[row].index as usize)
    }

    /// The mask in a row of the index: 1 is the target, `size * size` pixels, row by row; empty if the store has no masks.
    /// Panics where there is no such row.
    pub fn mask(&self, row: usize) -> &[u8] {
        let case = &self.cases[self.case_of_row[row]];
        case.masks.as_ref().map_or(&[], |masks| masks.slice(self.records[row].index as usize))
    }

    /// SHA-256 (hexadecimal) over the settings and the index, whose rows name the source by its own checksum: equal for
    /// stores that were prepared in the same way from the same files.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }
}

impl Case {
    fn open(store: &Path, case: &str, slices: usize, info: &StoreInfo) -> Result<Self, StoreError> {
        let size = info.settings.slice_size;
        let check = |path: &Path, shape: [usize; 3]| {
            if shape == [slices, size, size] {
                return Ok(());
            }
            let expected = [slices, size, size];
            Err(StoreError::damaged(path, format!("it has shape {shape:?}, the index expects {expected:?}")))
        };
        let path = array_path(store, "images", case);
        let images = MappedArray::open(&path)?;
        check(&path, images.shape())?;
        let masks = if info.has_masks {
            let path = array_path(store, "masks", case);
            let masks = MappedArray::open(&path)?;
            check(&path, masks.shape())?;
            Some(masks)
        } else {
            None
        };
        Ok(Self { images, masks })
    }
}

/// Where the pixels of a case are.
pub(crate) fn array_path(store: &Path, kind: &str, case: &str) -> PathBuf {
    store.join(kind).join(format!("{case}.npy"))
}

/// Reads `store.json`; the version is looked at first, so that another version is named as such.
pub(crate) fn read_info(store: &Path) -> Result<StoreInfo, StoreError> {
    let path = store.join("store.json");
    if !path.exists() {
        return Err(StoreError::NotAStore { path: store.to_path_buf() });
    }
    let value: serde_json::Value = files::read_json(&path)?;
    let found = value.get("format_version").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if found != u64::from(FORMAT_VERSION) {
        return Err(StoreError::FormatVersion { path: store.to_path_buf(), found, expected: FORMAT_VERSION });
    }
    let info: StoreInfo = serde_json::from_value(value).map_err(|reason| StoreError::Json { path, reason })?;
    info.settings.check()?;
    Ok(info)
}

/// The rows of a case must be of one patient, with indices 0, 1, 2, … and a name that can be a file's.
fn check_rows(index_path: &Path, rows: &[SliceRecord]) -> Result<(), StoreError> {
    check_case_name(&rows[0].case)?;
    for (expected, row) in rows.iter().enumerate() {
        if row.index as usize != expected {
            let problem = format!("case '{}' has slice {} where {expected} is expected", row.case, row.index);
            return Err(StoreError::damaged(index_path, problem));
        }
        if row.patient != rows[0].patient {
            let problem = format!("case '{}' has two patients: '{}', '{}'", row.case, rows[0].patient, row.patient);
            return Err(StoreError::damaged(index_path, problem));
        }
    }
    Ok(())
}

/// A case is named as its files are.
pub(crate) fn check_case_name(case: &str) -> Result<(), StoreError> {
    let bad = |c: char| c == '/' || c == '\\' || c.is_control();
    if case.is_empty() || case.len() > 200 || case.starts_with('.') || case.contains(bad) {
        return Err(StoreError::CaseName { case: case.to_owned() });
    }
    Ok(())
}

fn checksum(info: &StoreInfo, records: &[SliceRecord]) -> String {
    #[derive(Serialize)]
    struct Identity<'a> {
        format_version: u32,
        dataset: &'a str,
        target: &'a str,
        has_masks: bool,
        settings: &'a crate::StoreSettings,
    }
    let StoreInfo { format_version, dataset, target, has_masks, settings, .. } = info;
    let identity = Identity { format_version: *format_version, dataset, target, has_masks: *has_masks, settings };
    let mut hash = Sha256::new();
    let mut line = |json: serde_json::Result<Vec<u8>>| {
        // Plain structs of numbers and text: they can always be written.
        hash.update(json.unwrap_or_default());
        hash.update(b"\n");
    };
    line(serde_json::to_vec(&identity));
    for record in records {
        line(serde_json::to_vec(record));
    }
    crate::hex(&hash.finalize())
}
