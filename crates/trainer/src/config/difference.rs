//! How two configurations differ, key by key.

use super::Config;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// A line for each key that has not the same value in both; `a` is the run's, `b` what was asked for.
pub fn difference(a: &Config, b: &Config) -> Result<Vec<String>> {
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
fn keys(config: &Config) -> Result<BTreeMap<String, String>> {
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
    walk(String::new(), &toml::Value::try_from(config)?, &mut found);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_differs_is_named_with_both_values() {
        let text = "[sampling]\nlabelled = 5\n[[phase]]\nname = \"a\"\nepochs = 1\n";
        let a = Config::parse(text, &[]).unwrap();
        assert_eq!(difference(&a, &a).unwrap(), Vec::<String>::new());
        let b = Config::parse(&text.replace("epochs = 1", "epochs = 2"), &["classifier.positive_weight=0.5".into()]);
        let expected = [
            "`classifier.positive_weight` is absent in the run, asked for is `0.5`",
            "`phase[0].epochs` is `1` in the run, asked for is `2`",
        ];
        assert_eq!(difference(&a, &b.unwrap()).unwrap(), expected);
    }
}
