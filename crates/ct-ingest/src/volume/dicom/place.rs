//! Where slices lie: in order along their normal, each in its place, and the affine that this makes.
//!
//! Invariant: a series passes only if its slices are the planes of one grid. File names and instance numbers say nothing.

use super::header::{Image, Plane, Rescale};
use super::{count, problem};
use crate::{GeometryTolerance, IngestError};
use std::path::Path;

/// Slices are in one place if they are no further apart than this, mm.
const ONE_PLACE_MM: f64 = 0.01;

/// A gap is no other gap's rounding if it is this many times as wide, or as narrow: where one slice is missing it is twice as
/// wide, and where positions are whole millimetres of 2.5 it is at most 1.5 times as wide. Whatever the tolerance.
const OTHER_GAP: f64 = 1.75;

/// A slice may be so many times further beside the row, in pixels, than along it, in slice distances: positions are rounded
/// alike in all directions, and pixels are smaller.
const BESIDE: f64 = 2.0;

/// Direction cosines and pixel spacings (relative) are equal within this: a twentieth of a pixel over 512.
const SAME: f64 = 1e-4;

/// How many places a message lists.
const MOST_LISTED: usize = 5;

/// Slices in order, and where they are.
pub(super) struct Placed {
    pub slices: Vec<Image<Plane>>,
    /// Voxel index (column, row, slice) to right, anterior, superior.
    pub affine: [[f64; 4]; 4],
    /// The least tolerance that takes them for the planes of one grid.
    pub apart_voxels: f64,
    pub warnings: Vec<String>,
}

/// Puts the images of a series in order and finds what keeps them from being a volume. Slices may be `tolerance` of their
/// distance from the even row that fits best.
pub(super) fn place(folder: &Path, images: Vec<Image<Plane>>, tolerance: f64) -> Result<Placed, IngestError> {
    let error = |what: String| problem(folder, what);
    let mut warnings = Vec::new();
    same_frame(&images).map_err(error)?;
    let normal = normal(&images[0].plane).ok_or_else(|| {
        problem(folder, format!("has slices whose rows and columns run the same way ({})", images[0].name))
    })?;
    let at = |image: &Image<Plane>| dot(image.plane.position, normal);
    let mut slices = images;
    slices.sort_by(|a, b| at(a).total_cmp(&at(b)).then_with(|| a.sha256.cmp(&b.sha256)));
    drop_copies(&mut slices, &mut warnings);
    let positions: Vec<f64> = slices.iter().map(at).collect();
    let (axis, apart_voxels) = if let [one] = slices.as_slice() {
        let step = one
            .plane
            .stated_step
            .ok_or_else(|| error(format!("has one slice only ({}), and it does not say how thick it is", one.name)))?;
        warnings.push(format!("it has one slice only; its header says that slices are {step} mm apart"));
        (normal.map(|component| component * step), 0.0)
    } else {
        let apart = Row { slices: &slices, positions: &positions, tolerance }.check().map_err(error)?;
        let (first, last) = (&slices[0].plane.position, &slices[slices.len() - 1].plane.position);
        (std::array::from_fn(|i| (last[i] - first[i]) / (slices.len() - 1) as f64), apart)
    };
    doubts(&slices, &mut warnings);
    let affine = affine(&slices[0].plane, axis);
    Ok(Placed { slices, affine, apart_voxels, warnings })
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
        let (a, b) = (&first.name, &image.name);
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

/// Slices in order, and their positions along their normal, mm.
struct Row<'a> {
    slices: &'a [Image<Plane>],
    positions: &'a [f64],
    tolerance: f64,
}

impl Row<'_> {
    /// The least tolerance with which the slices are the planes of one grid, if they are; else what they are.
    fn check(&self) -> Result<f64, String> {
        let gaps: Vec<f64> = self.positions.windows(2).map(|pair| pair[1] - pair[0]).collect();
        self.check_doubled(&gaps)?;
        let along = self.check_even(&gaps)?;
        Ok(along.max(self.check_straight()?))
    }

    fn between(&self, gap: usize) -> String {
        let (from, to) = (self.positions[gap], self.positions[gap + 1]);
        format!("between slices {} ({from:.2} mm) and {} ({to:.2} mm)", gap + 1, gap + 2)
    }

    fn check_doubled(&self, gaps: &[f64]) -> Result<(), String> {
        let pair = |gap: usize| {
            format!("at {:.2} mm ({} and {})", self.positions[gap], self.slices[gap].name, self.slices[gap + 1].name)
        };
        let doubled: Vec<String> = (0..gaps.len()).filter(|&gap| gaps[gap] <= ONE_PLACE_MM).map(pair).collect();
        if doubled.is_empty() {
            return Ok(());
        }
        Err(format!(
            "has a series of {} with several in one place: {}; it may hold several phases or reconstructions: \
             put each into a folder of its own",
            count(self.slices.len(), "slice", "slices"),
            listed(&doubled)
        ))
    }

    /// The tolerance that it takes.
    fn check_even(&self, gaps: &[f64]) -> Result<f64, String> {
        let typical = median(gaps.to_vec()).unwrap_or_default();
        let wide: Vec<usize> = (0..gaps.len()).filter(|&gap| gaps[gap] > OTHER_GAP * typical).collect();
        let others = gaps.iter().filter(|&&gap| gap <= OTHER_GAP * typical);
        let usual = others.clone().sum::<f64>() / others.count() as f64;
        let steps = |gap: usize| (gaps[gap] / usual).round();
        let whole =
            |&gap: &usize| (gaps[gap] - steps(gap) * usual).abs() <= ONE_PLACE_MM + BESIDE * self.tolerance * usual;
        if !wide.is_empty() && wide.iter().all(whole) {
            let missing: usize = wide.iter().map(|&gap| steps(gap) as usize - 1).sum();
            let places: Vec<String> = wide.iter().map(|&gap| self.between(gap)).collect();
            return Err(format!(
                "has a series in which {} missing (slices are {usual:.2} mm apart): {}; copy the series again",
                count(missing, "slice is", "slices are"),
                listed(&places)
            ));
        }
        let off = distance_from_the_best_line(self.positions) / usual;
        let narrow = gaps.iter().any(|&gap| gap * OTHER_GAP < typical);
        if wide.is_empty() && !narrow && off <= self.tolerance {
            return Ok(off);
        }
        let odd = |gap: usize| (gaps[gap] - usual).abs();
        let mut worst: Vec<usize> = (0..gaps.len()).collect();
        worst.sort_by(|&a, &b| odd(b).total_cmp(&odd(a)));
        let shown = worst.iter().take(MOST_LISTED).filter(|&&gap| 2.0 * odd(gap) > odd(worst[0]));
        let places: Vec<String> = shown.map(|&gap| format!("{:.3} mm {}", gaps[gap], self.between(gap))).collect();
        let tolerance = self.tolerance;
        Err(format!(
            "has a series whose slices are unevenly spaced: mostly {usual:.3} mm apart, but {}; the even row that fits best \
             leaves slices {off:.3} of that distance beside their places, expected at most {tolerance}{}",
            places.join(", "),
            Self::way_out(wide.is_empty() && !narrow, off)
        ))
    }

    /// Whether no slice is beside the line of the others: the tolerance that it takes.
    fn check_straight(&self) -> Result<f64, String> {
        let first = &self.slices[0].plane;
        let allowed = BESIDE * self.tolerance;
        let mut needed = 0.0_f64;
        for (direction, pixel) in [(first.directions[0], first.spacing[1]), (first.directions[1], first.spacing[0])] {
            let at: Vec<f64> = self.slices.iter().map(|slice| dot(slice.plane.position, direction)).collect();
            let off = distance_from_the_best_line(&at) / pixel;
            needed = needed.max(off / BESIDE);
            if off > allowed {
                let bend = |slice: usize| (at[slice - 1] - 2.0 * at[slice] + at[slice + 1]).abs();
                let worst = (1..at.len() - 1).max_by(|&a, &b| bend(a).total_cmp(&bend(b))).unwrap_or_default();
                return Err(format!(
                    "has a series whose slices are not on one line, most of all slice {} of {} ({}): the straight row that fits \
                     best leaves slices {off:.3} pixels beside it, expected at most {allowed}{}",
                    worst + 1,
                    at.len(),
                    self.slices[worst].name,
                    Self::way_out(true, off / BESIDE)
                ));
            }
        }
        Ok(needed)
    }

    fn way_out(allowable: bool, off: f64) -> String {
        let most = GeometryTolerance::MOST_VOXELS;
        let rest = "resample the series to even slices, or take out those that don't belong to it";
        if allowable && off <= most {
            // Rounded up, so that what is said is enough.
            let needed = (off * 1000.0).ceil() / 1000.0;
            format!("; if that is good enough, say `geometry_tolerance` = {needed} in the manifest; else {rest}")
        } else {
            format!("; {rest}")
        }
    }
}

/// How far the furthest of some values is from the straight line (value against index) that makes this distance the least. Of
/// places that were rounded, no line's distance is more than the rounding's own; of values that are rounded to 0.1, it is at
/// most 0.05. A line from the first to the last may be twice as far.
fn distance_from_the_best_line(values: &[f64]) -> f64 {
    let width = |slope: f64| {
        let level = values.iter().enumerate().map(|(index, value)| value - slope * index as f64);
        let (least, most) =
            level.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), value| (a.min(value), b.max(value)));
        most - least
    };
    // The width is a convex function of the slope, and the best slope is among the gaps'.
    let gaps = values.windows(2).map(|pair| pair[1] - pair[0]);
    let (mut low, mut high) = gaps.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), gap| (a.min(gap), b.max(gap)));
    for _ in 0..100 {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if width(a) <= width(b) { high = b } else { low = a }
    }
    width(f64::midpoint(low, high)) / 2.0
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
pub(super) fn normal(plane: &Plane) -> Option<[f64; 3]> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_best_line_is_that_of_a_drawing() {
        let close = |values: &[f64], expected: f64| {
            let found = distance_from_the_best_line(values);
            assert!((found - expected).abs() < 1e-9, "{values:?}: {found}, {expected}");
        };
        close(&[3.0, 5.0, 7.0, 9.0], 0.0);
        // A triangle one high: the line is half way up.
        close(&[0.0, 1.0, 0.0], 0.5);
        // A step of 1 in the middle of six: lines of slope 4/3 through (0, 0) and (3, 4), and through (2, 2) and (5, 6), are
        // 2/3 apart.
        close(&[0.0, 1.0, 2.0, 4.0, 5.0, 6.0], 1.0 / 3.0);
        close(&[0.0, 7.0], 0.0);
    }

    proptest! {
        #[test]
        fn rounding_moves_no_slice_further_than_its_half(
            step in 0.3_f64..6.0, origin in -900.0_f64..900.0, slices in 2_usize..400, digits in 0_i32..3,
        ) {
            let unit = 10_f64.powi(-digits);
            let values: Vec<f64> =
                (0..slices).map(|k| ((origin + step * k as f64) / unit).round() * unit).collect();
            prop_assert!(distance_from_the_best_line(&values) <= unit / 2.0 + 1e-9);
        }
    }
}
