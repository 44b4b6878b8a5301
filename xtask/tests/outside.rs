//! A crate outside the workspace, made as docs/how-to/swap-a-stage.md says: what can be tried of it without building it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The how-to's `Cargo.toml`, with this workspace as the clone.
fn manifest() -> String {
    let page = fs::read_to_string(format!("{WORKSPACE}/docs/how-to/swap-a-stage.md")).unwrap();
    let (_, rest) = page.split_once("```toml\n[package]").expect("the page shows a whole Cargo.toml");
    let (manifest, _) = rest.split_once("```").unwrap();
    let root = fs::canonicalize(WORKSPACE).unwrap();
    format!("[package]{manifest}").replace("../sam-mix", root.to_str().unwrap())
}

/// Name and version of each package in a `Cargo.lock`.
fn locked(folder: &Path) -> BTreeSet<String> {
    let lock: toml::Table = fs::read_to_string(folder.join("Cargo.lock")).unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    packages.map(|package| format!("{} {}", package["name"], package["version"])).collect()
}

#[test]
fn a_crate_outside_the_workspace_has_the_versions_of_the_workspace() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Cargo.toml"), manifest()).unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/main.rs"), "fn main() {}\n").unwrap();
    fs::copy(Path::new(WORKSPACE).join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    // What `cargo build` begins with.
    let cargo = Command::new(env!("CARGO")).args(["update", "--workspace", "--offline"]).current_dir(&folder).output();
    let cargo = cargo.expect("cargo starts");
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let (ours, theirs) = (locked(Path::new(WORKSPACE)), locked(folder.path()));
    let others: Vec<&String> = theirs.difference(&ours).collect();
    assert_eq!(others, ["\"my-segmenter\" \"0.1.0\""]);
    assert!(theirs.len() > 50 && theirs.len() < ours.len(), "{} of {}", theirs.len(), ours.len());
}

/// Cargo runs a build script each time, and builds all that follows, where it waits for a file that isn't there.
#[test]
fn the_build_script_waits_for_no_file_that_a_crate_outside_the_workspace_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(format!("script{}", env::consts::EXE_SUFFIX));
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let script = format!("{WORKSPACE}/build/libtorch_rpath.rs");
    let built = Command::new(rustc).args([&script, "--edition", "2024", "-o"]).arg(&program).status().unwrap();
    assert!(built.success());
    let output =
        Command::new(&program).env("DEP_TCH_LIBTORCH_LIB", "/place/lib").current_dir(&folder).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("cargo:rustc-link-arg=-Wl,-rpath,/place/lib"), "{said}");
    for file in said.lines().filter_map(|line| line.strip_prefix("cargo:rerun-if-changed=")) {
        assert!(folder.path().join(file).exists(), "{file}");
    }
    // Without any such line cargo would wait for every file of the crate.
    assert!(said.contains("cargo:rerun-if-"), "{said}");
}
