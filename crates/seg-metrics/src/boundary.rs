//! The boundary of a mask as two libraries see it: edge voxels (MONAI) and corners between voxels (surface-distance). Both
//! look at the masks through one window, the bounding box of the two with a margin of background: what lies outside the
//! image is background, so a mask that touches the border has an edge there. A boundary is made a slice at a time, so
//! that of a large volume no second copy is held.

/// A mask of three axes, the last one contiguous, with its spacing. An image is `[rows, 1, columns]`, and `flat`: without
/// an end along the middle axis, where its spacing is 1. It so has the edges and, as areas, the contours of its two axes.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    pub cells: &'a [u8],
    pub size: [usize; 3],
    pub spacing: [f64; 3],
    pub flat: bool,
}

impl<'a> Field<'a> {
    /// From outer corner to outer corner.
    pub fn diagonal(&self) -> f64 {
        let axes = (0..3).filter(|&axis| axis != 1 || !self.flat);
        axes.fold(0.0, |diagonal: f64, axis| diagonal.hypot(self.size[axis] as f64 * self.spacing[axis]))
    }

    fn row(&self, z: usize, y: usize) -> &'a [u8] {
        &self.cells[(z * self.size[1] + y) * self.size[2]..][..self.size[2]]
    }
}

/// No cell is foreground.
pub(crate) fn is_empty(cells: &[u8]) -> bool {
    // Blocks instead of a search for the first: a register at a time, and done soon where there is foreground.
    cells.chunks(4096).all(|block| block.iter().fold(0, |any, value| any | value) == 0)
}

/// What of a mask is its boundary.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Boundary {
    /// Foreground voxels with a background voxel beside them along an axis, marked 1: `mask XOR erosion(mask)` with the
    /// cross, as `monai.metrics.utils.get_mask_edges` has it.
    Edges,
    /// Corners between voxels, one more than voxels along each axis, whose voxels do not all agree. Each holds the code
    /// of the 2 × 2 × 2 around it, first the four of the lower slice, then in rows: 128, 64, …, 1.
    Corners,
}

/// The smallest box that holds the foreground of two masks.
#[derive(Clone, Copy)]
pub(crate) struct Region {
    start: [usize; 3],
    size: [usize; 3],
    flat: bool,
}

impl Region {
    /// `None` where both masks are empty.
    pub fn around(a: Field<'_>, b: Field<'_>) -> Option<Self> {
        // Folds instead of searches: they run over whole registers, and most rows are empty anyway.
        let mut any = a.size.map(|length| vec![0; length]);
        for z in 0..a.size[0] {
            for y in 0..a.size[1] {
                let row = || a.row(z, y).iter().zip(b.row(z, y)).map(|(&a, &b)| a | b);
                if row().fold(0, |any, value| any | value) != 0 {
                    (any[0][z], any[1][y]) = (1, 1);
                    any[2].iter_mut().zip(row()).for_each(|(any, value)| *any |= value);
                }
            }
        }
        let mut region = Self { start: [0; 3], size: [0; 3], flat: a.flat };
        for (axis, any) in any.iter().enumerate() {
            let start = any.iter().position(|&any| any != 0)?;
            region.start[axis] = start;
            region.size[axis] = any.iter().rposition(|&any| any != 0)? + 1 - start;
        }
        Some(region)
    }

    /// Number of points of a boundary's grid along each axis.
    pub fn points(&self, boundary: Boundary) -> [usize; 3] {
        let [depth, height, width] = self.size;
        match boundary {
            Boundary::Edges => self.size,
            Boundary::Corners => [depth + 1, height + usize::from(!self.flat), width + 1],
        }
    }

    /// The boundary's grid slice by slice, each `[points[1] · points[2]]`; 0 where there is no boundary.
    pub fn slices(self, mask: Field<'_>, boundary: Boundary) -> impl Iterator<Item = Vec<u8>> {
        let mut below = self.padded(mask, None);
        let mut here = self.padded(mask, Some(0));
        (0..self.points(boundary)[0]).map(move |z| {
            let above = self.padded(mask, Some(z + 1));
            let slice = match boundary {
                Boundary::Edges => self.edges(&below, &here, &above),
                Boundary::Corners => self.corners(&below, &here),
            };
            below = std::mem::replace(&mut here, above);
            slice
        })
    }

    fn edges<'a>(&self, below: &'a [u8], here: &'a [u8], above: &'a [u8]) -> Vec<u8> {
        let [_, height, width] = self.size;
        let stride = self.padded_stride();
        let mut cells = vec![0; height * width];
        for (y, edges) in cells.chunks_exact_mut(width).enumerate() {
            let row = |slice: &'a [u8], y, x| &slice[y * stride + x..][..width];
            let (middle, left, right) = (row(here, y + 1, 1), row(here, y + 1, 0), row(here, y + 1, 2));
            let (back, front) = (row(here, y, 1), row(here, y + 2, 1));
            let (below, above) = (row(below, y + 1, 1), row(above, y + 1, 1));
            for x in 0..width {
                let surrounded = left[x] & right[x] & back[x] & front[x] & below[x] & above[x];
                edges[x] = middle[x] & !surrounded;
            }
        }
        cells
    }

    fn corners(&self, below: &[u8], here: &[u8]) -> Vec<u8> {
        let [_, height, width] = self.points(Boundary::Corners);
        let stride = self.padded_stride();
        let mut cells = vec![0; height * width];
        for (y, codes) in cells.chunks_exact_mut(width).enumerate() {
            let rows =
                [&below[y * stride..], &below[(y + 1) * stride..], &here[y * stride..], &here[(y + 1) * stride..]]
                    .map(|row| &row[..=width]);
            for x in 0..width {
                let code = rows.iter().fold(0, |code, row| code << 2 | row[x] << 1 | row[x + 1]);
                codes[x] = if code == u8::MAX { 0 } else { code };
            }
        }
        cells
    }

    /// Slice `z` of the region as 0 and 1, with one voxel of background on every side; background alone where there is no
    /// such slice. Of a flat field the one row stands for those on both sides of it too.
    fn padded(&self, mask: Field<'_>, z: Option<usize>) -> Vec<u8> {
        let [depth, height, width] = self.size;
        let margin = usize::from(!self.flat);
        let mut cells = vec![0; (height + 2 * margin) * (width + 2)];
        if let Some(z) = z.filter(|&z| z < depth) {
            for (y, target) in cells.chunks_exact_mut(width + 2).skip(margin).take(height).enumerate() {
                let row = &mask.row(self.start[0] + z, self.start[1] + y)[self.start[2]..][..width];
                target[1..].iter_mut().zip(row).for_each(|(cell, &value)| *cell = u8::from(value != 0));
            }
        }
        cells
    }

    /// From one row of a padded slice to the next.
    fn padded_stride(&self) -> usize {
        if self.flat { 0 } else { self.size[2] + 2 }
    }
}
