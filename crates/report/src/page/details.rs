//! What the run was: `run.json` as a table of definitions, the configuration as text.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::not_there_yet;
use crate::run::Run;

/// Lists longer than this are folded.
const LONG_LIST: usize = 12;

/// One line below the title, of what is there.
pub fn summary(run: &Run) -> Markup {
    let of = |key: &str| run.details.get(key).filter(|value| !value.is_null() && !value.is_object());
    let shown = ["status", "started", "started_unix", "seconds", "device", "seed", "commit"];
    html! {
        p class="summary" {
            @for (key, value) in shown.into_iter().filter_map(|key| Some((key, of(key)?))) {
                @match key {
                    "status" => span { b { (text(value)) } },
                    "started_unix" => span { "started " b { (readable(key, value).unwrap_or_else(|| text(value))) } },
                    "seconds" => span { "took " b { (readable(key, value).unwrap_or_else(|| text(value))) } },
                    _ => span { (key) " " b { (text(value)) } },
                }
            }
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
pub fn table(objects: &[Map<String, Value>]) -> Markup {
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
pub fn text(value: &Value) -> String {
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
        "started_unix" => Some(date(seconds as u64)),
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

/// Date and time (UTC) of seconds since 1970: years are counted from March, so that a leap day is the last of its year
/// (Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year_of_era + era * 400 + next_year;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_those_of_the_date_command() {
        let dates = [0, 951_782_400, 1_735_787_045, 4_107_542_399].map(super::date);
        let expected = ["1970-01-01 00:00 UTC", "2000-02-29 00:00 UTC", "2025-01-02 03:04 UTC", "2100-02-28 23:59 UTC"];
        assert_eq!(dates, expected);
    }
}
