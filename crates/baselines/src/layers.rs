//! The layers that these networks are made of, and how their weights begin.

use stage_api::{Group, NamedTensor};
use tch::{Device, Kind, Tensor};

/// A convolution, or its transpose; weights under `NAME.weight` and `NAME.bias`.
#[derive(Debug)]
pub(crate) struct Convolution {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
    strides: [i64; 2],
    paddings: [i64; 2],
    transposed: bool,
}

/// Height and width of a kernel and how it is moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    pub(crate) side: i64,
    pub(crate) stride: i64,
    pub(crate) padding: i64,
}

impl Kernel {
    /// Of odd side, that keeps the size.
    pub(crate) fn same(side: i64) -> Self {
        Self { side, stride: 1, padding: side / 2 }
    }
}

/// A [`Kernel`] whose rows and columns differ, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rectangle {
    pub(crate) sides: [i64; 2],
    pub(crate) strides: [i64; 2],
    pub(crate) paddings: [i64; 2],
}

impl From<Kernel> for Rectangle {
    fn from(kernel: Kernel) -> Self {
        let Kernel { side, stride, padding } = kernel;
        Self { sides: [side; 2], strides: [stride; 2], paddings: [padding; 2] }
    }
}

impl Convolution {
    /// Weights `[output, input, side, side]` of N(0, `deviation`²), biases of 0.
    pub(crate) fn new(
        name: &str,
        [input, output]: [i64; 2],
        kernel: impl Into<Rectangle>,
        deviation: f64,
        device: Device,
    ) -> Self {
        Self::of(name, [output, input], output, kernel.into(), deviation, device)
    }

    /// The transpose: weights `[input, output, side, side]`.
    pub(crate) fn transposed(
        name: &str,
        [input, output]: [i64; 2],
        kernel: impl Into<Rectangle>,
        deviation: f64,
        device: Device,
    ) -> Self {
        Self { transposed: true, ..Self::of(name, [input, output], output, kernel.into(), deviation, device) }
    }

    fn of(name: &str, shape: [i64; 2], output: i64, kernel: Rectangle, deviation: f64, device: Device) -> Self {
        let options = (Kind::Float, device);
        let weight = Tensor::randn([shape[0], shape[1], kernel.sides[0], kernel.sides[1]], options) * deviation;
        Self {
            name: name.into(),
            weight: weight.set_requires_grad(true),
            bias: Some(Tensor::zeros([output], options).set_requires_grad(true)),
            strides: kernel.strides,
            paddings: kernel.paddings,
            transposed: false,
        }
    }

    /// Without a bias.
    #[must_use]
    pub(crate) fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// Weights and biases drawn anew from U(±1/√n), n being the values that an output is made of: PyTorch's start.
    #[must_use]
    pub(crate) fn drawn_uniformly(self) -> Self {
        let [_, inputs, rows, columns] = self.weight.size()[..] else { unreachable!("a kernel has four axes") };
        let bound = 1.0 / ((inputs * rows * columns) as f64).sqrt();
        for tensor in std::iter::once(&self.weight).chain(&self.bias) {
            let _ = tch::no_grad(|| tensor.shallow_clone().uniform_(-bound, bound));
        }
        self
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let bias = self.bias.as_ref();
        if self.transposed {
            return x.conv_transpose2d(&self.weight, bias, self.strides, self.paddings, [0, 0], 1, [1, 1]);
        }
        x.conv2d(&self.weight, bias, self.strides, self.paddings, [1, 1], 1)
    }

    /// Of a convolution with two outputs, the second less the first: what the softmax of both is decided by.
    pub(crate) fn difference(&self, x: &Tensor) -> Tensor {
        let difference = |t: &Tensor| t.narrow(0, 1, 1) - t.narrow(0, 0, 1);
        let bias = self.bias.as_ref().map(difference);
        x.conv2d(&difference(&self.weight), bias, self.strides, self.paddings, [1, 1], 1)
    }

    pub(crate) fn tensors(&self, group: Group) -> Vec<NamedTensor> {
        let named = |part: &str, tensor: &Tensor| NamedTensor {
            name: format!("{}.{part}", self.name),
            group,
            tensor: tensor.shallow_clone(),
        };
        let bias = self.bias.as_ref().map(|bias| named("bias", bias));
        std::iter::once(named("weight", &self.weight)).chain(bias).collect()
    }
}

/// Instance normalisation with a scale and shift for each channel, under `NAME.weight` and `NAME.bias`.
#[derive(Debug)]
pub(crate) struct ScaledInstanceNorm {
    name: String,
    scale: Tensor,
    shift: Tensor,
}

impl ScaledInstanceNorm {
    /// Scales of 1, shifts of 0.
    pub(crate) fn new(name: &str, channels: i64, device: Device) -> Self {
        let options = (Kind::Float, device);
        Self {
            name: name.into(),
            scale: Tensor::ones([channels], options).set_requires_grad(true),
            shift: Tensor::zeros([channels], options).set_requires_grad(true),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        normed(x, Some(&self.scale), Some(&self.shift))
    }

    pub(crate) fn tensors(&self, group: Group) -> Vec<NamedTensor> {
        [("weight", &self.scale), ("bias", &self.shift)]
            .map(|(part, tensor)| NamedTensor {
                name: format!("{}.{part}", self.name),
                group,
                tensor: tensor.shallow_clone(),
            })
            .into()
    }
}

/// Each slice's channels brought to mean 0 and variance 1 (ε = 1e-5).
pub(crate) fn instance_normed(x: &Tensor) -> Tensor {
    normed(x, None, None)
}

fn normed(x: &Tensor, scale: Option<&Tensor>, shift: Option<&Tensor>) -> Tensor {
    x.instance_norm(scale, shift, None, None, true, 0.1, 1e-5, true)
}

/// A rectifier with that slope below 0. It takes the place of `x`.
pub(crate) fn rectified(mut x: Tensor, slope: f64) -> Tensor {
    if slope == 0.0 {
        x.relu_()
    } else if slope == 0.01 {
        x.leaky_relu_()
    } else {
        // The binding has a leaky rectifier of slope 0.01 alone.
        x.prelu(&Tensor::full([1], slope, (Kind::Float, x.device())))
    }
}

/// The deviation that keeps the variance through a rectifier of that slope, by the number of values that a result is made of
/// (He et al., 2015).
pub(crate) fn he_deviation(inputs: i64, slope: f64) -> f64 {
    (2.0 / ((1.0 + slope * slope) * inputs as f64)).sqrt()
}

/// Slices `[B, C, H, W]` with zeros below and at the right, so that both sides are multiples.
pub(crate) fn padded_to_multiples(slices: &Tensor, [rows, columns]: [i64; 2]) -> Tensor {
    let (_, _, height, width) = slices.size4().expect("slices are [B, C, H, W]");
    let missing = |size: i64, multiple: i64| (multiple - size % multiple) % multiple;
    let [below, right] = [missing(height, rows), missing(width, columns)];
    if [below, right] == [0, 0] { slices.shallow_clone() } else { slices.constant_pad_nd([0, right, 0, below]) }
}

/// The upper left part of that height and width.
pub(crate) fn cropped(x: &Tensor, [height, width]: [i64; 2]) -> Tensor {
    x.narrow(2, 0, height).narrow(3, 0, width)
}
