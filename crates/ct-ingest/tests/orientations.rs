//! One phantom in all 48 orientations, three voxel types and both kinds of affine: the same voxels in the same places.

mod common;

use common::Nifti;
use ct_ingest::{Geometry, Orientation, ReadOptions, Volume, image_slices, mask_slices, read_volume, write_mask};
use slice_store::{Scale, StoreSettings};
use std::path::Path;

/// A phantom in the order of its display: the first axis to the left, the second to posterior, the third to superior.
struct Phantom {
    shape: [usize; 3],
    spacing: [f64; 3],
    /// Right, anterior, superior of voxel 0, mm.
    origin: [f64; 3],
    hu: Vec<i16>,
    mask: Vec<u8>,
}

impl Phantom {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = phantom::PhantomSettings { patients: 1, slices: 8, size: 64, seed: 3 };
        phantom::write_data_set(directory.path(), &settings).unwrap();
        let read = |name: &str| read_volume(&directory.path().join(name), &ReadOptions::default()).unwrap();
        let (image, mask) = (read("volume-0.nii.gz"), read("segmentation-0.nii.gz"));
        assert_eq!(image.geometry.orientation.to_string(), "LPS");
        let cut = |values: &Volume, index: usize| values.voxels.get(index);
        // Another height than width, so that no axis can be taken for another.
        let shape = [64, 50, 8];
        let within = (0..64 * 64 * 8).filter(|index| index / 64 % 64 < 50);
        let hu = within.clone().map(|index| cut(&image, index) as i16).collect();
        let mask = within.map(|index| u8::from(cut(&mask, index) > 0.0)).collect();
        let origin = image.geometry.to_mm([0.0; 3]);
        Self { shape, spacing: image.geometry.spacing_mm, origin, hu, mask }
    }

    /// The display voxel at a voxel of a file with that orientation.
    fn display(orientation: &str, shape: [usize; 3], voxel: [usize; 3]) -> [usize; 3] {
        let mut display = [0; 3];
        for (axis, letter) in orientation.chars().enumerate() {
            let back = shape[axis] - 1 - voxel[axis];
            let (to, at) = match letter {
                'L' => (0, voxel[axis]),
                'R' => (0, back),
                'P' => (1, voxel[axis]),
                'A' => (1, back),
                'S' => (2, voxel[axis]),
                _ => (2, back),
            };
            display[to] = at;
        }
        display
    }

    fn at<T: Copy>(&self, values: &[T], [x, y, z]: [usize; 3]) -> T {
        values[x + self.shape[0] * (y + self.shape[1] * z)]
    }

    /// Right, anterior, superior in mm.
    fn place(&self, [x, y, z]: [usize; 3]) -> [f64; 3] {
        [
            self.origin[0] - x as f64 * self.spacing[0],
            self.origin[1] - y as f64 * self.spacing[1],
            self.origin[2] + z as f64 * self.spacing[2],
        ]
    }

    fn shape_in(&self, orientation: &str) -> [usize; 3] {
        let length =
            |letter: char| self.shape[usize::from("PA".contains(letter)) + 2 * usize::from("SI".contains(letter))];
        let mut letters = orientation.chars();
        std::array::from_fn(|_| length(letters.next().unwrap()))
    }

    /// A file with that orientation; `value` gives a voxel's bytes.
    fn file(&self, orientation: &str, data_type: i16, value: impl Fn([usize; 3]) -> Vec<u8>) -> Nifti {
        let shape = self.shape_in(orientation);
        let voxels = (0..shape.iter().product())
            .map(|i: usize| [i % shape[0], i / shape[0] % shape[1], i / shape[0] / shape[1]]);
        let data = voxels.flat_map(|voxel| value(Self::display(orientation, shape, voxel))).collect();
        let zero = self.place(Self::display(orientation, shape, [0; 3]));
        let mut affine = [[0.0_f32; 4]; 3];
        for axis in 0..3 {
            let mut one = [0; 3];
            one[axis] = 1;
            let next = self.place(Self::display(orientation, shape, one));
            for world in 0..3 {
                affine[world][axis] = (next[world] - zero[world]) as f32;
                affine[world][3] = zero[world] as f32;
            }
        }
        Nifti { shape, affine, data_type, bits: 0, data }
    }
}

/// The file's bytes with a qform in the place of its sform: nifti1.h's quaternion of the rotation, by the largest of its
/// four squares.
fn with_qform(file: &Nifti) -> Vec<u8> {
    let norm = |axis: usize| (0..3).map(|row| f64::from(file.affine[row][axis]).powi(2)).sum::<f64>().sqrt();
    let spacing = [norm(0), norm(1), norm(2)];
    let mut r: [[f64; 3]; 3] =
        std::array::from_fn(|row| std::array::from_fn(|axis| f64::from(file.affine[row][axis]) / spacing[axis]));
    let determinant = r[0][0] * (r[1][1] * r[2][2] - r[1][2] * r[2][1])
        - r[0][1] * (r[1][0] * r[2][2] - r[1][2] * r[2][0])
        + r[0][2] * (r[1][0] * r[2][1] - r[1][1] * r[2][0]);
    if determinant < 0.0 {
        for row in &mut r {
            row[2] = -row[2];
        }
    }
    let squares = [
        1.0 + r[0][0] + r[1][1] + r[2][2],
        1.0 + r[0][0] - r[1][1] - r[2][2],
        1.0 - r[0][0] + r[1][1] - r[2][2],
        1.0 - r[0][0] - r[1][1] + r[2][2],
    ];
    let largest = (0..4).max_by(|&a, &b| squares[a].total_cmp(&squares[b])).unwrap();
    let half = squares[largest].sqrt();
    let (sums, differences) = (
        [r[0][1] + r[1][0], r[0][2] + r[2][0], r[1][2] + r[2][1]],
        [r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]],
    );
    let mut q = match largest {
        0 => [half * half, differences[0], differences[1], differences[2]],
        1 => [differences[0], half * half, sums[0], sums[1]],
        2 => [differences[1], sums[0], half * half, sums[2]],
        _ => [differences[2], sums[1], sums[2], half * half],
    }
    .map(|part| part / (2.0 * half));
    if q[0] < 0.0 {
        q = q.map(|part| -part);
    }
    let mut bytes = file.bytes();
    let mut put = |at: usize, value: f64| bytes[at..at + 4].copy_from_slice(&(value as f32).to_le_bytes());
    put(76, determinant);
    for axis in 0..3 {
        put(80 + 4 * axis, spacing[axis]);
        put(256 + 4 * axis, q[1 + axis]);
        put(268 + 4 * axis, f64::from(file.affine[axis][3]));
    }
    bytes[252..254].copy_from_slice(&1_i16.to_le_bytes());
    bytes[254..256].copy_from_slice(&0_i16.to_le_bytes());
    bytes
}

fn check_places(phantom: &Phantom, orientation: &str, geometry: &Geometry, shape: [usize; 3]) {
    for corner in 0..8 {
        let voxel = std::array::from_fn(|axis| if corner >> axis & 1 == 1 { shape[axis] - 1 } else { 0 });
        let expected = phantom.place(Phantom::display(orientation, shape, voxel));
        let found = geometry.to_mm(voxel.map(|index| index as f64));
        for axis in 0..3 {
            assert!((found[axis] - expected[axis]).abs() < 1e-4, "{orientation}: {found:?} {expected:?}");
        }
    }
}

fn read(path: &Path, bytes: &[u8]) -> Volume {
    std::fs::write(path, bytes).unwrap();
    read_volume(path, &ReadOptions::default()).unwrap()
}

#[test]
fn every_orientation_type_and_affine_gives_the_same_slices_in_the_same_places() {
    let phantom = Phantom::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { slice_size: 64, scale: Scale::Native, ..StoreSettings::default() };
    let mut tried = 0;
    for orientation in Orientation::all() {
        let name = orientation.to_string();
        let hu = |at| phantom.at(&phantom.hu, at);
        let mut unsigned = phantom.file(&name, 512, |at| ((i32::from(hu(at)) + 1024) as u16).to_le_bytes().to_vec());
        unsigned.bits = 16;
        let mut files = [
            phantom.file(&name, 4, |at| hu(at).to_le_bytes().to_vec()),
            phantom.file(&name, 16, |at| f32::from(hu(at)).to_le_bytes().to_vec()),
            unsigned,
        ];
        files[0].bits = 16;
        files[1].bits = 32;
        for file in &files {
            for mut bytes in [file.bytes(), with_qform(file)] {
                if file.data_type == 512 {
                    bytes[112..116].copy_from_slice(&1_f32.to_le_bytes());
                    bytes[116..120].copy_from_slice(&(-1024_f32).to_le_bytes());
                }
                let volume = read(&directory.path().join(format!("{tried}.nii")), &bytes);
                assert_eq!(volume.geometry.orientation, orientation);
                check_places(&phantom, &name, &volume.geometry, volume.shape);
                let (images, plan) = image_slices(&volume, &settings).unwrap();
                for (slice, pixels) in images.chunks_exact(64 * 64).enumerate() {
                    let expected = &phantom.hu[slice * 64 * 50..(slice + 1) * 64 * 50];
                    assert_eq!(&pixels[..64 * 50], expected, "{name}, type {}", file.data_type);
                    let place = f64::from(plan.positions()[slice].position_mm);
                    assert!((place - phantom.place([0, 0, slice])[2]).abs() < 1e-4, "{name}");
                }
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 48 * 3 * 2);
}

#[test]
fn a_mask_goes_through_a_store_of_native_size_and_back_into_a_file_unchanged() {
    let phantom = Phantom::new();
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { slice_size: 64, scale: Scale::Native, ..StoreSettings::default() };
    for orientation in Orientation::all() {
        let name = orientation.to_string();
        let mut file = phantom.file(&name, 2, |at| vec![phantom.at(&phantom.mask, at)]);
        file.bits = 8;
        for bytes in [file.bytes(), with_qform(&file)] {
            let path = directory.path().join("mask.nii");
            let _ = std::fs::remove_file(&path);
            let mask = read(&path, &bytes);
            let plan = ct_ingest::SlicePlan::for_volume(&mask, &settings).unwrap();
            let slices = mask_slices(std::slice::from_ref(&mask), &plan, &[0, 1], &[1]).unwrap();
            let back = directory.path().join("back.nii.gz");
            write_mask(&back, &plan.restore_mask(&slices), &mask).unwrap();
            let back = read_volume(&back, &ReadOptions::default()).unwrap();
            assert_eq!(back.voxels, mask.voxels, "{name}");
            assert_eq!(back.geometry, mask.geometry, "{name}");
        }
    }
}
