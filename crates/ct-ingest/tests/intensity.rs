//! Whether values are HU: what is none is refused and named, what is declared is checked, and no CT is refused wrongly.

mod common;

use common::{Nifti, test_data};
use ct_ingest::{Intensity, ReadOptions, StoreSettings, Volume, image_slices, read_volume};
use std::path::Path;

const SHAPE: [usize; 3] = [64, 64, 6];

/// How a file keeps its numbers: NIfTI's code, bits, and the bytes of a number.
type Kind = (i16, i16, fn(f64) -> Vec<u8>);

const INT16: Kind = (4, 16, |value| (value.round() as i16).to_le_bytes().to_vec());
const UINT16: Kind = (512, 16, |value| (value.round() as u16).to_le_bytes().to_vec());
const INT32: Kind = (8, 32, |value| (value.round() as i32).to_le_bytes().to_vec());
const UINT8: Kind = (2, 8, |value| vec![value.round() as u8]);
const FLOAT32: Kind = (16, 32, |value| (value as f32).to_le_bytes().to_vec());
const FLOAT64: Kind = (64, 64, |value| value.to_le_bytes().to_vec());

fn file((data_type, bits, bytes): Kind, shape: [usize; 3], values: &[f64]) -> Nifti {
    let data = values.iter().flat_map(|&value| bytes(value)).collect();
    Nifti { shape, affine: common::lps([0.8, 0.8, 2.0]), data_type, bits, data }
}

/// Deviates of mean 0 and deviation 1, near enough: sums of twelve.
fn noise(seed: usize) -> f64 {
    let one = |i: u64| {
        let mixed = (seed as u64 * 12 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..12).map(one).sum::<f64>() - 6.0
}

/// A trunk in air: fat around it, an organ with contrast medium and a bone in it, noise of 10 HU.
fn body() -> Vec<f64> {
    let [nx, ny, nz] = SHAPE;
    let voxel = |i: usize| {
        let (x, y) = ((i % nx) as f64 / nx as f64 - 0.5, (i / nx % ny) as f64 / ny as f64 - 0.5);
        let within =
            |at: [f64; 2], size: [f64; 2]| ((x - at[0]) / size[0]).powi(2) + ((y - at[1]) / size[1]).powi(2) < 1.0;
        let hu = match () {
            () if !within([0.0, 0.0], [0.4, 0.3]) => return (-1000.0 + 15.0 * noise(i)).max(-1024.0).round(),
            () if !within([0.0, 0.0], [0.36, 0.26]) => -100.0,
            () if within([0.0, 0.2], [0.05, 0.06]) => 500.0,
            () if within([-0.15, -0.05], [0.16, 0.15]) => 110.0,
            () => 45.0,
        };
        (hu + 10.0 * noise(i)).round()
    };
    (0..nx * ny * nz).map(voxel).collect()
}

/// An organ and its neighbour, no fat, no air.
fn soft_tissue() -> Vec<f64> {
    (0..SHAPE.iter().product())
        .map(|i| (if i % SHAPE[0] < 40 { 60.0 } else { 110.0 } + 12.0 * noise(i)).round())
        .collect()
}

fn read(nifti: &Nifti, intensity: Intensity) -> Result<Volume, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ct.nii");
    nifti.save(&path);
    let volume = read_volume(&path, &ReadOptions { intensity, ..ReadOptions::default() }).unwrap();
    checked(volume)
}

/// The volume if its slices can be cut.
fn checked(volume: Volume) -> Result<Volume, String> {
    image_slices(&volume, &StoreSettings::default()).map(|_| volume).map_err(|error| error.to_string())
}

fn refused(kind: Kind, values: &[f64], intensity: &str) -> String {
    let intensity = if intensity.is_empty() { Intensity::CheckedHu } else { intensity.parse().unwrap() };
    read(&file(kind, SHAPE, values), intensity).map(|volume| volume.path).unwrap_err()
}

/// Refused with these words unless it is declared; declared, the HU come back.
fn is_named_and_can_be_declared(kind: Kind, hu: &[f64], convert: impl Fn(f64) -> f64, named: &str, declared: &str) {
    let values: Vec<f64> = hu.iter().map(|&hu| convert(hu)).collect();
    let message = refused(kind, &values, "");
    assert!(message.contains("which can't be HU") && message.contains(named), "{declared}: {message}");
    let word = declared.split(':').next().unwrap();
    assert!(message.contains(&format!("--intensity {word}")), "the way out is {word}: {message}");
    let volume =
        read(&file(kind, SHAPE, &values), declared.parse().unwrap()).unwrap_or_else(|message| panic!("{message}"));
    // What a window has cut off stays so; a grey level of 255 is 1.6 HU.
    let clip = |hu: f64| {
        if declared.contains(":40:400") || declared.contains(":4:-160") { hu.clamp(-160.0, 240.0) } else { hu }
    };
    for (got, &hu) in volume.voxels.iter().zip(hu) {
        assert!((got - clip(hu)).abs() < 1.6, "{declared}: {got} {hu}");
    }
}

#[test]
fn hu_kept_in_another_way_are_named_with_the_declaration_that_brings_them_back() {
    for hu in [body(), body().iter().map(|hu| hu.clamp(-160.0, 240.0)).collect(), soft_tissue()] {
        let by_1024 = "looks like HU + 1024";
        for kind in [INT16, UINT16, INT32, FLOAT32, FLOAT64] {
            is_named_and_can_be_declared(kind, &hu, |hu| hu + 1024.0, by_1024, "offset:1024");
        }
        is_named_and_can_be_declared(INT16, &hu, |hu| hu + 1000.0, by_1024, "offset:1000");
        is_named_and_can_be_declared(INT32, &hu, |hu| hu + 32768.0, "looks like HU + 32768", "offset:32768");
        is_named_and_can_be_declared(INT16, &hu, |hu| hu - 1024.0, "looks like HU - 1024", "offset:-1024");
    }
    let hu = body();
    is_named_and_can_be_declared(INT32, &hu, |hu| hu * 10.0, "looks like HU times 10", "rescale:0.1:0");
    is_named_and_can_be_declared(FLOAT32, &hu, |hu| hu / 1000.0, "looks like HU divided by 1000", "rescale:1000:0");
}

#[test]
fn windows_are_named_with_the_declaration_that_brings_them_back() {
    let window = |hu: f64| ((hu + 160.0) / 400.0).clamp(0.0, 1.0);
    let hu = body();
    for kind in [FLOAT32, FLOAT64] {
        is_named_and_can_be_declared(kind, &hu, window, "scaled to 0 to 1", "unit:40:400");
        is_named_and_can_be_declared(kind, &hu, |hu| 2.0 * window(hu) - 1.0, "scaled to -1 to 1", "signed-unit:40:400");
        is_named_and_can_be_declared(kind, &hu, |hu| 100.0 * window(hu), "in percent", "rescale:4:-160");
        is_named_and_can_be_declared(kind, &hu, |hu| 255.0 * window(hu), "8-bit grey levels", "grey8:40:400");
    }
    for kind in [UINT8, INT16, UINT16, INT32] {
        is_named_and_can_be_declared(kind, &hu, |hu| 255.0 * window(hu), "8-bit grey levels", "grey8:40:400");
    }
    let stretched = format!("rescale:{}:-160", 400.0 / 65535.0);
    let values: Vec<f64> = hu.iter().map(|&hu| 65535.0 * window(hu)).collect();
    assert!(refused(UINT16, &values, "").contains("stretched to 16 bits"));
    assert!(read(&file(UINT16, SHAPE, &values), stretched.parse().unwrap()).is_ok());
}

#[test]
fn values_without_hu_are_refused_with_the_reason_and_the_deciding_numbers() {
    let hu = body();
    let count = hu.len() as f64;
    let mean = hu.iter().sum::<f64>() / count;
    let deviation = (hu.iter().map(|hu| (hu - mean).powi(2)).sum::<f64>() / count).sqrt();
    let of_all: Vec<f64> = hu.iter().map(|hu| (hu - mean) / deviation).collect();
    // As networks are trained on organs: clipped, then by the organ's own mean and deviation.
    let of_organ: Vec<f64> = hu.iter().map(|hu| (hu.clamp(-17.0, 201.0) - 99.0) / 39.0).collect();
    for values in [of_all, of_organ] {
        let message = refused(FLOAT32, &values, "");
        assert!(message.contains("z-scores") && message.contains("HU can't be made of them"), "{message}");
        assert!(message.contains("standard deviation"), "{message}");
        assert!(refused(FLOAT32, &values, "hu").contains("z-scores"), "no declaration makes HU of them");
    }
    // MR: no value is below 0, a background at 0 or of noise, tissue anywhere.
    for (bright, dark) in [(900.0, 0.0), (300.0, 0.0), (2500.0, 12.0), (12_000.0, 30.0)] {
        let mr: Vec<f64> = hu
            .iter()
            .enumerate()
            .map(|(i, &hu)| if hu < -500.0 { dark * noise(i).abs() } else { bright * (0.5 + 0.2 * noise(i)).abs() })
            .collect();
        for kind in [INT16, FLOAT32] {
            let message = refused(kind, &mr, "");
            assert!(message.contains("MR") && message.contains("HU can't be made of them"), "{message}");
            assert!(message.contains(" % of them are at the dark end"), "{message}");
        }
    }
    let twelve: Vec<f64> = (0..hu.len()).map(|i| if i == 0 { 4095.0 } else { (i % 3000) as f64 }).collect();
    assert!(refused(INT16, &twelve, "").contains("12-bit numbers without"), "{}", refused(INT16, &twelve, ""));
}

#[test]
fn a_declaration_is_checked_against_the_values() {
    let hu = body();
    let unit: Vec<f64> = hu.iter().map(|hu| ((hu + 160.0) / 400.0).clamp(0.0, 1.0)).collect();
    let signed: Vec<f64> = unit.iter().map(|value| 2.0 * value - 1.0).collect();
    let grey: Vec<f64> = unit.iter().map(|value| 255.0 * value).collect();
    for (values, declared, looks) in [
        (&unit, "grey8:40:400", "scaled to 0 to 1"),
        (&signed, "grey8:40:400", "scaled to -1 to 1"),
        (&signed, "unit:40:400", "scaled to -1 to 1"),
        (&grey, "unit:40:400", "8-bit grey levels"),
        (&grey, "signed-unit:40:400", "8-bit grey levels"),
        (&unit, "hu", "scaled to 0 to 1"),
        (&unit, "offset:1024", "scaled to 0 to 1"),
        (&hu, "offset:1024", "HU as they are"),
        (&hu, "offset:-1024", "HU as they are"),
        (&hu, "rescale:0.1:0", "HU as they are"),
        (&hu, "rescale:10:0", "HU as they are"),
        (&hu, "grey8:40:400", "HU as they are"),
        (&hu, "unit:40:400", "HU as they are"),
        (&soft_tissue(), "offset:1024", "which contradicts the declared offset:1024"),
        (&soft_tissue(), "grey8:40:4", "which contradicts the declared grey8:40:4"),
    ] {
        let message = refused(FLOAT32, values, declared);
        assert!(message.contains(declared) || message.contains("declared as such"), "{declared}: {message}");
        assert!(message.contains(looks), "{declared}: {message}");
    }
    // Half a grey level beyond the ends, which interpolation makes, is no contradiction.
    let over: Vec<f64> = unit.iter().map(|value| 1.04 * value - 0.02).collect();
    assert!(read(&file(FLOAT32, SHAPE, &over), "unit:40:400".parse().unwrap()).is_ok());
    // The last word is the user's where it can be right; they are warned.
    let volume = read(&file(UINT8, SHAPE, &grey), Intensity::Hu).unwrap();
    assert!(volume.doubts().iter().any(|text| text.contains("was taken for HU, as declared")), "{:?}", volume.doubts());
    assert!(read(&file(INT16, SHAPE, &hu), Intensity::Hu).unwrap().doubts().is_empty());
}

#[test]
fn no_ct_is_refused_whole_narrow_clipped_padded_or_noiseless() {
    let hu = body();
    let masked = |value: f64| hu.iter().map(|&hu| if hu < -500.0 { value } else { hu }).collect::<Vec<_>>();
    let clipped = |low: f64, high: f64| hu.iter().map(|hu| hu.clamp(low, high)).collect::<Vec<_>>();
    let images = [
        ("whole", hu.clone()),
        ("soft tissue", soft_tissue()),
        ("one organ", (0..hu.len()).map(|i| 40.0 + 8.0 * noise(i)).collect()),
        ("an organ with contrast medium, never below 0", (0..hu.len()).map(|i| 120.0 + 12.0 * noise(i)).collect()),
        ("fat", (0..hu.len()).map(|i| -100.0 + 8.0 * noise(i)).collect()),
        ("the liver's window", clipped(-160.0, 240.0)),
        ("nnU-Net's liver", clipped(-17.0, 201.0)),
        ("-100 to 400", clipped(-100.0, 400.0)),
        ("-200 to 250", clipped(-200.0, 250.0)),
        ("bone", clipped(-450.0, 1050.0)),
        ("extended", hu.iter().map(|&hu| if hu > 450.0 { 20_000.0 } else { hu }).collect()),
        ("padding of -2000", masked(-2000.0)),
        ("padding of -3024", masked(-3024.0)),
        ("padding of -32768", hu.iter().enumerate().map(|(i, &hu)| if i % 5 == 0 { -32768.0 } else { hu }).collect()),
        ("background of -1024", masked(-1024.0)),
        ("no noise", hu.iter().map(|hu| (hu / 50.0).round() * 50.0).collect()),
    ];
    for (name, values) in &images {
        for kind in [INT16, FLOAT32] {
            let read = read(&file(kind, SHAPE, values), Intensity::CheckedHu);
            assert!(read.is_ok(), "{name}: {:?}", read.map(|volume| volume.path));
        }
    }
}

#[test]
fn no_ct_of_the_test_data_is_refused_nor_a_crop_of_one() {
    let test = "no_ct_of_the_test_data_is_refused_nor_a_crop_of_one";
    let folders = ["lits-mini", "btcv-sparse", "ircadb19", "lits117-crop", "totalsegmentator-layout/s0000"];
    let Some(files) = folders.iter().map(|folder| test_data(test, folder)).collect::<Option<Vec<_>>>() else { return };
    let is_ct = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        ["volume-", "img_", "ct."].iter().any(|start| name.starts_with(start)) && name.ends_with(".nii.gz")
    };
    let mut paths: Vec<_> = files
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .collect::<Result<Vec<_>, _>>()
        .unwrap()
        .iter()
        .map(std::fs::DirEntry::path)
        .filter(|path| is_ct(path))
        .collect();
    for folder in
        ["totalsegmentator-example/dicom", "totalsegmentator-example/example_ct_sm.nii.gz", "dcmqi-ct-3slice/ct-3slice"]
    {
        paths.extend(test_data(test, folder));
    }
    assert!(paths.len() >= 26, "{paths:?}");
    let mut crops = 0;
    for path in &paths {
        let volume =
            checked(read_volume(path, &ReadOptions::default()).unwrap()).unwrap_or_else(|message| panic!("{message}"));
        // Crops of tissue alone: blocks of 24 x 24 voxels in every slice that has one.
        let [nx, ny, nz] = volume.shape;
        let side = 24.min(nx).min(ny);
        for z in (0..nz).step_by(1 + nz / 8) {
            for (x, y) in [(nx / 3, ny / 2), (nx / 2, ny / 2), (nx / 4, ny * 2 / 5), (nx * 3 / 5, ny / 3)] {
                let (x, y) = (x.min(nx - side), y.min(ny - side));
                let values: Vec<f64> =
                    (0..side * side).map(|i| volume.voxels.get(x + i % side + nx * (y + i / side + ny * z))).collect();
                let soft = values.iter().filter(|hu| (-150.0..=250.0).contains(*hu)).count();
                if soft * 10 < values.len() * 9 {
                    continue;
                }
                crops += 1;
                let crop = file(INT16, [side, side, 1], &values);
                let read = read(&crop, Intensity::CheckedHu).map(|volume| volume.path);
                assert!(read.is_ok(), "{} at {x}, {y}, {z}: {read:?}", path.display());
            }
        }
    }
    assert!(crops > 100, "{crops} crops");
}

#[test]
fn images_of_other_kinds_among_the_test_data_are_refused() {
    let test = "images_of_other_kinds_among_the_test_data_are_refused";
    for name in [
        "niivue/FLAIR.nrrd",
        "nibabel/nibabel/tests/data/anatomical.nii",
        "nifti_reader_js/data/avg152T1_LR_nifti.nii.gz",
        "nifti_rs/resources/zstat1.nii.gz",
        "niivue_images/CT_pitch.nii.gz",
    ] {
        let Some(path) = test_data(test, &format!("nifti-samples/{name}")) else { return };
        let message =
            checked(read_volume(&path, &ReadOptions::default()).unwrap()).map(|volume| volume.path).unwrap_err();
        assert!(message.contains("which can't be HU"), "{message}");
    }
}

#[test]
fn voxels_that_are_no_numbers_are_warned_of() {
    let mut values = body();
    values[7] = f64::NAN;
    values[9] = f64::INFINITY;
    values[11] = f64::NEG_INFINITY;
    let volume = read(&file(FLOAT32, SHAPE, &values), Intensity::CheckedHu).unwrap();
    assert_eq!(volume.doubts(), ["1 voxel is not a number and became air", "2 voxels are infinite and were clipped"]);
}
