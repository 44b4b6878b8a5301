//! Pictures of a slice with what was predicted: CT in grey, activation map as warm tint, its box yellow, the predicted
//! mask's outline green, the true one's red.

use anyhow::Result;
use stage_api::BoxPrompt;

/// Pictures are this many times the slice.
const SCALE: usize = 2;

/// What is drawn; all row-major, `size × size`.
pub struct Overlay<'a> {
    /// In `[0, 1]`.
    pub image: &'a [f32],
    /// ≥ 0.
    pub cam: &'a [f32],
    /// The prompt's box.
    pub bounds: Option<BoxPrompt>,
    /// The predicted mask.
    pub mask: &'a [u8],
    /// The true mask.
    pub truth: &'a [u8],
    /// Side in pixels.
    pub size: usize,
}

/// Side of the picture of a slice, in pixels.
pub fn side(slice_size: usize) -> u32 {
    (slice_size * SCALE) as u32
}

/// A PNG.
pub fn draw(o: &Overlay) -> Result<Vec<u8>> {
    let side = o.size * SCALE;
    let peak = o.cam.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let mut pixels = vec![0u8; side * side * 3];
    for y in 0..side {
        for x in 0..side {
            let at = y / SCALE * o.size + x / SCALE;
            let grey = o.image[at].clamp(0.0, 1.0) * 255.0;
            let heat = 0.45 * (o.cam[at] / peak).clamp(0.0, 1.0);
            let tint = [255.0, 110.0, 0.0].map(|c| (grey * (1.0 - heat) + c * heat) as u8);
            pixels[(y * side + x) * 3..][..3].copy_from_slice(&tint);
        }
    }
    let mut paint = |x: usize, y: usize, colour: [u8; 3]| {
        if x < side && y < side {
            pixels[(y * side + x) * 3..][..3].copy_from_slice(&colour);
        }
    };
    if let Some(b) = o.bounds {
        let scaled = |v: f32, end: f32| ((v + end) * SCALE as f32).clamp(0.0, side as f32 - 1.0) as usize;
        let (x0, y0, x1, y1) = (scaled(b.x0, 0.0), scaled(b.y0, 0.0), scaled(b.x1, 0.999), scaled(b.y1, 0.999));
        for x in x0..=x1 {
            paint(x, y0, [255, 230, 0]);
            paint(x, y1, [255, 230, 0]);
        }
        for y in y0..=y1 {
            paint(x0, y, [255, 230, 0]);
            paint(x1, y, [255, 230, 0]);
        }
    }
    for (mask, colour) in [(o.truth, [255, 50, 50]), (o.mask, [60, 230, 90])] {
        let inside = |x: isize, y: isize| {
            let n = side as isize;
            (0..n).contains(&x) && (0..n).contains(&y) && mask[y as usize / SCALE * o.size + x as usize / SCALE] != 0
        };
        for y in 0..side as isize {
            for x in 0..side as isize {
                if inside(x, y) && !(inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1)) {
                    paint(x as usize, y as usize, colour);
                }
            }
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side as u32, side as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(bytes)
}
