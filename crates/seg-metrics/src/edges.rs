//! The boundary of a mask as two libraries see it: edge pixels (MONAI) and contour corners (surface-distance). Both look
//! at the masks through one window, the bounding box of the two with a margin of background: what lies outside the
//! image is background, so a mask that touches the border has an edge there.

use crate::{MaskView, Spacing};

/// The smallest rectangle that holds the foreground of both masks.
#[derive(Clone, Copy)]
pub(crate) struct Region {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

/// Points on a regular grid, row-major; nonzero values mark boundary points.
pub(crate) struct Grid {
    pub cells: Vec<u8>,
    pub height: usize,
    pub width: usize,
}

impl Region {
    /// `None` where both masks are empty.
    pub fn around(a: MaskView<'_>, b: MaskView<'_>) -> Option<Self> {
        // Folds instead of searches: they run over whole registers, and most rows are empty anyway.
        let mut columns = vec![0; a.width()];
        let (mut top, mut bottom) = (None, 0);
        for y in 0..a.height() {
            let rows = || a.row(y).iter().zip(b.row(y)).map(|(&a, &b)| a | b);
            if rows().fold(0, |any, value| any | value) != 0 {
                top.get_or_insert(y);
                bottom = y;
                columns.iter_mut().zip(rows()).for_each(|(any, value)| *any |= value);
            }
        }
        let top = top?;
        let left = columns.iter().position(|&any| any != 0)?;
        let right = columns.iter().rposition(|&any| any != 0)?;
        Some(Self { top, left, height: bottom - top + 1, width: right - left + 1 })
    }

    /// Foreground pixels with a background pixel above, below, left or right: `mask XOR erosion(mask)` with the cross,
    /// as `monai.metrics.utils.get_mask_edges` has it. The grid is as large as the region.
    pub fn edge_pixels(&self, mask: MaskView<'_>) -> Grid {
        let padded = self.padded(mask);
        let (height, width, stride) = (self.height, self.width, self.width + 2);
        let mut cells = vec![0; height * width];
        for (y, edges) in cells.chunks_exact_mut(width).enumerate() {
            let above = &padded[y * stride + 1..][..width];
            let below = &padded[(y + 2) * stride + 1..][..width];
            let row = &padded[(y + 1) * stride..][..stride];
            for x in 0..width {
                edges[x] = row[x + 1] & !(above[x] & below[x] & row[x] & row[x + 2]);
            }
        }
        Grid { cells, height, width }
    }

    /// Corners between pixels, one row and one column more than the region: each holds the code of the 2 × 2 pixels
    /// around it (top left 8, top right 4, bottom left 2, bottom right 1), or 0 where all four agree.
    pub fn contour_codes(&self, mask: MaskView<'_>) -> Grid {
        let padded = self.padded(mask);
        let (height, width, stride) = (self.height + 1, self.width + 1, self.width + 2);
        let mut cells = vec![0; height * width];
        for (y, codes) in cells.chunks_exact_mut(width).enumerate() {
            let above = &padded[y * stride..][..stride];
            let below = &padded[(y + 1) * stride..][..stride];
            for x in 0..width {
                let code = above[x] << 3 | above[x + 1] << 2 | below[x] << 1 | below[x + 1];
                codes[x] = if code == 0b1111 { 0 } else { code };
            }
        }
        Grid { cells, height, width }
    }

    /// The region of a mask as 0 and 1, with one pixel of background on every side.
    fn padded(&self, mask: MaskView<'_>) -> Vec<u8> {
        let stride = self.width + 2;
        let mut cells = vec![0; (self.height + 2) * stride];
        for y in 0..self.height {
            let row = &mask.row(self.top + y)[self.left..][..self.width];
            let target = &mut cells[(y + 1) * stride + 1..][..self.width];
            target.iter_mut().zip(row).for_each(|(cell, &value)| *cell = u8::from(value != 0));
        }
        cells
    }
}

/// Length of contour that a corner with each 2 × 2 code stands for: surface-distance's
/// `create_table_neighbour_code_to_contour_length`.
pub(crate) fn contour_lengths(spacing: Spacing) -> [f64; 16] {
    let (vertical, horizontal) = (spacing.row, spacing.column);
    let diagonal = 0.5 * (vertical * vertical + horizontal * horizontal).sqrt();
    std::array::from_fn(|code| match code {
        0b0011 | 0b1100 => horizontal,
        0b0101 | 0b1010 => vertical,
        0b0110 | 0b1001 => 2.0 * diagonal,
        0b0000 | 0b1111 => 0.0,
        _ => diagonal,
    })
}
