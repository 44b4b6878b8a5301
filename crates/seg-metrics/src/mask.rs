//! A borrowed binary mask and the size of its pixels.

use crate::boundary::{Field, is_empty};

/// A binary mask of `height` × `width` pixels, row-major; every value but 0 is foreground.
#[derive(Clone, Copy, Debug)]
pub struct MaskView<'a> {
    pixels: &'a [u8],
    height: usize,
    width: usize,
}

/// The pixels given for a mask do not fill its height and width.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mask of {height} × {width} pixels was given {found} values, expected {height} · {width}")]
pub struct MaskSizeError {
    /// Rows asked for.
    pub height: usize,
    /// Columns asked for.
    pub width: usize,
    /// Values given.
    pub found: usize,
}

impl<'a> MaskView<'a> {
    /// Looks at `pixels` as `height` rows of `width` values.
    pub fn new(pixels: &'a [u8], height: usize, width: usize) -> Result<Self, MaskSizeError> {
        if height.checked_mul(width) == Some(pixels.len()) {
            Ok(Self { pixels, height, width })
        } else {
            Err(MaskSizeError { height, width, found: pixels.len() })
        }
    }

    /// All values, row-major.
    pub fn pixels(&self) -> &'a [u8] {
        self.pixels
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// No pixel is foreground.
    pub fn is_empty(&self) -> bool {
        is_empty(self.pixels)
    }

    pub(crate) fn field(&self, spacing: Spacing) -> Field<'a> {
        let (size, spacing) = ([self.height, 1, self.width], [spacing.row, 1.0, spacing.column]);
        Field { cells: self.pixels, size, spacing, flat: true }
    }

    /// Refuses to compare masks of different sizes: the one check of all functions of two masks.
    pub(crate) fn assert_same_size(&self, other: &MaskView<'_>) {
        assert!(
            (self.height, self.width) == (other.height, other.width),
            "masks of {} × {} and {} × {} pixels cannot be compared",
            self.height,
            self.width,
            other.height,
            other.width
        );
    }
}

/// Distance between neighbouring pixel centres, in the unit that the results shall have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spacing {
    /// From one row to the next (down the image), > 0.
    pub row: f64,
    /// From one column to the next (along a row), > 0.
    pub column: f64,
}

impl Spacing {
    /// One by one: results are in pixels.
    pub const PIXELS: Self = Self { row: 1.0, column: 1.0 };

    /// Diagonal of an image of `height` × `width` pixels, from outer corner to outer corner.
    pub fn diagonal(self, height: usize, width: usize) -> f64 {
        (height as f64 * self.row).hypot(width as f64 * self.column)
    }
}
