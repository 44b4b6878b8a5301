//! Which slices of a case are annotated, and what is known of each: by its masks, as far as the manifest says that they go, and
//! by a list of image-level labels.
//!
//! Invariant: of a slice that neither masks nor list speak of, nothing is assumed.

use crate::IngestError;
use serde::{Deserialize, Serialize};
use slice_store::SliceLabel;
use std::collections::BTreeMap;

/// Which slices the masks of a data set speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskCoverage {
    /// All of them: where nothing is painted, there is no target.
    #[default]
    All,
    /// Those in which anything is painted; what the others show is not known.
    Painted,
    /// Those that are listed, by case, in slice numbers of the file's own order, counted from 0: the annotator looked at each of
    /// them, and left some empty. A case with a mask that is not listed is refused.
    Slices(BTreeMap<String, Vec<u32>>),
}

/// What a mask's file holds in a slice, before it is resized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Painted {
    /// Any label but the background.
    pub any: bool,
    /// The target.
    pub target: bool,
    /// What nobody knows.
    pub ignored: bool,
}

/// The masks of a case as they were read.
pub(crate) struct CaseMasks<'a> {
    /// Of all slices, 0 or 1, `[slices, size, size]`.
    pub masks: Vec<u8>,
    /// By slice.
    pub painted: &'a [Painted],
}

/// A case's slices: what is known of each, and the masks of those that have one.
pub(crate) struct Annotations {
    pub labels: Vec<SliceLabel>,
    pub masks: Vec<u8>,
}

/// A case as its errors call it, and the number of each of its slices in its file.
pub(crate) struct CaseSlices<'a> {
    pub case: &'a str,
    pub numbers: &'a [usize],
}

impl CaseSlices<'_> {
    fn error(&self, problem: String) -> IngestError {
        IngestError::Case { case: self.case.to_owned(), problem }
    }
}

impl MaskCoverage {
    /// What is known of a case's slices, from its masks (`None` if it has none) and from a list (`None` where it says nothing of
    /// a slice; whether it shows the target).
    ///
    /// # Errors
    /// The list contradicts a mask, or the coverage does.
    pub(crate) fn annotations(
        &self,
        slices: &CaseSlices,
        masks: Option<CaseMasks>,
        listed: &[Option<bool>],
    ) -> Result<Annotations, IngestError> {
        let by_list = |listed: &Option<bool>| match listed {
            Some(true) => SliceLabel::ListPresent,
            Some(false) => SliceLabel::ListAbsent,
            None => SliceLabel::Unknown,
        };
        let Some(CaseMasks { mut masks, painted }) = masks else {
            return Ok(Annotations { labels: listed.iter().map(by_list).collect(), masks: Vec::new() });
        };
        let covered = self.covered(slices, painted)?;
        let pixels = masks.len() / painted.len().max(1);
        let (mut labels, mut kept) = (Vec::with_capacity(painted.len()), 0);
        for (slice, (covered, listed)) in covered.into_iter().zip(listed).enumerate() {
            let shows = painted[slice].target;
            let label = SliceLabel::of_mask(&masks[slice * pixels..(slice + 1) * pixels]);
            // Where a part is ignored and the rest is no target, the mask says nothing.
            if !covered || label == SliceLabel::Unknown {
                labels.push(by_list(listed));
                continue;
            }
            if let Some(listed) = listed.filter(|listed| *listed != shows) {
                let say = |present: bool| if present { "present" } else { "absent" };
                return Err(slices.error(format!(
                    "slice {} of its file is '{}' by the presence list, but its mask says '{}': correct whichever is wrong",
                    slices.numbers[slice],
                    say(listed),
                    say(shows)
                )));
            }
            masks.copy_within(slice * pixels..(slice + 1) * pixels, kept * pixels);
            labels.push(label);
            kept += 1;
        }
        masks.truncate(kept * pixels);
        Ok(Annotations { labels, masks })
    }

    /// Which slices have a mask.
    fn covered(&self, slices: &CaseSlices, painted: &[Painted]) -> Result<Vec<bool>, IngestError> {
        match self {
            Self::All => Ok(vec![true; painted.len()]),
            Self::Painted => Ok(painted.iter().map(|painted| painted.any).collect()),
            Self::Slices(cases) => {
                let listed = cases.get(slices.case).ok_or_else(|| {
                    slices.error(
                        "it has a mask, but `mask_coverage.slices` of the manifest doesn't list which of its slices were \
                         annotated; add the case there"
                            .to_owned(),
                    )
                })?;
                if let Some(beyond) = listed.iter().find(|&&number| number as usize >= painted.len()) {
                    return Err(slices.error(format!(
                        "`mask_coverage.slices` of the manifest lists slice {beyond} of it, but it has {} slices, counted from 0",
                        painted.len()
                    )));
                }
                let covered: Vec<bool> =
                    slices.numbers.iter().map(|&number| listed.contains(&(number as u32))).collect();
                let stray = painted.iter().zip(&covered).position(|(painted, covered)| painted.any && !covered);
                if let Some(slice) = stray {
                    return Err(slices.error(format!(
                        "its mask is painted in slice {} of its file, which `mask_coverage.slices` of the manifest doesn't list; \
                         add it there, or clear the slice",
                        slices.numbers[slice]
                    )));
                }
                Ok(covered)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SliceLabel::{ListAbsent, ListPresent, MaskAbsent, MaskPresent, Unknown};

    const NOTHING: Painted = Painted { any: false, target: false, ignored: false };
    const OTHER: Painted = Painted { any: true, ..NOTHING };
    const TARGET: Painted = Painted { target: true, ..OTHER };
    const IN_PART: Painted = Painted { ignored: true, ..OTHER };

    /// Four slices of a pixel, numbered from the other end in their file: nothing, another organ, the target, nothing.
    fn annotations(coverage: &MaskCoverage, listed: [Option<bool>; 4]) -> Result<(Vec<SliceLabel>, Vec<u8>), String> {
        let painted = [NOTHING, OTHER, TARGET, NOTHING];
        let slices = CaseSlices { case: "a", numbers: &[3, 2, 1, 0] };
        let masks = CaseMasks { masks: vec![0, 0, 1, 0], painted: &painted };
        let found = coverage.annotations(&slices, Some(masks), &listed).map_err(|error| error.to_string())?;
        Ok((found.labels, found.masks))
    }

    fn slices(numbers: &[u32]) -> MaskCoverage {
        MaskCoverage::Slices(BTreeMap::from([("a".to_owned(), numbers.to_vec())]))
    }

    #[test]
    fn an_unpainted_slice_means_what_the_coverage_says() {
        let none = [None; 4];
        let whole = annotations(&MaskCoverage::All, none).unwrap();
        assert_eq!(whole, (vec![MaskAbsent, MaskAbsent, MaskPresent, MaskAbsent], vec![0, 0, 1, 0]));
        let painted = annotations(&MaskCoverage::Painted, none).unwrap();
        assert_eq!(painted, (vec![Unknown, MaskAbsent, MaskPresent, Unknown], vec![0, 1]));
        // An annotated slice that is empty.
        let listed = annotations(&slices(&[0, 1, 2]), none).unwrap();
        assert_eq!(listed, (vec![Unknown, MaskAbsent, MaskPresent, MaskAbsent], vec![0, 1, 0]));
    }

    #[test]
    fn a_mask_that_is_ignored_in_part_speaks_only_where_it_shows_the_target() {
        let painted = [IN_PART, Painted { ignored: true, ..TARGET }, IN_PART, NOTHING];
        let slices = CaseSlices { case: "a", numbers: &[0, 1, 2, 3] };
        // Two pixels a slice.
        let masks = CaseMasks { masks: vec![0, 255, 1, 255, 255, 255, 0, 0], painted: &painted };
        let found = MaskCoverage::All.annotations(&slices, Some(masks), &[None, None, Some(true), None]).unwrap();
        assert_eq!(found.labels, [Unknown, MaskPresent, ListPresent, MaskAbsent]);
        assert_eq!(found.masks, [1, 255, 0, 0]);
    }

    #[test]
    fn a_list_speaks_of_slices_that_masks_leave_out() {
        let listed = [Some(false), None, Some(true), Some(true)];
        let found = annotations(&MaskCoverage::Painted, listed).unwrap();
        assert_eq!(found, (vec![ListAbsent, MaskAbsent, MaskPresent, ListPresent], vec![0, 1]));
        let slices = CaseSlices { case: "a", numbers: &[0, 1] };
        let found = MaskCoverage::All.annotations(&slices, None, &[Some(false), None]).unwrap();
        assert_eq!((found.labels, found.masks), (vec![ListAbsent, Unknown], vec![]));
    }

    #[test]
    fn contradictions_name_case_and_slice() {
        let error = annotations(&MaskCoverage::All, [Some(true), None, None, None]).unwrap_err();
        assert!(error.starts_with("case 'a': slice 3 of its file is 'present' by the presence list"), "{error}");
        let error = annotations(&MaskCoverage::Painted, [None, None, Some(false), None]).unwrap_err();
        assert!(error.contains("slice 1 of its file is 'absent'") && error.contains("says 'present'"), "{error}");
        let error = annotations(&slices(&[1]), [None; 4]).unwrap_err();
        assert!(error.contains("painted in slice 2 of its file"), "{error}");
        let error = annotations(&slices(&[1, 2, 4]), [None; 4]).unwrap_err();
        assert!(error.contains("lists slice 4 of it, but it has 4 slices"), "{error}");
        let error = annotations(&MaskCoverage::Slices(BTreeMap::new()), [None; 4]).unwrap_err();
        assert!(error.contains("doesn't list which of its slices"), "{error}");
    }
}
