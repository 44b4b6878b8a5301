//! The network, with the parameters of `PlainConvUNet` in `dynamic-network-architectures`.

use anyhow::Result;
use stage_api::{Group, Mode, NamedTensor, SliceNetwork};
use tch::{Device, Tensor};

use super::settings::NnUNetSettings;
use super::window;
use crate::layers::{
    Convolution, Kernel, Rectangle, ScaledInstanceNorm, cropped, he_deviation, padded_to_multiples, rectified,
};

const PARAMETERS: Group = Group::trainable("nnunet");
const SLOPE: f64 = 0.01;

/// Pairs of convolutions, each with instance normalisation and a leaky rectifier; strided convolutions down, transposed up, and
/// logits of background and target at each resolution but the lowest.
#[derive(Debug)]
pub struct NnUNet {
    settings: NnUNetSettings,
    /// From full resolution downwards.
    encoder: Vec<[Layer; 2]>,
    /// From the lowest resolution upwards, as all that follow.
    decoder: Vec<[Layer; 2]>,
    upsamplers: Vec<Convolution>,
    outputs: Vec<Convolution>,
}

#[derive(Debug)]
struct Layer {
    convolution: Convolution,
    norm: ScaledInstanceNorm,
}

impl NnUNet {
    /// Random by the seed, as the reference begins: normal by He et al. (2015), biases 0.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(settings: &NnUNetSettings, seed: u64, device: Device) -> Result<Self> {
        settings.check()?;
        tch::manual_seed(seed as i64);
        let NnUNetSettings { features, strides, kernels, .. } = settings;
        let pair = |name: &str, ends: [i64; 2], stride: [i64; 2], kernel: [i64; 2]| {
            let layer = |number: usize, ends, stride| {
                Layer::new(&format!("{name}.convs.{number}"), ends, stride, kernel, device)
            };
            [layer(0, ends, stride), layer(1, [ends[1]; 2], [1, 1])]
        };
        let stage = |i: usize| {
            let input = if i == 0 { 1 } else { features[i - 1] };
            pair(&format!("encoder.stages.{i}.0"), [input, features[i]], strides[i], kernels[i])
        };
        let lowest = features.len() - 1;
        // The decoder's stages by the encoder's whose resolution they have.
        let upward = || (0..lowest).rev().enumerate();
        Ok(Self {
            encoder: (0..=lowest).map(stage).collect(),
            decoder: upward()
                .map(|(i, of)| {
                    let ends = [2 * features[of], features[of]];
                    pair(&format!("decoder.stages.{i}"), ends, [1, 1], kernels[of])
                })
                .collect(),
            upsamplers: upward()
                .map(|(i, of)| {
                    let sides = strides[of + 1];
                    let kernel = Rectangle { sides, strides: sides, paddings: [0, 0] };
                    // PyTorch takes the outputs for the inputs where a convolution is transposed.
                    let deviation = he_deviation(features[of] * sides[0] * sides[1], SLOPE);
                    let ends = [features[of + 1], features[of]];
                    Convolution::transposed(&format!("decoder.transpconvs.{i}"), ends, kernel, deviation, device)
                })
                .collect(),
            outputs: upward()
                .map(|(i, of)| {
                    let deviation = he_deviation(features[of], SLOPE);
                    let name = format!("decoder.seg_layers.{i}");
                    Convolution::new(&name, [features[of], 2], Kernel::same(1), deviation, device)
                })
                .collect(),
            settings: settings.clone(),
        })
    }

    /// The finest of the logits, by number.
    fn decode(&self, slices: &Tensor, finest: usize) -> Vec<Tensor> {
        let (_, _, height, width) = slices.size4().expect("slices are [B, 1, H, W]");
        let mut x = padded_to_multiples(slices, self.settings.multiples());
        let [padded_height, padded_width] = [x.size()[2], x.size()[3]];
        let mut skips = Vec::new();
        for pair in &self.encoder {
            x = pair.iter().fold(x, |x, layer| layer.forward(&x));
            skips.push(x.shallow_clone());
        }
        skips.pop();
        let mut maps = Vec::new();
        for (number, (upsampler, pair)) in self.upsamplers.iter().zip(&self.decoder).enumerate() {
            let skip = skips.pop().expect("as many as there are stages above the lowest");
            let joined = Tensor::cat(&[upsampler.forward(&x), skip], 1);
            x = pair.iter().fold(joined, |x, layer| layer.forward(&x));
            if number + finest >= self.outputs.len() {
                let [rows, columns] = [padded_height / x.size()[2], padded_width / x.size()[3]];
                let map = self.outputs[number].difference(&x);
                maps.push(cropped(&map, [(height + rows - 1) / rows, (width + columns - 1) / columns]));
            }
        }
        maps.reverse();
        maps
    }

    fn full_resolution(&self, slices: &Tensor) -> Tensor {
        self.decode(slices, 1).remove(0)
    }
}

impl SliceNetwork for NnUNet {
    /// Inference goes by tiles, weighted towards their centres, and mirrored as the settings say.
    fn forward(&self, slices: &Tensor, mode: Mode) -> Tensor {
        if mode.is_training() {
            return self.full_resolution(slices);
        }
        tch::no_grad(|| {
            window::predicted(slices, self.settings.patch, |tile| {
                if self.settings.mirrored {
                    window::mirrored_mean(tile, |x| self.full_resolution(x))
                } else {
                    self.full_resolution(tile)
                }
            })
        })
    }

    /// Logits of each resolution but the lowest, the full one first; each is the target's logit less the background's.
    ///
    /// Slices whose sides the strides don't divide are padded with zeros below and at the right, and lower resolutions have
    /// their sides rounded up.
    fn supervised(&self, slices: &Tensor) -> Vec<Tensor> {
        self.decode(slices, self.outputs.len())
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let convolutions = self.upsamplers.iter().chain(&self.outputs);
        let layers = self.encoder.iter().chain(&self.decoder).flatten();
        let layers = layers.flat_map(Layer::tensors);
        layers.chain(convolutions.flat_map(|layer| layer.tensors(PARAMETERS))).collect()
    }
}

impl Layer {
    fn new(name: &str, ends: [i64; 2], strides: [i64; 2], sides: [i64; 2], device: Device) -> Self {
        let kernel = Rectangle { sides, strides, paddings: sides.map(|side| side / 2) };
        let deviation = he_deviation(ends[0] * sides[0] * sides[1], SLOPE);
        Self {
            convolution: Convolution::new(&format!("{name}.conv"), ends, kernel, deviation, device),
            norm: ScaledInstanceNorm::new(&format!("{name}.norm"), ends[1], device),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        rectified(self.norm.forward(&self.convolution.forward(x)), SLOPE)
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let mut tensors = self.convolution.tensors(PARAMETERS);
        tensors.extend(self.norm.tensors(PARAMETERS));
        tensors
    }
}
