//! The data set on disk: `volume-N.nii.gz` and `segmentation-N.nii.gz` for each patient, and last `phantom.json`, whose
//! presence means that the rest is whole.

use crate::error::PhantomError;
use crate::settings::PhantomSettings;
use crate::volume::{Orientation, volume};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What `write_data_set` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The data set was written.
    Written,
    /// It was there already, with the same settings and version.
    AlreadyThere,
}

/// `phantom.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    version: String,
    settings: PhantomSettings,
    patients: Vec<PatientRecord>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct PatientRecord {
    volume: String,
    segmentation: String,
    spacing_mm: [f32; 3],
    orientation: String,
    liver_slices: usize,
}

/// Writes a data set in the layout of LiTS into `directory`, which is made if it is not there.
///
/// A data set that is there with the same settings is left alone; one with others is an error.
pub fn write_data_set(directory: &Path, settings: &PhantomSettings) -> Result<Outcome, PhantomError> {
    settings.check()?;
    fs::create_dir_all(directory).map_err(PhantomError::io("create", directory))?;
    let record_path = directory.join("phantom.json");
    if is_complete(directory, &record_path, settings)? {
        return Ok(Outcome::AlreadyThere);
    }
    let patients = (0..settings.patients)
        .into_par_iter()
        .map(|number| write_patient(directory, settings, number))
        .collect::<Result<Vec<_>, _>>()?;
    let record = Record { version: env!("CARGO_PKG_VERSION").into(), settings: *settings, patients };
    let json = serde_json::to_string_pretty(&record)
        .map_err(|source| PhantomError::Record { path: record_path.clone(), source })?;
    whole_file::replace(&record_path, |file| file.write_all((json + "\n").as_bytes()))
        .map_err(PhantomError::io("write", &record_path))?;
    Ok(Outcome::Written)
}

fn is_complete(directory: &Path, record: &Path, settings: &PhantomSettings) -> Result<bool, PhantomError> {
    let text = match fs::read_to_string(record) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(PhantomError::io("read", record)(error)),
    };
    let found: Record =
        serde_json::from_str(&text).map_err(|source| PhantomError::Record { path: record.to_owned(), source })?;
    let describe = |version: &str, s: &PhantomSettings| {
        format!("{} patients, {} slices, size {}, seed {}, version {version}", s.patients, s.slices, s.size, s.seed)
    };
    let version = env!("CARGO_PKG_VERSION");
    if found.settings != *settings || found.version != version {
        return Err(PhantomError::OtherPhantom {
            path: directory.to_owned(),
            found: describe(&found.version, &found.settings),
            expected: describe(version, settings),
        });
    }
    Ok((0..settings.patients).all(|n| names(n).iter().all(|name| directory.join(name).is_file())))
}

fn names(number: usize) -> [String; 2] {
    [format!("volume-{number}.nii.gz"), format!("segmentation-{number}.nii.gz")]
}

fn write_patient(directory: &Path, settings: &PhantomSettings, number: usize) -> Result<PatientRecord, PhantomError> {
    let made = volume(settings, number);
    let [volume, segmentation] = names(number);
    let path = |name: &str| -> PathBuf { directory.join(name) };
    made.write(&path(&volume), &path(&segmentation))?;
    let orientation = match made.orientation {
        Orientation::Lps => "LPS",
        Orientation::Ras => "RAS",
    };
    Ok(PatientRecord {
        volume,
        segmentation,
        spacing_mm: made.spacing_mm,
        orientation: orientation.into(),
        liver_slices: made.liver_slices(),
    })
}
