//! Everything that a configuration can name, in one place: classifiers, segmenters, strategies that choose the labelled slices,
//! and parts of the segmentation loss. A crate of one's own adds to it and hands it to [`crate::cli::main`].

use losses::{BATCH_LOSSES, MASK_LOSSES, SegmentationPart};
use predictor::{ClassifierFactory, ModelRegistry, SegmenterFactory};
use slice_sampling::{
    DisagreeingSubset, KCenterSubset, StratifiedSubset, SubsetStrategy, UncertainSubset, UniformSubset,
};
use stage_api::MaskLoss;
use std::collections::BTreeMap;

/// The stages by name.
pub struct Registry {
    /// Classifiers and segmenters, which prediction needs too.
    pub models: ModelRegistry,
    /// `sampling.strategy`
    pub strategies: BTreeMap<String, Box<dyn SubsetStrategy>>,
    /// Keys of `[segmentation_loss]`.
    pub losses: BTreeMap<String, SegmentationPart>,
}

impl Default for Registry {
    /// The stages of this workspace.
    fn default() -> Self {
        let empty = Self { models: ModelRegistry::default(), strategies: BTreeMap::new(), losses: BTreeMap::new() };
        let of_masks = MASK_LOSSES.into_iter().fold(empty, |registry, (name, loss)| registry.with_loss(name, loss));
        BATCH_LOSSES
            .into_iter()
            .fold(of_masks, |registry, (name, loss)| registry.with_batch_loss(name, loss))
            .with_strategy("uniform", UniformSubset)
            .with_strategy("stratified", StratifiedSubset)
            .with_strategy("k-center", KCenterSubset)
            .with_strategy("uncertainty", UncertainSubset)
            .with_strategy("disagreement", DisagreeingSubset)
    }
}

impl Registry {
    /// Adds a classifier: `classifier.kind = "<name>"` then chooses it.
    #[must_use]
    pub fn with_classifier(self, name: &str, factory: ClassifierFactory) -> Self {
        Self { models: self.models.with_classifier(name, factory), ..self }
    }

    /// Adds a segmenter: `segmenter.kind = "<name>"` then chooses it.
    #[must_use]
    pub fn with_segmenter(self, name: &str, factory: SegmenterFactory) -> Self {
        Self { models: self.models.with_segmenter(name, factory), ..self }
    }

    /// Adds a way of choosing the labelled slices: `sampling.strategy = "<name>"` and `choose --strategy <name>` then take it.
    #[must_use]
    pub fn with_strategy(mut self, name: &str, strategy: impl SubsetStrategy + 'static) -> Self {
        self.strategies.insert(name.into(), Box::new(strategy));
        self
    }

    /// Adds a part of the segmentation loss: `segmentation_loss.<name> = WEIGHT` then counts it.
    #[must_use]
    pub fn with_loss(mut self, name: &str, loss: MaskLoss) -> Self {
        self.losses.insert(name.into(), SegmentationPart::OfMask(loss));
        self
    }

    /// The same of all masks of a step at once.
    #[must_use]
    pub fn with_batch_loss(mut self, name: &str, loss: MaskLoss) -> Self {
        self.losses.insert(name.into(), SegmentationPart::OfBatch(loss));
        self
    }
}
