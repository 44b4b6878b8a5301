//! What cases, patients and series are called in the store and in messages: as on disk, or, where the manifest has a secret,
//! by pseudonyms.
//!
//! Invariant: with a secret, no text holds a name that was on disk, because texts are built from pseudonyms: the fields of an
//! error are exchanged before it becomes words. Nothing is searched for in a finished text.

use crate::checksum::sha256;
use crate::{CaseFiles, Discovery, IngestError, Manifest, MaskCoverage, PatientRule, PrepareOptions, discover};
use argon2::Argon2;
use std::fmt;
use std::path::{Path, PathBuf};

/// The secret of the manifest that comes with the project: known to everybody.
const SHIPPED_SECRET: &str = "replace this by a secret of your own";

/// Makes the derivation this project's own. It is the same everywhere, so that a secret gives a patient the same key in
/// every store; what makes guessing dear is the derivation's memory and time.
const DERIVATION: &[u8] = b"sam-mix pseudonyms, version 1";

/// Makes pseudonyms out of names and identifiers.
///
/// The key is derived from the secret by Argon2id (19 MiB, two passes: the crate's, and OWASP's, choice), since a store
/// gives whoever knows one patient's ID the means to try secrets: each guess costs that much.
#[derive(Clone)]
pub(crate) struct Pseudonyms {
    key: String,
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonyms(..)")
    }
}

impl Pseudonyms {
    /// Those of a secret; the errors are those of one that is too short or too long.
    pub fn of(secret: &str) -> Result<Self, String> {
        let mut key = [0; 32];
        let derived = Argon2::default().hash_password_into(secret.as_bytes(), DERIVATION, &mut key);
        derived.map_err(|error| format!("`patient.hash` can't be used as a secret: {error}"))?;
        Ok(Self { key: sha256(&key) })
    }

    /// 16 hexadecimal digits for a text of that kind. The key is of fixed length and most of the sum is left out, so
    /// that nothing can be appended to what was hashed.
    fn of_text(&self, kind: &str, text: &str) -> String {
        let mut hash = sha256(format!("{}\n{kind}\n{text}", self.key).as_bytes());
        hash.truncate(16);
        hash
    }

    /// A DICOM UID's.
    pub fn uid(&self, uid: &str) -> String {
        self.of_text("uid", uid)
    }

    /// What `series` of the manifest means: a UID, or the pseudonym that a message had for one.
    pub fn wanted_series(&self, series: &str) -> String {
        let pseudonym = series.len() == 16 && series.bytes().all(|byte| byte.is_ascii_hexdigit());
        // No UID has 16 digits and no dot: what follows the first number, at most two digits long, is another.
        if pseudonym { series.to_owned() } else { self.uid(series) }
    }

    /// Tells secrets apart without telling them.
    fn of_secret(&self) -> String {
        self.of_text("secret", "")
    }
}

/// The names of a data set.
pub(crate) struct Names<'a> {
    manifest: &'a Manifest,
    data: &'a Path,
    pseudonyms: Option<Pseudonyms>,
}

impl<'a> Names<'a> {
    /// # Errors
    /// A secret that can't be one.
    pub fn of(options: &'a PrepareOptions) -> Result<Self, IngestError> {
        let (manifest, data) = (&options.manifest, options.data.as_path());
        let error = |problem| IngestError::Manifest { path: PathBuf::from(&manifest.name), problem };
        let pseudonyms = match &manifest.patient {
            Some(PatientRule::Hash(secret)) => Some(Pseudonyms::of(secret).map_err(error)?),
            _ => None,
        };
        Ok(Self { manifest, data, pseudonyms })
    }

    /// What hides names, if they are hidden.
    pub fn pseudonyms(&self) -> Option<&Pseudonyms> {
        self.pseudonyms.as_ref()
    }

    /// Whether the secret is the shipped one.
    pub fn known_secret(&self) -> bool {
        self.manifest.patient == Some(PatientRule::Hash(SHIPPED_SECRET.to_owned()))
    }

    /// A case as the store calls it.
    pub fn case(&self, case: &str) -> String {
        self.pseudonyms.as_ref().map_or_else(|| case.to_owned(), |hidden| hidden.of_text("case", case))
    }

    /// The patient's key of a case; `patient_id` is DICOM's.
    pub fn patient(&self, case: &str, patient_id: Option<&str>) -> Result<String, IngestError> {
        let error = |problem: String| IngestError::Case { case: case.to_owned(), problem };
        match self.manifest.patient.as_ref().unwrap_or(&PatientRule::Case) {
            PatientRule::Case => Ok(case.to_owned()),
            PatientRule::Before(mark) => match case.split_once(mark.as_str()) {
                Some((patient, _)) if !patient.is_empty() => Ok(patient.to_owned()),
                _ => Err(error(format!("the manifest's patient is what comes before '{mark}', which it doesn't have"))),
            },
            PatientRule::Map(patients) => patients
                .get(case)
                .cloned()
                .ok_or_else(|| error("it isn't in the manifest's `patient.map`; add it there".to_owned())),
            PatientRule::Hash(_) => match (patient_id, &self.pseudonyms) {
                (Some(id), Some(hidden)) => Ok(hidden.of_text("patient", id)),
                _ => Ok(self.case(case)),
            },
        }
    }

    /// A DICOM series as the store calls it.
    pub fn series(&self, uid: &str) -> String {
        self.pseudonyms.as_ref().map_or_else(|| uid.to_owned(), |hidden| hidden.wanted_series(uid))
    }

    /// The manifest as the store remembers it. The secret is replaced by what is derived from it as pseudonyms are, so that
    /// another secret is noticed (every case would have another name) and guessing costs no less than by a known patient.
    pub fn stored_manifest(&self) -> Manifest {
        // A path, which may be a person's own. What the list says of a case is remembered with it.
        let mut manifest = Manifest { presence: None, ..self.manifest.clone() };
        if let Some(hidden) = &self.pseudonyms {
            manifest.patient = Some(PatientRule::Hash(hidden.of_secret()));
            let series = self.manifest.series.iter();
            manifest.series = series.map(|(case, uid)| (self.case(case), self.series(uid))).collect();
            let orientation = self.manifest.orientation.iter();
            manifest.orientation = orientation.map(|(case, code)| (self.case(case), *code)).collect();
            if let Some(MaskCoverage::Slices(cases)) = &mut manifest.mask_coverage {
                *cases = std::mem::take(cases).into_iter().map(|(case, slices)| (self.case(&case), slices)).collect();
            }
        }
        manifest
    }

    /// The data set's cases, and errors without hidden names.
    pub fn discover(&self) -> Result<Discovery, IngestError> {
        let found = discover(self.data, self.manifest);
        match &self.pseudonyms {
            None => found,
            Some(_) => found.map_err(|error| error.renamed(&|case| self.case(case), &|path| self.below_data(path))),
        }
    }

    /// What is wrong with a case that has no files, or too many.
    pub fn of_case(&self, case: &str, error: IngestError) -> IngestError {
        let other = format!("a file of {}", self.case(case));
        self.hide(error, &|_| PathBuf::from(&other))
    }

    /// What is wrong with a case.
    pub fn of_files(&self, files: &CaseFiles, error: IngestError) -> IngestError {
        let case = self.case(&files.case);
        let name = |path: &Path| {
            let mask = files.masks.iter().position(|mask| mask == path);
            PathBuf::from(match mask {
                _ if path == files.image => format!("image of {case}"),
                Some(_) if files.masks.len() == 1 => format!("mask of {case}"),
                Some(index) => format!("mask {} of {case}", index + 1),
                None => format!("a file of {case}"),
            })
        };
        self.hide(error, &name)
    }

    fn hide(&self, error: IngestError, path: &dyn Fn(&Path) -> PathBuf) -> IngestError {
        match &self.pseudonyms {
            None => error,
            Some(_) => error.renamed(&|case| self.case(case), path),
        }
    }

    /// The data directory's name is the user's own words; what is below it is hidden.
    fn below_data(&self, path: &Path) -> PathBuf {
        if path == self.data { path.to_path_buf() } else { self.data.join("…") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// What prepares the LiTS layout, with that rule.
    fn options(patient: Option<PatientRule>) -> PrepareOptions {
        let lits = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data-manifests/lits.json");
        let manifest = Manifest { patient, ..Manifest::read(Path::new(lits)).unwrap() };
        let (data, settings) = (PathBuf::from("data"), crate::StoreSettings::default());
        PrepareOptions {
            data,
            store: PathBuf::new(),
            manifest,
            settings,
            jobs: 1,
            strict: false,
            redo: false,
            shard: None,
            merge: Vec::new(),
        }
    }

    fn secret(secret: &str) -> PrepareOptions {
        options(Some(PatientRule::Hash(secret.to_owned())))
    }

    #[test]
    fn patients_follow_their_rule() {
        let patient = |rule: Option<PatientRule>, case: &str| Names::of(&options(rule)).unwrap().patient(case, None);
        let before = Some(PatientRule::Before("_".to_owned()));
        let map = Some(PatientRule::Map([("a".to_owned(), "p1".to_owned())].into()));
        assert_eq!(patient(None, "7").unwrap(), "7");
        assert_eq!(patient(before.clone(), "p1_scan2").unwrap(), "p1");
        assert!(patient(before, "p1").is_err());
        assert_eq!(patient(map.clone(), "a").unwrap(), "p1");
        assert!(patient(map, "b").unwrap_err().to_string().contains("`patient.map`"));
    }

    #[test]
    fn pseudonyms_depend_on_the_secret_and_tell_scans_of_one_patient_together() {
        let (options, others) = (secret("s3cret"), secret("other"));
        let (names, other) = (Names::of(&options).unwrap(), Names::of(&others).unwrap());
        let of = |names: &Names<'_>, id| names.patient("DOE_JANE", id).unwrap();
        assert_eq!(of(&names, Some("123")).len(), 16);
        assert_eq!(of(&names, Some("123")), names.patient("another scan", Some("123")).unwrap());
        assert_ne!(of(&names, Some("123")), of(&names, None));
        assert_eq!(of(&names, None), names.case("DOE_JANE"));
        assert_ne!(of(&names, Some("123")), of(&other, Some("123")));
        assert_ne!(names.stored_manifest().patient, other.stored_manifest().patient, "another secret is noticed");
    }

    #[test]
    fn a_store_remembers_neither_secret_nor_uid_nor_a_sum_that_a_guess_can_be_tried_on_cheaply() {
        let mut options = secret("s3cret");
        options.manifest.series = BTreeMap::from([("DOE_JANE".to_owned(), "1.2.840.113619.2".to_owned())]);
        let names = Names::of(&options).unwrap();
        let stored = serde_json::to_string(&names.stored_manifest()).unwrap();
        for told in ["s3cret", "DOE_JANE", "1.2.840.113619.2", &sha256(b"s3cret"), &sha256(b"s3cret")[..16]] {
            assert!(!stored.contains(told), "{stored} tells {told}");
        }
        // What was salted with the secret itself, as sums that cost a microsecond are.
        for (kind, text) in [("case", "DOE_JANE"), ("uid", "1.2.840.113619.2"), ("secret", "")] {
            assert!(!stored.contains(&sha256(format!("s3cret\n{kind}\n{text}").as_bytes())[..16]));
        }
        let hidden = names.pseudonyms().unwrap();
        let pseudonym = &names.stored_manifest().series[&names.case("DOE_JANE")];
        assert_eq!(pseudonym, &hidden.uid("1.2.840.113619.2"));
        assert_eq!(&hidden.wanted_series(pseudonym), pseudonym, "a manifest may name a series by its pseudonym");
        assert_eq!(format!("{hidden:?}"), "Pseudonyms(..)");
    }

    #[test]
    fn argon2id_is_the_one_of_rfc_9106() {
        // By the reference implementation: `hash_secret_raw` of argon2-cffi with a time cost of 2, a memory cost of 19456,
        // a parallelism of 1 and a length of 32.
        let key = "66cd403cdc2e716e05bff37e339fbc34db21b3e5a75c4cc4122ae8c72937e827";
        assert_eq!(Pseudonyms::of("s3cret").unwrap().key, sha256(&bytes(key)));
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }
}
