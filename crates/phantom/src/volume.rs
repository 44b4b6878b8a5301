//! A patient as a volume with its geometry, and its way into NIfTI files.

use crate::error::PhantomError;
use crate::scanner::Scan;
use crate::settings::PhantomSettings;
use flate2::Compression;
use ndarray::{Array3, Axis, ShapeBuilder};
use nifti::NiftiHeader;
use nifti::writer::WriterOptions;
use std::path::Path;
use whole_file::Unfinished;

/// The directions in which a volume's array axes grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// Left, posterior, superior: most files of LiTS.
    Lps,
    /// Right, anterior, superior: the rest of LiTS, and most of TotalSegmentator.
    Ras,
}

/// One patient's examination. Arrays are `[x, y, z]`, x fastest, in the order of the file.
#[derive(Clone, Debug)]
pub struct PhantomVolume {
    /// HU, -1024 to 3071.
    pub hu: Array3<i16>,
    /// 0 elsewhere, 1 liver, 2 lesion of the liver.
    pub label: Array3<u8>,
    /// Distance between voxels along each axis in mm.
    pub spacing_mm: [f32; 3],
    /// Directions of the axes.
    pub orientation: Orientation,
    /// Position of voxel (0, 0, 0) in mm: right, anterior, superior (NIfTI's coordinates).
    pub origin_mm: [f32; 3],
}

/// Makes patient `number` of a data set. Every fourth patient is stored RAS, the others LPS.
pub fn volume(settings: &PhantomSettings, number: usize) -> PhantomVolume {
    let &PhantomSettings { slices, size, seed, .. } = settings;
    let scan = Scan::draw(seed, number, slices, size);
    let made = scan.slices(seed, number, slices);
    let orientation = if number % 4 == 3 { Orientation::Ras } else { Orientation::Lps };
    let place = |v: usize| match orientation {
        Orientation::Lps => v,
        Orientation::Ras => size - 1 - v,
    };
    let shape = (size, size, slices).f();
    let hu = Array3::from_shape_fn(shape, |(x, y, z)| made[z].hu[place(y) * size + place(x)]);
    let label = Array3::from_shape_fn(shape, |(x, y, z)| made[z].label[place(y) * size + place(x)]);
    let [left, posterior, superior] = scan.isocenter_mm;
    let sign = if orientation == Orientation::Lps { 1.0 } else { -1.0 };
    let half = sign * (size as f32 - 1.0) / 2.0 * scan.pixel_mm();
    PhantomVolume {
        hu,
        label,
        spacing_mm: [scan.pixel_mm(), scan.pixel_mm(), scan.spacing_mm],
        orientation,
        origin_mm: [half - left, half - posterior, superior],
    }
}

impl PhantomVolume {
    /// Number of slices with at least one voxel of liver.
    pub fn liver_slices(&self) -> usize {
        self.label.axis_iter(Axis(2)).filter(|slice| slice.iter().any(|&l| l > 0)).count()
    }

    fn header(&self) -> NiftiHeader {
        let [sx, sy, sz] = self.spacing_mm;
        let [x, y, z] = self.origin_mm;
        // A half turn about the z axis is the quaternion (0, 0, 0, 1); no turn is (1, 0, 0, 0), its first part implied.
        let (sign, turn) = match self.orientation {
            Orientation::Lps => (-1.0, 1.0),
            Orientation::Ras => (1.0, 0.0),
        };
        let mut header = NiftiHeader {
            pixdim: [1.0, sx, sy, sz, 0.0, 0.0, 0.0, 0.0],
            // Millimetres.
            xyzt_units: 2,
            // Scanner coordinates.
            qform_code: 1,
            sform_code: 1,
            quatern_b: 0.0,
            quatern_c: 0.0,
            quatern_d: turn,
            quatern_x: x,
            quatern_y: y,
            quatern_z: z,
            srow_x: [sign * sx, 0.0, 0.0, x],
            srow_y: [0.0, sign * sy, 0.0, y],
            srow_z: [0.0, 0.0, sz, z],
            ..NiftiHeader::default()
        };
        header.descrip[..17].copy_from_slice(b"synthetic phantom");
        header
    }

    /// Writes the volume and its segmentation as gzip-compressed NIfTI, each to a temporary name first.
    pub fn write(&self, volume: &Path, segmentation: &Path) -> Result<(), PhantomError> {
        let header = self.header();
        write_nifti(volume, &header, |options| options.write_nifti(&self.hu))?;
        write_nifti(segmentation, &header, |options| options.write_nifti(&self.label))
    }
}

fn write_nifti(
    path: &Path,
    header: &NiftiHeader,
    write: impl FnOnce(&WriterOptions) -> nifti::Result<()>,
) -> Result<(), PhantomError> {
    let file = Unfinished::beside(path).map_err(PhantomError::io("create", path))?;
    let options = WriterOptions::new(file.path()).reference_header(header).compression_level(Compression::new(4));
    write(&options).map_err(|reason| PhantomError::Nifti { path: path.to_owned(), reason })?;
    file.finish().map_err(PhantomError::io("write", path))
}
