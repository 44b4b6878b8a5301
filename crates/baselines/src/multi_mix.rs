//! MultiMix (Haque et al., 2021): one encoder for a classifier and a segmenter, and a bridge of saliency between them.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use stage_api::{Group, Mode, NamedTensor, Presence, PresenceClassifier, SliceNetwork};
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

use crate::layers::{Convolution, Kernel, cropped, padded_to_multiples};
use crate::linear::Linear;
use crate::settings::within;

const PARAMETERS: Group = Group::trainable("multi-mix");
/// The smallest side that five poolings leave something of, in pixels.
const LEAST: i64 = 32;

/// Settings of [`MultiMix`]; by default those of the published network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiMixSettings {
    /// Channels at full resolution, 1 to 128; each of four lower ones has twice as many.
    pub width: i64,
    /// Share of values that training leaves out behind each pair of convolutions, 0 to less than 1.
    pub dropout: f64,
}

impl Default for MultiMixSettings {
    fn default() -> Self {
        Self { width: 16, dropout: 0.25 }
    }
}

/// A U-Net whose encoder also classifies. The slope of the classifier's score over the slice is what its decoder sees beside
/// the slice.
#[derive(Debug)]
pub struct MultiMix {
    network: Rc<Network>,
}

#[derive(Debug)]
struct Network {
    /// From full resolution downwards.
    encoder: Vec<Pair>,
    classes: Linear,
    /// From low resolution upwards.
    decoder: Vec<Pair>,
    last: Convolution,
    /// Part of the published network, and used nowhere in it: kept so that its weights are read, and written, whole.
    unused: Convolution,
}

impl MultiMix {
    /// Random by the seed.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(settings: &MultiMixSettings, seed: u64, device: Device) -> Result<Self> {
        let &MultiMixSettings { width, dropout } = settings;
        within("width", &width, &(1..=128), "1 to 128 channels")?;
        within("dropout", &dropout, &(0.0..1.0), "0 to less than 1")?;
        tch::manual_seed(seed as i64);
        let level = |number: i64| width << (number - 1);
        let down = |number: i64| {
            let input = if number == 1 { 1 } else { level(number - 1) };
            Pair::new(&format!("encoder.dconv_down{number}"), [input, level(number)], dropout, device)
        };
        let up = |number: i64| {
            // The bridge: slice and saliency.
            let bridge = if number == 4 { 2 } else { 0 };
            let input = level(number + 1) + level(number) + bridge;
            Pair::new(&format!("decoder.dconv_up{number}"), [input, level(number)], dropout, device)
        };
        let to_logit =
            |name: &str, input: i64| Convolution::new(name, [input, 1], Kernel::same(1), 1.0, device).drawn_uniformly();
        let network = Network {
            encoder: (1..=5).map(down).collect(),
            classes: Linear::new("encoder.fc", [level(5), 2], device),
            decoder: (1..=4).rev().map(up).collect(),
            last: to_logit("decoder.conv_last", width),
            unused: to_logit("decoder.conv_last_saliency", width + 1),
        };
        Ok(Self { network: Rc::new(network) })
    }

    /// Slices `[B, 1, H, W]`, windowed to `[0, 1]`, to the logits of the two classes `[B, 2]` (the second is "the target is
    /// there") and the segmentation's logits `[B, 1, H, W]`.
    pub fn forward_both(&self, slices: &Tensor, mode: Mode) -> (Tensor, Tensor) {
        let run = || {
            let seen = seen(slices);
            let saliency = self.network.saliency(&seen);
            let (levels, classes) = self.network.encode(&seen, mode);
            let logits = self.network.decode(&Tensor::cat(&[&seen, &saliency], 1), &levels, mode);
            (classes, cropped(&logits, [slices.size()[2], slices.size()[3]]))
        };
        if mode.is_training() { run() } else { tch::no_grad(run) }
    }
}

/// Slices as the network sees them: five poolings leave nothing of a side below 32.
fn seen(slices: &Tensor) -> Tensor {
    let is_small = slices.size()[2].min(slices.size()[3]) < LEAST;
    if is_small { padded_to_multiples(slices, [LEAST; 2]) } else { slices.shallow_clone() }
}

impl Network {
    /// How much each pixel moves the higher class logit of its slice, `|∂ max_k z_k / ∂x|`, `[B, 1, H, W]`, by the network as in
    /// inference. Without gradient.
    fn saliency(&self, slices: &Tensor) -> Tensor {
        let slices = slices.detach().copy().set_requires_grad(true);
        let score = tch::with_grad(|| self.encode(&slices, Mode::Eval).1.amax([1_i64].as_slice(), false).sum(None));
        Tensor::run_backward(&[score], &[&slices], false, false).remove(0).abs()
    }

    /// The maps of all resolutions, the full one first, and the logits of the classes.
    fn encode(&self, slices: &Tensor, mode: Mode) -> (Vec<Tensor>, Tensor) {
        let mut levels: Vec<Tensor> = Vec::new();
        for pair in &self.encoder {
            let input = levels.last().map_or(slices.shallow_clone(), halved);
            levels.push(pair.forward(&input, mode));
        }
        let lowest = halved(&levels[levels.len() - 1]);
        let classes = self.classes.forward(&lowest.mean_dim([2_i64, 3].as_slice(), false, None));
        (levels, classes)
    }

    fn decode(&self, bridge: &Tensor, levels: &[Tensor], mode: Mode) -> Tensor {
        let scaled = |x: &Tensor, to: &Tensor| x.upsample_bilinear2d(&to.size()[2..], true, None, None);
        let [skips @ .., lowest] = levels else { unreachable!("there are five levels") };
        let mut x = lowest.shallow_clone();
        for (number, (pair, skip)) in self.decoder.iter().zip(skips.iter().rev()).enumerate() {
            let mut parts = vec![scaled(&x, skip), skip.shallow_clone()];
            if number == 0 {
                parts.push(scaled(bridge, skip));
            }
            x = pair.forward(&Tensor::cat(&parts, 1), mode);
        }
        self.last.forward(&x)
    }
}

impl SliceNetwork for MultiMix {
    fn forward(&self, slices: &Tensor, mode: Mode) -> Tensor {
        self.forward_both(slices, mode).1
    }

    fn own_classifier(&self) -> Option<Box<dyn PresenceClassifier>> {
        Some(Box::new(Head { network: Rc::clone(&self.network) }))
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let Network { encoder, classes, decoder, last, unused } = &*self.network;
        let mut all: Vec<NamedTensor> = encoder.iter().flat_map(Pair::tensors).collect();
        all.extend(classes.tensors(PARAMETERS));
        all.extend(decoder.iter().flat_map(Pair::tensors));
        all.extend([last, unused].into_iter().flat_map(|conv| conv.tensors(PARAMETERS)));
        all
    }
}

/// The network's classifier.
struct Head {
    network: Rc<Network>,
}

impl PresenceClassifier for Head {
    /// Of two classes: the logit of one of them against the other. It has no map.
    fn forward(&self, slices: &Tensor, mode: Mode) -> Presence {
        let run = || self.network.encode(&seen(slices), mode).1;
        let classes = if mode.is_training() { run() } else { tch::no_grad(run) };
        let cam = Tensor::zeros([slices.size()[0], 1, 1, 1], (Kind::Float, slices.device()));
        Presence { logit: classes.select(1, 1) - classes.select(1, 0), cam, map: None }
    }

    /// They are the segmenter's.
    fn tensors(&self) -> Vec<NamedTensor> {
        Vec::new()
    }
}

/// `[B, C, h, w]` to half the height and width, by the largest value of each 2×2.
fn halved(x: &Tensor) -> Tensor {
    x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)
}

/// Two padded 3×3 convolutions, each with instance normalisation (without scale and shift) and a leaky rectifier; then dropout.
#[derive(Debug)]
struct Pair {
    convolutions: [Convolution; 2],
    dropout: f64,
}

impl Pair {
    fn new(name: &str, [input, output]: [i64; 2], dropout: f64, device: Device) -> Self {
        let convolution = |(place, input)| {
            Convolution::new(&format!("{name}.{place}"), [input, output], Kernel::same(3), 1.0, device)
                .drawn_uniformly()
        };
        Self { convolutions: [(0, input), (3, output)].map(convolution), dropout }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let apply = |x: Tensor, convolution: &Convolution| {
            let none = None::<&Tensor>;
            let normed = convolution.forward(&x).instance_norm(none, none, none, none, true, 0.1, 1e-5, true);
            // The binding has a leaky rectifier of slope 0.01 alone.
            normed.prelu(&Tensor::full([1], 0.2, (Kind::Float, x.device())))
        };
        self.convolutions.iter().fold(x.shallow_clone(), apply).dropout(self.dropout, mode.is_training())
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        self.convolutions.iter().flat_map(|convolution| convolution.tensors(PARAMETERS)).collect()
    }
}
