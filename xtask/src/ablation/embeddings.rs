//! Which runs share a file with what the encoder made of their slices and views.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Whether the classifier of a configuration with these overrides reads embeddings.
pub fn reads_embeddings(config: &str, set: &[String]) -> Result<bool> {
    let mut table: toml::Table = config.parse().context("this is not TOML")?;
    let mut classifier = table.remove("classifier");
    for (key, text) in set.iter().filter_map(|item| item.split_once('=')) {
        let value = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("v"));
        let value = value.unwrap_or_else(|| toml::Value::String(text.into()));
        match key.trim() {
            "classifier" => classifier = Some(value),
            "classifier.kind" => classifier = Some(toml::Table::from_iter([("kind".to_owned(), value)]).into()),
            _ => {}
        }
    }
    let kind = classifier.as_ref().and_then(|classifier| classifier.get("kind")).and_then(toml::Value::as_str);
    Ok(kind == Some("embedding"))
}

/// Keys that decide which slices and views are encoded, and by what.
const DECIDE_EMBEDDINGS: [&str; 5] = ["sampling", "views", "augmentation.labelled", "intensity", "segmenter"];

/// Runs of the same seed, configuration and overrides of what is encoded share a file. Where two that are named alike would
/// differ for all that, because the configuration was edited in between, the trainer refuses the file.
pub fn embeddings_name(config: &Path, seed: u64, set: &[String]) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{seed}\n{}\n", config.display()));
    for item in set {
        let key = item.split('=').next().unwrap_or_default().trim();
        // A whole table may be set too, which holds the key.
        let decides = |known: &str| key.starts_with(known) || known.starts_with(&format!("{key}."));
        if DECIDE_EMBEDDINGS.iter().any(|known| decides(known)) {
            hash.update(format!("{item}\n"));
        }
    }
    let short = hash.finalize().iter().take(5).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    format!("embeddings-{short}.f16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_are_for_classifiers_that_read_them() {
        let reads = |config: &str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(|&item| item.into()).collect();
            reads_embeddings(config, &set).unwrap()
        };
        let embedding = "[classifier]\nkind = \"embedding\"\nbatch_masks = 8\n";
        assert!(reads(embedding, &["classifier.batch_masks=0"]) && !reads("seed = 1", &[]));
        assert!(!reads(embedding, &["classifier.kind=resnet"]) && !reads(embedding, &["classifier={batch_masks=1}"]));
        assert!(reads("", &["classifier.kind=resnet", "classifier.kind=\"embedding\""]));
        assert!(reads("", &["classifier={kind='embedding'}"]));
    }

    #[test]
    fn embeddings_are_shared_by_what_encodes_the_same() {
        let name = |seed, set: &[&str]| {
            embeddings_name(Path::new("c.toml"), seed, &set.iter().map(|&item| item.into()).collect::<Vec<_>>())
        };
        let plain = name(0, &[]);
        assert_eq!(plain.len(), "embeddings-0123456789.f16".len());
        assert_eq!(plain, name(0, &["training_prompts.cam_share=0", "augmentation.classifier.shift=0"]));
        assert_ne!(plain, name(1, &[]));
        assert_ne!(plain, embeddings_name(Path::new("d.toml"), 0, &[]));
        for set in [
            "sampling.labelled=5",
            "views.count=0",
            "augmentation.labelled.probability=0",
            "augmentation={labelled={shift=0.1}}",
            "intensity.window.level=60",
            "segmenter.settings.precision=bf16",
        ] {
            assert_ne!(plain, name(0, &[set]), "{set}");
        }
    }
}
