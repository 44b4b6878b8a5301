//! NRRD (`.nrrd`, and `.nhdr` with its data beside it), encodings raw and gzip.
//!
//! Format: <https://teem.sourceforge.net/nrrd/format.html>, versions 1 to 5. No Rust crate for it is kept, and the header is
//! lines of text; voxels stay what the file has.

use super::content::{LONGEST_TEXT_HEADER, Source};
use super::raster::{self, Packing, Place, Problem, Raster, Skip};
use super::voxels::{ByteOrder, Scalar};
use super::{ReadOptions, Volume, segments};
use crate::geometry::Geometry;
use crate::{AffineKind, IngestError};
use std::collections::BTreeMap;
use std::path::Path;

/// What every NRRD file begins with.
const MAGIC: &[u8] = b"NRRD000";

/// Layers of a segmentation, at most; more than any program makes.
const MOST_LAYERS: u64 = 1 << 16;

/// The format's name in messages.
const FORMAT: &str = "NRRD";

/// Whether a file with this head is NRRD.
pub(super) fn is_nrrd(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Reads a volume whose header is at the head of `source`.
pub(super) fn read(path: &Path, source: Source<'_>, options: &ReadOptions) -> Result<Volume, IngestError> {
    let error = Problem { path, format: FORMAT };
    let header = Header::parse(error, source.head())?;
    match &options.segments {
        Some(labels) if segments::are_there(&header.pairs) => {
            let (raster, layers) = header.raster_of(true)?;
            let volume = raster.read(error, source, options)?;
            segments::relabelled(error, volume, layers, &header.pairs, labels)
        }
        _ => header.raster_of(false)?.0.read(error, source, options),
    }
}

/// Where the voxels of the file with this head are.
pub(super) fn place(path: &Path, head: &[u8]) -> Result<Place, IngestError> {
    Header::parse(Problem { path, format: FORMAT }, head)?.place()
}

/// The lines of a header.
struct Header<'a> {
    error: Problem<'a>,
    /// Values by the names of their fields, in small letters and without spaces, which are what spellings differ in.
    fields: BTreeMap<String, String>,
    /// Its key/value pairs, which the format leaves to programs.
    pairs: BTreeMap<String, String>,
    /// Where the line after the header begins; `None` if no empty line ends it.
    end: Option<usize>,
}

/// One axis of the array.
struct Axis {
    length: u64,
    kind: Option<String>,
    /// `None` if the axis has no place in space.
    direction: Option<Vec<f64>>,
    spacing: Option<f64>,
}

impl<'a> Header<'a> {
    fn parse(error: Problem<'a>, head: &[u8]) -> Result<Self, IngestError> {
        let mut header = Self { error, fields: BTreeMap::new(), pairs: BTreeMap::new(), end: None };
        let mut at = 0;
        for (number, line) in head.split_inclusive(|&byte| byte == b'\n').enumerate() {
            at += line.len();
            if !line.ends_with(b"\n") && at as u64 >= LONGEST_TEXT_HEADER {
                break;
            }
            let text = String::from_utf8_lossy(line);
            let text = text.trim_end_matches(['\r', '\n']);
            if number == 0 {
                if !matches!(text, "NRRD0001" | "NRRD0002" | "NRRD0003" | "NRRD0004" | "NRRD0005") {
                    let found = format!("NRRD with the first line '{}'", text.chars().take(20).collect::<String>());
                    return Err(error.unsupported(found, "a version from NRRD0001 to NRRD0005"));
                }
                continue;
            }
            if text.is_empty() {
                header.end = Some(at);
                break;
            }
            header.line(number + 1, text)?;
        }
        if header.end.is_none() && (!header.fields.contains_key("datafile") || at as u64 >= LONGEST_TEXT_HEADER) {
            return Err(error.header(format!("no empty line ends it within {at} bytes")));
        }
        Ok(header)
    }

    fn line(&mut self, number: usize, text: &str) -> Result<(), IngestError> {
        if text.starts_with('#') {
            return Ok(());
        }
        let key_value = text.find(":=");
        let field = text.find(": ").or_else(|| text.find(':'));
        let at = match (field, key_value) {
            (Some(field), Some(pair)) if field >= pair => {
                self.pair(text, pair);
                return Ok(());
            }
            (None, Some(pair)) => {
                self.pair(text, pair);
                return Ok(());
            }
            (Some(field), _) => field,
            (None, None) => {
                let cut: String = text.chars().take(60).collect();
                let rest = "expected 'field: value'";
                return Err(self.error.header(format!("line {number} is '{}', {rest}", cut.escape_debug())));
            }
        };
        let name: String = text[..at].chars().filter(|letter| !letter.is_whitespace()).collect();
        let value = text[at + 1..].trim().to_owned();
        if self.fields.insert(name.to_lowercase(), value).is_some() {
            return Err(self.error.header(format!("its field '{}' occurs twice", text[..at].trim().escape_debug())));
        }
        Ok(())
    }

    fn pair(&mut self, text: &str, at: usize) {
        self.pairs.insert(text[..at].trim().to_owned(), text[at + 2..].trim().to_owned());
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(&name.replace(' ', "")).map(String::as_str)
    }

    fn need(&self, name: &str) -> Result<&str, IngestError> {
        self.get(name).ok_or_else(|| self.error.missing(name))
    }

    /// What it says of the voxels. Of `layered` ones, a first axis that is not in space may have several values of each voxel: then the
    /// first axis of the result has all of them, and their number is given.
    fn raster_of(&self, layered: bool) -> Result<(Raster, usize), IngestError> {
        let scalar = self.scalar()?;
        let (axes, layers) = self.axes(layered)?;
        let shape = raster::shape(self.error, [axes[0].length * layers, axes[1].length, axes[2].length])?;
        let packing = self.packing()?;
        let order = self.order(scalar)?;
        let mut warnings = Vec::new();
        let geometry = self.geometry(&axes, &mut warnings)?;
        let place = self.place()?;
        let skip = self.skip(packing)?;
        Ok((Raster { shape, scalar, order, packing, place, skip, geometry, warnings }, layers as usize))
    }

    /// All spellings of teem's `nrrdType`.
    fn scalar(&self) -> Result<Scalar, IngestError> {
        let found = self.need("type")?;
        Ok(match found.to_lowercase().as_str() {
            "signed char" | "int8" | "int8_t" => Scalar::I8,
            "uchar" | "unsigned char" | "uint8" | "uint8_t" => Scalar::U8,
            "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => Scalar::I16,
            "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Scalar::U16,
            "int" | "signed int" | "int32" | "int32_t" => Scalar::I32,
            "uint" | "unsigned int" | "uint32" | "uint32_t" => Scalar::U32,
            "longlong"
            | "long long"
            | "long long int"
            | "signed long long"
            | "signed long long int"
            | "int64"
            | "int64_t" => Scalar::I64,
            "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => Scalar::U64,
            "float" => Scalar::F32,
            "double" => Scalar::F64,
            "block" => {
                let found = "voxels of an opaque type ('block')".to_owned();
                return Err(self.error.unsupported(found, "integers of up to 64 bits, float or double"));
            }
            _ => return Err(self.error.field("type", found, "one of the format, for example 'short' or 'int16'")),
        })
    }

    /// The three axes of space; a fourth of length 1 in front or behind is dropped, and one of layers in front, whose length is given.
    fn axes(&self, layered: bool) -> Result<([Axis; 3], u64), IngestError> {
        let dimension = self.need("dimension")?;
        let sizes = self.need("sizes")?;
        let lengths: Vec<u64> = raster::numbers(sizes)
            .filter(|lengths: &Vec<u64>| dimension.parse() == Ok(lengths.len()) && lengths.iter().all(|&n| n > 0))
            .ok_or_else(|| self.error.field("sizes", sizes, &format!("{dimension} (the dimension) numbers above 0")))?;
        let rank = lengths.len();
        let kinds = self.words("kinds", rank)?;
        let spacings = self.words("spacings", rank)?;
        let directions = self.directions(rank)?;
        let mut axes: Vec<Axis> = lengths
            .iter()
            .enumerate()
            .map(|(axis, &length)| Axis {
                length,
                kind: kinds.as_ref().map(|kinds| kinds[axis].to_lowercase()),
                direction: directions.as_ref().and_then(|directions| directions[axis].clone()),
                spacing: spacings.as_ref().and_then(|spacings| spacings[axis].parse().ok()),
            })
            .collect();
        let mut layers = 1;
        if rank == 4 {
            let spare = |axis: &Axis| axis.length == 1;
            let nowhere = |axis: &Axis| spare(axis) && directions.is_some() && axis.direction.is_none();
            match (nowhere(&axes[0]), spare(&axes[3]), spare(&axes[0])) {
                (true, ..) | (false, false, true) => drop(axes.remove(0)),
                (false, true, _) => drop(axes.remove(3)),
                (false, false, false) if layered && directions.is_some() && axes[0].direction.is_none() => {
                    layers = axes.remove(0).length.min(MOST_LAYERS);
                }
                (false, false, false) => {}
            }
        }
        let [a, b, c] = <[Axis; 3]>::try_from(axes).map_err(|_| {
            let of = kinds.map_or(String::new(), |kinds| format!(" (kinds {})", kinds.join(" ")));
            let found = format!("{rank} dimensions of {lengths:?}{of}");
            self.error.unsupported(found, "three, or four if the first or last has length 1")
        })?;
        for kind in [&a, &b, &c].iter().filter_map(|axis| axis.kind.as_deref()) {
            if !matches!(kind, "domain" | "space" | "none" | "???") {
                let found = format!("an axis of kind '{}'", kind.escape_debug());
                return Err(self.error.unsupported(found, "three axes of space with one number per voxel"));
            }
        }
        Ok(([a, b, c], layers))
    }

    /// A field with one word for each axis.
    fn words(&self, name: &str, rank: usize) -> Result<Option<Vec<String>>, IngestError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if words.len() == rank {
            Ok(Some(words))
        } else {
            Err(self.error.field(name, text, &format!("{rank} words, one for each axis")))
        }
    }

    fn directions(&self, rank: usize) -> Result<Option<Vec<Option<Vec<f64>>>>, IngestError> {
        let Some(text) = self.get("space directions") else { return Ok(None) };
        let vectors = vectors(text)
            .filter(|vectors| vectors.len() == rank && vectors.iter().flatten().all(|vector| vector.len() == 3));
        let expected = format!("{rank} vectors (a,b,c), one for each axis, or 'none' for an axis that is not in space");
        vectors.map(Some).ok_or_else(|| self.error.field("space directions", text, &expected))
    }

    fn packing(&self) -> Result<Packing, IngestError> {
        let found = self.need("encoding")?;
        match found.to_lowercase().as_str() {
            "raw" => Ok(Packing::Plain),
            "gzip" | "gz" => Ok(Packing::Deflated { length: None }),
            "txt" | "text" | "ascii" | "hex" | "bzip2" | "bz2" | "zrl" => {
                let found = format!("voxels in the encoding '{found}'");
                Err(self.error.unsupported(found, "raw or gzip; write the volume again with one of them"))
            }
            _ => Err(self.error.field("encoding", found, "'raw' or 'gzip'")),
        }
    }

    fn order(&self, scalar: Scalar) -> Result<ByteOrder, IngestError> {
        match self.get("endian").map(str::to_lowercase).as_deref() {
            Some("little") => Ok(ByteOrder::Little),
            Some("big") => Ok(ByteOrder::Big),
            None if scalar.bytes() == 1 => Ok(ByteOrder::Little),
            None => Err(self.error.missing("endian")),
            Some(found) => Err(self.error.field("endian", found, "'little' or 'big'")),
        }
    }

    fn geometry(&self, axes: &[Axis; 3], warnings: &mut Vec<String>) -> Result<Geometry, IngestError> {
        self.check_units()?;
        let placed = self.fields.contains_key("spacedirections");
        match (placed, self.get("space"), self.get("space dimension")) {
            (false, ..) => {
                let spacing = self.spacing(axes)?;
                raster::without_directions(self.error, spacing, [0.0; 3], warnings)
            }
            (true, Some(space), _) => {
                let to_lps = self.to_lps(space)?;
                let mut vectors = [[0.0; 3]; 3];
                for (vector, axis) in vectors.iter_mut().zip(axes) {
                    let direction = axis.direction.as_deref().and_then(|direction| direction.first_chunk());
                    let Some(&direction) = direction else {
                        let found = "an axis without a direction in space ('none')".to_owned();
                        return Err(self.error.unsupported(found, "three axes of space with one number per voxel"));
                    };
                    *vector = turned(direction, to_lps);
                }
                let origin = turned(self.origin(warnings)?, to_lps);
                raster::directions(self.error, vectors, origin, AffineKind::Directions)
            }
            (true, None, Some(_)) => {
                let found = "directions in a space without a name ('space dimension')".to_owned();
                let expected = "a named space; if it is DICOM's, write 'space: left-posterior-superior' in its place";
                Err(self.error.unsupported(found, expected))
            }
            (true, None, None) => Err(self.error.missing("space")),
        }
    }

    /// Signs that turn the space's coordinates to left, posterior, superior.
    fn to_lps(&self, space: &str) -> Result<[f64; 3], IngestError> {
        match space.to_lowercase().as_str() {
            "left-posterior-superior" | "lps" => Ok([1.0, 1.0, 1.0]),
            "right-anterior-superior" | "ras" => Ok([-1.0, -1.0, 1.0]),
            "left-anterior-superior" | "las" => Ok([1.0, -1.0, 1.0]),
            _ => {
                let found = format!("directions in the space '{}'", space.escape_debug());
                let expected = "left-posterior-superior, right-anterior-superior or left-anterior-superior; \
                                write it again with a program that knows how the patient lies in it";
                Err(self.error.unsupported(found, expected))
            }
        }
    }

    fn origin(&self, warnings: &mut Vec<String>) -> Result<[f64; 3], IngestError> {
        let Some(text) = self.get("space origin") else {
            warnings.push("the header has no origin: 0 is assumed".to_owned());
            return Ok([0.0; 3]);
        };
        let origin = vectors(text).filter(|vectors| vectors.len() == 1).and_then(|mut vectors| vectors.pop()?);
        let origin = origin.filter(|origin| origin.len() == 3).and_then(|origin| origin.first_chunk().copied());
        origin.ok_or_else(|| self.error.field("space origin", text, "one vector (a,b,c)"))
    }

    fn check_units(&self) -> Result<(), IngestError> {
        let Some(units) = self.get("space units") else { return Ok(()) };
        let known = ["mm", "millimeter", "millimeters", "millimetre", "millimetres", "???", "none"];
        let mut words = units.split(['"', ' ']).filter(|word| !word.is_empty());
        match words.find(|word| !known.contains(&word.to_lowercase().as_str())) {
            None => Ok(()),
            Some(unit) => {
                let found = format!("lengths in the unit '{}'", unit.escape_debug());
                Err(self.error.unsupported(found, "millimetres; write the volume again with its spacing in mm"))
            }
        }
    }

    /// The spacing of all axes, if it is known.
    fn spacing(&self, axes: &[Axis; 3]) -> Result<Option<[f64; 3]>, IngestError> {
        let spacing = axes.each_ref().map(|axis| axis.spacing.unwrap_or(f64::NAN));
        if spacing.iter().any(|mm| *mm <= 0.0) {
            let found = self.get("spacings").unwrap_or_default();
            return Err(self.error.field("spacings", found, "numbers above 0"));
        }
        Ok(spacing.iter().all(|mm| mm.is_finite()).then_some(spacing))
    }

    fn place(&self) -> Result<Place, IngestError> {
        match (self.get("data file"), self.end) {
            (Some(name), _) => raster::beside(self.error, name, 0),
            (None, end) => Ok(Place::Behind(end.unwrap_or_default() as u64)),
        }
    }

    fn skip(&self, packing: Packing) -> Result<Skip, IngestError> {
        if let Some(lines) = self.get("line skip").filter(|&lines| lines != "0") {
            let found = format!("lines before its voxels ('line skip: {}')", lines.escape_debug());
            return Err(self.error.unsupported(found, "none; write the volume again as one file"));
        }
        let text = self.get("byte skip").unwrap_or("0");
        match (text.parse::<i64>(), packing) {
            (Ok(-1), Packing::Plain) => Ok(Skip::AllButVoxels),
            (Ok(bytes @ 0..), _) => Ok(Skip::Bytes(bytes.unsigned_abs())),
            _ => Err(self.error.field("byte skip", text, "0 or more, or -1 in the encoding raw")),
        }
    }
}

fn turned(vector: [f64; 3], signs: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|i| vector[i] * signs[i])
}

/// `(1,0,0) none (0,1,0)`, with or without white space in it.
fn vectors(text: &str) -> Option<Vec<Option<Vec<f64>>>> {
    let mut vectors = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("none") {
            vectors.push(None);
            rest = after.trim_start();
        } else {
            let (inside, after) = rest.strip_prefix('(')?.split_once(')')?;
            vectors.push(Some(inside.split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>()?));
            rest = after.trim_start();
        }
    }
    Some(vectors)
}
