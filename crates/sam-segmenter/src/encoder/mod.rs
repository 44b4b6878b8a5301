//! The image encoders behind one face: a frozen first part without adapters, then the rest.

mod lora;
mod neck;
mod tiny_vit;
mod vit;

use stage_api::EncoderBackward;
use tch::{Kind, TchError, Tensor};

use self::lora::LoraFactory;
pub(crate) use self::lora::Pass;
use self::tiny_vit::TinyVit;
use self::vit::Vit;
use crate::architecture::{EncoderArchitecture, SamArchitecture};
use crate::checkpoint::Weights;
use crate::groups::{ENCODER, TRAINED_ENCODER};
use crate::settings::{EncoderPart, SegmenterSettings};
use stage_api::Group;

/// The image encoder: `[B, 1 or 3, S, S]` to `[B, 256, g, g]`. One channel stands for three equal ones.
pub(crate) struct ImageEncoder {
    kind: Encoder,
    /// In which numbers it computes.
    precision: Kind,
    /// Whether training changes all of it: no part of its results then can be kept.
    is_whole: bool,
}

enum Encoder {
    TinyVit(Box<TinyVit>),
    Vit(Vit),
}

/// What an encoder gives: its result, and the way of a gradient back where the graph doesn't have it.
pub(crate) struct Encoded {
    pub(crate) embedding: Tensor,
    pub(crate) rest: Option<EncoderBackward>,
}

impl From<Tensor> for Encoded {
    fn from(embedding: Tensor) -> Self {
        Self { embedding, rest: None }
    }
}

impl ImageEncoder {
    pub(crate) fn take(weights: &mut Weights, architecture: &SamArchitecture, settings: &SegmenterSettings) -> Self {
        let mut lora = LoraFactory::new(settings);
        let kind = match &architecture.encoder {
            EncoderArchitecture::TinyVit(shape) => Encoder::TinyVit(Box::new(TinyVit::take(weights, shape, &mut lora))),
            EncoderArchitecture::Vit(shape) => {
                Encoder::Vit(Vit::take(weights, shape, architecture.grid(), settings, &mut lora))
            }
        };
        Self { kind, precision: settings.precision.kind(), is_whole: settings.encoder == EncoderPart::Whole }
    }

    /// The part that training doesn't change; the input itself where it changes all of it.
    pub(crate) fn features(&self, input: &Tensor) -> Tensor {
        if self.is_whole { input.shallow_clone() } else { self.first_part(input) }
    }

    /// [`Self::features`] with the encoder's first part behind them.
    fn behind_first_part(&self, features: &Tensor) -> Tensor {
        if self.is_whole { self.first_part(features) } else { features.shallow_clone() }
    }

    fn first_part(&self, input: &Tensor) -> Tensor {
        let input = input.to_kind(self.precision);
        let features = match &self.kind {
            Encoder::TinyVit(encoder) => encoder.features(&input),
            Encoder::Vit(encoder) => encoder.features(&input),
        };
        features.to_kind(Kind::Float)
    }

    /// From the features to the embedding.
    pub(crate) fn forward(&self, features: &Tensor, pass: Pass) -> Encoded {
        let features = &self.behind_first_part(features);
        match &self.kind {
            Encoder::TinyVit(encoder) => encoder.forward(&features.to_kind(self.precision), pass).into(),
            Encoder::Vit(encoder) => encoder.forward(features, pass),
        }
    }

    /// What each layer makes of the features, by its name in the official code.
    pub(crate) fn by_layer(&self, features: &Tensor, pass: Pass) -> Vec<(String, Tensor)> {
        let features = &self.behind_first_part(features);
        let outputs = match &self.kind {
            Encoder::TinyVit(encoder) => encoder.by_layer(&features.to_kind(self.precision), pass),
            Encoder::Vit(encoder) => encoder.by_layer(features, pass),
        };
        outputs.into_iter().map(|(name, output)| (name, output.to_kind(Kind::Float))).collect()
    }

    /// What a tensor of the file is resized to for the architecture's input, by its name; `None` where it is used as it is.
    pub(crate) fn resized(name: &str, tensor: &Tensor, architecture: &SamArchitecture) -> Option<Tensor> {
        match &architecture.encoder {
            EncoderArchitecture::TinyVit(_) => None,
            EncoderArchitecture::Vit(shape) => Vit::resized(name, tensor, shape, architecture.grid()),
        }
    }

    /// The names of all weights that have adapters, and their values with the adapters added.
    pub(crate) fn merged_weights(&self) -> Vec<(String, Tensor)> {
        match &self.kind {
            Encoder::TinyVit(encoder) => encoder.merged_weights(),
            Encoder::Vit(encoder) => encoder.merged_weights(),
        }
    }
}

/// Whose an encoder's own parameters are.
fn group(settings: &SegmenterSettings) -> Group {
    match settings.encoder {
        EncoderPart::Adapters => ENCODER,
        EncoderPart::Whole => TRAINED_ENCODER,
    }
}

/// The gradients of tensors, carried on into the graphs that these are the ends of; those of frozen parts alone have none.
fn push(ends: impl IntoIterator<Item = (Tensor, Tensor)>) -> Result<(), TchError> {
    // The derivative of x · gradient is that gradient.
    let ends = ends.into_iter().filter(|(x, _)| x.requires_grad());
    let products = ends.map(|(x, gradient)| tch::with_grad(|| x.flatten(0, -1).dot(&gradient.flatten(0, -1))));
    products.reduce(|a, b| tch::with_grad(|| a + b)).map_or(Ok(()), |sum| sum.f_backward())
}
