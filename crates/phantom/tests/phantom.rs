//! What the phantom claims to be.

use ndarray::{Array3, Axis};
use nifti::{IntoNdArray, NiftiObject, ReaderOptions};
use phantom::{Orientation, Outcome, PhantomError, PhantomSettings, PhantomVolume, volume, write_data_set};
use std::fs;
use std::path::Path;

const SMALL: PhantomSettings = PhantomSettings { patients: 4, slices: 8, size: 64, seed: 5 };

/// Three patients at full size in the plane; half the slices, to save time.
fn patients() -> Vec<PhantomVolume> {
    let settings = PhantomSettings { slices: 14, ..PhantomSettings::default() };
    (0..3).map(|number| volume(&settings, number)).collect()
}

/// Every interval of HU tried on every voxel of the slices that have liver.
fn best_interval_dice(patient: &PhantomVolume) -> f64 {
    let bin = |hu: i16| (i32::from(hu).clamp(-200, 400) + 200) as usize / 5;
    let mut counts = vec![[0_u64; 2]; bin(400) + 1];
    for (hu, label) in patient.hu.axis_iter(Axis(2)).zip(patient.label.axis_iter(Axis(2))) {
        if label.iter().any(|&l| l > 0) {
            for (&hu, &label) in hu.iter().zip(&label) {
                counts[bin(hu)][usize::from(label > 0)] += 1;
            }
        }
    }
    let liver: u64 = counts.iter().map(|c| c[1]).sum();
    let mut best = 0.0_f64;
    for low in 0..counts.len() {
        let mut inside = [0, 0];
        for count in &counts[low..] {
            inside = [inside[0] + count[0], inside[1] + count[1]];
            best = best.max(2.0 * inside[1] as f64 / (inside[0] + inside[1] + liver) as f64);
        }
    }
    best
}

#[test]
fn patients_are_like_patients() {
    for (number, patient) in patients().iter().enumerate() {
        let dice = best_interval_dice(patient);
        assert!((0.3..0.6).contains(&dice), "patient {number}: the best interval of HU has Dice {dice:.3}");

        let free = 1.0 - patient.liver_slices() as f64 / 14.0;
        assert!((0.28..=0.5).contains(&free), "patient {number}: {free:.2} of the slices have no liver");
        assert_eq!(patient.label.index_axis(Axis(2), 0).sum(), 0, "patient {number}: liver in the lowest slice");
        assert_eq!(patient.label.index_axis(Axis(2), 13).sum(), 0, "patient {number}: liver in the highest slice");

        let liver: Vec<f64> =
            patient.hu.iter().zip(&patient.label).filter(|v| *v.1 == 1).map(|v| f64::from(*v.0)).collect();
        let mean = liver.iter().sum::<f64>() / liver.len() as f64;
        let deviation = (liver.iter().map(|hu| (hu - mean).powi(2)).sum::<f64>() / liver.len() as f64).sqrt();
        assert!((85.0..125.0).contains(&mean), "patient {number}: mean liver HU {mean:.0}");
        assert!((12.0..35.0).contains(&deviation), "patient {number}: liver HU deviate by {deviation:.0}");

        let millilitres = liver.len() as f64 * patient.spacing_mm.iter().map(|&s| f64::from(s)).product::<f64>() / 1e3;
        assert!((500.0..2500.0).contains(&millilitres), "patient {number}: {millilitres:.0} ml of liver");
        assert!(patient.hu[[0, 0, 5]] < -900, "patient {number}: the corner is not air");
    }
}

#[test]
fn the_liver_lies_on_the_patients_right() {
    for number in [2, 3] {
        let patient = volume(&SMALL, number);
        let right = match patient.orientation {
            Orientation::Lps => 0..32,
            Orientation::Ras => 32..64,
        };
        let count = |columns: std::ops::Range<usize>| -> usize {
            columns.map(|x| patient.label.index_axis(Axis(0), x).iter().filter(|&&l| l > 0).count()).sum()
        };
        assert!(count(right.clone()) * 3 > count(0..64) * 2, "patient {number}, {:?}", patient.orientation);
    }
    assert_eq!(volume(&SMALL, 3).orientation, Orientation::Ras);
}

/// All files of a directory, by name.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).expect("directory").map(|entry| entry.expect("entry").path());
    let mut files: Vec<_> = entries
        .map(|path| (path.file_name().expect("name").to_string_lossy().into_owned(), fs::read(&path).expect("file")))
        .collect();
    files.sort();
    files
}

fn written_with_threads(threads: usize, settings: &PhantomSettings) -> Vec<(String, Vec<u8>)> {
    let directory = tempfile::tempdir().expect("temporary directory");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    pool.install(|| write_data_set(directory.path(), settings)).expect("phantom");
    files(directory.path())
}

#[test]
fn the_seed_determines_every_byte_and_the_threads_none() {
    let one = written_with_threads(1, &SMALL);
    assert_eq!(one.len(), 2 * 4 + 1, "two files a patient and phantom.json, nothing left over");
    assert!(one == written_with_threads(3, &SMALL));
    let other = written_with_threads(3, &PhantomSettings { seed: 6, ..SMALL });
    assert!(one.iter().zip(&other).all(|(a, b)| a.0 == b.0 && a.1 != b.1));
}

#[test]
fn more_patients_leave_the_first_ones_as_they_are() {
    let few = PhantomSettings { patients: 1, ..SMALL };
    let (a, b) = (written_with_threads(2, &few), written_with_threads(2, &SMALL));
    assert!(a.iter().filter(|file| file.0 != "phantom.json").all(|file| b.contains(file)));
}

#[test]
fn a_second_run_does_nothing_and_an_interrupted_one_is_finished() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let settings = PhantomSettings { patients: 2, ..SMALL };
    let write = || write_data_set(directory.path(), &settings).expect("phantom");
    assert_eq!(write(), Outcome::Written);
    let before = files(directory.path());
    assert_eq!(write(), Outcome::AlreadyThere);
    fs::remove_file(directory.path().join("volume-1.nii.gz")).expect("removed");
    assert_eq!(write(), Outcome::Written);
    assert!(before == files(directory.path()));
}

#[test]
fn volumes_that_are_no_phantom_are_not_overwritten() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let patient = directory.path().join("segmentation-1.nii.gz");
    fs::write(&patient, "a patient's").expect("written");
    let error = write_data_set(directory.path(), &PhantomSettings { patients: 2, ..SMALL }).expect_err("refused");
    assert!(error.to_string().contains("segmentation-1.nii.gz' is there already"), "{error}");
    assert_eq!(fs::read(&patient).expect("read"), b"a patient's");
    assert_eq!(files(directory.path()).len(), 1, "something was written");
}

#[test]
fn a_picture_that_is_there_stays_unless_it_is_to_be_replaced() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let picture = directory.path().join("a.png");
    fs::write(&picture, "a picture").expect("written");
    let phantom = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sam-mix-phantom"));
        command.args(["--patients", "1", "--slices", "8", "--size", "64"]).args(more);
        command.arg("--output").arg(directory.path().join("data")).arg("--picture").arg(&picture);
        command.output().expect("it starts")
    };
    let refused = phantom(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("a.png' is there already") && said.contains("--overwrite"), "{said}");
    assert_eq!(fs::read(&picture).expect("read"), b"a picture");
    assert!(phantom(&["--overwrite"]).status.success());
    assert!(fs::read(&picture).expect("read").starts_with(b"\x89PNG"));
}

#[test]
fn a_phantom_of_other_settings_is_not_overwritten() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let settings = PhantomSettings { patients: 1, ..SMALL };
    write_data_set(directory.path(), &settings).expect("phantom");
    let error = write_data_set(directory.path(), &PhantomSettings { seed: 1, ..settings }).expect_err("refused");
    assert!(matches!(error, PhantomError::OtherPhantom { .. }));
    let message = error.to_string();
    assert!(
        message.contains("seed 5") && message.contains("seed 1") && message.contains("another directory"),
        "{message}"
    );
}

#[test]
fn settings_out_of_range_are_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for settings in [
        PhantomSettings { patients: 0, ..SMALL },
        PhantomSettings { slices: 2, ..SMALL },
        PhantomSettings { size: 5000, ..SMALL },
    ] {
        let error = write_data_set(directory.path(), &settings).expect_err("refused");
        assert!(matches!(error, PhantomError::OutOfRange { .. }), "{error}");
    }
}

#[test]
fn files_hold_the_volume_and_its_geometry() {
    let directory = tempfile::tempdir().expect("temporary directory");
    write_data_set(directory.path(), &SMALL).expect("phantom");
    for number in [0, 3] {
        let made = volume(&SMALL, number);
        let read = |name: &str| {
            ReaderOptions::new().read_file(directory.path().join(format!("{name}-{number}.nii.gz"))).expect("file")
        };
        let (image, mask) = (read("volume"), read("segmentation"));
        let (h, m) = (image.header().clone(), mask.header().clone());
        assert_eq!((h.dim, h.datatype, h.bitpix), ([3, 64, 64, 8, 1, 1, 1, 1], 4, 16));
        assert_eq!((m.dim, m.datatype, m.bitpix), ([3, 64, 64, 8, 1, 1, 1, 1], 2, 8));
        assert_eq!((h.srow_x, h.srow_y, h.srow_z), (m.srow_x, m.srow_y, m.srow_z));
        assert_eq!((h.qform_code, h.sform_code, h.xyzt_units), (1, 1, 2));
        // The rotation of the quaternion (a, 0, 0, d): its first two diagonal elements are a² - d².
        let turn = 1.0 - 2.0 * h.quatern_d * h.quatern_d;
        assert_eq!([h.srow_x[0], h.srow_y[1], h.srow_z[2]], [turn * h.pixdim[1], turn * h.pixdim[2], h.pixdim[3]]);
        assert_eq!([h.srow_x[3], h.srow_y[3], h.srow_z[3]], [h.quatern_x, h.quatern_y, h.quatern_z]);
        assert_eq!(h.pixdim[1..4], made.spacing_mm);
        let hu: Array3<i16> = image.into_volume().into_ndarray().expect("voxels").into_dimensionality().expect("3-D");
        let label: Array3<u8> = mask.into_volume().into_ndarray().expect("voxels").into_dimensionality().expect("3-D");
        assert!(hu == made.hu && label == made.label && label.iter().all(|&l| l <= 2));
    }
}
