//! Writing a store, case by case and resumably.
//!
//! Invariant: `cases/<case>.json` exists only while its case is whole, `index.parquet` only while the store is.

use crate::crops;
use crate::index::{Digests, Row};
use crate::place::{self, Place, whole_cases};
use crate::store::{array_path, check_case_name, read_info};
use crate::{
    FORMAT_VERSION, IGNORED, SliceLabel, SliceRecord, StoreError, StoreInfo, StoreSettings, files, index, npy,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A prepared case.
pub struct CaseData<'a> {
    /// Its name, which names its files.
    pub case: &'a str,
    /// The patient's key.
    pub patient: &'a str,
    /// HU, `[slices, size, size]`.
    pub images: &'a [i16],
    /// 0 or 1, `[slices with a mask, size, size]`: of those slices whose record says that they have one, in their order.
    pub masks: &'a [u8],
    /// One for each slice, indices 0, 1, 2, …
    pub records: Vec<SliceRecord>,
    /// What of the manifest decides how this case's slices are made. The store's checksum covers it.
    pub manifest: Value,
    /// What the writer wants to remember of the source; this crate doesn't look into it.
    pub provenance: Value,
}

/// What a store remembers of a case that is whole.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownCase {
    /// The checksum of its source.
    pub source_sha256: String,
    /// [`CaseData::manifest`].
    pub manifest: Value,
    /// [`CaseData::provenance`].
    pub provenance: Value,
    /// Whether masks were imported into it since.
    pub has_imports: bool,
}

/// `cases/<case>.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFile {
    pub case: String,
    patient: String,
    source_sha256: String,
    /// Of `images/<case>.npy`.
    images_sha256: String,
    /// Of `masks/<case>.npy`; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks_sha256: Option<String>,
    /// The slices of `masks/<case>.npy`, in its order.
    pub mask_slices: Vec<u32>,
    /// Pixels of the target in each of them.
    pub target_pixels: Vec<u32>,
    manifest: Value,
    provenance: Value,
    pub records: Vec<SliceRecord>,
    /// What came in after the case was prepared, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<Import>,
}

/// Masks that came into a case at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Counted from 1 in each case; names the file of what was there before.
    pub number: u32,
    /// What is known of its origin; this crate doesn't look into it.
    pub origin: Value,
    /// The slices that got a mask, and what each was before.
    pub before: BTreeMap<u32, SliceLabel>,
}

/// What was found out about a case's data before they are written.
struct Counted {
    source_sha256: String,
    mask_slices: Vec<u32>,
    target_pixels: Vec<u32>,
}

/// Writes cases into a store; several threads may share it. One process at a time writes to a store.
pub struct StoreWriter {
    path: PathBuf,
    info: StoreInfo,
    /// Cases of the index that was there, or all whole ones where there was none.
    before: BTreeSet<String>,
    /// Locked as long as the writer lives.
    _lock: File,
}

impl StoreWriter {
    /// Makes a store, or resumes one that was made with the same settings; otherwise the error names the key that
    /// differs. `tool_version`, the manifest's prose and what it says of single cases may differ.
    ///
    /// # Errors
    /// As [`Self::check`], and another process is writing to the store.
    pub fn create(path: &Path, info: StoreInfo) -> Result<Self, StoreError> {
        Self::check(path, &info)?;
        let lock = place::lock(path)?;
        // Again: another process may have made a store here since.
        Self::check(path, &info)?;
        place::sweep(path)?;
        let before = cases_in(path)?;
        if whole_cases(path)?.is_empty() {
            // Before the other directories: from here on this one is a store.
            files::replace_json(&path.join("store.json"), &info)?;
        }
        for directory in ["images", "masks", "cases"].map(|name| path.join(name)) {
            fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        }
        let writer = Self { path: path.to_path_buf(), info, before, _lock: lock };
        writer.recover()?;
        Ok(writer)
    }

    /// Makes a store in the place of whatever store is there: all of its cases are removed first.
    ///
    /// # Errors
    /// As [`Self::check_place`], and another process is writing to the store.
    pub fn replace(path: &Path, info: StoreInfo) -> Result<Self, StoreError> {
        if place::of(path)? == Place::Store {
            let _lock = place::lock(path)?;
            // The index first: from here on the store is unfinished, and every case is whole or gone.
            remove_if_there(&path.join("index.parquet"))?;
            for (directory, extension) in [("cases", "json"), ("images", "npy"), ("masks", "npy")] {
                files::remove_files(&path.join(directory), extension)?;
            }
            remove_if_there(&path.join("commit.json"))?;
            remove_if_there(&crops::path_of(path))?;
            let labels = path.join("labels");
            if labels.is_dir() {
                fs::remove_dir_all(&labels).map_err(StoreError::io("remove", &labels))?;
            }
        }
        Self::create(path, info)
    }

    /// What [`Self::create`] would refuse; nothing is written.
    ///
    /// # Errors
    /// Settings are out of their range or not those of the store that is there, which may be of an older format; or the
    /// directory is neither empty nor a store.
    pub fn check(path: &Path, info: &StoreInfo) -> Result<(), StoreError> {
        info.settings.check()?;
        if info.format_version != FORMAT_VERSION {
            let found = u64::from(info.format_version);
            return Err(StoreError::FormatVersion { path: path.to_path_buf(), found, expected: FORMAT_VERSION });
        }
        let cases = whole_cases(path)?.len();
        if place::of(path)? == Place::Store && cases > 0 {
            let (found, _) = read_info(path)?;
            if let Some((key, found, expected)) = difference(&found, info) {
                return Err(StoreError::SettingsDiffer { path: path.to_path_buf(), key, found, expected, cases });
            }
        }
        Ok(())
    }

    /// What [`Self::replace`] would refuse; nothing is written.
    ///
    /// # Errors
    /// The directory is neither empty nor a store.
    pub fn check_place(path: &Path) -> Result<(), StoreError> {
        place::of(path).map(drop)
    }

    /// Whether cases may be taken over from the store at `from` into one of that `info`.
    ///
    /// # Errors
    /// There is no store, or one of other settings.
    pub fn check_source(from: &Path, info: &StoreInfo) -> Result<(), StoreError> {
        read_info(from)?;
        Self::check(from, info)
    }

    /// The store's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the store is made of and how.
    pub fn info(&self) -> &StoreInfo {
        &self.info
    }

    /// What is known of a case that is whole.
    pub fn known(&self, case: &str) -> Option<KnownCase> {
        KnownCase::read(&self.path, &self.info, case)
    }

    /// Names of the cases that the store had before; those of them that [`Self::finish`] is not given leave it.
    pub fn cases_before(&self) -> &BTreeSet<String> {
        &self.before
    }

    /// Whether masks were imported into a case.
    pub fn has_imports(&self, case: &str) -> bool {
        self.case(case).is_ok_and(|(_, imports)| !imports.is_empty()) || crops::has_answers_of(&self.path, case)
    }

    /// Writes a case whole or not at all; an older one of the same name is replaced, unless masks were imported into it, which would
    /// be lost. Until [`Self::finish`] the store has no index.
    pub fn write_case(&self, data: CaseData<'_>) -> Result<(), StoreError> {
        let counted = self.check_case(&data)?;
        if self.has_imports(data.case) {
            let problem = "masks or answers about its crops were imported into it, which preparing it anew would lose; prepare another store and import them there, \
                           or --redo, which begins all of this one anew";
            return Err(StoreError::CaseData { case: data.case.to_owned(), problem: problem.to_owned() });
        }
        remove_if_there(&self.path.join("index.parquet"))?;
        let case_path = case_path(&self.path, data.case);
        remove_if_there(&case_path)?;
        let size = self.info.settings.slice_size;
        let (images, masks) = (array_path(&self.path, "images", data.case), array_path(&self.path, "masks", data.case));
        let attempt = (|| {
            let shape = [data.records.len(), size, size];
            let images_sha256 = files::replace_file_hashed(&images, |file| npy::write(data.images, shape, file))?;
            let masks_sha256 = if counted.mask_slices.is_empty() {
                remove_if_there(&masks)?;
                None
            } else {
                let shape = [counted.mask_slices.len(), size, size];
                Some(files::replace_file_hashed(&masks, |file| npy::write(data.masks, shape, file))?)
            };
            let Counted { source_sha256, mask_slices, target_pixels } = counted;
            let CaseData { case, patient, records, manifest, provenance, images: _, masks: _ } = data;
            let (case, patient) = (case.to_owned(), patient.to_owned());
            let file = CaseFile {
                case,
                patient,
                source_sha256,
                images_sha256,
                masks_sha256,
                mask_slices,
                target_pixels,
                manifest,
                provenance,
                records,
                imports: Vec::new(),
            };
            files::replace_json(&case_path, &file)
        })();
        if attempt.is_err() {
            // Half a case is worth nothing, and the disk may be full.
            for path in [images, masks] {
                let _ = fs::remove_file(path);
            }
        }
        attempt
    }

    /// Takes over a whole case of another store of the same settings, with the same bytes.
    ///
    /// # Errors
    /// Masks were imported into it, here or there; its arrays are not what they were when they were written. Then this store has
    /// nothing of it.
    pub fn adopt(&self, from: &Path, case: &str) -> Result<(), StoreError> {
        let file: CaseFile = files::read_json(&case_path(from, case))?;
        if self.has_imports(case) || !file.imports.is_empty() || crops::has_answers_of(from, case) {
            let problem = format!(
                "masks or answers about its crops were imported into it, here or in '{}', which would be lost: merge stores before anything is \
                 imported into them",
                from.display()
            );
            return Err(StoreError::CaseData { case: case.to_owned(), problem });
        }
        remove_if_there(&self.path.join("index.parquet"))?;
        remove_if_there(&case_path(&self.path, case))?;
        let copy = |kind: &str, expected: &str| {
            let (source, to) = (array_path(from, kind, case), array_path(&self.path, kind, case));
            let mut bytes = File::open(&source).map_err(StoreError::io("read", &source))?;
            let found = files::replace_file_hashed(&to, |file| std::io::copy(&mut bytes, file).map(drop))?;
            if found == expected {
                return Ok(());
            }
            Err(StoreError::damaged(
                &source,
                "its bytes are not those that were written; prepare that store again".to_owned(),
            ))
        };
        if file.masks_sha256.is_none() {
            remove_if_there(&array_path(&self.path, "masks", case))?;
        }
        let attempt = copy("images", &file.images_sha256)
            .and_then(|()| file.masks_sha256.as_ref().map_or(Ok(()), |sha256| copy("masks", sha256)))
            .and_then(|()| files::replace_json(&case_path(&self.path, case), &file));
        if attempt.is_err() {
            for kind in ["images", "masks"] {
                let _ = fs::remove_file(array_path(&self.path, kind, case));
            }
        }
        attempt
    }

    /// Writes `index.parquet` of these cases and gives its records. A whole case that is not among them is not in the index, and
    /// its files stay as they are. Nothing is written if the index is there and says the same; without a case there is none.
    pub fn finish<'a>(&self, cases: impl IntoIterator<Item = &'a str>) -> Result<Vec<SliceRecord>, StoreError> {
        let mut rows = Vec::new();
        for case in cases {
            let path = case_path(&self.path, case);
            let file: CaseFile = files::read_json(&path)?;
            if file.case != case {
                return Err(StoreError::damaged(&path, format!("it is about case '{}'", file.case)));
            }
            rows.extend(file.rows().map_err(|problem| StoreError::damaged(&path, problem))?);
        }
        rows.sort_by_cached_key(|row| row.record.id());
        let path = self.path.join("index.parquet");
        let unchanged = path.exists() && index::read(&path, index::Layout::Two).is_ok_and(|old| old == rows);
        if !unchanged {
            remove_if_there(&path)?;
        }
        // What may differ from the store that was resumed.
        if read_info(&self.path)?.0.manifest != self.info.manifest {
            files::replace_json(&self.path.join("store.json"), &self.info)?;
        }
        if !unchanged && !rows.is_empty() {
            index::write(&path, &rows)?;
        }
        Ok(rows.into_iter().map(|row| row.record).collect())
    }

    /// Checks that images, masks and records agree; gives what follows from them.
    fn check_case(&self, data: &CaseData<'_>) -> Result<Counted, StoreError> {
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
        let mask_slices: Vec<u32> = data.records.iter().filter(|r| r.has_mask()).map(|r| r.index).collect();
        if data.masks.len() != mask_slices.len() * pixels {
            let expected = format!("{} masks of {pixels}, as the records say", mask_slices.len());
            return Err(error(format!("{} mask pixels, expected {expected}", data.masks.len())));
        }
        let [low, high] = self.info.settings.stored_hu;
        if let Some(hu) = data.images.iter().find(|hu| !(low..=high).contains(hu)) {
            return Err(error(format!("a pixel of {hu} HU, expected {low} to {high}")));
        }
        if let Some(value) = data.masks.iter().find(|&&value| value > 1 && value != IGNORED) {
            return Err(error(format!("a mask pixel of {value}, expected 0, 1 or {IGNORED}")));
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
        }
        let with_mask = data.records.iter().filter(|record| record.has_mask());
        for (record, mask) in with_mask.zip(data.masks.chunks_exact(pixels)) {
            let label = SliceLabel::of_mask(mask);
            if record.label != label {
                return Err(error(format!("record {} is {:?}, its mask {label:?}", record.index, record.label)));
            }
        }
        let target = |mask: &[u8]| mask.iter().map(|&value| u32::from(value == 1)).sum();
        let target_pixels = data.masks.chunks_exact(pixels).map(target).collect();
        Ok(Counted { source_sha256: source, mask_slices, target_pixels })
    }
}

impl KnownCase {
    /// What the store at `path` remembers of a case; `None` if the case isn't whole: pixels of a plausible length are there too.
    pub fn read(path: &Path, info: &StoreInfo, case: &str) -> Option<Self> {
        let file: CaseFile = files::read_json(&case_path(path, case)).ok()?;
        let pixels = info.settings.slice_size.pow(2);
        let holds =
            |kind, bytes: usize| fs::metadata(array_path(path, kind, case)).is_ok_and(|file| file.len() > bytes as u64);
        let masks = file.mask_slices.len();
        let is_whole =
            holds("images", 2 * pixels * file.records.len()) && (masks == 0 || holds("masks", pixels * masks));
        let CaseFile { source_sha256, manifest, provenance, imports, .. } = file;
        is_whole.then_some(Self { source_sha256, manifest, provenance, has_imports: !imports.is_empty() })
    }
}

impl CaseFile {
    /// Its rows of the index.
    fn rows(self) -> Result<Vec<Row>, String> {
        let manifest = serde_json::to_vec(&self.manifest).map_err(|error| error.to_string())?;
        let digests = Digests {
            images: Some(self.images_sha256),
            masks: self.masks_sha256,
            manifest: Some(files::sha256(&manifest)),
        };
        let with_mask: Vec<u32> = self.records.iter().filter(|r| r.has_mask()).map(|r| r.index).collect();
        if with_mask != self.mask_slices || self.target_pixels.len() != with_mask.len() {
            return Err("its masks are not those that its records tell of".to_owned());
        }
        let mut counts = self.target_pixels.into_iter();
        let row = |record: SliceRecord| {
            let target_pixels = if record.has_mask() { counts.next() } else { None };
            Row { record, target_pixels, digests: digests.clone() }
        };
        Ok(self.records.into_iter().map(row).collect())
    }
}

pub(crate) fn case_path(store: &Path, case: &str) -> PathBuf {
    store.join("cases").join(format!("{case}.json"))
}

/// Cases of the index of the store at `path`, or where it has none, all whole ones; none if there is no store.
pub fn cases_in(path: &Path) -> Result<BTreeSet<String>, StoreError> {
    match index::read(&path.join("index.parquet"), index::Layout::Two) {
        Ok(rows) => Ok(rows.into_iter().map(|row| row.record.case).collect()),
        Err(_) => whole_cases(path),
    }
}

/// The settings of the store at `path`; `None` if there is no store.
pub fn settings_of(path: &Path) -> Result<Option<StoreSettings>, StoreError> {
    if path.join("store.json").exists() { read_info(path).map(|(info, _)| Some(info.settings)) } else { Ok(None) }
}

pub(crate) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Keys of the manifest that say nothing of how slices are made; a store may be resumed after they have changed.
const PROSE: [&str; 4] = ["description", "licence", "citation", "how_to_get"];

/// Keys of the manifest that speak of single cases, or of which cases are taken: a case of which they say something else is made
/// anew, the others stay.
const BY_CASE: [&str; 5] = ["series", "orientation", "patient", "geometry_tolerance", "mask_coverage"];

/// The first difference in what decides how the slices of all cases are made.
fn difference(found: &StoreInfo, expected: &StoreInfo) -> Option<(String, String, String)> {
    let comparable = |info: &StoreInfo| {
        let mut value = serde_json::to_value(info).unwrap_or_default();
        if let Some(store) = value.as_object_mut() {
            store.remove("tool_version");
            if let Some(manifest) = store.get_mut("manifest").and_then(Value::as_object_mut) {
                // With a secret, which the store knows by a pseudonym, every case is called otherwise.
                let of_all = |key: &str, value: &Value| !BY_CASE.contains(&key) || value.get("hash").is_some();
                manifest.retain(|key, value| !PROSE.contains(&key.as_str()) && of_all(key, value));
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
