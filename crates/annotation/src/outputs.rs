//! Where the masks of volumes go, and in which formats.

use crate::{
    Algorithm, AnnotationError, CtSeries, DicomSegType, Painted, Segment, write_dicom_seg, write_rtstruct,
    write_seg_nrrd,
};
use clap::ValueEnum;
use ct_ingest::{PreferredSeries, ReadOptions, Volume, preferred_dicom_series, volume_name};
use std::collections::BTreeSet;
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

/// What is written beside the mask, for whoever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The decoder's probability of each voxel, as NIfTI.
    Probabilities,
    /// What was measured, of the volume and of each slice.
    StatisticsJson,
    /// The same of each slice, as a table.
    StatisticsCsv,
    /// Slices with the mask's outline.
    Preview,
}

impl Beside {
    fn ending(self) -> &'static str {
        match self {
            Self::Probabilities => ".probabilities.nii.gz",
            Self::StatisticsJson => ".statistics.json",
            Self::StatisticsCsv => ".statistics.csv",
            Self::Preview => ".preview.png",
        }
    }
}

/// What is to be written of each volume.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Formats of the mask; none: the output's ending decides.
    pub formats: &'a [MaskFormat],
    /// Beside it.
    pub beside: &'a [Beside],
    /// What becomes of files that are there.
    pub existing: Existing,
    /// Files that are there are left out instead, and volumes of which nothing is left.
    pub skip: bool,
}

/// A volume, and what is to be written of it.
#[derive(Clone, Debug)]
pub struct MaskJob {
    /// The volume.
    pub input: PathBuf,
    /// Formats and files.
    pub outputs: Vec<(MaskFormat, PathBuf)>,
    /// Files beside the mask.
    pub beside: Vec<(Beside, PathBuf)>,
    /// Whether it is one of a folder's studies: of several series one is taken by the rules of [`PreferredSeries`].
    is_study: bool,
}

/// The volumes of a file, a DICOM series or a folder of volumes, and where their masks go: in a folder, under the volumes' names. A
/// folder without volumes, or with slices of one, is taken for a DICOM series. Without `formats`, the output's ending decides. What is
/// written beside a mask has its name, without its ending. Also says how many volumes are left out because everything of them is there.
///
/// # Errors
/// A file would be written over a volume that is read, or over a file that is there and is to be kept; or the output's name doesn't
/// fit.
pub fn mask_jobs(input: &Path, output: &Path, wanted: &Wanted<'_>) -> Result<(Vec<MaskJob>, usize), AnnotationError> {
    let mut jobs = all_jobs(input, output, wanted)?;
    let all = jobs.len();
    if wanted.skip {
        for job in &mut jobs {
            job.outputs.retain(|(_, path)| !path.exists());
            job.beside.retain(|(_, path)| !path.exists());
        }
        jobs.retain(|job| !(job.outputs.is_empty() && job.beside.is_empty()));
    }
    let volumes: Vec<&Path> = jobs.iter().map(|job| job.input.as_path()).collect();
    let mut places = BTreeSet::new();
    for job in &jobs {
        if let Some(twice) = job.files().find(|path| !places.insert(path.to_path_buf())) {
            return Err(AnnotationError::Outputs(format!(
                "'{}' would be written of two volumes, the second of which is '{}': move one of them away",
                twice.display(),
                job.input.display()
            )));
        }
        job.files().try_for_each(|path| whole_file::check_place(path, &volumes, wanted.existing))?;
    }
    let skipped = all - jobs.len();
    Ok((jobs, skipped))
}

fn all_jobs(input: &Path, output: &Path, wanted: &Wanted<'_>) -> Result<Vec<MaskJob>, AnnotationError> {
    let formats = wanted.formats;
    let problem = |text: String| Err(AnnotationError::Outputs(text));
    let job = |input: PathBuf, is_study: bool, outputs: Vec<(MaskFormat, PathBuf)>, folder: &Path, name: &str| {
        let beside = wanted.beside.iter().map(|&of| (of, folder.join(format!("{name}{}", of.ending())))).collect();
        MaskJob { input, outputs, beside, is_study }
    };
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
    if volumes.is_empty() && formats.len() < 2 {
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
        let folder = output.parent().unwrap_or(Path::new(""));
        let outputs = vec![(format, output.to_owned())];
        Ok(vec![job(input.to_owned(), false, outputs, folder, &volume_name(output))])
    } else {
        let is_study = !volumes.is_empty();
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
        let of_volume = |(name, input): (String, PathBuf)| {
            let is_study = is_study && input.is_dir();
            job(input, is_study, formats.iter().map(|&format| place(&name, format)).collect(), output, &name)
        };
        Ok(volumes.into_iter().map(of_volume).collect())
    }
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
    /// All that is to be written.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let masks = self.outputs.iter().map(|(_, path)| path.as_path());
        masks.chain(self.beside.iter().map(|(_, path)| path.as_path()))
    }

    /// Before the work: makes the folders, chooses the series of a study, which it says, and reads what DICOM formats refer to. Gives that,
    /// and the options that read the volume.
    ///
    /// # Errors
    /// A place that can't be written; a DICOM format for a volume that is no DICOM series; a study without a series of axial slices.
    pub fn begin(&self, options: &ReadOptions) -> Result<(Option<CtSeries>, ReadOptions), AnnotationError> {
        let mut options = options.clone();
        for output in self.files() {
            if let Some(folder) = output.parent() {
                std::fs::create_dir_all(folder).map_err(AnnotationError::write(output))?;
            }
        }
        let is_open = self.is_study && options.series.is_none();
        let preferred = if is_open { preferred_dicom_series(&self.input)? } else { None };
        if let Some(PreferredSeries { name, chosen, others }) = preferred {
            eprintln!("'{}': series {chosen}", self.input.display());
            for (other, why) in others {
                eprintln!("  not {other}: {why}");
            }
            options.series = Some(name);
        }
        if !self.outputs.iter().any(|(format, _)| format.is_dicom()) {
            return Ok((None, options));
        }
        if !self.input.is_dir() {
            return Err(AnnotationError::Outputs(format!(
                "'{}' is no DICOM series, to whose slices a DICOM-SEG or an RTSTRUCT refers; --format nifti and seg-nrrd are for any CT",
                self.input.display()
            )));
        }
        let series = CtSeries::open(&self.input, &options)?;
        for doubt in series.doubts() {
            eprintln!("warning: '{}': {doubt}", self.input.display());
        }
        Ok((Some(series), options))
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

    const WANTED: Wanted<'_> = Wanted { formats: &[], beside: &[], existing: Existing::Kept, skip: false };

    /// Formats and names, or what is wrong.
    fn found(input: &Path, output: &str, formats: &[MaskFormat]) -> Result<Vec<(MaskFormat, String)>, String> {
        let wanted = Wanted { formats, ..WANTED };
        let (jobs, _) = mask_jobs(input, Path::new(output), &wanted).map_err(|error| error.to_string())?;
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
        let (jobs, _) = mask_jobs(&input, &folder.path().join("m.dcm"), &WANTED).unwrap();
        let problem = jobs[0].begin(&ReadOptions::default()).err().unwrap().to_string();
        assert!(
            problem.contains("is no DICOM series") && problem.contains("nifti and seg-nrrd are for any CT"),
            "{problem}"
        );
    }

    #[test]
    fn what_is_there_is_refused_or_left_out_file_by_file() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("ct.nii.gz");
        std::fs::write(&input, "").unwrap();
        let output = folder.path().join("liver.seg.nrrd");
        let beside = &[Beside::StatisticsJson, Beside::Preview];
        let jobs = |skip| mask_jobs(&input, &output, &Wanted { beside, skip, ..WANTED });
        let (all, _) = jobs(true).unwrap();
        let names = |job: &MaskJob| -> Vec<String> {
            job.beside.iter().map(|(_, path)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            (all[0].outputs.len(), names(&all[0])),
            (1, vec!["liver.statistics.json".into(), "liver.preview.png".into()])
        );
        std::fs::write(folder.path().join("liver.preview.png"), "").unwrap();
        assert!(jobs(false).unwrap_err().to_string().contains("is there already"));
        let (rest, skipped) = jobs(true).unwrap();
        assert_eq!((rest[0].outputs.len(), names(&rest[0]), skipped), (1, vec!["liver.statistics.json".to_owned()], 0));
        std::fs::write(folder.path().join("liver.statistics.json"), "").unwrap();
        std::fs::write(&output, "").unwrap();
        let (none, skipped) = jobs(true).unwrap();
        assert_eq!((none.len(), skipped), (0, 1));
    }
}
