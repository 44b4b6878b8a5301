//! Every file of the NIfTI samples: read with nibabel's shape, affine and voxels (`fixtures/make_sample_fixtures.py`), or
//! refused by the error that is listed here. The table of them in `docs/reference/volume-formats.md` is checked, too.

mod common;

use common::test_data;
use ct_ingest::{IngestError, ReadOptions, Volume, read_volume};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FOLDERS: [&str; 2] = ["nifti-samples", "totalsegmentator-example"];

/// What is refused, and by which error; every other file is read.
const REFUSED: &[(&str, &str)] = &[
    ("nifti-samples/nibabel/nibabel/tests/data/analyze.hdr", "Unsupported"),
    ("nifti-samples/nibabel/nibabel/tests/data/example4d.nii.gz", "Unsupported"),
    ("nifti-samples/nibabel/nibabel/tests/data/example_nifti2.nii.gz", "Unsupported"),
    ("nifti-samples/nibabel/nibabel/tests/data/functional.nii", "Unsupported"),
    ("nifti-samples/nibabel/nibabel/tests/data/nifti1.hdr", "Unsupported"),
    ("nifti-samples/nibabel/nibabel/tests/data/nifti2.hdr", "Unsupported"),
    ("nifti-samples/nibabel/nibabel/tests/data/row_major.dconn.nii", "Unsupported"),
    ("nifti-samples/nifti_reader_js/data/5D_small.nii", "Unsupported"),
    ("nifti-samples/nifti_reader_js/data/5D_zeros.nii.gz", "Unsupported"),
    ("nifti-samples/nifti_reader_js/data/not-nifti.nii", "NotNifti"),
    ("nifti-samples/nifti_rs/resources/avg152T1_LR_nifti.hdr.gz", "Unsupported"),
    ("nifti-samples/nifti_rs/resources/complex/complex32.nii", "Unsupported"),
    ("nifti-samples/nifti_rs/resources/complex/complex64.nii", "Unsupported"),
    ("nifti-samples/nifti_rs/resources/fuzz_artifacts/crash-08123ef33416bd6f0c5fa63d44b681b8581d62a0", "NotNifti"),
    ("nifti-samples/nifti_rs/resources/fuzz_artifacts/crash-1.nii", "NotNifti"),
    ("nifti-samples/nifti_rs/resources/fuzz_artifacts/crash-98aa054390f8d3f932f190dc22ef62c6ff2d6619", "NotNifti"),
    ("nifti-samples/nifti_rs/resources/fuzz_artifacts/crash-d03c6346fe83a026738f6b8cd2a9335a3f8cb158", "NotNifti"),
    ("nifti-samples/nifti_rs/resources/fuzz_artifacts/crash-ed7d46344d7efb3b9f0c374d66d2e02f66cc447d.nii", "NotNifti"),
    ("nifti-samples/nifti_rs/resources/rgb/3D.nii", "Unsupported"),
    ("nifti-samples/nifti_rs/resources/rgb/4D.nii", "Unsupported"),
    ("nifti-samples/nifti_rs/resources/rgba/4D.nii", "Unsupported"),
    ("nifti-samples/niivue/V1.nii.gz", "Unsupported"),
    ("nifti-samples/niivue/complex.nii.gz", "Unsupported"),
    ("nifti-samples/niivue/ct_perfusion.nii.gz", "Unsupported"),
];

/// What nibabel makes of a file.
#[derive(Deserialize)]
struct Nibabel {
    #[serde(default)]
    shape: Vec<usize>,
    affine: Option<[[f64; 4]; 4]>,
    sha256: Option<String>,
    /// The name of its exception.
    refused: Option<String>,
}

fn expected() -> BTreeMap<String, Nibabel> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/samples_expected.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The folder that has the samples' folders.
fn data(test: &str) -> Option<PathBuf> {
    let folders = FOLDERS.map(|folder| test_data(test, folder));
    folders.into_iter().collect::<Option<Vec<_>>>()?.first()?.parent().map(Path::to_path_buf)
}

fn read(path: &Path) -> Result<Volume, IngestError> {
    read_volume(path, &ReadOptions::default())
}

fn variant(error: &IngestError) -> String {
    format!("{error:?}").split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

/// As `make_sample_fixtures.py` has it: one NaN, one zero.
fn checksum(volume: &Volume) -> String {
    let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
    let bytes: Vec<u8> = volume.voxels.iter().flat_map(|value| one(value).to_le_bytes()).collect();
    Sha256::digest(&bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Three lengths: ones behind are dropped or added.
fn three(shape: &[usize]) -> [usize; 3] {
    assert!(shape.iter().skip(3).all(|&length| length == 1), "{shape:?}");
    [0, 1, 2].map(|axis| shape.get(axis).copied().unwrap_or(1))
}

#[test]
fn every_sample_is_read_as_nibabel_reads_it_or_refused_by_the_error_listed_here() {
    let Some(data) = data("every_sample_is_read_as_nibabel_reads_it_or_refused_by_the_error_listed_here") else {
        return;
    };
    let mut problems = Vec::new();
    for (name, nibabel) in expected() {
        let listed = REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, variant)| *variant);
        let volume = match (read(&data.join(&name)), listed) {
            (Ok(volume), None) => volume,
            (Err(error), Some(listed)) if variant(&error) == listed => continue,
            (Err(error), _) => {
                problems.push(format!("(\"{name}\", \"{}\"), // {error}", variant(&error)));
                continue;
            }
            (Ok(_), Some(listed)) => {
                problems.push(format!("{name}: is read, expected {listed}"));
                continue;
            }
        };
        // NRRD has a test of its own (`nrrd_metaimage.rs`).
        if nibabel.sha256.is_none() && name.contains(".nrrd") {
            continue;
        }
        if let Some(refused) = &nibabel.refused {
            problems.push(format!("{name}: is read, nibabel says {refused}"));
            continue;
        }
        let affine = nibabel.affine.unwrap();
        let apart = volume.geometry.affine.iter().flatten().zip(affine.iter().flatten()).map(|(a, b)| (a - b).abs());
        if volume.shape != three(&nibabel.shape) || apart.fold(0.0, f64::max) > 1e-4 {
            problems.push(format!("{name}: {:?} {} is {:?} {affine:?}", volume.shape, volume.geometry, nibabel.shape));
        } else if Some(checksum(&volume)) != nibabel.sha256 {
            problems.push(format!("{name}: other voxels than nibabel's"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn no_sample_was_forgotten_and_texts_are_no_volumes() {
    let Some(data) = data("no_sample_was_forgotten_and_texts_are_no_volumes") else { return };
    let expected = expected();
    let mut paths = files_below(&data.join("nifti-samples"));
    assert!(paths.len() > 60);
    paths.retain(|path| !expected.contains_key(&path.strip_prefix(&data).unwrap().display().to_string()));
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(["COPYING", "LICENSE", "README"].iter().any(|text| name.starts_with(text)), "{}", path.display());
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("holds a text, expected a CT volume or a mask"), "{error}");
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn the_documented_table_is_true() {
    let Some(data) = data("the_documented_table_is_true") else { return };
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/volume-formats.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows: Vec<String> = expected().keys().map(|name| row(&data, name)).collect();
    let missing: Vec<&str> = rows.iter().map(String::as_str).filter(|row| !page.contains(*row)).collect();
    assert!(missing.is_empty(), "not in the page:\n{}", missing.join("\n"));
    let of_samples = |line: &&str| FOLDERS.iter().any(|folder| line.starts_with(&format!("| `{folder}/")));
    assert_eq!(page.lines().filter(of_samples).count(), rows.len(), "the page has rows of files that are not there");
}

fn row(data: &Path, name: &str) -> String {
    match read(&data.join(name)) {
        Ok(volume) => {
            let [x, y, z] = volume.shape;
            let scalar = format!("{:?}", volume.voxels.scalar()).to_lowercase();
            let scalar = scalar.replace('i', "int").replace('u', "uint").replace('f', "float");
            format!("| `{name}` | {} {scalar} {x} × {y} × {z} |", volume.geometry.orientation)
        }
        Err(IngestError::Unsupported { found, .. }) => format!("| `{name}` | `Unsupported`: {found} |"),
        Err(IngestError::NotNifti { problem, .. }) => format!("| `{name}` | `NotNifti`: {problem} |"),
        Err(error) => format!("| `{name}` | `{}` |", variant(&error)),
    }
}
