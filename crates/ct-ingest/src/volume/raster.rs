//! What NRRD and MetaImage have in common: a text header that says what the voxels are, and voxels behind it or beside it.
//!
//! Invariant: no file outside the header's folder is opened.

use super::content::{Bytes, Content, MOST_COMPRESSION, Promise, Source, inflate_gzip, inflate_zlib};
use super::voxels::{ByteOrder, Scalar, Scaling, Voxels};
use super::{ReadOptions, Volume};
use crate::geometry::Geometry;
use crate::{AffineKind, IngestError, checksum};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A header that was understood.
pub(super) struct Raster {
    pub shape: [usize; 3],
    pub scalar: Scalar,
    pub order: ByteOrder,
    pub packing: Packing,
    pub place: Place,
    pub skip: Skip,
    pub geometry: Geometry,
    pub warnings: Vec<String>,
}

/// How the voxels are packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// One after another.
    Plain,
    /// Deflated as gzip or zlib, which their first bytes tell apart; of this length, if the header says so.
    Deflated { length: Option<u64> },
}

/// Where the voxels, packed or not, begin.
pub(super) enum Place {
    /// At this byte of the header's own content.
    Behind(u64),
    /// In a file beside the header, at this byte.
    Beside { data: PathBuf, at: u64 },
}

/// What stands before the first voxel, after unpacking.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    /// So many bytes.
    Bytes(u64),
    /// Whatever is there: the voxels are the file's last bytes.
    AllButVoxels,
}

impl Raster {
    /// Reads the voxels; `source` is the header's file.
    pub fn read(self, error: Problem<'_>, source: Source<'_>, options: &ReadOptions) -> Result<Volume, IngestError> {
        let (content, at, sha256) = match &self.place {
            Place::Behind(at) => {
                let content = self.content(error, source, *at)?;
                (content.0, content.1, content.2)
            }
            Place::Beside { data, at } => {
                // A file of voxels may begin with any two bytes: gzip is what the header calls it.
                let (content, at, sha256) = self.content(error.of(data), Source::open_as_it_is(data)?, *at)?;
                let header_sha256 = checksum::sha256_of_file(error.path)?;
                (content, at, checksum::combined([header_sha256.as_str(), sha256.as_str()]))
            }
        };
        let count = self.shape.iter().product();
        let voxels = Voxels::new(Arc::new(content), at, count, self.scalar, self.order, Scaling::NONE);
        Ok(Volume {
            path: error.path.to_path_buf(),
            shape: self.shape,
            voxels,
            geometry: self.geometry,
            sha256,
            intensity: options.intensity,
            warnings: self.warnings,
            nifti_header: None,
            slices_apart_voxels: 0.0,
            patient_id: None,
            series_sha256: None,
        })
    }

    /// The voxels' bytes, where in them the first is, and the checksum of the file they came from.
    fn content(
        &self,
        error: Problem<'_>,
        source: Source<'_>,
        start: u64,
    ) -> Result<(Bytes, usize, String), IngestError> {
        let bytes = (self.shape.iter().product::<usize>() * self.scalar.bytes()) as u64;
        let gzipped = source.is_gzipped();
        match (self.packing, self.skip) {
            (Packing::Plain, Skip::Bytes(skip)) => {
                let at = start.saturating_add(skip);
                let Content { bytes, sha256 } = source.read(Promise { at, bytes })?;
                Ok((bytes, at as usize, sha256))
            }
            (Packing::Plain, Skip::AllButVoxels) if !gzipped => {
                let Content { bytes: content, sha256 } = source.read(Promise { at: start, bytes })?;
                let at = content.len() - bytes as usize;
                Ok((content, at, sha256))
            }
            (Packing::Deflated { length }, Skip::Bytes(skip)) if !gzipped => {
                let content = source.read(Promise { at: start, bytes: length.unwrap_or(0) })?;
                let packed = &content.bytes[start as usize..];
                let packed = length.map_or(packed, |length| &packed[..length as usize]);
                let promise = Promise { at: skip, bytes };
                let most = (packed.len() as u64).saturating_mul(MOST_COMPRESSION);
                if skip.saturating_add(bytes) > most {
                    return Err(promise.broken(error.path, most));
                }
                let inflate = if packed.starts_with(&[0x1f, 0x8b]) { inflate_gzip } else { inflate_zlib };
                Ok((inflate(error.path, packed, promise)?, skip as usize, content.sha256))
            }
            (Packing::Deflated { .. }, Skip::Bytes(_)) => {
                let found = "compressed voxels in a file that is compressed once more".to_owned();
                Err(error.unsupported(found, "one compression; unpack the file with gunzip"))
            }
            (_, Skip::AllButVoxels) => {
                let found = "compressed voxels that are said to be at the file's end".to_owned();
                Err(error.unsupported(found, "a place counted from the file's beginning, or no compression"))
            }
        }
    }
}

/// The place of a detached data file.
pub(super) fn beside(error: Problem<'_>, name: &str, at: u64) -> Result<Place, IngestError> {
    let unsupported = |found: String| {
        Err(error.unsupported(found, "one data file in the header's own folder; write the volume again as one file"))
    };
    let plain = name.strip_prefix("./").unwrap_or(name);
    if name == "LIST" || name.starts_with("LIST ") {
        return unsupported("a list of data files".to_owned());
    }
    if name.contains('%') {
        return unsupported("a pattern of data files (with a '%' in its name)".to_owned());
    }
    if plain.is_empty() || plain == ".." || plain.contains(['/', '\\', '\0']) {
        // Not by its name, which may tell more than the file's own.
        return unsupported("a data file in another folder (by a name with a slash, or none)".to_owned());
    }
    Ok(Place::Beside { data: error.path.with_file_name(plain), at })
}

/// Three lengths whose product is a number of voxels that memory could hold.
pub(super) fn shape(error: Problem<'_>, lengths: [u64; 3]) -> Result<[usize; 3], IngestError> {
    let voxels = lengths.iter().try_fold(1_u64, |product, &length| product.checked_mul(length));
    match voxels {
        Some(1..=0x1_0000_0000_0000) => Ok(lengths.map(|length| length as usize)),
        _ => Err(error.header(format!("its shape is {lengths:?}, which no file can hold"))),
    }
}

/// The geometry of voxel axes and an origin in DICOM's coordinates (left, posterior, superior), in mm.
pub(super) fn directions(
    error: Problem<'_>,
    axes: [[f64; 3]; 3],
    origin: [f64; 3],
    kind: AffineKind,
) -> Result<Geometry, IngestError> {
    let sign = [-1.0, -1.0, 1.0];
    // Adding zero makes negative zeros positive.
    let row = |i: usize| [axes[0][i], axes[1][i], axes[2][i], origin[i]].map(|value| sign[i] * value + 0.0);
    let affine = [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]];
    Geometry::of_affine(affine, kind).map_err(|problem| IngestError::Geometry {
        path: error.path.to_path_buf(),
        problem: format!("its {} give the affine {affine:?}, {problem}", kind.name()),
    })
}

/// The geometry where no direction is known: to left, posterior and superior, as ITK assumes; unit spacing if none is known.
pub(super) fn without_directions(
    error: Problem<'_>,
    spacing: Option<[f64; 3]>,
    origin: [f64; 3],
    warnings: &mut Vec<String>,
) -> Result<Geometry, IngestError> {
    warnings.push("the header has no orientation: LPS is assumed, as ITK does".to_owned());
    let [x, y, z] = known_spacing(spacing, warnings);
    let axes = [[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, z]];
    let geometry = directions(error, axes, origin, AffineKind::VoxelSizes)?;
    Ok(Geometry { spacing_valid: geometry.spacing_valid && spacing.is_some(), ..geometry })
}

/// The spacing, or 1 mm and a warning.
pub(super) fn known_spacing(spacing: Option<[f64; 3]>, warnings: &mut Vec<String>) -> [f64; 3] {
    spacing.unwrap_or_else(|| {
        warnings.push("the header has no spacing: its millimetres are not known".to_owned());
        [1.0; 3]
    })
}

/// Numbers with white space between them.
pub(super) fn numbers<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split_whitespace().map(|number| number.parse().ok()).collect()
}

/// Makes errors about one file.
#[derive(Clone, Copy)]
pub(super) struct Problem<'a> {
    pub path: &'a Path,
    pub format: &'static str,
}

impl Problem<'_> {
    fn of<'a>(&self, path: &'a Path) -> Problem<'a> {
        Problem { path, format: self.format }
    }

    pub fn header(&self, problem: String) -> IngestError {
        IngestError::Header { path: self.path.to_path_buf(), format: self.format, problem }
    }

    pub fn field(&self, name: &str, found: &str, expected: &str) -> IngestError {
        let cut: String = found.chars().take(80).collect();
        self.header(format!("its field '{name}' is '{}', expected {expected}", cut.escape_debug()))
    }

    pub fn missing(&self, name: &str) -> IngestError {
        self.header(format!("it has no field '{name}'"))
    }

    pub fn unsupported(&self, found: String, expected: &'static str) -> IngestError {
        IngestError::Unsupported { path: self.path.to_path_buf(), found, expected }
    }
}
