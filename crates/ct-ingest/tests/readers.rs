//! What we write and what we say of other programs against these programs themselves: SimpleITK (ITK's reader, which 3D Slicer and
//! ITK-SNAP have too), nibabel and DuckDB, in the versions of `readers/requirements.txt`.

mod common;

use common::scratch::Scratch;
use common::{Nifti, Place};
use ct_ingest::{AffineChoice, ReadOptions, Volume, mask_doubt, read_volume, write_mask};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::open_file;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Affine = [[f64; 4]; 4];

/// Where the two programs put a file; `None` where one refuses it.
#[derive(Debug, Deserialize)]
struct Places {
    simpleitk: Option<Seen>,
    nibabel: Option<Seen>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    affine: Affine,
    voxels: Vec<f64>,
}

/// A Python with SimpleITK and nibabel; `None`, and a line that says so, where there is none.
fn python(test: &str) -> Option<PathBuf> {
    python_with("SimpleITK, nibabel", test)
}

fn python_with(packages: &str, test: &str) -> Option<PathBuf> {
    let program = std::env::var_os("SAM_MIX_TEST_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let found = Command::new(&program).arg("-c").arg(format!("import {packages}")).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(program);
    }
    println!("skipped: {test} needs a Python with {packages} (set SAM_MIX_TEST_PYTHON)");
    None
}

fn places(python: &Path, files: &[String]) -> Vec<Places> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers/places.py");
    let mut child =
        Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
    let mut stdin = child.stdin.take().unwrap();
    let lines = files.join("\n") + "\n";
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "places.py failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let places: Vec<Places> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(places.len(), files.len());
    places
}

/// The file of that name has two affines, of which the qform was chosen.
fn choice(path: &Path) -> Option<AffineChoice> {
    path.to_string_lossy().contains("choose-qform").then_some(AffineChoice::Qform)
}

fn read(path: &Path) -> Volume {
    read_volume(path, &ReadOptions { affine: choice(path), ..ReadOptions::default() }).unwrap()
}

/// The largest distance of a corner, in voxels of `a` along its axes, by Gauss elimination.
fn apart(a: &Affine, b: &Affine, shape: [usize; 3]) -> f64 {
    let mut most = 0.0_f64;
    for corner in 0..8 {
        let index: [f64; 3] =
            std::array::from_fn(|i| if corner >> i & 1 == 1 { (shape[i] - 1).max(1) as f64 } else { 0.0 });
        let at = |m: &Affine, row: usize| (0..3).map(|i| m[row][i] * index[i]).sum::<f64>() + m[row][3];
        let mut rows: Vec<[f64; 4]> =
            (0..3).map(|row| [a[row][0], a[row][1], a[row][2], at(b, row) - at(a, row)]).collect();
        for column in 0..3 {
            let pivot = (column..3).max_by(|&i, &j| rows[i][column].abs().total_cmp(&rows[j][column].abs())).unwrap();
            rows.swap(column, pivot);
            let of_pivot = rows[column];
            for (number, row) in rows.iter_mut().enumerate() {
                if number != column {
                    let factor = row[column] / of_pivot[column];
                    (0..4).for_each(|i| row[i] -= factor * of_pivot[i]);
                }
            }
        }
        most = (0..3).map(|i| (rows[i][3] / rows[i][i]).abs()).fold(most, f64::max);
    }
    most
}

const SHAPE: [usize; 3] = [10, 12, 6];

/// An sform along the axes LPS whose slices move by `drift` mm to posterior each.
fn drifting(drift: f32) -> [[f32; 4]; 3] {
    [[-0.8, 0.0, 0.0, 10.0], [0.0, -0.8, -drift, 20.0], [0.0, 0.0, 5.0, 30.0]]
}

/// Rows and columns turned by 12 degrees about the left-right axis, as a gantry tilts, with the table along the patient.
fn tilted() -> [[f32; 4]; 3] {
    let (sin, cos) = 12_f32.to_radians().sin_cos();
    [[-0.8, 0.0, 0.0, 10.0], [0.0, -0.8 * cos, 0.0, 20.0], [0.0, -0.8 * sin, 5.0, 30.0]]
}

/// The slices of the fixture's series with other positions and directions.
fn series(folder: &Path, name: &str, directions: [f64; 6], position: impl Fn(usize) -> [f64; 3]) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dicom/explicit_little");
    let mut slices: Vec<_> =
        std::fs::read_dir(source).unwrap().map(|entry| open_file(entry.unwrap().path()).unwrap()).collect();
    slices.sort_by_key(|slice| slice.get(tags::INSTANCE_NUMBER).unwrap().to_int::<u32>().unwrap());
    let out = folder.join(name);
    std::fs::create_dir(&out).unwrap();
    let text = |values: &[f64]| values.iter().map(f64::to_string).collect::<Vec<_>>().join("\\");
    for (index, slice) in slices.iter_mut().enumerate() {
        let mut put = |tag, values: &[f64]| {
            slice.put(DataElement::new(tag, VR::DS, PrimitiveValue::from(text(values).as_str())));
        };
        put(tags::IMAGE_ORIENTATION_PATIENT, &directions);
        put(tags::IMAGE_POSITION_PATIENT, &position(index));
        slice.write_to_file(out.join(format!("{index}.dcm"))).unwrap();
    }
    out
}

/// A CT of every kind that a mask can be written for: NIfTI of every set of codes, and everything else.
fn cts(folder: &Path) -> Vec<PathBuf> {
    let file = Nifti::uint8(SHAPE, |x, y, z| (x + 10 * y + 20 * z) as u8);
    let mut cts = Vec::new();
    let mut nifti = |name: &str, place: Place| {
        let path = folder.join(format!("{name}.nii"));
        std::fs::write(&path, place.bytes(&file)).unwrap();
        cts.push(path);
    };
    let usual = Place::default();
    let sform_only = Place { qform_code: 0, bcd: [0.0; 3], offset: [0.0; 3], ..usual };
    nifti("both", usual);
    nifti("sform-only", sform_only);
    nifti("sform-only-aligned", Place { sform_code: 2, ..sform_only });
    nifti("qform-only", Place { sform_code: 0, srow: [[0.0; 4]; 3], ..usual });
    nifti("no-codes", Place { sform_code: 0, qform_code: 0, ..usual });
    let left_handed = [[0.8, 0.0, 0.0, 10.0], [0.0, -0.8, 0.0, 20.0], [0.0, 0.0, 5.0, 30.0]];
    nifti("left-handed", Place { srow: left_handed, ..sform_only });
    nifti(
        "left-handed-drift",
        Place { srow: [left_handed[0], [0.0, -0.8, 0.005, 20.0], left_handed[2]], ..sform_only },
    );
    for (name, drift) in [("drift-0.0001", 0.0001), ("drift-0.001", 0.001), ("drift-0.01", 0.01), ("drift-0.05", 0.05)]
    {
        nifti(&format!("sform-only-{name}"), Place { srow: drifting(drift), ..sform_only });
    }
    nifti("sform-only-tilted", Place { srow: tilted(), ..sform_only });
    nifti("sform-only-aligned-tilted", Place { sform_code: 2, srow: tilted(), ..sform_only });
    nifti("both-tilted", Place { srow: tilted(), ..usual });
    nifti("empty-sform", Place { srow: [[0.0; 4]; 3], ..usual });
    let moved = [[-0.8, 0.0, 0.0, 70.0], usual.srow[1], usual.srow[2]];
    nifti("choose-qform", Place { srow: moved, ..usual });
    let metres = usual.srow.map(|row| row.map(|value| value / 1000.0));
    let metres = Place { srow: metres, pixdim: [1.0, 0.0008, 0.0008, 0.005], unit: 1, ..sform_only };
    nifti("metres", metres);
    // The first 540 bytes of NIfTI-2 for the same places.
    for (name, srow) in [("nifti-2", usual.srow), ("nifti-2-drift", drifting(0.01)), ("nifti-2-tilted", tilted())] {
        let path = folder.join(format!("{name}.nii"));
        std::fs::write(&path, nifti_2(&file, srow)).unwrap();
        cts.push(path);
    }
    let mut pair = Place { srow: drifting(0.005), ..sform_only }.bytes(&file);
    pair[344..348].copy_from_slice(b"ni1\0");
    pair[108..112].copy_from_slice(&0_f32.to_le_bytes());
    std::fs::write(folder.join("pair.hdr"), &pair[..352]).unwrap();
    std::fs::write(folder.join("pair.img"), &file.data).unwrap();
    cts.push(folder.join("pair.hdr"));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    cts.extend(["type_float32_big.nii.gz", "qform_oblique.nii.gz", "sform_PSR.nii.gz"].map(|name| fixtures.join(name)));
    let nrrd = ["oblique.nrrd", "turned_LAS.nrrd", "flipped.nrrd", "turned.mha", "oblique.mha", "no_directions.mha"];
    cts.extend(nrrd.map(|name| fixtures.join("nrrd").join(name)));
    for (name, step) in [("drift", "0,0.005,5"), ("tilted", "0,1.0394,4.8907")] {
        let path = folder.join(format!("{name}.nrrd"));
        let text = format!(
            "NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 10 12 6\n\
             space directions: (0.8,0,0) (0,0.8,0) ({step})\nspace origin: (-10,-20,30)\nencoding: raw\n\n"
        );
        std::fs::write(&path, [text.as_bytes(), &file.data].concat()).unwrap();
        cts.push(path);
    }
    let (sin, cos) = 12_f64.to_radians().sin_cos();
    let cut = |value: f64| (value * 1e6).round() / 1e6;
    let axial = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    cts.push(series(folder, "series", axial, |k| [-10.0, -20.0, 2.5 * k as f64]));
    cts.push(series(folder, "series-drift", axial, |k| [-10.0, -20.0 + 0.005 * k as f64, 2.5 * k as f64]));
    cts.push(series(folder, "series-rounded", axial, |k| [-10.0, -20.0, (1.2537 * k as f64 * 100.0).round() / 100.0]));
    cts.push(series(folder, "series-tilted", [1.0, 0.0, 0.0, 0.0, cut(cos), cut(-sin)], |k| {
        [-10.0, -20.0, 2.5 * k as f64]
    }));
    // Turned by 3 degrees about the long axis and 2 about the left-right one, cosines in 4 decimals and positions in 2.
    let ((sa, ca), (sb, cb)) = (3_f64.to_radians().sin_cos(), 2_f64.to_radians().sin_cos());
    let four = |value: f64| (value * 1e4).round() / 1e4;
    let two = |value: f64| (value * 1e2).round() / 1e2;
    cts.push(series(folder, "series-oblique", [ca, cb * sa, sb * sa, -sa, cb * ca, sb * ca].map(four), |k| {
        let along = 2.5 * k as f64;
        [-10.0, -20.0 - sb * along, cb * along].map(two)
    }));
    cts
}

/// A NIfTI-2 file with an sform only.
fn nifti_2(file: &Nifti, srow: [[f32; 4]; 3]) -> Vec<u8> {
    let mut bytes = vec![0; 544];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &540_i32.to_le_bytes());
    put(4, b"n+2\0\r\n\x1a\n");
    put(12, &2_i16.to_le_bytes());
    put(14, &8_i16.to_le_bytes());
    put(16, &3_i64.to_le_bytes());
    for axis in 0..7 {
        put(24 + 8 * axis, &file.shape.get(axis).map_or(1, |&length| length as i64).to_le_bytes());
    }
    for (at, size) in [(104, 1.0), (112, 0.8), (120, 0.8), (128, 5.0_f64)] {
        put(at, &size.to_le_bytes());
    }
    put(168, &544_i64.to_le_bytes());
    put(176, &1_f64.to_le_bytes());
    put(348, &1_i32.to_le_bytes());
    for (i, value) in srow.as_flattened().iter().enumerate() {
        put(400 + 8 * i, &f64::from(*value).to_le_bytes());
    }
    put(500, &2_i32.to_le_bytes());
    bytes.extend(&file.data);
    bytes
}

/// Folders end with a slash for the script.
fn text(path: &Path) -> String {
    format!("{}{}", path.display(), if path.is_dir() { "/" } else { "" })
}

#[test]
fn simpleitk_and_nibabel_open_every_mask_at_the_place_of_its_ct() {
    let Some(python) = python("simpleitk_and_nibabel_open_every_mask_at_the_place_of_its_ct") else { return };
    let directory = tempfile::tempdir().unwrap();
    let cts = cts(directory.path());
    let volumes: Vec<Volume> = cts.iter().map(|path| read(path)).collect();
    let mut files: Vec<String> = cts.iter().map(|path| text(path)).collect();
    let mut masks = Vec::new();
    for (number, volume) in volumes.iter().enumerate() {
        let path = directory.path().join(format!("mask-{number}.nii.gz"));
        let mask: Vec<u8> = (0..volume.voxels.len()).map(|i| u8::from(i % 7 == 0)).collect();
        write_mask(&path, &mask, volume).unwrap();
        files.push(text(&path));
        masks.push(mask);
    }
    let seen = places(&python, &files);
    let (of_cts, of_masks) = seen.split_at(cts.len());
    let mut warned = Vec::new();
    for (number, volume) in volumes.iter().enumerate() {
        let name = cts[number].file_stem().unwrap().to_string_lossy().into_owned();
        let (ct, mask) = (&of_cts[number], &of_masks[number]);
        let itk = mask.simpleitk.as_ref().unwrap_or_else(|| panic!("SimpleITK refuses the mask of {name}"));
        let nibabel = mask.nibabel.as_ref().unwrap_or_else(|| panic!("nibabel refuses the mask of {name}"));
        let expected: Vec<f64> = masks[number].iter().map(|&value| f64::from(value)).collect();
        assert!(itk.voxels == expected && nibabel.voxels == expected, "{name}: other voxels");
        let from = |affine: &Affine, place: &Affine| apart(place, affine, volume.shape);
        // nibabel: where it puts the CT, or, if that is no place or no NIfTI, where the CT is.
        let here = &volume.geometry.affine;
        let usable = |seen: &Seen| seen.affine[0][..3].iter().any(|&value| value != 0.0);
        let place = ct.nibabel.as_ref().filter(|seen| usable(seen)).map_or(here, |seen| &seen.affine);
        assert!(from(&nibabel.affine, place) < 1e-3, "{name}: nibabel has {:?}, not {place:?}", nibabel.affine);
        // SimpleITK: likewise; a DICOM series too, which it stacks at right angles however it is sheared.
        let doubt = mask_doubt(volume);
        let nifti = [".nii", ".gz", ".hdr"].iter().any(|end| files[number].ends_with(end));
        match &ct.simpleitk {
            Some(seen) if nifti || cts[number].is_dir() => {
                let off = from(&itk.affine, &seen.affine);
                assert!(off < 0.01, "{name}: SimpleITK has the mask {off} voxels from its CT");
                assert!(!nifti || doubt.is_none(), "{name}: {doubt:?}");
            }
            _ => {}
        }
        // What it does to a CT that it can't open, or that is no NIfTI, is said where it is more than a twentieth of a voxel.
        if !nifti || ct.simpleitk.is_none() {
            let off = from(&itk.affine, here);
            assert_eq!(doubt.is_some(), off > 0.05, "{name}: {off} {doubt:?}");
            if let Some(doubt) = doubt {
                let shown = if off < 1.0 { format!("{off:.4}") } else { format!("{off:.1}") };
                assert!(doubt.contains(&format!("corner {shown} voxels from there")), "{name}: {off} {doubt}");
                warned.push(name.clone());
            }
        }
        // Our own reader has the mask where its CT is, whatever else its header says.
        let options = ReadOptions { affine: choice(&cts[number]), ..ReadOptions::default() };
        let again = read_volume(Path::new(&files[cts.len() + number]), &options).unwrap().geometry.affine;
        assert!(from(&again, here) < 1e-3, "{name}: {again:?} {here:?}");
    }
    let expected = [
        "sform-only-drift-0",
        "sform-only-tilted",
        "sform-only-aligned-tilted",
        "nifti-2-tilted",
        "tilted",
        "series-tilted",
    ];
    for name in expected {
        assert!(warned.iter().any(|warned| warned.starts_with(name)), "no word about {name}: {warned:?}");
    }
    for name in ["both", "sform-only", "series", "series-drift", "series-rounded", "drift", "nifti-2", "pair"] {
        assert!(!warned.iter().any(|warned| warned == name), "a word too many about {name}");
    }
}

#[test]
fn a_warning_names_each_program_that_puts_the_volume_elsewhere_and_how_far() {
    let Some(python) = python("a_warning_names_each_program_that_puts_the_volume_elsewhere_and_how_far") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = Nifti::uint8(SHAPE, |x, y, z| (x + y + z) as u8);
    let usual = Place::default();
    let near = [[-0.8, 0.0, 0.0, 10.3], usual.srow[1], usual.srow[2]];
    let mut all = Vec::new();
    for sform_code in [0, 1, 2, 4, 5, 7] {
        for qform_code in [0, 1, 2, 4, 7] {
            for srow in [usual.srow, near, drifting(0.0004), drifting(0.006), drifting(0.02), tilted()] {
                for pixdim in [
                    usual.pixdim,
                    [1.0, 0.8, 0.8, 4.9],
                    [1.0, 1.0, 1.0, 1.0],
                    [1.0, 0.0, 0.8, 5.0],
                    [1.0, -0.8, 0.8, 5.0],
                ] {
                    all.push(Place { sform_code, qform_code, srow, pixdim, ..usual });
                }
            }
        }
    }
    // Quaternions of a small angle beside a half turn, which programs round otherwise.
    let d = 1.0 - 2_f32.powi(-10);
    for rest in [5e-8, 1.2e-7, 2e-7, 3e-7, 4e-7, 1e-6] {
        let b = (1.0 - f64::from(d).powi(2) - rest).sqrt() as f32;
        all.push(Place { sform_code: 0, bcd: [b, 0.0, d], ..usual });
    }
    for unit in [0, 1, 2, 3, 4, 8, 10] {
        let part = match unit {
            1 => 1e-3,
            3 => 1e3,
            _ => 1.0,
        };
        let srow = usual.srow.map(|row| row.map(|value| value * part));
        let offset = usual.offset.map(|value| value * part);
        let pixdim = [1.0, 0.8 * part, 0.8 * part, 5.0 * part];
        for (sform_code, qform_code) in [(1, 0), (0, 1), (1, 1), (0, 0)] {
            all.push(Place { sform_code, qform_code, srow, offset, pixdim, unit, ..usual });
        }
    }
    let mut files = Vec::new();
    for (number, place) in all.iter().enumerate() {
        let path = directory.path().join(format!("{number}.nii"));
        std::fs::write(&path, place.bytes(&file)).unwrap();
        files.push(text(&path));
    }
    let (mut compared, mut words) = (0, 0);
    for ((place, file), seen) in all.iter().zip(&files).zip(places(&python, &files)) {
        // What is refused because its two affines disagree has a test of its own.
        let Ok(volume) = read_volume(Path::new(file), &ReadOptions::default()) else { continue };
        for (program, seen) in [("SimpleITK", &seen.simpleitk), ("nibabel", &seen.nibabel)] {
            let warning = volume.warnings.iter().find(|text| text.starts_with(program));
            let Some(seen) = seen else {
                assert!(warning.is_none(), "{place:?}: {warning:?}");
                continue;
            };
            let off = apart(&volume.geometry.affine, &seen.affine, volume.shape);
            // On the threshold itself either is right.
            if (off - 0.05).abs() > 1e-3 {
                assert_eq!(warning.is_some(), off > 0.05, "{place:?}: {program} is {off} away: {:?}", volume.warnings);
            }
            if let Some(warning) = warning {
                let said = warning.split("farthest corner ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
                let said: f64 = said.parse().unwrap();
                let unsharp = if off < 1.0 { 2e-3 } else { 0.051 + 1e-4 * off };
                assert!((said - off).abs() < unsharp, "{place:?}: {off} {warning}");
                words += 1;
            }
            compared += 1;
        }
    }
    assert!(compared > 500 && words > 100, "{compared} compared, {words} warnings");
}

/// A column of an index, and how many rows each filter finds: in the file, and in a table filled from it.
#[derive(Debug, Deserialize)]
struct Found {
    column: String,
    #[serde(rename = "type")]
    kind: String,
    rows: BTreeMap<String, [usize; 2]>,
}

#[test]
fn duckdb_finds_the_same_rows_in_an_index_however_it_reads_it_and_no_nan() {
    let test = "duckdb_finds_the_same_rows_in_an_index_however_it_reads_it_and_no_nan";
    let Some(python) = python_with("duckdb", test) else { return };
    let scratch = Scratch::with_cases(2, [40, 36, 6]);
    let store = scratch.prepared("store", &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers/index.py");
    let output = Command::new(python).arg(script).arg(store.path().join("index.parquet")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let columns: Vec<Found> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let slices = store.records().len();
    for Found { column, rows, .. } in &columns {
        assert!(rows.values().all(|[file, table]| file == table), "{column}: {rows:?}");
        // Every slice has a mask.
        assert_eq!((rows["null"], rows["there"]), ([0; 2], [slices; 2]), "{column}");
        assert!(
            ["nan", "beyond"].iter().all(|of| rows.get(*of).is_none_or(|rows| *rows == [0; 2])),
            "{column}: {rows:?}"
        );
    }
    assert_eq!((columns.len(), columns.iter().filter(|column| column.kind == "FLOAT").count()), (17, 4));
}
