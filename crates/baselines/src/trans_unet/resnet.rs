//! TransUNet's ResNet: bottleneck units of weight-standardised convolutions (Qiao et al., 2019) and group normalisation.

use stage_api::NamedTensor;
use tch::{Device, Kind, Tensor};

use super::norm::GroupNorm;
use super::{PARAMETERS, TransUnetSettings};

const NAME: &str = "transformer.embeddings.hybrid_model";

/// Three stages behind a 7×7 convolution; each is twice as wide as the one before, and but the first halves the size.
#[derive(Debug)]
pub(super) struct ResNet {
    root: StandardizedConvolution,
    root_norm: GroupNorm,
    stages: Vec<Vec<Unit>>,
}

impl ResNet {
    pub(super) fn new(settings: &TransUnetSettings, device: Device) -> Self {
        let width = settings.resnet_width;
        let root = StandardizedConvolution::new(&format!("{NAME}.root.conv"), [3, width], 7, 2, device);
        let stage = |(index, &units): (usize, &i64)| {
            let middle = width << index;
            let unit = |number: i64| {
                let name = format!("{NAME}.body.block{}.unit{number}", index + 1);
                let (input, stride) = match (index, number) {
                    (0, 1) => (width, 1),
                    (_, 1) => (2 * middle, 2),
                    _ => (4 * middle, 1),
                };
                Unit::new(&name, input, middle, stride, device)
            };
            (1..=units).map(unit).collect()
        };
        Self {
            root,
            root_norm: GroupNorm::new(&format!("{NAME}.root.gn"), width, device),
            stages: settings.resnet_units.iter().enumerate().map(stage).collect(),
        }
    }

    /// Slices `[B, 1, S, S]` to features `[B, 16w, S/16, S/16]`, and to those that the decoder takes beside them, from small
    /// to large: `[B, 8w, S/8, S/8]`, `[B, 4w, S/4, S/4]`, `[B, w, S/2, S/2]`.
    pub(super) fn forward(&self, slices: &Tensor) -> (Tensor, [Tensor; 3]) {
        let half = self.root_norm.forward(&self.root.forward_grey(slices)).relu_();
        let pooled = half.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false);
        let run = |x: Tensor, stage: &[Unit]| stage.iter().fold(x, |x, unit| unit.forward(&x));
        let quarter = run(pooled, &self.stages[0]);
        let eighth = run(quarter.shallow_clone(), &self.stages[1]);
        let sixteenth = run(eighth.shallow_clone(), &self.stages[2]);
        // Pooling without padding leaves one row and one column less than a quarter: the decoder gets zeros there.
        (sixteenth, [eighth, quarter.constant_pad_nd([0, 1, 0, 1]), half])
    }

    pub(super) fn tensors(&self) -> Vec<NamedTensor> {
        let mut all = self.root.tensors();
        all.extend(self.root_norm.tensors());
        all.extend(self.stages.iter().flatten().flat_map(Unit::tensors));
        all
    }
}

/// 1×1, 3×3 and 1×1 convolutions beside a shortcut.
#[derive(Debug)]
struct Unit {
    body: [(StandardizedConvolution, GroupNorm); 3],
    shortcut: Option<(StandardizedConvolution, GroupNorm)>,
}

impl Unit {
    fn new(name: &str, input: i64, middle: i64, stride: i64, device: Device) -> Self {
        let output = 4 * middle;
        let part = |number: i64, input: i64, output: i64, side: i64, stride: i64| {
            let conv = format!("{name}.conv{number}");
            let conv = StandardizedConvolution::new(&conv, [input, output], side, stride, device);
            (conv, GroupNorm::new(&format!("{name}.gn{number}"), output, device))
        };
        let shortcut = (stride != 1 || input != output).then(|| {
            let conv = StandardizedConvolution::new(&format!("{name}.downsample"), [input, output], 1, stride, device);
            (conv, GroupNorm::of_each_channel(&format!("{name}.gn_proj"), output, device))
        });
        let body = [part(1, input, middle, 1, 1), part(2, middle, middle, 3, stride), part(3, middle, output, 1, 1)];
        Self { body, shortcut }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [first, second, third] = &self.body;
        let apply = |(conv, norm): &(StandardizedConvolution, GroupNorm), x: &Tensor| norm.forward(&conv.forward(x));
        let y = apply(third, &apply(second, &apply(first, x).relu_()).relu_());
        let mut sum = match &self.shortcut {
            Some(shortcut) => y + apply(shortcut, x),
            None => y + x,
        };
        sum.relu_()
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let parts = self.body.iter().chain(&self.shortcut);
        parts.flat_map(|(conv, norm)| conv.tensors().into_iter().chain(norm.tensors())).collect()
    }
}

/// A convolution without bias whose weights are brought to mean 0 and variance 1 in every output channel at each pass.
#[derive(Debug)]
struct StandardizedConvolution {
    name: String,
    /// `[output, input, side, side]`
    weight: Tensor,
    stride: i64,
}

impl StandardizedConvolution {
    /// Weights of U(±1/√n), n being the values that an output is made of.
    fn new(name: &str, [input, output]: [i64; 2], side: i64, stride: i64, device: Device) -> Self {
        let bound = 1.0 / ((input * side * side) as f64).sqrt();
        let weight = Tensor::empty([output, input, side, side], (Kind::Float, device)).uniform_(-bound, bound);
        Self { name: name.into(), weight: weight.set_requires_grad(true), stride }
    }

    fn standardized(&self) -> Tensor {
        // Each output channel as a channel of one sample: one kernel for mean, variance and their gradients.
        let flat = self.weight.view([1, self.weight.size()[0], -1]);
        let none = None::<&Tensor>;
        flat.batch_norm(none, none, none, none, true, 0.0, 1e-5, false).view_as(&self.weight)
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.convolved(x, &self.standardized())
    }

    /// What repeating the one channel of `x` as often as there are input channels would give.
    fn forward_grey(&self, x: &Tensor) -> Tensor {
        self.convolved(x, &self.standardized().sum_dim_intlist([1_i64].as_slice(), true, None))
    }

    fn convolved(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let padding = weight.size()[2] / 2;
        x.conv2d(weight, None::<&Tensor>, [self.stride; 2], [padding; 2], [1, 1], 1)
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let name = format!("{}.weight", self.name);
        vec![NamedTensor { name, group: PARAMETERS, tensor: self.weight.shallow_clone() }]
    }
}
