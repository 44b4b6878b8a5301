//! What slices are chosen by, whether they are to be drawn or to be trained on.

use super::open_run;
use crate::config::Config;
use crate::registry::Registry;
use anyhow::{Result, bail, ensure};
use predictor::{OfRun, StoreSights};
use run_record::RunRecord;
use slice_sampling::{Selection, select, split_patients};
use slice_store::Slices;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tch::Device;

/// What slices are chosen by.
pub(super) struct Choosing<'a> {
    pub registry: &'a Registry,
    pub config: &'a Config,
    pub device: Device,
    /// Folder that keeps embeddings.
    pub embeddings: Option<&'a Path>,
    pub stop: &'a AtomicBool,
}

impl Choosing<'_> {
    /// The choice of a run that begins.
    pub fn selection(&self, store: &Slices) -> Result<Selection> {
        let sampling = &self.config.sampling;
        let strategy = predictor::known("sampling.strategy", &self.registry.strategies, &sampling.strategy)?;
        let of_run = sampling.run.as_deref().map(|run| self.earlier(run, store)).transpose()?;
        if let Some(OfRun { run, .. }) = &of_run {
            let found = RunRecord::load(run)?.store.checksum;
            ensure!(
                found == store.checksum(),
                "the run '{}' that `sampling.run` names was trained on another store (checksum {found} instead of {})",
                run.display(),
                store.checksum()
            );
        }
        self.with(store, of_run.as_ref(), |sights| {
            Ok(select(store.records(), sampling, (strategy.as_ref(), sights), self.config.seed)?)
        })
    }

    /// A run whose predictions choose, with its labelled slices.
    ///
    /// # Errors
    /// It has seen labels of a patient who is to test, or segments something else, or on other slices.
    pub fn earlier(&self, run: &Path, store: &Slices) -> Result<OfRun> {
        let (config, record) = open_run(run, &[])?;
        let before = Selection::load(&run.join("selection.json"))?;
        let now = split_patients(store.records(), &self.config.sampling.split, self.config.seed)?;
        let seen = before.split.train.iter().chain(&before.split.validation);
        if let Some(patient) = seen.into_iter().find(|patient| now.test.contains(patient)) {
            bail!(
                "the run '{}' has seen labels of patient '{patient}', who is to test: name a run on the same split of the patients \
                 (`sampling.split`, `seed`)",
                run.display()
            );
        }
        let (of, here) = (&record.store, store.info());
        ensure!(
            of.target == here.target,
            "the run '{}' segments the {}, the store is of the {}",
            run.display(),
            of.target,
            here.target
        );
        ensure!(
            of.settings == here.settings,
            "the run '{}' was trained on slices that were made in another way than those of '{}': name a run on a store that was prepared \
             alike",
            run.display(),
            store.path().display()
        );
        Ok(OfRun { run: run.to_owned(), config: config.model(), labelled: before.labelled })
    }

    /// With what strategies look at.
    pub fn with<T>(
        &self,
        store: &Slices,
        of_run: Option<&OfRun>,
        then: impl FnOnce(&StoreSights) -> Result<T>,
    ) -> Result<T> {
        then(&StoreSights {
            store,
            registry: &self.registry.models,
            config: &self.config.model(),
            of_run,
            device: self.device,
            embeddings: self.embeddings,
            stop: self.stop,
        })
    }
}
