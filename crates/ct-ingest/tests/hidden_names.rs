//! Manifests with a secret: no name on disk and no DICOM UID in the store or in any message, and messages that say the same
//! as without one.

mod common;

use common::{Nifti, data_set};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SHAPE: [usize; 3] = [11, 12, 9];
const SECRET: &str = "a secret of the test";

/// A data set, its manifests and a store.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new(cases: usize) -> Self {
        let scratch = Self(tempfile::tempdir().unwrap());
        data_set(&scratch.data(), cases, SHAPE);
        scratch
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// A shipped manifest, changed.
    fn manifest(&self, shipped: &str, change: impl FnOnce(&mut Value)) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data-manifests");
        let mut manifest: Value =
            serde_json::from_slice(&fs::read(folder.join(format!("{shipped}.json"))).unwrap()).unwrap();
        change(&mut manifest);
        let path = self.0.path().join("manifest.json");
        fs::write(&path, manifest.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn prepare(&self, manifest: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sam-mix-data"));
        command.args(["prepare", "--size", "32", "--jobs", "1", "--manifest", manifest, "--data"]);
        command.arg(self.data()).arg("--store").arg(self.0.path().join("store")).args(more);
        command.output().unwrap()
    }

    /// All that a preparation and a check say, and all that is in the store then, by where it is.
    fn told(&self, manifest: &str) -> Vec<(String, String)> {
        let mut told = Vec::new();
        for more in [&[][..], &["--json"], &["--check"], &["--check", "--json"], &["--strict"]] {
            let output = self.prepare(manifest, more);
            told.push((format!("{more:?}, output"), text(&output.stdout)));
            told.push((format!("{more:?}, errors"), text(&output.stderr)));
        }
        let store = self.0.path().join("store");
        for folder in [store.clone(), store.join("images"), store.join("masks"), store.join("cases")] {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                told.push(("a name".to_owned(), path.strip_prefix(&store).unwrap().display().to_string()));
                if path.is_file() {
                    told.push((path.display().to_string(), text(&fs::read(&path).unwrap())));
                }
            }
        }
        told
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hash(manifest: &mut Value) {
    manifest["patient"] = json!({ "hash": SECRET });
}

/// Case and reason of every failed case of a preparation.
fn failed(output: &Output) -> Vec<(String, String)> {
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    summary["failed"].as_array().unwrap().iter().map(|one| (text(&one["case"]), text(&one["reason"]))).collect()
}

/// Five cases called by digits, which are in many a message, each with something else that is wrong.
fn damaged(scratch: &Scratch) {
    let data = scratch.data();
    let file = |name: &str| data.join(name);
    let whole = fs::read(file("volume-1.nii")).unwrap();
    fs::write(file("volume-1.nii"), &whole[..1111]).unwrap();
    Nifti::uint8([12, 11, 9], |_, _, _| 0).save(&file("segmentation-2.nii.gz"));
    Nifti::uint8(SHAPE, |_, _, _| 4).save(&file("segmentation-4.nii.gz"));
    fs::remove_file(file("segmentation-3.nii.gz")).unwrap();
    fs::copy(file("volume-5.nii"), file("volume-5.nii.gz")).unwrap();
    fs::write(file("volume-6.nii"), "NRRD0004\ntype: short\ndimension: 3\nsizes: 1 1 1\ndata file: ../1.raw\n")
        .unwrap();
    fs::write(
        file("volume-7.nii"),
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 1 1 1\nencoding: raw\ndata file: 7.raw\n",
    )
    .unwrap();
}

#[test]
fn a_message_with_hidden_names_is_the_same_but_for_the_names() {
    let scratch = Scratch::new(8);
    damaged(&scratch);
    let plain = failed(&scratch.prepare("lits", &["--json"]));
    fs::remove_dir_all(scratch.0.path().join("store")).unwrap();
    let hidden = failed(&scratch.prepare(&scratch.manifest("lits", hash), &["--json"]));
    assert_eq!((plain.len(), hidden.len()), (7, 7));
    let data = scratch.data().display().to_string();
    for ((case, plain), (pseudonym, hidden)) in plain.iter().zip(&hidden) {
        assert_eq!(pseudonym.len(), 16, "{pseudonym}");
        // What stands between quotation marks that hold a name is the only difference.
        let names = |text: &str, of: &[&str]| -> Vec<String> {
            text.split('\'')
                .map(|part| if of.iter().any(|name| part.contains(name)) { "" } else { part }.to_owned())
                .collect()
        };
        let digit: &[&str] = if plain.starts_with("case") { &[case] } else { &[] };
        let plain_parts = names(plain, &[&[data.as_str()], digit].concat());
        assert_eq!(plain_parts, names(hidden, &[pseudonym]), "{plain}\n{hidden}");
        assert!(!hidden.contains(&data), "{hidden}");
    }
    assert!(hidden.iter().any(|(case, text)| text.starts_with(&format!("image 'image of {case}' and mask"))));
}

#[test]
fn hashed_cases_leave_no_name_in_the_store_or_in_any_message() {
    let scratch = Scratch::new(2);
    let data = scratch.data();
    for kind in ["volume-0.nii", "segmentation-0.nii.gz"] {
        fs::rename(data.join(kind), data.join(kind.replace('0', "DOE^JANE"))).unwrap();
    }
    // A name with an apostrophe and a space, which end nothing in a message.
    fs::rename(data.join("volume-1.nii"), data.join("volume-ROE O'RICHARD.nii")).unwrap();
    fs::write(data.join("segmentation-ROE O'RICHARD.nii"), b"no mask").unwrap();
    fs::write(data.join("volume-POE PAUL.nii"), b"no mask of it").unwrap();
    for name in ["volume-MOE JIM.nii", "volume-MOE JIM.nii.gz", "segmentation-MOE JIM.nii"] {
        fs::write(data.join(name), b"twice there").unwrap();
    }
    fs::write(data.join("segmentation-LOE SUE.nii"), b"no image of it").unwrap();
    // A detached file that is named after somebody.
    let header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 1 1 1\nencoding: raw\ndata file: KOE TIM.raw\n";
    fs::write(data.join("volume-KOE TIM.nii"), header).unwrap();
    fs::write(data.join("segmentation-KOE TIM.nii"), header.replace("KOE", "../KOE")).unwrap();
    let manifest = scratch.manifest("lits", |manifest| {
        hash(manifest);
        manifest["orientation"] = json!({ "DOE^JANE": "LPS" });
    });
    let told = scratch.told(&manifest);
    let names = ["DOE", "JANE", "ROE", "RICHARD", "POE", "PAUL", "MOE", "JIM", "LOE", "SUE", "KOE", "TIM", SECRET];
    for (place, text) in &told {
        for name in names {
            assert!(!text.contains(name), "{place} tells {name}: {text}");
        }
    }
    for text in ["it has two images: 'a file of ", "it has a mask ('a file of "] {
        assert!(told.iter().any(|(_, told)| told.contains(text)), "{text}");
    }
    let store = slice_store::SliceStore::open(&scratch.0.path().join("store")).unwrap();
    assert_eq!((store.records().len(), store.records()[0].case.len()), (9, 16));
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_listed_is_not_told_by_its_name() {
    // The administrator reads every folder; but a process that has ended has one that nobody can list.
    let mut ended = Command::new("true").spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let folder = PathBuf::from(format!("/proc/{}/net", ended.id()));
    if fs::read_dir(&folder).is_ok() {
        println!("skipped: this system lists the folders of processes that have ended");
    } else {
        let scratch = Scratch::new(1);
        std::os::unix::fs::symlink(&folder, scratch.data().join("DOE^JANE")).unwrap();
        let hidden = scratch.manifest("lits", hash);
        let message = text(&scratch.prepare("lits", &[]).stderr);
        assert!(message.contains("DOE^JANE'"), "{message}");
        for more in [&[][..], &["--check"], &["--json"]] {
            let output = scratch.prepare(&hidden, more);
            assert_eq!(output.status.code(), Some(1));
            let message = text(&output.stderr);
            assert!(message.contains("error: cannot list '") && message.contains("/…': "), "{message}");
            assert!(!message.contains("DOE") && !text(&output.stdout).contains("DOE"), "{message}");
        }
    }
    ended.wait().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_cannot_be_read_is_not_told_by_its_name() {
    let scratch = Scratch::new(1);
    let volume = scratch.data().join("volume-DOE^JANE.nii");
    // A regular file that can be opened, and whose first bytes nobody can read.
    std::os::unix::fs::symlink("/proc/self/mem", &volume).unwrap();
    fs::copy(scratch.data().join("segmentation-0.nii.gz"), scratch.data().join("segmentation-DOE^JANE.nii.gz"))
        .unwrap();
    let manifest = scratch.manifest("lits", hash);
    let failed = failed(&scratch.prepare(&manifest, &["--json"]));
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.starts_with(&format!("cannot read 'image of {}': ", failed[0].0)), "{}", failed[0].1);
    assert!(scratch.told(&manifest).iter().all(|(_, text)| !text.contains("DOE")));
}

#[test]
fn another_secret_is_noticed_before_anything_is_done() {
    let scratch = Scratch::new(1);
    assert!(scratch.prepare(&scratch.manifest("lits", hash), &[]).status.success());
    let other = scratch.manifest("lits", |manifest| manifest["patient"] = json!({ "hash": "another secret" }));
    let output = scratch.prepare(&other, &[]);
    let message = text(&output.stderr);
    assert!(message.contains("`manifest.patient.hash`") && !message.contains("another secret"), "{message}");
    assert_eq!(output.status.code(), Some(1));
    assert!(scratch.prepare(&scratch.manifest("lits", hash), &[]).status.success());
}

/// A case of the fixtures' slices, under a name.
fn dicom_case(scratch: &Scratch, case: &str, syntax: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dicom");
    let folder = scratch.data().join(case);
    fs::create_dir_all(&folder).unwrap();
    for file in ["00.dcm", "02.dcm", "05.dcm"] {
        fs::copy(fixtures.join(syntax).join(file), folder.join(file)).unwrap();
    }
    folder
}

/// Every UID in a text: numbers with dots, as DICOM's are. Versions and lengths have fewer.
fn uids(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    parts.filter(|part| part.split('.').filter(|number| !number.is_empty()).count() >= 5).map(str::to_owned).collect()
}

#[test]
fn uids_of_series_and_slices_are_identifiers_and_pseudonyms_choose_a_series() {
    let scratch = Scratch(tempfile::tempdir().unwrap());
    let folder = dicom_case(&scratch, "DOE^JANE", "jpeg_ls");
    let volume = ct_ingest::read_volume(&folder, &ct_ingest::ReadOptions::default()).unwrap();
    let mask = scratch.data().join("DOE^JANE.nii.gz");
    ct_ingest::write_mask(&mask, &vec![1; volume.voxels.len()], &volume).unwrap();
    // A second series of the same place: the same slices under another UID of the same length.
    let series = series_of(&folder);
    let other = format!("{}{}", &series[..series.len() - 1], if series.ends_with('1') { '2' } else { '1' });
    let element = [b"\x20\x00\x0e\x00UI", &(series.len() as u16).next_multiple_of(2).to_le_bytes()[..]].concat();
    for name in ["00.dcm", "02.dcm", "05.dcm"] {
        let mut bytes = fs::read(folder.join(name)).unwrap();
        let at = bytes.windows(element.len()).position(|window| window == element).unwrap() + element.len();
        bytes[at..at + other.len()].copy_from_slice(other.as_bytes());
        fs::write(folder.join(format!("other {name}")), bytes).unwrap();
    }
    let manifest = |series: Option<&str>| {
        scratch.manifest("dicom", |manifest| {
            hash(manifest);
            if let Some(series) = series {
                manifest["series"] = json!({ "DOE^JANE": series });
            }
        })
    };
    let none = |told: &[(String, String)]| {
        for (place, text) in told {
            assert!(uids(text).is_empty(), "{place} tells {:?}: {text}", uids(text));
        }
    };
    let told = scratch.told(&manifest(None));
    none(&told);
    let list = &failed(&scratch.prepare(&manifest(None), &["--json"]))[0].1;
    let pseudonyms: Vec<&str> = list.lines().skip(1).map(|line| line.trim().split(':').next().unwrap()).collect();
    assert!(pseudonyms.len() == 2 && pseudonyms.iter().all(|one| one.len() == 16), "{list}");
    // By the pseudonym that the message had, or by the UID: the same series, so nothing is to be done.
    let by_pseudonym = scratch.prepare(&manifest(Some(pseudonyms[0])), &["--json"]);
    assert!(by_pseudonym.status.success(), "{}", text(&by_pseudonym.stderr));
    let same: Vec<bool> = [&series, &other]
        .map(|uid| {
            let output = scratch.prepare(&manifest(Some(uid)), &["--check"]);
            text(&output.stdout).contains("0 to prepare, 1 to keep")
        })
        .to_vec();
    assert_eq!(same.iter().filter(|same| **same).count(), 1, "{same:?}");
    // Slices are named by their place in messages, and by a pseudonym.
    let slice = fs::read(folder.join("05.dcm")).unwrap();
    fs::write(folder.join("05.dcm"), &slice[..slice.len() - 60]).unwrap();
    let damaged = &failed(&scratch.prepare(&manifest(Some(&series)), &["--json"]))[0].1;
    assert!(damaged.contains("SOP instance ") && uids(damaged).is_empty(), "{damaged}");
    none(&scratch.told(&manifest(Some(&series))));
    none(&scratch.told(&manifest(Some("1.2.840.1.2.3"))));
}

/// The series that a message names where names are not hidden.
fn series_of(folder: &Path) -> String {
    let options = ct_ingest::ReadOptions { series: Some("1.2.3".to_owned()), ..Default::default() };
    let message = ct_ingest::read_volume(folder, &options).unwrap_err().to_string();
    uids(message.lines().nth(1).unwrap()).remove(0)
}
