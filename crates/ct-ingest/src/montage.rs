//! A contact sheet of a store: slices in the display window with the target outlined, for a person to look at.

use crate::IngestError;
use slice_store::{Crop, SliceId, SliceStore, Slices, Window, replace_file};
use std::io;
use std::path::Path;

/// Tiles of a full sheet: six across, four down.
const TILES: usize = 24;
const COLUMNS: usize = 6;

/// Slices larger than this are shown at every second, third, … pixel.
const LARGEST_TILE: usize = 320;

/// Colour of the target's outline.
const OUTLINE: [u8; 3] = [255, 210, 0];

/// Colour and width of the frame around a tile that is marked.
const MARK: [u8; 3] = [255, 90, 40];
const FRAME: usize = 4;

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
    let tile = |&row: &usize| Shown { image: store.image(row), mask: mask(row), is_marked: false };
    let (size, window) = (store.slice_size(), store.info().settings.window);
    write_tiles(path, &rows.iter().map(tile).collect::<Vec<_>>(), columns, size, window)?;
    let across = rows.len().clamp(1, columns);
    let tile = |(tile, &row): (usize, &usize)| Tile {
        row: tile / across + 1,
        column: tile % across + 1,
        slice: store.records()[row].id(),
    };
    Ok(rows.iter().enumerate().map(tile).collect())
}

/// What a tile shows.
struct Shown<'a> {
    /// HU, row by row.
    image: &'a [i16],
    mask: Option<&'a [u8]>,
    is_marked: bool,
}

/// Writes a PNG of up to 24 slices of a volume with the target outlined, spread evenly over those that show it (or over all, if none
/// does); those that `marked` says have a frame, and of them as many as there is room for come before others.
///
/// `images` (HU) and `masks` (0 or 1) are `[slices, size, size]`.
///
/// # Errors
/// What the operating system refuses; then nothing is left behind.
pub fn write_preview(
    path: &Path,
    (images, masks): (&[i16], &[u8]),
    marked: &[bool],
    size: usize,
    window: Window,
) -> Result<(), IngestError> {
    let area = size * size;
    let mask = |slice: usize| &masks[slice * area..][..area];
    let all = 0..images.len() / area;
    let with_target: Vec<usize> = all.clone().filter(|&slice| marked[slice] || mask(slice).contains(&1)).collect();
    let pool = if with_target.is_empty() { all.collect() } else { with_target };
    let (doubtful, sure): (Vec<usize>, Vec<usize>) = pool.into_iter().partition(|&slice| marked[slice]);
    let mut shown = evenly(&doubtful, TILES);
    shown.extend(evenly(&sure, TILES - shown.len()));
    shown.sort_unstable();
    let tile = |&slice: &usize| Shown {
        image: &images[slice * area..][..area],
        mask: Some(mask(slice)),
        is_marked: marked[slice],
    };
    write_tiles(path, &shown.iter().map(tile).collect::<Vec<_>>(), COLUMNS, size, window)
}

/// Writes a PNG of parts of slices, all of one side, `columns` side by side, without any mask.
///
/// # Errors
/// What the operating system refuses; then nothing is left behind. Panics where a crop does not lie in its slice.
pub fn write_crops(path: &Path, store: &Slices, crops: &[(usize, Crop)], columns: usize) -> Result<(), IngestError> {
    let (size, side) = (store.slice_size(), crops.first().map_or(1, |(_, crop)| crop.side));
    let pixels = |&(row, crop): &(usize, Crop)| -> Vec<i16> {
        let lines = crop.top..crop.top + crop.side;
        lines.flat_map(|y| &store.image(row)[y * size + crop.left..][..crop.side]).copied().collect()
    };
    let images: Vec<Vec<i16>> = crops.iter().map(pixels).collect();
    let tiles: Vec<Shown<'_>> = images.iter().map(|image| Shown { image, mask: None, is_marked: false }).collect();
    write_tiles(path, &tiles, columns, side, store.info().settings.window)
}

/// `count` of these, or all, the middle of each of as many equal parts.
fn evenly(pool: &[usize], count: usize) -> Vec<usize> {
    let count = pool.len().min(count);
    (0..count).map(|i| pool[(2 * i + 1) * pool.len() / (2 * count)]).collect()
}

fn write_tiles(
    path: &Path,
    tiles: &[Shown<'_>],
    columns: usize,
    size: usize,
    window: Window,
) -> Result<(), IngestError> {
    let step = size.div_ceil(LARGEST_TILE);
    let side = size.div_ceil(step);
    let across = tiles.len().clamp(1, columns);
    let (width, height) = (across * side, tiles.len().div_ceil(across).max(1) * side);
    let mut sheet = vec![0; 3 * width * height];
    for (tile, shown) in tiles.iter().enumerate() {
        let (top, left) = (tile / across * side, tile % across * side);
        for y in 0..side {
            for x in 0..side {
                let at = 3 * ((top + y) * width + left + x);
                let is_frame = shown.is_marked && [y, x].iter().any(|&at| at < FRAME || at + FRAME >= side);
                let colour = if is_frame { MARK } else { colour(shown, [y * step, x * step], step, size, window) };
                sheet[at..at + 3].copy_from_slice(&colour);
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
    Ok(())
}

fn chosen_rows(store: &Slices) -> Vec<usize> {
    let all = || 0..store.records().len();
    let with_target: Vec<usize> = all().filter(|&row| store.records()[row].has_target()).collect();
    let pool = if with_target.is_empty() { all().collect() } else { with_target };
    evenly(&pool, TILES)
}

/// The windowed pixel, or the outline's colour on the target's border.
fn colour(shown: &Shown<'_>, [y, x]: [usize; 2], step: usize, size: usize, window: Window) -> [u8; 3] {
    let target = |y: usize, x: usize| shown.mask.is_some_and(|mask| mask[y * size + x] == 1);
    let border = y < step || x < step || y + step >= size || x + step >= size;
    if target(y, x)
        && (border || ![(y - step, x), (y + step, x), (y, x - step), (y, x + step)].iter().all(|&(y, x)| target(y, x)))
    {
        return OUTLINE;
    }
    let unit = window.unit(f32::from(shown.image[y * size + x]));
    [(255.0 * unit).round() as u8; 3]
}
