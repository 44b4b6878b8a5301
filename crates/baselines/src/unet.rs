//! U-Net (Ronneberger et al., 2015) with padded convolutions, so that masks have the slice's size.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use stage_api::{Group, Mode, NamedTensor, SliceNetwork};
use tch::{Device, Tensor};

use crate::layers::{Convolution, Kernel, cropped, he_deviation, instance_normed, padded_to_multiples, rectified};
use crate::settings::{demand, each_within, within};

const PARAMETERS: Group = Group::trainable("unet");

/// What follows each convolution of a [`UNet`], before its rectifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UNetNorm {
    /// Nothing.
    None,
    /// Instance normalisation without scale and shift.
    Instance,
}

/// Settings of [`UNet`]; by default those of 2015.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UNetSettings {
    /// Channels of 2 to 8 stages, from full resolution downwards, 1 to 2048 each.
    pub widths: Vec<i64>,
    /// What follows each convolution.
    pub norm: UNetNorm,
    /// Slope of the rectifiers below 0, 0 to less than 1.
    pub negative_slope: f64,
    /// Share of values that training leaves out behind each pair of convolutions, 0 to less than 1.
    pub dropout: f64,
}

impl Default for UNetSettings {
    fn default() -> Self {
        Self { widths: vec![64, 128, 256, 512, 1024], norm: UNetNorm::None, negative_slope: 0.0, dropout: 0.0 }
    }
}

impl UNetSettings {
    fn check(&self) -> Result<()> {
        let stages = self.widths.len();
        demand((2..=8).contains(&stages), "widths", format_args!("a list of {stages}"), "2 to 8 stages")?;
        each_within("widths", &self.widths, &(1..=2048), "1 to 2048 channels each")?;
        within("negative_slope", &self.negative_slope, &(0.0..1.0), "0 to less than 1")?;
        within("dropout", &self.dropout, &(0.0..1.0), "0 to less than 1")
    }
}

/// Pairs of 3×3 convolutions, max-pooling between them on the way down, transposed convolutions and skips on the way up.
#[derive(Debug)]
pub struct UNet {
    settings: UNetSettings,
    /// From full resolution downwards.
    encoder: Vec<[Convolution; 2]>,
    /// From the lowest resolution upwards, as the decoder's pairs are.
    upsamplers: Vec<Convolution>,
    decoder: Vec<[Convolution; 2]>,
    output: Convolution,
}

impl UNet {
    /// Random by the seed: normal, deviation √(2 / inputs of a value) (2015, section 3), biases 0.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(settings: &UNetSettings, seed: u64, device: Device) -> Result<Self> {
        settings.check()?;
        tch::manual_seed(seed as i64);
        let UNetSettings { widths, negative_slope, .. } = settings;
        let convolution = |name: &str, ends: [i64; 2]| {
            let deviation = he_deviation(9 * ends[0], *negative_slope);
            Convolution::new(name, ends, Kernel::same(3), deviation, device)
        };
        let pair = |name: &str, [input, output]: [i64; 2]| {
            [convolution(&format!("{name}.0"), [input, output]), convolution(&format!("{name}.1"), [output, output])]
        };
        let upsampler = |name: &str, ends: [i64; 2]| {
            // Windows don't overlap: a value is made of one place.
            let kernel = Kernel { side: 2, stride: 2, padding: 0 };
            Convolution::transposed(name, ends, kernel, he_deviation(ends[0], *negative_slope), device)
        };
        let inputs = std::iter::once(&1).chain(widths);
        let encoder =
            inputs.zip(widths).enumerate().map(|(i, (&a, &b))| pair(&format!("encoder.{i}"), [a, b])).collect();
        let upward: Vec<[i64; 2]> = widths.windows(2).rev().map(|w| [w[1], w[0]]).collect();
        let numbered = || upward.iter().enumerate();
        Ok(Self {
            settings: settings.clone(),
            encoder,
            upsamplers: numbered().map(|(i, &ends)| upsampler(&format!("upsamplers.{i}"), ends)).collect(),
            decoder: numbered().map(|(i, &[_, w])| pair(&format!("decoder.{i}"), [2 * w, w])).collect(),
            output: Convolution::new("output", [widths[0], 1], Kernel::same(1), he_deviation(widths[0], 0.0), device),
        })
    }

    fn pair(&self, convolutions: &[Convolution; 2], x: &Tensor, mode: Mode) -> Tensor {
        let apply = |x: Tensor, convolution: &Convolution| {
            let x = convolution.forward(&x);
            let x = match self.settings.norm {
                UNetNorm::None => x,
                UNetNorm::Instance => instance_normed(&x),
            };
            rectified(x, self.settings.negative_slope)
        };
        let x = convolutions.iter().fold(x.shallow_clone(), apply);
        if self.settings.dropout > 0.0 { x.dropout(self.settings.dropout, mode.is_training()) } else { x }
    }

    fn logits(&self, slices: &Tensor, mode: Mode) -> Tensor {
        let (_, _, height, width) = slices.size4().expect("slices are [B, 1, H, W]");
        let mut x = padded_to_multiples(slices, [1 << self.upsamplers.len(); 2]);
        let mut skips = Vec::new();
        for (number, pair) in self.encoder.iter().enumerate() {
            let input = if number == 0 { x } else { x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false) };
            x = self.pair(pair, &input, mode);
            skips.push(x.shallow_clone());
        }
        skips.pop();
        for (upsampler, pair) in self.upsamplers.iter().zip(&self.decoder) {
            let skip = skips.pop().expect("as many as there are stages above the lowest");
            x = self.pair(pair, &Tensor::cat(&[skip, upsampler.forward(&x)], 1), mode);
        }
        cropped(&self.output.forward(&x), [height, width])
    }
}

impl SliceNetwork for UNet {
    /// Slices whose sides no pooling divides are padded with zeros below and at the right.
    fn forward(&self, slices: &Tensor, mode: Mode) -> Tensor {
        let run = || self.logits(slices, mode);
        if mode.is_training() { run() } else { tch::no_grad(run) }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let layers = self.encoder.iter().flatten().chain(&self.upsamplers);
        let layers = layers.chain(self.decoder.iter().flatten()).chain([&self.output]);
        layers.flat_map(|layer| layer.tensors(PARAMETERS)).collect()
    }
}
