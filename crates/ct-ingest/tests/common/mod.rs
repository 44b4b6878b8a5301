//! Shared by the tests: NIfTI files made on the spot, and where the test data are.
#![allow(dead_code)]

pub mod scratch;

use std::path::{Path, PathBuf};

/// A NIfTI-1 file to be: little-endian, sform only.
#[derive(Clone)]
pub struct Nifti {
    pub shape: [usize; 3],
    pub affine: [[f32; 4]; 3],
    pub data_type: i16,
    pub bits: i16,
    pub data: Vec<u8>,
}

impl Nifti {
    pub fn int16(shape: [usize; 3], value: impl Fn(usize, usize, usize) -> i16) -> Self {
        let data = voxels(shape).flat_map(|[x, y, z]| value(x, y, z).to_le_bytes()).collect();
        Self { shape, affine: lps([0.8, 0.8, 2.0]), data_type: 4, bits: 16, data }
    }

    pub fn uint8(shape: [usize; 3], value: impl Fn(usize, usize, usize) -> u8) -> Self {
        let data = voxels(shape).map(|[x, y, z]| value(x, y, z)).collect();
        Self { shape, affine: lps([0.8, 0.8, 2.0]), data_type: 2, bits: 8, data }
    }

    pub fn float64(shape: [usize; 3], value: impl Fn(usize, usize, usize) -> f64) -> Self {
        let data = voxels(shape).flat_map(|[x, y, z]| value(x, y, z).to_le_bytes()).collect();
        Self { shape, affine: lps([0.8, 0.8, 2.0]), data_type: 64, bits: 64, data }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut header = vec![0_u8; 352];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &348_i32.to_le_bytes());
        put(40, &3_i16.to_le_bytes());
        for axis in 0..3 {
            put(42 + 2 * axis, &(self.shape[axis] as i16).to_le_bytes());
            let size = self.affine.iter().map(|row| row[axis].powi(2)).sum::<f32>().sqrt();
            put(80 + 4 * axis, &size.to_le_bytes());
        }
        put(70, &self.data_type.to_le_bytes());
        put(72, &self.bits.to_le_bytes());
        put(76, &1_f32.to_le_bytes());
        put(108, &352_f32.to_le_bytes());
        put(112, &f32::NAN.to_le_bytes());
        put(116, &f32::NAN.to_le_bytes());
        put(148, b"made by a test");
        put(254, &1_i16.to_le_bytes());
        for (row, values) in self.affine.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                put(280 + 16 * row + 4 * column, &value.to_le_bytes());
            }
        }
        put(344, b"n+1\0");
        header.extend(&self.data);
        header
    }

    pub fn save(&self, path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.extension().is_some_and(|extension| extension == "gz") {
            std::fs::write(path, gzip(&self.bytes())).unwrap();
        } else {
            std::fs::write(path, self.bytes()).unwrap();
        }
    }
}

/// What a NIfTI-1 header says of place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub sform_code: i16,
    pub qform_code: i16,
    pub srow: [[f32; 4]; 3],
    pub bcd: [f32; 3],
    pub offset: [f32; 3],
    pub pixdim: [f32; 4],
    pub unit: u8,
}

impl Default for Place {
    /// Voxels of 0.8 × 0.8 × 5 mm along the axes LPS, by a half turn about the third in the qform.
    fn default() -> Self {
        Self {
            sform_code: 1,
            qform_code: 1,
            srow: [[-0.8, 0.0, 0.0, 10.0], [0.0, -0.8, 0.0, 20.0], [0.0, 0.0, 5.0, 30.0]],
            bcd: [0.0, 0.0, 1.0],
            offset: [10.0, 20.0, 30.0],
            pixdim: [1.0, 0.8, 0.8, 5.0],
            unit: 2,
        }
    }
}

impl Place {
    /// A file with this in its header.
    pub fn bytes(&self, file: &Nifti) -> Vec<u8> {
        let mut bytes = file.bytes();
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(252, &self.qform_code.to_le_bytes());
        put(254, &self.sform_code.to_le_bytes());
        put(123, &[self.unit]);
        for (i, value) in self.pixdim.iter().enumerate() {
            put(76 + 4 * i, &value.to_le_bytes());
        }
        let rest = self.bcd.iter().chain(&self.offset).chain(self.srow.as_flattened());
        for (i, value) in rest.enumerate() {
            put(256 + 4 * i, &value.to_le_bytes());
        }
        bytes
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn voxels(shape: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [nx, ny, nz] = shape;
    (0..nx * ny * nz).map(move |i| [i % nx, i / nx % ny, i / nx / ny])
}

/// First axis to the left, second to posterior, third to superior.
pub fn lps(spacing: [f32; 3]) -> [[f32; 4]; 3] {
    [[-spacing[0], 0.0, 0.0, 100.0], [0.0, -spacing[1], 0.0, 90.0], [0.0, 0.0, spacing[2], -400.0]]
}

/// A slab of soft tissue, air at its right, with a bright "liver" whose mask is 1, with a lesion of 2 in it.
pub fn patient(shape: [usize; 3], seed: usize) -> [Nifti; 2] {
    let [nx, ny, nz] = shape;
    let liver = move |x: usize, y: usize, z: usize| {
        let (dx, dy) = (x as f64 - 0.3 * nx as f64, y as f64 - 0.45 * ny as f64);
        z >= nz / 3 && dx * dx + dy * dy < (0.18 * nx as f64).powi(2)
    };
    let image = Nifti::int16(shape, |x, y, z| {
        let noise = ((x * 7919 + y * 104_729 + z * 1_299_709 + seed * 15_485_863) % 41) as i16 - 20;
        match x {
            0 => -1000,
            _ => noise + if liver(x, y, z) { 110 } else { 20 },
        }
    });
    let mask =
        Nifti::uint8(shape, |x, y, z| u8::from(liver(x, y, z)) * (1 + u8::from(x == nx * 3 / 10 && y == ny * 9 / 20)));
    [image, mask]
}

/// Patients in the LiTS layout.
pub fn data_set(directory: &Path, cases: usize, shape: [usize; 3]) {
    for case in 0..cases {
        let [image, mask] = patient(shape, case);
        image.save(&directory.join(format!("volume-{case}.nii")));
        mask.save(&directory.join(format!("segmentation-{case}.nii.gz")));
    }
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
