//! What a file of weights is that no known image encoder was found in, as far as its names tell, and what to do about it.

use crate::checkpoint::{PARTS, Shapes, StateFile};

/// What names of low-rank adapters hold, in lower case: PEFT's, Microsoft's and ours, and SAMed's.
const LOW_RANK: [&str; 3] = ["lora", "w_a_", "w_b_"];

/// The sentence behind the file's name.
pub(super) fn unknown_encoder(file: &StateFile) -> String {
    let shapes = file.shapes();
    let names = || shapes.iter().map(|(name, _)| name);
    let expected =
        "expected 'image_encoder.pos_embed' of a ViT or 'image_encoder.patch_embed.seq.2.c.weight' of a TinyViT";
    let adapters: Vec<&str> =
        names().filter(|name| LOW_RANK.iter().any(|mark| name.to_ascii_lowercase().contains(mark))).collect();
    if let Some(first) = adapters.first() {
        return lora_only(file, adapters.len(), first, expected);
    }
    let encoder = format!("{}.", PARTS[0]);
    if let Some((prefix, _)) =
        names().find_map(|name| name.split_once(&encoder)).filter(|(prefix, _)| !prefix.is_empty())
        && let Some(other) = names().find(|name| !name.starts_with(prefix))
    {
        return format!(
            "the names of its image encoder begin with '{prefix}', but '{other}' doesn't; what all names share is taken off \
             and nothing else, expected 'image_encoder.…'. Save the SAM's own state_dict() alone"
        );
    }
    if names().any(|name| name.starts_with("vision_encoder.")) {
        return format!(
            "its names are those of Hugging Face's transformers ('vision_encoder.…'), {expected}: take the original \
             checkpoint, or convert the names to its"
        );
    }
    let parts: Vec<String> =
        PARTS[1..].iter().filter(|part| has(shapes, part)).map(|part| format!("'{part}.…'")).collect();
    if !parts.is_empty() && !has(shapes, PARTS[0]) {
        return format!(
            "it has no image encoder, its {} tensors are {}, {expected}: give the whole checkpoint, with all three parts",
            shapes.len(),
            parts.join(" and ")
        );
    }
    let first: Vec<&str> = names().take(3).collect();
    format!(
        "its {} tensors (first: {}){} are of no SAM that is known here: {expected}",
        shapes.len(),
        first.join(", "),
        file.place()
    )
}

fn has(shapes: &Shapes, part: &str) -> bool {
    shapes.iter().any(|(name, _)| name.strip_prefix(part).is_some_and(|rest| rest.starts_with('.')))
}

/// Adapters without what they adapt.
fn lora_only(file: &StateFile, count: usize, first: &str, expected: &str) -> String {
    let found = format!(
        "it has low-rank adapters ({count} of its {} tensors, the first '{first}') and no image encoder, {expected}",
        file.shapes().len()
    );
    match &file.record().adapters {
        Some(record) => format!(
            "{found}. They were exported here, from a {} whose file has SHA-256 {}: `export --weights THAT_FILE --adapters \
             THIS_FILE --to safetensors` makes one file of both, which loads",
            record.architecture, record.base_sha256
        ),
        None => format!(
            "{found}. Give the checkpoint that they were trained on, and beside it nothing: adapters of another program can't be \
             read here, so add them into its weights there first (W + s · B · A) and save the whole model's state_dict()"
        ),
    }
}
