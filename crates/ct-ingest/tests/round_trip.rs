//! From a volume to slices and back, in every orientation.

mod common;

use common::Nifti;
use ct_ingest::{
    Intensity, Orientation, ReadOptions, SlicePlan, Volume, image_slices, mask_slices, read_volume, write_mask,
};
use proptest::prelude::*;
use slice_store::{StoreSettings, Window, WindowAt};
use std::path::Path;

fn affine(orientation: Orientation, spacing: [f32; 3]) -> [[f32; 4]; 3] {
    let mut affine = [[0.0, 0.0, 0.0, 7.5]; 3];
    for (voxel, letter) in orientation.to_string().chars().enumerate() {
        let (world, sign) = match letter {
            'R' => (0, 1.0),
            'L' => (0, -1.0),
            'A' => (1, 1.0),
            'P' => (1, -1.0),
            'S' => (2, 1.0),
            _ => (2, -1.0),
        };
        affine[world][voxel] = sign * spacing[voxel];
    }
    affine
}

fn read(directory: &Path, file: &Nifti) -> Volume {
    let path = directory.join("volume.nii");
    file.save(&path);
    // What these files hold is drawn for its place; no CT has it.
    read_volume(&path, &ReadOptions { intensity: Intensity::Hu, ..ReadOptions::default() }).unwrap()
}

fn orientations() -> impl Strategy<Value = Orientation> {
    prop::sample::select(Orientation::all().collect::<Vec<_>>())
}

#[test]
fn at_its_own_size_a_mask_comes_back_exactly_in_all_48_orientations() {
    let directory = tempfile::tempdir().unwrap();
    for orientation in Orientation::all() {
        let shape = [5, 7, 4];
        let mut file = Nifti::uint8(shape, |x, y, z| ((x * 31 + y * 17 + z * 7) % 3 == 0).into());
        file.affine = affine(orientation, [0.7, 0.9, 3.0]);
        let volume = read(directory.path(), &file);
        assert_eq!(volume.geometry.orientation, orientation);
        let plan = SlicePlan::new(&volume.geometry, shape, 7);
        // The longest side fills the slice: only those with the axis of seven in the slice keep their own size.
        if plan.scaled_size() == plan.native_size() {
            let slices = mask_slices(std::slice::from_ref(&volume), &plan, &[0, 1], &[1]).unwrap();
            assert_eq!(plan.restore_mask(&slices), file.data, "{orientation}");
        }
        let largest = *plan.native_size().iter().max().unwrap();
        let plan = SlicePlan::new(&volume.geometry, shape, largest);
        let slices = mask_slices(std::slice::from_ref(&volume), &plan, &[0, 1], &[1]).unwrap();
        assert_eq!(plan.restore_mask(&slices), file.data, "{orientation}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shape_comes_back_exactly_at_its_own_size_or_a_multiple_of_it(
        orientation in orientations(), shape in prop::array::uniform3(1_usize..12), factor in 1_usize..4, seed: u64,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut file = Nifti::uint8(shape, |x, y, z| (seed >> ((x * 5 + y * 3 + z * 11) % 64) & 1) as u8);
        file.affine = affine(orientation, [1.1, 0.6, 2.0]);
        let volume = read(directory.path(), &file);
        let native = SlicePlan::new(&volume.geometry, shape, 8).native_size();
        let plan = SlicePlan::new(&volume.geometry, shape, factor * native[0].max(native[1]));
        let slices = mask_slices(std::slice::from_ref(&volume), &plan, &[0, 1], &[1]).unwrap();
        prop_assert_eq!(plan.shape(), shape);
        prop_assert_eq!(plan.restore_mask(&slices), file.data);
    }

    #[test]
    fn images_and_masks_take_the_same_way(orientation in orientations(), spot in prop::array::uniform3(0_usize..9)) {
        // A bright voxel and its mask end in the same pixel of the same slice.
        let directory = tempfile::tempdir().unwrap();
        let shape = [9, 9, 9];
        let here = |x, y, z| [x, y, z] == spot;
        let mut image = Nifti::int16(shape, |x, y, z| if here(x, y, z) { 1000 } else { -500 });
        image.affine = affine(orientation, [1.0, 2.0, 3.0]);
        let mut mask = Nifti::uint8(shape, |x, y, z| here(x, y, z).into());
        mask.affine = image.affine;
        let settings = StoreSettings { slice_size: 9, ..StoreSettings::default() };
        let (images, plan) = image_slices(&read(directory.path(), &image), &settings).unwrap();
        let masks = mask_slices(&[read(directory.path(), &mask)], &plan, &[0, 1], &[1]).unwrap();
        let bright: Vec<u8> = images.iter().map(|&hu| u8::from(hu == 1000)).collect();
        prop_assert_eq!(bright, masks);
    }
}

#[test]
fn a_written_mask_has_the_volumes_geometry_and_the_rest_of_its_header() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = Nifti::float64([4, 3, 2], |x, y, z| (x + y + z) as f64);
    file.affine = affine("SAL".parse().unwrap(), [0.5, 0.6, 0.7]);
    let volume = read(directory.path(), &file);
    let mask: Vec<u8> = (0..24).map(|i| u8::from(i % 5 == 0)).collect();
    for name in ["my.case.nii", "my.case.nii.gz"] {
        let path = directory.path().join(name);
        write_mask(&path, &mask, &volume).unwrap();
        let written = read_volume(&path, &ReadOptions::default()).unwrap();
        assert_eq!(written.geometry, volume.geometry);
        assert_eq!(written.shape, volume.shape);
        let values: Vec<u8> = (0..24).map(|i| written.voxels.get(i) as u8).collect();
        assert_eq!(values, mask);
    }
    let bytes = std::fs::read(directory.path().join("my.case.nii")).unwrap();
    assert_eq!(bytes.len(), 352 + 24);
    assert_eq!(bytes[148..162], *b"made by a test");
    assert_eq!((&bytes[70..72], &bytes[72..74]), (&2_i16.to_le_bytes()[..], &8_i16.to_le_bytes()[..]));
    let error = write_mask(&directory.path().join("x.nii"), &mask[1..], &volume).unwrap_err();
    assert!(error.to_string().contains("its mask has 23 voxels"), "{error}");
    assert!(!directory.path().join("x.nii").exists());
}

#[test]
fn a_mask_of_a_big_endian_volume_is_written_big_endian() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/type_float32_big.nii.gz"));
    let like = read_volume(path, &ReadOptions::default());
    let like = like.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.nii");
    write_mask(&path, &[1; 210], &like).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[..4], 348_i32.to_be_bytes());
    assert_eq!(read_volume(&path, &ReadOptions::default()).unwrap().geometry, like.geometry);
}

#[test]
fn intensities_are_clipped_to_the_stored_range_and_not_a_number_is_air() {
    let directory = tempfile::tempdir().unwrap();
    let values = [-3024.0, f64::NAN, f64::NEG_INFINITY, -1024.0, 40.4, 40.6, 3071.0, 30_000.0, f64::INFINITY];
    let file = Nifti::float64([3, 3, 1], |x, y, _| values[3 * y + x]);
    let settings = StoreSettings { slice_size: 3, ..StoreSettings::default() };
    let volume = read(directory.path(), &file);
    assert_eq!(image_slices(&volume, &settings).unwrap().0, [-1024, -1024, -1024, -1024, 40, 41, 3071, 3071, 3071]);
    let settings = StoreSettings { window_at: WindowAt::Prepare, window: Window::default(), ..settings };
    assert_eq!(image_slices(&volume, &settings).unwrap().0, [-160, -160, -160, -160, 40, 41, 240, 240, 240]);
}

#[test]
fn the_window_before_the_resize_is_not_the_window_after_it() {
    // Two pixels of -1000 and 240 HU become one: 40 HU below the window's middle if clipped first, air if not.
    let directory = tempfile::tempdir().unwrap();
    let file = Nifti::int16([16, 16, 1], |x, _, _| if x % 2 == 0 { -1000 } else { 240 });
    let volume = read(directory.path(), &file);
    let load = StoreSettings { slice_size: 8, ..StoreSettings::default() };
    let prepare = StoreSettings { window_at: WindowAt::Prepare, ..load.clone() };
    assert_eq!(image_slices(&volume, &load).unwrap().0[4], -380);
    assert_eq!(image_slices(&volume, &prepare).unwrap().0[4], 40);
}
