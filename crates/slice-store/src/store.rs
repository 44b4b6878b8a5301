//! Reading a store: everything is checked when it is opened, so that reading slices can't fail.
//!
//! Invariant: images and records are everybody's ([`Slices`]); masks are given by the handles of `handles.rs` only.

use crate::crops::{self, Crops};
use crate::index::{self, Digests, Layout, Row};
use crate::mmap::MappedArray;
use crate::{FORMAT_VERSION, SliceId, SliceRecord, StoreError, StoreInfo, files, format1, place};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// What everybody may see of a store: its images and its records, but no mask. The pixels are memory-mapped.
pub struct Slices {
    path: PathBuf,
    info: StoreInfo,
    records: Vec<SliceRecord>,
    /// For each row, its place in `images`.
    case_of_row: Vec<usize>,
    images: Vec<MappedArray<i16>>,
    pub(crate) crops: Crops,
    checksum: String,
}

/// A prepared data set. It gives images and records ([`Slices`]) to everybody; masks are given by the handle that
/// [`Self::for_training`] makes for the slices that were paid for, and by the one that [`Self::for_evaluation`] makes.
pub struct SliceStore {
    slices: Slices,
    pub(crate) masks: Masks,
    digests: Vec<Digests>,
}

/// The masks of a store.
pub(crate) struct Masks {
    /// By case; `None` where no slice of the case has one.
    arrays: Vec<Option<MappedArray<u8>>>,
    /// For each row, which slice of its case's array is its mask.
    place: Vec<Option<usize>>,
    target_pixels: Vec<Option<u32>>,
}

/// A file of pixels, and what it should be.
#[derive(Clone, Debug)]
pub struct StoredArray {
    /// The file.
    pub path: PathBuf,
    /// The SHA-256 (hexadecimal) that it was written with.
    pub sha256: String,
}

impl SliceStore {
    /// Opens a store and checks all of it but the pixels: the version, the settings, the index, and the header and
    /// length of each `.npy` file against the index.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (info, layout) = read_info(path)?;
        for missing in ["index.parquet", "index.sha256"] {
            if !path.join(missing).exists() {
                return Err(StoreError::Unfinished { path: path.to_path_buf(), missing });
            }
        }
        let index_path = path.join("index.parquet");
        let mut rows = index::read(&index_path, layout)?;
        rows.sort_by_cached_key(|row| row.record.id());
        let mut masks = Masks { arrays: Vec::new(), place: Vec::new(), target_pixels: Vec::new() };
        let (mut images, mut digests, mut case_of_row) = (Vec::new(), Vec::new(), Vec::new());
        for rows in rows.chunk_by(|a, b| a.record.case == b.record.case) {
            check_rows(&index_path, rows, layout)?;
            case_of_row.resize(case_of_row.len() + rows.len(), images.len());
            let size = info.settings.slice_size;
            let case = &rows[0].record.case;
            images.push(MappedArray::open(&array_path(path, "images", case), [rows.len(), size, size])?);
            masks.open(path, size, rows)?;
            digests.push(rows[0].digests.clone());
        }
        let mut checksum = checksum(&info, layout, &rows);
        let records: Vec<SliceRecord> = rows.into_iter().map(|row| row.record).collect();
        let (crops, digest) = crops::open(path, &records)?;
        if let Some(digest) = digest {
            checksum = files::sha256(format!("{checksum}\n{digest}\n").as_bytes());
        }
        let slices = Slices { path: path.to_path_buf(), info, records, case_of_row, images, crops, checksum };
        Ok(Self { slices, masks, digests })
    }

    /// Cases of which the store's folders have everything, but which have left the index.
    ///
    /// # Errors
    /// The folder can't be listed.
    pub fn left_out(&self) -> Result<Vec<String>, StoreError> {
        let mut cases: Vec<String> = place::whole_cases(&self.slices.path)?.into_iter().collect();
        cases.retain(|case| self.position(&SliceId { case: case.clone(), index: 0 }).is_none());
        cases.sort_by(|a, b| crate::natural_order(a, b));
        Ok(cases)
    }

    /// The files of pixels with the digests that they were written with; none in a store of format 1, which kept no digests.
    pub fn arrays(&self) -> Vec<StoredArray> {
        let cases = self.slices.records.chunk_by(|a, b| a.case == b.case).map(|rows| &rows[0].case);
        cases
            .zip(&self.digests)
            .flat_map(|(case, digests)| [("images", case, &digests.images), ("masks", case, &digests.masks)])
            .filter_map(|(kind, case, sha256)| {
                Some(StoredArray { path: array_path(&self.slices.path, kind, case), sha256: sha256.clone()? })
            })
            .collect()
    }
}

impl StoredArray {
    /// Reads the whole file and compares it with its digest.
    pub fn verify(&self) -> Result<(), StoreError> {
        let found = files::sha256_of_file(&self.path)?;
        if found == self.sha256 {
            return Ok(());
        }
        Err(StoreError::Changed { path: self.path.clone(), found, expected: self.sha256.clone() })
    }
}

impl Deref for SliceStore {
    type Target = Slices;

    fn deref(&self) -> &Slices {
        &self.slices
    }
}

impl Slices {
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
        self.images[self.case_of_row[row]].slice(self.records[row].index as usize)
    }

    /// SHA-256 (hexadecimal) over the settings, the index, the pixels, what the manifest says of how they are made and what was said of crops: equal
    /// for stores that were prepared in the same way from the same files.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    pub(crate) fn case_of_row(&self, row: usize) -> usize {
        self.case_of_row[row]
    }
}

impl Masks {
    /// Adds the masks of a case.
    fn open(&mut self, store: &Path, size: usize, rows: &[Row]) -> Result<(), StoreError> {
        let mut count = 0;
        for row in rows {
            self.place.push(row.record.has_mask().then_some(count));
            self.target_pixels.push(row.target_pixels);
            count += usize::from(row.record.has_mask());
        }
        let path = array_path(store, "masks", &rows[0].record.case);
        self.arrays.push((count > 0).then(|| MappedArray::open(&path, [count, size, size])).transpose()?);
        Ok(())
    }

    /// The mask in a row of the index; `None` where the store has none. Panics where there is no such row.
    pub(crate) fn of(&self, slices: &Slices, row: usize) -> Option<&[u8]> {
        Some(self.arrays[slices.case_of_row(row)].as_ref()?.slice(self.place[row]?))
    }

    pub(crate) fn target_pixels(&self, row: usize) -> Option<u32> {
        self.target_pixels[row]
    }
}

/// Where the pixels of a case are.
pub(crate) fn array_path(store: &Path, kind: &str, case: &str) -> PathBuf {
    store.join(kind).join(format!("{case}.npy"))
}

/// Reads `store.json`; the version is looked at first, so that another version is named as such.
pub(crate) fn read_info(store: &Path) -> Result<(StoreInfo, Layout), StoreError> {
    let path = store.join("store.json");
    if !path.exists() {
        return Err(StoreError::NotAStore { path: store.to_path_buf() });
    }
    let mut value: serde_json::Value = files::read_json(&path)?;
    let found = value.get("format_version").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let layout = match found {
        1 => {
            let has_masks = format1::take_has_masks(&mut value);
            let missing = || StoreError::damaged(&path, "it is of format 1 and has no `has_masks`");
            Layout::One { has_masks: has_masks.ok_or_else(missing)? }
        }
        _ if found == u64::from(FORMAT_VERSION) => Layout::Two,
        _ => {
            let store = store.to_path_buf();
            return Err(StoreError::FormatVersion { path: store, found, expected: FORMAT_VERSION });
        }
    };
    let info: StoreInfo = serde_json::from_value(value).map_err(|reason| StoreError::Json { path, reason })?;
    info.settings.check()?;
    Ok((info, layout))
}

/// The rows of a case must be of one patient, with indices 0, 1, 2, …, a name that can be a file's, and one set of digests.
fn check_rows(index_path: &Path, rows: &[Row], layout: Layout) -> Result<(), StoreError> {
    let (first, digests) = (&rows[0].record, &rows[0].digests);
    check_case_name(&first.case)?;
    let damaged =
        |problem: String| Err(StoreError::damaged(index_path, format!("case '{}' has {problem}", first.case)));
    for (expected, row) in rows.iter().enumerate() {
        let record = &row.record;
        if record.index as usize != expected {
            return damaged(format!("slice {} where {expected} is expected", record.index));
        }
        if record.patient != first.patient {
            return damaged(format!("two patients: '{}', '{}'", first.patient, record.patient));
        }
        if row.digests != *digests {
            return damaged("digests that differ between its slices".to_owned());
        }
    }
    let has_masks = rows.iter().any(|row| row.record.has_mask());
    let complete = digests.images.is_some() && digests.manifest.is_some() && digests.masks.is_some() == has_masks;
    if layout == Layout::Two && !complete {
        return damaged("no digest of some of its arrays".to_owned());
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

fn checksum(info: &StoreInfo, layout: Layout, rows: &[Row]) -> String {
    let lines = match layout {
        Layout::One { has_masks } => format1::checksum_lines(info, has_masks, rows),
        Layout::Two => checksum_lines(info, rows),
    };
    let mut hash = Sha256::new();
    for json in lines {
        // Plain structs of numbers and text: they can always be written.
        hash.update(json.unwrap_or_default());
        hash.update(b"\n");
    }
    crate::hex(&hash.finalize())
}

/// What is the same in stores that were prepared in the same way from the same files.
fn checksum_lines(info: &StoreInfo, rows: &[Row]) -> Vec<serde_json::Result<Vec<u8>>> {
    #[derive(Serialize)]
    struct Identity<'a> {
        format_version: u32,
        dataset: &'a str,
        target: &'a str,
        settings: &'a crate::StoreSettings,
    }
    let StoreInfo { format_version, dataset, target, settings, tool_version: _, manifest: _ } = info;
    let identity = Identity { format_version: *format_version, dataset, target, settings };
    let mut lines = vec![serde_json::to_vec(&identity)];
    for row in rows {
        let Digests { images, masks, manifest } = &row.digests;
        lines.push(serde_json::to_vec(&(&row.record, row.target_pixels, images, masks, manifest)));
    }
    lines
}
