//! Frames of a DICOM-SEG, one number a pixel.
//!
//! One-bit pixels run on from frame to frame, the lowest bit of a byte first (PS3.5, 8.1.1 and D.2): where rows × columns is no multiple
//! of 8, a frame begins within a byte. Only frames that are packed one by one begin with a byte of their own.

use ct_ingest::unpack_dicom_frame;
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use flate2::read::DeflateDecoder;
use std::borrow::Cow;
use std::io::Read;

/// Deflated Image Frame Compression (PS3.5, A.4.13): each frame is a stream of its own.
const DEFLATED_FRAMES: &str = "1.2.840.10008.1.2.8.1";

/// All frames of an object.
pub(super) struct Frames<'a> {
    syntax: String,
    rows: usize,
    columns: usize,
    /// 1, 8 or 16 for each pixel.
    bits: usize,
    data: Data<'a>,
}

enum Data<'a> {
    Native(Cow<'a, [u8]>),
    Packed(Vec<&'a [u8]>),
}

impl<'a> Frames<'a> {
    /// So many frames of `[rows, columns]` pixels; else what is wrong with the pixel data, as the end of a sentence.
    pub fn of(
        object: &'a DefaultDicomObject,
        number: usize,
        [rows, columns]: [usize; 2],
        bits: usize,
    ) -> Result<Self, String> {
        let syntax = object.meta().transfer_syntax().trim_matches([' ', '\0']).to_owned();
        let value = object.get(tags::PIXEL_DATA).ok_or("has no pixel data: it was cut")?.value();
        let data = if let Some(fragments) = value.fragments() {
            if fragments.len() != number {
                return Err(format!("has {} packed frames, expected {number} (one fragment each)", fragments.len()));
            }
            Data::Packed(fragments.iter().map(Vec::as_slice).collect())
        } else {
            let bytes = value.primitive().map(dicom_core::PrimitiveValue::to_bytes).unwrap_or_default();
            let expected = (number * rows * columns * bits).div_ceil(8);
            // A value's length is even: there may be a byte more.
            if bytes.len() != expected && bytes.len() != expected + expected % 2 {
                return Err(format!(
                    "has {} bytes of pixels, expected {expected}: {number} frames of {rows} x {columns} pixels of {bits} bits without \
                     padding between them",
                    bytes.len()
                ));
            }
            Data::Native(bytes)
        };
        Ok(Self { syntax, rows, columns, bits, data })
    }

    /// A frame's pixels, row by row.
    pub fn frame(&self, number: usize) -> Result<Vec<u16>, String> {
        let pixels = self.rows * self.columns;
        match &self.data {
            Data::Native(bytes) => Ok(unpacked(bytes, self.bits, number * pixels, pixels)),
            Data::Packed(fragments) if self.syntax == DEFLATED_FRAMES => {
                let length = (pixels * self.bits).div_ceil(8);
                let mut bytes = Vec::new();
                let read = DeflateDecoder::new(fragments[number]).take(length as u64).read_to_end(&mut bytes);
                if read.is_err() || bytes.len() < length {
                    return Err("has deflated pixels that end early or are damaged".to_owned());
                }
                Ok(unpacked(&bytes, self.bits, 0, pixels))
            }
            Data::Packed(_) if self.bits == 1 => {
                Err(format!("has packed one-bit pixels of the transfer syntax {}; decompress it", self.syntax))
            }
            Data::Packed(fragments) => {
                unpack_dicom_frame(&self.syntax, [self.rows, self.columns], self.bits / 8, fragments[number])
            }
        }
    }
}

/// `count` numbers of `bits` bits each, from number `first` on. There are so many.
fn unpacked(bytes: &[u8], bits: usize, first: usize, count: usize) -> Vec<u16> {
    match bits {
        1 => (first..first + count).map(|bit| u16::from(bytes[bit / 8] >> (bit % 8) & 1)).collect(),
        8 => bytes[first..first + count].iter().copied().map(u16::from).collect(),
        _ => bytes.as_chunks().0[first..first + count].iter().map(|pair| u16::from_le_bytes(*pair)).collect(),
    }
}

/// One-bit pixels in the bytes that they are stored in: of an even number.
pub(super) fn packed(pixels: impl Iterator<Item = bool>, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count.div_ceil(8).next_multiple_of(2)];
    for (bit, set) in pixels.enumerate() {
        bytes[bit / 8] |= u8::from(set) << (bit % 8);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_run_on_from_frame_to_frame() {
        // Three frames of five pixels: 10000, 01000, 11111, the lowest bit first.
        let bytes = [0b0100_0001, 0b0111_1100];
        let frames: Vec<Vec<u16>> = (0..3).map(|frame| unpacked(&bytes, 1, 5 * frame, 5)).collect();
        assert_eq!(frames, [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]);
        assert_eq!(packed(frames.concat().into_iter().map(|bit| bit == 1), 15), bytes);
        assert_eq!(packed([true].into_iter(), 1), [1, 0]);
    }
}
