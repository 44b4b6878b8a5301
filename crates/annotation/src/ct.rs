//! The CT that a segmentation belongs to.

use crate::AnnotationError;
use crate::header::{Header, is_uid};
use ct_ingest::{
    DicomPixels, Geometry, GeometryTolerance, Grid, IngestError, Placement, ReadOptions, open_dicom, open_dicom_series,
    sha256_of_bytes,
};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use std::path::{Path, PathBuf};

/// What a segmentation must fit.
#[derive(Clone, Copy, Debug)]
pub struct Ct<'a> {
    /// Its voxels.
    pub grid: Grid<'a>,
    /// SeriesInstanceUID, where the CT is DICOM: what refers to another series is refused.
    pub series: Option<&'a str>,
    /// SHA-256 (hexadecimal) of it, where a store remembers no more.
    pub series_sha256: Option<&'a str>,
    /// FrameOfReferenceUID, where the CT is DICOM: what has another one is refused.
    pub frame_of_reference: Option<&'a str>,
    /// How far from the CT's voxels those of the segmentation may be.
    pub tolerance: GeometryTolerance,
}

impl<'a> Ct<'a> {
    /// A CT of which nothing but its grid is known.
    pub fn of_grid(grid: Grid<'a>) -> Self {
        Self {
            grid,
            series: None,
            series_sha256: None,
            frame_of_reference: None,
            tolerance: GeometryTolerance::default(),
        }
    }

    pub(crate) fn voxels(&self) -> usize {
        self.grid.shape.iter().product()
    }

    /// Whether one of the series that a file refers to is the CT's; a file that refers to none may be anyone's.
    pub(crate) fn check_series(&self, path: &Path, found: &[String]) -> Result<(), AnnotationError> {
        let is_its = |uid: &String| match (self.series, self.series_sha256) {
            (Some(expected), _) => uid == expected,
            (None, Some(expected)) => sha256_of_bytes(uid.as_bytes()) == expected,
            (None, None) => true,
        };
        if found.is_empty() || found.iter().any(is_its) {
            return Ok(());
        }
        let expected = self.series.map_or_else(|| "another one".to_owned(), |uid| format!("the series {uid}"));
        let (path, ct) = (path.to_path_buf(), self.grid.path.to_path_buf());
        Err(AnnotationError::OtherSeries { path, ct, found: found.join(", "), expected })
    }

    pub(crate) fn check_frame_of_reference(&self, path: &Path, found: Option<&str>) -> Result<(), AnnotationError> {
        match (self.frame_of_reference, found) {
            (Some(expected), Some(found)) if expected != found => {
                let (path, ct) = (path.to_path_buf(), self.grid.path.to_path_buf());
                let (found, expected) = (found.to_owned(), expected.to_owned());
                Err(AnnotationError::OtherFrameOfReference { path, ct, found, expected })
            }
            _ => Ok(()),
        }
    }

    /// Where a part of the grid lies in it; `what` is its name in the error.
    pub(crate) fn place(&self, part: Grid<'_>, what: &str) -> Result<Placement, AnnotationError> {
        Placement::of(part, self.grid, self.tolerance).ok_or_else(|| {
            let (path, ct) = (part.path.to_path_buf(), self.grid.path.to_path_buf());
            let corner = |index: [usize; 3]| {
                let at = self.grid.geometry.to_voxel(part.geometry.to_mm(index.map(|i| i as f64)));
                let [x, y, z] = at.map(|i| (i * 100.0).round() / 100.0 + 0.0);
                format!("({x}, {y}, {z})")
            };
            let last = part.shape.map(|length| length - 1);
            let found = format!(
                "{what} has the shape {:?} and the affine {}, which reaches from the CT's voxel {} to {}",
                part.shape,
                part.geometry,
                corner([0; 3]),
                corner(last)
            );
            let expected = format!("the shape {:?} and the affine {}", self.grid.shape, self.grid.geometry);
            AnnotationError::OtherGrid { path, ct, found, expected, tolerance: self.tolerance.voxels() }
        })
    }
}

/// A CT that is a DICOM series, with all that a segmentation of it must repeat.
pub struct CtSeries {
    folder: PathBuf,
    shape: [usize; 3],
    geometry: Geometry,
    series: Option<String>,
    frame_of_reference: Option<String>,
    tolerance: GeometryTolerance,
    files: Vec<PathBuf>,
    /// Of the first slice, without pixels.
    pub(crate) header: InMemDicomObject,
    pub(crate) slices: Vec<SourceSlice>,
}

/// A slice, as others refer to it.
pub(crate) struct SourceSlice {
    pub class: Option<String>,
    pub instance: Option<String>,
    /// ImagePositionPatient, mm.
    pub position: [f64; 3],
}

impl CtSeries {
    /// Reads the headers of a series: the one that the options name, or the folder's only one.
    ///
    /// # Errors
    /// Those of [`ct_ingest::read_volume`].
    pub fn open(folder: &Path, options: &ReadOptions) -> Result<Self, AnnotationError> {
        let series = open_dicom_series(folder, options)?;
        let mut header = None;
        let mut slices = Vec::with_capacity(series.files.len());
        for file in &series.files {
            // Their own names may be the patient's.
            let object = open_dicom(file, DicomPixels::Left).ok().flatten().ok_or_else(|| changed(folder))?;
            // Programs that anonymise empty the one and forget the other.
            let of_file = |text: &str| Some(text.trim_matches([' ', '\0']).to_owned()).filter(|text| is_uid(text));
            let class = of_file(object.meta().media_storage_sop_class_uid());
            let instance = of_file(object.meta().media_storage_sop_instance_uid());
            let object = object.into_inner();
            slices.push(SourceSlice {
                class: object.uid(tags::SOP_CLASS_UID).or(class),
                instance: object.uid(tags::SOP_INSTANCE_UID).or(instance),
                position: object.vector(tags::IMAGE_POSITION_PATIENT).ok_or_else(|| changed(folder))?,
            });
            header.get_or_insert(object);
        }
        let header = header.ok_or_else(|| changed(folder))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            shape: series.shape,
            geometry: series.geometry,
            series: header.uid(tags::SERIES_INSTANCE_UID),
            frame_of_reference: header.uid(tags::FRAME_OF_REFERENCE_UID),
            tolerance: options.geometry_tolerance,
            files: series.files,
            header,
            slices,
        })
    }

    /// Its voxels: columns, rows, slices.
    pub fn grid(&self) -> Grid<'_> {
        Grid { path: &self.folder, shape: self.shape, geometry: &self.geometry }
    }

    /// What segmentations must fit, within the tolerance that the series was opened with.
    pub fn ct(&self) -> Ct<'_> {
        Ct {
            series: self.series.as_deref(),
            series_sha256: None,
            frame_of_reference: self.frame_of_reference.as_deref(),
            tolerance: self.tolerance,
            grid: self.grid(),
        }
    }

    /// What a person should know of what is written for it: which UIDs its slices lack, as anonymised ones may. What is written then
    /// has new ones in their places, or refers to nothing, and no program can tell by them which CT it belongs to.
    pub fn doubts(&self) -> Vec<String> {
        let uid = |tag| self.header.uid(tag).is_none();
        let of_slices = self.slices.iter().any(|slice| slice.class.is_none() || slice.instance.is_none());
        let lacks = [
            (uid(tags::STUDY_INSTANCE_UID), "StudyInstanceUID"),
            (self.series.is_none(), "SeriesInstanceUID"),
            (self.frame_of_reference.is_none(), "FrameOfReferenceUID"),
            (of_slices, "SOPInstanceUID"),
        ];
        let names: Vec<&str> = lacks.into_iter().filter(|(lacks, _)| *lacks).map(|(_, name)| name).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let names = names.join(", ");
        vec![format!(
            "its slices have no valid {names}: a DICOM segmentation of it can't be traced to it by other programs"
        )]
    }

    /// Where the pixels of a slice are, by its own header: columns and rows to left, posterior, superior in mm.
    pub(crate) fn pixels_of(&self, slice: usize) -> Result<impl Fn([f64; 2]) -> [f64; 3] + use<>, AnnotationError> {
        let directions = self.header.vector::<6>(tags::IMAGE_ORIENTATION_PATIENT);
        let spacing = self.header.vector::<2>(tags::PIXEL_SPACING);
        let (Some([a, b, c, d, e, f]), Some([between_rows, between_columns])) = (directions, spacing) else {
            return Err(changed(&self.folder));
        };
        let (position, row, column) = (self.slices[slice].position, [a, b, c], [d, e, f]);
        Ok(move |[x, y]: [f64; 2]| {
            std::array::from_fn(|i| position[i] + x * between_columns * row[i] + y * between_rows * column[i])
        })
    }

    /// The folder and all files of the series: nothing may be written over them.
    pub(crate) fn inputs(&self) -> Vec<&Path> {
        self.files.iter().chain([&self.folder]).map(PathBuf::as_path).collect()
    }
}

fn changed(folder: &Path) -> AnnotationError {
    let problem = "has a slice that can't be read any more: copy the series again".to_owned();
    IngestError::Dicom { path: folder.to_path_buf(), problem }.into()
}
