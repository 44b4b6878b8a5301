//! The table of experiments: a TOML file with a base configuration and rows of overrides.

use anyhow::{Context, Result, bail, ensure};
use run_record::read_settings;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// What may be trained.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Configuration of the rows that name none.
    pub base: PathBuf,
    #[serde(default, rename = "row")]
    pub rows: Vec<Row>,
}

/// One experiment.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name in the files' names.
    pub key: String,
    /// Its name in the table.
    pub name: String,
    /// Overrides of the configuration: `a.b=c`.
    #[serde(default)]
    pub set: Vec<String>,
    /// A configuration of its own instead of the base.
    pub config: Option<PathBuf>,
}

impl Table {
    /// Reads and checks a file; of its rows those that are picked, or all if none is.
    pub fn load(path: &Path, picked: &[String]) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read the table '{}'", path.display()))?;
        Self::parse(&text, picked).with_context(|| format!("in the table '{}'", path.display()))
    }

    fn parse(text: &str, picked: &[String]) -> Result<Self> {
        let mut table: Self = read_settings(text, &[])?;
        ensure!(!table.rows.is_empty(), "it has no `[[row]]`");
        for (index, row) in table.rows.iter().enumerate() {
            row.check().with_context(|| format!("row {}", index + 1))?;
            let twin = table.rows[..index].iter().position(|other| other.key == row.key);
            if let Some(twin) = twin {
                bail!("rows {} and {} have the same key `{}`; each needs its own", twin + 1, index + 1, row.key);
            }
        }
        if let Some(unknown) = picked.iter().find(|key| table.rows.iter().all(|row| row.key != **key)) {
            let known: Vec<&str> = table.rows.iter().map(|row| row.key.as_str()).collect();
            bail!("it has no row `{unknown}`, only: {}", known.join(", "));
        }
        table.rows.retain(|row| picked.is_empty() || picked.contains(&row.key));
        Ok(table)
    }

    /// The configuration of a row, as the file names it.
    pub fn config<'a>(&'a self, row: &'a Row) -> &'a Path {
        row.config.as_deref().unwrap_or(&self.base)
    }
}

impl Row {
    fn check(&self) -> Result<()> {
        let may_be = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            self.key.chars().all(may_be) && self.key.starts_with(|c: char| c.is_ascii_alphanumeric()),
            "the key `{}` names files: expected letters, digits, `-`, `_` and `.`, a letter or a digit first",
            self.key
        );
        ensure!(!self.name.trim().is_empty(), "the name of `{}` is empty", self.key);
        for item in &self.set {
            let key = item.split_once('=').map(|(key, _)| key.trim()).filter(|key| !key.is_empty());
            let key = key.with_context(|| format!("`{item}` in the `set` of `{}`: expected KEY=VALUE", self.key))?;
            ensure!(key != "seed", "`{}` sets the seed: --seeds says how many there are", self.key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
base = "b.toml"
[[row]]
key = "ours"
name = "all of it"
[[row]]
key = "small"
name = "5 labelled slices"
set = ["sampling.labelled=5"]
config = "other.toml"
"#;

    #[test]
    fn rows_are_read_in_their_order_and_picked_by_key() {
        let table = Table::parse(TWO, &[]).unwrap();
        assert_eq!(table.rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["ours", "small"]);
        assert_eq!(
            (table.config(&table.rows[0]), table.config(&table.rows[1])),
            ("b.toml".as_ref(), "other.toml".as_ref())
        );
        assert_eq!(table.rows[1].set, ["sampling.labelled=5"]);
        let table = Table::parse(TWO, &["small".into()]).unwrap();
        assert_eq!((table.rows.len(), table.rows[0].name.as_str()), (1, "5 labelled slices"));
    }

    #[test]
    fn a_table_that_makes_no_sense_is_refused_with_the_place() {
        let refused = |text: &str, picked: &[&str]| {
            let picked: Vec<String> = picked.iter().map(|&key| key.into()).collect();
            format!("{:#}", Table::parse(text, &picked).unwrap_err())
        };
        for (text, expected) in [
            ("base = \"b.toml\"".into(), "it has no `[[row]]`"),
            (TWO.replace("base", "bass"), "unknown field `bass`"),
            (TWO.replace("set =", "sets ="), "unknown field `sets`"),
            (TWO.replace("\"small\"", "\"ours\""), "rows 1 and 2 have the same key `ours`"),
            (TWO.replace("\"small\"", "\"a/b\""), "row 2: the key `a/b` names files"),
            (TWO.replace("\"small\"", "\"\""), "row 2: the key `` names files"),
            (TWO.replace("all of it", " "), "row 1: the name of `ours` is empty"),
            (
                TWO.replace("labelled=5", "labelled"),
                "row 2: `sampling.labelled` in the `set` of `small`: expected KEY=VALUE",
            ),
            (TWO.replace("sampling.labelled=5", "seed = 5"), "`small` sets the seed"),
        ] {
            let error = refused(&text, &[]);
            assert!(error.contains(expected), "{error}");
        }
        assert!(refused(TWO, &["ours", "smal"]).contains("it has no row `smal`, only: ours, small"));
    }
}
