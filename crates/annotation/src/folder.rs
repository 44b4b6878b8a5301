//! Masks that are a folder: a picture for each slice, or DICOM images.

use crate::AnnotationError;
use ct_ingest::{Manifest, ReadOptions, SlicePlan, StoredCt, check_same_geometry, read_volume};
use slice_store::natural_order;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Which slice the first picture is, in the natural order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPicture {
    /// The most inferior.
    Lowest,
    /// The most superior.
    Highest,
}

/// More pixels than any slice has.
const MOST_PIXELS: u64 = 1 << 28;

/// The mask of a folder, 0 or 1 in the voxel order of the CT's file. Its pixels have at most two values, of which one is the background: 0 in
/// pictures, the smaller one in DICOM images.
///
/// # Errors
/// It holds neither; a picture can't be read, has another size than the CT's slices or other colours; there are not as many as slices;
/// DICOM images lie elsewhere.
pub(crate) fn mask_of_folder(
    folder: &Path,
    ct: &StoredCt,
    manifest: &Manifest,
    first: Option<FirstPicture>,
) -> Result<Vec<u8>, AnnotationError> {
    let pictures = pictures(folder)?;
    if pictures.is_empty() {
        return of_dicom(folder, ct, manifest);
    }
    let problem = |problem: String| AnnotationError::invalid(folder, problem);
    let slices = ct.plan().numbers().len();
    if pictures.len() != slices {
        let found = pictures.len();
        return Err(problem(format!(
            "has {found} PNG pictures, but the CT has {slices} slices; a picture for each is expected, black where nothing is drawn"
        )));
    }
    let first = first.ok_or_else(|| {
        problem("has pictures, which don't say where they lie: is the first one the lowest slice or the highest? --first-picture".into())
    })?;
    let mut mask = vec![0; ct.grid().shape.iter().product()];
    let mut colours = BTreeSet::new();
    for (at, path) in pictures.iter().enumerate() {
        let slice = if first == FirstPicture::Lowest { at } else { slices - 1 - at };
        let pixels = read_picture(path, ct.plan().native_size(), &mut colours)?;
        for (voxel, pixel) in ct.plan().plane(slice).zip(pixels) {
            mask[voxel] = u8::from(pixel);
        }
    }
    if colours.len() > 1 {
        let some: Vec<String> = colours.iter().take(4).map(|colour| format!("{colour:?}")).collect();
        return Err(problem(format!(
            "has pixels of {} values beside black ({}), expected one, the target's: save the target alone",
            colours.len(),
            some.join(", ")
        )));
    }
    Ok(mask)
}

/// The folder's PNG files in the natural order of their names.
fn pictures(folder: &Path) -> Result<Vec<PathBuf>, AnnotationError> {
    let cannot = |reason: std::io::Error| AnnotationError::invalid(folder, format!("can't be listed: {reason}"));
    let mut pictures = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")) {
            pictures.push(path);
        }
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    pictures.sort_by(|a, b| natural_order(&name(a), &name(b)));
    Ok(pictures)
}

/// Whether each pixel is painted, row by row from the upper left; the colours of those that are go into `colours`.
fn read_picture(
    path: &Path,
    [rows, columns]: [usize; 2],
    colours: &mut BTreeSet<Vec<u8>>,
) -> Result<Vec<bool>, AnnotationError> {
    let problem = |problem: String| AnnotationError::invalid(path, problem);
    let file = File::open(path).map_err(|reason| problem(format!("can't be read: {reason}")))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    // Bits and palettes become bytes; 16 bits stay, or a label of 1 would vanish.
    decoder.set_transformations(png::Transformations::EXPAND);
    let damaged = |reason: png::DecodingError| problem(format!("is no PNG that can be read: {reason}"));
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    if (height, width) != (rows, columns) {
        return Err(problem(format!("has {width} x {height} pixels, but the CT's slices have {columns} x {rows}")));
    }
    let length = reader.output_buffer_size().filter(|&length| length as u64 <= MOST_PIXELS * 8);
    let mut bytes = vec![0; length.ok_or_else(|| problem("is too large".into()))?];
    let frame = reader.next_frame(&mut bytes).map_err(damaged)?;
    let (channels, with_alpha) = match frame.color_type {
        png::ColorType::Grayscale | png::ColorType::Indexed => (1, false),
        png::ColorType::GrayscaleAlpha => (2, true),
        png::ColorType::Rgb => (3, false),
        png::ColorType::Rgba => (4, true),
    };
    let depth = if frame.bit_depth == png::BitDepth::Sixteen { 2 } else { 1 };
    let (pixel, colour) = (channels * depth, (channels - usize::from(with_alpha)) * depth);
    let painted = bytes[..frame.buffer_size()].chunks_exact(pixel).map(|pixel| {
        let is_painted = pixel[..colour].iter().any(|&byte| byte != 0);
        if is_painted && colours.len() < 5 && !colours.contains(&pixel[..colour]) {
            colours.insert(pixel[..colour].to_vec());
        }
        is_painted
    });
    Ok(painted.collect())
}

/// DICOM images of a mask, as a series of a CT's slices.
fn of_dicom(folder: &Path, ct: &StoredCt, manifest: &Manifest) -> Result<Vec<u8>, AnnotationError> {
    let options = ReadOptions { geometry_tolerance: manifest.geometry_tolerance, ..ReadOptions::default() };
    let mask = read_volume(folder, &options)?;
    check_same_geometry(ct.grid(), mask.grid(), manifest.geometry_tolerance)?;
    let mut values: Vec<f64> = Vec::new();
    for value in mask.voxels.iter() {
        if !values.contains(&value) {
            values.push(value);
            if values.len() > 2 {
                let problem = format!(
                    "has images of more than two values ({values:?} and more), expected a mask's: background and target"
                );
                return Err(AnnotationError::invalid(folder, problem));
            }
        }
    }
    values.sort_by(f64::total_cmp);
    // One value alone is the background.
    let target = values.get(1).copied();
    // The mask's axes may run otherwise than the CT's: both are walked slice by slice.
    let own = SlicePlan::new(&mask.geometry, mask.shape, 1);
    let mut painted = vec![0; ct.grid().shape.iter().product()];
    for slice in 0..ct.plan().numbers().len() {
        for (to, from) in ct.plan().plane(slice).zip(own.plane(slice)) {
            painted[to] = u8::from(target == Some(mask.voxels.get(from)));
        }
    }
    Ok(painted)
}
