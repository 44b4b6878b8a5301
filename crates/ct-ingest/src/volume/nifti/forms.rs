//! What a NIfTI header says of place: two affines with their codes, voxel sizes and a unit.

use serde::{Deserialize, Serialize};

/// One of a NIfTI file's two affines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AffineChoice {
    /// The `sform` rows.
    Sform,
    /// The `qform` quaternion.
    Qform,
}

/// The part of a header that says where voxels are, in the header's own unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forms {
    pub sform_code: i32,
    pub qform_code: i32,
    /// The rows of the sform.
    pub srow: [[f64; 4]; 3],
    /// The qform's quaternion, without its first part.
    pub bcd: [f64; 3],
    /// The qform's origin.
    pub offset: [f64; 3],
    /// The direction of the third axis (1 or -1) and the voxel sizes.
    pub pixdim: [f64; 4],
    /// The unit of lengths, the lowest three bits of `xyzt_units`.
    pub unit: u8,
    /// NIfTI-1 has numbers of 32 bits, NIfTI-2 of 64.
    pub version: u8,
}

impl Forms {
    /// The unit, where it is not millimetres: 0, which is none, and codes that mean nothing are millimetres for everybody.
    pub fn unit_name(&self) -> Option<&'static str> {
        match self.unit {
            1 => Some("metres"),
            3 => Some("micrometres"),
            _ => None,
        }
    }

    /// An affine of this header in mm.
    pub fn in_mm(&self, affine: [[f64; 4]; 4]) -> [[f64; 4]; 4] {
        let mm = match self.unit {
            1 => 1e3,
            3 => 1e-3,
            _ => return affine,
        };
        let [x, y, z, last] = affine;
        let [x, y, z] = [x, y, z].map(|row| row.map(|value| value * mm));
        [x, y, z, last]
    }

    /// Its rows and the last one.
    pub fn sform(&self) -> [[f64; 4]; 4] {
        let [x, y, z] = self.srow;
        [x, y, z, [0.0, 0.0, 0.0, 1.0]]
    }

    /// Whether the sform has no direction in it, whatever its code says.
    pub(super) fn sform_is_empty(&self) -> bool {
        self.srow.iter().all(|row| row[..3].iter().all(|value| *value == 0.0))
    }

    /// The quaternion's rotation times the voxel sizes (nifti1.h, "method 2"). What rounding leaves of its first part, squared,
    /// is 0 below `rounding`: readers differ in that.
    pub fn qform(&self, rounding: f64) -> [[f64; 4]; 4] {
        let [b, c, d] = self.bcd;
        let rest = 1.0 - (b * b + c * c + d * d);
        // Half turns, the commonest rotation of all, have a = 0: rounding of b, c, d must not turn into an angle.
        let a = if rest < rounding { 0.0 } else { rest.sqrt() };
        let norm = (a * a + b * b + c * c + d * d).sqrt();
        let [a, b, c, d] = [a / norm, b / norm, c / norm, d / norm];
        let rotation = [
            [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
            [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
            [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ];
        let mut size = [1, 2, 3].map(|i| self.pixdim[i].abs());
        if self.pixdim[0] < 0.0 {
            size[2] = -size[2];
        }
        let offset = self.offset;
        let row = |i: usize| [rotation[i][0] * size[0], rotation[i][1] * size[1], rotation[i][2] * size[2], offset[i]];
        [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]
    }

    /// As a header of NIfTI-1 keeps them.
    pub(super) fn rounded(mut self) -> Self {
        let numbers = self.srow.as_flattened_mut().iter_mut().chain(&mut self.bcd).chain(&mut self.offset);
        for number in numbers.chain(&mut self.pixdim) {
            *number = f64::from(*number as f32);
        }
        self
    }
}
