//! Whether a file may be written where a user says: never over what is read, and over nothing else unasked.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

/// What becomes of a file that is where one is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and that is an error.
    Kept,
    /// It is replaced: the user said `--overwrite`.
    Replaced,
}

impl Existing {
    /// Of the switch `--overwrite`.
    pub fn by_switch(overwrite: bool) -> Self {
        if overwrite { Self::Replaced } else { Self::Kept }
    }
}

/// Why nothing is written there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It is what is read.
    #[error("the output '{}' is the input '{}' itself, which would be lost: name another place", output.display(), input.display())]
    IsInput {
        /// As it was named.
        output: PathBuf,
        /// As it was named.
        input: PathBuf,
    },
    /// Something is there.
    #[error("'{}' is there already and is left as it is: name another place, or say --overwrite to replace it", .0.display())]
    IsThere(PathBuf),
}

/// Whether `output` may be written: it is none of the `inputs`, under whatever name, and if it is there it is to be replaced.
///
/// # Errors
/// If not.
pub fn check_place(output: &Path, inputs: &[&Path], existing: Existing) -> Result<(), PlaceError> {
    if let Some(input) = inputs.iter().find(|input| is_same(input, output)) {
        return Err(PlaceError::IsInput { output: output.into(), input: input.into() });
    }
    // A link that leads nowhere is there too.
    if existing == Existing::Kept && output.symlink_metadata().is_ok() {
        return Err(PlaceError::IsThere(output.into()));
    }
    Ok(())
}

/// Whether two paths name the same file or folder, which is there: by `.`, `..`, links of either kind, or as they are.
pub fn is_same(a: &Path, b: &Path) -> bool {
    let (Ok(of_a), Ok(of_b)) = (fs::metadata(a), fs::metadata(b)) else { return false };
    is_one(&of_a, &of_b) || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

#[cfg(unix)]
fn is_one(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_one(_: &Metadata, _: &Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_never_written_over_under_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("ct.nii.gz");
        fs::write(&input, "ct").unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        let mut names = vec![input.clone(), folder.path().join("./ct.nii.gz"), folder.path().join("sub/../ct.nii.gz")];
        #[cfg(unix)]
        {
            let (soft, hard) = (folder.path().join("soft"), folder.path().join("hard"));
            std::os::unix::fs::symlink(&input, &soft).unwrap();
            fs::hard_link(&input, &hard).unwrap();
            names.extend([soft, hard]);
        }
        for name in names {
            for existing in [Existing::Kept, Existing::Replaced] {
                let error = check_place(&name, &[Path::new("none"), &input], existing).unwrap_err();
                assert!(matches!(error, PlaceError::IsInput { .. }), "{}: {error}", name.display());
            }
        }
        assert!(is_same(&folder.path().join("sub/.."), folder.path()));
    }

    #[test]
    fn what_is_there_is_replaced_only_if_the_user_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (there, new) = (folder.path().join("there"), folder.path().join("new"));
        fs::write(&there, "").unwrap();
        check_place(&new, &[&there], Existing::Kept).unwrap();
        check_place(&there, &[&new], Existing::Replaced).unwrap();
        let error = check_place(&there, &[], Existing::Kept).unwrap_err().to_string();
        assert!(error.contains("there' is there already") && error.contains("--overwrite"), "{error}");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("nowhere", &new).unwrap();
            assert!(matches!(check_place(&new, &[], Existing::Kept), Err(PlaceError::IsThere(_))));
        }
    }
}
