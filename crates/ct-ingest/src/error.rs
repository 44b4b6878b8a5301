//! What can go wrong between a file on disk and the slice store: where, what was found, what was expected, the way out.

use slice_store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// An error of reading, checking or preparing volumes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The slice store refused something.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system refused a file operation.
    #[error("cannot {action} '{}': {reason}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        reason: io::Error,
    },
    /// The file is no NIfTI volume, nor any other that can be read.
    #[error("'{}' is not a NIfTI, NRRD or MetaImage file: {problem}", path.display())]
    NotNifti {
        /// The file.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// The text header of an NRRD or MetaImage file says too little, or what can't be.
    #[error("the {format} header of '{}' can't be used: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// `NRRD` or `MetaImage`.
        format: &'static str,
        /// What was found and what was expected.
        problem: String,
    },
    /// The file is valid, but holds something that a CT volume or a mask is not.
    #[error("'{}' holds {found}, expected {expected}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What can be read.
        expected: &'static str,
    },
    /// The file ends before its last voxel.
    #[error("'{}' is truncated: it has {found} bytes of {part}, expected {expected}; copy or download it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// `header` or `voxels`.
        part: &'static str,
        /// Bytes found, after decompression.
        found: u64,
        /// Bytes that the header promises.
        expected: u64,
    },
    /// The compressed data are damaged.
    #[error("'{}' can't be decompressed: {reason}; copy or download it again", path.display())]
    Gzip {
        /// The file.
        path: PathBuf,
        /// The decoder's message.
        reason: io::Error,
    },
    /// The volume doesn't fit into memory.
    #[error("'{}' needs {bytes} bytes of memory for its voxels, which can't be had; use fewer --jobs", path.display())]
    OutOfMemory {
        /// The file.
        path: PathBuf,
        /// Bytes asked for.
        bytes: u64,
    },
    /// The header's affine maps no volume into space.
    #[error("'{}' has no usable geometry: {problem}", path.display())]
    Geometry {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A NIfTI file has two affines that mean different places.
    #[error(
        "'{}' has two affines that are {voxels:.1} voxels apart: sform {sform}, qform {qform}; \
         look which is right, then say `affine` = \"sform\" or \"qform\" (in the manifest, or --affine of predict)",
        path.display()
    )]
    AffinesDisagree {
        /// The file.
        path: PathBuf,
        /// The largest distance of a corner.
        voxels: f64,
        /// The one.
        sform: String,
        /// The other.
        qform: String,
    },
    /// A folder's DICOM files are no CT volume, or a path is one of them.
    #[error("'{}' {problem}", path.display())]
    Dicom {
        /// The folder, or the file that was given in its place.
        path: PathBuf,
        /// What was found, what was expected and what to do; slices are named by place and SOP instance UID.
        problem: String,
    },
    /// A folder has several CT series, or not the one that was asked for.
    #[error(
        "'{}' holds {found}; name the one that is meant, by what its line begins with or by its number: `series` in \
         the manifest, or --series of predict\n  {}",
        path.display(), list.join("\n  ")
    )]
    DicomSeries {
        /// The folder.
        path: PathBuf,
        /// How many there are, and what was expected.
        found: String,
        /// UID, number, description, kernel, number of slices, size and spacing of each; where names are hidden, a pseudonym in the
        /// UID's place and no description.
        list: Vec<String>,
    },
    /// The values can't be those of a CT.
    #[error("'{}' {problem}", path.display())]
    Intensity {
        /// The file.
        path: PathBuf,
        /// What they are, what was expected and what to do.
        problem: String,
    },
    /// A slice doesn't fit into a store of native size.
    #[error(
        "'{}' has slices of {} x {} pixels, which do not fit into the store's {size} x {size}; prepare the data set anew \
         (--redo), or give a --size that scales",
        path.display(), slice[0], slice[1]
    )]
    SliceTooLarge {
        /// The file.
        path: PathBuf,
        /// Rows and columns.
        slice: [usize; 2],
        /// The store's side.
        size: usize,
    },
    /// An image and a mask don't lie on the same grid.
    #[error(
        "image '{}' and mask '{}' differ in {what}: {found}; \
         resample the mask onto the image's grid or correct the header that is wrong",
        image.display(), mask.display()
    )]
    GeometryMismatch {
        /// The image's file.
        image: PathBuf,
        /// The mask's file.
        mask: PathBuf,
        /// `shape`, `spacing (mm)` or `affine`.
        what: &'static str,
        /// The image's value and the mask's, how far apart they are and what is allowed.
        found: String,
    },
    /// A mask has a value that is no label.
    #[error("mask '{}' has the value {value}, {expected}", path.display())]
    MaskValue {
        /// The mask's file.
        path: PathBuf,
        /// The first such value.
        value: f64,
        /// What was expected, with the way out.
        expected: String,
    },
    /// There is no manifest of that name.
    #[error("there is no manifest '{name}': {hint}")]
    ManifestNotFound {
        /// What was asked for.
        name: String,
        /// Where it was looked for and what is there.
        hint: String,
    },
    /// A manifest does not say what it should.
    #[error("manifest '{}': {problem}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing in the data directory looks like the manifest's images.
    #[error("no file in '{}' matches '{pattern}', which the manifest '{manifest}' expects{advice}", data.display())]
    NoCases {
        /// The data directory.
        data: PathBuf,
        /// The image pattern.
        pattern: String,
        /// The manifest's name.
        manifest: String,
        /// How to get the data, if the manifest says so.
        advice: String,
    },
    /// A case can't be prepared, and nothing else is to be prepared then.
    #[error("case '{case}' can't be prepared, and --strict stops at the first: {reason}")]
    Strict {
        /// The case.
        case: String,
        /// Why.
        reason: String,
    },
    /// A case has two files where it should have one.
    #[error("case '{case}': it has two {kind}s: '{}' and '{}'", first.display(), second.display())]
    TwoFiles {
        /// The case.
        case: String,
        /// `image` or `mask`.
        kind: &'static str,
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A case has an image without a mask, and neither the manifest nor a presence list says that this may be.
    #[error("case '{case}': it has no mask, expected one by the manifest's '{pattern}'{advice}")]
    NoMask {
        /// The case.
        case: String,
        /// The masks' pattern.
        pattern: String,
        /// What to do where it has none at all.
        advice: &'static str,
    },
    /// A list of image-level labels does not say what it should.
    #[error("presence list '{}', line {line}: {problem}", path.display())]
    PresenceList {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What was found and what was expected.
        problem: String,
    },
    /// A case has a mask without an image.
    #[error("case '{case}': it has a mask ('{}'), but no image, expected one by the manifest's '{pattern}'", mask.display())]
    NoImage {
        /// The case.
        case: String,
        /// The mask's file.
        mask: PathBuf,
        /// The images' pattern.
        pattern: String,
    },
    /// A case's patient can't be told.
    #[error("case '{case}': {problem}")]
    Case {
        /// The case.
        case: String,
        /// What was found and what was expected.
        problem: String,
    },
}

impl IngestError {
    /// Whether the disk is full, so that trying other cases is pointless.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_disk_full())
    }

    /// The same error with other names of the case and of its files, for a text that must not tell the true ones. Every
    /// field that can name a file of the data set is exchanged here; no other field may quote one.
    pub(crate) fn renamed(mut self, name: &dyn Fn(&str) -> String, file: &dyn Fn(&Path) -> PathBuf) -> Self {
        match &mut self {
            // These name the store's files, the manifest's, or what the user has typed.
            Self::Store(_)
            | Self::ManifestNotFound { .. }
            | Self::Manifest { .. }
            | Self::PresenceList { .. }
            | Self::NoCases { .. }
            | Self::Strict { .. } => {}
            Self::Io { path, .. }
            | Self::NotNifti { path, .. }
            | Self::Header { path, .. }
            | Self::Unsupported { path, .. }
            | Self::Truncated { path, .. }
            | Self::Gzip { path, .. }
            | Self::OutOfMemory { path, .. }
            | Self::Geometry { path, .. }
            | Self::AffinesDisagree { path, .. }
            | Self::Dicom { path, .. }
            | Self::DicomSeries { path, .. }
            | Self::Intensity { path, .. }
            | Self::SliceTooLarge { path, .. }
            | Self::MaskValue { path, .. } => *path = file(path),
            Self::GeometryMismatch { image: first, mask: second, .. } => {
                *first = file(first);
                *second = file(second);
            }
            Self::TwoFiles { case, first, second, .. } => {
                *case = name(case);
                *first = file(first);
                *second = file(second);
            }
            Self::NoImage { case, mask, .. } => {
                *case = name(case);
                *mask = file(mask);
            }
            Self::NoMask { case, .. } | Self::Case { case, .. } => *case = name(case),
        }
        self
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |reason| Self::Io { action, path, reason }
    }
}
