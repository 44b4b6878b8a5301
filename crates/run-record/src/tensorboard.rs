//! TensorBoard event files: scalars and pictures, as records of protocol buffers.
//!
//! Sources: tensorflow/core/util/event.proto, framework/summary.proto; TFRecord's framing with masked CRC-32C
//! (tensorflow/core/lib/hash/crc32c.h). The few fields that are used are encoded here; a protobuf library and TensorFlow's
//! schemas would be a hundred times as much.

use crate::RecordError;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open event file. On resume another file is begun beside it, which tells TensorBoard to forget what came after its
/// first step.
pub struct EventFile {
    file: File,
    path: PathBuf,
}

/// A picture of an event file.
pub struct Picture<'a> {
    /// Encoded PNG.
    pub png: &'a [u8],
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl EventFile {
    /// Begins a file in `directory` for what comes after `steps` steps.
    pub fn create(directory: &Path, steps: usize) -> Result<Self, RecordError> {
        fs::create_dir_all(directory).map_err(RecordError::write(directory))?;
        let now = wall_time();
        let path = directory.join(format!("events.out.tfevents.{:.0}.sam-mix.{steps:06}", now * 1e3));
        let file = File::create(&path).map_err(RecordError::write(&path))?;
        let mut events = Self { file, path };
        events.write(0, |event| bytes(event, 3, b"brain.Event:2"))?;
        // SessionLog, status START: TensorBoard forgets events of this step and later ones.
        events.write(steps + 1, |event| bytes(event, 7, &[1 << 3, 1]))?;
        Ok(events)
    }

    /// Values of a step, each under its tag.
    pub fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> Result<(), RecordError> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut one = Vec::new();
            bytes(&mut one, 1, tag.as_bytes());
            one.push(2 << 3 | FIXED_32);
            one.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &one);
        }
        self.write(step, |event| bytes(event, 5, &summary))
    }

    /// A picture of a step.
    pub fn image(&mut self, step: usize, tag: &str, picture: &Picture) -> Result<(), RecordError> {
        let mut image = Vec::new();
        number(&mut image, 1, u64::from(picture.height));
        number(&mut image, 2, u64::from(picture.width));
        // RGB.
        number(&mut image, 3, 3);
        bytes(&mut image, 4, picture.png);
        let mut one = Vec::new();
        bytes(&mut one, 1, tag.as_bytes());
        bytes(&mut one, 4, &image);
        let mut summary = Vec::new();
        bytes(&mut summary, 1, &one);
        self.write(step, |event| bytes(event, 5, &summary))
    }

    fn write(&mut self, step: usize, content: impl FnOnce(&mut Vec<u8>)) -> Result<(), RecordError> {
        let mut event = vec![1 << 3 | FIXED_64];
        event.extend(wall_time().to_le_bytes());
        number(&mut event, 2, step as u64);
        content(&mut event);
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&event);
        record.extend(masked_crc(&event).to_le_bytes());
        // One write for each record, so that a killed run leaves whole ones.
        self.file.write_all(&record).map_err(RecordError::write(&self.path))
    }
}

const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A field of bytes: key, length, content.
fn bytes(to: &mut Vec<u8>, field: u8, content: &[u8]) {
    to.push(field << 3 | LENGTH_DELIMITED);
    varint(to, content.len() as u64);
    to.extend(content);
}

/// A field of a whole number.
fn number(to: &mut Vec<u8>, field: u8, value: u64) {
    to.push(field << 3);
    varint(to, value);
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// TFRecord's mask, which keeps the checksum of data that hold checksums from being trivial.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_event_has_the_bytes_of_its_protocol() {
        let directory = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(directory.path(), 300).unwrap();
        events.scalars(300, &[("loss/seg", 0.5)]).unwrap();
        let content = fs::read(&events.path).unwrap();
        let mut records = Vec::new();
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(*rest.first_chunk().unwrap()) as usize;
            assert_eq!(masked_crc(&rest[..8]).to_le_bytes(), rest[8..12]);
            let event = &rest[12..12 + length];
            assert_eq!(masked_crc(event).to_le_bytes(), rest[12 + length..16 + length]);
            records.push(event.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 3);
        // Wall time (field 1, 8 bytes), then: step 0 and the version; step 301 and START; step 300 and the value.
        assert_eq!(&records[0][9..], [&[2 << 3, 0, 3 << 3 | 2, 13][..], b"brain.Event:2"].concat());
        assert_eq!(&records[1][9..], [2 << 3, 0xad, 0x02, 7 << 3 | 2, 2, 1 << 3, 1]);
        let value = [&[1 << 3 | 2, 8][..], b"loss/seg", &[2 << 3 | 5], &0.5_f32.to_le_bytes()].concat();
        let expected = [&[2 << 3, 0xac, 0x02, 5 << 3 | 2, 17, 1 << 3 | 2, 15], value.as_slice()].concat();
        assert_eq!(&records[2][9..], expected);
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeros; and TensorFlow's mask of it, by its formula.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let crc = 0x8a91_36aa_u32;
        assert_eq!(masked_crc(&[0; 32]), crc.rotate_left(17).wrapping_add(0xa282_ead8));
    }
}
