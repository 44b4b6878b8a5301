//! The study file: models, label budgets, seeds and data sets, in TOML.

use anyhow::{Context, Result, bail, ensure};
use run_record::read_settings;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::slurm_settings::Settings;

/// A grid of runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// What it is called in the results.
    pub title: String,
    /// Runs of each row, with seeds from 0, of models that say no other number.
    #[serde(default = "three")]
    pub seeds: u64,
    /// Labelled slices, of models that say no others; with none, a model has one row with its configuration's own number.
    #[serde(default)]
    pub budgets: Vec<Budget>,
    /// Configuration of the models that name none.
    pub config: Option<PathBuf>,
    /// The data set to train on; its test patients are evaluated.
    pub train: DataSet,
    /// Data sets that are evaluated whole.
    #[serde(default)]
    pub across: Vec<DataSet>,
    /// Of jobs, where SLURM makes the runs.
    #[serde(default)]
    pub slurm: Settings,
    /// The models; the others are compared with the first.
    #[serde(default, rename = "model")]
    pub models: Vec<Model>,
}

/// A prepared store, and how to come by it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// The store.
    pub store: PathBuf,
    /// The command that makes it.
    pub prepare: Option<String>,
    /// The data set that the store was prepared from, for figures on its volumes' own voxels.
    pub volumes: Option<PathBuf>,
    /// Whether an option, a threshold or a rule was chosen on it: its figures are no result.
    #[serde(default)]
    pub development: bool,
}

/// What is trained.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name in the files' names.
    pub key: String,
    /// Its name in the tables.
    pub name: String,
    /// A configuration of its own.
    pub config: Option<PathBuf>,
    /// Overrides of the configuration: `a.b=c`.
    #[serde(default)]
    pub set: Vec<String>,
    /// Labelled slices, in the place of the study's.
    pub budgets: Option<Vec<Budget>>,
    /// Runs of each row, in the place of the study's.
    pub seeds: Option<u64>,
    /// The key of another model, whose runs this row shows with true boxes in the place of their prompts: an oracle, no prediction.
    pub oracle_of: Option<String>,
    /// Said beside it: which settings are scaled, for instance.
    pub note: Option<String>,
    /// By budget, the paper's own Dice over slices with the target in domain.
    #[serde(default)]
    pub paper: BTreeMap<String, f64>,
    /// The same across.
    #[serde(default)]
    pub paper_across: BTreeMap<String, f64>,
}

/// Labelled slices of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    Slices(usize),
    /// Every training slice that shows the target.
    All,
}

impl Budget {
    /// As in tables.
    pub fn words(self) -> String {
        match self {
            Self::Slices(count) => slice_store::counted(count, "labelled slice"),
            Self::All => "all slices labelled".into(),
        }
    }
}

impl Display for Budget {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slices(count) => write!(f, "{count}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("'{text}' is no label budget: expected a number of slices, or `all`");
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Slices).map_err(|_| expected()) }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.parse().map_err(D::Error::custom)
    }
}

fn three() -> u64 {
    3
}

impl Study {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the study '{}'", path.display()))?;
        Self::parse(&text).with_context(|| format!("in the study '{}'", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let study: Self = read_settings(text, &[])?;
        ensure!(!study.title.trim().is_empty(), "`title` is empty");
        check_seeds("`seeds`", study.seeds)?;
        check_budgets("`budgets`", &study.budgets)?;
        study.slurm.check()?;
        ensure!(!study.models.is_empty(), "it has no `[[model]]`");
        for (index, model) in study.models.iter().enumerate() {
            model.check(&study).with_context(|| format!("model {}", index + 1))?;
            if let Some(twin) = study.models[..index].iter().position(|other| other.key == model.key) {
                bail!("models {} and {} have the same key `{}`; each needs its own", twin + 1, index + 1, model.key);
            }
        }
        study.check_oracles()?;
        study.check_runs()?;
        Ok(study)
    }

    /// An oracle is of runs that are there, and makes none.
    fn check_oracles(&self) -> Result<()> {
        for model in &self.models {
            let Some(of) = &model.oracle_of else { continue };
            let found = self.models.iter().find(|other| other.key == *of && other.oracle_of.is_none());
            let found = found
                .with_context(|| format!("`oracle_of` of `{}` is `{of}`: expected another model's key", model.key))?;
            ensure!(
                self.rows_of(model).iter().all(|budget| self.rows_of(found).contains(budget)),
                "`{}` is the oracle of `{of}`, which has not all of its budgets",
                model.key
            );
            ensure!(
                model.config.is_none() && model.set.is_empty() && model.seeds.is_none(),
                "`{}` is the oracle of `{of}`, which says `config`, `set` and `seeds`: leave them out",
                model.key
            );
        }
        Ok(())
    }

    /// `a` with 5-1 slices and `a-5` would have the same runs.
    fn check_runs(&self) -> Result<()> {
        let mut known: BTreeMap<String, &str> = BTreeMap::new();
        for model in &self.models {
            for budget in self.rows_of(model) {
                let name = run_name(&model.key, budget);
                if let Some(other) = known.insert(name.clone(), &model.key) {
                    bail!("models `{other}` and `{}` would both write the runs {name}-SEED; rename one", model.key);
                }
            }
        }
        Ok(())
    }

    /// The budgets of a model's rows; `None` stands for its configuration's own number.
    pub fn rows_of(&self, model: &Model) -> Vec<Option<Budget>> {
        let budgets = model.budgets.as_ref().unwrap_or(&self.budgets);
        if budgets.is_empty() { vec![None] } else { budgets.iter().copied().map(Some).collect() }
    }
}

/// How the folders of a row's runs begin.
pub fn run_name(key: &str, budget: Option<Budget>) -> String {
    budget.map_or_else(|| key.to_owned(), |budget| format!("{key}-{budget}"))
}

fn check_seeds(what: &str, seeds: u64) -> Result<()> {
    ensure!(seeds > 0, "{what} is 0, expected at least 1");
    Ok(())
}

fn check_budgets(what: &str, budgets: &[Budget]) -> Result<()> {
    for (index, budget) in budgets.iter().enumerate() {
        ensure!(*budget != Budget::Slices(0), "{what} has 0 labelled slices, expected at least 1");
        ensure!(!budgets[..index].contains(budget), "{what} has {budget} twice, expected once");
    }
    Ok(())
}

impl Model {
    fn check(&self, study: &Study) -> Result<()> {
        let may_be = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            self.key.chars().all(may_be) && self.key.starts_with(|c: char| c.is_ascii_alphanumeric()),
            "the key `{}` names files: expected letters, digits, `-`, `_` and `.`, a letter or a digit first",
            self.key
        );
        let key = &self.key;
        ensure!(!self.name.trim().is_empty(), "the name of `{key}` is empty");
        ensure!(
            self.config.is_some() || study.config.is_some() || self.oracle_of.is_some(),
            "`{key}` names no configuration, and the study has no `config` for such models"
        );
        check_seeds(&format!("`seeds` of `{key}`"), self.seeds.unwrap_or(1))?;
        check_budgets(&format!("`budgets` of `{key}`"), self.budgets.as_deref().unwrap_or_default())?;
        let rows = study.rows_of(self);
        for item in &self.set {
            let set = item.split_once('=').map(|(key, _)| key.trim()).filter(|key| !key.is_empty());
            let set = set.with_context(|| format!("`{item}` in the `set` of `{key}`: expected KEY=VALUE"))?;
            ensure!(set != "seed", "`{key}` sets the seed: `seeds` says how many there are");
            ensure!(
                set != "sampling.labelled" || rows == [None],
                "`{key}` sets `sampling.labelled`, which its budgets say; give it `budgets = []`, or leave that out"
            );
        }
        for (what, figures) in [("paper", &self.paper), ("paper_across", &self.paper_across)] {
            for (budget, figure) in figures {
                let is_row = budget.parse().is_ok_and(|budget: Budget| rows.contains(&Some(budget)));
                ensure!(is_row, "`{what}` of `{key}` has a figure for `{budget}`, which is none of its budgets");
                ensure!(
                    (0.0..=1.0).contains(figure),
                    "`{what}` of `{key}` has {figure} for {budget}: a Dice is from 0 to 1"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
title = "two"
budgets = [5, 50]
config = "b.toml"
[train]
store = "s"
[[model]]
key = "ours"
name = "all of it"
paper = { 5 = 0.9 }
[[model]]
key = "small"
name = "small"
set = ["a.b=5"]
budgets = []
seeds = 1
config = "other.toml"
"#;

    #[test]
    fn a_model_has_the_studys_budgets_or_its_own_or_its_configurations_number() {
        let study = Study::parse(TWO).unwrap();
        assert_eq!(study.rows_of(&study.models[0]), [5, 50].map(|count| Some(Budget::Slices(count))));
        assert_eq!(study.rows_of(&study.models[1]), [None]);
        assert_eq!((study.seeds, study.models[1].seeds), (3, Some(1)));
    }

    #[test]
    fn a_study_that_makes_no_sense_is_refused_with_the_place() {
        for (text, expected) in [
            (TWO.split("[[model]]").next().unwrap().into(), "it has no `[[model]]`"),
            (TWO.replace("title = \"two\"", "title = \" \""), "`title` is empty"),
            (TWO.replace("config = \"b", "confg = \"b"), "unknown field `confg`"),
            (TWO.replace("store =", "shop ="), "unknown field `shop`"),
            (TWO.replace("[5, 50]", "[5, 5]"), "`budgets` has 5 twice"),
            (TWO.replace("[5, 50]", "[0]"), "`budgets` has 0 labelled slices"),
            (TWO.replace("[5, 50]", "[\"every\"]"), "'every' is no label budget"),
            (TWO.replace("seeds = 1", "oracle_of = \"small\""), "`oracle_of` of `small` is `small`"),
            (TWO.replace("seeds = 1", "oracle_of = \"ours\""), "which has not all of its budgets"),
            (
                TWO.replace("budgets = []\nseeds = 1", "oracle_of = \"ours\""),
                "which says `config`, `set` and `seeds`: leave them out",
            ),
            (TWO.replace("seeds = 1", "seeds = 0"), "`seeds` of `small` is 0"),
            (TWO.replace("set =", "sets ="), "unknown field `sets`"),
            (TWO.replace("\"small\"", "\"ours\""), "models 1 and 2 have the same key `ours`"),
            (TWO.replace("key = \"small\"", "key = \"a/b\""), "model 2: the key `a/b` names files"),
            (TWO.replace("key = \"small\"", "key = \"\""), "model 2: the key `` names files"),
            (TWO.replace("key = \"small\"", "key = \"ours-5\""), "would both write the runs ours-5-SEED"),
            (TWO.replace("all of it", " "), "model 1: the name of `ours` is empty"),
            (TWO.replace("config = \"b.toml\"", ""), "model 1: `ours` names no configuration"),
            (TWO.replace("a.b=5", "a.b"), "model 2: `a.b` in the `set` of `small`: expected KEY=VALUE"),
            (TWO.replace("a.b=5", "seed = 5"), "`small` sets the seed"),
            (
                TWO.replace("a.b=5", "sampling.labelled=5").replace("budgets = []", ""),
                "`small` sets `sampling.labelled`",
            ),
            (TWO.replace("5 = 0.9", "7 = 0.9"), "`paper` of `ours` has a figure for `7`"),
            (TWO.replace("5 = 0.9", "5 = 90.0"), "a Dice is from 0 to 1"),
        ] {
            let error = format!("{:#}", Study::parse(&text).expect_err(expected));
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
