//! NRRD and MetaImage against what SimpleITK and pynrrd make of them (`fixtures/make_nrrd_fixtures.py`), and files that are
//! wrong.

mod common;

use common::{gzip, test_data};
use ct_ingest::{GeometryTolerance, IngestError, ReadOptions, Volume, check_same_geometry, read_volume, write_mask};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Expected {
    files: Vec<ExpectedFile>,
    spellings: BTreeMap<String, Option<String>>,
    flair: Flair,
}

#[derive(Deserialize)]
struct ExpectedFile {
    file: String,
    scalar: String,
    shape: [usize; 3],
    affine: [[f64; 4]; 4],
    /// The bytes of 64-bit floats, the lowest first, in hexadecimal.
    voxels: String,
}

#[derive(Deserialize)]
struct Flair {
    shape: [usize; 3],
    affine: [[f64; 4]; 4],
    /// Of the voxels, which are bytes.
    sha256: String,
    sum: f64,
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(fixture("nrrd_expected.json")).unwrap()).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name)
}

fn read(path: &Path) -> Result<Volume, IngestError> {
    read_volume(path, &ReadOptions::default())
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn same_affine(ours: &[[f64; 4]; 4], theirs: &[[f64; 4]; 4], within: f64) -> bool {
    ours.iter().flatten().zip(theirs.iter().flatten()).all(|(a, b)| (a - b).abs() < within)
}

#[test]
fn every_type_encoding_order_and_direction_is_read_as_simpleitk_reads_it() {
    let files = expected().files;
    assert!(files.len() > 60, "{}", files.len());
    for ExpectedFile { file, scalar, shape, affine, voxels } in files {
        let volume = read(&fixture("nrrd").join(&file)).unwrap();
        assert_eq!(format!("{:?}", volume.voxels.scalar()), scalar, "{file}");
        assert_eq!(volume.shape, shape, "{file}");
        assert!(same_affine(&volume.geometry.affine, &affine, 1e-5), "{file}: {} {affine:?}", volume.geometry);
        assert_eq!(hex(volume.voxels.iter().flat_map(f64::to_le_bytes)), voxels, "{file}");
        let placed = volume.geometry.affine_kind.name() == "directions";
        let assumed = volume.warnings.iter().any(|warning| warning.contains("LPS is assumed"));
        assert_eq!(assumed, !placed, "{file}: {:?}", volume.warnings);
    }
}

#[test]
fn every_spelling_of_a_type_is_read_as_simpleitk_reads_it() {
    let scratch = Scratch::new();
    for (spelling, scalar) in expected().spellings {
        let header =
            format!("NRRD0004\ntype: {spelling}\ndimension: 3\nsizes: 1 1 1\nencoding: raw\nendian: little\n\n");
        let ours = scratch.read("a.nrrd", &[header.as_bytes(), &[0; 8]].concat());
        assert_eq!(ours.ok().map(|volume| format!("{:?}", volume.voxels.scalar())), scalar, "{spelling}");
    }
}

#[test]
fn a_real_volume_is_what_simpleitk_and_pynrrd_read() {
    let Some(path) = test_data("a_real_volume_is_what_simpleitk_and_pynrrd_read", "nifti-samples/niivue/FLAIR.nrrd")
    else {
        return;
    };
    let Flair { shape, affine, sha256, sum } = expected().flair;
    let volume = read(&path).unwrap();
    assert_eq!((volume.shape, volume.geometry.orientation.to_string().as_str()), (shape, "RAS"));
    assert!(same_affine(&volume.geometry.affine, &affine, 1e-9), "{}", volume.geometry);
    let bytes: Vec<u8> = volume.voxels.iter().map(|value| value as u8).collect();
    assert_eq!((hex(Sha256::digest(&bytes)), volume.voxels.iter().sum::<f64>()), (sha256, sum));
}

#[test]
fn a_mask_of_such_a_volume_is_nifti_in_the_same_place() {
    let scratch = Scratch::new();
    for name in ["oblique.nrrd", "turned.mha", "detached_gzip.nhdr"] {
        let volume = read(&fixture("nrrd").join(name)).unwrap();
        let path = scratch.0.path().join(format!("{name}.nii.gz"));
        let mask: Vec<u8> = (0..24).collect();
        write_mask(&path, &mask, &volume).unwrap();
        let again = read(&path).unwrap();
        check_same_geometry(volume.grid(), again.grid(), GeometryTolerance::default()).unwrap();
        assert!(again.voxels.iter().map(|value| value as u8).eq(mask), "{name}");
    }
}

#[test]
fn the_checksum_of_a_detached_volume_is_that_of_both_files() {
    let scratch = Scratch::new();
    let header = NRRD.replace("encoding", "data file: a.raw\nencoding");
    let sha256 = |header: &str, data: &[u8]| {
        scratch.write("a.raw", data);
        scratch.read("a.nhdr", header.as_bytes()).unwrap().sha256
    };
    let both = sha256(&header, &[0; 48]);
    assert_eq!(both, sha256(&header, &[0; 48]));
    assert_ne!(both, sha256(&header, &[1; 48]));
    assert_ne!(both, sha256(&header.replace("spacings: 1 1 2", "spacings: 1 1 3"), &[0; 48]));
}

#[test]
fn raw_voxels_that_look_like_gzip_are_voxels() {
    let scratch = Scratch::new();
    let data: Vec<u8> = [0x1f, 0x8b].into_iter().chain(2..48).collect();
    scratch.write("a.raw", &data);
    let volume = scratch.read("a.nhdr", NRRD.replace("encoding", "data file: a.raw\nencoding").as_bytes()).unwrap();
    assert_eq!(volume.voxels.get(0), f64::from(0x8b1f_u16.cast_signed()));
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        // A volume may still be mapped: the old file stays what it was.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn read(&self, name: &str, bytes: &[u8]) -> Result<Volume, IngestError> {
        read(&self.write(name, bytes))
    }
}

const NRRD: &str =
    "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nspacings: 1 1 2\nendian: little\nencoding: raw\n\n";
const SPACE: &str = "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (1,2,3)";
const META: &str = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementSpacing = 1 1 2\n\
                    BinaryDataByteOrderMSB = False\nElementType = MET_SHORT\nElementDataFile = LOCAL\n";

/// The name of the error's variant and its message without the file's name.
fn refusal(scratch: &Scratch, name: &str, header: &str, data: &[u8]) -> (String, String) {
    let error = scratch.read(name, &[header.as_bytes(), data].concat()).unwrap_err();
    let variant = format!("{error:?}").split([' ', '{', '(']).next().unwrap_or_default().to_owned();
    (variant, error.to_string().replace(&format!("{}/", scratch.0.path().display()), ""))
}

#[test]
fn nrrd_headers_that_are_wrong_say_what_was_found_and_expected() {
    let scratch = Scratch::new();
    scratch.read("a.nrrd", &[NRRD.as_bytes(), &[0; 48]].concat()).unwrap();
    let spaced = NRRD.replace("spacings: 1 1 2", SPACE);
    scratch.read("a.nrrd", &[spaced.as_bytes(), &[0; 48]].concat()).unwrap();
    let cases = [
        (NRRD, "NRRD0004", "NRRD0009", "Unsupported", "NRRD with the first line 'NRRD0009', expected a version"),
        (NRRD, "type: short", "type: char", "Header", "its field 'type' is 'char', expected one of the format"),
        (NRRD, "type: short", "type: block", "Unsupported", "voxels of an opaque type ('block')"),
        (NRRD, "type: short\n", "", "Header", "it has no field 'type'"),
        (NRRD, "type: short", "type short", "Header", "line 2 is 'type short', expected 'field: value'"),
        (NRRD, "type: short", "type: short\nType: short", "Header", "its field 'Type' occurs twice"),
        (NRRD, "encoding: raw", "encoding: bzip2", "Unsupported", "in the encoding 'bzip2', expected raw or gzip"),
        (NRRD, "encoding: raw", "encoding: ascii", "Unsupported", "in the encoding 'ascii', expected raw or gzip"),
        (NRRD, "encoding: raw", "encoding: hex", "Unsupported", "in the encoding 'hex', expected raw or gzip"),
        (NRRD, "encoding: raw", "encoding: lzw", "Header", "its field 'encoding' is 'lzw', expected 'raw' or 'gzip'"),
        (NRRD, "encoding: raw", "encoding: gzip", "Gzip", "can't be decompressed"),
        (NRRD, "endian: little\n", "", "Header", "it has no field 'endian'"),
        (NRRD, "little", "middle", "Header", "its field 'endian' is 'middle', expected 'little' or 'big'"),
        (NRRD, "sizes: 4 3 2", "sizes: 4 3", "Header", "'sizes' is '4 3', expected 3 (the dimension) numbers above 0"),
        (NRRD, "sizes: 4 3 2", "sizes: 4 3 0", "Header", "'sizes' is '4 3 0', expected 3"),
        (NRRD, "sizes: 4 3 2", "sizes: 4 -3 2", "Header", "'sizes' is '4 -3 2', expected 3"),
        (NRRD, "4 3 2", "4294967296 4294967296 4294967296", "Header", "which no file can hold"),
        (
            NRRD,
            "4 3 2",
            "65536 65536 65536",
            "Truncated",
            "is truncated: it has 48 bytes of voxels, expected 562949953421312",
        ),
        (
            NRRD,
            "dimension: 3\nsizes: 4 3 2\nspacings: 1 1 2",
            "dimension: 2\nsizes: 12 2",
            "Unsupported",
            "2 dimensions of [12, 2], expected three",
        ),
        (
            NRRD,
            "dimension: 3\nsizes: 4 3 2\nspacings: 1 1 2",
            "dimension: 4\nsizes: 4 3 2 5",
            "Unsupported",
            "4 dimensions of [4, 3, 2, 5], expected three, or four if",
        ),
        (
            NRRD,
            "dimension: 3\nsizes: 4 3 2\nspacings: 1 1 2",
            "dimension: 4\nsizes: 3 4 3 2\nkinds: vector domain domain domain",
            "Unsupported",
            "4 dimensions of [3, 4, 3, 2] (kinds vector domain domain domain)",
        ),
        (
            NRRD,
            "sizes",
            "kinds: RGB-color domain domain\nsizes",
            "Unsupported",
            "an axis of kind 'rgb-color', expected three axes of space",
        ),
        (NRRD, "sizes", "kinds: domain domain\nsizes", "Header", "'kinds' is 'domain domain', expected 3 words"),
        (NRRD, "1 1 2", "1 -1 2", "Header", "'spacings' is '1 -1 2', expected numbers above 0"),
        (
            NRRD,
            "sizes",
            "line skip: 3\nsizes",
            "Unsupported",
            "lines before its voxels ('line skip: 3'), expected none",
        ),
        (NRRD, "sizes", "byte skip: -2\nsizes", "Header", "'byte skip' is '-2', expected 0 or more, or -1"),
        (NRRD, "sizes", "byte skip: 1\nsizes", "Truncated", "47 bytes of voxels, expected 48"),
        (NRRD, "sizes", "byte skip: 9223372036854775807\nsizes", "Truncated", "0 bytes of voxels, expected 48"),
        (NRRD, "encoding: raw", "encoding: gzip\nbyte skip: -1", "Header", "'byte skip' is '-1'"),
        (NRRD, "encoding: raw", "encoding: gzip\nbyte skip: 9223372036854775807", "Truncated", "0 bytes of voxels"),
        (NRRD, "encoding: raw\n\n", "encoding: raw\n", "Header", ""),
        (
            NRRD,
            "sizes",
            "data file: ../a.raw\nsizes",
            "Unsupported",
            "a data file in another folder (by a name with a slash, or none), expected one data file in the header's own folder",
        ),
        (NRRD, "sizes", "data file: /etc/passwd\nsizes", "Unsupported", "a data file in another folder"),
        (NRRD, "sizes", "data file: ..\nsizes", "Unsupported", "a data file in another folder"),
        (NRRD, "sizes", "data file: C:\\a.raw\nsizes", "Unsupported", "a data file in another folder"),
        (NRRD, "sizes", "data file: LIST\nsizes", "Unsupported", "a list of data files, expected one data file"),
        (NRRD, "sizes", "data file: a%03d.raw 1 9 1\nsizes", "Unsupported", "a pattern of data files"),
        (NRRD, "sizes", "data file: absent.raw\nsizes", "Io", "cannot read 'absent.raw': No such file"),
        (&spaced, "space: LPS\n", "", "Header", "it has no field 'space'"),
        (&spaced, "space: LPS", "space dimension: 3", "Unsupported", "directions in a space without a name"),
        (
            &spaced,
            "space: LPS",
            "space: scanner-xyz",
            "Unsupported",
            "in the space 'scanner-xyz', expected left-posterior-superior",
        ),
        (&spaced, "(0,1,0)", "none", "Unsupported", "an axis without a direction in space ('none')"),
        (
            &spaced,
            "(0,1,0)",
            "(0,1)",
            "Header",
            "'space directions' is '(1,0,0) (0,1) (0,0,2)', expected 3 vectors (a,b,c)",
        ),
        (&spaced, "(0,1,0)", "(0,1,x)", "Header", "expected 3 vectors"),
        (&spaced, "(0,1,0)", "(1,0,0)", "Geometry", "no usable geometry: its directions give the affine"),
        (&spaced, "(0,1,0)", "(nan,nan,nan)", "Geometry", "no usable geometry"),
        (&spaced, "(0,1,0)", "(0.5,1,0)", "Geometry", "degrees apart"),
        (&spaced, "(1,2,3)", "(1,2)", "Header", "'space origin' is '(1,2)', expected one vector"),
        (&spaced, "(1,2,3)", "(1,2,inf)", "Geometry", "no usable geometry"),
        (
            &spaced,
            "space origin",
            "space units: \"um\" \"um\" \"um\"\nspace origin",
            "Unsupported",
            "lengths in the unit 'um', expected millimetres",
        ),
    ];
    for (header, from, to, variant, message) in cases {
        assert!(header.contains(from), "{from}");
        let found = refusal(&scratch, "a.nrrd", &header.replacen(from, to, 1), &[0; 48]);
        assert!(
            found.0 == variant && found.1.contains(message),
            "{from} -> {to}: {found:?}, expected {variant}: {message}"
        );
    }
}

#[test]
fn metaimage_headers_that_are_wrong_say_what_was_found_and_expected() {
    let scratch = Scratch::new();
    scratch.read("a.mha", &[META.as_bytes(), &[0; 48]].concat()).unwrap();
    let cases = [
        ("= Image", "= Tube", "Unsupported", "a MetaIO object of type 'Tube', expected an image"),
        ("NDims = 3", "NDims = 2", "Unsupported", "2 dimensions, expected three"),
        ("NDims = 3", "NDims = three", "Header", "'NDims' is 'three', expected a number"),
        ("NDims = 3", "NDims = 4", "Header", "'DimSize' is '4 3 2', expected 4 (NDims) numbers above 0"),
        ("NDims = 3\nDimSize = 4 3 2", "NDims = 4\nDimSize = 4 3 2 7", "Unsupported", "4 dimensions of [4, 3, 2, 7]"),
        ("4 3 2", "4 0 2", "Header", "'DimSize' is '4 0 2'"),
        ("4 3 2", "4294967296 4294967296 4294967296", "Header", "which no file can hold"),
        ("4 3 2", "65536 65536 65536", "Truncated", "48 bytes of voxels, expected 562949953421312"),
        ("4 3 2", "4 3 3", "Truncated", "48 bytes of voxels, expected 72"),
        ("MET_SHORT", "MET_SHORT_ARRAY", "Unsupported", "voxels of the type MET_SHORT_ARRAY, expected one number"),
        ("MET_SHORT", "SHORT", "Header", "'ElementType' is 'SHORT', expected one of MetaIO"),
        ("ElementType", "ElementNumberOfChannels = 3\nElementType", "Unsupported", "voxels of 3 numbers, expected one"),
        ("ElementType", "BinaryData = False\nElementType", "Unsupported", "voxels written as text"),
        ("ElementType", "ElementToIntensityFunctionSlope = 2\nElementType", "Unsupported", "values that are scaled"),
        ("ElementType", "DistanceUnits = um\nElementType", "Unsupported", "lengths in the unit 'um'"),
        (
            "ElementType",
            "CompressedData = Maybe\nElementType",
            "Header",
            "'CompressedData' is 'Maybe', expected 'True'",
        ),
        ("ElementType", "CompressedData = True\nElementType", "Gzip", "can't be decompressed"),
        (
            "ElementType",
            "CompressedData = True\nCompressedDataSize = 99\nElementType",
            "Truncated",
            "48 bytes of voxels, expected 99",
        ),
        (
            "ElementType",
            "CompressedData = True\nCompressedDataSize = x\nElementType",
            "Header",
            "'CompressedDataSize' is 'x'",
        ),
        ("ElementType", "CompressedData = True\nHeaderSize = -1\nElementType", "Header", "'HeaderSize' is '-1'"),
        ("ElementType", "HeaderSize = 5\nElementType", "Header", "'HeaderSize' is '5', expected 0; more if"),
        ("ElementType", "ElementType = MET_INT\nElementType", "Header", "its field 'ElementType' occurs twice"),
        ("ElementType", "no key\nElementType", "Header", "line 6 is 'no key', expected 'Key = Value'"),
        ("ElementSpacing = 1 1 2", "ElementSpacing = 1 1", "Header", "'ElementSpacing' is '1 1', expected 3 numbers"),
        ("ElementSpacing = 1 1 2", "ElementSpacing = 1 0 2", "Header", "its spacing is [1.0, 0.0, 2.0], expected"),
        (
            "ElementType",
            "TransformMatrix = 1 0 0 0\nElementType",
            "Header",
            "'TransformMatrix' is '1 0 0 0', expected 9 numbers",
        ),
        ("ElementType", "TransformMatrix = 1 0 0 1 0 0 0 0 1\nElementType", "Geometry", "no usable geometry"),
        ("ElementType", "TransformMatrix = nan 0 0 0 1 0 0 0 1\nElementType", "Geometry", "no usable geometry"),
        ("= LOCAL", "= ../a.raw", "Unsupported", "a data file in another folder"),
        ("= LOCAL", "= LIST", "Unsupported", "a list of data files"),
        ("= LOCAL", "= a%d.raw 1 9 1", "Unsupported", "a pattern of data files"),
        ("= LOCAL", "= absent.raw", "Io", "cannot read 'absent.raw': No such file"),
        ("ElementDataFile", "Else", "Header", ""),
    ];
    for (from, to, variant, message) in cases {
        assert!(META.contains(from), "{from}");
        let found = refusal(&scratch, "a.mha", &META.replacen(from, to, 1), &[0; 48]);
        assert!(
            found.0 == variant && found.1.contains(message),
            "{from} -> {to}: {found:?}, expected {variant}: {message}"
        );
    }
}

#[test]
fn headers_without_an_end_are_refused() {
    let scratch = Scratch::new();
    let comments = "# nothing\n".repeat(110_000);
    let found = refusal(&scratch, "a.nrrd", &format!("NRRD0004\n{comments}"), &[]);
    assert!(found.1.contains("no empty line ends it within 1048576 bytes"), "{found:?}");
    let fields = (0..70_000).fold(String::new(), |text, number| text + &format!("Key{number} = nothing\n"));
    let found = refusal(&scratch, "a.mha", &format!("NDims = 3\n{fields}"), &[]);
    assert!(found.1.contains("no field 'ElementDataFile' ends it within 1048576 bytes"), "{found:?}");
}

#[test]
fn compression_twice_is_refused() {
    let scratch = Scratch::new();
    let header = NRRD.replace("raw", "gzip");
    let error = scratch.read("a.nrrd.gz", &gzip(&[header.as_bytes(), &gzip(&[0; 48])].concat())).unwrap_err();
    assert!(error.to_string().contains("a file that is compressed once more, expected one compression"), "{error}");
}

#[test]
fn files_that_end_early_are_errors_wherever_they_end() {
    let scratch = Scratch::new();
    for name in ["gzip.nrrd", "oblique.nrrd", "zlib.mha", "oblique.mha", "whole.nrrd.gz"] {
        let bytes = std::fs::read(fixture("nrrd").join(name)).unwrap();
        for end in 0..bytes.len() {
            assert!(scratch.read(name, &bytes[..end]).is_err(), "{name} cut to {end} bytes");
        }
        assert!(scratch.read(name, &bytes).is_ok());
    }
}

#[test]
fn no_changed_byte_makes_the_readers_panic() {
    let scratch = Scratch::new();
    let names = ["gzip.nrrd", "oblique.nrrd", "four_in_front.nrrd", "skip_to_end.nrrd", "zlib.mha", "four.mha"];
    for name in names {
        let bytes = std::fs::read(fixture("nrrd").join(name)).unwrap();
        for at in 0..bytes.len() {
            for byte in [bytes[at] ^ 1, bytes[at] ^ 0x80, b'9', b'-', b'\n', b' ', 0] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                if let Ok(volume) = scratch.read(name, &changed) {
                    assert_eq!(volume.voxels.iter().count(), volume.shape.iter().product::<usize>());
                }
            }
        }
    }
}
