//! Where the masks of volumes go, and in which formats.

use crate::{
    Algorithm, AnnotationError, CtSeries, DicomSegType, Painted, Segment, write_dicom_seg, write_rtstruct,
    write_seg_nrrd,
};
use clap::ValueEnum;
use ct_ingest::{ReadOptions, Volume, volume_name};
use std::path::{Path, PathBuf};
use whole_file::Existing;

/// What a mask is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MaskFormat {
    /// A mask with the CT's header, 0 and 1
    Nifti,
    /// 3D Slicer's segmentation, with the segment's name and colour
    SegNrrd,
    /// DICOM-SEG, a bit a pixel; of a DICOM series
    DicomSeg,
    /// DICOM-SEG, a label map (Supplement 243); of a DICOM series
    DicomLabelmap,
    /// RTSTRUCT, outlines on each slice; of a DICOM series
    Rtstruct,
}

impl MaskFormat {
    /// How its files end: one that is named by the user, any of these; one in a folder, the last.
    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Nifti => &[".nii", ".nii.gz"],
            Self::SegNrrd => &[".seg.nrrd"],
            Self::DicomSeg => &[".dcm", ".seg.dcm"],
            Self::DicomLabelmap => &[".dcm", ".labelmap.dcm"],
            Self::Rtstruct => &[".dcm", ".rtstruct.dcm"],
        }
    }

    /// As `--format` has it.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it refers to the slices of a DICOM series.
    fn is_dicom(self) -> bool {
        matches!(self, Self::DicomSeg | Self::DicomLabelmap | Self::Rtstruct)
    }

    /// What a file's ending asks for.
    fn of_ending(path: &Path) -> Option<Self> {
        let all = [Self::Nifti, Self::SegNrrd, Self::DicomLabelmap, Self::Rtstruct, Self::DicomSeg];
        // `.rtstruct.dcm` says more than `.dcm`.
        let own = |format: &Self| format.endings().last().is_some_and(|end| has_ending(path, end));
        all.into_iter().find(own).or_else(|| all.into_iter().rev().find(|format| format.fits(path)))
    }

    fn fits(self, path: &Path) -> bool {
        self.endings().iter().any(|end| has_ending(path, end))
    }
}

fn has_ending(path: &Path, end: &str) -> bool {
    path.file_name().unwrap_or_default().to_string_lossy().to_lowercase().ends_with(end)
}

/// A volume, and what is to be written of it.
#[derive(Clone, Debug)]
pub struct MaskJob {
    /// The volume.
    pub input: PathBuf,
    /// Formats and files.
    pub outputs: Vec<(MaskFormat, PathBuf)>,
}

/// The volumes of a file, a DICOM series or a folder of volumes, and where their masks go: in a folder, under the volumes' names. A
/// folder without volumes, or with slices of one, is taken for a DICOM series. Without `formats`, the output's ending decides.
///
/// # Errors
/// A mask would be written over a volume that is read, or over a file that is there and is to be kept; or the output's name doesn't
/// fit.
pub fn mask_jobs(
    input: &Path,
    output: &Path,
    formats: &[MaskFormat],
    existing: Existing,
) -> Result<Vec<MaskJob>, AnnotationError> {
    let problem = |text: String| Err(AnnotationError::Outputs(text));
    if !input.exists() {
        return problem(format!("--input '{}' does not exist", input.display()));
    }
    if let Some(twice) =
        formats.iter().enumerate().find_map(|(i, format)| formats[..i].contains(format).then_some(format))
    {
        return problem(format!("--format names {} twice, expected each once", twice.name()));
    }
    let is_file = MaskFormat::of_ending(output).is_some() && !output.is_dir();
    let volumes = if input.is_dir() { volumes_in(input, is_file)? } else { Vec::new() };
    let jobs = if volumes.is_empty() && formats.len() < 2 {
        let format = formats.first().copied().or_else(|| MaskFormat::of_ending(output));
        let format = format.filter(|format| format.fits(output) && !output.is_dir());
        let Some(format) = format else {
            let expected: Vec<&str> = match formats {
                [format] => format.endings().to_vec(),
                _ => vec![".nii", ".nii.gz", ".seg.nrrd", ".dcm"],
            };
            return problem(format!(
                "--output '{}' must be a file that ends in {}, because --input is {}",
                output.display(),
                expected.join(" or "),
                if input.is_dir() { "a folder without volumes: a DICOM series" } else { "a file" }
            ));
        };
        vec![MaskJob { input: input.to_owned(), outputs: vec![(format, output.to_owned())] }]
    } else {
        let why = if volumes.is_empty() { "there are several formats" } else { "--input is a folder" };
        if output.is_file() || is_file {
            return problem(format!("--output '{}' is a file, but {why}: name a folder", output.display()));
        }
        if whole_file::is_same(input, output) {
            return problem(format!(
                "--output '{}' is the folder that --input names: masks there would have the names of its volumes",
                output.display()
            ));
        }
        let volumes = if volumes.is_empty() { vec![(volume_name(input), input.to_owned())] } else { volumes };
        let formats = if formats.is_empty() { &[MaskFormat::Nifti] } else { formats };
        let place = |name: &str, format: MaskFormat| {
            let ending = format.endings().last().copied().unwrap_or_default();
            (format, output.join(format!("{name}{ending}")))
        };
        let job = |(name, input): (String, PathBuf)| MaskJob {
            input,
            outputs: formats.iter().map(|&format| place(&name, format)).collect(),
        };
        volumes.into_iter().map(job).collect()
    };
    let volumes: Vec<&Path> = jobs.iter().map(|job| job.input.as_path()).collect();
    for (_, mask) in jobs.iter().flat_map(|job| &job.outputs) {
        whole_file::check_place(mask, &volumes, existing)?;
    }
    Ok(jobs)
}

/// Volumes of a folder, recognised by content, with the names of their masks. Where one mask is asked for and only folders of
/// DICOM files are there, they are parts of one series.
fn volumes_in(folder: &Path, one_is_asked: bool) -> Result<Vec<(String, PathBuf)>, AnnotationError> {
    let volumes = ct_ingest::volumes_in(folder)?;
    if one_is_asked && volumes.iter().all(|(_, path)| path.is_dir()) {
        return Ok(Vec::new());
    }
    if let Some(pair) = volumes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(AnnotationError::Outputs(format!(
            "'{}' and '{}' would have the same mask: move one of them away",
            pair[0].1.display(),
            pair[1].1.display()
        )));
    }
    Ok(volumes)
}

impl MaskJob {
    /// Before the work: makes the folders, and reads what DICOM formats refer to.
    ///
    /// # Errors
    /// A place that can't be written; a DICOM format for a volume that is no DICOM series.
    pub fn begin(&self, options: &ReadOptions) -> Result<Option<CtSeries>, AnnotationError> {
        for (_, output) in &self.outputs {
            if let Some(folder) = output.parent() {
                std::fs::create_dir_all(folder).map_err(AnnotationError::write(output))?;
            }
        }
        if !self.outputs.iter().any(|(format, _)| format.is_dicom()) {
            return Ok(None);
        }
        if !self.input.is_dir() {
            return Err(AnnotationError::Outputs(format!(
                "'{}' is no DICOM series, to whose slices a DICOM-SEG or an RTSTRUCT refers; --format nifti and seg-nrrd are for any CT",
                self.input.display()
            )));
        }
        let series = CtSeries::open(&self.input, options)?;
        for doubt in series.doubts() {
            eprintln!("warning: '{}': {doubt}", self.input.display());
        }
        Ok(Some(series))
    }

    /// Writes a mask of the volume's voxels, 0 or 1 in its file's order, in every format; `target` names its segment, of which
    /// `description` tells people more.
    ///
    /// # Errors
    /// As the operating system has them; what was written before is whole.
    pub fn write(
        &self,
        (volume, mask): (&Volume, &[u8]),
        series: Option<&CtSeries>,
        (target, description): (&str, &str),
        existing: Existing,
    ) -> Result<(), AnnotationError> {
        let program = Algorithm::Automatic { name: "SAM-Mix".into(), version: env!("CARGO_PKG_VERSION").into() };
        let segment = Segment { description: description.to_owned(), ..Segment::named(target, program) };
        let painted = [Painted { segment: &segment, mask }];
        for (format, output) in &self.outputs {
            match (format, series) {
                (MaskFormat::SegNrrd, _) => write_seg_nrrd(output, volume.grid(), &painted, existing)?,
                (MaskFormat::DicomSeg, Some(ct)) => {
                    write_dicom_seg(output, ct, &painted, DicomSegType::Binary, existing)?;
                }
                (MaskFormat::DicomLabelmap, Some(ct)) => {
                    write_dicom_seg(output, ct, &painted, DicomSegType::LabelMap, existing)?;
                }
                (MaskFormat::Rtstruct, Some(ct)) => write_rtstruct(output, ct, &painted, existing)?,
                _ => {
                    if let Some(doubt) = ct_ingest::mask_doubt(volume) {
                        eprintln!("warning: '{}': {doubt}", self.input.display());
                    }
                    ct_ingest::write_mask(output, mask, volume)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MaskFormat::{DicomSeg, Nifti, Rtstruct, SegNrrd};

    /// Formats and names, or what is wrong.
    fn found(input: &Path, output: &str, formats: &[MaskFormat]) -> Result<Vec<(MaskFormat, String)>, String> {
        let jobs = mask_jobs(input, Path::new(output), formats, Existing::Kept).map_err(|error| error.to_string())?;
        let name = |(format, path): &(MaskFormat, PathBuf)| (*format, path.display().to_string());
        Ok(jobs.iter().flat_map(|job| &job.outputs).map(name).collect())
    }

    #[test]
    fn an_ending_says_what_is_written_and_several_formats_have_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("a.b.NII.gz");
        std::fs::write(&input, "").unwrap();
        for (output, expected) in [
            ("m.nii", Nifti),
            ("M.NII.GZ", Nifti),
            ("m.seg.nrrd", SegNrrd),
            ("m.dcm", DicomSeg),
            ("m.seg.dcm", DicomSeg),
            ("m.rtstruct.dcm", Rtstruct),
        ] {
            assert_eq!(found(&input, output, &[]), Ok(vec![(expected, output.to_owned())]));
        }
        assert_eq!(found(&input, "m.dcm", &[Rtstruct]), Ok(vec![(Rtstruct, "m.dcm".to_owned())]));
        let names = found(&input, "out", &[Nifti, SegNrrd, DicomSeg, MaskFormat::DicomLabelmap, Rtstruct]).unwrap();
        let names: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        let expected =
            ["out/a.b.nii.gz", "out/a.b.seg.nrrd", "out/a.b.seg.dcm", "out/a.b.labelmap.dcm", "out/a.b.rtstruct.dcm"];
        assert_eq!(names, expected);
        for (output, formats, expected) in [
            ("m.txt", &[][..], "must be a file that ends in .nii or .nii.gz or .seg.nrrd or .dcm"),
            ("m.nii", &[Rtstruct], "must be a file that ends in .dcm or .rtstruct.dcm"),
            ("m.nii", &[Nifti, SegNrrd], "'m.nii' is a file, but there are several formats: name a folder"),
        ] {
            let problem = found(&input, output, formats).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn what_refers_to_dicom_slices_is_refused_before_any_work() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("ct.nii.gz");
        std::fs::write(&input, "").unwrap();
        let jobs = mask_jobs(&input, &folder.path().join("m.dcm"), &[], Existing::Kept).unwrap();
        let problem = jobs[0].begin(&ReadOptions::default()).err().unwrap().to_string();
        assert!(
            problem.contains("is no DICOM series") && problem.contains("nifti and seg-nrrd are for any CT"),
            "{problem}"
        );
    }
}
