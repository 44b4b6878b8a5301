//! Finding a data set's cases by the patterns of its manifest.

use crate::{IngestError, Manifest};
use slice_store::natural_order;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What to do about cases without a mask.
const NOT_EVERY_CASE: &str = "; if not every case has one, say which slices a mask speaks of: `mask_coverage` in the manifest, or \
                              --mask-coverage all or painted";

/// How deep below the data directory `**/` looks.
const DEEPEST: usize = 6;

/// A path below the data directory: `{case}` stands for the case's name (within one name, in one or more of the path's
/// parts), `**/` at the beginning for any directory, `[.gz]` at the end for both `.nii` and `.nii.gz`, `/` at the end for a
/// folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    anywhere: bool,
    folder: bool,
    parts: Vec<Part>,
}

/// One name of the path.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    before: String,
    /// What follows `{case}`; `None` where the part is a fixed name.
    after: Option<String>,
    optional_gz: bool,
}

/// A case's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseFiles {
    /// The case's name on disk.
    pub case: String,
    /// Its CT volume: a file, or the folder of a DICOM series.
    pub image: PathBuf,
    /// Its masks; none where the manifest allows that.
    pub masks: Vec<PathBuf>,
}

/// What a data directory holds: cases in natural order, and those that can't be prepared, with the reason.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Cases with one image and a mask for each of the manifest's patterns, or without any where that is allowed.
    pub cases: Vec<CaseFiles>,
    /// The others.
    pub unusable: Vec<(String, IngestError)>,
}

/// Finds the cases of a data set.
///
/// # Errors
/// No image matches the manifest's pattern, or a directory can't be read. A case without a mask, or a mask without an image,
/// is no error: it is listed as unusable.
pub fn discover(data: &Path, manifest: &Manifest) -> Result<Discovery, IngestError> {
    let pattern = |text: &str| {
        Pattern::parse(text).map_err(|problem| IngestError::Manifest { path: PathBuf::from(&manifest.name), problem })
    };
    let images = pattern(&manifest.image)?.find(data)?;
    if images.is_empty() {
        let advice = &manifest.how_to_get;
        return Err(IngestError::NoCases {
            data: data.to_path_buf(),
            pattern: manifest.image.clone(),
            manifest: manifest.name.clone(),
            advice: if advice.is_empty() { String::new() } else { format!(". How to get the data: {advice}") },
        });
    }
    let mut masks = Vec::new();
    for text in manifest.mask.as_slice() {
        masks.push((text.as_str(), pattern(text)?.find(data)?));
    }
    let mut found = Discovery::default();
    for (case, images) in images {
        let masks = masks.iter_mut().map(|(text, masks)| (*text, masks.remove(&case).unwrap_or_default())).collect();
        match join(&case, images, masks, manifest.allows_no_mask()) {
            Ok(files) => found.cases.push(files),
            Err(error) => found.unusable.push((case, error)),
        }
    }
    // What is left has no image; of several masks of a case, the first tells it.
    let mut alone = BTreeMap::new();
    for (case, mask) in masks.into_iter().flat_map(|(_, masks)| masks) {
        alone.entry(case).or_insert(mask);
    }
    for (case, mut masks) in alone {
        let (mask, pattern) = (masks.swap_remove(0), manifest.image.clone());
        found.unusable.push((case.clone(), IngestError::NoImage { case, mask, pattern }));
    }
    found.cases.sort_by(|a, b| natural_order(&a.case, &b.case));
    found.unusable.sort_by(|a, b| natural_order(&a.0, &b.0));
    Ok(found)
}

/// A case has exactly one image, and exactly one mask for each pattern, or, where that is allowed, none at all.
fn join(
    case: &str,
    images: Vec<PathBuf>,
    masks: Vec<(&str, Vec<PathBuf>)>,
    allows_no_mask: bool,
) -> Result<CaseFiles, IngestError> {
    let only = |kind, mut files: Vec<PathBuf>| match (files.pop(), files.pop()) {
        (Some(file), None) => Ok(Some(file)),
        (None, _) => Ok(None),
        (Some(second), Some(first)) => Err(IngestError::TwoFiles { case: case.to_owned(), kind, first, second }),
    };
    let image = only("image", images)?.unwrap_or_default();
    let mut found = Vec::new();
    let has_none = masks.iter().all(|(_, files)| files.is_empty());
    if allows_no_mask && has_none {
        return Ok(CaseFiles { case: case.to_owned(), image, masks: found });
    }
    let advice = if has_none { NOT_EVERY_CASE } else { "" };
    for (pattern, files) in masks {
        let none = || IngestError::NoMask { case: case.to_owned(), pattern: pattern.to_owned(), advice };
        found.push(only("mask", files)?.ok_or_else(none)?);
    }
    Ok(CaseFiles { case: case.to_owned(), image, masks: found })
}

impl Pattern {
    /// Parses a pattern; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (anywhere, rest) = match text.strip_prefix("**/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (rest, folder) = match rest.strip_suffix('/') {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (rest, optional_gz) = match rest.strip_suffix("[.gz]") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let mut parts = rest.split('/').map(Part::parse).collect::<Result<Vec<_>, _>>()?;
        if !parts.iter().any(|part| part.after.is_some()) {
            return Err("expected `{case}` where the case's name is".to_owned());
        }
        if let Some(last) = parts.last_mut() {
            last.optional_gz = optional_gz;
        }
        Ok(Self { anywhere, folder, parts })
    }

    /// Whether it is about folders.
    pub fn is_folder(&self) -> bool {
        self.folder
    }

    /// All files that match, by case. What several paths lead to, by links, is found once.
    fn find(&self, data: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>, IngestError> {
        let mut found = BTreeMap::new();
        let mut directories = vec![(data.to_path_buf(), 0)];
        let mut seen = HashSet::from([true_path(data)]);
        while let Some((directory, depth)) = directories.pop() {
            self.find_below(&directory, &self.parts, None, &mut found)?;
            if self.anywhere && depth < DEEPEST {
                let below = entries(&directory)?.into_iter().map(|(path, _)| path).filter(|path| path.is_dir());
                directories.extend(below.filter(|path| seen.insert(true_path(path))).map(|path| (path, depth + 1)));
            }
        }
        for files in found.values_mut() {
            files.sort();
            let mut seen = HashSet::new();
            files.retain(|file| seen.insert(true_path(file)));
        }
        Ok(found)
    }

    /// Follows the parts of a pattern down from a directory; `case` is what earlier parts called the case.
    fn find_below(
        &self,
        directory: &Path,
        parts: &[Part],
        case: Option<&str>,
        found: &mut BTreeMap<String, Vec<PathBuf>>,
    ) -> Result<(), IngestError> {
        let Some((part, rest)) = parts.split_first() else { return Ok(()) };
        for (path, name) in part.candidates(directory)? {
            let case = match (part.matches(&name), case) {
                (Match::No, _) => continue,
                (Match::Case(here), Some(earlier)) if here != earlier => continue,
                (Match::Case(here), _) => Some(here),
                (Match::Fixed, earlier) => earlier,
            };
            if !rest.is_empty() {
                if path.is_dir() {
                    self.find_below(&path, rest, case, found)?;
                }
            } else if let (Some(case), true) = (case, if self.folder { path.is_dir() } else { path.is_file() }) {
                found.entry(case.to_owned()).or_default().push(path.clone());
            }
        }
        Ok(())
    }
}

/// What a name says to a part of a pattern.
enum Match<'a> {
    No,
    Fixed,
    Case(&'a str),
}

impl Part {
    fn parse(text: &str) -> Result<Self, String> {
        let (before, after) = match text.split_once("{case}") {
            Some((before, after)) => (before, Some(after.to_owned())),
            None => (text, None),
        };
        let fixed = format!("{before}{}", after.as_deref().unwrap_or_default());
        if text.is_empty() || text == ".." || fixed.contains(['{', '}', '*', '[', ']', '\\']) {
            return Err(format!(
                "'{text}' is not understood: expected names with `{{case}}` at most once in each, `**/` at the \
                 beginning and `[.gz]` at the end"
            ));
        }
        Ok(Self { before: before.to_owned(), after, optional_gz: false })
    }

    /// Entries of the directory that can match: a fixed name needs no listing.
    fn candidates(&self, directory: &Path) -> Result<Vec<(PathBuf, String)>, IngestError> {
        if self.after.is_some() || self.optional_gz {
            return entries(directory);
        }
        Ok(vec![(directory.join(&self.before), self.before.clone())])
    }

    fn matches<'a>(&self, name: &'a str) -> Match<'a> {
        let bare = name.strip_suffix(".gz").filter(|_| self.optional_gz);
        for name in [Some(name), bare].into_iter().flatten() {
            let Some(middle) = name.strip_prefix(self.before.as_str()) else { continue };
            match &self.after {
                None if middle.is_empty() => return Match::Fixed,
                None => {}
                Some(after) => match middle.strip_suffix(after.as_str()) {
                    None | Some("") => {}
                    Some(case) => return Match::Case(case),
                },
            }
        }
        Match::No
    }
}

/// Where a path leads, behind all links; of one that leads nowhere, itself.
fn true_path(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// A directory's entries that aren't hidden, by name.
fn entries(directory: &Path) -> Result<Vec<(PathBuf, String)>, IngestError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(IngestError::io("list", directory))? {
        let entry = entry.map_err(IngestError::io("list", directory))?;
        if let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')) {
            entries.push((entry.path(), name.to_owned()));
        }
    }
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        directory
    }

    fn manifest(name: &str) -> Manifest {
        Manifest::load(name, Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn cases(name: &str, files: &[&str]) -> Vec<String> {
        let directory = tree(files);
        let found = discover(directory.path(), &manifest(name)).unwrap();
        assert!(found.unusable.is_empty(), "{:?}", found.unusable);
        found.cases.into_iter().map(|files| files.case).collect()
    }

    #[test]
    fn each_layout_is_found_in_natural_order() {
        let lits = ["volume-10.nii", "volume-9.nii.gz", "segmentation-9.nii", "segmentation-10.nii.gz"];
        assert_eq!(cases("lits", &lits), ["9", "10"]);
        let batches = ["Training Batch 1/volume-0.nii", "Training Batch 1/segmentation-0.nii", "b/c/volume-1.nii"];
        assert_eq!(cases("lits", &[&batches[..], &["segmentations/segmentation-1.nii"]].concat()), ["0", "1"]);
        let decathlon = ["imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", "imagesTs/liver_1.nii.gz"];
        assert_eq!(cases("msd-task03-liver", &decathlon), ["0"]);
        let total =
            ["s0000/ct.nii.gz", "s0000/segmentations/liver.nii.gz", "s0000/segmentations/spleen.nii.gz", "meta.csv"];
        assert_eq!(cases("totalsegmentator", &total), ["s0000"]);
        let nnunet = ["imagesTr/a_1_0000.nii.gz", "labelsTr/a_1.nii.gz", "dataset.json"];
        assert_eq!(cases("nnunet", &nnunet), ["a_1"]);
    }

    #[test]
    fn files_that_only_resemble_the_pattern_are_left_alone() {
        let files = ["volume-1.nii", "segmentation-1.nii", "test-volume-2.nii", "volume-.nii", "volume-3.nii.bak"];
        assert_eq!(cases("lits", &files), ["1"]);
        assert_eq!(cases("lits", &[&files[..], &[".volume-4.nii"]].concat()), ["1"]);
    }

    #[test]
    fn a_case_without_mask_or_with_two_images_is_listed_with_the_reason() {
        let directory = tree(&["volume-1.nii", "volume-2.nii", "volume-2.nii.gz", "segmentation-2.nii"]);
        let found = discover(directory.path(), &manifest("lits")).unwrap();
        assert!(found.cases.is_empty());
        let reasons: Vec<String> = found.unusable.iter().map(|(_, error)| error.to_string()).collect();
        assert_eq!(
            reasons[0],
            format!(
                "case '1': it has no mask, expected one by the manifest's '**/segmentation-{{case}}.nii[.gz]'{NOT_EVERY_CASE}"
            )
        );
        assert!(reasons[1].contains("it has two images"), "{}", reasons[1]);
    }

    #[test]
    fn masks_without_an_image_are_named() {
        let directory = tree(&["volume-1.nii", "segmentation-1.nii", "b/segmentation-2.nii", "segmentation-02.nii"]);
        let found = discover(directory.path(), &manifest("lits")).unwrap();
        assert_eq!(found.cases.len(), 1);
        let reasons: Vec<String> = found.unusable.iter().map(|(_, error)| error.to_string()).collect();
        assert_eq!(reasons.len(), 2);
        for (case, file) in [("2", "b/segmentation-2.nii"), ("02", "segmentation-02.nii")] {
            let path = directory.path().join(file);
            let expected = format!(
                "case '{case}': it has a mask ('{}'), but no image, expected one by the manifest's '**/volume-{{case}}.nii[.gz]'",
                path.display()
            );
            assert!(reasons.contains(&expected), "{reasons:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_links_lead_to_twice_is_one_file() {
        use std::os::unix::fs::symlink;
        let directory =
            tree(&["raw/volume-1.nii", "raw/segmentation-1.nii", "raw/deep/volume-2.nii", "segmentation-2.nii"]);
        let path = |name: &str| directory.path().join(name);
        symlink(path("raw"), path("a link to raw")).unwrap();
        symlink(path("raw/deep"), path("deep")).unwrap();
        // A link upward would be followed for ever; a link to a file is another name for it.
        symlink(directory.path(), path("raw/deep/up")).unwrap();
        symlink(path("raw/volume-1.nii"), path("volume-1.nii")).unwrap();
        symlink(path("nowhere"), path("raw/broken")).unwrap();
        let found = discover(directory.path(), &manifest("lits")).unwrap();
        assert!(found.unusable.is_empty(), "{:?}", found.unusable);
        assert_eq!(found.cases.iter().map(|files| files.case.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        // A copy is another file: nobody knows which of the two is meant.
        fs::write(path("volume-2.nii"), b"").unwrap();
        assert_eq!(discover(directory.path(), &manifest("lits")).unwrap().unusable.len(), 1);
    }

    #[test]
    fn a_directory_without_the_data_is_refused_with_the_pattern_and_the_way_to_get_it() {
        let directory = tree(&["other.nii"]);
        let message = discover(directory.path(), &manifest("lits")).unwrap_err().to_string();
        assert!(message.contains("matches '**/volume-{case}.nii[.gz]', which the manifest 'lits' expects. How to get"));
        assert!(discover(&directory.path().join("absent"), &manifest("lits")).is_err());
    }

    #[test]
    fn the_case_must_be_the_same_wherever_it_stands() {
        let directory = tree(&["a/a_ct.nii", "b/c_ct.nii"]);
        let found = Pattern::parse("{case}/{case}_ct.nii").unwrap().find(directory.path()).unwrap();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_slash_at_the_end_means_folders_and_several_masks_must_all_be_there() {
        let mut manifest = manifest("totalsegmentator");
        manifest.image = "{case}/".to_owned();
        let patterns = ["masks/{case}_liver.nii", "masks/{case}_tumour.nii"].map(str::to_owned);
        manifest.mask = crate::manifest::OneOrMore::More(patterns.to_vec());
        let files = ["a/1.dcm", "b/1.dcm", "c.dcm", "masks/a_liver.nii", "masks/a_tumour.nii", "masks/b_liver.nii"];
        let directory = tree(&files);
        let found = discover(directory.path(), &manifest).unwrap();
        assert_eq!(found.cases.len(), 1);
        assert_eq!((found.cases[0].case.as_str(), found.cases[0].masks.len()), ("a", 2));
        assert!(found.cases[0].image.ends_with("a"));
        let reasons: Vec<String> = found.unusable.iter().map(|(_, error)| error.to_string()).collect();
        assert_eq!(reasons[0], "case 'b': it has no mask, expected one by the manifest's 'masks/{case}_tumour.nii'");
    }

    #[test]
    fn patterns_that_are_not_understood_are_refused() {
        for text in
            ["a.nii", "", "{case}{case}.nii", "*/{case}.nii", "../{case}.nii", "{cas}.nii", "{case}/[a].nii", "/"]
        {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
