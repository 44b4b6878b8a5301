//! What the gate, `.ci/run`, holds to.

use std::fs;

fn gate() -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/run")).unwrap();
    text.lines().filter(|line| line.starts_with("part ")).map(str::to_owned).collect()
}

#[test]
fn the_gate_takes_the_versions_that_are_locked() {
    let parts = gate();
    assert!(parts.len() > 4, "{parts:?}");
    for part in parts.iter().filter(|part| part.contains("cargo ") && !part.contains("cargo fmt")) {
        assert!(part.contains(" --locked"), "`{part}` may change Cargo.lock");
    }
    // What xtask starts in its turn.
    assert!(parts.iter().any(|part| part.ends_with("xtask test --locked")), "{parts:?}");
}

/// They are members of the workspace, and a target of theirs is built by nothing else.
#[test]
fn the_fuzz_targets_are_linted() {
    let lints = gate().into_iter().find(|part| part.contains("cargo clippy")).expect("a part for lints");
    assert!(lints.contains("--workspace --all-targets"), "{lints}");
    let members: toml::Table =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).unwrap().parse().unwrap();
    let members = members["workspace"]["members"].as_array().unwrap();
    assert!(members.iter().any(|member| member.as_str() == Some("crates/ct-ingest/fuzz")), "{members:?}");
}
