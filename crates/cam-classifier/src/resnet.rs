//! A ResNet with one input channel and one logit (He et al., 2016; torchvision's v1.5 layout: the stride sits in the
//! bottleneck's 3×3 convolution), and its class activation map.

use crate::groups::{PARAMETERS, STATISTICS};
use crate::norm::RunningStatistics;
use serde::{Deserialize, Serialize};
use stage_api::{Group, Mode, NamedTensor, Precision, Presence, PresenceClassifier, SharedBatch};
use std::rc::Rc;
use tch::{Device, Kind, Tensor, no_grad};

/// The residual block that the stages repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// 1×1, 3×3, 1×1 convolutions; the output is four times as wide as the stage's width.
    Bottleneck,
    /// Two 3×3 convolutions.
    Basic,
}

/// The classifier's layout. The paper says "ResNet-38" and no more: bottleneck blocks `[2, 3, 5, 2]` are a choice that
/// gives 2 + 3·12 = 38 weighted layers and 17,573,569 parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "snake_case")]
pub struct ResNetSettings {
    /// Kind of the residual blocks.
    pub block: BlockKind,
    /// Blocks in each of the four stages; each stage but the first halves the resolution.
    pub blocks: [usize; 4],
    /// Width of the first stage in channels; each stage doubles it.
    pub width: i64,
    /// Slices are resized by this factor first (area average); 1 keeps them. 0.5 turns 256² into 128².
    pub input_scale: f64,
    /// Stride of the last stage, 2 as usual or 1 for an activation map of twice the resolution.
    pub last_stride: i64,
    /// In which numbers the convolutions compute.
    pub precision: Precision,
}

impl Default for ResNetSettings {
    fn default() -> Self {
        Self {
            block: BlockKind::Bottleneck,
            blocks: [2, 3, 5, 2],
            width: 64,
            input_scale: 1.0,
            last_stride: 2,
            precision: Precision::F32,
        }
    }
}

/// A layout that can't be built.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("`classifier.settings.{key}` is {found}, expected {expected}")]
pub struct SettingsError {
    /// The configuration key.
    pub key: &'static str,
    /// What it says.
    pub found: String,
    /// What it may say.
    pub expected: &'static str,
}

impl ResNetSettings {
    fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key, found: String, expected| Err(SettingsError { key, found, expected });
        if self.blocks.contains(&0) {
            return refuse("blocks", format!("{:?}", self.blocks), "at least one block in each stage");
        }
        if !(1..=1024).contains(&self.width) {
            return refuse("width", self.width.to_string(), "1 to 1024 channels");
        }
        if !(self.input_scale > 0.0 && self.input_scale <= 1.0) {
            return refuse("input_scale", self.input_scale.to_string(), "more than 0, at most 1");
        }
        if !(1..=2).contains(&self.last_stride) {
            return refuse("last_stride", self.last_stride.to_string(), "1 or 2");
        }
        Ok(())
    }
}

/// The classifier: a ResNet, global average pooling and one linear layer.
#[derive(Debug)]
pub struct ResNetClassifier {
    stem: ConvNorm,
    blocks: Vec<Block>,
    /// `[1, C]`
    weight: Tensor,
    /// `[1]`
    bias: Tensor,
    input_scale: f64,
    precision: Kind,
}

impl ResNetClassifier {
    /// A new classifier with Kaiming-normal convolutions (fan out), decided by `seed`.
    pub fn new(settings: &ResNetSettings, seed: u64, device: Device) -> Result<Self, SettingsError> {
        settings.check()?;
        tch::manual_seed(seed as i64);
        let expansion = match settings.block {
            BlockKind::Bottleneck => 4,
            BlockKind::Basic => 1,
        };
        let stem = ConvNorm::new("conv1", "bn1", 1, settings.width, 7, 2, device);
        let mut blocks = Vec::new();
        let mut channels = settings.width;
        for (stage, &count) in settings.blocks.iter().enumerate() {
            let width = settings.width << stage;
            for index in 0..count {
                let stride = match (stage, index) {
                    (0, _) | (_, 1..) => 1,
                    (3, 0) => settings.last_stride,
                    _ => 2,
                };
                let name = format!("layer{}.{index}", stage + 1);
                blocks.push(Block::new(&name, settings.block, channels, width, width * expansion, stride, device));
                channels = width * expansion;
            }
        }
        let bound = 1.0 / (channels as f64).sqrt();
        let uniform = |shape: &[i64]| {
            (Tensor::rand(shape, (Kind::Float, device)) * (2.0 * bound) - bound).set_requires_grad(true)
        };
        Ok(Self {
            stem,
            blocks,
            weight: uniform(&[1, channels]),
            bias: uniform(&[1]),
            input_scale: settings.input_scale,
            precision: settings.precision.kind(),
        })
    }

    /// The last feature map `[B, C, h, w]`.
    fn feature_map(&self, slices: &Tensor, mode: Mode) -> Tensor {
        let resized = if self.input_scale == 1.0 {
            slices.shallow_clone()
        } else {
            let size = slices.size();
            let scaled = |n: i64| ((n as f64 * self.input_scale).round() as i64).max(32);
            slices.adaptive_avg_pool2d([scaled(size[2]), scaled(size[3])])
        };
        let x = self.stem.forward(&resized.to_kind(self.precision), mode).relu().max_pool2d(
            [3, 3],
            [2, 2],
            [1, 1],
            [1, 1],
            false,
        );
        self.blocks.iter().fold(x, |x, block| block.forward(&x, mode)).to_kind(Kind::Float)
    }

    fn logit(&self, map: &Tensor) -> Tensor {
        map.mean_dim([2i64, 3].as_slice(), false, Kind::Float).linear(&self.weight, Some(&self.bias)).squeeze_dim(1)
    }

    /// Grad-CAM (Selvaraju et al., 2017) by autograd: `ReLU(Σ_k α_k A_k)` with `α_k` the mean gradient of the logit over
    /// the last feature map. `[B, 1, h, w]`. For this network it is the map of [`PresenceClassifier::forward`] divided by
    /// `h·w`; it exists to prove that, and for networks without the closed form.
    pub fn grad_cam(&self, slices: &Tensor) -> Tensor {
        let map = no_grad(|| self.feature_map(slices, Mode::Eval)).detach().set_requires_grad(true);
        let logit = self.logit(&map).sum(Kind::Float);
        let gradient = &Tensor::run_backward(&[logit], &[&map], false, false)[0];
        let alpha = gradient.mean_dim([2i64, 3].as_slice(), true, Kind::Float);
        (alpha * map.detach()).sum_dim_intlist([1i64].as_slice(), true, Kind::Float).relu()
    }
}

impl PresenceClassifier for ResNetClassifier {
    fn forward(&self, slices: &Tensor, mode: Mode) -> Presence {
        let run = || {
            let map = self.feature_map(slices, mode);
            let logit = self.logit(&map);
            // Closed form of Grad-CAM for pooling + linear, up to a positive factor (Zhou et al., 2016).
            let cam = no_grad(|| {
                map.detach()
                    .conv2d(&self.weight.detach().unsqueeze(-1).unsqueeze(-1), None::<Tensor>, 1, 0, 1, 1)
                    .relu()
            });
            Presence { logit, cam, map: None }
        };
        if mode.is_training() { run() } else { no_grad(run) }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        let mut all = Vec::new();
        self.stem.list("", &mut all);
        for block in &self.blocks {
            block.list(&mut all);
        }
        all.push(named("fc.weight", PARAMETERS, &self.weight));
        all.push(named("fc.bias", PARAMETERS, &self.bias));
        all
    }

    fn share_batches(&mut self, with: &Rc<SharedBatch>) -> bool {
        let blocks = self.blocks.iter_mut().flat_map(|block| block.body.iter_mut().chain(&mut block.shortcut));
        std::iter::once(&mut self.stem).chain(blocks).for_each(|part| part.running.share(with));
        true
    }
}

fn named(name: impl Into<String>, group: Group, tensor: &Tensor) -> NamedTensor {
    NamedTensor { name: name.into(), group, tensor: tensor.shallow_clone() }
}

/// A residual block; its parts carry torchvision's names.
#[derive(Debug)]
struct Block {
    name: String,
    body: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
}

impl Block {
    fn new(name: &str, kind: BlockKind, input: i64, width: i64, output: i64, stride: i64, device: Device) -> Self {
        let part = |n: usize, i, o, kernel, stride| {
            ConvNorm::new(&format!("conv{n}"), &format!("bn{n}"), i, o, kernel, stride, device)
        };
        let body = match kind {
            BlockKind::Bottleneck => {
                vec![part(1, input, width, 1, 1), part(2, width, width, 3, stride), part(3, width, output, 1, 1)]
            }
            BlockKind::Basic => vec![part(1, input, width, 3, stride), part(2, width, output, 3, 1)],
        };
        let shortcut = (stride != 1 || input != output)
            .then(|| ConvNorm::new("downsample.0", "downsample.1", input, output, 1, stride, device));
        Self { name: format!("{name}."), body, shortcut }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let x = &self.body[0].running.before_fork(x, mode);
        let mut y = self.body[0].forward(x, mode);
        for part in &self.body[1..] {
            y = part.forward(&y.relu_(), mode);
        }
        match &self.shortcut {
            Some(shortcut) => y + shortcut.forward(x, mode),
            None => y + x,
        }
        .relu_()
    }

    fn list(&self, all: &mut Vec<NamedTensor>) {
        for part in self.body.iter().chain(&self.shortcut) {
            part.list(&self.name, all);
        }
    }
}

/// A convolution without bias, and its batch normalisation.
#[derive(Debug)]
struct ConvNorm {
    names: [String; 2],
    kernel: Tensor,
    stride: i64,
    scale: Tensor,
    shift: Tensor,
    running: RunningStatistics,
}

impl ConvNorm {
    fn new(conv: &str, norm: &str, input: i64, output: i64, size: i64, stride: i64, device: Device) -> Self {
        let options = (Kind::Float, device);
        let deviation = (2.0 / (output * size * size) as f64).sqrt();
        Self {
            names: [conv.into(), norm.into()],
            kernel: (Tensor::randn([output, input, size, size], options) * deviation).set_requires_grad(true),
            stride,
            scale: Tensor::ones([output], options).set_requires_grad(true),
            shift: Tensor::zeros([output], options).set_requires_grad(true),
            running: RunningStatistics::new(output, device),
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let padding = self.kernel.size()[2] / 2;
        let y = x.conv2d(&self.kernel.to_kind(x.kind()), None::<Tensor>, self.stride, padding, 1, 1);
        self.running.normalize(&y, Some([&self.scale, &self.shift]), mode)
    }

    fn list(&self, prefix: &str, all: &mut Vec<NamedTensor>) {
        let [conv, norm] = &self.names;
        all.push(named(format!("{prefix}{conv}.weight"), PARAMETERS, &self.kernel));
        all.push(named(format!("{prefix}{norm}.weight"), PARAMETERS, &self.scale));
        all.push(named(format!("{prefix}{norm}.bias"), PARAMETERS, &self.shift));
        all.push(named(format!("{prefix}{norm}.running_mean"), STATISTICS, &self.running.mean));
        all.push(named(format!("{prefix}{norm}.running_var"), STATISTICS, &self.running.variance));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, Mutex};

    fn small() -> ResNetSettings {
        ResNetSettings { blocks: [1, 1, 1, 1], width: 8, ..ResNetSettings::default() }
    }

    #[test]
    fn default_layout_has_the_stated_parameter_count() {
        let net = ResNetClassifier::new(&ResNetSettings::default(), 0, Device::Cpu).unwrap();
        let count: usize = net.tensors().iter().filter(|t| t.group == PARAMETERS).map(|t| t.tensor.numel()).sum();
        assert_eq!(count, 17_573_569);
        let mut names: Vec<_> = net.tensors().into_iter().map(|t| t.name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "names are unique");
    }

    #[test]
    fn autograd_cam_equals_the_closed_form() {
        for block in [BlockKind::Bottleneck, BlockKind::Basic] {
            let net = ResNetClassifier::new(&ResNetSettings { block, ..small() }, 3, Device::Cpu).unwrap();
            // Positive weights, so that the random network's map isn't cut to nothing by the ReLU.
            let _ = no_grad(|| net.weight.shallow_clone().abs_());
            let slices = Tensor::rand([2, 1, 96, 64], (Kind::Float, Device::Cpu));
            let closed = net.forward(&slices, Mode::Eval).cam;
            let by_gradient = net.grad_cam(&slices) * (closed.size()[2] * closed.size()[3]) as f64;
            assert_eq!(closed.size(), [2, 1, 3, 2]);
            let difference = (&closed - by_gradient).abs().max().double_value(&[]);
            assert!(closed.max().double_value(&[]) > 0.0 && difference < 1e-5, "{difference}");
        }
    }

    /// What a network of that seed gives of a batch in three passes: the logits of the first, all gradients of their sum, all
    /// statistics. `share`: the rest of the batch is elsewhere.
    fn passes(slices: &Tensor, share: Option<&Rc<SharedBatch>>, seeding: &Mutex<()>) -> Vec<Tensor> {
        let settings = ResNetSettings { blocks: [2, 1, 1, 1], ..small() };
        let mut net = {
            let _held = seeding.lock().unwrap();
            ResNetClassifier::new(&settings, 3, Device::Cpu).unwrap()
        };
        assert!(share.is_none_or(|share| net.share_batches(share)));
        let logit = net.forward(slices, Mode::Train).logit;
        let others = [Mode::Train, Mode::TrainUntracked].map(|mode| net.forward(&slices.square(), mode).logit);
        let loss =
            others.iter().map(|logit| logit.square().sum(Kind::Float)).fold(logit.sum(Kind::Float), |a, b| a + b);
        loss.backward();
        share.map_or(Ok(()), |share| share.backward()).unwrap();
        let tensors = net.tensors();
        let found =
            tensors.iter().map(|t| if t.group == STATISTICS { t.tensor.copy() } else { t.tensor.grad().copy() });
        std::iter::once(logit.detach()).chain(found).collect()
    }

    #[test]
    fn shares_of_a_batch_have_the_statistics_and_gradients_of_the_whole() {
        tch::manual_seed(1);
        let slices = Tensor::rand([5, 1, 64, 64], (Kind::Float, Device::Cpu));
        let whole = passes(&slices, None, &Mutex::new(()));
        // Three threads stand for three processes, the last without a slice.
        let (seeding, barrier, meeting) =
            (Mutex::new(()), Arc::new(Barrier::new(3)), Arc::new(Mutex::new(None::<Tensor>)));
        let shares: Vec<Vec<Tensor>> = std::thread::scope(|scope| {
            let process = |(start, count)| {
                let (barrier, meeting, seeding) = (barrier.clone(), meeting.clone(), &seeding);
                let slices = slices.narrow(0, start, count);
                scope.spawn(move || {
                    let sum = move |tensor: &Tensor| {
                        let mut all = meeting.lock().unwrap();
                        *all = Some(all.take().map_or_else(|| tensor.copy(), |all| all + tensor));
                        drop(all);
                        barrier.wait();
                        tensor.shallow_clone().copy_(meeting.lock().unwrap().as_ref().unwrap());
                        if barrier.wait().is_leader() {
                            *meeting.lock().unwrap() = None;
                        }
                        barrier.wait();
                    };
                    passes(&slices, Some(&Rc::new(SharedBatch::new(Box::new(sum)))), seeding)
                })
            };
            let running: Vec<_> = [(0, 3), (3, 2), (5, 0)].into_iter().map(process).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let close = |found: &Tensor, expected: &Tensor, what: &str| {
            let scale = expected.abs().max().double_value(&[]).max(1.0);
            let difference = (found - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-5 * scale, "{what}: {difference} of {scale}");
        };
        close(&Tensor::cat(&[&shares[0][0], &shares[1][0], &shares[2][0]], 0), &whole[0], "logits");
        let tensors = ResNetClassifier::new(&ResNetSettings { blocks: [2, 1, 1, 1], ..small() }, 3, Device::Cpu)
            .unwrap()
            .tensors();
        for (i, t) in tensors.iter().enumerate().map(|(i, t)| (i + 1, t)) {
            if t.group == STATISTICS {
                for share in &shares {
                    close(&share[i], &whole[i], &t.name);
                }
            } else {
                close(&(&shares[0][i] + &shares[1][i] + &shares[2][i]), &whole[i], &t.name);
            }
        }
    }

    #[test]
    fn eval_mode_leaves_the_running_statistics_and_train_mode_moves_them() {
        let net = ResNetClassifier::new(&small(), 0, Device::Cpu).unwrap();
        let slices = Tensor::rand([4, 1, 64, 64], (Kind::Float, Device::Cpu));
        let sum = || {
            net.tensors()
                .iter()
                .filter(|t| t.group == STATISTICS)
                .map(|t| t.tensor.sum(Kind::Double).double_value(&[]))
                .sum::<f64>()
        };
        let before = sum();
        net.forward(&slices, Mode::Eval);
        assert_eq!(before, sum());
        net.forward(&slices, Mode::Train);
        assert_ne!(before, sum());
    }

    #[test]
    fn crops_and_other_input_that_inference_never_sees_leave_every_running_statistic() {
        let net = ResNetClassifier::new(&small(), 0, Device::Cpu).unwrap();
        let buffers = || {
            let all = net.tensors().into_iter().filter(|t| t.group == STATISTICS);
            all.map(|t| (t.name, t.tensor.copy())).collect::<Vec<(String, Tensor)>>()
        };
        let before = buffers();
        let crops = Tensor::rand([4, 1, 32, 32], (Kind::Float, Device::Cpu)) * 9.0;
        net.forward(&crops, Mode::TrainUntracked).logit.sum(Kind::Float).backward();
        assert!(before == buffers() && before.len() > 10);
        let reached = |t: &NamedTensor| t.tensor.grad().defined();
        assert!(net.tensors().iter().filter(|t| t.group == PARAMETERS).all(reached));
    }

    #[test]
    fn one_slice_whose_last_map_is_one_place_leaves_finite_statistics_and_a_finite_logit() {
        let net = ResNetClassifier::new(&small(), 0, Device::Cpu).unwrap();
        let slice = Tensor::rand([1, 1, 32, 32], (Kind::Float, Device::Cpu));
        let trained = net.forward(&slice, Mode::Train);
        assert_eq!(trained.cam.size(), [1, 1, 1, 1]);
        trained.logit.sum(Kind::Float).backward();
        for t in net.tensors() {
            assert!(bool::try_from(t.tensor.isfinite().all()).unwrap(), "{}", t.name);
            assert!(t.group == STATISTICS || bool::try_from(t.tensor.grad().isfinite().all()).unwrap(), "{}", t.name);
        }
        assert!(net.forward(&slice, Mode::Eval).logit.double_value(&[0]).is_finite());
    }

    #[test]
    fn last_stride_of_one_doubles_the_map_and_input_scale_halves_it() {
        let slices = Tensor::rand([1, 1, 256, 256], (Kind::Float, Device::Cpu));
        let side = |settings: ResNetSettings| {
            ResNetClassifier::new(&settings, 0, Device::Cpu).unwrap().forward(&slices, Mode::Eval).cam.size()[3]
        };
        assert_eq!(side(small()), 8);
        assert_eq!(side(ResNetSettings { last_stride: 1, ..small() }), 16);
        assert_eq!(side(ResNetSettings { input_scale: 0.5, ..small() }), 4);
    }

    #[test]
    fn an_impossible_layout_is_refused_by_its_key() {
        let error =
            ResNetClassifier::new(&ResNetSettings { blocks: [2, 0, 1, 1], ..small() }, 0, Device::Cpu).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`classifier.settings.blocks` is [2, 0, 1, 1], expected at least one block in each stage"
        );
    }
}
