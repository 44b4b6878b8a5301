//! Settings in TOML: overrides of single keys, errors that name the nearest known key, and how two of them differ.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with settings: where, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl From<toml::de::Error> for SettingsError {
    fn from(error: toml::de::Error) -> Self {
        Self(format!("{}{}", error.to_string().trim_end(), suggestion(error.message())))
    }
}

/// Reads settings from a text, after overrides of the form `a.b=c` (`c` a TOML value, or a bare text).
///
/// # Errors
/// The text is no TOML, an override has no such form, or a key or value is not among the known ones.
pub fn read_settings<T: DeserializeOwned>(text: &str, overrides: &[String]) -> Result<T, SettingsError> {
    let not_toml =
        |error: toml::de::Error| SettingsError(format!("this is not TOML: {}", error.to_string().trim_end()));
    let mut table: toml::Table = text.parse().map_err(not_toml)?;
    for item in overrides {
        set(&mut table, item)?;
    }
    // Through text again, so that an error can show the place.
    let merged = if overrides.is_empty() { text.to_owned() } else { table.to_string() };
    Ok(toml::from_str(&merged)?)
}

/// Applies `a.b=c` to a table.
fn set(table: &mut toml::Table, item: &str) -> Result<(), SettingsError> {
    let wrong = |what: String| SettingsError(format!("--set {item}: {what}"));
    let (path, value) =
        item.split_once('=').ok_or_else(|| wrong("expected KEY=VALUE, for example --set seed=1".into()))?;
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.into()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|k| !k.is_empty()).ok_or_else(|| wrong("the key is empty".into()))?;
    let mut at = table;
    for key in keys {
        at = match at.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new())) {
            toml::Value::Table(inner) => inner,
            other => return Err(wrong(format!("`{key}` is a {}, not a table", other.type_str()))),
        };
    }
    at.insert(last.into(), value);
    Ok(())
}

/// For "unknown field `x`, expected one of `a`, `b`" (serde) and "unexpected keys in table: x, available keys: a, b"
/// (toml): the known name that is nearest.
fn suggestion(message: &str) -> String {
    let names: Vec<&str> = if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        message.split('`').skip(1).step_by(2).collect()
    } else if let Some(names) = message.strip_prefix("unexpected keys in table: ") {
        names.split(", ").map(|name| name.trim_start_matches("available keys: ")).collect()
    } else {
        return String::new();
    };
    let Some((unknown, known)) = names.split_first() else { return String::new() };
    known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown)))
        .filter(|known| strsim::jaro_winkler(known, unknown) > 0.7)
        .map_or_else(String::new, |known| format!("\ndid you mean `{known}`?"))
}

/// A line for each key that has not the same value in both; `a` is the run's, `b` what was asked for.
///
/// # Errors
/// One of them can't be written as TOML.
pub fn differing_settings<T: Serialize>(a: &T, b: &T) -> Result<Vec<String>, SettingsError> {
    let [a, b] = [keys(a)?, keys(b)?];
    let shown = |value: Option<&String>| value.map_or_else(|| "absent".to_owned(), |v| format!("`{v}`"));
    let all: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    Ok(all
        .into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| format!("`{key}` is {} in the run, asked for is {}", shown(a.get(key)), shown(b.get(key))))
        .collect())
}

/// Every value by its path, as TOML: `optimizer.betas`, `phase[1].epochs`.
fn keys(settings: &impl Serialize) -> Result<BTreeMap<String, String>, SettingsError> {
    fn walk(path: String, value: &toml::Value, into: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) if !table.is_empty() => {
                let dot = if path.is_empty() { "" } else { "." };
                table.iter().for_each(|(key, inner)| walk(format!("{path}{dot}{key}"), inner, into));
            }
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                items.iter().enumerate().for_each(|(i, inner)| walk(format!("{path}[{i}]"), inner, into));
            }
            other => drop(into.insert(path, other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    let value = toml::Value::try_from(settings).map_err(|error| SettingsError(error.to_string()))?;
    walk(String::new(), &value, &mut found);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_differs_is_named_with_both_values() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let a = table("[classifier]\nkind = \"a\"\n[[phase]]\nname = \"a\"\nepochs = 1\n");
        assert_eq!(differing_settings(&a, &a).unwrap(), Vec::<String>::new());
        let b = table("[classifier]\nkind = \"a\"\npositive_weight = 0.5\n[[phase]]\nname = \"a\"\nepochs = 2\n");
        let expected = [
            "`classifier.positive_weight` is absent in the run, asked for is `0.5`",
            "`phase[0].epochs` is `1` in the run, asked for is `2`",
        ];
        assert_eq!(differing_settings(&a, &b).unwrap(), expected);
    }

    #[test]
    fn an_override_is_a_value_or_a_text_and_makes_the_tables_that_it_needs() {
        let set = ["a.b=2", "a.c = x y", "d=[1]"].map(String::from);
        let found: toml::Table = read_settings("a = { b = 1 }\n", &set).unwrap();
        assert_eq!(found.to_string(), "d = [1]\n\n[a]\nb = 2\nc = \" x y\"\n");
        for (item, expected) in [("a", "KEY=VALUE"), ("=1", "the key is empty"), ("a.b.c=1", "`b` is a integer")] {
            let error = read_settings::<toml::Table>("a = { b = 1 }\n", &[item.into()]).unwrap_err().to_string();
            assert!(error.contains(expected), "{item}: {error}");
        }
    }
}
