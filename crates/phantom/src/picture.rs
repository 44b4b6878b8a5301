//! A contact sheet of one patient for the eye: slices at the window 40/400 above, the same with the liver outlined below.

use crate::error::PhantomError;
use crate::settings::PhantomSettings;
use crate::volume::{PhantomVolume, volume};
use std::io::BufWriter;
use std::path::Path;
use whole_file::Unfinished;

/// Slices on the sheet.
const PANELS: usize = 4;
/// Grey levels of the palette; two more entries are the outlines' colours. Few levels keep the noisy picture small, and
/// the eye does not see the difference.
const GREYS: u8 = 32;

/// Writes a PNG of `PANELS` slices of patient 0, evenly from below the liver to above it.
pub fn write_picture(path: &Path, settings: &PhantomSettings) -> Result<(), PhantomError> {
    settings.check()?;
    let shown = volume(settings, 0);
    let (width, height, pixels) = sheet(&shown);
    let mut file = BufWriter::new(Unfinished::beside(path).map_err(PhantomError::io("create", path))?);
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    // Neighbours in a palette are not neighbours in value for the filters.
    encoder.set_filter(png::Filter::NoFilter);
    encoder.set_palette(palette());
    let encode = || {
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&pixels)?;
        writer.finish()
    };
    encode().map_err(|reason| PhantomError::Picture { path: path.to_owned(), reason })?;
    let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
    file.and_then(Unfinished::finish).map_err(PhantomError::io("write", path))
}

fn palette() -> Vec<u8> {
    let greys = (0..GREYS).flat_map(|i| [(f32::from(i) * 255.0 / f32::from(GREYS - 1)).round() as u8; 3]);
    greys.chain([255, 200, 40, 90, 200, 255]).collect()
}

/// Width, height and palette indices.
fn sheet(shown: &PhantomVolume) -> (usize, usize, Vec<u8>) {
    let (size, _, slices) = shown.hu.dim();
    let (width, height) = (PANELS * size, 2 * size);
    let mut pixels = vec![0; width * height];
    for panel in 0..PANELS {
        let z = ((panel as f32 + 0.75) / (PANELS as f32 + 0.2) * slices as f32) as usize;
        for y in 0..size {
            for x in 0..size {
                let at = y * width + panel * size + x;
                let unit = ((f32::from(shown.hu[[x, y, z]]) + 160.0) / 400.0).clamp(0.0, 1.0);
                let grey = (unit * f32::from(GREYS - 1)).round() as u8;
                pixels[at] = grey;
                pixels[at + size * width] = outline(shown, x, y, z).unwrap_or(grey);
            }
        }
    }
    (width, height, pixels)
}

/// The palette index of an outline that passes through the pixel: liver's or lesion's inner border.
fn outline(shown: &PhantomVolume, x: usize, y: usize, z: usize) -> Option<u8> {
    let size = shown.hu.dim().0;
    let label = shown.label[[x, y, z]];
    let last = size - 1;
    let around = [(x.max(1) - 1, y), ((x + 1).min(last), y), (x, y.max(1) - 1), (x, (y + 1).min(last))];
    let borders =
        |inside: fn(u8) -> bool| inside(label) && around.iter().any(|&(x, y)| !inside(shown.label[[x, y, z]]));
    if borders(|l| l > 0) {
        Some(GREYS)
    } else if borders(|l| l == 2) {
        Some(GREYS + 1)
    } else {
        None
    }
}
