//! How errors are worded.

use std::fs;
use std::path::Path;

/// The programs print an error with its causes, and a field named `source` is a cause: a text that shows it too says it twice.
#[test]
fn no_error_says_its_cause_twice() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut texts = Vec::new();
    read(&crates, &mut texts);
    assert!(texts.iter().any(|text| text.contains("thiserror::Error")), "no errors in {}", crates.display());
    let twice = texts.iter().flat_map(|text| text.lines()).filter(|line| line.contains("{source}"));
    assert_eq!(twice.collect::<Vec<_>>(), [""; 0], "name the field `reason`");
}

fn read(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
}
