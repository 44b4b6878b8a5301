//! Both branches as configured, new or from a checkpoint.

use crate::checkpoint::load_weights;
use crate::config::{ModelConfig, PredictionConfig};
use crate::predictor::Predictor;
use crate::registry::{ModelRegistry, OWN_CLASSIFIER};
use crate::weights::weights_path;
use anyhow::{Context, Result, ensure};
use cam_classifier::{EmptyMap, PromptSettings};
use run_record::RunRecord;
use run_record::checkpoint::{self, Which};
use slice_sampling::stream_seed;
use stage_api::{ClassifierInput, NamedTensor, PresenceClassifier, PromptKinds, Segmenter};
use std::path::Path;
use tch::{Device, Tensor};

/// Both branches.
pub struct Model {
    /// The classifier branch.
    pub classifier: Box<dyn PresenceClassifier>,
    /// The segmenter.
    pub segmenter: Box<dyn Segmenter>,
}

impl Model {
    /// Pretrained where there are weights, random by the seed where not.
    pub fn new(config: &ModelConfig, registry: &ModelRegistry, device: Device) -> Result<Self> {
        let classifier = (config.classifier.kind != OWN_CLASSIFIER)
            .then(|| registry.classifier(&config.classifier, stream_seed(config.seed, "init/classifier"), device));
        let seed = stream_seed(config.seed, "init/lora") >> 1;
        let segmenter = registry.segmenter(&config.segmenter, seed, device)?;
        let classifier = classifier.transpose()?;
        let classifier = classifier.or_else(|| segmenter.own_classifier()).with_context(|| {
            format!(
                "`classifier.kind` is \"{OWN_CLASSIFIER}\", but the segmenter \"{}\" has no classifier of its own: name another",
                config.segmenter.kind
            )
        })?;
        let model = Self { classifier, segmenter };
        model.check(config)?;
        Ok(model)
    }

    /// Whether the two fit each other.
    fn check(&self, config: &ModelConfig) -> Result<()> {
        let (classifier, segmenter) = (&config.classifier.kind, &config.segmenter.kind);
        if self.segmenter.prompts() == PromptKinds::None {
            let volume = &config.prediction.volume;
            ensure!(
                !volume.propagate && config.prediction.refinements == 0,
                "`prediction.volume.propagate` and `prediction.refinements` prompt the segmenter with boxes, but the segmenter \
                 \"{segmenter}\" takes no prompt"
            );
        } else {
            ensure!(
                classifier != "none" || config.prompt.empty == EmptyMap::Whole,
                "`classifier.kind` is \"none\", but the segmenter \"{segmenter}\" needs prompts: name a classifier, or prompt every slice by \
                 its whole, `prompt.empty = \"whole\"`"
            );
        }
        let share = config.prediction.trained_share;
        ensure!(
            share == 1.0 || self.segmenter.pretrained_sha256().is_some(),
            "`prediction.trained_share` is {share}, but the segmenter \"{segmenter}\" has no pretrained weights: between random \
             and trained ones nothing was learnt. Leave it at 1"
        );
        let wants_embedding = self.classifier.input() == ClassifierInput::Embedding;
        match (self.segmenter.embedding_shape(), self.classifier.embedding_channels()) {
            (None, _) => ensure!(
                !wants_embedding,
                "the classifier \"{classifier}\" reads embeddings, but the segmenter \"{segmenter}\" has none that it can read"
            ),
            (Some([channels, grid, _]), Some(wanted)) => ensure!(
                wanted == channels,
                "the classifier \"{classifier}\" is set for embeddings of {wanted} channels, but those of the segmenter have \
                 {channels} ({channels} × {grid} × {grid}): `classifier.settings.input_channels = {channels}`, or leave it out"
            ),
            (Some(_), None) => {}
        }
        Ok(())
    }

    /// As a run's checkpoint left them. The pretrained file must be the one that the run began with.
    pub fn from_run(
        run: &Path,
        which: Which,
        config: &ModelConfig,
        registry: &ModelRegistry,
        device: Device,
    ) -> Result<Self> {
        let recorded = RunRecord::load(run)?;
        registry.has_stages_of(run, config, &recorded)?;
        let config = &ModelConfig { segmenter: config.segmenter.of_checkpoint(), ..config.clone() };
        let model = Self::new(config, registry, device)?;
        if let (Some(expected), Some(found)) = (&recorded.weights_sha256, model.segmenter.pretrained_sha256()) {
            ensure!(
                expected == found,
                "the run '{}' began with pretrained weights of SHA-256 {expected}, but '{}' has {found}",
                run.display(),
                weights_path(&config.segmenter)?.display()
            );
        }
        let found = checkpoint::open(run, which)?;
        if let Some(damage) = &found.instead_of {
            eprintln!("warning: {damage}: '{}', the one before it, is used", found.directory.display());
        }
        let trainable = model.segmenter.tensors().into_iter().filter(|t| t.group.is_trainable());
        let pretrained: Vec<Tensor> = trainable.map(|t| t.tensor.detach().copy()).collect();
        load_weights(&found.directory.join(checkpoint::WEIGHTS), &model.tensors())?;
        if config.prediction.trained_share < 1.0 {
            model.segmenter.interpolate(&pretrained, config.prediction.trained_share);
        }
        Ok(model)
    }

    /// What a checkpoint holds, named by stage: all that can be trained, and the classifier's statistics.
    pub fn tensors(&self) -> Vec<NamedTensor> {
        let tagged = |stage: &str, t: NamedTensor| NamedTensor { name: format!("{stage}.{}", t.name), ..t };
        let segmenter = self.segmenter.tensors().into_iter();
        let segmenter = segmenter.filter(|t| t.group.is_saved());
        let classifier = self.classifier.tensors().into_iter().map(|t| tagged("classifier", t));
        classifier.chain(segmenter.map(|t| tagged("segmenter", t))).collect()
    }

    /// The folder, if what the encoder makes of slices may be kept in it: not where the encoder is trained, as that of a network
    /// without prompts is.
    pub fn kept_in<'a>(&self, folder: Option<&'a Path>) -> Option<&'a Path> {
        folder.filter(|_| self.segmenter.encoder_identity().is_some())
    }

    /// The prediction path over both.
    pub fn predictor<'a>(&'a self, prompt: &'a PromptSettings, prediction: &'a PredictionConfig) -> Predictor<'a> {
        Predictor { classifier: self.classifier.as_ref(), segmenter: self.segmenter.as_ref(), prompt, prediction }
    }
}
