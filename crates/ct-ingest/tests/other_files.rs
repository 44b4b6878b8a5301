//! Files of other kinds in the place of a volume, and files that copying has padded.

mod common;

use common::{Nifti, gzip};
use ct_ingest::{IngestError, ReadOptions, Volume, read_volume};
use std::path::Path;

fn read(bytes: &[u8]) -> Result<Volume, IngestError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ct.nii.gz");
    std::fs::write(&path, bytes).unwrap();
    // A volume that is mapped outlives its name.
    read_volume(&path, &ReadOptions::default())
}

fn small() -> Nifti {
    Nifti::int16([4, 3, 2], |x, y, z| (100 * z + 10 * y + x) as i16)
}

/// The head of a DICOM file of that storage class, as PS3.10 has it.
fn dicom(class: &str) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM\x02\0\0\0UL\x04\0\x60\0\0\0\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01\x02\0\x02\0UI");
    let even = class.len() + class.len() % 2;
    bytes.extend((even as u16).to_le_bytes());
    bytes.extend(class.bytes());
    bytes.resize(bytes.len() + even - class.len(), 0);
    bytes.extend([0; 64]);
    bytes
}

#[test]
fn a_file_of_another_kind_is_named_as_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let png = directory.path().join("x.png");
    let mut encoder = png::Encoder::new(std::fs::File::create(&png).unwrap(), 2, 2);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[0; 4]).unwrap();
    let png = std::fs::read(png).unwrap();
    let html = b"<!DOCTYPE html><html><body>403 Forbidden</body></html>\n".to_vec();
    let mut tar = vec![0; 512];
    tar[..6].copy_from_slice(b"ct.nii");
    tar[257..262].copy_from_slice(b"ustar");
    let segmentation = dicom("1.2.840.10008.5.1.4.1.1.66.4");
    let cases: [(Vec<u8>, &str, &str); 15] = [
        (png, "a PNG picture", "NIfTI, NRRD, MetaImage, or the folder of a DICOM series"),
        (html.clone(), "a web page (HTML)", "download it again"),
        (gzip(&html), "a web page (HTML)", "download it again"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>".to_vec(), "an XML document", "download"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".to_vec(), "a PDF document", "a CT volume or a mask"),
        (b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), "a ZIP archive", "unpack it first"),
        (gzip(&tar), "a tar archive", "unpack it first"),
        (gzip(&gzip(&small().bytes())), "gzip data in gzip data", "unpack it first"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(),
            "a pointer of Git LFS",
            "git lfs pull",
        ),
        (vec![0; 70_000], "nothing but zeros", "copy or download it again"),
        (b"case,volume\n1,1500\n".to_vec(), "a text", "a CT volume or a mask"),
        (segmentation, "a DICOM segmentation (SEG)", "segimage2itkimage"),
        (dicom("1.2.840.10008.5.1.4.1.1.481.3"), "a DICOM structure set (RTSTRUCT)", "plastimatch"),
        (dicom("1.2.840.10008.5.1.4.1.1.88.33"), "a DICOM structured report", "a CT volume or a mask"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0".to_vec(), "a JPEG picture", "a CT volume or a mask"),
    ];
    for (bytes, found, way_out) in cases {
        let message = read(&bytes).unwrap_err().to_string();
        assert!(message.contains(&format!("ct.nii.gz' holds {found}, expected ")), "{message}");
        assert!(message.contains(way_out), "{message}");
    }
    // A slice of a CT is what it was: one file of a series.
    assert!(read(&dicom("1.2.840.10008.5.1.4.1.1.2")).unwrap_err().to_string().contains("single DICOM file"));
}

#[test]
fn zeros_behind_gzip_data_are_padding_and_anything_else_is_damage() {
    let bytes = small().bytes();
    let expected = read(&bytes).unwrap().voxels;
    let packed = gzip(&bytes);
    for zeros in [1, 2, 3, 4, 17, 512, 100_000] {
        let padded = [&packed[..], &vec![0; zeros]].concat();
        assert_eq!(read(&padded).unwrap().voxels, expected, "{zeros} zeros");
    }
    // Between members too, as gzip has it.
    let between = [&gzip(&bytes[..100])[..], &[0; 40], &gzip(&bytes[100..]), &[0; 8]].concat();
    assert_eq!(read(&between).unwrap().voxels, expected);
    for tail in [&b"x"[..], b"\0\0x", b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\0\x03"] {
        let message = read(&[&packed, tail].concat()).unwrap_err().to_string();
        assert!(message.contains("can't be decompressed"), "{tail:?}: {message}");
    }
    // A download that was cut, and filled with zeros to its full length.
    let mut cut = packed.clone();
    let kept = cut.len() * 2 / 3;
    cut[kept..].fill(0);
    assert!(read(&cut).is_err());
}

#[test]
fn headers_of_text_may_be_a_mebibyte_long() {
    let directory = tempfile::tempdir().unwrap();
    let nrrd = |comment: usize| {
        let mut text = "NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n\
             space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (1,2,3)\nencoding: raw\n"
            .to_owned();
        text.extend((0..comment / 64).map(|segment| format!("Segment{segment:06}_Tags:={}\n", "t".repeat(43))));
        [text.as_bytes(), b"\n", &[1, 2, 3, 4, 5, 6, 7, 8]].concat()
    };
    let meta = |comment: usize| {
        let text = format!(
            "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementSpacing = 1 1 2\n\
             TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nComment = {}\nElementDataFile = LOCAL\n",
            "c".repeat(comment)
        );
        [text.as_bytes(), &[1, 2, 3, 4, 5, 6, 7, 8]].concat()
    };
    let read = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        let values = |volume: Volume| volume.voxels.iter().map(|value| value as u8).collect::<Vec<u8>>();
        read_volume(&path, &ReadOptions::default()).map(values)
    };
    for long in [100, 60_000, 66_000, 1_000_000] {
        for (name, bytes) in [("x.nrrd", nrrd(long)), ("x.mha", meta(long))] {
            assert_eq!(read(name, &bytes).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8], "{name}, {long}");
            assert_eq!(read(name, &gzip(&bytes)).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8], "{name}, {long}, packed");
        }
    }
    for (name, bytes) in [("x.nrrd", nrrd(1_100_000)), ("x.mha", meta(1_100_000))] {
        let message = read(name, &bytes).unwrap_err().to_string();
        assert!(message.contains("ends it within 1048576 bytes"), "{message}");
    }
}

#[test]
fn the_voxels_of_a_pair_may_begin_with_any_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let file = Nifti::uint8([4, 4, 2], |x, y, z| b"%PDF-1.7%PDF-1.7%PDF-1.7%PDF-1.7"[x + 4 * y + 16 * z]);
    let mut header = file.bytes()[..352].to_vec();
    header[344..348].copy_from_slice(b"ni1\0");
    header[108..112].copy_from_slice(&0_f32.to_le_bytes());
    std::fs::write(path("ct.hdr"), header).unwrap();
    std::fs::write(path("ct.img"), &file.data).unwrap();
    for name in ["ct.hdr", "ct.img"] {
        let volume = read_volume(Path::new(&path(name)), &ReadOptions::default()).unwrap();
        assert_eq!(volume.voxels.get(1), f64::from(b'P'), "{name}");
    }
}
