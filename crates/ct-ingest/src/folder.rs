//! Which volumes a folder holds, by what its files are, not by what they are called.

use crate::IngestError;
use crate::checksum::files_below;
use crate::volume::{Content, content_of};
use std::path::{Path, PathBuf};

/// How volumes' files are called: one of these is a volume, or a damaged one, whatever is in it.
const ENDINGS: [&str; 8] = [".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".hdr.gz"];

/// How segmentations' files are called beside that.
const OF_SEGMENTATIONS: [&str; 3] = [".seg.nrrd", ".nrrd.gz", ".dcm"];

/// The name of a volume's or a segmentation's file, or of a series' folder, without ending.
pub fn volume_name(path: &Path) -> String {
    // `.` and `..` have none of their own.
    let whole = if path.file_name().is_none() { path.canonicalize().ok() } else { None };
    let name = whole.as_deref().unwrap_or(path).file_name().unwrap_or_default().to_string_lossy();
    without(&name, OF_SEGMENTATIONS.iter().chain(&ENDINGS)).unwrap_or(&name).to_owned()
}

/// A name without the first of these endings that it has, in whatever case.
fn without(name: &str, endings: impl IntoIterator<Item = &'static &'static str>) -> Option<&str> {
    endings.into_iter().find_map(|ending| {
        let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
        end.eq_ignore_ascii_case(ending).then_some(stem)
    })
}

/// The volumes of a folder, each with its name without ending: files that a reader knows by their content, files that are
/// called as volumes (what is wrong with them is said when they are read), and folders with DICOM files anywhere below them.
/// Of a folder that holds DICOM slices itself, none: it is a volume.
///
/// # Errors
/// The folder can't be listed, or holds DICOM slices beside other volumes.
pub fn volumes_in(folder: &Path) -> Result<Vec<(String, PathBuf)>, IngestError> {
    let entries = std::fs::read_dir(folder).map_err(IngestError::io("list", folder))?;
    let (mut files, mut series, mut slices) = (Vec::new(), Vec::new(), 0);
    for entry in entries {
        let path = entry.map_err(IngestError::io("list", folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.')) else {
            continue;
        };
        if path.is_dir() {
            let is_dicom = |file: &PathBuf| content_of(file) == Content::Dicom;
            if files_below(&path).is_ok_and(|files| files.iter().any(is_dicom)) {
                series.push((name.to_owned(), path));
            }
            continue;
        }
        let stem = without(name, &ENDINGS).filter(|stem| !stem.is_empty());
        match (content_of(&path), stem) {
            (Content::Dicom, None) => slices += 1,
            (Content::Other, None) => {}
            (_, Some(stem)) => files.push((stem.to_owned(), path)),
            (Content::Volume, None) => files.push((name.to_owned(), path)),
        }
    }
    match (slices, files.is_empty()) {
        (0, _) => {}
        (_, true) => return Ok(Vec::new()),
        (slices, false) => {
            let problem =
                format!("holds {slices} DICOM slices beside other volumes; put each series into a folder of its own");
            return Err(IngestError::Dicom { path: folder.to_path_buf(), problem });
        }
    }
    files.append(&mut series);
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(folder: &Path) -> Vec<String> {
        volumes_in(folder).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_name_ends_before_what_files_of_volumes_and_segmentations_end_in() {
        for (path, name) in [
            ("a/b.NII.gz", "b"),
            ("İ.Nii", "İ"),
            ("é.seg.nrrd", "é"),
            ("c.d.rtstruct.dcm", "c.d.rtstruct"),
            ("series", "series"),
            ("z", "z"),
        ] {
            assert_eq!(volume_name(Path::new(path)), name);
        }
        let here = std::env::current_dir().unwrap();
        assert_eq!(volume_name(Path::new(".")), here.file_name().unwrap().to_str().unwrap());
    }

    #[test]
    fn content_tells_a_volume_and_a_name_only_what_is_damaged() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path();
        let copy = |from: &str, to: &str| fs::copy(fixtures.join(from), folder.join(to)).unwrap();
        copy("type_int32.nii.gz", "a scan without ending");
        copy("nrrd/gzip.nrrd", "b.bak");
        copy("nrrd/zlib.mha", "c.mha");
        copy("type_int32.nii.gz", "D.NII.GZ");
        fs::write(folder.join("e.nii.gz"), "<html>").unwrap();
        fs::write(folder.join("README.txt"), "not a volume").unwrap();
        fs::write(folder.join(".hidden.nii"), "").unwrap();
        fs::create_dir(folder.join("empty")).unwrap();
        fs::create_dir_all(folder.join("f series/deeper")).unwrap();
        copy("dicom/rle/00.dcm", "f series/deeper/IM0001");
        assert_eq!(names(folder), ["D", "a scan without ending", "b.bak", "c", "e", "f series"]);
        // A slice of a series that lies loose would be passed over.
        copy("dicom/rle/00.dcm", "IM0001");
        assert!(volumes_in(folder).unwrap_err().to_string().contains("1 DICOM slices beside other volumes"));
        assert!(names(&folder.join("f series/deeper")).is_empty(), "the folder is the series");
        assert!(volumes_in(&folder.join("absent")).is_err());
    }
}
