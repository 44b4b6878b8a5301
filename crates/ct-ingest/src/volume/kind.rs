//! What a file is that is no volume: named by its first bytes, so that a failed download or a mistaken pattern is seen at once.

/// What a file holds and what to do, as the two parts of a message.
pub(super) type Kind = (&'static str, &'static str);

const VOLUME: &str = "a CT volume or a mask: NIfTI, NRRD, MetaImage, or the folder of a DICOM series";
const UNPACK: &str = "a CT volume or a mask; unpack it first";
const DOWNLOAD: &str = "a CT volume or a mask; download it again: a server may send a page in the place of a file";

/// Formats by the bytes that they begin with.
const BEGINNINGS: &[(&[u8], Kind)] = &[
    (b"\x89PNG\r\n\x1a\n", ("a PNG picture", VOLUME)),
    (b"\xff\xd8\xff", ("a JPEG picture", VOLUME)),
    (b"GIF8", ("a GIF picture", VOLUME)),
    (b"II*\0", ("a TIFF picture", VOLUME)),
    (b"MM\0*", ("a TIFF picture", VOLUME)),
    (b"%PDF-", ("a PDF document", VOLUME)),
    (b"PK\x03\x04", ("a ZIP archive", UNPACK)),
    (b"PK\x05\x06", ("a ZIP archive", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", ("a 7z archive", UNPACK)),
    (b"Rar!\x1a\x07", ("a RAR archive", UNPACK)),
    (b"BZh", ("bzip2 data", UNPACK)),
    (b"\xfd7zXZ\0", ("xz data", UNPACK)),
    (b"\x28\xb5\x2f\xfd", ("zstd data", UNPACK)),
    (b"\x1f\x8b", ("gzip data in gzip data", UNPACK)),
    (b"\x89HDF\r\n\x1a\n", ("an HDF5 file", VOLUME)),
    (b"MATLAB 5.0 MAT-file", ("a MATLAB file", VOLUME)),
    (b"\x93NUMPY", ("a NumPy array", VOLUME)),
    (b"# vtk DataFile", ("a VTK file", VOLUME)),
    (
        b"version https://git-lfs",
        ("a pointer of Git LFS", "a CT volume or a mask; fetch what it points at with `git lfs pull`"),
    ),
];

/// Storage classes of DICOM (PS3.4, table B.5-1) that are no slice of a CT.
const DICOM_CLASSES: &[(&str, Kind)] = &[
    ("1.2.840.10008.5.1.4.1.1.66.4", ("a DICOM segmentation (SEG)", SEGMENTATION)),
    ("1.2.840.10008.5.1.4.1.1.66.7", ("a DICOM segmentation (label map)", SEGMENTATION)),
    ("1.2.840.10008.5.1.4.1.1.66.5", ("a DICOM surface segmentation", SEGMENTATION)),
    ("1.2.840.10008.5.1.4.1.1.481.3", ("a DICOM structure set (RTSTRUCT)", STRUCTURES)),
    ("1.2.840.10008.5.1.4.1.1.481.2", ("a DICOM dose (RTDOSE)", VOLUME)),
    ("1.2.840.10008.5.1.4.1.1.481.5", ("a DICOM treatment plan (RTPLAN)", VOLUME)),
    ("1.2.840.10008.5.1.4.1.1.4", ("a slice of MR (DICOM)", VOLUME)),
    ("1.2.840.10008.5.1.4.1.1.128", ("a slice of PET (DICOM)", VOLUME)),
    ("1.2.840.10008.5.1.4.1.1.7", ("a picture that was captured from a screen (DICOM)", VOLUME)),
    ("1.2.840.10008.5.1.4.1.1.104.1", ("a PDF document (DICOM)", VOLUME)),
];

const SEGMENTATION: &str =
    "a mask as NIfTI, NRRD or MetaImage on its CT's grid; convert it, for example with segimage2itkimage of dcmqi";
const STRUCTURES: &str =
    "a mask as NIfTI, NRRD or MetaImage on its CT's grid; convert it, for example with plastimatch or 3D Slicer";

/// What a file with this head is, if it is something that is known and no volume.
pub(super) fn of(head: &[u8]) -> Option<Kind> {
    if let Some((_, kind)) = BEGINNINGS.iter().find(|(bytes, _)| head.starts_with(bytes)) {
        return Some(*kind);
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some(("a tar archive", UNPACK));
    }
    // The reserved bytes of a bitmap's header are 0; two letters alone would be little to go by.
    if head.starts_with(b"BM") && head.get(6..10) == Some(&[0; 4]) {
        return Some(("a BMP picture", VOLUME));
    }
    if !head.is_empty() && head.iter().all(|&byte| byte == 0) {
        return Some(("nothing but zeros", "a CT volume or a mask; copy or download it again"));
    }
    let text = text(head)?.trim_start_matches('\u{feff}').trim_start();
    let begins = |with: &str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    Some(match text {
        _ if begins("<!doctype html") || begins("<html") => ("a web page (HTML)", DOWNLOAD),
        _ if begins("<?xml") || begins("<") => ("an XML document", DOWNLOAD),
        _ if begins("{") || begins("[") => ("a JSON document", VOLUME),
        _ => ("a text", VOLUME),
    })
}

/// What a DICOM file with this head is, if it is no slice of a CT: by the storage class in its file header (PS3.10, section
/// 7.1), which is little-endian and explicit in every file.
pub(super) fn of_dicom(head: &[u8]) -> Option<Kind> {
    const CLASS: &[u8] = &[0x02, 0x00, 0x02, 0x00, b'U', b'I'];
    let at = head.windows(CLASS.len()).position(|window| window == CLASS)? + CLASS.len();
    let length = u16::from_le_bytes(*head.get(at..)?.first_chunk()?);
    let uid = head.get(at + 2..at + 2 + usize::from(length))?.trim_ascii_end();
    let uid = std::str::from_utf8(uid).ok()?.trim_end_matches('\0');
    if uid.starts_with("1.2.840.10008.5.1.4.1.1.88.") {
        return Some(("a DICOM structured report", VOLUME));
    }
    DICOM_CLASSES.iter().find(|(class, _)| *class == uid).map(|(_, kind)| *kind)
}

/// The head as text, if all of it is: no control characters but those of lines.
fn text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head may end within a character.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let plain = |letter: char| !letter.is_control() || matches!(letter, '\t' | '\r' | '\n');
    // The first byte of any header may be a letter.
    (text.len() >= 4 && text.chars().all(plain)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart_and_bytes_are_no_text() {
        let of = |text: &[u8]| of(text).map_or("?", |(found, _)| found);
        assert_eq!(of(b"\xef\xbb\xbf\r\n <!DOCTYPE html><html>"), "a web page (HTML)");
        assert_eq!(of(b"<HTML>"), "a web page (HTML)");
        assert_eq!(of(b"<?xml version=\"1.0\"?><Error>"), "an XML document");
        assert_eq!(of(b"{\"error\": 404}"), "a JSON document");
        assert_eq!(of("case;Größe\n1;2\n".as_bytes()), "a text");
        // Cut within the last letter.
        assert_eq!(of(&"Größ".as_bytes()[..5]), "a text");
        assert_eq!(of(b"\x5c\x01\0\0dsr"), "?");
        assert_eq!(of(&[0; 64]), "nothing but zeros");
        assert_eq!((of(b""), of(b"\\")), ("?", "?"));
    }
}
