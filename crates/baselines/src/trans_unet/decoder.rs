//! TransUNet's decoder: four times up to twice the size, three times beside features of the ResNet.

use stage_api::{Mode, NamedTensor};
use tch::{Device, Tensor};

use super::norm::BatchNorm;
use super::{PARAMETERS, TransUnetSettings};
use crate::layers::{Convolution, Kernel};

/// Channels that the transformer's width is brought to first.
const HEAD: i64 = 512;

/// A first convolution, four blocks of two, and a last one to two classes.
#[derive(Debug)]
pub(super) struct Decoder {
    first: ConvNorm,
    blocks: Vec<[ConvNorm; 2]>,
    last: Convolution,
}

impl Decoder {
    pub(super) fn new(settings: &TransUnetSettings, device: Device) -> Self {
        let root = settings.resnet_width;
        let skips = [8 * root, 4 * root, root, 0];
        let mut input = HEAD;
        let block = |(index, (&output, skip)): (usize, (&i64, i64))| {
            let part = |number: i64, input: i64| {
                ConvNorm::new(&format!("decoder.blocks.{index}.conv{number}"), [input, output], device)
            };
            let block = [part(1, input + skip), part(2, output)];
            input = output;
            block
        };
        let blocks = settings.decoder_channels.iter().zip(skips).enumerate().map(block).collect();
        let last = Convolution::new("segmentation_head.0", [input, 2], Kernel::same(3), 1.0, device);
        Self {
            first: ConvNorm::new("decoder.conv_more", [settings.width, HEAD], device),
            blocks,
            last: last.drawn_uniformly(),
        }
    }

    /// Tokens `[B, C, g, g]` and the ResNet's features, from small to large, to the logits of two classes
    /// `[B, 2, 16g, 16g]`.
    pub(super) fn forward(&self, tokens: &Tensor, skips: &[Tensor; 3], mode: Mode) -> Tensor {
        let mut x = self.first.forward(tokens, mode);
        for (index, [first, second]) in self.blocks.iter().enumerate() {
            let size = [2 * x.size()[2], 2 * x.size()[3]];
            let up = x.upsample_bilinear2d(size, true, None, None);
            let joined = skips.get(index).map_or(up.shallow_clone(), |skip| Tensor::cat(&[&up, skip], 1));
            x = second.forward(&first.forward(&joined, mode), mode);
        }
        self.last.forward(&x)
    }

    pub(super) fn tensors(&self) -> Vec<NamedTensor> {
        let parts = std::iter::once(&self.first).chain(self.blocks.iter().flatten());
        parts.flat_map(ConvNorm::tensors).chain(self.last.tensors(PARAMETERS)).collect()
    }
}

/// A 3×3 convolution without bias, batch normalisation and a rectifier.
#[derive(Debug)]
struct ConvNorm {
    conv: Convolution,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new(name: &str, sizes: [i64; 2], device: Device) -> Self {
        let conv = Convolution::new(&format!("{name}.0"), sizes, Kernel::same(3), 1.0, device);
        Self {
            conv: conv.without_bias().drawn_uniformly(),
            norm: BatchNorm::new(&format!("{name}.1"), sizes[1], device),
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.norm.forward(&self.conv.forward(x), mode).relu_()
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        self.conv.tensors(PARAMETERS).into_iter().chain(self.norm.tensors()).collect()
    }
}
