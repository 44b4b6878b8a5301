//! What a checkpoint holds, and how often each group was trained.

use crate::checkpoint::{self, Progress};
use crate::config::{Config, EncoderTraining, PhaseConfig};
use crate::loader::Batch;
use crate::model::Model;
use crate::optimizer::Optimizer;
use crate::patterns::matching;
use crate::plan::Step;
use anyhow::{Context, Result};
use stage_api::{Group, NamedTensor};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Device;

/// What a checkpoint holds.
pub(super) struct State {
    /// See [`Model::tensors`].
    pub tensors: Vec<NamedTensor>,
    /// Factors of the learning rates of single parameters.
    lr_scale: BTreeMap<String, f64>,
    pub optimizer: Optimizer,
    pub progress: Progress,
    pub last_validation: Option<f64>,
}

impl State {
    /// Of an untrained model; parameters that are to be frozen are.
    pub fn new(config: &Config, model: &Model) -> Result<Self> {
        let tensors = model.tensors();
        let parameters = || tensors.iter().filter(|t| t.group != Group::Buffer).map(|t| t.name.as_str());
        let mut lr_scale = BTreeMap::new();
        for (pattern, factor) in &config.optimizer.lr_scale {
            for name in matching("optimizer.lr_scale", pattern, parameters())? {
                *lr_scale.entry(name.to_owned()).or_insert(1.0) *= factor;
            }
        }
        for pattern in &config.optimizer.freeze {
            let frozen = matching("optimizer.freeze", pattern, parameters())?;
            for parameter in tensors.iter().filter(|t| frozen.contains(&t.name.as_str())) {
                let _ = parameter.tensor.set_requires_grad(false);
            }
        }
        let optimizer = Optimizer::new(&config.optimizer);
        Ok(Self { tensors, lr_scale, optimizer, progress: Progress::default(), last_validation: None })
    }

    pub fn restore(&mut self, directory: &Path, device: Device) -> Result<()> {
        checkpoint::load_weights(&directory.join(checkpoint::WEIGHTS), &self.tensors)?;
        let state = checkpoint::optimizer_state(directory)?;
        self.optimizer
            .restore(state, device)
            .with_context(|| format!("the optimiser's state in '{}' is incomplete", directory.display()))?;
        self.progress = checkpoint::progress(directory)?;
        Ok(())
    }

    pub fn save(&self, run: &Path, is_best: bool) -> Result<()> {
        checkpoint::write(run, &self.tensors, &self.optimizer.state(), &self.progress, is_best)
    }

    /// Moves these parameters, at the learning rates of their groups and names; their gradients are then cleared.
    pub fn update(&mut self, parameters: &[NamedTensor], lr: impl Fn(Group) -> f64) {
        let scales = &self.lr_scale;
        let scale = |p: &NamedTensor| scales.get(&p.name).copied().unwrap_or(1.0);
        self.optimizer.step(parameters, |p| lr(p.group) * scale(p));
    }

    /// The parameters that this step trains.
    pub fn active(&self, batch: &Batch, phase: &PhaseConfig) -> Vec<NamedTensor> {
        let trained = |t: &&NamedTensor| match t.group {
            Group::Classifier => batch.slices.is_some(),
            Group::Lora => phase.encoder == EncoderTraining::Lora && batch.labelled.is_some(),
            Group::PromptEncoder | Group::Decoder => batch.labelled.is_some(),
            Group::Encoder | Group::Buffer => false,
        };
        self.tensors
            .iter()
            .filter(trained)
            .map(|t| NamedTensor { name: t.name.clone(), group: t.group, tensor: t.tensor.shallow_clone() })
            .collect()
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
