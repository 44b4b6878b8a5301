//! What a checkpoint holds, and how often each group was trained.

use crate::checkpoint::{self, Progress};
use crate::config::{Config, EncoderTraining, PhaseConfig};
use crate::loader::Batch;
use crate::model::Model;
use crate::optimizer::Optimizer;
use crate::plan::Step;
use anyhow::{Context, Result};
use stage_api::{Group, NamedTensor, PromptedSegmenter};
use std::path::Path;
use tch::Device;

/// What a checkpoint holds.
pub(super) struct State {
    pub classifier: Vec<NamedTensor>,
    pub segmenter: Vec<NamedTensor>,
    pub optimizer: Optimizer,
    pub progress: Progress,
    pub last_validation: Option<f64>,
}

impl State {
    pub fn new(config: &Config, model: &Model) -> Self {
        Self {
            classifier: model.classifier.tensors(),
            segmenter: model.segmenter.tensors(),
            optimizer: Optimizer::new(&config.optimizer),
            progress: Progress::default(),
            last_validation: None,
        }
    }

    pub fn restore(&mut self, directory: &Path, device: Device) -> Result<()> {
        checkpoint::load_weights(directory, &self.classifier, &self.segmenter)?;
        let state = checkpoint::optimizer_state(directory)?;
        self.optimizer
            .restore(state, device)
            .with_context(|| format!("the optimiser's state in '{}' is incomplete", directory.display()))?;
        self.progress = checkpoint::progress(directory)?;
        Ok(())
    }

    pub fn save(&self, run: &Path, is_best: bool) -> Result<()> {
        let weights = checkpoint::saved(&self.classifier, &self.segmenter);
        checkpoint::write(run, &weights, &self.optimizer.state(), &self.progress, is_best)
    }

    /// The parameters that this step trains.
    pub fn active(&self, batch: &Batch, phase: &PhaseConfig) -> Vec<NamedTensor> {
        let classifier = self.classifier.iter().filter(|t| t.group == Group::Classifier && batch.slices.is_some());
        let segmenter = self.segmenter.iter().filter(|t| match t.group {
            Group::Lora => phase.encoder == EncoderTraining::Lora && batch.labelled.is_some(),
            Group::PromptEncoder | Group::Decoder => batch.labelled.is_some(),
            _ => false,
        });
        let same =
            |t: &NamedTensor| NamedTensor { name: t.name.clone(), group: t.group, tensor: t.tensor.shallow_clone() };
        // Names are unique within a stage only.
        let tagged =
            |tag: &'static str| move |t: &NamedTensor| NamedTensor { name: format!("{tag}.{}", t.name), ..same(t) };
        classifier.map(tagged("classifier")).chain(segmenter.map(tagged("segmenter"))).collect()
    }
}

/// In how many steps each group is trained: what the schedules run over.
#[derive(Clone, Copy, Default)]
pub(super) struct GroupSteps {
    pub classifier: usize,
    pub decoder: usize,
    pub lora: usize,
}

impl GroupSteps {
    pub fn count(config: &Config, steps: &[Step]) -> Self {
        let mut count = Self::default();
        for step in steps {
            count.add(&config.phases[step.phase], step);
        }
        count
    }

    pub fn add(&mut self, phase: &PhaseConfig, step: &Step) {
        let guided = usize::from(!step.labelled.is_empty());
        self.classifier += usize::from(!step.slices.is_empty());
        self.decoder += guided;
        self.lora += if phase.encoder == EncoderTraining::Lora { guided } else { 0 };
    }
}
