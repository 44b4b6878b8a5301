//! What we write, read by other programs, and what they write, read by us: equal voxels in equal places, or a difference that is listed
//! here. In the versions of `programs/requirements.txt`; with `--nocapture` the answers are shown as a table.

mod common;

use annotation::{Ct, CtSeries, DicomSegType, Segment, write_dicom_seg, write_rtstruct, write_seg_nrrd};
use common::*;
use ct_ingest::Grid;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::open_file;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use whole_file::Existing;

/// Programs whose answers are others than "equal": the beginning of what was written or read, the program, a part of the CT's name ("" for all), and how
/// its answer begins. Why is in the crate's README.
const OTHERS: [(&str, &str, &str, &str); 22] = [
    // It makes one stack of all frames, whatever their segment.
    ("BINARY of two", "SimpleITK", "tilted", "0.497 voxels off"),
    ("BINARY of two", "SimpleITK", "", "reaches from voxel"),
    // ITK's reader doesn't know the class.
    ("LABELMAP", "SimpleITK", "", "refused: RuntimeError: Exception thrown in SimpleITK ImageFileReader_Execute"),
    // They make volumes with right angles, or none.
    ("BINARY", "highdicom", "tilted", "refused: RuntimeError: Frame positions do not form a regularly-spaced volume"),
    ("LABELMAP", "highdicom", "tilted", "refused: RuntimeError: Frame positions do not form a regularly-spaced volume"),
    ("BINARY", "dcmqi", "tilted", "refused: RuntimeError: no image was written"),
    ("LABELMAP", "dcmqi", "tilted", "refused: RuntimeError: no image was written"),
    ("BINARY", "SimpleITK", "tilted", "0.401 voxels off"),
    // It takes the distance of rows for that of columns, and the number of rows for that of columns.
    ("RTSTRUCT", "rt-utils", "head first", "60 of 150 voxels differ"),
    ("RTSTRUCT", "rt-utils", "face", "60 of 150 voxels differ"),
    ("RTSTRUCT", "rt-utils", "feet first", "60 of 150 voxels differ"),
    ("RTSTRUCT", "rt-utils", "coronal", "60 of 150 voxels differ"),
    ("RTSTRUCT", "rt-utils", "oblique", "60 of 150 voxels differ"),
    ("written", "rt-utils", "head first", "85 voxels differ"),
    ("written", "rt-utils", "face", "85 voxels differ"),
    ("written", "rt-utils", "feet first", "85 voxels differ"),
    ("written", "rt-utils", "coronal", "85 voxels differ"),
    ("written", "rt-utils", "oblique", "85 voxels differ"),
    // It stacks slices along their normal.
    ("RTSTRUCT", "rt-utils", "tilted", "149 of 150 voxels differ"),
    ("written", "rt-utils", "tilted", "118 voxels differ"),
    // The CT's slices have no SOPInstanceUID but in the file meta information, where these don't look.
    ("RTSTRUCT", "rt-utils", "totalsegmentator", "1710756 of 1710756 voxels differ"),
    ("written", "dcmqi", "totalsegmentator", "refused: RuntimeError"),
];

/// A Python with the programs; `None`, and a line that says so, where there is none.
fn python(test: &str) -> Option<PathBuf> {
    let program = std::env::var_os("SAM_MIX_TEST_PROGRAMS").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let packages = "import dcmqi, highdicom, nrrd, pydicom, rt_utils, SimpleITK, slicerio";
    let found = Command::new(&program).args(["-c", packages]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(program);
    }
    println!(
        "skipped: {test} needs a Python with the packages of tests/programs/requirements.txt (set SAM_MIX_TEST_PROGRAMS)"
    );
    None
}

fn ask(python: &Path, jobs: &[Value]) -> Vec<Map<String, Value>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/check.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("Python starts");
    let mut stdin = child.stdin.take().unwrap();
    let lines = jobs.iter().fold(String::new(), |text, job| text + &format!("{job}\n"));
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "check.py failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Map<String, Value>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), jobs.len());
    answers
}

/// What is common to the jobs about a CT and a mask.
fn job(grid: Grid<'_>, folder: Option<&Path>, mask: &[u8], file: &Path) -> Value {
    fs::write(file, mask).unwrap();
    let lps = |row: usize| grid.geometry.affine[row].map(|value| if row < 2 { -value } else { value });
    json!({
        "ct": folder, "mask": file, "shape": grid.shape,
        "affine": [lps(0), lps(1), lps(2), [0.0, 0.0, 0.0, 1.0]],
    })
}

fn with(mut job: Value, key: &str, value: &Path) -> Value {
    job[key] = json!(value);
    job
}

/// A liver of a kind: a disc with a hole, a finger of one pixel, and a pixel that touches it in a corner; on all slices but the ends.
fn blob([columns, rows, slices]: [usize; 3]) -> Vec<u8> {
    let (cx, cy) = (columns as f64 * 0.42, rows as f64 * 0.5);
    let r = columns.min(rows) as f64 * 0.36;
    let set = |place: usize| {
        let (x, y, z) = (place % columns, place / columns % rows, place / columns / rows);
        let d = (x as f64 - cx).hypot(y as f64 - cy);
        let finger = y == rows / 2 && x as f64 > cx && x < columns - 2;
        let corner = y == rows / 2 + 1 && x == columns - 2;
        z > 0 && z + 1 < slices && ((d < r && d > r / 3.0) || finger || corner)
    };
    (0..columns * rows * slices).map(|place| u8::from(set(place))).collect()
}

/// All CTs that are DICOM series: made ones of every direction, and the test data's where they are.
fn all_series(folder: &Path, test: &str) -> Vec<(String, CtSeries)> {
    let mut all: Vec<(String, CtSeries)> =
        series_of_every_kind(folder).into_iter().map(|(name, ct)| (name.to_owned(), ct)).collect();
    all.push(("square pixels".to_owned(), series(&fixture("ct_square"))));
    for (data, below) in [("dcmqi-ct-3slice", "ct-3slice"), ("totalsegmentator-example", "dicom")] {
        all.extend(test_data(test, data).map(|found| (data.to_owned(), series(&found.join(below)))));
    }
    all
}

/// Compares answers with what is listed.
struct Table(Vec<String>);

impl Table {
    fn check(&mut self, what: &str, ct: &str, program: &str, answer: &str) {
        println!("{what:14} {program:18} {ct:26} {answer}");
        let listed = OTHERS.iter().find(|(of, who, on, _)| what.starts_with(of) && *who == program && ct.contains(on));
        let expected = listed.map_or("equal", |(.., answer)| answer);
        if !answer.starts_with(expected) {
            self.0.push(format!("{what} {program} {ct}: {answer}, expected {expected}"));
        }
    }

    fn finish(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

#[test]
fn other_programs_read_what_is_written_equal_in_voxels_and_place() {
    let test = "other_programs_read_what_is_written_equal_in_voxels_and_place";
    let Some(python) = python(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let liver = liver();
    let (mut names, mut jobs) = (Vec::new(), Vec::new());
    for (number, (name, ct)) in all_series(folder.path(), test).iter().enumerate() {
        let grid = ct.grid();
        let file = |ending: &str| folder.path().join(format!("{number}.{ending}"));
        let voxels = grid.shape.iter().product();
        let masks = [scattered(voxels, 9), blob(grid.shape)];
        let jobs_of = [0, 1].map(|i| job(grid, Some(grid.path), &masks[i], &file(&format!("mask{i}"))));
        let segments = masks.each_ref().map(|mask| painted(&liver, mask));
        // Overlapping.
        let other = Segment::named("Spleen", program());
        let two = [painted(&other, &masks[1]), segments[0]];
        for (what, kind, segments) in [
            ("BINARY", DicomSegType::Binary, &segments[..1]),
            ("BINARY of two", DicomSegType::Binary, &two),
            ("LABELMAP", DicomSegType::LabelMap, &segments[..1]),
        ] {
            write_dicom_seg(&file(what), ct, segments, kind, Existing::Kept).unwrap();
            names.push((what, name.clone()));
            let job = with(jobs_of[0].clone(), "path", &file(what));
            jobs.push(with(job, "read", Path::new("seg")));
        }
        write_rtstruct(&file("rt.dcm"), ct, &segments[1..], Existing::Kept).unwrap();
        names.push(("RTSTRUCT", name.clone()));
        jobs.push(with(with(jobs_of[1].clone(), "path", &file("rt.dcm")), "read", Path::new("rtstruct")));
    }
    for (number, (axes, flipped)) in all_turns().into_iter().enumerate() {
        let ct = ct();
        let (made, _) = turned(ct.grid(), axes, flipped);
        let file = |ending: &str| folder.path().join(format!("turned{number}.{ending}"));
        let mask = scattered(693, 10 + number as u64);
        let path = file("seg.nrrd");
        write_seg_nrrd(&path, made.grid(), &[painted(&liver, &mask)], Existing::Kept).unwrap();
        names.push((".seg.nrrd", made.geometry.orientation.to_string()));
        jobs.push(with(with(job(made.grid(), None, &mask, &file("mask")), "path", &path), "read", Path::new("nrrd")));
    }
    let mut table = Table(Vec::new());
    for ((what, name), answers) in names.iter().zip(ask(&python, &jobs)) {
        for (program, answer) in answers {
            table.check(what, name, &program, answer.as_str().unwrap());
        }
    }
    table.finish();
}

#[test]
fn what_other_programs_write_is_read_equal_in_voxels_and_place() {
    let test = "what_other_programs_write_is_read_equal_in_voxels_and_place";
    let Some(python) = python(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let all = all_series(folder.path(), test);
    let turned: Vec<(String, Made)> = all_turns()
        .into_iter()
        .map(|(axes, flipped)| turned(ct().grid(), axes, flipped).0)
        .map(|made| (made.geometry.orientation.to_string(), made))
        .collect();
    let of_series = all.iter().map(|(name, ct)| (name, ct.ct(), Some(ct.grid().path)));
    let of_turned = turned.iter().map(|(name, made)| (name, Ct::of_grid(made.grid()), None));
    let cts: Vec<(&String, Ct<'_>, Option<&Path>)> = of_series.chain(of_turned).collect();
    let mut masks = Vec::new();
    let mut jobs = Vec::new();
    for (number, (_, ct, series)) in cts.iter().enumerate() {
        let out = folder.path().join(format!("out{number}"));
        fs::create_dir(&out).unwrap();
        let mask = blob(ct.grid.shape);
        jobs.push(with(job(ct.grid, *series, &mask, &out.join("mask")), "write", &out));
        masks.push(mask);
    }
    let mut table = Table(Vec::new());
    for (((name, ct, _), mask), answers) in cts.iter().zip(&masks).zip(ask(&python, &jobs)) {
        for (program, answer) in answers {
            let answer = answer.as_str().unwrap();
            let found = if answer.starts_with("refused") {
                answer.to_owned()
            } else {
                match annotation::read_segmentation(Path::new(answer), &["Liver"], ct) {
                    Ok(found) if found.segments[0].mask == *mask => "equal".to_owned(),
                    Ok(found) => {
                        let wrong = found.segments[0].mask.iter().zip(mask).filter(|(a, b)| a != b).count();
                        format!("{wrong} voxels differ")
                    }
                    Err(error) => error.to_string(),
                }
            };
            table.check("written", name, &program, &found);
        }
    }
    table.finish();
}

/// A series of cubic voxels of 0.7 mm.
fn cubes(folder: &Path, side: usize) -> CtSeries {
    fs::create_dir(folder).unwrap();
    let mut slice = open_file(fixture("ct_square/1.dcm")).unwrap();
    let zeros = PrimitiveValue::U16(vec![0; side * side].into());
    slice.put(DataElement::new(tags::PIXEL_DATA, VR::OW, zeros));
    for tag in [tags::ROWS, tags::COLUMNS] {
        slice.put(DataElement::new(tag, VR::US, PrimitiveValue::from(side as u16)));
    }
    for index in 0..side {
        put_decimals(&mut slice, tags::IMAGE_POSITION_PATIENT, &[-33.0, -33.0, 0.7 * index as f64]);
        let uid = PrimitiveValue::from(format!("1.2.3.{index}").as_str());
        slice.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, uid));
        slice.write_to_file(folder.join(format!("{index}.dcm"))).unwrap();
    }
    series(folder)
}

#[test]
fn contours_lie_on_the_edges_of_pixels_and_those_of_others_half_a_pixel_inside() {
    let Some(python) = python("contours_lie_on_the_edges_of_pixels_and_those_of_others_half_a_pixel_inside") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ct = cubes(&folder.path().join("ct"), 96);
    let ball = |radius: f64| -> Vec<u8> {
        let inside = |place: usize| {
            let d = [place % 96, place / 96 % 96, place / 96 / 96].map(|i| i as f64 - 47.3);
            u8::from(d[0] * d[0] + d[1] * d[1] + d[2] * d[2] < radius * radius)
        };
        (0..96 * 96 * 96).map(inside).collect()
    };
    let liver = liver();
    let mut jobs = Vec::new();
    for (number, radius) in [5.6, 40.0].into_iter().enumerate() {
        let mask = ball(radius);
        let path = folder.path().join(format!("{number}.dcm"));
        write_rtstruct(&path, &ct, &[painted(&liver, &mask)], Existing::Kept).unwrap();
        let job = job(ct.grid(), Some(ct.grid().path), &mask, &folder.path().join(format!("{number}.mask")));
        jobs.push(with(job, "bias", &path));
    }
    for (radius, answer) in ["3.9 mm", "28 mm"].iter().zip(ask(&python, &jobs)) {
        for (who, numbers) in answer {
            println!("ball of {radius}, {who}: {numbers}");
            let number = |name: &str| numbers[name].as_f64().unwrap();
            if who == "ours" {
                assert!(number("pixels").abs() < 0.02);
                assert_eq!([number("half-open"), number("without the contour")], [1.0; 2]);
            } else {
                assert!((-0.6..-0.4).contains(&number("pixels")));
            }
        }
    }
}
