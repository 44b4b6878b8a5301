//! What a checkpoint holds, and how often each group was trained.

use crate::average::WeightAverage;
use crate::checkpoint::save;
use crate::config::{Config, EncoderTraining, OptimizerConfig, PhaseConfig};
use crate::optimizer::Optimizer;
use crate::patterns::{matches, matching};
use crate::plan::Step;
use anyhow::{Context, Result, ensure};
use predictor::Model;
use predictor::checkpoint::{load_weights, read_tensors};
use run_record::Progress;
use run_record::checkpoint::{Checkpoint, OPTIMIZER, TRAINING, WEIGHTS};
use stage_api::{NamedTensor, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Device, Tensor};

/// What a checkpoint holds.
pub(super) struct State {
    /// See [`Model::tensors`].
    pub tensors: Vec<NamedTensor>,
    /// Names of the groups of the segmenter's encoder.
    encoder_groups: &'static [&'static str],
    /// Factors of the learning rates of single parameters.
    lr_scale: BTreeMap<String, f64>,
    pub optimizer: Optimizer,
    /// What validation and prediction use where it is there.
    pub average: Option<WeightAverage>,
    pub progress: Progress,
    pub last_validation: Option<f64>,
}

impl State {
    /// Of an untrained model; parameters that are to be frozen are.
    pub fn new(config: &Config, model: &Model) -> Result<Self> {
        let tensors = model.tensors();
        let parameters = || tensors.iter().filter(|t| t.group.is_trainable()).map(|t| t.name.as_str());
        check_rates(config, &tensors)?;
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
        let decay = config.optimizer.ema_decay;
        let average = (decay > 0.0).then(|| WeightAverage::new(decay, &tensors));
        let encoder_groups = model.segmenter.encoder_groups();
        Ok(Self {
            tensors,
            encoder_groups,
            lr_scale,
            optimizer,
            average,
            progress: Progress::default(),
            last_validation: None,
        })
    }

    /// From a checkpoint.
    pub fn restore(&mut self, from: Checkpoint, device: Device) -> Result<()> {
        let directory = from.directory;
        let weights = directory.join(WEIGHTS);
        match &self.average {
            Some(average) => {
                load_weights(&weights, &average.tensors)?;
                load_weights(&directory.join(TRAINING), &self.tensors)?;
            }
            None => load_weights(&weights, &self.tensors)?,
        }
        let state = read_tensors(&directory.join(OPTIMIZER))?;
        self.optimizer
            .restore(state, device)
            .with_context(|| format!("the optimiser's state in '{}' is incomplete", directory.display()))?;
        self.progress = from.progress;
        Ok(())
    }

    pub fn save(&self, run: &Path, is_best: bool) -> Result<()> {
        let named = |tensors: &[NamedTensor]| -> Vec<(String, Tensor)> {
            tensors.iter().map(|t| (t.name.clone(), t.tensor.shallow_clone())).collect()
        };
        let mut files = vec![(OPTIMIZER, self.optimizer.state())];
        match &self.average {
            Some(average) => {
                files.push((WEIGHTS, named(&average.tensors)));
                files.push((TRAINING, named(&self.tensors)));
            }
            None => files.push((WEIGHTS, named(&self.tensors))),
        }
        save(run, &files, &self.progress, is_best)
    }

    /// Moves these parameters, at the learning rates of their groups and names; their gradients are then cleared.
    pub fn update(&mut self, parameters: &[NamedTensor], lr: impl Fn(&NamedTensor) -> f64) {
        let scales = &self.lr_scale;
        let scale = |p: &NamedTensor| scales.get(&p.name).copied().unwrap_or(1.0);
        self.optimizer.step(parameters, |p| lr(p) * scale(p));
    }

    /// The parameters of those groups that are not frozen.
    pub fn parameters(&self, trained: Trained) -> Vec<NamedTensor> {
        self.tensors
            .iter()
            .filter(|t| t.group.is_trainable() && trained.has(self.branch(t)) && t.tensor.requires_grad())
            .map(|t| NamedTensor { name: t.name.clone(), group: t.group, tensor: t.tensor.shallow_clone() })
            .collect()
    }

    /// Which branch a tensor of the model is of.
    pub fn branch(&self, tensor: &NamedTensor) -> Branch {
        branch(tensor, self.encoder_groups)
    }

    /// See [`branch`].
    pub fn encoder_groups(&self) -> &'static [&'static str] {
        self.encoder_groups
    }

    /// A copy of the running statistics.
    pub fn statistics(&self) -> Vec<Tensor> {
        self.buffers().map(Tensor::copy).collect()
    }

    /// Puts back what [`Self::statistics`] gave.
    pub fn set_statistics(&self, statistics: &[Tensor]) {
        for (buffer, value) in self.buffers().zip(statistics) {
            buffer.shallow_clone().copy_(value);
        }
    }

    fn buffers(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter().filter(|t| t.group.role == Role::Statistics).map(|t| &t.tensor)
    }

    /// Exchanges the weights with their average, if there is one; twice is nothing.
    pub fn swap_average(&mut self) {
        if let Some(average) = &mut self.average {
            average.swap(&self.tensors);
        }
    }
}

/// Whether every learning rate that was given is of a group that is there.
fn check_rates(config: &Config, tensors: &[NamedTensor]) -> Result<()> {
    let groups: BTreeSet<&str> = tensors.iter().filter(|t| t.group.is_trainable()).map(|t| t.group.name).collect();
    let usual = OptimizerConfig::default().lr;
    let given = config.optimizer.lr.keys().filter(|key| !usual.contains_key(*key));
    for key in given {
        ensure!(
            groups.iter().any(|group| matches(key, group)),
            "`optimizer.lr.{key}` fits no group of parameters; there are: {}",
            groups.iter().copied().collect::<Vec<_>>().join(", ")
        );
    }
    Ok(())
}

/// Which branch a tensor of [`Model::tensors`] is of, by its stage and the segmenter's word on its encoder.
pub(super) fn branch(tensor: &NamedTensor, encoder_groups: &[&str]) -> Branch {
    if tensor.name.starts_with("classifier.") {
        Branch::Classifier
    } else if encoder_groups.contains(&tensor.group.name) {
        Branch::Encoder
    } else {
        Branch::Segmenter
    }
}

/// A part of the model that is trained, or not, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Branch {
    Classifier,
    /// The segmenter's encoder: its adapters.
    Encoder,
    /// The rest of the segmenter.
    Segmenter,
}

/// The branches that an update trains.
#[derive(Clone, Copy, Default)]
pub(super) struct Trained {
    classifier: bool,
    segmenter: bool,
    encoder: bool,
}

impl Trained {
    /// By these steps of one update.
    pub fn by(phase: &PhaseConfig, steps: &[Step]) -> Self {
        let guided = steps.iter().any(|s| !s.labelled.is_empty());
        Self {
            classifier: steps.iter().any(|s| !s.slices.is_empty()),
            segmenter: guided,
            encoder: guided && phase.encoder == EncoderTraining::Lora,
        }
    }

    pub fn has(self, branch: Branch) -> bool {
        match branch {
            Branch::Classifier => self.classifier,
            Branch::Encoder => self.encoder,
            Branch::Segmenter => self.segmenter,
        }
    }
}

/// How many updates train each branch: what the schedules run over.
#[derive(Clone, Copy, Default)]
pub(super) struct UpdateCounts {
    classifier: usize,
    segmenter: usize,
    encoder: usize,
}

impl UpdateCounts {
    /// In these steps of the plan, which end with an update.
    pub fn of(config: &Config, steps: &[Step]) -> Self {
        let mut counts = Self::default();
        for last in steps.iter().filter(|s| s.updates) {
            let update = &steps[last.index + 1 - last.accumulates..=last.index];
            counts.add(Trained::by(&config.phases[last.phase], update));
        }
        counts
    }

    pub fn add(&mut self, trained: Trained) {
        self.classifier += usize::from(trained.classifier);
        self.segmenter += usize::from(trained.segmenter);
        self.encoder += usize::from(trained.encoder);
    }

    pub fn branch(&self, branch: Branch) -> usize {
        match branch {
            Branch::Classifier => self.classifier,
            Branch::Encoder => self.encoder,
            Branch::Segmenter => self.segmenter,
        }
    }
}
