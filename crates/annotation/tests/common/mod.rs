//! Shared by the tests: the fixtures, grids and series of every direction, and where the test data are.
#![allow(dead_code)]

use annotation::{Algorithm, AnnotationError, Ct, CtSeries, Painted, Segment, read_segmentation};
use ct_ingest::{AffineKind, Geometry, Grid, ReadOptions};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, open_file};
use std::path::{Path, PathBuf};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The fixture's CT: 9 columns, 11 rows, 7 slices.
pub fn ct() -> CtSeries {
    series(&fixture("ct"))
}

pub fn series(folder: &Path) -> CtSeries {
    CtSeries::open(folder, &ReadOptions::default()).unwrap()
}

/// A mask that was given to the programs that made the fixtures.
pub fn expected(name: &str, voxels: usize) -> Vec<u8> {
    let text = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut mask = vec![0; voxels];
    for place in all[name].as_array().unwrap() {
        mask[place.as_u64().unwrap() as usize] = 1;
    }
    mask
}

pub fn read(path: &Path, name: &str, ct: &Ct<'_>) -> Vec<u8> {
    read_segmentation(path, &[name], ct).unwrap().segments.remove(0).mask
}

pub fn refusal(path: &Path, name: &str, ct: &Ct<'_>) -> AnnotationError {
    read_segmentation(path, &[name], ct).unwrap_err()
}

pub fn program() -> Algorithm {
    Algorithm::Automatic { name: "a model".to_owned(), version: "1.2".to_owned() }
}

pub fn liver() -> Segment {
    Segment { description: "Leber, ohne Gefäße".to_owned(), ..Segment::named("Liver", program()) }
}

pub fn painted<'a>(segment: &'a Segment, mask: &'a [u8]) -> Painted<'a> {
    Painted { segment, mask }
}

/// Voxels that look random, and are the same each time: one in three.
pub fn scattered(voxels: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::from(state.is_multiple_of(3))
    };
    (0..voxels).map(|_| next()).collect()
}

/// The fixture's slices with something changed, in a folder of their own.
pub fn changed_series(folder: &Path, change: impl Fn(usize, &mut DefaultDicomObject)) -> CtSeries {
    std::fs::create_dir_all(folder).unwrap();
    for index in 0..7 {
        let mut slice = open_file(fixture("ct").join(format!("{}.dcm", index + 1))).unwrap();
        change(index, &mut slice);
        slice.write_to_file(folder.join(format!("{index}.dcm"))).unwrap();
    }
    series(folder)
}

pub fn put_decimals(object: &mut DefaultDicomObject, tag: dicom_core::Tag, values: &[f64]) {
    let text = values.iter().map(|value| format!("{value:.8}")).collect::<Vec<_>>().join("\\");
    object.put(DataElement::new(tag, VR::DS, PrimitiveValue::from(text.as_str())));
}

/// Series as scanners make them: the patient on the back or the face, head or feet first, a tilted gantry, an oblique
/// reconstruction.
pub fn series_of_every_kind(folder: &Path) -> Vec<(&'static str, CtSeries)> {
    let (sin, cos) = 12_f64.to_radians().sin_cos();
    let kinds = [
        ("head first, on the back", [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 2.5]),
        ("on the face", [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 2.5]),
        ("feet first", [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 2.5]),
        ("tilted gantry", [1.0, 0.0, 0.0, 0.0, cos, -sin], [0.0, 0.0, 2.5]),
        ("coronal", [1.0, 0.0, 0.0, 0.0, 0.0, -1.0], [0.0, 2.5, 0.0]),
        ("oblique", [cos, sin, 0.0, -sin * cos, cos * cos, sin], [2.5 * sin * sin, -2.5 * sin * cos, 2.5 * cos]),
    ];
    kinds
        .into_iter()
        .enumerate()
        .map(|(number, (name, directions, step))| {
            let made = changed_series(&folder.join(number.to_string()), |index, slice| {
                put_decimals(slice, tags::IMAGE_ORIENTATION_PATIENT, &directions);
                let position = [0, 1, 2].map(|i: usize| [-50.5, -60.25, 100.0][i] + step[i] * index as f64);
                put_decimals(slice, tags::IMAGE_POSITION_PATIENT, &position);
            });
            (name, made)
        })
        .collect()
}

/// A grid of its own.
pub struct Made {
    pub shape: [usize; 3],
    pub geometry: Geometry,
    pub path: PathBuf,
}

impl Made {
    pub fn grid(&self) -> Grid<'_> {
        Grid { path: &self.path, shape: self.shape, geometry: &self.geometry }
    }
}

/// The same voxels with their axes in another order and direction: axis `axes[i]` of the given grid becomes axis `i`. Also the place of
/// each of its voxels in the given grid.
pub fn turned(grid: Grid<'_>, axes: [usize; 3], flipped: [bool; 3]) -> (Made, Vec<usize>) {
    let affine = &grid.geometry.affine;
    let mut turned = [[0.0; 4]; 4];
    turned[3][3] = 1.0;
    for row in 0..3 {
        turned[row][3] = affine[row][3];
        for axis in 0..3 {
            let step = affine[row][axes[axis]];
            turned[row][axis] = if flipped[axis] { -step } else { step };
            turned[row][3] += if flipped[axis] { step * (grid.shape[axes[axis]] - 1) as f64 } else { 0.0 };
        }
    }
    let shape = axes.map(|axis| grid.shape[axis]);
    let mut places = Vec::new();
    for z in 0..shape[2] {
        for y in 0..shape[1] {
            for x in 0..shape[0] {
                let mut at = [0; 3];
                for (axis, index) in [x, y, z].into_iter().enumerate() {
                    at[axes[axis]] = if flipped[axis] { shape[axis] - 1 - index } else { index };
                }
                places.push(at[0] + grid.shape[0] * (at[1] + grid.shape[1] * at[2]));
            }
        }
    }
    let geometry = Geometry::of_affine(turned, AffineKind::Sform).unwrap();
    (Made { shape, geometry, path: "made".into() }, places)
}

/// The 48 ways to order and direct three axes.
pub fn all_turns() -> Vec<([usize; 3], [bool; 3])> {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let flips = (0..8).map(|bits: usize| [0, 1, 2].map(|axis| bits >> axis & 1 == 1));
    flips.flat_map(|flipped| orders.map(|axes| (axes, flipped))).collect()
}

/// A folder of the test data; `None`, and a line that says so, where it is absent.
pub fn test_data(test: &str, folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SAM_MIX_TEST_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let path = root.join(folder);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {test} needs the test data (set SAM_MIX_TEST_DATA)");
    None
}
