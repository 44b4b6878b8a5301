//! TransUNet (Chen et al., 2021): a ResNet, a transformer on its features, and a decoder that takes both.

mod decoder;
mod norm;
mod npz;
mod resnet;
mod transformer;
mod weights;

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use stage_api::{Group, Mode, NamedTensor, SliceNetwork};
use tch::{Device, Tensor};

use crate::settings::{demand, each_within, within};
use decoder::Decoder;
use resnet::ResNet;
use transformer::Transformer;

const PARAMETERS: Group = Group::trainable("trans-unet");
const STATISTICS: Group = Group::statistics("trans-unet");
/// Name of the position embeddings, `[1, g², C]`.
const POSITIONS: &str = "transformer.embeddings.position_embeddings";

/// Settings of [`TransUnet`]; by default R50-ViT-B/16 for slices of 256².
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransUnetSettings {
    /// Side of the square that the network sees, in pixels: a multiple of 16, 32 to 1024. Slices of another size are resized to
    /// it, and the logits back.
    pub image_size: i64,
    /// Channels of the ResNet's first convolution, a multiple of 32 up to 512.
    pub resnet_width: i64,
    /// Units of each of the ResNet's three stages, 1 to 64.
    pub resnet_units: [i64; 3],
    /// Channels of the transformer's tokens, a multiple of the heads, up to 4096.
    pub width: i64,
    /// Layers of the transformer, 1 to 64.
    pub layers: i64,
    /// Attention heads, 1 to 64.
    pub heads: i64,
    /// Channels between the two linear maps of a layer, 1 to 16384.
    pub mlp: i64,
    /// Share of values that training leaves out in the transformer, 0 to less than 1.
    pub dropout: f64,
    /// Channels of the decoder's four blocks, from small to large maps, 1 to 1024.
    pub decoder_channels: [i64; 4],
    /// An `.npz` of pretrained weights, with the names of the published `R50+ViT-B_16.npz`. Absent: random ones.
    pub weights: Option<PathBuf>,
}

impl Default for TransUnetSettings {
    fn default() -> Self {
        Self {
            image_size: 256,
            resnet_width: 64,
            resnet_units: [3, 4, 9],
            width: 768,
            layers: 12,
            heads: 12,
            mlp: 3072,
            dropout: 0.1,
            decoder_channels: [256, 128, 64, 16],
            weights: None,
        }
    }
}

impl TransUnetSettings {
    fn check(&self) -> Result<()> {
        let fits =
            |value: i64, unit: i64, range: std::ops::RangeInclusive<i64>| range.contains(&value) && value % unit == 0;
        let of_size = "a multiple of 16 pixels, 32 to 1024";
        demand(fits(self.image_size, 16, 32..=1024), "image_size", self.image_size, of_size)?;
        let of_width = "a multiple of 32 channels, 32 to 512";
        demand(fits(self.resnet_width, 32, 32..=512), "resnet_width", self.resnet_width, of_width)?;
        each_within("resnet_units", &self.resnet_units, &(1..=64), "1 to 64 units in each stage")?;
        within("layers", &self.layers, &(1..=64), "1 to 64 layers")?;
        within("heads", &self.heads, &(1..=64), "1 to 64 heads")?;
        let of_width = format!("a multiple of the {} heads, up to 4096 channels", self.heads);
        demand(fits(self.width, self.heads, 1..=4096), "width", self.width, &of_width)?;
        within("mlp", &self.mlp, &(1..=16384), "1 to 16384 channels")?;
        within("dropout", &self.dropout, &(0.0..1.0), "0 to less than 1")?;
        each_within("decoder_channels", &self.decoder_channels, &(1..=1024), "1 to 1024 channels in each block")
    }

    /// Side of the transformer's square of tokens.
    fn grid(&self) -> i64 {
        self.image_size / 16
    }
}

/// TransUNet with two classes; its logit is the difference between theirs.
#[derive(Debug)]
pub struct TransUnet {
    resnet: ResNet,
    transformer: Transformer,
    decoder: Decoder,
    image_size: i64,
}

impl TransUnet {
    /// Random by the seed; ResNet and transformer from the settings' file of weights where they name one.
    ///
    /// # Errors
    /// A setting out of its range; a file of weights that can't be read or is of another network.
    pub fn new(settings: &TransUnetSettings, seed: u64, device: Device) -> Result<Self> {
        settings.check()?;
        tch::manual_seed(seed as i64);
        let network = Self {
            resnet: ResNet::new(settings, device),
            transformer: Transformer::new(settings, device),
            decoder: Decoder::new(settings, device),
            image_size: settings.image_size,
        };
        if let Some(path) = &settings.weights {
            weights::load(path, settings.heads, &network.tensors())?;
        }
        Ok(network)
    }

    /// `[B, 1, S, S]` to `[B, 1, S, S]`.
    fn logits(&self, slices: &Tensor, mode: Mode) -> Tensor {
        let (features, skips) = self.resnet.forward(slices);
        let tokens = self.transformer.forward(&features, mode);
        let classes = self.decoder.forward(&tokens, &skips, mode);
        classes.narrow(1, 1, 1) - classes.narrow(1, 0, 1)
    }
}

impl SliceNetwork for TransUnet {
    fn forward(&self, slices: &Tensor, mode: Mode) -> Tensor {
        let run = || {
            let (size, own) = (&slices.size()[2..], [self.image_size; 2]);
            if size == own {
                return self.logits(slices, mode);
            }
            let resized = slices.internal_upsample_bilinear2d_aa(own, false, None, None);
            self.logits(&resized, mode).upsample_bilinear2d(size, false, None, None)
        };
        if mode.is_training() { run() } else { tch::no_grad(run) }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let mut all = self.resnet.tensors();
        all.extend(self.transformer.tensors());
        all.extend(self.decoder.tensors());
        all
    }
}
