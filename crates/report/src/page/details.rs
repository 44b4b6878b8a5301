//! What the run was: `run.json` as a table of definitions, the configuration as text.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::not_there_yet;
use crate::run::Run;

/// Lists longer than this are folded.
const LONG_LIST: usize = 12;

/// One line below the title, of what is there.
pub fn summary(run: &Run) -> Markup {
    let shown = ["started", "device", "seed", "commit"];
    let of = |key: &str| run.details.get(key).filter(|value| !value.is_null() && !value.is_object());
    html! {
        p class="summary" {
            @for (key, value) in shown.iter().filter_map(|key| Some((key, of(key)?))) {
                span { (key) " " b { (text(value)) } }
            }
            @if let Some(seconds) = of("seconds").and_then(Value::as_f64) { span { "took " b { (duration(seconds)) } } }
        }
    }
}

pub fn section(run: &Run) -> Markup {
    let entries = flattened(&run.details);
    html! {
        section {
            h2 { "Run" }
            dl {
                @for (key, value) in &entries {
                    div {
                        dt { (key) }
                        dd { (entry(key, value)) }
                    }
                }
            }
            @match &run.config {
                Some(config) => {
                    details {
                        summary { "Configuration (config.toml)" }
                        pre { (config) }
                    }
                }
                None => (not_there_yet("cargo xtask train (it writes config.toml into the run)")),
            }
        }
    }
}

/// Nested objects as `outer.inner`, in the order of the file.
pub fn flattened(object: &Map<String, Value>) -> Vec<(String, &Value)> {
    let mut entries = Vec::new();
    for (key, value) in object {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                entries.extend(flattened(inner).into_iter().map(|(tail, value)| (format!("{key}.{tail}"), value)));
            }
            _ => entries.push((key.clone(), value)),
        }
    }
    entries
}

fn entry(key: &str, value: &Value) -> Markup {
    html! {
        @match value {
            Value::Array(list) if list.len() > LONG_LIST => {
                details { summary { (list.len()) " entries" } (text(value)) }
            }
            Value::Number(seconds) if key == "seconds" => {
                (text(value)) " (" (duration(seconds.as_f64().unwrap_or_default())) ")"
            }
            _ => (text(value)),
        }
    }
}

/// A value as a reader writes it: text without quotes, lists with commas.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "n/a".into(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
