//! Slices' pixels into one volume of HU: 16-bit whole numbers if all of them are, else floats.
//!
//! Pixels outside of the scanned circle (PixelPaddingValue) keep the value that they have, often far below air; they are
//! clipped like any other when slices are cut.

use super::codec::{self, Picture};
use super::coding::Coding;
use super::entry::parse;
use super::frame::Frame;
use super::header::{Image, Plane};
use super::problem;
use super::scan::unreadable;
use crate::IngestError;
use crate::volume::content::{Bytes, MOST_BYTES, memory};
use crate::volume::voxels::{ByteOrder, Scalar, Scaling, Voxels};
use dicom_dictionary_std::tags;
use rayon::prelude::*;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A type of voxels in memory.
trait Voxel: Copy {
    const SCALAR: Scalar;
    /// `None` if the value is no such number.
    fn of(hu: f64) -> Option<Self>;
    fn put(self, to: &mut [u8]);
}

impl Voxel for i16 {
    const SCALAR: Scalar = Scalar::I16;

    fn of(hu: f64) -> Option<Self> {
        let whole = hu as Self;
        (f64::from(whole) == hu).then_some(whole)
    }

    fn put(self, to: &mut [u8]) {
        to.copy_from_slice(&self.to_le_bytes());
    }
}

impl Voxel for f32 {
    const SCALAR: Scalar = Scalar::F32;

    fn of(hu: f64) -> Option<Self> {
        Some(hu as Self)
    }

    fn put(self, to: &mut [u8]) {
        to.copy_from_slice(&self.to_le_bytes());
    }
}

/// The voxels of slices that are in order and of one size.
pub(super) fn read(folder: &Path, slices: &[Image<Plane>]) -> Result<Voxels, IngestError> {
    let whole = |number: f64| number.fract() == 0.0;
    if slices.iter().all(|slice| whole(slice.plane.slope) && whole(slice.plane.intercept))
        && let Some(voxels) = read_as::<i16>(folder, slices)?
    {
        return Ok(voxels);
    }
    let no_memory = IngestError::OutOfMemory { path: folder.to_path_buf(), bytes: 0 };
    read_as::<f32>(folder, slices)?.ok_or(no_memory)
}

/// `None` if a value is no number of that type.
fn read_as<T: Voxel>(folder: &Path, slices: &[Image<Plane>]) -> Result<Option<Voxels>, IngestError> {
    let pixels = slices[0].plane.rows * slices[0].plane.columns;
    let slice_bytes = pixels * T::SCALAR.bytes();
    let bytes = slice_bytes as u64 * slices.len() as u64;
    if bytes > MOST_BYTES {
        return Err(problem(folder, format!("holds a volume of {bytes} bytes, expected at most {MOST_BYTES}")));
    }
    let mut content = memory(folder, bytes)?;
    let fits = AtomicBool::new(true);
    let results: Vec<Result<(), IngestError>> = content
        .par_chunks_exact_mut(slice_bytes)
        .zip(slices)
        .enumerate()
        .map(|(index, (out, slice))| {
            if !fits.load(Ordering::Relaxed) {
                return Ok(());
            }
            let values = pixels_of(folder, slice)?.map_err(|what| {
                let (name, number, of) = (&slice.name, index + 1, slices.len());
                let advice = way_out(slice.plane.coding);
                problem(folder, format!("has a slice that {what}: slice {number} of {of} ({name}); {advice}"))
            })?;
            if !rescale::<T>(&slice.plane, &values, out) {
                fits.store(false, Ordering::Relaxed);
            }
            Ok(())
        })
        .collect();
    results.into_iter().collect::<Result<(), _>>()?;
    if !fits.into_inner() {
        return Ok(None);
    }
    let content = Arc::new(Bytes::Inflated(content));
    Ok(Some(Voxels::new(content, 0, pixels * slices.len(), T::SCALAR, ByteOrder::Little, Scaling::NONE)))
}

/// What to do about pixels that can't be read.
fn way_out(coding: Coding) -> String {
    let unpack = coding.unpacked_by().map_or_else(String::new, |tools| format!(", or decompress it with {tools}"));
    format!("copy the series again{unpack}")
}

/// Whether all values are numbers of that type.
fn rescale<T: Voxel>(plane: &Plane, pixels: &[u16], out: &mut [u8]) -> bool {
    let mut to = out.chunks_exact_mut(T::SCALAR.bytes());
    pixels.iter().zip(&mut to).all(|(&pixel, to)| {
        let hu = f64::from(plane.stored.value(pixel)) * plane.slope + plane.intercept;
        T::of(hu).map(|voxel| voxel.put(to)).is_some()
    })
}

/// A slice's pixels as they are stored; else what is wrong with them.
fn pixels_of(folder: &Path, slice: &Image<Plane>) -> Result<Result<Vec<u16>, String>, IngestError> {
    let file = File::open(&slice.file).map_err(unreadable(folder))?;
    let bytes = slice_store::map_file(&file).map_err(unreadable(folder))?;
    Ok(stored_pixels(&slice.plane, &bytes))
}

fn stored_pixels(plane: &Plane, file: &[u8]) -> Result<Vec<u16>, String> {
    let ends = || "ends before its last pixel, or is damaged".to_owned();
    let object = Frame::of(file).and_then(|file| parse(&file, true)).ok_or_else(ends)?;
    let value = object.get(tags::PIXEL_DATA).ok_or_else(ends)?.value();
    if let Some(fragments) = value.fragments() {
        let Plane { coding, rows, columns, stored, .. } = *plane;
        let picture = Picture { coding, rows, columns, bytes: stored.bytes() };
        return match fragments {
            [one] => codec::decode(&picture, one),
            several => codec::decode(&picture, &several.concat()),
        };
    }
    if plane.coding != Coding::Plain {
        return Err("has plain pixels, but a transfer syntax for packed ones".to_owned());
    }
    // The parser has put words into the machine's order; bytes are in the file's, which is little endian for these.
    let bytes = value.primitive().map(|primitive| primitive.to_bytes()).ok_or_else(ends)?;
    let expected = plane.rows * plane.columns * plane.stored.bytes();
    // A value's length is even: there may be a byte more.
    if bytes.len() != expected && bytes.len() != expected + expected % 2 {
        return Err(format!("has {} bytes of pixels, expected {expected}", bytes.len()));
    }
    let bytes = &bytes[..expected];
    Ok(match plane.stored.bytes() {
        1 => bytes.iter().copied().map(u16::from).collect(),
        _ => bytes.as_chunks().0.iter().map(|pixel| u16::from_le_bytes(*pixel)).collect(),
    })
}
