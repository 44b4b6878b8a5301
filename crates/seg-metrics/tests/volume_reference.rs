//! Volumes: agreement with MONAI and with DeepMind's surface-distance, from `fixtures/volumes.json`, which
//! `fixtures/make_volumes.py` writes.

use seg_metrics::{VolumeView, volume_metrics, volume_surface_distances, volume_surfel_distances};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    tolerances: Vec<f64>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    size: [usize; 3],
    prediction: Vec<usize>,
    truth: Vec<usize>,
    dice: f64,
    measures: Vec<Measures>,
}

#[derive(Deserialize)]
struct Measures {
    spacing: [f64; 3],
    monai: Monai,
    surface_distance: SurfaceDistance,
}

#[derive(Deserialize)]
struct Monai {
    hd: f64,
    hd95: f64,
    hd95_of_64_bits: f64,
    assd: f64,
    nsd: Vec<f64>,
}

#[derive(Deserialize)]
struct SurfaceDistance {
    hd: f64,
    hd95: f64,
    averages: [f64; 2],
    nsd: Vec<f64>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("fixtures/volumes.json")).unwrap()
}

/// Calls `check` with each fixture at each spacing and its two masks, the prediction first.
fn for_each_case(mut check: impl FnMut(&str, &Case, &Measures, VolumeView<'_>, VolumeView<'_>)) {
    let reference = reference();
    assert!(reference.cases.len() > 20, "the fixture file is not whole");
    for case in &reference.cases {
        let (prediction, truth) = (voxels(&case.prediction), voxels(&case.truth));
        for expected in &case.measures {
            let view = |voxels| VolumeView::new(voxels, case.size, expected.spacing).unwrap();
            let what = format!("'{}' at spacing {:?}", case.name, expected.spacing);
            check(&what, case, expected, view(&prediction), view(&truth));
        }
    }
}

fn voxels(runs: &[usize]) -> Vec<u8> {
    runs.iter().enumerate().flat_map(|(i, &length)| std::iter::repeat_n((i % 2) as u8, length)).collect()
}

#[track_caller]
fn assert_close(ours: f64, theirs: f64, relative: f64, what: &str) {
    assert!((ours - theirs).abs() <= relative * theirs.abs().max(1e-3), "{what}: {ours}, reference {theirs}");
}

#[test]
fn dice_and_distances_between_edge_voxels_are_those_of_monai() {
    for_each_case(|what, case, expected, prediction, truth| {
        let distances = volume_surface_distances(prediction, truth);
        let close = |ours, theirs, metric: &str| assert_close(ours, theirs, 1e-6, &format!("{metric} of {what}"));
        close(volume_metrics(prediction, truth, 2.0).dice, case.dice, "Dice");
        close(distances.hausdorff(), expected.monai.hd, "HD");
        close(distances.assd(), expected.monai.assd, "ASSD");
        let hd95 = distances.hausdorff_percentile(95.0);
        close(hd95, expected.monai.hd95_of_64_bits, "HD95");
        // `torch.quantile` finds the rank in 32 bits: where two ranks lie far apart, that moves the result.
        assert_close(hd95, expected.monai.hd95, 1e-5, what);
        for (tolerance, &theirs) in reference().tolerances.into_iter().zip(&expected.monai.nsd) {
            close(distances.surface_dice(tolerance), theirs, &format!("NSD at {tolerance} mm"));
        }
    });
}

#[test]
fn distances_between_surface_elements_are_those_of_surface_distance() {
    for_each_case(|what, _, expected, prediction, truth| {
        let distances = volume_surfel_distances(prediction, truth);
        let theirs = &expected.surface_distance;
        let close = |ours, theirs, metric: &str| assert_close(ours, theirs, 1e-9, &format!("{metric} of {what}"));
        close(distances.hausdorff(), theirs.hd, "HD");
        close(distances.hausdorff_percentile(95.0), theirs.hd95, "HD95");
        for (ours, theirs) in distances.averages().into_iter().zip(theirs.averages) {
            close(ours, theirs, "average distance");
        }
        for (tolerance, &theirs) in reference().tolerances.into_iter().zip(&theirs.nsd) {
            close(distances.surface_dice(tolerance), theirs, &format!("NSD at {tolerance} mm"));
        }
    });
}

#[test]
fn what_is_reported_is_nsd_by_surface_distance_and_distances_by_monai() {
    for_each_case(|what, _, expected, prediction, truth| {
        for (tolerance, &nsd) in reference().tolerances.into_iter().zip(&expected.surface_distance.nsd) {
            let ours = volume_metrics(prediction, truth, tolerance);
            assert_close(ours.nsd, nsd, 1e-9, what);
            assert_close(ours.hd_mm, expected.monai.hd, 1e-6, what);
            assert_close(ours.hd95_mm, expected.monai.hd95_of_64_bits, 1e-6, what);
            assert_close(ours.assd_mm, expected.monai.assd, 1e-6, what);
        }
    });
}

#[test]
fn the_differences_in_the_readme_are_those_measured() {
    let rows = [
        ("ball against shifted ball", "ball of 5 voxels, shifted by 1 slice and 2 columns"),
        ("blob 0 against its shifted self", "blob, shifted by 1 slice, 2 rows and 1 column"),
        ("sheets one voxel thick across rows", "two sheets one voxel thick, 3 voxels apart"),
        ("far island", "a box, and the same with a far island"),
    ];
    let mut found = 0;
    for_each_case(|_, case, expected, prediction, truth| {
        let Some((_, words)) = rows.iter().find(|(name, _)| expected.spacing == [5.0, 0.7, 0.7] && *name == case.name)
        else {
            return;
        };
        let (edges, surfels) =
            (volume_surface_distances(prediction, truth), volume_surfel_distances(prediction, truth));
        let hd95 = [edges.hausdorff_percentile(95.0), surfels.hausdorff_percentile(95.0)];
        let pairs = [hd95, [edges.assd(), surfels.assd()], [edges.surface_dice(2.0), surfels.surface_dice(2.0)]];
        let numbers: Vec<String> = pairs.iter().flatten().map(|number| format!("{number:.3}")).collect();
        let row = format!("| {words} | {} |", numbers.join(" | "));
        assert!(include_str!("../README.md").contains(&row), "the README lacks {row}");
        found += 1;
    });
    assert_eq!(found, rows.len());
}
