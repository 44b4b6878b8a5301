//! Volumes against what nibabel and PIL make of them (`fixtures/make_fixtures.py`).

use ct_ingest::{
    AffineChoice, GeometryTolerance, ReadOptions, Volume, check_same_geometry, image_slices, mask_slices, read_volume,
};
use serde::Deserialize;
use slice_store::StoreSettings;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Expected {
    oriented: Oriented,
    resized: Vec<Resized>,
}

/// One anatomy in display order (`[slices][rows][columns]`), and the files that hold it.
#[derive(Deserialize)]
struct Oriented {
    display: Vec<Vec<Vec<i16>>>,
    files: Vec<OrientedFile>,
}

#[derive(Deserialize)]
struct OrientedFile {
    file: String,
    orientation: String,
    affine: Vec<Vec<f64>>,
    spacing_mm: [f64; 3],
}

#[derive(Deserialize)]
struct Resized {
    size: usize,
    rows: usize,
    columns: usize,
    hu: Vec<Vec<Vec<f32>>>,
    share: Option<Vec<Vec<Vec<f64>>>>,
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name)
}

fn read(name: &str) -> Volume {
    // That file's two affines disagree, which is an error until somebody has chosen.
    let affine = name.starts_with("sform_wins").then_some(AffineChoice::Sform);
    read_volume(&fixture(name), &ReadOptions { affine, ..ReadOptions::default() }).unwrap()
}

fn settings(slice_size: usize) -> StoreSettings {
    StoreSettings { slice_size, ..StoreSettings::default() }
}

#[test]
fn two_affines_that_disagree_are_an_error_until_one_is_chosen() {
    let path = fixture("sform_wins_RAS.nii.gz");
    let message = read_volume(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("two affines that are 9.0 voxels apart: sform [0.75") && message.contains("--affine"));
    let options = ReadOptions { affine: Some(AffineChoice::Qform), ..ReadOptions::default() };
    assert_eq!(read_volume(&path, &options).unwrap().geometry.orientation.to_string(), "LPS");
}

#[test]
fn every_orientation_and_type_gives_the_slices_that_nibabel_gives() {
    let Oriented { display, files } = expected().oriented;
    let (rows, columns) = (display[0].len(), display[0][0].len());
    let size = rows.max(columns);
    for OrientedFile { file, orientation, affine, spacing_mm } in files {
        let volume = read(&file);
        assert_eq!(volume.geometry.orientation.to_string(), orientation, "{file}");
        for (ours, theirs) in volume.geometry.affine.iter().flatten().zip(affine.iter().flatten()) {
            assert!((ours - theirs).abs() < 1e-5, "{file}: {:?} {affine:?}", volume.geometry.affine);
        }
        for (ours, theirs) in volume.geometry.spacing_mm.iter().zip(spacing_mm) {
            assert!((ours - theirs).abs() < 1e-5, "{file}: {:?}", volume.geometry.spacing_mm);
        }
        assert!(volume.geometry.spacing_valid);

        let (images, plan) = image_slices(&volume, &settings(size)).unwrap();
        assert_eq!((plan.native_size(), plan.scaled_size()), ([rows, columns], [rows, columns]), "{file}");
        for (slice, image) in images.chunks_exact(size * size).enumerate() {
            for (row, pixels) in image.chunks_exact(size).enumerate() {
                for (column, &pixel) in pixels.iter().enumerate() {
                    let theirs = display[slice].get(row).and_then(|row| row.get(column)).copied();
                    assert_eq!(pixel, theirs.unwrap_or(-1024), "{file}: slice {slice} row {row} column {column}");
                }
            }
        }
    }
}

#[test]
fn files_of_one_anatomy_along_other_axes_are_the_same_grid() {
    let read_two = |a: &str, b: &str| check_same_geometry(read(a).grid(), read(b).grid(), GeometryTolerance::default());
    let codes = ["LPS", "RAS", "LAS", "SPL", "AIR", "PSR", "ILA"];
    for (a, b) in codes.iter().flat_map(|a| codes.map(|b| (a, b))) {
        read_two(&format!("sform_{a}.nii.gz"), &format!("sform_{b}.nii.gz")).unwrap();
    }
    // The same place, told once by the sform and once by the qform, whose quaternion is a half turn.
    for (a, b) in [("sform_LPS.nii.gz", "qform_LPS.nii.gz"), ("sform_RAS.nii.gz", "qform_RAS.nii.gz")] {
        read_two(a, b).unwrap();
    }
    // Sheared or turned it is another place.
    for other in ["sform_gantry_tilt.nii.gz", "qform_oblique.nii.gz", "voxel_sizes_only.nii.gz"] {
        let message = read_two("sform_LPS.nii.gz", other).unwrap_err().to_string();
        assert!(message.contains("sform_LPS.nii.gz' and mask") && message.contains("differ in"), "{message}");
    }
}

#[test]
fn masks_along_other_axes_are_cut_into_the_slices_of_their_image() {
    let (_, plan) = image_slices(&read("sform_LPS.nii.gz"), &settings(10)).unwrap();
    // The values of the anatomy are labels here; every other one is the target.
    let mut known: Vec<i32> = expected().oriented.display.concat().concat().into_iter().map(i32::from).collect();
    known.sort_unstable();
    known.dedup();
    let target: Vec<i32> = known.iter().copied().step_by(2).collect();
    let lps = mask_slices(&[read("sform_LPS.nii.gz")], &plan, &known, &target).unwrap();
    assert!(lps.contains(&0) && lps.contains(&1));
    for code in ["RAS", "LAS", "SPL", "AIR", "PSR", "ILA"] {
        let mask = read(&format!("sform_{code}.nii.gz"));
        assert_eq!(mask_slices(&[mask], &plan, &known, &target).unwrap(), lps, "{code}");
    }
}

#[test]
fn positions_run_along_the_slices_normal_to_superior() {
    for file in ["sform_LPS.nii.gz", "sform_AIR.nii.gz", "sform_SPL.nii.gz"] {
        let (_, plan) = image_slices(&read(file), &settings(10)).unwrap();
        let positions: Vec<f32> = plan.positions().iter().map(|position| position.position_mm).collect();
        assert_eq!(positions, [-300.0, -297.5, -295.0], "{file}");
    }
    // Sheared by 0.35 in y per z: the normal of x and y stays z, the slices' distance too.
    let (_, plan) = image_slices(&read("sform_gantry_tilt.nii.gz"), &settings(10)).unwrap();
    assert!((plan.positions()[0].slice_spacing_mm - 2.5).abs() < 1e-5);
    // Turned as a whole: the distance of the slices is what it was.
    let (_, plan) = image_slices(&read("qform_oblique.nii.gz"), &settings(10)).unwrap();
    let between = plan.positions()[1].position_mm - plan.positions()[0].position_mm;
    assert!((between - 2.5).abs() < 1e-3 && (plan.positions()[0].slice_spacing_mm - 2.5).abs() < 1e-5);
}

#[test]
fn resizing_is_pils_antialiased_bilinear_to_half_a_hounsfield_unit() {
    let volume = read("resize.nii.gz");
    for Resized { size, rows, columns, hu, .. } in expected().resized {
        let (images, plan) = image_slices(&volume, &settings(size)).unwrap();
        assert_eq!(plan.scaled_size(), [rows, columns]);
        for (slice, image) in images.chunks_exact(size * size).enumerate() {
            for (row, pixels) in image.chunks_exact(size).enumerate() {
                for (column, &pixel) in pixels.iter().enumerate() {
                    let theirs = hu[slice].get(row).and_then(|row| row.get(column)).copied().unwrap_or(-1024.0);
                    assert!(
                        (f32::from(pixel) - theirs).abs() < 0.502,
                        "{size}: {slice} {row} {column}: {pixel} {theirs}"
                    );
                }
            }
        }
        let position = plan.positions()[0];
        assert!((position.row_spacing_mm - 1.5 * 14.0 / rows as f32).abs() < 1e-5);
        assert!((position.column_spacing_mm - 1.5 * 20.0 / columns as f32).abs() < 1e-5);
    }
}

#[test]
fn a_stored_pixel_is_target_if_more_than_half_of_its_area_is_by_pils_box_filter() {
    let (_, plan) = image_slices(&read("resize.nii.gz"), &settings(8)).unwrap();
    assert_eq!(plan.native_size(), [14, 20]);
    for Resized { size, share, .. } in expected().resized {
        let Some(share) = share else { continue };
        let (_, plan) = image_slices(&read("resize.nii.gz"), &settings(size)).unwrap();
        let masks = mask_slices(&[read("resize_mask.nii.gz")], &plan, &[0, 1], &[1]).unwrap();
        for (slice, mask) in masks.chunks_exact(size * size).enumerate() {
            for (row, pixels) in mask.chunks_exact(size).enumerate() {
                for (column, &pixel) in pixels.iter().enumerate() {
                    let theirs = share[slice].get(row).and_then(|row| row.get(column)).copied().unwrap_or(0.0);
                    if (theirs - 0.5).abs() > 1e-4 {
                        assert_eq!(pixel, u8::from(theirs > 0.5), "{size}: {slice} {row} {column}: {theirs}");
                    }
                }
            }
        }
    }
}
