//! RTSTRUCT onto a CT's grid.
//!
//! Invariant: a contour is on the slice that its points lie on; which image it refers to says nothing.

use super::Polygon;
use super::fill::fill;
use crate::header::Header;
use crate::names::Named;
use crate::names::chosen;
use crate::segmentation::{ReadSegment, Segmentation};
use crate::{AnnotationError, Ct};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use std::collections::BTreeMap;
use std::path::Path;

/// A contour's points may be so far outside of the outermost pixels' edges, in pixels: the noise of decimal numbers.
const BESIDE: f64 = 0.01;

/// A contour as points in the CT's voxels, which may be fractions.
struct Contour {
    /// Counted from 1.
    number: usize,
    points: Vec<[f64; 3]>,
}

/// Reads the named regions of interest.
pub(crate) fn read(
    path: &Path,
    object: &InMemDicomObject,
    names: &[&str],
    ct: &Ct<'_>,
) -> Result<Segmentation, AnnotationError> {
    ct.check_series(path, &referenced_series(object))?;
    let regions = object.items(tags::STRUCTURE_SET_ROI_SEQUENCE);
    let named = |item: &InMemDicomObject| Named { name: item.text(tags::ROI_NAME).unwrap_or_default(), meaning: None };
    let all: Vec<Named> = regions.iter().map(named).collect();
    let mut read = Segmentation { segments: Vec::new(), warnings: Vec::new() };
    for place in chosen(path, names, &all)? {
        let name = all[place].name.clone();
        let region = &regions[place];
        ct.check_frame_of_reference(path, region.uid(tags::REFERENCED_FRAME_OF_REFERENCE_UID).as_deref())?;
        let region = Region { path, ct, name: &name };
        let contours = region.contours(object, regions[place].whole(tags::ROI_NUMBER), &mut read.warnings)?;
        let mask = region.mask(&contours)?;
        read.segments.push(ReadSegment { name, mask });
    }
    Ok(read)
}

/// The series that it refers to.
fn referenced_series(object: &InMemDicomObject) -> Vec<String> {
    let frames = object.items(tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE).iter();
    let studies = frames.flat_map(|frame| frame.items(tags::RT_REFERENCED_STUDY_SEQUENCE));
    let series = studies.flat_map(|study| study.items(tags::RT_REFERENCED_SERIES_SEQUENCE));
    series.filter_map(|series| series.uid(tags::SERIES_INSTANCE_UID)).collect()
}

/// A region of interest that is being read.
struct Region<'a> {
    path: &'a Path,
    ct: &'a Ct<'a>,
    name: &'a str,
}

impl Region<'_> {
    fn error(&self, number: usize, problem: String) -> AnnotationError {
        let (path, ct) = (self.path.to_path_buf(), self.ct.grid.path.to_path_buf());
        AnnotationError::Contour { path, ct, name: self.name.escape_debug().to_string(), number, problem }
    }

    /// The contours of the region with that number.
    fn contours(
        &self,
        object: &InMemDicomObject,
        region: Option<u32>,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Contour>, AnnotationError> {
        let of_region =
            |item: &&InMemDicomObject| region.is_some() && item.whole(tags::REFERENCED_ROI_NUMBER) == region;
        let items = object.items(tags::ROI_CONTOUR_SEQUENCE).iter().filter(of_region);
        let mut contours = Vec::new();
        let mut small = 0;
        for (place, item) in items.flat_map(|item| item.items(tags::CONTOUR_SEQUENCE)).enumerate() {
            let number = place + 1;
            let error = |problem: String| self.error(number, problem);
            let kind = item.text(tags::CONTOUR_GEOMETRIC_TYPE).unwrap_or_default();
            if kind != "CLOSED_PLANAR" && kind != "CLOSEDPLANAR_XOR" {
                let kind: String = kind.chars().filter(|c| c.is_ascii_uppercase() || *c == '_').collect();
                return Err(error(format!(
                    "is of the type '{kind}', expected CLOSED_PLANAR: close it in the program that drew it, or take it out of the region"
                )));
            }
            let numbers =
                item.numbers(tags::CONTOUR_DATA).ok_or_else(|| error("has no valid ContourData".to_owned()))?;
            let (points, rest) = numbers.as_chunks::<3>();
            let stated = item.whole(tags::NUMBER_OF_CONTOUR_POINTS).map(|number| number as usize);
            if !rest.is_empty() || stated.is_some_and(|stated| stated != points.len()) {
                return Err(error(format!(
                    "has {} coordinates, expected three of each of {} points: it was cut",
                    numbers.len(),
                    stated.map_or_else(|| "its".to_owned(), |stated| stated.to_string())
                )));
            }
            if points.len() < 3 {
                small += 1;
                continue;
            }
            // DICOM's left and posterior are right and anterior with the other sign.
            let geometry = self.ct.grid.geometry;
            let points = points.iter().map(|[x, y, z]| geometry.to_voxel([-x, -y, *z])).collect();
            contours.push(Contour { number, points });
        }
        if small > 0 {
            warnings.push(format!(
                "'{}': {small} contours of one or two points, which enclose nothing",
                self.name.escape_debug()
            ));
        }
        if contours.is_empty() {
            warnings.push(format!("'{}' has no contours: its mask is empty", self.name.escape_debug()));
        }
        Ok(contours)
    }

    /// The pixels inside, slice by slice.
    fn mask(&self, contours: &[Contour]) -> Result<Vec<u8>, AnnotationError> {
        let shape = self.ct.grid.shape;
        let mut mask = vec![0; self.ct.voxels()];
        let Some(axis) = slice_axis(contours) else { return Ok(mask) };
        let [across, down] = [[1, 2], [0, 2], [0, 1]][axis];
        let mut slices: BTreeMap<usize, Vec<Polygon>> = BTreeMap::new();
        for contour in contours {
            let slice = self.slice(contour, axis)?;
            for axis in [across, down] {
                let ends = -0.5 - BESIDE..=shape[axis] as f64 - 0.5 + BESIDE;
                if let Some(point) = contour.points.iter().find(|point| !ends.contains(&point[axis])) {
                    return Err(self.error(
                        contour.number,
                        format!(
                            "reaches out of the CT, to its voxel {}; the CT has the shape {shape:?}: take the structure set of this CT",
                            shown(*point)
                        ),
                    ));
                }
            }
            let polygon = contour.points.iter().map(|point| [point[across], point[down]]).collect();
            slices.entry(slice).or_default().push(polygon);
        }
        let strides = [1, shape[0], shape[0] * shape[1]];
        for (slice, polygons) in slices {
            fill(&polygons, [shape[across], shape[down]], |column, row| {
                mask[slice * strides[axis] + column * strides[across] + row * strides[down]] = 1;
            });
        }
        Ok(mask)
    }

    /// The slice that all points of a contour are on.
    fn slice(&self, contour: &Contour, axis: usize) -> Result<usize, AnnotationError> {
        let [low, high] = ends(contour, axis);
        let slice = f64::midpoint(low, high).round();
        let off = (low - slice).abs().max((high - slice).abs());
        let (slices, allowed) = (self.ct.grid.shape[axis], self.ct.tolerance.voxels());
        if off > allowed {
            let at = if high - low > allowed { format!("from {low:.2} to {high:.2}") } else { format!("at {low:.2}") };
            return Err(self.error(
                contour.number,
                format!(
                    "lies {at} among the CT's {slices} slices (counted from 0), {off:.2} beside the nearest, expected at most {allowed}: draw it \
                     on the slices of this CT, or resample it there"
                ),
            ));
        }
        if !(0.0..slices as f64).contains(&slice) {
            return Err(self.error(
                contour.number,
                format!("lies at {slice} among the CT's {slices} slices (counted from 0), outside of them: take the structure set of this CT"),
            ));
        }
        Ok(slice as usize)
    }
}

/// The axis of the CT's voxels that contours are flat along.
fn slice_axis(contours: &[Contour]) -> Option<usize> {
    let height = |axis: usize| {
        contours.iter().map(|contour| ends(contour, axis)).map(|[low, high]| high - low).fold(0.0, f64::max)
    };
    (!contours.is_empty()).then(|| (0..3).min_by(|&a, &b| height(a).total_cmp(&height(b))).unwrap_or(2))
}

fn ends(contour: &Contour, axis: usize) -> [f64; 2] {
    let along = contour.points.iter().map(|point| point[axis]);
    along.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| [low.min(value), high.max(value)])
}

fn shown(point: [f64; 3]) -> String {
    let [x, y, z] = point.map(|value| (value * 100.0).round() / 100.0 + 0.0);
    format!("({x}, {y}, {z})")
}
