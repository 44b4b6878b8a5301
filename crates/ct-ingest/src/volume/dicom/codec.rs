//! From a slice's pixel data to one number a pixel, whatever the transfer syntax.
//!
//! Invariant: a decoder is asked for memory only after the compressed picture's own header agreed with the slice's size, and
//! a panic in it is an error.

use super::coding::Coding;
use jpeg2k::{DecodeParameters, Image};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a packed picture must unpack to.
#[derive(Clone, Copy)]
pub(super) struct Picture {
    pub coding: Coding,
    pub rows: usize,
    pub columns: usize,
    /// Of a pixel: 1 or 2.
    pub bytes: usize,
}

/// The pixels of a compressed picture, row by row, of which the lower bits count; else what is wrong with it.
pub(super) fn decode(picture: &Picture, packed: &[u8]) -> Result<Vec<u16>, String> {
    let pixels = match picture.coding {
        Coding::Plain => return Err("has packed pixels, but a transfer syntax for plain ones".to_owned()),
        Coding::Rle => rle(picture, packed),
        Coding::JpegLossless => guarded("JPEG", || jpeg_lossless(picture, packed)),
        Coding::JpegLs => guarded("JPEG-LS", || jpeg_ls(picture, packed)),
        Coding::Jpeg2000 => guarded("JPEG 2000", || jpeg_2000(picture, packed)),
    }?;
    let expected = picture.rows * picture.columns;
    if pixels.len() == expected {
        Ok(pixels)
    } else {
        Err(format!("unpacks to {} pixels, expected {expected}", pixels.len()))
    }
}

/// Calls somebody else's decoder.
fn guarded(name: &str, decode: impl FnOnce() -> Result<Vec<u16>, String>) -> Result<Vec<u16>, String> {
    let result = catch_unwind(AssertUnwindSafe(decode));
    let result = result.unwrap_or_else(|_| Err("the decoder gave up on it".to_owned()));
    result.map_err(|problem| format!("can't be unpacked as {name}: {problem}"))
}

fn jpeg_lossless(picture: &Picture, packed: &[u8]) -> Result<Vec<u16>, String> {
    let segments = JpegSegments::read(packed, 0xc3)?;
    segments.check(picture)?;
    // The decoder doesn't start anew after an interval, and predicts shifted values wrongly: wrong HU without a word.
    if segments.restart_interval != 0 || segments.point_transform != 0 {
        return Err("it has restart intervals or a point transform, which its decoder doesn't know".to_owned());
    }
    let pixels = picture.rows * picture.columns;
    let mut decoder = jpeg_decoder::Decoder::new(packed);
    decoder.set_max_decoding_buffer_size(pixels * 2);
    let bytes = decoder.decode().map_err(|error| error.to_string())?;
    if bytes.len() == pixels {
        return Ok(bytes.into_iter().map(u16::from).collect());
    }
    Ok(bytes.as_chunks().0.iter().map(|pixel| u16::from_ne_bytes(*pixel)).collect())
}

fn jpeg_ls(picture: &Picture, packed: &[u8]) -> Result<Vec<u16>, String> {
    JpegSegments::read(packed, 0xf7)?.check(picture)?;
    let (width, height) = (picture.columns as u32, picture.rows as u32);
    jpegls::decode(packed, width, height).map(|(pixels, ..)| pixels).map_err(|error| error.to_string())
}

fn jpeg_2000(picture: &Picture, packed: &[u8]) -> Result<Vec<u16>, String> {
    // The SIZ segment, which comes first (ISO 15444-1, A.5.1).
    let number =
        |at: usize| packed.get(at..at + 4).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap_or_default()));
    let (Some(true), [Some(right), Some(bottom), Some(left), Some(top)]) =
        (packed.get(..4).map(|start| start == [0xff, 0x4f, 0xff, 0x51]), [8, 12, 16, 20].map(number))
    else {
        return Err("it does not begin as a JPEG 2000 codestream does".to_owned());
    };
    same_size(picture, bottom.saturating_sub(top) as usize, right.saturating_sub(left) as usize)?;
    let parameters = DecodeParameters::new().strict(true);
    let image = Image::from_bytes_with(packed, parameters).map_err(|error| error.to_string())?;
    let [component] = image.components() else {
        return Err(format!("it has {} components, expected 1", image.components().len()));
    };
    same_size(picture, component.height() as usize, component.width() as usize)?;
    // Two's complement, as in plain pixels, whether the codestream calls them signed or not.
    Ok(component.data().iter().map(|&value| value as u16).collect())
}

fn same_size(picture: &Picture, rows: usize, columns: usize) -> Result<(), String> {
    if (rows, columns) == (picture.rows, picture.columns) {
        return Ok(());
    }
    Err(format!("it has {rows} x {columns} pixels, its DICOM header says {} x {}", picture.rows, picture.columns))
}

/// What stands before the first scan of a JPEG or JPEG-LS picture (ITU-T T.81, annex B).
#[derive(Debug, PartialEq)]
struct JpegSegments {
    rows: usize,
    columns: usize,
    components: u8,
    restart_interval: u16,
    point_transform: u8,
}

impl JpegSegments {
    /// Reads them; the frame must be of the `wanted` process, as its marker says.
    fn read(bytes: &[u8], wanted: u8) -> Result<Self, String> {
        let early = || "it ends before its first scan".to_owned();
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8]).ok_or("it does not begin as a JPEG picture does")?;
        let mut found = Self { rows: 0, columns: 0, components: 0, restart_interval: 0, point_transform: 0 };
        loop {
            let (&[lead, marker], after) = rest.split_first_chunk().ok_or_else(early)?;
            if lead != 0xff {
                return Err("its segments are damaged".to_owned());
            }
            if marker == 0xff {
                rest = &rest[1..];
                continue;
            }
            let (length, _) = after.split_first_chunk().ok_or_else(early)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let segment = after.get(2..length).ok_or_else(early)?;
            let byte = |at: usize| segment.get(at).copied().ok_or_else(early);
            let short = |at: usize| Ok::<_, String>(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
            match marker {
                _ if marker == wanted => {
                    (found.rows, found.columns, found.components) = (short(1)?.into(), short(3)?.into(), byte(5)?);
                }
                // Frames of other processes; C4, C8 and CC are tables and an extension.
                0xc0..=0xcf | 0xf7 if ![0xc4, 0xc8, 0xcc].contains(&marker) => {
                    return Err(format!(
                        "it is of another JPEG process (frame marker {marker:#x}, expected {wanted:#x})"
                    ));
                }
                0xdd => found.restart_interval = short(0)?,
                0xda => {
                    found.point_transform = segment.last().copied().ok_or_else(early)? & 0xf;
                    return Ok(found);
                }
                _ => {}
            }
            rest = &after[length..];
        }
    }

    fn check(&self, picture: &Picture) -> Result<(), String> {
        if self.components != 1 {
            return Err(format!("it has {} components, expected 1", self.components));
        }
        same_size(picture, self.rows, self.columns)
    }
}

/// Segments of run lengths, one for each byte of a pixel, the highest first.
fn rle(picture: &Picture, packed: &[u8]) -> Result<Vec<u16>, String> {
    let number = |place: usize| {
        let bytes = packed.get(4 * place..4 * place + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| u32::from_le_bytes(bytes) as usize).ok_or("has run lengths that end within their header")
    };
    let segments = number(0)?;
    if segments != picture.bytes {
        return Err(format!("has {segments} segments of run lengths, expected {}", picture.bytes));
    }
    let length = picture.rows * picture.columns;
    // Two bytes become 128 at most.
    if length > packed.len().saturating_mul(64) {
        return Err(format!("has run lengths too few for its {length} pixels"));
    }
    let mut pixels = vec![0_u16; length];
    for segment in 0..segments {
        let end = if segment + 1 < segments { number(segment + 2)? } else { packed.len() };
        let bytes = packed.get(number(segment + 1)?..end).ok_or("has run lengths with places outside of them")?;
        unpack(bytes, &mut pixels).ok_or("has run lengths that end before its last pixel")?;
    }
    Ok(pixels)
}

/// Puts a segment's bytes (PS3.5, G.3.2) below those that the pixels have already.
fn unpack(mut packed: &[u8], pixels: &mut [u16]) -> Option<()> {
    let mut left = pixels.iter_mut();
    while left.len() > 0 {
        let (&control, rest) = packed.split_first()?;
        packed = rest;
        let put = |pixel: &mut u16, byte: u8| *pixel = *pixel << 8 | u16::from(byte);
        match control {
            0..128 => {
                let (bytes, rest) = packed.split_at_checked(usize::from(control) + 1)?;
                packed = rest;
                left.by_ref().zip(bytes).for_each(|(pixel, &byte)| put(pixel, byte));
            }
            128 => {}
            129.. => {
                let (&byte, rest) = packed.split_first()?;
                packed = rest;
                left.by_ref().take(257 - usize::from(control)).for_each(|pixel| put(pixel, byte));
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_lengths_are_those_of_the_standard() {
        let mut pixels = [0; 7];
        // Three times 7, then 1 2 3, nothing, then 9 (and one more, which is padding).
        assert_eq!(unpack(&[254, 7, 2, 1, 2, 3, 128, 1, 9, 0], &mut pixels), Some(()));
        assert_eq!(pixels, [7, 7, 7, 1, 2, 3, 9]);
        assert_eq!(unpack(&[250, 1], &mut pixels), Some(()));
        assert_eq!(pixels[0], 0x0701);
        assert_eq!(unpack(&[254, 7, 2, 1, 2], &mut pixels), None);
    }

    #[test]
    fn jpeg_segments_say_size_and_process() {
        let picture = [
            &[0xff, 0xd8][..],
            &[0xff, 0xff, 0xdd, 0, 4, 0, 8],
            &[0xff, 0xc3, 0, 11, 12, 0, 7, 0, 5, 1, 1, 0x11, 0],
            &[0xff, 0xda, 0, 8, 1, 1, 0, 1, 0, 2],
        ]
        .concat();
        let found = JpegSegments::read(&picture, 0xc3).unwrap();
        let expected = JpegSegments { rows: 7, columns: 5, components: 1, restart_interval: 8, point_transform: 2 };
        assert_eq!(found, expected);
        assert!(JpegSegments::read(&picture, 0xf7).unwrap_err().contains("another JPEG process (frame marker 0xc3"));
        for end in 0..picture.len() {
            assert!(JpegSegments::read(&picture[..end], 0xc3).is_err());
        }
    }
}
