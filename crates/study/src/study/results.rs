//! Figures of the runs of a row, and their means.

use run_record::{Evaluation, RunRecord, StepResults};
use serde_json::{Value, json};

use super::experiment::{Experiment, Row};

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
    pub record: RunRecord,
    /// For each store; `None` where it has not been evaluated.
    pub evaluations: Vec<Option<Evaluation>>,
}

impl Run {
    /// The same, with the oracle's figures in the place of the prediction's.
    fn with_true_boxes(&self) -> Self {
        let evaluations = self.evaluations.iter().map(|it| it.as_ref()?.with_true_boxes()).collect();
        Self { seed: self.seed, record: self.record.clone(), evaluations }
    }
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
            if let Some(record) = job.record() {
                rows[job.row].runs.push(Run { seed: job.seed, record, evaluations });
            }
        }
        for row in &mut rows {
            row.runs.sort_by_key(|run| run.seed);
        }
        for (at, row) in experiment.rows.iter().enumerate().filter(|(_, row)| row.model.oracle_of.is_some()) {
            let own = |other: &&Row| other.model.oracle_of.is_none() && other.key() == row.key();
            let of = experiment.rows.iter().position(|other| own(&other));
            rows[at].runs = of.map_or_else(Vec::new, |of| rows[of].runs.iter().map(Run::with_true_boxes).collect());
        }
        rows
    }

    /// A figure of the evaluations on a store.
    pub fn figure(&self, store: usize, of: fn(&Evaluation) -> Option<f64>) -> Statistic {
        Statistic::of(self.evaluations(store).filter_map(of))
    }

    pub fn minutes(&self) -> Statistic {
        Statistic::of(self.runs.iter().map(|run| run.record.seconds / 60.0))
    }

    /// The names of the steps of the inference on a store, in their order.
    pub fn steps(&self, store: usize) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for step in self.evaluations(store).flat_map(|it| &it.steps) {
            if names.iter().all(|known| *known != step.name) {
                names.push(step.name.clone());
            }
        }
        names
    }

    /// A figure of a step.
    pub fn step(&self, store: usize, name: &str, of: fn(&StepResults) -> Option<f64>) -> Statistic {
        let named = |it: &Evaluation| it.steps.iter().find(|step| step.name == name).and_then(of);
        Statistic::of(self.evaluations(store).filter_map(named))
    }

    fn evaluations(&self, store: usize) -> impl Iterator<Item = &Evaluation> {
        self.runs.iter().filter_map(move |run| run.evaluations[store].as_ref())
    }
}
