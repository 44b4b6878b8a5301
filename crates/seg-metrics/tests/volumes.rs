//! Volumes: closed forms, rules that no reference implementation has, and definitions written out point by point.

use proptest::prelude::*;
use seg_metrics::{
    MaskView, Spacing, SurfaceDistances, SurfelDistances, VolumeError, VolumeMetrics, VolumeView, surface_distances,
    volume_metrics, volume_surface_distances, volume_surfel_distances,
};

/// Makes the volume of 1 × 2 × 6 voxels a box of 3, 4 and 12 mm, whose diagonal is 13.
const SPACING_MM: [f64; 3] = [3.0, 2.0, 2.0];

fn voxels(size: [usize; 3], inside: impl Fn([usize; 3]) -> bool) -> Vec<u8> {
    (0..size.iter().product()).map(|i| u8::from(inside(position(size, i)))).collect()
}

fn position([_, rows, columns]: [usize; 3], i: usize) -> [usize; 3] {
    [i / columns / rows, i / columns % rows, i % columns]
}

fn distances(prediction: VolumeView<'_>, truth: VolumeView<'_>) -> (SurfaceDistances, SurfelDistances) {
    (volume_surface_distances(prediction, truth), volume_surfel_distances(prediction, truth))
}

#[test]
fn two_empty_volumes_agree_fully() {
    let empty = VolumeView::new(&[0; 12], [1, 2, 6], SPACING_MM).unwrap();
    let expected = VolumeMetrics { dice: 1.0, nsd: 1.0, hd_mm: 0.0, hd95_mm: 0.0, assd_mm: 0.0 };
    assert_eq!(volume_metrics(empty, empty, 0.0), expected);
    let (edges, surfels) = distances(empty, empty);
    assert_eq!([edges.surface_dice(0.0), surfels.hausdorff_percentile(95.0), surfels.assd()], [1.0, 0.0, 0.0]);
    let nothing = VolumeView::new(&[], [0, 5, 5], SPACING_MM).unwrap();
    assert_eq!(volume_metrics(nothing, nothing, 2.0), expected);
}

#[test]
fn one_empty_volume_is_a_diagonal_away() {
    let empty = VolumeView::new(&[0; 12], [1, 2, 6], SPACING_MM).unwrap();
    let voxels = voxels([1, 2, 6], |[_, y, x]| y == 0 && x < 3);
    let some = VolumeView::new(&voxels, [1, 2, 6], SPACING_MM).unwrap();
    for (prediction, truth) in [(empty, some), (some, empty)] {
        let expected = VolumeMetrics { dice: 0.0, nsd: 0.0, hd_mm: 13.0, hd95_mm: 13.0, assd_mm: 13.0 };
        assert_eq!(volume_metrics(prediction, truth, 100.0), expected);
        let (edges, surfels) = distances(prediction, truth);
        assert_eq!(edges.surface_dice(100.0), 0.0);
        assert_eq!([surfels.hausdorff(), surfels.hausdorff_percentile(95.0), surfels.assd()], [13.0; 3]);
    }
}

#[test]
fn two_slabs_are_3_mm_apart_by_their_voxels_and_half_of_it_by_the_faces_that_look_at_each_other() {
    let size = [9, 8, 7];
    let (a, b) = (voxels(size, |[z, ..]| z == 2), voxels(size, |[z, ..]| z == 4));
    let view = |voxels| VolumeView::new(voxels, size, [1.5, 1.0, 0.7]).unwrap();
    let (edges, surfels) = distances(view(&a), view(&b));
    assert_eq!([edges.hausdorff(), edges.hausdorff_percentile(95.0), edges.assd()], [3.0; 3]);
    assert_eq!([2.9, 3.0].map(|tolerance| edges.surface_dice(tolerance)), [0.0, 1.0]);
    // Faces at 3 and 4.5 mm against 6 and 7.5 mm: one is 1.5 mm away and the other 3, both with as much surface.
    assert_eq!([surfels.hausdorff(), surfels.hausdorff_percentile(95.0)], [3.0; 2]);
    assert!((surfels.assd() - 2.25).abs() < 1e-12, "{}", surfels.assd());
    let shares = [1.4, 1.5, 2.9, 3.0].map(|tolerance| surfels.surface_dice(tolerance));
    assert!(shares.iter().zip([0.0, 0.5, 0.5, 1.0]).all(|(ours, share)| (ours - share).abs() < 1e-12), "{shares:?}");
}

#[test]
fn a_shifted_ball_is_as_far_away_as_it_was_shifted() {
    // No voxel is further from its shifted self, and nothing of the other ball is nearer to the outermost one.
    for (axis, spacing) in [(0, 5.0), (1, 0.7), (2, 1.25)] {
        let ball = |centre: [usize; 3]| {
            voxels([17; 3], |at| {
                at.iter().zip(centre).map(|(at, middle)| at.abs_diff(middle).pow(2)).sum::<usize>() <= 25
            })
        };
        let mut shifted = [7; 3];
        shifted[axis] += 3;
        let (a, b) = (ball([7; 3]), ball(shifted));
        let view = |voxels| VolumeView::new(voxels, [17; 3], [5.0, 0.7, 1.25]).unwrap();
        let (edges, surfels) = distances(view(&a), view(&b));
        for hausdorff in [edges.hausdorff(), surfels.hausdorff()] {
            assert!((hausdorff - 3.0 * spacing).abs() < 1e-12, "axis {axis}: {hausdorff}");
        }
    }
}

#[test]
fn a_volume_of_all_voxels_has_its_surface_on_the_border() {
    let size = [4, 5, 6];
    let whole = voxels(size, |_| true);
    let inner = voxels(size, |at| at.iter().zip(size).all(|(&at, size)| at > 0 && at + 1 < size));
    let view = |voxels| VolumeView::new(voxels, size, [4.0, 2.0, 1.0]).unwrap();
    let (edges, surfels) = distances(view(&whole), view(&inner));
    assert_eq!([edges.hausdorff(), surfels.hausdorff()], [21.0_f64.sqrt(); 2], "from corner to corner");
}

#[test]
fn values_that_do_not_fill_a_volume_are_refused() {
    let error = VolumeView::new(&[0; 11], [1, 2, 6], SPACING_MM).unwrap_err();
    assert_eq!(error, VolumeError::Size { size: [1, 2, 6], found: 11 });
    assert_eq!(error.to_string(), "a volume of 1 × 2 × 6 voxels was given 11 values, expected 1 · 2 · 6");
    assert!(VolumeView::new(&[], [usize::MAX, 2, 0], SPACING_MM).is_err(), "the product must not wrap around");
}

#[test]
fn spacing_that_is_no_distance_is_refused() {
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = VolumeView::new(&[0; 12], [1, 2, 6], [3.0, wrong, 2.0]).unwrap_err();
        let expected = format!(
            "a volume was given a spacing of [3.0, {wrong:?}, 2.0] mm (slices, rows, columns), expected three finite \
             numbers above 0"
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
#[should_panic(
    expected = "volumes of [1, 2, 6] voxels of [3.0, 2.0, 2.0] mm and [1, 2, 6] of [3.0, 2.0, 1.0] mm cannot be compared"
)]
fn volumes_on_different_grids_are_never_compared() {
    let view = |spacing_mm| VolumeView::new(&[0; 12], [1, 2, 6], spacing_mm).unwrap();
    volume_metrics(view(SPACING_MM), view([3.0, 2.0, 1.0]), 2.0);
}

#[derive(Clone, Debug)]
struct Pair {
    size: [usize; 3],
    spacing_mm: [f64; 3],
    prediction: Vec<u8>,
    truth: Vec<u8>,
}

impl Pair {
    fn views(&self) -> (VolumeView<'_>, VolumeView<'_>) {
        let view = |voxels| VolumeView::new(voxels, self.size, self.spacing_mm).unwrap();
        (view(&self.prediction), view(&self.truth))
    }

    /// The same voxels on axes in another order, axis `mirrored` of the new ones turned round.
    fn turned(&self, axes: [usize; 3], mirrored: usize) -> Self {
        let size = axes.map(|axis| self.size[axis]);
        let turn = |old: &[u8]| -> Vec<u8> {
            let old_index = |i| {
                let mut at = position(size, i);
                at[mirrored] = size[mirrored] - 1 - at[mirrored];
                let mut old_at = [0; 3];
                axes.iter().zip(at).for_each(|(&axis, at)| old_at[axis] = at);
                (old_at[0] * self.size[1] + old_at[1]) * self.size[2] + old_at[2]
            };
            (0..old.len()).map(|i| old[old_index(i)]).collect()
        };
        let (prediction, truth) = (turn(&self.prediction), turn(&self.truth));
        Self { size, spacing_mm: axes.map(|axis| self.spacing_mm[axis]), prediction, truth }
    }

    /// Everything that is measured: shares first, then the distances.
    fn measures(&self, tolerance_mm: f64) -> ([f64; 3], [f64; 6]) {
        let (prediction, truth) = self.views();
        let (edges, surfels) = distances(prediction, truth);
        let VolumeMetrics { dice, nsd, hd_mm, hd95_mm, assd_mm } = volume_metrics(prediction, truth, tolerance_mm);
        let of_surfels = [surfels.hausdorff(), surfels.hausdorff_percentile(95.0), surfels.assd()];
        let [hd, hd95, assd] = of_surfels;
        ([dice, nsd, edges.surface_dice(tolerance_mm)], [hd_mm, hd95_mm, assd_mm, hd, hd95, assd])
    }
}

fn mask(voxels: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(0.0), 0.01..0.99].prop_flat_map(move |share| {
        let voxel = (proptest::bool::weighted(share), 1..=u8::MAX).prop_map(|(on, value)| u8::from(on) * value);
        proptest::collection::vec(voxel, voxels)
    })
}

fn pair() -> impl Strategy<Value = Pair> {
    let (size, spacing_mm) = ([1_usize..8, 1..8, 1..8], [0.2..6.0, 0.2..4.0, 0.2..4.0]);
    (size, spacing_mm).prop_flat_map(|(size, spacing_mm)| {
        let voxels = size.iter().product();
        (mask(voxels), mask(voxels)).prop_map(move |(prediction, truth)| Pair { size, spacing_mm, prediction, truth })
    })
}

fn at(voxels: &[u8], size: [usize; 3], at: [isize; 3]) -> bool {
    let inside = at.iter().zip(size).all(|(at, size)| (0..size as isize).contains(at));
    inside && voxels[((at[0] * size[1] as isize + at[1]) * size[2] as isize + at[2]) as usize] != 0
}

/// Points of the grid, counted from 0 to its size with that, that `chosen` takes, in mm.
fn points(pair: &Pair, chosen: impl Fn([isize; 3]) -> bool) -> Vec<[f64; 3]> {
    let size = pair.size.map(|length| length + 1);
    let all = (0..size.iter().product()).map(|i| position(size, i).map(|at| at as isize));
    let in_mm = |at: [isize; 3]| [0, 1, 2].map(|axis| at[axis] as f64 * pair.spacing_mm[axis]);
    all.filter(|at| chosen(*at)).map(in_mm).collect()
}

fn edge_points(pair: &Pair, voxels: &[u8]) -> Vec<[f64; 3]> {
    let beside = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]];
    let moved = |from: [isize; 3], by: [isize; 3]| [from[0] + by[0], from[1] + by[1], from[2] + by[2]];
    points(pair, |point| {
        at(voxels, pair.size, point) && !beside.iter().all(|&by| at(voxels, pair.size, moved(point, by)))
    })
}

fn corner_points(pair: &Pair, voxels: &[u8]) -> Vec<[f64; 3]> {
    points(pair, |[z, y, x]| {
        let around = (0..8).map(|i| at(voxels, pair.size, [z - (i & 1), y - (i >> 1 & 1), x - (i >> 2)]));
        let inside = around.filter(|inside| *inside).count();
        inside != 0 && inside != 8
    })
}

fn directed(from: &[[f64; 3]], to: &[[f64; 3]]) -> Vec<f64> {
    let between = |a: &[f64; 3], b: &[f64; 3]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let nearest = |point| to.iter().map(|other| between(point, other)).fold(f64::INFINITY, f64::min);
    let mut distances: Vec<f64> = from.iter().map(nearest).collect();
    distances.sort_by(f64::total_cmp);
    distances
}

#[track_caller]
fn assert_close(ours: f64, expected: f64) {
    assert!((ours - expected).abs() < 1e-9, "{ours}, expected {expected}");
}

proptest! {
    #[test]
    fn distances_are_those_between_all_pairs_of_points(pair in pair()) {
        let (prediction, truth) = pair.views();
        let (edges, surfels) = distances(prediction, truth);
        let [p, t] = [&pair.prediction, &pair.truth].map(|voxels| edge_points(&pair, voxels));
        prop_assume!(!p.is_empty() && !t.is_empty());
        let (forth, back) = (directed(&p, &t), directed(&t, &p));
        for percent in [0.0, 37.0, 95.0, 100.0] {
            let quantile = |sorted: &[f64]| {
                let rank = percent / 100.0 * (sorted.len() - 1) as f64;
                let (low, high) = (sorted[rank as usize], sorted[(rank as usize + 1).min(sorted.len() - 1)]);
                low * (1.0 - rank.fract()) + high * rank.fract()
            };
            assert_close(edges.hausdorff_percentile(percent), quantile(&forth).max(quantile(&back)));
        }
        let all: Vec<f64> = forth.into_iter().chain(back).collect();
        assert_close(edges.assd(), all.iter().sum::<f64>() / all.len() as f64);
        // A little more, so that no distance lies at it but for rounding.
        let within = all.iter().filter(|distance| **distance <= 2.000_001).count();
        assert_close(edges.surface_dice(2.000_001), within as f64 / all.len() as f64);

        let [p, t] = [&pair.prediction, &pair.truth].map(|voxels| corner_points(&pair, voxels));
        let (forth, back) = (directed(&p, &t), directed(&t, &p));
        assert_close(surfels.hausdorff(), forth[forth.len() - 1].max(back[back.len() - 1]));
    }

    #[test]
    fn all_measures_are_symmetric_and_within_their_range(pair in pair(), tolerance in 0.0..6.0) {
        let swapped = Pair { prediction: pair.truth.clone(), truth: pair.prediction.clone(), ..pair.clone() };
        let ((shares, distances), (shares_back, distances_back)) = (pair.measures(tolerance), swapped.measures(tolerance));
        for (forth, back) in shares.into_iter().chain(distances).zip(shares_back.into_iter().chain(distances_back)) {
            assert_close(forth, back);
        }
        prop_assert!(shares.iter().all(|share| (0.0..=1.0 + 1e-12).contains(share)), "{shares:?}");
        let extent = |axis: usize| (pair.size[axis] as f64 * pair.spacing_mm[axis]).powi(2);
        let diagonal = (extent(0) + extent(1) + extent(2)).sqrt() + 1e-9;
        for [hd, hd95, assd] in [[distances[0], distances[1], distances[2]], [distances[3], distances[4], distances[5]]] {
            prop_assert!(assd <= hd + 1e-9 && hd95 <= hd && (0.0..=diagonal).contains(&hd), "{distances:?}, {diagonal}");
        }
    }

    #[test]
    fn no_measure_depends_on_how_the_axes_lie(pair in pair(), mirrored in 0_usize..3, tolerance in 0.0..6.0) {
        let expected = pair.measures(tolerance);
        for axes in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let (shares, distances) = pair.turned(axes, mirrored).measures(tolerance);
            for (ours, expected) in shares.into_iter().chain(distances).zip(expected.0.into_iter().chain(expected.1)) {
                assert_close(ours, expected);
            }
        }
    }

    #[test]
    fn distances_grow_with_the_spacing(pair in pair(), tolerance in 0.0..6.0) {
        let mut larger = pair.clone();
        // By a power of two, so that nothing is rounded.
        larger.spacing_mm = larger.spacing_mm.map(|spacing| spacing * 4.0);
        let ((shares, distances), (shares_larger, distances_larger)) =
            (pair.measures(tolerance), larger.measures(tolerance * 4.0));
        prop_assert_eq!(shares, shares_larger);
        prop_assert_eq!(distances.map(|distance| distance * 4.0), distances_larger);
    }

    /// In a volume of one slice every voxel has background above it, so that the two agree where an image is all edge.
    #[test]
    fn a_volume_of_one_slice_is_an_image_of_edges(pair in pair()) {
        let size = [1, pair.size[1], pair.size[2]];
        let edges = |voxels: &[u8]| -> Vec<u8> {
            let slice = &voxels[..size[1] * size[2]];
            let beside = [(0, 1), (1, 0), (0, -1), (-1, 0)];
            voxels_of_edges(size, |z, y, x| at(slice, size, [z, y, x]), &beside)
        };
        let (prediction, truth) = (edges(&pair.prediction), edges(&pair.truth));
        let volume = |voxels| VolumeView::new(voxels, size, pair.spacing_mm).unwrap();
        let image = |voxels| MaskView::new(voxels, size[1], size[2]).unwrap();
        let spacing = Spacing { row: pair.spacing_mm[1], column: pair.spacing_mm[2] };
        prop_assume!(prediction.iter().any(|&value| value != 0) == truth.iter().any(|&value| value != 0));
        let ours = volume_surface_distances(volume(&prediction), volume(&truth));
        let expected = surface_distances(image(&prediction), image(&truth), spacing);
        prop_assert_eq!(ours.hausdorff(), expected.hausdorff());
        prop_assert_eq!(ours.hausdorff_percentile(95.0), expected.hausdorff_percentile(95.0));
        prop_assert_eq!(ours.assd(), expected.assd());
    }
}

fn voxels_of_edges(
    size: [usize; 3],
    inside: impl Fn(isize, isize, isize) -> bool,
    beside: &[(isize, isize)],
) -> Vec<u8> {
    voxels(size, |at| {
        let [z, y, x] = at.map(|at| at as isize);
        inside(z, y, x) && !beside.iter().all(|(dy, dx)| inside(z, y + dy, x + dx))
    })
}
