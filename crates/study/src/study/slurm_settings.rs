//! What the study file's `[slurm]` says of its jobs.

use anyhow::{Context, Result, ensure};
use run_record::read_settings;
use serde::{Deserialize, Deserializer, Serialize};

/// Options of `sbatch`; what is not given, the cluster decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub partition: Option<String>,
    pub account: Option<String>,
    /// Of one start of a training, as SLURM writes times; a run that is not done by then goes on in the next.
    #[serde(deserialize_with = "word")]
    pub time: Option<String>,
    /// Of the evaluations of a run, in the place of `time`.
    #[serde(deserialize_with = "word")]
    pub evaluation_time: Option<String>,
    #[serde(deserialize_with = "word")]
    pub mem: Option<String>,
    /// Processors of a run, and so its threads.
    pub cpus: u32,
    pub gres: Option<String>,
    /// How long before the end of its time a training is told: a step and a checkpoint must fit in.
    pub signal_seconds: u32,
    /// Runs that are trained at the same time.
    pub at_once: Option<u32>,
    /// Further options of `sbatch`.
    pub options: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            partition: None,
            account: None,
            time: None,
            evaluation_time: None,
            mem: None,
            cpus: 1,
            gres: None,
            signal_seconds: 120,
            at_once: None,
            options: Vec::new(),
        }
    }
}

/// `60` is a time, and `4000` memory.
fn word<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text, or a whole number")]
    enum Word {
        Text(String),
        Number(u64),
    }
    let word: Option<Word> = Option::deserialize(from)?;
    Ok(word.map(|word| match word {
        Word::Text(text) => text,
        Word::Number(number) => number.to_string(),
    }))
}

impl Settings {
    /// With `KEY=VALUE`s of the command line in their places.
    pub fn with(&self, items: &[String]) -> Result<Self> {
        let mut table = toml::Table::try_from(self)?;
        for item in items {
            let (key, value) =
                item.split_once('=').with_context(|| format!("--slurm {item}: expected KEY=VALUE, as time=2:00:00"))?;
            // A time without quotes would be TOML's time of day.
            let is_ours = |value: &toml::Value| value.is_integer() || value.is_array();
            let parsed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("v"));
            let value = parsed.filter(is_ours).unwrap_or_else(|| value.into());
            table.insert(key.trim().into(), value);
        }
        let settings: Self = read_settings(&table.to_string(), &[]).context("--slurm")?;
        settings.check()?;
        Ok(settings)
    }

    pub fn check(&self) -> Result<()> {
        for (key, is_zero) in [
            ("cpus", self.cpus == 0),
            ("signal_seconds", self.signal_seconds == 0),
            ("at_once", self.at_once == Some(0)),
        ] {
            ensure!(!is_zero, "`{key}` of `[slurm]` is 0, expected at least 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_stands_in_the_place_of_the_file() {
        let file: Settings = read_settings("time = 60\npartition = 'gpu'\ncpus = 4", &[]).unwrap();
        assert_eq!((file.time.as_deref(), file.signal_seconds), (Some("60"), 120));
        let set = ["time=04:00:00", "mem=4000", "cpus=2", "options=['--qos=long']"].map(str::to_owned);
        let both = file.with(&set).unwrap();
        assert_eq!((both.time.as_deref(), both.mem.as_deref(), both.cpus), (Some("04:00:00"), Some("4000"), 2));
        assert_eq!((both.partition.as_deref(), &both.options[..]), (Some("gpu"), &["--qos=long".to_owned()][..]));
        for (item, expected) in [
            ("time", "expected KEY=VALUE"),
            ("tim=1", "did you mean `time`?"),
            ("cpus=0", "`cpus` of `[slurm]` is 0"),
            ("mem=[1]", "expected a text, or a whole number"),
        ] {
            let error = format!("{:#}", file.with(&[item.to_owned()]).unwrap_err());
            assert!(error.contains(expected), "{item}: {error}");
        }
    }
}
