//! An experiment's own classifier: four strided convolutions instead of the ResNet.
//!
//! This is all that swapping a stage takes: a type that implements [`PresenceClassifier`], a factory, and a program that
//! adds it to the registry (`src/main.rs`). The configuration then says `classifier.kind = "tiny-convnet"`.

use anyhow::{Result, ensure};
use stage_api::{Group, Mode, NamedTensor, Presence, PresenceClassifier};
use tch::{Device, Kind, Tensor, no_grad};
use trainer::registry::Registry;

/// The registry of this workspace with the example in it.
pub fn registry() -> Registry {
    Registry::default().with_classifier("tiny-convnet", |settings, seed, device| {
        Ok(Box::new(TinyConvNet::new(settings, seed, device)?))
    })
}

/// Four 3×3 convolutions of stride 2, global average pooling and a linear layer.
pub struct TinyConvNet {
    kernels: Vec<Tensor>,
    biases: Vec<Tensor>,
    /// `[1, C]`
    weight: Tensor,
    /// `[1]`
    bias: Tensor,
}

impl TinyConvNet {
    /// `settings` may have `width`, the channels of the first layer (8).
    pub fn new(settings: &toml::Table, seed: u64, device: Device) -> Result<Self> {
        let width = settings.get("width").map_or(Some(8), toml::Value::as_integer);
        let unknown = settings.keys().find(|k| *k != "width");
        ensure!(
            unknown.is_none(),
            "classifier.settings: unknown key `{}`, did you mean `width`?",
            unknown.map_or("", |k| k)
        );
        let Some(width) = width.filter(|w| (1..=256).contains(w)) else {
            anyhow::bail!("classifier.settings.width is {}, expected 1 to 256", settings["width"])
        };
        tch::manual_seed(seed as i64);
        let options = (Kind::Float, device);
        let widths = [1, width, 2 * width, 4 * width, 8 * width];
        let kernel = |io: &[i64]| {
            let deviation = (2.0 / (9 * io[0]) as f64).sqrt();
            (Tensor::randn([io[1], io[0], 3, 3], options) * deviation).set_requires_grad(true)
        };
        Ok(Self {
            kernels: widths.windows(2).map(kernel).collect(),
            biases: widths[1..].iter().map(|&w| Tensor::zeros([w], options).set_requires_grad(true)).collect(),
            weight: (Tensor::randn([1, 8 * width], options) * 0.1).set_requires_grad(true),
            bias: Tensor::zeros([1], options).set_requires_grad(true),
        })
    }
}

impl PresenceClassifier for TinyConvNet {
    fn forward(&self, slices: &Tensor, mode: Mode) -> Presence {
        let run = || {
            let layers = self.kernels.iter().zip(&self.biases);
            let map = layers.fold(slices.shallow_clone(), |x, (k, b)| x.conv2d(k, Some(b), 2, 1, 1, 1).relu());
            let pooled = map.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
            let logit = pooled.linear(&self.weight, Some(&self.bias)).squeeze_dim(1);
            let cam = no_grad(|| {
                let weight = self.weight.detach().unsqueeze(-1).unsqueeze(-1);
                map.detach().conv2d(&weight, None::<Tensor>, 1, 0, 1, 1).relu()
            });
            Presence { logit, cam, map: None }
        };
        if mode.is_training() { run() } else { no_grad(run) }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let named = |name: String, tensor: &Tensor| NamedTensor {
            name,
            group: Group::trainable("classifier"),
            tensor: tensor.shallow_clone(),
        };
        let layers = self.kernels.iter().zip(&self.biases).enumerate();
        let layers =
            layers.flat_map(|(i, (k, b))| [named(format!("conv{i}.weight"), k), named(format!("conv{i}.bias"), b)]);
        layers.chain([named("fc.weight".into(), &self.weight), named("fc.bias".into(), &self.bias)]).collect()
    }
}
