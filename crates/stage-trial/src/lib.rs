//! A store of a few small slices, and a training and an evaluation on it: for the tests of a stage's own crate. Seconds on a CPU.
//!
//! Invariant: what is done here is what `train` and `evaluate` of the command line do, in the same order.

mod store;

use anyhow::Result;
use data_parallel::Ranks;
use evaluation::Evaluator;
use predictor::Model;
use run_record::checkpoint::Which;
use run_record::{Evaluation, RunRecord, write_whole};
use slice_sampling::{NoSights, Selection, Sights, for_training, rows_of};
use slice_store::SliceStore;
use stage_api::PromptKinds;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::Device;
use trainer::config::Config;
use trainer::registry::Registry;
use trainer::train::{Outcome, Training, new_record};

pub use store::{SIZE, squares, store_of};

/// Patients and slices of [`squares`]: two labelled slices of two patients, a validation and a test patient. The head of a
/// configuration's text.
pub const SAMPLING: &str = r#"
[sampling]
labelled = 2
validation_slices = 2
split = { given = { train = ["0", "1"], validation = ["2"], test = ["3"] } }
"#;

/// The one who draws from torch's random numbers, which a process has one stream of: two models made at once, or a model
/// made while another trains, would each get what the other left.
///
/// Held by [`Trial`] for as long as it trains or evaluates, and by a test that makes a model itself.
pub fn random_numbers() -> MutexGuard<'static, ()> {
    static HELD: Mutex<()> = Mutex::new(());
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is trained, and on what; on the CPU.
pub struct Trial<'a> {
    /// The stages, one's own among them.
    pub registry: &'a Registry,
    /// Which of them, and how they are trained.
    pub config: &'a Config,
    /// The data.
    pub store: &'a SliceStore,
    /// Threads that prepare batches.
    pub loader_threads: usize,
    /// Where embeddings are kept between runs.
    pub embeddings: Option<&'a Path>,
}

impl<'a> Trial<'a> {
    /// With two threads that prepare batches, and no embeddings kept.
    pub fn new(registry: &'a Registry, config: &'a Config, store: &'a SliceStore) -> Self {
        Self { registry, config, store, loader_threads: 2, embeddings: None }
    }

    /// Trains to the end: from the start, or from the last checkpoint of `run`.
    ///
    /// # Errors
    /// What the program would say.
    pub fn train(&self, run: &Path) -> Result<RunRecord> {
        self.train_until(run, &AtomicBool::new(false)).map(|(record, _)| record)
    }

    /// Trains until `stop`, if that is set, which it can be from the start: then after one update.
    ///
    /// # Errors
    /// What the program would say.
    pub fn train_until(&self, run: &Path, stop: &AtomicBool) -> Result<(RunRecord, Outcome)> {
        let _held = random_numbers();
        let begun = run.join("run.json").is_file();
        let selection = if begun {
            Selection::load(&run.join("selection.json"))?
        } else {
            let sampling = &self.config.sampling;
            let strategy = predictor::known("sampling.strategy", &self.registry.strategies, &sampling.strategy)?;
            let choice = (strategy.as_ref(), &NoSights as &dyn Sights);
            slice_sampling::select(self.store.records(), sampling, choice, self.config.seed)?
        };
        let store = &for_training(self.store, &selection)?;
        let mut record = if begun {
            RunRecord::load(run)?
        } else {
            new_record(run, self.config, store, &selection, "cpu", tch::get_num_threads())?
        };
        let training = Training {
            config: self.config,
            registry: self.registry,
            store,
            run,
            selection: &selection,
            device: Device::Cpu,
            loader_threads: self.loader_threads,
            profile: false,
            embeddings: self.embeddings,
            ranks: &Ranks::alone(),
            stop,
        };
        if !begun {
            training.check()?;
            std::fs::create_dir_all(run)?;
            write_whole(&run.join("config.toml"), toml::to_string(self.config)?.as_bytes())?;
            selection.save(&run.join("selection.json"))?;
            record.save(run)?;
        }
        let outcome = training.run(&mut record)?;
        Ok((record, outcome))
    }

    /// What the best checkpoint of `run` makes of its test slices. The results stand in `evaluation` of the run.
    ///
    /// # Errors
    /// What the program would say.
    pub fn evaluate(&self, run: &Path) -> Result<Evaluation> {
        let _held = random_numbers();
        let config = self.config.model();
        let model = Model::from_run(run, Which::Best, &config, &self.registry.models, Device::Cpu)?;
        let takes_prompts = model.segmenter.prompts() != PromptKinds::None;
        let pretrained =
            takes_prompts.then(|| self.registry.models.segmenter(&config.segmenter, 0, Device::Cpu)).transpose()?;
        let rows = rows_of(self.store, &Selection::load(&run.join("selection.json"))?.test)?;
        let (record, stop) = (RunRecord::load(run)?, AtomicBool::new(false));
        let evaluator = Evaluator {
            config: &config,
            oracle_margin_px: self.config.evaluation.oracle_margin_px,
            box_seconds: self.config.label_seconds.box_around,
            model: &model,
            pretrained: pretrained.as_deref(),
            store: &self.store.for_evaluation(),
            native: None,
            label_budget: &record.label_budget,
            device: Device::Cpu,
            embeddings: self.embeddings,
            stop: &stop,
        };
        let found = evaluator.run("test", &rows, &run.join("evaluation"))?;
        found.ok_or_else(|| anyhow::anyhow!("the evaluation was stopped"))
    }
}
