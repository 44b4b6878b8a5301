//! Figures of the runs of a row, and their means.

use serde_json::{Value, json};

use super::experiment::Experiment;

/// A figure over runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistic {
    values: Vec<f64>,
}

impl Statistic {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        Self { values: values.into_iter().collect() }
    }

    pub fn count(&self) -> usize {
        self.values.len()
    }

    pub fn mean(&self) -> Option<f64> {
        let count = self.values.len();
        (count > 0).then(|| self.values.iter().sum::<f64>() / count as f64)
    }

    /// Of a sample: the sum of squares is divided by one less than the number of runs. `None` for a single run.
    pub fn deviation(&self) -> Option<f64> {
        let (mean, count) = (self.mean()?, self.values.len());
        let squares: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        (count > 1).then(|| (squares / (count - 1) as f64).sqrt())
    }

    pub fn as_json(&self) -> Value {
        json!({ "mean": self.mean(), "deviation": self.deviation(), "values": self.values })
    }
}

/// One run of a row.
pub struct Run {
    pub seed: u64,
    /// Its `run.json`.
    pub record: Value,
    /// For each store; `None` where it has not been evaluated.
    pub evaluations: Vec<Option<Value>>,
}

/// What is known of a row.
pub struct RowResults {
    /// By seed.
    pub runs: Vec<Run>,
}

impl RowResults {
    /// Of every row, from the runs that are done.
    pub fn of(experiment: &Experiment, done: &[bool]) -> Vec<Self> {
        let mut rows: Vec<Self> = experiment.rows.iter().map(|_| Self { runs: Vec::new() }).collect();
        for (job, _) in experiment.jobs.iter().zip(done).filter(|(_, done)| **done) {
            let evaluations = (0..experiment.stores.len()).map(|store| experiment.evaluation(job, store)).collect();
            rows[job.row].runs.push(Run { seed: job.seed, record: job.record(), evaluations });
        }
        for row in &mut rows {
            row.runs.sort_by_key(|run| run.seed);
        }
        rows
    }

    /// A figure of the evaluations on a store, by its JSON pointer.
    pub fn figure(&self, store: usize, pointer: &str) -> Statistic {
        Statistic::of(self.evaluations(store).filter_map(|it| it.pointer(pointer)?.as_f64()))
    }

    pub fn minutes(&self) -> Statistic {
        Statistic::of(self.runs.iter().filter_map(|run| Some(run.record["seconds"].as_f64()? / 60.0)))
    }

    /// The names of the steps of the inference on a store, in their order.
    pub fn steps(&self, store: usize) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for step in self.evaluations(store).flat_map(steps) {
            if let Some(name) = step["name"].as_str().filter(|name| names.iter().all(|known| known != name)) {
                names.push(name.into());
            }
        }
        names
    }

    /// A figure of a step.
    pub fn step(&self, store: usize, name: &str, key: &str) -> Statistic {
        let named = |it| steps(it).find(|step| step["name"] == name);
        Statistic::of(self.evaluations(store).filter_map(|it| named(it)?[key].as_f64()))
    }

    fn evaluations(&self, store: usize) -> impl Iterator<Item = &Value> {
        self.runs.iter().filter_map(move |run| run.evaluations[store].as_ref())
    }
}

fn steps(evaluation: &Value) -> impl Iterator<Item = &Value> {
    evaluation["steps"].as_array().into_iter().flatten()
}
