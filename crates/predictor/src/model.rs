//! Both branches as configured, new or from a checkpoint.

use crate::checkpoint::load_weights;
use crate::config::{ModelConfig, PredictionConfig, SegmenterConfig};
use crate::predictor::Predictor;
use crate::registry::Registry;
use anyhow::{Context, Result, bail, ensure};
use cam_classifier::PromptSettings;
use run_record::RunRecord;
use run_record::checkpoint::{self, Which};
use sam_segmenter::{SamSegmenter, SegmenterSettings};
use slice_sampling::stream_seed;
use stage_api::{Group, NamedTensor, PresenceClassifier, PromptedSegmenter};
use std::path::{Path, PathBuf};
use std::sync::Once;
use tch::Device;

/// Where `cargo xtask setup` puts the pretrained weights, from the workspace's root.
const INSTALLED_WEIGHTS: &str = ".deps/weights/lite_medsam.pth";

/// Both branches.
pub struct Model {
    /// The classifier branch.
    pub classifier: Box<dyn PresenceClassifier>,
    /// The SAM branch.
    pub segmenter: SamSegmenter,
}

impl Model {
    /// Pretrained where there are weights, random by the seed where not.
    pub fn new(config: &ModelConfig, registry: &Registry, device: Device) -> Result<Self> {
        let classifier =
            registry.classifier(&config.classifier, stream_seed(config.seed, "init/classifier"), device)?;
        let settings =
            SegmenterSettings { seed: stream_seed(config.seed, "init/lora") >> 1, ..config.segmenter.settings.clone() };
        let weights = weights_path(&config.segmenter)?;
        let segmenter = SamSegmenter::load(&weights, &settings, device)?;
        if let Some(how) = segmenter.read_from() {
            // Training makes the model twice: to check the configuration, and to train it.
            static SAID: Once = Once::new();
            SAID.call_once(|| eprintln!("note: '{}': {how}", weights.display()));
        }
        let [channels, grid, _] = segmenter.embedding_shape();
        if let Some(wanted) = classifier.embedding_channels().filter(|&wanted| wanted != channels) {
            bail!(
                "the classifier \"{}\" is set for embeddings of {wanted} channels, but those of '{}' have {channels} ({channels} × \
                 {grid} × {grid}): `classifier.settings.input_channels = {channels}`, or leave it out",
                config.classifier.kind,
                weights.display()
            );
        }
        Ok(Self { classifier, segmenter })
    }

    /// As a run's checkpoint left them. The pretrained file must be the one that the run began with.
    pub fn from_run(
        run: &Path,
        which: Which,
        config: &ModelConfig,
        registry: &Registry,
        device: Device,
    ) -> Result<Self> {
        let model = Self::new(config, registry, device)?;
        let recorded = RunRecord::load(run)?;
        let found = model.segmenter.encoder_fingerprint();
        if let Some(expected) = recorded.weights_sha256.filter(|expected| expected != found) {
            bail!(
                "the run '{}' began with pretrained weights of SHA-256 {expected}, but '{}' has {found}",
                run.display(),
                weights_path(&config.segmenter)?.display()
            );
        }
        let found = checkpoint::open(run, which)?;
        if let Some(damage) = &found.instead_of {
            eprintln!("warning: {damage}: '{}', the one before it, is used", found.directory.display());
        }
        let pretrained = model.segmenter.trainable_values();
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
        let segmenter = segmenter.filter(|t| is_of_segmenter(t.group));
        let classifier = self.classifier.tensors().into_iter().map(|t| tagged("classifier", t));
        classifier.chain(segmenter.map(|t| tagged("segmenter", t))).collect()
    }

    /// The prediction path over both.
    pub fn predictor<'a>(&'a self, prompt: &'a PromptSettings, prediction: &'a PredictionConfig) -> Predictor<'a> {
        Predictor { classifier: self.classifier.as_ref(), segmenter: &self.segmenter, prompt, prediction }
    }
}

/// Whether it is a part of the segmenter that can be trained.
fn is_of_segmenter(group: Group) -> bool {
    matches!(group, Group::Lora | Group::PromptEncoder | Group::Decoder)
}

/// The SAM branch as its pretrained file has it, for comparison.
pub fn untouched_segmenter(config: &SegmenterConfig, device: Device) -> Result<SamSegmenter> {
    let settings = SegmenterSettings { lora_rank: 0, ..config.settings.clone() };
    Ok(SamSegmenter::load(&weights_path(config)?, &settings, device)?)
}

/// The configured file, or the installed one, looked for from the working directory upward.
pub fn weights_path(config: &SegmenterConfig) -> Result<PathBuf> {
    if let Some(path) = config.weights.clone().or_else(|| std::env::var_os("SAM_MIX_WEIGHTS").map(PathBuf::from)) {
        ensure!(
            path.is_file(),
            "the pretrained weights '{}' are not there: fetch them, or name another file with --weights FILE \
             (docs/how-to/other-checkpoints.md says which load)",
            path.display()
        );
        return Ok(path);
    }
    let start = std::env::current_dir().context("the working directory can't be read")?;
    start.ancestors().map(|d| d.join(INSTALLED_WEIGHTS)).find(|p| p.is_file()).with_context(|| {
        format!(
            "the pretrained weights '{INSTALLED_WEIGHTS}' are not there: `cargo xtask setup` installs them; \
             --weights FILE (or segmenter.weights in the configuration) takes others"
        )
    })
}
