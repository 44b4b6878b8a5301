//! The model seam: the traits and plain types that the classifier, the segmenter and the trainer exchange.
//!
//! Invariant: nothing here takes a ground-truth mask or label; the prediction path is built from these types alone.

mod shared_batch;

use serde::{Deserialize, Serialize};
use std::rc::Rc;
use tch::{Device, Kind, TchError, Tensor};

pub use shared_batch::{SharedBatch, SumOverProcesses};

/// Whether a forward pass belongs to a training step (dropout and batch statistics on) or to inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training on input like that of inference: gradients are wanted, dropout is on, batch normalisation takes the batch's
    /// statistics and updates its running ones.
    Train,
    /// Training on input that inference never sees (crops, strongly augmented copies): as [`Self::Train`], but the running
    /// statistics stay as they are, since inference on whole slices goes by them.
    TrainUntracked,
    /// Inference: running statistics, no dropout, no gradients.
    Eval,
}

impl Mode {
    /// Whether gradients are wanted.
    pub fn is_training(self) -> bool {
        self != Self::Eval
    }
}

/// In which numbers a stage computes. Parameters, their gradients, losses and what stages exchange are 32-bit floats in any
/// case: values are cast where they enter the stage's heavy part, and where they leave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16: the range of a 32-bit float with 8 significant bits. Twice as fast or more, at half the memory, on GPUs
    /// from NVIDIA's Ampere on; slower on most CPUs.
    Bf16,
}

impl Precision {
    /// The tensor element.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// Values of the host on a device, without waiting for their copy: on a GPU it may be under way still, and work that is asked
/// of the GPU from now on waits for it. `Tensor::to_device` would keep the host from asking until all that it asked for
/// before is done.
pub fn sent(host: &Tensor, device: Device) -> Tensor {
    if host.device() != Device::Cpu || !device.is_cuda() {
        return host.to_device(device);
    }
    // Only from page-locked memory is a copy not waited for. libtorch keeps such memory for the next call, and gives it out
    // again not before the copy is over. (The binding's `pin_memory` makes libtorch warn at each call.)
    host.internal_pin_memory(device).to_device_(device, host.kind(), true, false)
}

/// A parameter or statistic of a stage, under a name that is unique within the stage and stable between versions.
#[derive(Debug)]
pub struct NamedTensor {
    /// Dotted path, for example `layer3.0.conv1.weight`.
    pub name: String,
    /// The part of the stage that it belongs to, and what becomes of it in training.
    pub group: Group,
    /// The tensor itself, shared with the model: writing to it (under `no_grad`) changes the model.
    pub tensor: Tensor,
}

/// A part of a stage, by a name that the stage gives: configurations choose learning rates by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// For example `decoder`.
    pub name: &'static str,
    /// What becomes of its tensors in training.
    pub role: Role,
}

/// What becomes of a tensor in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Trained and saved.
    Trainable,
    /// Saved, and changed by forward passes in training alone: running means and variances.
    Statistics,
    /// Neither: it comes from the pretrained file.
    Frozen,
}

impl Group {
    /// Parameters that can be trained.
    pub const fn trainable(name: &'static str) -> Self {
        Self { name, role: Role::Trainable }
    }

    /// Running statistics.
    pub const fn statistics(name: &'static str) -> Self {
        Self { name, role: Role::Statistics }
    }

    /// What stays as its pretrained file has it.
    pub const fn frozen(name: &'static str) -> Self {
        Self { name, role: Role::Frozen }
    }

    /// Whether a checkpoint holds it.
    pub fn is_saved(self) -> bool {
        self.role != Role::Frozen
    }

    /// Whether it can be trained.
    pub fn is_trainable(self) -> bool {
        self.role == Role::Trainable
    }
}

/// What the classifier says of a batch of slices.
#[derive(Debug)]
pub struct Presence {
    /// `[B]`, the logit of "the target is in this slice".
    pub logit: Tensor,
    /// `[B, 1, h, w]`, class activation map, ≥ 0, unnormalised, without gradient, at the classifier's own resolution.
    pub cam: Tensor,
    /// `[B, 1, h, w]`, the logit of "the target is at this place", where a stage gives one: masks of labelled slices then
    /// teach it too.
    pub map: Option<Tensor>,
}

/// What a classifier looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassifierInput {
    /// Slices `[B, 1, H, W]`, windowed to `[0, 1]`, any `H` and `W` of at least 32. A stage resizes for itself.
    Slices,
    /// What the segmenter's pretrained encoder made of them, `[B, C, g, g]`, or a part of it.
    Embedding,
}

/// The classifier branch: slices to the target's presence and its activation map.
pub trait PresenceClassifier {
    /// What [`Self::forward`] takes.
    fn input(&self) -> ClassifierInput {
        ClassifierInput::Slices
    }

    /// Channels of the embeddings that it can read, where it reads them and can read no others.
    fn embedding_channels(&self) -> Option<i64> {
        None
    }

    /// The classifier's own input, as [`Self::input`] says, to what it says of each slice.
    fn forward(&self, input: &Tensor, mode: Mode) -> Presence;

    /// Updates the running statistics by a batch, as a pass in [`Mode::Train`] does, and nothing else: for whole slices whose
    /// crops are what is trained on. A stage can do so without the rest of the pass.
    fn track(&self, input: &Tensor) {
        tch::no_grad(|| self.forward(input, Mode::Train));
    }

    /// Every parameter and buffer, in a fixed order: what a checkpoint holds.
    fn tensors(&self) -> Vec<NamedTensor>;

    /// From now on each batch in training is a share of one that several processes have; `false` if the stage then computes
    /// something else than of the whole, as one with batch normalisation does unless it asks the others.
    fn share_batches(&mut self, with: &Rc<SharedBatch>) -> bool {
        let _ = with;
        !self.tensors().iter().any(|t| t.group.role == Role::Statistics)
    }
}

/// A box in pixels of the slice; corners are inclusive pixel positions, so a single pixel has `x0 == x1`.
///
/// Rows are `y` (to posterior), columns `x` (to the patient's left). Boxes may leave the slice when they are enlarged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxPrompt {
    /// Left column.
    pub x0: f32,
    /// Upper row.
    pub y0: f32,
    /// Right column, inclusive.
    pub x1: f32,
    /// Lower row, inclusive.
    pub y1: f32,
}

impl BoxPrompt {
    /// The whole of a square slice of `size` pixels.
    pub fn whole(size: usize) -> Self {
        let last = size as f32 - 1.0;
        Self { x0: 0.0, y0: 0.0, x1: last, y1: last }
    }

    /// The central half of a square slice, half as wide and half as high: the fallback where a CAM is empty.
    pub fn central_half(size: usize) -> Self {
        let size = size as f32;
        let (first, last) = (0.25 * size, 0.75 * size - 1.0);
        Self { x0: first, y0: first, x1: last, y1: last }
    }

    /// The tight box around the pixels that are not zero in a row-major mask of `width` columns; `None` if there is none.
    pub fn around<T: Default + PartialEq>(mask: &[T], width: usize) -> Option<Self> {
        let is_set = |pixel: &T| *pixel != T::default();
        let mut bounds: Option<[usize; 4]> = None;
        for (row, pixels) in mask.chunks_exact(width).enumerate() {
            let Some(first) = pixels.iter().position(is_set) else { continue };
            let last = pixels.iter().rposition(is_set).unwrap_or(first);
            let b = bounds.get_or_insert([first, row, last, row]);
            *b = [b[0].min(first), b[1], b[2].max(last), row];
        }
        bounds.map(|[x0, y0, x1, y1]| Self { x0: x0 as f32, y0: y0 as f32, x1: x1 as f32, y1: y1 as f32 })
    }

    /// Each side moved outward by `margin` pixels and cut off at the slice's border.
    #[must_use]
    pub fn enlarged(&self, margin: f32, size: usize) -> Self {
        let last = size as f32 - 1.0;
        Self {
            x0: (self.x0 - margin).clamp(0.0, last),
            y0: (self.y0 - margin).clamp(0.0, last),
            x1: (self.x1 + margin).clamp(0.0, last),
            y1: (self.y1 + margin).clamp(0.0, last),
        }
    }

    /// Intersection over union of two boxes as areas of pixels (inclusive corners), in `[0, 1]`.
    pub fn iou(&self, other: &Self) -> f32 {
        let area = |b: &Self| (b.x1 - b.x0 + 1.0).max(0.0) * (b.y1 - b.y0 + 1.0).max(0.0);
        let both = Self {
            x0: self.x0.max(other.x0),
            y0: self.y0.max(other.y0),
            x1: self.x1.min(other.x1),
            y1: self.y1.min(other.y1),
        };
        let shared = area(&both);
        shared / (area(self) + area(other) - shared)
    }
}

/// The prompts of a batch: `P` objects, each described by whatever mix of prompts there is.
#[derive(Debug, Default)]
pub struct Prompts {
    /// For each object the slice of the batch that it is in, so that a slice can have any number of them. Absent: object `i`
    /// is in slice `i`, and `P = B`.
    pub slices: Option<Vec<usize>>,
    /// One box for each object, in pixels of the slice.
    pub boxes: Option<Vec<BoxPrompt>>,
    /// Points `[P, N, 2]` as (x, y) in pixels of the slice, and labels `[P, N]`: 1 in the target, 0 outside it, -1 for a place
    /// without a point.
    pub points: Option<(Tensor, Tensor)>,
    /// `[P, 1, H, W]` in `[0, 1]`: the CAM's mask, at the slice's size, for the dense prompt. What becomes of it is the
    /// segmenter's configuration.
    pub cam_mask: Option<Tensor>,
    /// `[P, 1, 4g, 4g]` logits for SAM's own mask input, `g` being the side of the embedding grid.
    pub mask_logits: Option<Tensor>,
}

/// Height and width in pixels.
pub type SliceSize = [usize; 2];

/// What the segmenter's encoder made of a batch of slices; decoding can be repeated with other prompts.
#[derive(Debug)]
pub struct Embedding {
    /// `[B, C, g, g]`.
    pub tensor: Tensor,
    /// Size of the slices that it was made from: their pixels are the unit of the prompts.
    pub slice_size: SliceSize,
    /// [`Masks::coarser`] of a network whose embedding is its masks.
    pub coarser: Vec<Tensor>,
    /// The way of a gradient from [`Self::tensor`] into the encoder, where the encoder goes it by itself: the binding of
    /// libtorch has no autograd functions of one's own, and what such an encoder saves is worth a call.
    pub rest: Option<EncoderBackward>,
}

impl Embedding {
    /// One that gradients end at, or pass through by the graph alone.
    pub fn new(tensor: Tensor, slice_size: SliceSize) -> Self {
        Self { tensor, slice_size, coarser: Vec::new(), rest: None }
    }

    /// To be called after `backward()` of a loss that was made of an embedding in [`Mode::Train`]: carries the gradient on
    /// into the encoder's adapters. Nothing is left to do where the graph reaches them.
    ///
    /// # Errors
    /// What libtorch refuses on the way, for example for want of memory.
    pub fn backward(self) -> Result<(), TchError> {
        let Some(EncoderBackward(rest)) = self.rest else { return Ok(()) };
        let gradient = self.tensor.grad();
        if gradient.defined() { rest(&gradient) } else { Ok(()) }
    }
}

/// From the gradient of an embedding to those of the encoder's adapters.
type Backward = dyn FnOnce(&Tensor) -> Result<(), TchError>;

/// What an encoder does with the gradient of its embedding; see [`Embedding::backward`].
pub struct EncoderBackward(pub Box<Backward>);

impl std::fmt::Debug for EncoderBackward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EncoderBackward")
    }
}

/// Candidate masks of a batch.
#[derive(Debug)]
pub struct Masks {
    /// `[P, M, H, W]` at the slice's size; above 0 is the target.
    pub logits: Tensor,
    /// `[P, M]`, the predicted intersection over union of each mask.
    pub scores: Tensor,
    /// Of a network with deep supervision, in training: `[P, 1, h, w]` of its coarser resolutions, finest first. Else empty.
    pub coarser: Vec<Tensor>,
}

/// Which of the decoder's masks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskChoice {
    /// The single-mask token: `M = 1`.
    Single,
    /// Three candidate masks: `M = 3`.
    Three,
}

/// What the encoder's layers before the first adapter made of a batch of slices: no training changes it, so it can be
/// kept and used again in every epoch, and for the adapted and the pretrained encoder alike.
#[derive(Debug)]
pub struct Features {
    /// `[B, …]`, without gradient; its further shape is the segmenter's own.
    pub tensor: Tensor,
    /// Size of the slices that it was made from.
    pub slice_size: SliceSize,
}

/// Whether the encoder's adapters take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapters {
    /// The encoder as it was trained here.
    On,
    /// The encoder as its pretrained file has it.
    Off,
}

/// Which prompts a segmenter needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptKinds {
    /// None: it segments a slice by itself, and trains and predicts without a classifier.
    None,
    /// A box for each object.
    Box,
    /// A box, and the CAM's mask beside it.
    BoxAndMask,
}

/// The segmentation branch: a slice, and its prompts where it needs any, to masks.
pub trait Segmenter {
    /// What [`Self::decode`] needs. The trainer makes prompts, and evaluation has the rows that compare them, accordingly.
    fn prompts(&self) -> PromptKinds;

    /// The frozen first part of the encoder. `slices`: `[B, 1, H, W]`, windowed to `[0, 1]`. Without gradient.
    fn features(&self, slices: &Tensor) -> Features;

    /// The rest of the encoder. Gradients reach the adapters in training only, and then by [`Embedding::backward`].
    fn embed(&self, features: &Features, adapters: Adapters, mode: Mode) -> Embedding;

    /// Masks for each object of the prompts, at the slice's size.
    ///
    /// # Panics
    /// If the prompts don't agree on how many objects there are, or name a slice that the embedding is not of: these are
    /// mistakes of the caller, as tensors of other shapes than stated are.
    fn decode(&self, embedding: &Embedding, prompts: &Prompts, choice: MaskChoice) -> Masks;

    /// Which masks this checkpoint was trained to give.
    fn default_choice(&self) -> MaskChoice;

    /// Whether the adapters change anything: if not, [`Adapters::On`] and [`Adapters::Off`] give one embedding.
    fn is_adapted(&self) -> bool;

    /// Every parameter and statistic, in a fixed order. The trainer saves those that a checkpoint holds; the rest comes from
    /// the pretrained file again.
    fn tensors(&self) -> Vec<NamedTensor>;

    /// The head of its own that says whether the target is there, where it has one: `classifier.kind = "own"`. Its parameters are among
    /// [`Self::tensors`].
    fn own_classifier(&self) -> Option<Box<dyn PresenceClassifier>> {
        None
    }

    /// From now on each batch in training is a share of one that several processes have; `false` if the stage then computes
    /// something else than of the whole, as one with batch normalisation does unless it asks the others.
    fn share_batches(&mut self, with: &Rc<SharedBatch>) -> bool {
        let _ = with;
        !self.tensors().iter().any(|t| t.group.role == Role::Statistics)
    }

    /// Names of the groups that a phase with a frozen encoder doesn't train.
    fn encoder_groups(&self) -> &'static [&'static str] {
        &[]
    }

    /// `[C, g, g]` of what the pretrained encoder makes of a slice, where training leaves that as it is: a classifier can read it, and it can
    /// be kept for other runs.
    fn embedding_shape(&self) -> Option<[i64; 3]> {
        None
    }

    /// SHA-256 of its pretrained file, in lower-case hexadecimal, where it has one.
    fn pretrained_sha256(&self) -> Option<&str> {
        None
    }

    /// All that decides the embeddings of its pretrained encoder, as text: embeddings that are kept are known by it. Absent where
    /// what comes before decoding is trained: nothing of that may be kept for another run.
    fn encoder_identity(&self) -> Option<String> {
        None
    }

    /// Puts the weights between `pretrained`, a copy of all trainable values in the order of [`Self::tensors`], and what they
    /// are: a share of 0 is the former, 1 the latter.
    fn interpolate(&self, pretrained: &[Tensor], share: f64) {
        tch::no_grad(|| {
            let trainable = self.tensors().into_iter().filter(|t| t.group.is_trainable());
            for (mut t, before) in trainable.zip(pretrained) {
                let _ = t.tensor.lerp_(before, 1.0 - share);
            }
        });
    }
}

/// A network that needs no prompt: all that an experiment's own has to be. [`Promptless`] makes a [`Segmenter`] of it.
pub trait SliceNetwork {
    /// Slices `[B, 1, H, W]`, windowed to `[0, 1]`, to logits `[B, 1, H, W]`; above 0 is the target.
    fn forward(&self, slices: &Tensor, mode: Mode) -> Tensor;

    /// What training supervises: logits as [`Self::forward`] gives them, and behind them `[B, 1, h, w]` of coarser resolutions,
    /// where the network has deep supervision.
    fn supervised(&self, slices: &Tensor) -> Vec<Tensor> {
        vec![self.forward(slices, Mode::Train)]
    }

    /// [`Segmenter::own_classifier`].
    fn own_classifier(&self) -> Option<Box<dyn PresenceClassifier>> {
        None
    }

    /// Every parameter and statistic, in a fixed order: what a checkpoint holds.
    fn tensors(&self) -> Vec<NamedTensor>;
}

/// A network without prompts as a segmenter: its logits are its embedding, which decoding hands on.
#[derive(Debug)]
pub struct Promptless<T>(pub T);

impl<T: SliceNetwork> Segmenter for Promptless<T> {
    fn prompts(&self) -> PromptKinds {
        PromptKinds::None
    }

    fn features(&self, slices: &Tensor) -> Features {
        let (_, _, height, width) = slices.size4().expect("slices are [B, 1, H, W]");
        Features { tensor: slices.shallow_clone(), slice_size: [height as usize, width as usize] }
    }

    fn embed(&self, features: &Features, _: Adapters, mode: Mode) -> Embedding {
        if mode != Mode::Train {
            let forward = || self.0.forward(&features.tensor, mode);
            let logits = if mode.is_training() { forward() } else { tch::no_grad(forward) };
            return Embedding::new(logits, features.slice_size);
        }
        let mut supervised = self.0.supervised(&features.tensor);
        let coarser = supervised.split_off(1);
        Embedding { coarser, ..Embedding::new(supervised.remove(0), features.slice_size) }
    }

    fn decode(&self, embedding: &Embedding, _: &Prompts, _: MaskChoice) -> Masks {
        let logits = embedding.tensor.shallow_clone();
        let scores = Tensor::ones([logits.size()[0], 1], (Kind::Float, logits.device()));
        let coarser = embedding.coarser.iter().map(Tensor::shallow_clone).collect();
        Masks { logits, scores, coarser }
    }

    fn default_choice(&self) -> MaskChoice {
        MaskChoice::Single
    }

    fn is_adapted(&self) -> bool {
        false
    }

    fn own_classifier(&self) -> Option<Box<dyn PresenceClassifier>> {
        self.0.own_classifier()
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        self.0.tensors()
    }
}

/// A part of the segmentation loss: of the logits `[H, W]` of one mask, and of the truth `[H, W]`, 1 in the target and 0 outside
/// it; a scalar with gradient.
pub type MaskLoss = fn(logits: &Tensor, truth: &Tensor) -> Tensor;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn box_of_a_hand_drawn_mask_is_tight_and_inclusive() {
        #[rustfmt::skip]
        let mask = [0, 0, 0, 0,
                    0, 0, 1, 0,
                    0, 1, 0, 0];
        assert_eq!(BoxPrompt::around(&mask, 4), Some(BoxPrompt { x0: 1.0, y0: 1.0, x1: 2.0, y1: 2.0 }));
        assert_eq!(BoxPrompt::around(&[0u8; 12], 4), None);
    }

    #[test]
    fn the_central_half_is_half_as_wide_and_in_the_middle() {
        assert_eq!(BoxPrompt::central_half(256), BoxPrompt { x0: 64.0, y0: 64.0, x1: 191.0, y1: 191.0 });
        for size in [32_usize, 50, 77, 256] {
            let b = BoxPrompt::central_half(size);
            assert!((b.x1 - b.x0 + 1.0 - size as f32 / 2.0).abs() < 1e-4, "{size}: inclusive corners");
            // As many pixels before it as behind it.
            assert!((b.x0 - (size as f32 - 1.0 - b.x1)).abs() < 1e-4 && b.x0 == b.y0 && b.x1 == b.y1, "{size}");
        }
    }

    #[test]
    fn on_the_cpu_nothing_is_copied() {
        let host = Tensor::from_slice(&[1i64, 2]);
        assert_eq!(sent(&host, Device::Cpu).data_ptr(), host.data_ptr());
    }

    #[test]
    fn iou_counts_inclusive_pixels() {
        let a = BoxPrompt { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0 };
        let b = BoxPrompt { x0: 1.0, y0: 1.0, x1: 2.0, y1: 2.0 };
        assert!((a.iou(&b) - 1.0 / 7.0).abs() < 1e-6);
        assert_eq!(a.iou(&BoxPrompt { x0: 5.0, y0: 5.0, x1: 6.0, y1: 6.0 }), 0.0);
    }

    #[test]
    fn enlarged_box_stays_on_the_slice() {
        let b = BoxPrompt { x0: 1.0, y0: 10.0, x1: 30.0, y1: 30.0 }.enlarged(3.0, 32);
        assert_eq!(b, BoxPrompt { x0: 0.0, y0: 7.0, x1: 31.0, y1: 31.0 });
    }
}
