//! A classifier on what SAM's own image encoder, as pretrained, makes of a slice: that encoder has seen millions of pictures and
//! tells organs apart on any scanner, where a network from scratch has seen a few patients.
//!
//! A few convolutions give a map of logits, "the target is at this place"; a slice has the target if its hottest places do.

use crate::groups::{PARAMETERS, STATISTICS};
use crate::norm::RunningStatistics;
use crate::resnet::SettingsError;
use serde::{Deserialize, Serialize};
use stage_api::{ClassifierInput, Mode, NamedTensor, Presence, PresenceClassifier, SharedBatch};
use std::rc::Rc;
use tch::{Device, Kind, Tensor, no_grad};

/// The classifier's layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingSettings {
    /// Channels of the encoder's embedding; 256 for every SAM.
    pub input_channels: i64,
    /// Places of the embedding along each axis that become one place of the map (area average). 2: a map of 32 × 32. Where
    /// it doesn't divide the embedding's side, the map has as many places as are nearest to it, and all of them together are
    /// the whole slice.
    pub pool: i64,
    /// Channels of the hidden layers.
    pub channels: i64,
    /// Residual 3 × 3 convolutions.
    pub blocks: usize,
    /// Share of the embedding's channels that a training step leaves out.
    pub dropout: f64,
    /// Places whose mean logit is that of the whole slice: the hottest ones.
    pub hottest: i64,
}

impl Default for EmbeddingSettings {
    fn default() -> Self {
        Self { input_channels: 256, pool: 2, channels: 128, blocks: 3, dropout: 0.0, hottest: 8 }
    }
}

impl EmbeddingSettings {
    fn check(&self) -> Result<(), SettingsError> {
        let within = |key, value: i64, range: std::ops::RangeInclusive<i64>, expected| {
            let refuse = || SettingsError { key, found: value.to_string(), expected };
            range.contains(&value).then_some(()).ok_or_else(refuse)
        };
        within("input_channels", self.input_channels, 1..=4096, "1 to 4096")?;
        within("pool", self.pool, 1..=8, "1 to 8")?;
        within("channels", self.channels, 1..=1024, "1 to 1024")?;
        within("blocks", self.blocks as i64, 0..=16, "0 to 16")?;
        within("hottest", self.hottest, 1..=4096, "1 to 4096 places")?;
        if !(0.0..1.0).contains(&self.dropout) {
            let found = self.dropout.to_string();
            return Err(SettingsError { key: "dropout", found, expected: "0 or more, less than 1" });
        }
        Ok(())
    }
}

/// The classifier: normalised embedding, 1 × 1 convolution, residual 3 × 3 convolutions, 1 × 1 convolution to one logit.
#[derive(Debug)]
pub struct EmbeddingClassifier {
    settings: EmbeddingSettings,
    /// Of each channel of the embedding, without scale and shift of its own.
    running: RunningStatistics,
    first: Convolution,
    blocks: Vec<Convolution>,
    last: Convolution,
}

#[derive(Debug)]
struct Convolution {
    name: String,
    weight: Tensor,
    bias: Tensor,
}

impl Convolution {
    /// Kaiming uniform, as `torch.nn.Conv2d` begins.
    fn new(name: &str, [input, output]: [i64; 2], size: i64, device: Device) -> Self {
        let options = (Kind::Float, device);
        let bound = 1.0 / ((input * size * size) as f64).sqrt();
        let uniform = |shape: &[i64]| (Tensor::rand(shape, options) * (2.0 * bound) - bound).set_requires_grad(true);
        Self { name: name.into(), weight: uniform(&[output, input, size, size]), bias: uniform(&[output]) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), 1, self.weight.size()[2] / 2, 1, 1)
    }
}

impl EmbeddingClassifier {
    /// A new classifier, decided by `seed`.
    pub fn new(settings: &EmbeddingSettings, seed: u64, device: Device) -> Result<Self, SettingsError> {
        settings.check()?;
        tch::manual_seed(seed as i64);
        let width = settings.channels;
        Ok(Self {
            running: RunningStatistics::new(settings.input_channels, device),
            first: Convolution::new("first", [settings.input_channels, width], 1, device),
            blocks: (0..settings.blocks)
                .map(|i| Convolution::new(&format!("blocks.{i}"), [width, width], 3, device))
                .collect(),
            last: Convolution::new("last", [width, 1], 1, device),
            settings: settings.clone(),
        })
    }

    /// `[B, C, g, g]` to `[B, C, h, w]`, which covers the same part of the slice.
    fn pooled(&self, embedding: &Tensor) -> Tensor {
        let pool = self.settings.pool;
        if pool == 1 {
            return embedding.shallow_clone();
        }
        let (_, _, height, width) = embedding.size4().expect("embeddings are [B, C, g, g]");
        let places = |side: i64| ((side as f64 / pool as f64).round() as i64).max(1);
        embedding.adaptive_avg_pool2d([places(height), places(width)])
    }

    /// `[B, 1, h, w]`, logits.
    fn map(&self, embedding: &Tensor, mode: Mode) -> Tensor {
        let normed = self.running.normalize(&self.pooled(embedding), None, mode);
        let x = self.first.forward(&normed.feature_dropout(self.settings.dropout, mode.is_training())).gelu("none");
        let x = self.blocks.iter().fold(x, |x, block| &x + block.forward(&x).gelu("none"));
        self.last.forward(&x)
    }

    /// `[B]`, the mean of the hottest places of a map.
    fn logit(&self, map: &Tensor) -> Tensor {
        let places = map.flatten(1, -1);
        let count = self.settings.hottest.min(places.size()[1]);
        places.topk(count, 1, true, false).0.mean_dim([1i64].as_slice(), false, Kind::Float)
    }
}

impl PresenceClassifier for EmbeddingClassifier {
    fn input(&self) -> ClassifierInput {
        ClassifierInput::Embedding
    }

    fn embedding_channels(&self) -> Option<i64> {
        Some(self.settings.input_channels)
    }

    /// The only running statistics are those of the embedding itself.
    fn track(&self, embedding: &Tensor) {
        no_grad(|| drop(self.running.normalize(&self.pooled(embedding), None, Mode::Train)));
    }

    /// `cam` is the sigmoid of `map`: a probability at each place.
    fn forward(&self, embedding: &Tensor, mode: Mode) -> Presence {
        let run = || {
            let map = self.map(embedding, mode);
            Presence { logit: self.logit(&map), cam: map.detach().sigmoid(), map: Some(map) }
        };
        if mode.is_training() { run() } else { no_grad(run) }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let named = |name: String, group, tensor: &Tensor| NamedTensor { name, group, tensor: tensor.shallow_clone() };
        let mut all = vec![
            named("norm.running_mean".into(), STATISTICS, &self.running.mean),
            named("norm.running_var".into(), STATISTICS, &self.running.variance),
        ];
        for layer in std::iter::once(&self.first).chain(&self.blocks).chain([&self.last]) {
            all.push(named(format!("{}.weight", layer.name), PARAMETERS, &layer.weight));
            all.push(named(format!("{}.bias", layer.name), PARAMETERS, &layer.bias));
        }
        all
    }

    fn share_batches(&mut self, with: &Rc<SharedBatch>) -> bool {
        self.running.share(with);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(batch: i64, side: i64) -> Tensor {
        tch::manual_seed(1);
        Tensor::randn([batch, 256, side, side], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn a_slice_and_a_part_of_it_have_maps_of_one_scale() {
        let net = EmbeddingClassifier::new(&EmbeddingSettings::default(), 0, Device::Cpu).unwrap();
        for (side, expected) in [(64, 32), (32, 16)] {
            let found = net.forward(&embedding(2, side), Mode::Eval);
            assert_eq!(found.cam.size(), [2, 1, expected, expected]);
            assert_eq!(found.logit.size(), [2]);
        }
    }

    #[test]
    fn a_map_lies_where_the_slice_does_whatever_is_pooled() {
        // Each place of the embedding says where it is, from 0 to 1 across the slice.
        let side = 64;
        let at = (Tensor::arange(side, (Kind::Float, Device::Cpu)) + 0.5) / side as f64;
        for pool in 1..=8 {
            let settings = EmbeddingSettings { pool, ..EmbeddingSettings::default() };
            let net = EmbeddingClassifier::new(&settings, 0, Device::Cpu).unwrap();
            let [rows, columns] = [at.view([1, 1, side, 1]), at.view([1, 1, 1, side])]
                .map(|x| net.pooled(&x.expand([1, 1, side, side], false)));
            let places = rows.size()[2];
            assert_eq!(places, (side as f64 / pool as f64).round() as i64);
            for i in 0..places {
                let middle = (i as f64 + 0.5) / places as f64;
                let (row, column) = (rows.double_value(&[0, 0, i, 0]), columns.double_value(&[0, 0, 0, i]));
                // Not more than a place of the embedding apart, where places can't be shared evenly.
                assert!(
                    (row - middle).abs() < 1.0 / side as f64 && (column - row).abs() < 1e-6,
                    "{pool}: {row} {middle}"
                );
            }
        }
    }

    #[test]
    fn whole_slices_alone_make_the_running_statistics() {
        let net = EmbeddingClassifier::new(&EmbeddingSettings::default(), 0, Device::Cpu).unwrap();
        let buffers = |net: &EmbeddingClassifier| [net.running.mean.copy(), net.running.variance.copy()];
        let (whole, before) = (embedding(3, 16) * 2.0 + 1.0, buffers(&net));
        net.forward(&whole.narrow(2, 0, 8).narrow(3, 0, 8), Mode::TrainUntracked);
        assert_eq!(before, buffers(&net));
        // The mean of each channel, and its unbiased variance, of places of 2 × 2.
        net.track(&whole);
        let pooled = whole.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None).transpose(0, 1).flatten(1, -1);
        let expected = [
            pooled.mean_dim([1i64].as_slice(), false, Kind::Float) * 0.1,
            pooled.var_dim([1i64].as_slice(), true, false) * 0.1 + 0.9,
        ];
        for (found, expected) in buffers(&net).iter().zip(&expected) {
            assert!((found - expected).abs().max().double_value(&[]) < 1e-5);
        }
        // As a whole training pass does.
        let other = EmbeddingClassifier::new(&EmbeddingSettings::default(), 0, Device::Cpu).unwrap();
        other.forward(&whole, Mode::Train);
        assert_eq!(buffers(&net), buffers(&other));
    }

    #[test]
    fn presence_is_the_mean_of_the_hottest_places() {
        let settings = EmbeddingSettings { hottest: 3, ..EmbeddingSettings::default() };
        let net = EmbeddingClassifier::new(&settings, 0, Device::Cpu).unwrap();
        let map = Tensor::from_slice(&[1.0f32, 5.0, -2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]).reshape([1, 1, 3, 3]);
        assert!((net.logit(&map).double_value(&[0]) - 4.0).abs() < 1e-6);
    }

    #[test]
    fn masks_reach_every_parameter_by_the_map() {
        let net = EmbeddingClassifier::new(&EmbeddingSettings::default(), 0, Device::Cpu).unwrap();
        net.forward(&embedding(2, 16), Mode::Train).map.unwrap().sum(Kind::Float).backward();
        for t in net.tensors().iter().filter(|t| t.group == PARAMETERS) {
            assert!(t.tensor.grad().abs().max().double_value(&[]) > 0.0, "{}", t.name);
        }
    }

    #[test]
    fn an_impossible_layout_is_refused_by_its_key() {
        let settings = EmbeddingSettings { dropout: 1.0, ..EmbeddingSettings::default() };
        assert_eq!(EmbeddingClassifier::new(&settings, 0, Device::Cpu).unwrap_err().key, "dropout");
    }
}
