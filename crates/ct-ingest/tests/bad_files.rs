//! Files that break readers: each ends in an error that says why, none in a panic or a huge allocation.

mod common;

use common::{Nifti, gzip, lps};
use ct_ingest::{GeometryTolerance, IngestError, ReadOptions, Volume, check_same_geometry, mask_slices, read_volume};
use ct_ingest::{SlicePlan, StoreSettings, image_slices};
use proptest::prelude::*;

struct Scratch(tempfile::TempDir, std::cell::Cell<usize>);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), std::cell::Cell::new(0))
    }

    fn read(&self, bytes: &[u8]) -> Result<Volume, IngestError> {
        // A volume may still be mapped: each gets a file of its own.
        self.1.set(self.1.get() + 1);
        let path = self.0.path().join(format!("file{}.nii.gz", self.1.get()));
        std::fs::write(&path, bytes).unwrap();
        read_volume(&path, &ReadOptions::default())
    }

    fn refusal(&self, bytes: &[u8]) -> String {
        self.read(bytes).unwrap_err().to_string()
    }

    fn volume(&self, name: &str, file: &Nifti) -> Volume {
        self.1.set(self.1.get() + 1);
        let path = self.0.path().join(format!("{}/{name}", self.1.get()));
        file.save(&path);
        read_volume(&path, &ReadOptions::default()).unwrap()
    }
}

fn small() -> Nifti {
    Nifti::int16([4, 3, 2], |x, y, z| (100 * z + 10 * y + x) as i16)
}

fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = small().bytes();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn a_missing_file_and_a_directory_are_named() {
    let scratch = Scratch::new();
    let message = read_volume(&scratch.0.path().join("absent.nii"), &ReadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("absent.nii': No such file"), "{message}");
    assert!(read_volume(scratch.0.path(), &ReadOptions::default()).is_err());
}

#[test]
fn gzip_is_known_by_content_and_may_have_several_members() {
    let scratch = Scratch::new();
    let bytes = small().bytes();
    let plain = scratch.read(&bytes).unwrap();
    assert_eq!(scratch.read(&gzip(&bytes)).unwrap().voxels, plain.voxels);
    let members = [gzip(&bytes[..100]), gzip(&bytes[100..])].concat();
    assert_eq!(scratch.read(&members).unwrap().voxels, plain.voxels);
    assert_eq!(plain.voxels.get(23), 123.0);
}

#[test]
fn files_that_end_early_are_truncated_wherever_they_end() {
    let scratch = Scratch::new();
    let bytes = small().bytes();
    assert!(scratch.refusal(b"").contains("is truncated: it has 0 bytes of header, expected 348"));
    assert!(scratch.refusal(&bytes[..347]).contains("347 bytes of header, expected 348"));
    assert!(scratch.refusal(&bytes[..bytes.len() - 1]).contains("47 bytes of voxels, expected 48"));
    let packed = gzip(&bytes);
    for end in 2..packed.len() {
        let message = scratch.refusal(&packed[..end]);
        assert!(message.contains("truncated") || message.contains("can't be decompressed"), "{end}: {message}");
    }
    // Whole as gzip, but not as a volume.
    assert!(scratch.refusal(&gzip(&bytes[..bytes.len() - 8])).contains("40 bytes of voxels, expected 48"));
}

#[test]
fn every_flipped_bit_and_every_cut_is_read_or_refused_and_gzip_lets_none_through() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.nii");
    let read = |bytes: &[u8]| {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        read_volume(&path, &ReadOptions::default())
    };
    let plain = small().bytes();
    let packed = gzip(&plain);
    let (expected, header) = (read(&plain).unwrap(), 10);
    for bytes in [&plain, &packed] {
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let found = read(&damaged);
            // What gzip's own header says (time, system) changes nothing; its checksum finds everything else.
            if let (true, Ok(found)) = (damaged[..2] == packed[..2] && bit / 8 >= header, found) {
                assert_eq!(found.voxels, expected.voxels, "bit {bit}");
            }
        }
    }
}

#[test]
fn a_gzip_file_with_a_wrong_checksum_is_refused() {
    let scratch = Scratch::new();
    let mut packed = gzip(&small().bytes());
    let checksum = packed.len() - 6;
    packed[checksum] ^= 1;
    assert!(scratch.refusal(&packed).contains("can't be decompressed"));
}

#[test]
fn headers_that_promise_more_than_the_file_has_ask_for_no_memory() {
    let scratch = Scratch::new();
    // 32767³ voxels of 2 bytes are 70 terabytes.
    let huge: Vec<u8> = [i16::MAX; 3].iter().flat_map(|length| length.to_le_bytes()).collect();
    assert!(scratch.refusal(&with(42, &huge)).contains("is truncated"));
    assert!(scratch.refusal(&gzip(&with(42, &huge))).contains("is truncated"));
    assert!(scratch.refusal(&with(108, &9e8_f32.to_le_bytes())).contains("is truncated"));
}

#[test]
fn thousands_of_slices_of_a_pixel_are_refused_before_they_grow() {
    let scratch = Scratch::new();
    let column = scratch.volume("column.nii", &Nifti::int16([1, 1, 30_000], |_, _, z| z as i16 - 500));
    let message = image_slices(&column, &StoreSettings::default()).unwrap_err().to_string();
    assert!(message.contains("holds 30000 slices that would become 3750 MB of 256 x 256 pixels"), "{message}");
}

#[test]
fn slices_of_more_pixels_than_any_scanner_has_are_refused_before_they_are_read() {
    // 9000 x 9000 pixels in 81 MB of bytes.
    let wide = Scratch::new().volume("wide.nii", &Nifti::uint8([9000, 9000, 1], |_, _, _| 0));
    let message = image_slices(&wide, &StoreSettings::default()).unwrap_err().to_string();
    assert!(message.contains("holds slices of 9000 x 9000 pixels, expected slices of a CT"), "{message}");
}

#[test]
fn what_is_not_nifti_1_says_what_it_is() {
    let scratch = Scratch::new();
    assert!(
        scratch
            .refusal(&[0xfe; 400])
            .contains("is not a NIfTI, NRRD or MetaImage file: its header begins with -16843010")
    );
    assert!(scratch.refusal(&with(0, &540_i32.to_le_bytes())).contains("bytes of header, expected 540"));
    assert!(scratch.refusal(&with(344, b"ni1\0")).contains("holds the header of a .hdr/.img pair"));
    assert!(scratch.refusal(&with(344, &[0; 4])).contains("holds an Analyze 7.5 header"));
    assert!(scratch.refusal(&with(344, b"n+9\0")).contains("its magic is \"n+9\\\\x00\""));
    assert!(scratch.refusal(&with(40, &0_i16.to_le_bytes())).contains("dim[0]"));
    assert!(scratch.refusal(&with(40, &9_i16.to_le_bytes())).contains("dim[0]"));
    assert!(scratch.refusal(&with(42, &(-4_i16).to_le_bytes())).contains("a dimension of -4"));
    assert!(scratch.refusal(&with(42, &0_i16.to_le_bytes())).contains("a dimension of 0"));
    assert!(scratch.refusal(&with(108, &4_f32.to_le_bytes())).contains("voxels begin at byte 4, expected 352"));
    assert!(scratch.refusal(&with(108, &f32::NAN.to_le_bytes())).contains("voxels begin at byte NaN"));
}

#[test]
fn volumes_that_are_no_ct_say_what_they_hold() {
    let scratch = Scratch::new();
    let four = [4_i16, 4, 3, 2, 5].iter().flat_map(|length| length.to_le_bytes()).collect::<Vec<u8>>();
    assert!(scratch.refusal(&with(40, &four)).contains("holds 4 dimensions of [4, 3, 2, 5], expected three"));
    for (code, name) in
        [(128_i16, "colours"), (32, "complex numbers"), (1792, "complex numbers"), (1536, "floats of 128 bits")]
    {
        assert!(scratch.refusal(&with(70, &code.to_le_bytes())).contains(&format!("holds voxels of {name}")));
    }
    assert!(scratch.refusal(&with(70, &77_i16.to_le_bytes())).contains("voxels of an unknown type (datatype 77)"));
}

#[test]
fn a_fourth_dimension_of_one_is_no_dimension() {
    let four = [4_i16, 4, 3, 2, 1].iter().flat_map(|length| length.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(Scratch::new().read(&with(40, &four)).unwrap().shape, [4, 3, 2]);
}

#[test]
fn affines_that_flatten_space_are_refused() {
    let scratch = Scratch::new();
    let mut flat = small();
    flat.affine[1] = flat.affine[0];
    assert!(scratch.refusal(&flat.bytes()).contains("no usable geometry: its sform gives the affine"));
    flat.affine = [[f32::NAN; 4]; 3];
    assert!(scratch.refusal(&flat.bytes()).contains("no usable geometry"));
    flat.affine = lps([1.0, 1.0, 1.0]);
    flat.affine[0][3] = f32::INFINITY;
    assert!(scratch.refusal(&flat.bytes()).contains("no usable geometry"));
}

#[test]
fn scaling_applies_unless_its_slope_is_zero_or_not_a_number() {
    let scratch = Scratch::new();
    let scaled = |slope: f32, inter: f32| {
        let fields = [slope.to_le_bytes(), inter.to_le_bytes()].concat();
        scratch.read(&with(112, &fields)).unwrap().voxels.get(23)
    };
    assert_eq!(scaled(2.0, -1024.0), 123.0 * 2.0 - 1024.0);
    assert_eq!(scaled(0.0, -1024.0), 123.0);
    assert_eq!(scaled(f32::NAN, f32::NAN), 123.0);
    assert_eq!(scaled(2.0, f32::NAN), 246.0);
}

#[test]
fn unit_affines_at_the_origin_have_no_valid_millimetres() {
    let scratch = Scratch::new();
    let mut file = small();
    file.affine = [[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
    assert!(!scratch.volume("a.nii", &file).geometry.spacing_valid);
    file.affine[2][3] = -371.5;
    assert!(scratch.volume("b.nii", &file).geometry.spacing_valid);
}

#[test]
fn image_and_mask_on_other_grids_are_refused_with_both_names_and_values() {
    let scratch = Scratch::new();
    let image = scratch.volume("image.nii", &small());
    let refusal = |mask: &Nifti| {
        check_same_geometry(image.grid(), scratch.volume("mask.nii", mask).grid(), GeometryTolerance::default())
    };
    refusal(&small()).unwrap();

    let shape = refusal(&Nifti::uint8([4, 2, 3], |_, _, _| 0)).unwrap_err().to_string();
    assert!(
        shape.contains("image.nii' and mask '") && shape.contains("mask.nii' differ in shape: [4, 3, 2] and [4, 2, 3]")
    );
    let mut spaced = small();
    spaced.affine = lps([0.8, 0.8, 2.5]);
    let message = refusal(&spaced).unwrap_err().to_string();
    // One step of two slices, 0.5 mm of 2 too long.
    assert!(message.contains("differ in spacing (mm): [0.8") && message.contains(", 0.2500 voxels apart"), "{message}");
    let mut moved = small();
    moved.affine[2][3] += 2.0;
    let message = refusal(&moved).unwrap_err().to_string();
    assert!(message.contains("differ in affine") && message.contains("-400") && message.contains("-398"), "{message}");
    // One voxel is more than any tolerance, so none is offered.
    assert!(message.contains(", 1.0 voxels apart at the farthest corner (at most 0.05 are allowed);"), "{message}");
    let mut turned = small();
    turned.affine[0][0] *= -1.0;
    assert!(refusal(&turned).unwrap_err().to_string().contains("RPS from the sform"));
}

#[test]
fn image_and_mask_may_be_a_twentieth_of_a_voxel_apart_or_as_far_as_the_manifest_says() {
    let scratch = Scratch::new();
    let wide = || Nifti::int16([101, 3, 2], |_, _, _| 0);
    let image = scratch.volume("image.nii", &wide());
    let compare = |change: &dyn Fn(&mut Nifti), tolerance: GeometryTolerance| {
        let mut mask = wide();
        change(&mut mask);
        check_same_geometry(image.grid(), scratch.volume("mask.nii", &mask).grid(), tolerance)
            .map_err(|error| error.to_string())
    };
    let usual = GeometryTolerance::default();
    let half = GeometryTolerance::try_from(0.5).unwrap();
    // Columns are 0.8 mm apart.
    compare(&|mask| mask.affine[0][3] += 0.8 * 0.04, usual).unwrap();
    let message = compare(&|mask| mask.affine[0][3] += 0.8 * 0.06, usual).unwrap_err();
    assert!(message.contains("differ in affine") && message.contains(", 0.0600 voxels apart"), "{message}");
    assert!(message.contains("(at most 0.05 are allowed; if they belong together, say so by `geometry_tolerance`"));
    compare(&|mask| mask.affine[0][3] += 0.8 * 0.06, half).unwrap();
    assert!(compare(&|mask| mask.affine[0][3] += 0.8 * 0.51, half).is_err());
    // Slices are 2 mm apart: the same millimetres are fewer voxels.
    compare(&|mask| mask.affine[2][3] += 0.08, usual).unwrap();
    assert!(compare(&|mask| mask.affine[0][3] += 0.08, usual).is_err());
    // At the first voxel nothing, at the hundredth 0.1 voxel: the far corner decides.
    let message = compare(&|mask| mask.affine[0][0] *= 1.001, usual).unwrap_err();
    assert!(message.contains("differ in spacing (mm)") && message.contains(", 0.1000 voxels apart"), "{message}");
    compare(&|mask| mask.affine[0][0] *= 1.0004, usual).unwrap();
}

#[test]
fn labels_that_were_floats_in_a_header_of_whole_numbers_are_taken_within_half_a_step() {
    let scratch = Scratch::new();
    // What nibabel 5.4.2 writes for the labels 0, 1 and 2 as float32 into a header of uint8 and of int16: slope, intercept, and
    // the three whole numbers. It reads 0.99607849 and 1.00001526 for 1.
    let uint8 = (Nifti::uint8([4, 4, 2], |x, _, _| [0, 127, 255, 0][x]), 0.007_843_138_f32, 0.0_f32);
    let int16 = (Nifti::int16([4, 4, 2], |x, _, _| [-32768, 0, 32767, -32768][x]), 3.051_804_4e-5_f32, 1.000_015_3_f32);
    let slices = |(file, slope, inter): &(Nifti, f32, f32)| {
        let mut bytes = file.bytes();
        bytes[112..116].copy_from_slice(&slope.to_le_bytes());
        bytes[116..120].copy_from_slice(&inter.to_le_bytes());
        let mask = scratch.read(&bytes).unwrap();
        let plan = SlicePlan::new(&mask.geometry, mask.shape, 4);
        mask_slices(&[mask], &plan, &[0, 1, 2], &[1]).map_err(|error| error.to_string())
    };
    for scaled in [&uint8, &int16] {
        assert_eq!(slices(scaled).unwrap()[..4], [0, 1, 0, 0]);
    }
    // A probability is no label, and a slope of more than a label tells none apart: the cause is named.
    let probability = (Nifti::uint8([4, 4, 2], |x, _, _| [0, 128, 255, 0][x]), 1.0 / 255.0, 0.0);
    let message = slices(&probability).unwrap_err();
    assert!(
        message.contains("has the value 0.50196") && message.contains("floats were saved in a header"),
        "{message}"
    );
    let coarse = (Nifti::uint8([4, 4, 2], |_, _, _| 1), 1.5, 0.0);
    assert!(slices(&coarse).unwrap_err().contains("its header makes 1.5 x + 0 of the whole numbers x"));
}

#[test]
fn masks_of_whole_numbers_are_taken_in_any_type_and_others_refused() {
    let scratch = Scratch::new();
    let slices = |mask: &Nifti| {
        let mask = scratch.volume("mask.nii", mask);
        let plan = SlicePlan::new(&mask.geometry, mask.shape, 4);
        mask_slices(&[mask], &plan, &[0, 1, 2], &[1, 2])
    };
    let label = |x: usize, y: usize, z: usize| (x + y + z) % 3;
    let bytes = slices(&Nifti::uint8([4, 4, 2], |x, y, z| label(x, y, z) as u8)).unwrap();
    assert_eq!(bytes, slices(&Nifti::float64([4, 4, 2], |x, y, z| label(x, y, z) as f64)).unwrap());
    assert_eq!(bytes, slices(&Nifti::int16([4, 4, 2], |x, y, z| label(x, y, z) as i16)).unwrap());
    assert_eq!(bytes[..4], [0, 1, 1, 0]);
    for wrong in [0.5, 3.0, -1.0, f64::NAN, 1e30] {
        let message = slices(&Nifti::float64([4, 4, 2], |_, _, _| wrong)).unwrap_err().to_string();
        assert!(message.contains("expected one of the manifest's labels [0, 1, 2]"), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_header_makes_the_reader_panic(
        changes in prop::collection::vec((0_usize..352, any::<u8>()), 1..12), cut in 0_usize..500, packed: bool,
    ) {
        let mut bytes = small().bytes();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(348));
        let scratch = Scratch::new();
        let _ = scratch.read(&if packed { gzip(&bytes) } else { bytes });
    }
}
