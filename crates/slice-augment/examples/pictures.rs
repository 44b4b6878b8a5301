//! Draws the pictures of `docs/reference/augmentation.md`: a slice of a store, and draws of each change by itself.
//!
//! `cargo run --release -p slice-augment --example pictures -- STORE CASE INDEX FOLDER`

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use slice_augment::{Appearance, Augmentation, Geometry};
use slice_store::{SliceId, SliceStore, Window};
use std::fs::File;
use std::path::Path;

/// Pictures beside each other: the slice, then draws.
const COLUMNS: usize = 3;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, case, index, folder] = &arguments[..] else { anyhow::bail!("expected STORE CASE INDEX FOLDER") };
    let store = SliceStore::open(Path::new(store))?;
    let id = SliceId { case: case.clone(), index: index.parse()? };
    let row = store.position(&id).with_context(|| format!("the store has no slice {id}"))?;
    let off = Augmentation::default();
    let all = Augmentation {
        rotate_deg: 15.0,
        scale: 0.2,
        shift: 0.1,
        elastic_px: 8.0,
        blur_px: 1.0,
        low_resolution: 1.0,
        intensity_hu: 40.0,
        contrast: 0.2,
        gamma: 0.4,
        noise_hu: 25.0,
        ..off
    };
    let changes = [
        ("flip_left_right", Augmentation { flip_left_right: true, ..off }),
        ("flip_up_down", Augmentation { flip_up_down: true, ..off }),
        ("rotate_deg", Augmentation { rotate_deg: 15.0, ..off }),
        ("scale", Augmentation { scale: 0.25, ..off }),
        ("shift", Augmentation { shift: 0.125, ..off }),
        ("elastic_px", Augmentation { elastic_px: 12.0, ..off }),
        ("blur_px", Augmentation { blur_px: 2.0, ..off }),
        ("low_resolution", Augmentation { low_resolution: 3.0, ..off }),
        ("intensity_hu", Augmentation { intensity_hu: 60.0, ..off }),
        ("contrast", Augmentation { contrast: 0.4, ..off }),
        ("gamma", Augmentation { gamma: 1.0, ..off }),
        ("noise_hu", Augmentation { noise_hu: 60.0, ..off }),
        ("all", all),
    ];
    std::fs::create_dir_all(folder)?;
    for (name, settings) in changes {
        picture(&store, row, &settings, &Path::new(folder).join(format!("{name}.png")))?;
    }
    Ok(())
}

/// The slice in its window with the mask's edge, and two draws; an eighth of the side is cut off all around.
fn picture(store: &SliceStore, row: usize, settings: &Augmentation, path: &Path) -> Result<()> {
    // Palette indices: greys, and one colour for the edge.
    const EDGE: u8 = 255;
    let (size, window) = (store.slice_size(), Window::default());
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
    let (margin, shown) = (size / 8, size - 2 * (size / 8));
    let mut pixels = vec![0u8; shown * shown * COLUMNS];
    for column in 0..COLUMNS {
        let (mut hu, mut mask) = (vec![0.0; size * size], vec![0.0; size * size]);
        let (geometry, appearance) = if column == 0 {
            (Geometry::identity(size), None)
        } else {
            (Geometry::draw(settings, size, &mut rng), Some(Appearance::draw(settings, &mut rng)))
        };
        geometry.image(store.image(row), &mut hu);
        geometry.mask(store.for_evaluation().mask(row).context("the slice has no mask")?, &mut mask);
        if let Some(appearance) = appearance {
            appearance.apply(&mut hu, size, window);
        }
        for (i, &value) in hu.iter().enumerate() {
            let (y, x) = ((i / size).wrapping_sub(margin), (i % size).wrapping_sub(margin));
            if y >= shown || x >= shown {
                continue;
            }
            let beside = |d: usize| (i >= d && mask[i - d] == 0.0) || mask.get(i + d).is_some_and(|&m| m == 0.0);
            let edge = mask[i] != 0.0 && (beside(1) || beside(size));
            let grey = (window.unit(value) * 254.0) as u8;
            pixels[y * shown * COLUMNS + column * shown + x] = if edge { EDGE } else { grey };
        }
    }
    let mut encoder = png::Encoder::new(File::create(path)?, (shown * COLUMNS) as u32, shown as u32);
    encoder.set_color(png::ColorType::Indexed);
    let mut palette: Vec<u8> = (0..=EDGE).flat_map(|grey| [grey; 3]).collect();
    palette[usize::from(EDGE) * 3..].copy_from_slice(&[255, 80, 60]);
    encoder.set_palette(palette);
    encoder.set_compression(png::Compression::High);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}
