//! A page's commands, run one after another on synthetic patients.

use crate::checkout::{Checkout, Patients, copy};
use crate::page::{self, Kind};
use crate::text_of;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A trial takes all processors.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A reader's trial of some pages.
pub struct Trial(Checkout, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Trial {
    pub fn new() -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let trial = Self(Checkout::new(), turn);
        for folder in ["configs", "configs/ablation"] {
            for entry in fs::read_dir(trial.path(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "toml") {
                    let text = fs::read_to_string(&path).unwrap();
                    fs::write(path, shortened(&text)).unwrap();
                }
            }
        }
        trial
    }

    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.root().join(path)
    }

    /// A configuration that the reader has written.
    pub fn configuration(&self, path: &str, text: &str) {
        fs::write(self.path(path), shortened(text)).unwrap();
    }

    /// `volume-N.nii.gz` and `segmentation-N.nii.gz` in a folder.
    pub fn patients(&self, folder: &str, patients: Patients) {
        self.0.patients(folder, patients);
    }

    /// One patient's CT.
    pub fn volume(&self, path: &str) {
        self.patients("one", Patients::Seven);
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        copy(&self.path("one/volume-3.nii.gz"), &self.path(path));
    }

    /// Two patients as TotalSegmentator has them, whose masks know no lesions.
    pub fn subjects(&self, folder: &str) {
        self.patients("two", Patients::Seven);
        for number in 0..2 {
            let subject = self.path(folder).join(format!("s000{number}"));
            fs::create_dir_all(subject.join("segmentations")).unwrap();
            copy(&self.path(format!("two/volume-{number}.nii.gz")), &subject.join("ct.nii.gz"));
            changed_mask(
                &self.path(format!("two/segmentation-{number}.nii.gz")),
                &subject.join("segmentations/liver.nii.gz"),
                |_, label| label.min(1),
            );
        }
    }

    /// Runs what a page shows.
    pub fn page(&self, page: &str) {
        self.page_with(page, |_| ());
    }

    /// The same, where the reader does something by hand before a command.
    pub fn page_with(&self, page: &str, by_hand: impl Fn(&str)) {
        for command in page::read(&text_of(Path::new(page))).commands.iter().filter(|command| command.kind == Kind::Run)
        {
            by_hand(&command.text);
            let start = Instant::now();
            let output = self.0.shell(&command.text);
            assert!(output.status.success(), "{page}:{}: {}", command.line, told(&command.text, &output));
            println!("{:6.1} s  {page}:{}: {}", start.elapsed().as_secs_f64(), command.line, command.text);
        }
    }

    /// Runs what a page takes for granted.
    pub fn shell(&self, line: &str) {
        let output = self.0.shell(line);
        assert!(output.status.success(), "{}", told(line, &output));
    }

    /// What must be there now.
    pub fn has(&self, paths: &[&str]) {
        for path in paths {
            assert!(self.path(path).exists(), "'{path}' was not made");
        }
    }
}

/// Writes a mask of the phantom with other labels, which are given by slice and label; gives the slices that had any.
pub fn changed_mask(from: &Path, to: &Path, label: impl Fn(usize, u8) -> u8) -> Vec<usize> {
    let mut mask = Vec::new();
    GzDecoder::new(fs::File::open(from).unwrap()).read_to_end(&mut mask).unwrap();
    // Voxels of a byte each, behind the header, which has the number of rows and columns.
    let (header, voxels) = mask.split_at_mut(352);
    let side = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let mut painted = Vec::new();
    for (slice, voxels) in voxels.chunks_exact_mut(side(42) * side(44)).enumerate() {
        if voxels.iter().any(|&label| label != 0) {
            painted.push(slice);
        }
        for voxel in voxels {
            *voxel = label(slice, *voxel);
        }
    }
    let mut writer = GzEncoder::new(fs::File::create(to).unwrap(), Compression::fast());
    writer.write_all(&mask).unwrap();
    writer.finish().unwrap();
    painted
}

fn told(line: &str, Output { status, stdout, stderr }: &Output) -> String {
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("`{line}`: {status}\n{stdout}\n{stderr}")
}

/// A configuration with a schedule of a few steps, and a few slices to learn from and to validate on.
fn shortened(text: &str) -> String {
    let mut table: toml::Table = text.parse().expect("a configuration is TOML");
    if let Some(sampling) = table.get_mut("sampling").and_then(toml::Value::as_table_mut) {
        sampling.insert("labelled".into(), 10.into());
        sampling.insert("validation_slices".into(), 4.into());
    }
    for phase in table.get_mut("phase").and_then(toml::Value::as_array_mut).into_iter().flatten() {
        let phase = phase.as_table_mut().expect("a phase is a table");
        for (key, most) in [("epochs", 1), ("labelled_passes", 1), ("labelled_steps", 4)] {
            if let Some(number) = phase.get_mut(key) {
                *number = number.as_integer().map_or(most, |given| given.min(most)).into();
            }
        }
    }
    if let Some(copies) = table.get_mut("augmented_copies").and_then(toml::Value::as_table_mut) {
        copies.insert("count".into(), 1.into());
        copies.insert("slices".into(), 4.into());
    }
    table.to_string()
}
