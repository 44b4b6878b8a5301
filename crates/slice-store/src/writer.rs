//! Writing a store, case by case and resumably.
//!
//! Invariant: `cases/<case>.json` exists only while its case is whole, `index.parquet` only while the store is.

use crate::store::{array_path, check_case_name, read_info};
use crate::{FORMAT_VERSION, SliceRecord, StoreError, StoreInfo, StoreSettings, files, index, npy};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// Keys of the manifest that say nothing of how slices are made; a store may be resumed after they have changed.
const PROSE: [&str; 4] = ["description", "licence", "citation", "how_to_get"];

/// A prepared case.
pub struct CaseData<'a> {
    /// Its name, which names its files.
    pub case: &'a str,
    /// The patient's key.
    pub patient: &'a str,
    /// HU, `[slices, size, size]`.
    pub images: &'a [i16],
    /// 0 or 1, the same shape; empty if the store has no masks.
    pub masks: &'a [u8],
    /// One for each slice, indices 0, 1, 2, …
    pub records: Vec<SliceRecord>,
    /// What the writer wants to remember of the source; this crate doesn't look into it.
    pub provenance: Value,
}

/// `cases/<case>.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    case: String,
    patient: String,
    source_sha256: String,
    provenance: Value,
    records: Vec<SliceRecord>,
}

/// Writes cases into a store; several threads may share it. One process at a time writes to a store.
pub struct StoreWriter {
    path: PathBuf,
    info: StoreInfo,
    /// Locked as long as the writer lives.
    _lock: File,
}

impl StoreWriter {
    /// Makes a store, or resumes one that was made with the same settings; otherwise the error names the key that
    /// differs. `tool_version` and the manifest's prose may differ.
    pub fn create(path: &Path, info: StoreInfo) -> Result<Self, StoreError> {
        info.settings.check()?;
        if info.format_version != FORMAT_VERSION {
            let found = u64::from(info.format_version);
            return Err(StoreError::FormatVersion { path: path.to_path_buf(), found, expected: FORMAT_VERSION });
        }
        let directories = ["images", "masks", "cases"].map(|name| path.join(name));
        for directory in &directories {
            fs::create_dir_all(directory).map_err(StoreError::io("create", directory))?;
        }
        let lock = lock(path)?;
        files::sweep_temporary_files(path)?;
        for directory in &directories {
            files::sweep_temporary_files(directory)?;
        }
        let info_path = path.join("store.json");
        let cases = fs::read_dir(path.join("cases")).map_or(0, |cases| cases.flatten().count());
        if info_path.exists() && cases > 0 {
            if let Some((key, found, expected)) = settings_difference(path, &info)? {
                return Err(StoreError::SettingsDiffer { path: path.to_path_buf(), key, found, expected, cases });
            }
        } else {
            files::replace_json(&info_path, &info)?;
        }
        Ok(Self { path: path.to_path_buf(), info, _lock: lock })
    }

    /// Makes a store in the place of whatever store is there: all of its cases are removed first.
    pub fn replace(path: &Path, info: StoreInfo) -> Result<Self, StoreError> {
        if path.join("store.json").exists() {
            let _lock = lock(path)?;
            // The index first: from here on the store is unfinished, and every case is whole or gone.
            remove_if_there(&path.join("index.parquet"))?;
            for (directory, extension) in [("cases", "json"), ("images", "npy"), ("masks", "npy")] {
                files::remove_files(&path.join(directory), extension)?;
            }
            remove_if_there(&path.join("store.json"))?;
        }
        Self::create(path, info)
    }

    /// What the store is made of and how.
    pub fn info(&self) -> &StoreInfo {
        &self.info
    }

    /// Whether a case is whole and was made from these source files.
    pub fn has_case(&self, case: &str, source_sha256: &str) -> bool {
        read_case(&self.path, &self.info, case).is_some_and(|file| file.source_sha256 == source_sha256)
    }

    /// The checksum of the source and the provenance of a case that is whole.
    pub fn provenance(&self, case: &str) -> Option<(String, Value)> {
        case_provenance(&self.path, &self.info, case)
    }

    /// Names of the whole cases, in natural order.
    pub fn cases(&self) -> Result<Vec<String>, StoreError> {
        let directory = self.path.join("cases");
        let mut cases = Vec::new();
        for entry in fs::read_dir(&directory).map_err(StoreError::io("list", &directory))? {
            let name = entry.map_err(StoreError::io("list", &directory))?.file_name();
            cases.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
        }
        cases.sort_by(|a, b| crate::natural_order(a, b));
        Ok(cases)
    }

    /// Writes a case whole or not at all; an older one of the same name is replaced. Until [`Self::finish`] the store
    /// has no index.
    pub fn write_case(&self, data: CaseData<'_>) -> Result<(), StoreError> {
        let source_sha256 = self.check_case(&data)?;
        remove_if_there(&self.path.join("index.parquet"))?;
        let case_path = self.case_path(data.case);
        remove_if_there(&case_path)?;
        let size = self.info.settings.slice_size;
        let shape = [data.records.len(), size, size];
        let mut written = vec![array_path(&self.path, "images", data.case)];
        let attempt = (|| {
            files::replace_file(&written[0], |file| npy::write(data.images, shape, file))?;
            if self.info.has_masks {
                written.push(array_path(&self.path, "masks", data.case));
                files::replace_file(&written[1], |file| npy::write(data.masks, shape, file))?;
            }
            let CaseData { case, patient, records, provenance, .. } = data;
            let (case, patient) = (case.to_owned(), patient.to_owned());
            files::replace_json(&case_path, &CaseFile { case, patient, source_sha256, provenance, records })
        })();
        if attempt.is_err() {
            // Half a case is worth nothing, and the disk may be full.
            for path in written {
                let _ = fs::remove_file(path);
            }
        }
        attempt
    }

    /// Writes `index.parquet` from the whole cases and gives its records. Nothing is written if the index is there and
    /// says the same.
    pub fn finish(&self) -> Result<Vec<SliceRecord>, StoreError> {
        let mut records = Vec::new();
        for case in self.cases()? {
            let path = self.case_path(&case);
            let file: CaseFile = files::read_json(&path)?;
            if file.case != case {
                return Err(StoreError::damaged(&path, format!("it is about case '{}'", file.case)));
            }
            records.extend(file.records);
        }
        records.sort_by_cached_key(SliceRecord::id);
        let path = self.path.join("index.parquet");
        let unchanged = path.exists() && index::read(&path).is_ok_and(|old| old == records);
        if !unchanged {
            remove_if_there(&path)?;
            index::write(&path, &records)?;
        }
        Ok(records)
    }

    fn case_path(&self, case: &str) -> PathBuf {
        self.path.join("cases").join(format!("{case}.json"))
    }

    /// Checks that images, masks and records agree; gives the checksum that all records share.
    fn check_case(&self, data: &CaseData<'_>) -> Result<String, StoreError> {
        check_case_name(data.case)?;
        let error = |problem: String| StoreError::CaseData { case: data.case.to_owned(), problem };
        let pixels = self.info.settings.slice_size.pow(2);
        let count = data.records.len();
        let source = match data.records.first() {
            Some(record) => record.source_sha256.clone(),
            None => return Err(error("it has no slices".to_owned())),
        };
        if data.images.len() != count * pixels {
            return Err(error(format!("{} image pixels, expected {count} slices of {pixels}", data.images.len())));
        }
        let mask_pixels = if self.info.has_masks { data.images.len() } else { 0 };
        if data.masks.len() != mask_pixels {
            return Err(error(format!("{} mask pixels, expected {mask_pixels}", data.masks.len())));
        }
        let [low, high] = self.info.settings.stored_hu;
        if let Some(hu) = data.images.iter().find(|hu| !(low..=high).contains(hu)) {
            return Err(error(format!("a pixel of {hu} HU, expected {low} to {high}")));
        }
        if let Some(value) = data.masks.iter().find(|&&value| value > 1) {
            return Err(error(format!("a mask pixel of {value}, expected 0 or 1")));
        }
        for (index, record) in data.records.iter().enumerate() {
            let expected = (data.case, data.patient, index, source.as_str());
            let found = (&*record.case, &*record.patient, record.index as usize, &*record.source_sha256);
            if found != expected {
                return Err(error(format!("record {index} is of {found:?}, expected {expected:?}")));
            }
            let mm = [record.position_mm, record.row_spacing_mm, record.column_spacing_mm, record.slice_spacing_mm];
            if mm.iter().any(|mm| !mm.is_finite()) {
                return Err(error(format!("record {index} has a position or spacing of {mm:?} mm")));
            }
            let target = data.masks.get(index * pixels..(index + 1) * pixels).unwrap_or_default();
            let counted = target.iter().map(|&value| u32::from(value)).sum::<u32>();
            if record.target_pixels != counted {
                return Err(error(format!(
                    "record {index} tells {} target pixels, its mask has {counted}",
                    record.target_pixels
                )));
            }
        }
        Ok(source)
    }
}

/// The checksum of the source and the provenance of a case that is whole in the store at `path`.
pub fn case_provenance(path: &Path, info: &StoreInfo, case: &str) -> Option<(String, Value)> {
    read_case(path, info, case).map(|file| (file.source_sha256, file.provenance))
}

/// The case's file, if the case is whole: pixels of a plausible length are there too.
fn read_case(path: &Path, info: &StoreInfo, case: &str) -> Option<CaseFile> {
    let file: CaseFile = files::read_json(&path.join("cases").join(format!("{case}.json"))).ok()?;
    let pixels = (file.records.len() * info.settings.slice_size.pow(2)) as u64;
    let holds = |kind, bytes| fs::metadata(array_path(path, kind, case)).is_ok_and(|file| file.len() > bytes);
    (holds("images", 2 * pixels) && (!info.has_masks || holds("masks", pixels))).then_some(file)
}

/// The settings of the store at `path`; `None` if there is no store.
pub fn settings_of(path: &Path) -> Result<Option<StoreSettings>, StoreError> {
    if path.join("store.json").exists() { read_info(path).map(|info| Some(info.settings)) } else { Ok(None) }
}

/// The first key in which the store at `path` was made otherwise than `info` says, and both values.
pub fn settings_difference(path: &Path, info: &StoreInfo) -> Result<Option<(String, String, String)>, StoreError> {
    Ok(difference(&read_info(path)?, info))
}

fn lock(store: &Path) -> Result<File, StoreError> {
    let path = store.join(".lock");
    let file = File::create(&path).map_err(StoreError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: store.to_path_buf() }),
        // Some network file systems know no locks.
        Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(reason)) => Err(StoreError::Io { action: "lock", path, reason }),
    }
}

fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The first difference in what decides how slices are made.
fn difference(found: &StoreInfo, expected: &StoreInfo) -> Option<(String, String, String)> {
    let comparable = |info: &StoreInfo| {
        let mut value = serde_json::to_value(info).unwrap_or_default();
        if let Some(store) = value.as_object_mut() {
            store.remove("tool_version");
            if let Some(manifest) = store.get_mut("manifest").and_then(Value::as_object_mut) {
                manifest.retain(|key, _| !PROSE.contains(&key.as_str()));
            }
        }
        value
    };
    first_difference("", &comparable(found), &comparable(expected))
}

/// The dotted key and the two values of the first difference of two JSON values.
fn first_difference(key: &str, found: &Value, expected: &Value) -> Option<(String, String, String)> {
    let (Value::Object(a), Value::Object(b)) = (found, expected) else {
        return (found != expected).then(|| (key.to_owned(), found.to_string(), expected.to_string()));
    };
    let join = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))).find_map(|name| match (a.get(name), b.get(name)) {
        (Some(a), Some(b)) => first_difference(&join(name), a, b),
        (a, b) => {
            let show = |value: Option<&Value>| value.map_or("not set".to_owned(), Value::to_string);
            Some((join(name), show(a), show(b)))
        }
    })
}
