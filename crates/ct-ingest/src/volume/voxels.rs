//! Voxel values as their file holds them; they become numbers where they are needed, so that no copy of a volume is made.

use super::content::{Bytes, memory};
use crate::IngestError;
use std::path::Path;
use std::sync::Arc;

/// The type of a voxel in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of Rust's own types")]
pub enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Scalar {
    /// Bytes of a voxel.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// In which order a number's bytes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Little,
    Big,
}

/// `value * slope + inter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scaling {
    pub slope: f64,
    pub inter: f64,
}

impl Scaling {
    pub const NONE: Self = Self { slope: 1.0, inter: 0.0 };

    /// As NIfTI has it: a slope of 0 or NaN means that there is none.
    pub fn new(slope: f64, inter: f64) -> Self {
        match (slope != 0.0 && slope.is_finite(), inter.is_finite()) {
            (true, true) => Self { slope, inter },
            (true, false) => Self { slope, inter: 0.0 },
            (false, _) => Self::NONE,
        }
    }

    fn apply(self, value: f64) -> f64 {
        value * self.slope + self.inter
    }

    /// First this, then `next`.
    fn then(self, next: Self) -> Self {
        Self { slope: self.slope * next.slope, inter: next.apply(self.inter) }
    }
}

/// The voxels of a volume in the order of its file, the first axis running fastest.
#[derive(Clone, Debug)]
pub struct Voxels {
    content: Arc<Bytes>,
    /// Where they begin in the content.
    at: usize,
    count: usize,
    scalar: Scalar,
    order: ByteOrder,
    scaling: Scaling,
}

/// A plane of a volume: which voxels, row by row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaneWalk {
    /// The first voxel.
    pub start: usize,
    /// Rows, and what a row adds.
    pub rows: (usize, isize),
    /// Columns, and what a column adds.
    pub columns: (usize, isize),
}

impl PlaneWalk {
    fn row(&self, row: usize) -> usize {
        self.start.wrapping_add_signed(row as isize * self.rows.1)
    }
}

/// `$body` with the scalar's type as `$type`.
macro_rules! for_scalar {
    ($scalar:expr, $type:ident => $body:expr) => {
        for_scalar!(@arms $scalar, $type, $body, U8 u8, I8 i8, U16 u16, I16 i16, U32 u32, I32 i32, U64 u64, I64 i64,
            F32 f32, F64 f64)
    };
    (@arms $scalar:expr, $type:ident, $body:expr, $($name:ident $real:ty),*) => {
        match $scalar {
            $(Scalar::$name => { type $type = $real; $body })*
        }
    };
}

impl Voxels {
    /// `count` voxels in `content`, from byte `at` on. Panics if the content is shorter.
    pub(crate) fn new(
        content: Arc<Bytes>,
        at: usize,
        count: usize,
        scalar: Scalar,
        order: ByteOrder,
        scaling: Scaling,
    ) -> Self {
        assert!(content.len() >= at + count * scalar.bytes(), "{count} voxels of {scalar:?} from byte {at} on");
        Self { content, at, count, scalar, order, scaling }
    }

    /// These voxels among `count` others, which are 0: lines of so many voxels, each with where it begins here and there, and what a
    /// step adds there. `None` where the header's scaling makes another number of 0.
    pub(crate) fn spread(
        &self,
        path: &Path,
        count: usize,
        lines: &[(usize, i64)],
        (length, step): (usize, i64),
    ) -> Result<Option<Self>, IngestError> {
        if self.scaling.inter != 0.0 {
            return Ok(None);
        }
        let width = self.scalar.bytes();
        let mut content = memory(path, (count * width) as u64)?;
        for &(from, to) in lines {
            let voxels = &self.content[self.at + from * width..][..length * width];
            for (i, voxel) in voxels.chunks_exact(width).enumerate() {
                let place = (to + i as i64 * step) as usize * width;
                content[place..place + width].copy_from_slice(voxel);
            }
        }
        let content = Arc::new(Bytes::Inflated(content));
        Ok(Some(Self { content, at: 0, count, ..self.clone() }))
    }

    /// One voxel for each of `places`, `None` giving 0; `None` where the header's scaling makes another number of 0.
    ///
    /// # Errors
    /// No memory for them.
    pub(crate) fn picked(
        &self,
        path: &Path,
        count: usize,
        places: impl Iterator<Item = Option<usize>>,
    ) -> Result<Option<Self>, IngestError> {
        if self.scaling.inter != 0.0 {
            return Ok(None);
        }
        let width = self.scalar.bytes();
        let mut content = memory(path, (count * width) as u64)?;
        for (to, from) in content.chunks_exact_mut(width).zip(places) {
            if let Some(from) = from {
                to.copy_from_slice(&self.content[self.at + from * width..][..width]);
            }
        }
        let content = Arc::new(Bytes::Inflated(content));
        Ok(Some(Self { content, at: 0, count, ..self.clone() }))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Their type in the file.
    pub fn scalar(&self) -> Scalar {
        self.scalar
    }

    /// The header's scaling, if the voxels are whole numbers that it makes other numbers of.
    pub(crate) fn quantised(&self) -> Option<Scaling> {
        let whole = !matches!(self.scalar, Scalar::F32 | Scalar::F64);
        (whole && self.scaling != Scaling::NONE).then_some(self.scaling)
    }

    /// One value, after the header's scaling. Panics where there is none.
    pub fn get(&self, index: usize) -> f64 {
        assert!(index < self.count, "voxel {index} of {}", self.count);
        let bytes = &self.content[self.at + index * self.scalar.bytes()..];
        #[expect(clippy::unnecessary_cast, reason = "f64 is one of the types")]
        let raw = for_scalar!(self.scalar, T => match (self.order, bytes.first_chunk()) {
            (ByteOrder::Little, Some(bytes)) => T::from_le_bytes(*bytes) as f64,
            (ByteOrder::Big, Some(bytes)) => T::from_be_bytes(*bytes) as f64,
            (_, None) => f64::NAN,
        });
        self.scaling.apply(raw)
    }

    /// All values in order.
    pub fn iter(&self) -> impl Iterator<Item = f64> {
        (0..self.count).map(|index| self.get(index))
    }

    /// The values, scaled once more.
    pub(crate) fn rescale(&mut self, scaling: Scaling) {
        self.scaling = self.scaling.then(scaling);
    }

    /// The values of a plane, row by row. `out` has a place for each.
    pub(crate) fn plane(&self, walk: PlaneWalk, out: &mut [f32]) {
        let scaling = self.scaling;
        #[expect(clippy::unnecessary_cast, reason = "f32 and f64 are two of the types")]
        {
            for_scalar!(self.scalar, T => match (self.order, scaling == Scaling::NONE) {
                (ByteOrder::Little, true) => self.gather(walk, out, |b| T::from_le_bytes(b) as f32),
                (ByteOrder::Little, false) => self.gather(walk, out, |b| scaling.apply(T::from_le_bytes(b) as f64) as f32),
                (ByteOrder::Big, true) => self.gather(walk, out, |b| T::from_be_bytes(b) as f32),
                (ByteOrder::Big, false) => self.gather(walk, out, |b| scaling.apply(T::from_be_bytes(b) as f64) as f32),
            });
        }
    }

    /// The bytes of a plane, row by row, if the voxels are unscaled unsigned bytes; else nothing happens.
    pub(crate) fn byte_plane(&self, walk: PlaneWalk, out: &mut [u8]) -> bool {
        let plain = self.scalar == Scalar::U8 && self.scaling == Scaling::NONE;
        if plain {
            self.gather(walk, out, |[byte]| byte);
        }
        plain
    }

    fn gather<const N: usize, T>(&self, walk: PlaneWalk, out: &mut [T], number: impl Fn([u8; N]) -> T) {
        let (columns, stride) = walk.columns;
        let (voxels, _) = self.content[self.at..].as_chunks::<N>();
        for (row, line) in out.chunks_exact_mut(columns).enumerate() {
            let first = walk.row(row);
            // The two directions along the fastest axis are what nearly every file has; they become vector code.
            match stride {
                1 => {
                    for (to, from) in line.iter_mut().zip(&voxels[first..first + columns]) {
                        *to = number(*from);
                    }
                }
                -1 => {
                    for (to, from) in line.iter_mut().zip(voxels[first + 1 - columns..=first].iter().rev()) {
                        *to = number(*from);
                    }
                }
                _ => {
                    for (column, to) in line.iter_mut().enumerate() {
                        *to = number(voxels[first.wrapping_add_signed(column as isize * stride)]);
                    }
                }
            }
        }
    }
}

impl PartialEq for Voxels {
    /// By value, whatever the types.
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().zip(other.iter()).all(|(a, b)| a == b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voxels(bytes: &[u8], scalar: Scalar, order: ByteOrder, scaling: Scaling) -> Voxels {
        let count = bytes.len() / scalar.bytes();
        let mut memory = memmap2::MmapMut::map_anon(bytes.len()).unwrap();
        memory.copy_from_slice(bytes);
        Voxels::new(Arc::new(Bytes::Inflated(memory)), 0, count, scalar, order, scaling)
    }

    #[test]
    fn a_plane_has_the_values_that_get_has_in_every_type_order_and_direction() {
        let bytes: Vec<u8> = (0..8 * 24_u32).map(|i| (i * 37 % 251) as u8).collect();
        let types =
            [Scalar::U8, Scalar::I8, Scalar::U16, Scalar::I16, Scalar::U32, Scalar::I32, Scalar::U64, Scalar::I64];
        for scalar in types {
            for order in [ByteOrder::Little, ByteOrder::Big] {
                for scaling in [Scaling::NONE, Scaling::new(0.5, -3.0)] {
                    let voxels = voxels(&bytes, scalar, order, scaling);
                    for (start, rows, columns) in [(0, (4, 6), (6, 1)), (5, (4, 6), (6, -1)), (20, (2, 1), (3, -8))] {
                        let mut plane = vec![0.0; rows.0 * columns.0];
                        voxels.plane(PlaneWalk { start, rows, columns }, &mut plane);
                        for (i, value) in plane.iter().enumerate() {
                            let (row, column) = ((i / columns.0) as isize, (i % columns.0) as isize);
                            let at = start as isize + row * rows.1 + column * columns.1;
                            assert_eq!(*value, voxels.get(at as usize) as f32, "{scalar:?} {order:?} {scaling:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn known_bytes_give_known_numbers() {
        let le = |bytes: &[u8], scalar| voxels(bytes, scalar, ByteOrder::Little, Scaling::NONE).get(0);
        assert_eq!(le(&[0x00, 0xfc], Scalar::I16), -1024.0);
        assert_eq!(le(&[0xff; 8], Scalar::U64), 18_446_744_073_709_551_615.0);
        assert_eq!(le(&1.25_f64.to_le_bytes(), Scalar::F64), 1.25);
        let scaled = voxels(&[0x04, 0x00], Scalar::U16, ByteOrder::Big, Scaling::new(2.0, -1024.0));
        assert_eq!(scaled.get(0), 1024.0);
        assert_eq!(Scaling::new(2.0, 1.0).then(Scaling::new(3.0, 4.0)).apply(5.0), 3.0 * 11.0 + 4.0);
    }
}
