//! Where slices lie: in order along their normal, each in its place, and the affine that this makes.
//!
//! Invariant: a series passes only if its slices are the planes of one grid. File names and instance numbers say nothing.

use super::header::{Image, Plane, Rescale};
use super::{count, problem};
use crate::IngestError;
use std::path::Path;

/// Two gaps are equal within this, mm, and this part of the median gap: positions are written with few digits.
const GAP_MM: f64 = 0.01;
const GAP_PART: f64 = 0.01;

/// A slice may be this part of a pixel, or of the slices' distance, beside the line from the first to the last: what
/// rounding of each gap may add up to.
const BESIDE_PART: f64 = 0.1;

/// Direction cosines and pixel spacings (relative) are equal within this: a twentieth of a pixel over 512.
const SAME: f64 = 1e-4;

/// How many places a message lists.
const MOST_LISTED: usize = 5;

/// Slices in order, and where they are.
pub(super) struct Placed {
    pub slices: Vec<Image<Plane>>,
    /// Voxel index (column, row, slice) to right, anterior, superior.
    pub affine: [[f64; 4]; 4],
    pub warnings: Vec<String>,
}

/// Puts the images of a series in order and finds what keeps them from being a volume.
pub(super) fn place(folder: &Path, images: Vec<Image<Plane>>) -> Result<Placed, IngestError> {
    let error = |what: String| problem(folder, what);
    let mut warnings = Vec::new();
    same_frame(&images).map_err(error)?;
    let normal = normal(&images[0].plane).ok_or_else(|| {
        problem(folder, format!("has slices whose rows and columns run the same way ({})", images[0].name()))
    })?;
    let at = |image: &Image<Plane>| dot(image.plane.position, normal);
    let mut slices = images;
    slices.sort_by(|a, b| at(a).total_cmp(&at(b)).then_with(|| a.sha256.cmp(&b.sha256)));
    drop_copies(&mut slices, &mut warnings);
    let positions: Vec<f64> = slices.iter().map(at).collect();
    let axis = if let [one] = slices.as_slice() {
        let step = one.plane.stated_step.ok_or_else(|| {
            error(format!("has one slice only ({}), and it does not say how thick it is", one.name()))
        })?;
        warnings.push(format!("it has one slice only; its header says that slices are {step} mm apart"));
        normal.map(|component| component * step)
    } else {
        even_gaps(&slices, &positions).map_err(error)?;
        slice_axis(&slices, normal).map_err(error)?
    };
    doubts(&slices, &mut warnings);
    let affine = affine(&slices[0].plane, axis);
    Ok(Placed { slices, affine, warnings })
}

/// The place of a position along the slices' normal, mm.
pub(super) fn along_normal(plane: &Plane, position: [f64; 3]) -> f64 {
    normal(plane).map_or(0.0, |normal| dot(position, normal))
}

/// The middle one of numbers, or of an even number of them the lower one of the two.
pub(super) fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len().saturating_sub(1) / 2).copied()
}

/// All slices have one patient, frame of reference, size, pixel spacing and direction.
fn same_frame(images: &[Image<Plane>]) -> Result<(), String> {
    let first = &images[0];
    for image in images {
        let (a, b) = (&first.plane, &image.plane);
        let spacing = (0..2).all(|i| (a.spacing[i] - b.spacing[i]).abs() <= SAME * a.spacing[i]);
        let turned =
            a.directions.as_flattened().iter().zip(b.directions.as_flattened()).any(|(a, b)| (a - b).abs() > SAME);
        let differ = if (a.rows, a.columns) != (b.rows, b.columns) {
            format!("in size: {} x {} and {} x {} pixels", a.rows, a.columns, b.rows, b.columns)
        } else if !spacing {
            format!("in pixel spacing: {:?} and {:?} mm", a.spacing, b.spacing)
        } else if turned {
            format!("in orientation: {:?} and {:?}", a.directions, b.directions)
        } else if a.frame_of_reference != b.frame_of_reference {
            "in their frame of reference, so that their positions can't be compared".to_owned()
        } else if first.patient != image.patient {
            "in the patient's ID".to_owned()
        } else {
            continue;
        };
        let (a, b) = (first.name(), image.name());
        return Err(format!(
            "has a series whose slices differ {differ} ({a} and {b}); they are no volume: take one of the kinds out"
        ));
    }
    Ok(())
}

/// The same file twice is no slice more.
fn drop_copies(slices: &mut Vec<Image<Plane>>, warnings: &mut Vec<String>) {
    let before = slices.len();
    slices.dedup_by(|a, b| a.instance.is_some() && a.instance == b.instance && a.sha256 == b.sha256);
    if slices.len() < before {
        let copies = count(before - slices.len(), "slice is there twice and was", "slices are there twice and were");
        warnings.push(format!("{copies} taken once"));
    }
}

fn even_gaps(slices: &[Image<Plane>], positions: &[f64]) -> Result<(), String> {
    let gaps: Vec<f64> = positions.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let between = |index: usize| {
        let (from, to) = (positions[index], positions[index + 1]);
        format!("between slices {} ({from:.2} mm) and {} ({to:.2} mm)", index + 1, index + 2)
    };
    let doubled: Vec<String> = (0..gaps.len())
        .filter(|&index| gaps[index] <= GAP_MM)
        .map(|index| {
            format!("at {:.2} mm ({} and {})", positions[index], slices[index].name(), slices[index + 1].name())
        })
        .collect();
    if !doubled.is_empty() {
        return Err(format!(
            "has a series of {} with several in one place: {}; it may hold several phases or reconstructions: \
             put each into a folder of its own",
            count(slices.len(), "slice", "slices"),
            listed(&doubled)
        ));
    }
    let usual = median(gaps.clone()).unwrap_or_default();
    let tolerance = GAP_MM + GAP_PART * usual;
    let odd: Vec<usize> = (0..gaps.len()).filter(|&index| (gaps[index] - usual).abs() > tolerance).collect();
    if odd.is_empty() {
        return Ok(());
    }
    let steps = |index: usize| (gaps[index] / usual).round();
    let whole = |index: &usize| {
        steps(*index) >= 2.0 && (gaps[*index] - steps(*index) * usual).abs() <= tolerance * steps(*index)
    };
    if odd.iter().all(whole) {
        let missing: usize = odd.iter().map(|&index| steps(index) as usize - 1).sum();
        let places: Vec<String> = odd.iter().map(|&index| between(index)).collect();
        return Err(format!(
            "has a series in which {} missing (slices are {usual:.2} mm apart): {}; copy the series again",
            count(missing, "slice is", "slices are"),
            listed(&places)
        ));
    }
    let places: Vec<String> = odd.iter().map(|&index| format!("{:.3} mm {}", gaps[index], between(index))).collect();
    Err(format!(
        "has a series whose slices are unevenly spaced: mostly {usual:.3} mm apart, but {}; \
         resample it to even slices, or take out those that don't belong to it",
        listed(&places)
    ))
}

/// From a slice to the next: the way from the first to the last, which every slice has to be on.
fn slice_axis(slices: &[Image<Plane>], normal: [f64; 3]) -> Result<[f64; 3], String> {
    let (first, last) = (&slices[0].plane, &slices[slices.len() - 1].plane);
    let steps = (slices.len() - 1) as f64;
    let axis: [f64; 3] = std::array::from_fn(|i| (last.position[i] - first.position[i]) / steps);
    let pixel = first.spacing[0].min(first.spacing[1]);
    let step = dot(axis, normal);
    for (index, slice) in slices.iter().enumerate() {
        let beside: [f64; 3] =
            std::array::from_fn(|i| slice.plane.position[i] - first.position[i] - index as f64 * axis[i]);
        let along = dot(beside, normal);
        let across = (dot(beside, beside) - along * along).max(0.0).sqrt();
        if across > GAP_MM + BESIDE_PART * pixel || along.abs() > GAP_MM + BESIDE_PART * step {
            return Err(format!(
                "has a series whose slices are not on one line: slice {} of {} ({}) is {:.2} mm from where its neighbours \
                 put it; resample it, or take out those that don't belong to it",
                index + 1,
                slices.len(),
                slice.name(),
                across.hypot(along)
            ));
        }
    }
    Ok(axis)
}

/// What is doubtful about the values.
fn doubts(slices: &[Image<Plane>], warnings: &mut Vec<String>) {
    if slices.iter().any(|slice| slice.plane.rescale == Rescale::Missing) {
        warnings.push("it has no rescale slope and intercept; its values are taken as HU".to_owned());
    }
    if slices.iter().any(|slice| slice.plane.rescale == Rescale::OfOtherType) {
        warnings.push("its rescale type says that its values are no HU; they are taken as HU".to_owned());
    }
}

/// DICOM's left and posterior are NIfTI's right and anterior with the other sign.
fn affine(first: &Plane, axis: [f64; 3]) -> [[f64; 4]; 4] {
    let [row, column] = first.directions;
    let along_row = row.map(|component| component * first.spacing[1]);
    let along_column = column.map(|component| component * first.spacing[0]);
    let of = |world: usize, sign: f64| {
        [along_row, along_column, axis, first.position].map(|vector| {
            let value = sign * vector[world];
            // No -0, which reads like a mistake.
            if value == 0.0 { 0.0 } else { value }
        })
    };
    [of(0, -1.0), of(1, -1.0), of(2, 1.0), [0.0, 0.0, 0.0, 1.0]]
}

/// The slices' unit normal; `None` where the directions of rows and columns are the same.
fn normal(plane: &Plane) -> Option<[f64; 3]> {
    let [a, b] = plane.directions;
    let cross = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    let length = dot(cross, cross).sqrt();
    (length > 0.5).then(|| cross.map(|component| component / length))
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn listed(places: &[String]) -> String {
    let shown = places[..places.len().min(MOST_LISTED)].join(", ");
    match places.len().saturating_sub(MOST_LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
