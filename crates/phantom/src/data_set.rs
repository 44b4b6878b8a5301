//! The data set on disk: `volume-N.nii.gz` and `segmentation-N.nii.gz` for each patient, and `phantom.json`, first without
//! patients and last with them: then the rest is whole.

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
/// A data set that is there with the same settings is left alone, and finished if its writing was interrupted; one with others,
/// and volumes of these names that are no phantom, are an error.
pub fn write_data_set(directory: &Path, settings: &PhantomSettings) -> Result<Outcome, PhantomError> {
    settings.check()?;
    fs::create_dir_all(directory).map_err(PhantomError::io("create", directory))?;
    let record_path = directory.join("phantom.json");
    match known(directory, &record_path, settings)? {
        Known::Whole => return Ok(Outcome::AlreadyThere),
        Known::Begun => {}
        Known::Nothing => {
            let names = (0..settings.patients).flat_map(names).map(|name| directory.join(name));
            if let Some(path) = names.into_iter().find(|path| path.symlink_metadata().is_ok()) {
                return Err(PhantomError::Occupied { path });
            }
            write_record(&record_path, settings, Vec::new())?;
        }
    }
    let patients = (0..settings.patients)
        .into_par_iter()
        .map(|number| write_patient(directory, settings, number))
        .collect::<Result<Vec<_>, _>>()?;
    write_record(&record_path, settings, patients)?;
    Ok(Outcome::Written)
}

fn write_record(path: &Path, settings: &PhantomSettings, patients: Vec<PatientRecord>) -> Result<(), PhantomError> {
    let record = Record { version: env!("CARGO_PKG_VERSION").into(), settings: *settings, patients };
    let json = serde_json::to_string_pretty(&record)
        .map_err(|reason| PhantomError::Record { path: path.to_owned(), reason })?;
    whole_file::replace(path, |file| file.write_all((json + "\n").as_bytes())).map_err(PhantomError::io("write", path))
}

/// What is in a directory.
enum Known {
    /// No `phantom.json`.
    Nothing,
    /// A part of the data set.
    Begun,
    /// All of it.
    Whole,
}

fn known(directory: &Path, record: &Path, settings: &PhantomSettings) -> Result<Known, PhantomError> {
    let text = match fs::read_to_string(record) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Known::Nothing),
        Err(error) => return Err(PhantomError::io("read", record)(error)),
    };
    let found: Record =
        serde_json::from_str(&text).map_err(|reason| PhantomError::Record { path: record.to_owned(), reason })?;
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
    let is_there = |number| names(number).iter().all(|name| directory.join(name).is_file());
    let is_whole = found.patients.len() == settings.patients && (0..settings.patients).all(is_there);
    Ok(if is_whole { Known::Whole } else { Known::Begun })
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
