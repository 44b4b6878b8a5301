//! A contact sheet of a store: slices in the display window with the target outlined, for a person to look at.

use crate::IngestError;
use slice_store::{SliceId, SliceStore, Slices, replace_file};
use std::io;
use std::path::Path;

/// Tiles of a full sheet: six across, four down.
const TILES: usize = 24;
const COLUMNS: usize = 6;

/// Slices larger than this are shown at every second, third, … pixel.
const LARGEST_TILE: usize = 320;

/// Colour of the target's outline.
const OUTLINE: [u8; 3] = [255, 210, 0];

/// A slice on the sheet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// From the top, counted from 1.
    pub row: usize,
    /// From the left, counted from 1.
    pub column: usize,
    /// Which slice it shows.
    pub slice: SliceId,
}

/// Writes a PNG of up to 24 slices, spread evenly over those that show the target (or over all, if none does), and says
/// which they are.
pub fn write_montage(store: &SliceStore, path: &Path) -> Result<Vec<Tile>, IngestError> {
    let (rows, masks) = (chosen_rows(store), store.for_evaluation());
    write(store, &rows, COLUMNS, &|row| masks.mask(row), path)
}

/// Writes a PNG of these rows' slices, without any mask, `columns` side by side, and says which is where.
pub fn write_sheet(store: &Slices, rows: &[usize], columns: usize, path: &Path) -> Result<Vec<Tile>, IngestError> {
    write(store, rows, columns, &|_| None, path)
}

fn write<'m>(
    store: &Slices,
    rows: &[usize],
    columns: usize,
    mask: &dyn Fn(usize) -> Option<&'m [u8]>,
    path: &Path,
) -> Result<Vec<Tile>, IngestError> {
    let step = store.slice_size().div_ceil(LARGEST_TILE);
    let side = store.slice_size().div_ceil(step);
    let across = rows.len().clamp(1, columns);
    let (width, height) = (across * side, rows.len().div_ceil(across).max(1) * side);
    let mut sheet = vec![0; 3 * width * height];
    for (tile, &row) in rows.iter().enumerate() {
        let (top, left) = (tile / across * side, tile % across * side);
        for y in 0..side {
            for x in 0..side {
                let at = 3 * ((top + y) * width + left + x);
                sheet[at..at + 3].copy_from_slice(&colour(store, mask(row), row, [y * step, x * step], step));
            }
        }
    }
    replace_file(path, |file| {
        let mut encoder = png::Encoder::new(file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().map_err(io::Error::other)?;
        writer.write_image_data(&sheet).map_err(io::Error::other)?;
        writer.finish().map_err(io::Error::other)
    })?;
    let tile = |(tile, &row): (usize, &usize)| Tile {
        row: tile / across + 1,
        column: tile % across + 1,
        slice: store.records()[row].id(),
    };
    Ok(rows.iter().enumerate().map(tile).collect())
}

fn chosen_rows(store: &Slices) -> Vec<usize> {
    let all = || 0..store.records().len();
    let with_target: Vec<usize> = all().filter(|&row| store.records()[row].has_target()).collect();
    let pool = if with_target.is_empty() { all().collect() } else { with_target };
    let count = pool.len().min(TILES);
    // The middle of each of `count` equal parts.
    (0..count).map(|i| pool[(2 * i + 1) * pool.len() / (2 * count)]).collect()
}

/// The windowed pixel, or the outline's colour on the target's border.
fn colour(store: &Slices, mask: Option<&[u8]>, row: usize, [y, x]: [usize; 2], step: usize) -> [u8; 3] {
    let size = store.slice_size();
    let target = |y: usize, x: usize| mask.is_some_and(|mask| mask[y * size + x] != 0);
    let border = y < step || x < step || y + step >= size || x + step >= size;
    if target(y, x)
        && (border || ![(y - step, x), (y + step, x), (y, x - step), (y, x + step)].iter().all(|&(y, x)| target(y, x)))
    {
        return OUTLINE;
    }
    let unit = store.info().settings.window.unit(f32::from(store.image(row)[y * size + x]));
    [(255.0 * unit).round() as u8; 3]
}
