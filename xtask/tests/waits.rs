//! The places of a training step where the host may wait for a GPU, found by the calls that do it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Each reads from the device, or copies to it from memory that the copy is waited for.
const CALLS: [&str; 5] = ["double_value(", "int64_value(", "copy_data(", "to_device(", "Vec::try_from("];

/// What a step goes through: folders with all that is in them, and files.
const STEP: [&str; 9] = [
    "cam-classifier/src",
    "losses/src",
    "sam-segmenter/src/encoder",
    "sam-segmenter/src/mask_decoder.rs",
    "sam-segmenter/src/preparation.rs",
    "sam-segmenter/src/prompt_encoder.rs",
    "sam-segmenter/src/transformer.rs",
    "trainer/src/prompts.rs",
    "trainer/src/train/forward.rs",
];

/// How many there are, and why.
const KNOWN: [(&str, usize, &str); 5] = [
    ("cam-classifier/src/prompt.rs", 2, "the box of a CAM is found on the host"),
    ("sam-segmenter/src/encoder/tiny_vit/block.rs", 1, "a table, when the model is made"),
    ("sam-segmenter/src/encoder/vit/backward.rs", 1, "a random number, drawn on the host"),
    ("losses/src/mask.rs", 2, "the boundary loss computes distances on the host"),
    ("trainer/src/train/forward.rs", 1, "a step's losses, read together"),
];

#[test]
fn a_step_waits_for_the_gpu_only_where_it_is_known_to() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut found = BTreeMap::new();
    for place in STEP {
        count(&crates, &crates.join(place), &mut found);
    }
    for (file, calls) in &found {
        let known = KNOWN.iter().find(|(name, ..)| name == file).map_or(0, |known| known.1);
        assert_eq!(
            *calls, known,
            "crates/{file}: so many calls may make the host wait for a GPU. `stage_api::sent` brings values there without; what \
             has to wait is counted here, and told in docs/explanation/performance.md"
        );
    }
    for (file, _, why) in KNOWN {
        assert!(found.contains_key(file), "crates/{file} waits no more ({why})");
    }
}

/// Calls outside tests, in the files that have any.
fn count(crates: &Path, place: &Path, found: &mut BTreeMap<String, usize>) {
    if place.is_dir() {
        let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
        return entries.for_each(|entry| count(crates, &entry, found));
    }
    let name = place.strip_prefix(crates).unwrap().to_str().unwrap().to_owned();
    if name.ends_with("tests.rs") {
        return;
    }
    let text = fs::read_to_string(place).unwrap();
    let code = text.split("mod tests {").next().unwrap();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let calls = code.map(|line| CALLS.iter().map(|call| line.matches(call).count()).sum::<usize>()).sum();
    if calls > 0 {
        found.insert(name, calls);
    }
}
