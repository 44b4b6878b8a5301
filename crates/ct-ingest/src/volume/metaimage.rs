//! MetaImage (`.mha`, and `.mhd` with its data beside it), plain or compressed with zlib.
//!
//! Fields and defaults as ITK's reader has them (`metaImage.cxx` of MetaIO); voxels stay what the file has.

use super::content::{LONGEST_TEXT_HEADER, Source};
use super::raster::{self, Packing, Place, Problem, Raster, Skip};
use super::voxels::{ByteOrder, Scalar};
use super::{ReadOptions, Volume};
use crate::geometry::Geometry;
use crate::{AffineKind, IngestError};
use std::collections::BTreeMap;
use std::path::Path;

/// The format's name in messages.
const FORMAT: &str = "MetaImage";

/// Whether a file with this head is MetaImage: lines `Key = Value`, of which one of the first names the object or its rank.
pub(super) fn is_metaimage(head: &[u8]) -> bool {
    for line in head.split(|&byte| byte == b'\n').take(16) {
        let Some(at) = line.iter().position(|&byte| byte == b'=') else { return false };
        match line[..at].trim_ascii() {
            b"ObjectType" | b"NDims" => return true,
            key if !key.is_empty() && key.iter().all(u8::is_ascii_alphanumeric) => {}
            _ => return false,
        }
    }
    false
}

/// Reads a volume whose header is at the head of `source`.
pub(super) fn read(path: &Path, source: Source<'_>, options: &ReadOptions) -> Result<Volume, IngestError> {
    let error = Problem { path, format: FORMAT };
    let raster = Header::parse(error, source.head())?.raster()?;
    raster.read(error, source, options)
}

/// Where the voxels of the file with this head are.
pub(super) fn place(path: &Path, head: &[u8]) -> Result<Place, IngestError> {
    let header = Header::parse(Problem { path, format: FORMAT }, head)?;
    Ok(header.place(header.packing()?)?.0)
}

/// The lines of a header.
struct Header<'a> {
    error: Problem<'a>,
    fields: BTreeMap<String, String>,
    /// Where the line after the header begins.
    end: u64,
}

impl<'a> Header<'a> {
    fn parse(error: Problem<'a>, head: &[u8]) -> Result<Self, IngestError> {
        let mut header = Self { error, fields: BTreeMap::new(), end: 0 };
        for (number, line) in head.split_inclusive(|&byte| byte == b'\n').enumerate() {
            header.end += line.len() as u64;
            if !line.ends_with(b"\n") && header.end >= LONGEST_TEXT_HEADER {
                break;
            }
            let text = String::from_utf8_lossy(line);
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let Some((key, value)) = text.split_once('=') else {
                let cut: String = text.chars().take(60).collect();
                let rest = "expected 'Key = Value'";
                return Err(error.header(format!("line {} is '{}', {rest}", number + 1, cut.escape_debug())));
            };
            let (key, value) = (key.trim(), value.trim().to_owned());
            if header.fields.insert(key.to_owned(), value).is_some() {
                return Err(error.header(format!("its field '{}' occurs twice", key.escape_debug())));
            }
            // The last field by definition.
            if key == "ElementDataFile" {
                return Ok(header);
            }
        }
        Err(error.header(format!("no field 'ElementDataFile' ends it within {} bytes", header.end)))
    }

    /// The value of the first of these fields that is there, and its name.
    fn any<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &str)> {
        names.iter().find_map(|name| Some((*name, self.fields.get(*name)?.as_str())))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn need(&self, name: &str) -> Result<&str, IngestError> {
        self.get(name).ok_or_else(|| self.error.missing(name))
    }

    /// Whether a field is true; `None` if it isn't there.
    fn flag(&self, names: &[&str]) -> Result<Option<bool>, IngestError> {
        let Some((name, value)) = self.any(names) else { return Ok(None) };
        match value.to_lowercase().as_str() {
            "true" | "t" | "1" => Ok(Some(true)),
            "false" | "f" | "0" => Ok(Some(false)),
            _ => Err(self.error.field(name, value, "'True' or 'False'")),
        }
    }

    fn raster(&self) -> Result<Raster, IngestError> {
        self.check_kind()?;
        let shape = self.shape()?;
        let scalar = self.scalar()?;
        let mut warnings = Vec::new();
        let order = self.order(scalar, &mut warnings)?;
        let packing = self.packing()?;
        let geometry = self.geometry(&mut warnings)?;
        let (place, skip) = self.place(packing)?;
        Ok(Raster { shape, scalar, order, packing, place, skip, geometry, warnings })
    }

    /// What is no volume of plain numbers is refused.
    fn check_kind(&self) -> Result<(), IngestError> {
        let unsupported = |found: String, expected| Err(self.error.unsupported(found, expected));
        if let Some(object) = self.get("ObjectType").filter(|object| !object.eq_ignore_ascii_case("image")) {
            return unsupported(format!("a MetaIO object of type '{}'", object.escape_debug()), "an image");
        }
        if self.flag(&["BinaryData"])? == Some(false) {
            return unsupported("voxels written as text".to_owned(), "BinaryData = True; write the volume again");
        }
        if let Some(channels) = self.get("ElementNumberOfChannels").filter(|&channels| channels != "1") {
            return unsupported(format!("voxels of {} numbers", channels.escape_debug()), "one number per voxel");
        }
        for (name, plain) in [("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)] {
            if let Some(value) = self.get(name).filter(|value| value.parse() != Ok(plain)) {
                let found = format!("values that are scaled ('{name} = {}')", value.escape_debug());
                return unsupported(found, "none, because ITK ignores it; write the volume again as HU");
            }
        }
        if let Some(unit) = self.get("DistanceUnits").filter(|unit| !["mm", "?"].contains(unit)) {
            let found = format!("lengths in the unit '{}'", unit.escape_debug());
            return unsupported(found, "millimetres; write the volume again with its spacing in mm");
        }
        Ok(())
    }

    /// How many axes the header counts.
    fn rank(&self) -> Result<usize, IngestError> {
        let found = self.need("NDims")?;
        match found.parse() {
            Ok(rank @ 3..=4) => Ok(rank),
            Ok(rank) => {
                let found = format!("{rank} dimensions");
                Err(self.error.unsupported(found, "three, or four if the last has length 1"))
            }
            Err(_) => Err(self.error.field("NDims", found, "a number")),
        }
    }

    fn shape(&self) -> Result<[usize; 3], IngestError> {
        let rank = self.rank()?;
        let found = self.need("DimSize")?;
        let lengths = raster::numbers(found).filter(|lengths: &Vec<u64>| lengths.iter().all(|&length| length > 0));
        match lengths.as_deref() {
            Some(&[x, y, z]) if rank == 3 => raster::shape(self.error, [x, y, z]),
            Some(&[x, y, z, 1]) if rank == 4 => raster::shape(self.error, [x, y, z]),
            Some(lengths @ [_, _, _, _]) if rank == 4 => {
                let found = format!("4 dimensions of {lengths:?}");
                Err(self.error.unsupported(found, "three, or four if the last has length 1"))
            }
            _ => Err(self.error.field("DimSize", found, &format!("{rank} (NDims) numbers above 0"))),
        }
    }

    /// `MET_LONG` has 32 bits on every platform (`MET_ValueTypeSize` of metaTypes.h).
    fn scalar(&self) -> Result<Scalar, IngestError> {
        let found = self.need("ElementType")?;
        Ok(match found {
            "MET_CHAR" | "MET_ASCII_CHAR" => Scalar::I8,
            "MET_UCHAR" => Scalar::U8,
            "MET_SHORT" => Scalar::I16,
            "MET_USHORT" => Scalar::U16,
            "MET_INT" | "MET_LONG" => Scalar::I32,
            "MET_UINT" | "MET_ULONG" => Scalar::U32,
            "MET_LONG_LONG" => Scalar::I64,
            "MET_ULONG_LONG" => Scalar::U64,
            "MET_FLOAT" => Scalar::F32,
            "MET_DOUBLE" => Scalar::F64,
            other if other.ends_with("_ARRAY") || other.ends_with("_MATRIX") || other == "MET_STRING" => {
                let found = format!("voxels of the type {}", other.escape_debug());
                return Err(self.error.unsupported(found, "one number per voxel, for example MET_SHORT"));
            }
            _ => return Err(self.error.field("ElementType", found, "one of MetaIO, for example 'MET_SHORT'")),
        })
    }

    fn order(&self, scalar: Scalar, warnings: &mut Vec<String>) -> Result<ByteOrder, IngestError> {
        match self.flag(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])? {
            Some(true) => Ok(ByteOrder::Big),
            Some(false) => Ok(ByteOrder::Little),
            None => {
                if scalar.bytes() > 1 {
                    warnings.push("the header has no byte order: the lowest byte first is assumed".to_owned());
                }
                Ok(ByteOrder::Little)
            }
        }
    }

    fn packing(&self) -> Result<Packing, IngestError> {
        if self.flag(&["CompressedData"])? != Some(true) {
            return Ok(Packing::Plain);
        }
        let length = match self.get("CompressedDataSize") {
            None => None,
            Some(found) => Some(found.parse().map_err(|_| self.error.field("CompressedDataSize", found, "a number"))?),
        };
        Ok(Packing::Deflated { length })
    }

    /// Axes in the rows of the matrix, in DICOM's coordinates, as ITK reads it; the centre of rotation plays no part.
    fn geometry(&self, warnings: &mut Vec<String>) -> Result<Geometry, IngestError> {
        let rank = self.rank()?;
        let first_three = |values: Vec<f64>| [values[0], values[1], values[2]];
        let spacing = self.reals(&["ElementSpacing", "ElementSize"], rank)?.map(first_three);
        if let Some(spacing) = spacing.filter(|spacing| !spacing.iter().all(|mm| *mm > 0.0)) {
            return Err(self.error.header(format!("its spacing is {spacing:?}, expected numbers above 0")));
        }
        let origin = self.reals(&["Offset", "Origin", "Position"], rank)?.map(first_three);
        let matrix = self.reals(&["TransformMatrix", "Rotation", "Orientation"], rank * rank)?;
        let Some(matrix) = matrix else {
            return raster::without_directions(self.error, spacing, origin.unwrap_or_default(), warnings);
        };
        let origin = origin.unwrap_or_else(|| {
            warnings.push("the header has no origin: 0 is assumed".to_owned());
            [0.0; 3]
        });
        if rank == 4 && (0..3).any(|i| matrix[4 * i + 3] != 0.0) {
            let found = "axes of space that run along a fourth dimension".to_owned();
            return Err(self.error.unsupported(found, "a TransformMatrix that keeps space and time apart"));
        }
        let known = raster::known_spacing(spacing, warnings);
        let axes = std::array::from_fn(|axis| std::array::from_fn(|i| matrix[rank * axis + i] * known[axis]));
        let geometry = raster::directions(self.error, axes, origin, AffineKind::Directions)?;
        Ok(Geometry { spacing_valid: geometry.spacing_valid && spacing.is_some(), ..geometry })
    }

    /// `count` numbers, if one of these fields is there.
    fn reals(&self, names: &[&str], count: usize) -> Result<Option<Vec<f64>>, IngestError> {
        let Some((name, found)) = self.any(names) else { return Ok(None) };
        let values = raster::numbers(found).filter(|values: &Vec<f64>| values.len() == count);
        values.map(Some).ok_or_else(|| self.error.field(name, found, &format!("{count} numbers")))
    }

    fn place(&self, packing: Packing) -> Result<(Place, Skip), IngestError> {
        let name = self.need("ElementDataFile")?;
        let text = self.get("HeaderSize").unwrap_or("0");
        let local = name.eq_ignore_ascii_case("local");
        let (at, skip) = match text.parse::<i64>() {
            Ok(-1) if packing == Packing::Plain => (0, Skip::AllButVoxels),
            Ok(0) => (0, Skip::Bytes(0)),
            Ok(bytes @ 1..) if !local => (bytes.unsigned_abs(), Skip::Bytes(0)),
            _ => {
                let expected = "0; more if the voxels are in another file; -1 if they are not compressed";
                return Err(self.error.field("HeaderSize", text, expected));
            }
        };
        let place = if local { Place::Behind(self.end) } else { raster::beside(self.error, name, at)? };
        Ok((place, skip))
    }
}
