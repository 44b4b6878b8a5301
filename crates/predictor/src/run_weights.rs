//! Where the pretrained weights of a run are now: it knows them by their SHA-256, and may have been moved, or be used from
//! another folder than the one that it was trained from.

use crate::config::SegmenterConfig;
use crate::weights::INSTALLED_WEIGHTS;
use anyhow::{Context, Result, bail};
use run_record::sha256_of_file;
use std::path::{Path, PathBuf};

/// The file that a run began with, whose SHA-256 is `expected`, if it is in one of the places where it can be looked for: as the
/// run's configuration names it, from here or from a folder above the run; under its name in the run or a folder above it, or
/// beside the program; installed in the workspace of the run, of this folder, or of the program. Without `expected` the first
/// that is there.
///
/// # Errors
/// All places, if it is in none.
pub fn weights_of_run(run: &Path, config: &SegmenterConfig, expected: Option<&str>) -> Result<PathBuf> {
    let here = std::env::current_dir().context("the working directory can't be read")?;
    let program = std::env::current_exe().ok();
    let places = places(run, config.weights.as_deref(), &here, program.as_deref().and_then(Path::parent));
    let there: Vec<&PathBuf> = places.iter().filter(|place| place.is_file()).collect();
    let mut others = Vec::new();
    for place in &there {
        // The one that is there is compared when it is loaded.
        let Some(expected) = expected.filter(|_| there.len() > 1) else { return Ok((*place).clone()) };
        let (found, _) = sha256_of_file(place)?;
        if found == expected {
            return Ok((*place).clone());
        }
        others.push(format!("'{}' has SHA-256 {found}", place.display()));
    }
    let expected = expected.map_or_else(String::new, |expected| format!(" of SHA-256 {expected}"));
    let places: Vec<String> = places.iter().map(|place| format!("'{}'", place.display())).collect();
    let others =
        if others.is_empty() { String::new() } else { format!("\nOthers are there:\n  {}", others.join("\n  ")) };
    bail!(
        "the pretrained weights{expected} that the run '{}' began with are in none of these places:\n  {}{others}\n\
         `cargo xtask setup` installs the default ones; a copy beside the run is found too",
        run.display(),
        places.join("\n  ")
    )
}

/// Where to classification, in this order.
fn places(run: &Path, named: Option<&Path>, here: &Path, program: Option<&Path>) -> Vec<PathBuf> {
    let run = std::path::absolute(run).unwrap_or_else(|_| run.to_owned());
    let run = run.canonicalize().unwrap_or(run);
    let mut places = Vec::new();
    if let Some(named) = named {
        places.push(here.join(named));
        places.extend(run.ancestors().map(|folder| folder.join(named)));
        let name = named.file_name().unwrap_or_default();
        places.extend(run.ancestors().chain(program).map(|folder| folder.join(name)));
    } else {
        let folders = run.ancestors().chain(here.ancestors());
        places.extend(folders.chain(program.into_iter().flat_map(Path::ancestors)).map(|f| f.join(INSTALLED_WEIGHTS)));
        let name = Path::new(INSTALLED_WEIGHTS).file_name().unwrap_or_default();
        places.extend([run.as_path()].into_iter().chain(run.parent()).chain(program).map(|folder| folder.join(name)));
    }
    let mut seen = std::collections::HashSet::new();
    places.retain(|place| seen.insert(place.clone()));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// printf a | sha256sum
    const OF_A: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

    fn write(root: &Path, name: &str, text: &str) -> PathBuf {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.canonicalize().unwrap()
    }

    fn named(weights: Option<&str>) -> SegmenterConfig {
        SegmenterConfig { weights: weights.map(PathBuf::from), ..SegmenterConfig::default() }
    }

    #[test]
    fn weights_are_found_from_the_run_wherever_the_program_is_started() {
        for (place, weights) in [
            ("data/w.pth", Some("data/w.pth")),
            ("runs/r/w.pth", Some("/nowhere/w.pth")),
            ("runs/w.pth", Some("gone/w.pth")),
            (".deps/weights/lite_medsam.pth", None),
            ("runs/r/lite_medsam.pth", None),
        ] {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), "runs/r/run.json", "{}");
            let expected = write(root.path(), place, "a");
            let found = weights_of_run(&root.path().join("runs/r"), &named(weights), Some(OF_A)).unwrap();
            assert_eq!(found.canonicalize().unwrap(), expected, "{place}");
        }
    }

    #[test]
    fn of_several_files_of_that_name_the_one_with_the_runs_sha_256_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (run, config) = (root.path().join("runs/r"), named(Some("w.pth")));
        write(root.path(), "runs/r/w.pth", "b");
        let right = write(root.path(), "w.pth", "a");
        assert_eq!(weights_of_run(&run, &config, Some(OF_A)).unwrap(), right);
        write(root.path(), "w.pth", "c");
        let error = weights_of_run(&run, &config, Some(OF_A)).unwrap_err().to_string();
        for part in [OF_A, "Others are there", "runs/r/w.pth' has SHA-256 3e23e816", "cargo xtask setup"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
