//! What the run was: `run.json` as a table of definitions, the configuration as text.

use maud::{Markup, html};
use run_record::utc;
use serde_json::{Map, Value};

use super::not_there_yet;
use crate::run::Run;

/// Lists longer than this are folded.
const LONG_LIST: usize = 12;

/// One line below the title.
pub fn summary(run: &Run) -> Markup {
    let record = &run.record;
    html! {
        p class="summary" {
            span { b { (record.status.name()) } }
            span { "started " b { (utc(record.started_unix)) } }
            span { "took " b { (duration(record.seconds)) } }
            span { "device " b { (record.device) } }
            span { "seed " b { (record.seed) } }
            @if let Some(commit) = &record.commit { span { "commit " b { (commit) } } }
        }
    }
}

pub fn section(run: &Run) -> Markup {
    let record = serde_json::to_value(&run.record).unwrap_or_default();
    let entries = record.as_object().map(flattened).unwrap_or_default();
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
fn flattened(object: &Map<String, Value>) -> Vec<(String, &Value)> {
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
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let objects: Vec<Map<String, Value>> = list.iter().map_while(|item| item.as_object().cloned()).collect();
    html! {
        @if !objects.is_empty() && objects.len() == list.len() {
            (table(&objects))
        } @else if list.len() > LONG_LIST {
            details { summary { (list.len()) " entries" } (text(value)) }
        } @else {
            (text(value))
            @if let Some(readable) = readable(key, value) { " (" (readable) ")" }
        }
    }
}

/// Objects of any keys as rows: the columns are all keys in order of appearance.
fn table(objects: &[Map<String, Value>]) -> Markup {
    let rows: Vec<Vec<(String, &Value)>> = objects.iter().map(flattened).collect();
    let mut columns: Vec<&str> = Vec::new();
    for (key, _) in rows.iter().flatten() {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    let cell = |value: &Value| match value.as_f64() {
        Some(number) if value.is_f64() => format!("{number:.3}"),
        _ => text(value),
    };
    html! {
        div class="scroll" {
            table {
                thead { tr { @for column in &columns { th { (column) } } } }
                tbody {
                    @for row in &rows {
                        tr {
                            @for column in &columns {
                                td { @if let Some((_, value)) = row.iter().find(|(key, _)| key == column) { (cell(value)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A value as a reader writes it: text without quotes, lists with commas.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "n/a".into(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Seconds as a reader counts them: a duration, or a date where they count from 1970.
fn readable(key: &str, value: &Value) -> Option<String> {
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0)?;
    match key {
        "seconds" => Some(duration(seconds)),
        "started_unix" => Some(utc(seconds as u64)),
        _ => None,
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
