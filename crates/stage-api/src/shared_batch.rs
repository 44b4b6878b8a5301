//! A batch of which each of several processes has a share: what a stage needs of the others, so that what it computes of its
//! share is what it would compute of the same slices within the whole batch.
//!
//! That is batch normalisation alone: its mean and variance are of the whole batch, and so are two sums of its backward pass.
//! The binding of libtorch has no autograd functions of one's own, so the graph is cut before each normalisation, and
//! [`SharedBatch::backward`] carries the gradient over the cuts. Every process must make the same passes in the same order, one
//! whose share is empty too.

use crate::Mode;
use std::cell::{Cell, RefCell};
use tch::{Kind, TchError, Tensor, no_grad};

/// Share of the batch's statistics in an update of the running ones, and what is added to a variance: PyTorch's.
const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;

/// Batch and places of `[B, C, h, w]`.
const ALL_BUT_CHANNELS: &[i64] = &[0, 2, 3];

/// Replaces a contiguous tensor by its sum over all processes.
pub type SumOverProcesses = Box<dyn Fn(&Tensor)>;

/// The way to the other processes' shares.
pub struct SharedBatch {
    sum: SumOverProcesses,
    is_whole: Cell<bool>,
    cuts: RefCell<Vec<Cut>>,
}

/// A place where the graph ends in a leaf of its own.
struct Cut {
    before: Tensor,
    leaf: Tensor,
    normalised: Option<Statistics>,
}

/// Of each channel of the whole batch: mean and 1 / deviation, `[1, C, 1, 1]`, of so many values.
struct Statistics {
    mean: Tensor,
    inverse_deviation: Tensor,
    count: f64,
}

impl std::fmt::Debug for SharedBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedBatch")
    }
}

impl SharedBatch {
    /// Of processes that all call `sum` with tensors of the same shapes in the same order.
    pub fn new(sum: SumOverProcesses) -> Self {
        Self { sum, is_whole: Cell::new(false), cuts: RefCell::default() }
    }

    /// Makes a pass whose batch this process has whole: the others are asked nothing.
    pub fn alone<T>(&self, pass: impl FnOnce() -> T) -> T {
        self.is_whole.set(true);
        let found = pass();
        self.is_whole.set(false);
        found
    }

    /// Whether the pass under way is of a share.
    pub fn is_shared(&self) -> bool {
        !self.is_whole.get()
    }

    /// The same values as a leaf, where a gradient is wanted. A network with normalisations cuts where two paths part, so that
    /// what carries a gradient over a later cut doesn't pass a part of the graph that was passed before.
    pub fn cut(&self, x: &Tensor) -> Tensor {
        self.cut_before(x, None)
    }

    fn cut_before(&self, x: &Tensor, normalised: Option<Statistics>) -> Tensor {
        if !x.requires_grad() {
            return x.shallow_clone();
        }
        let leaf = x.detach().set_requires_grad(true);
        self.cuts.borrow_mut().push(Cut { before: x.shallow_clone(), leaf: leaf.shallow_clone(), normalised });
        leaf
    }

    /// Batch normalisation (Ioffe & Szegedy, 2015) in training of the share `[B, C, h, w]`, `B` may be 0, by the statistics of
    /// the whole batch, which in [`Mode::Train`] move the running mean and variance. `affine`: scale and shift, all `[C]`.
    ///
    /// A single value has no variance: it is normalised by the running statistics, as in inference.
    pub fn batch_norm(&self, x: &Tensor, affine: Option<[&Tensor; 2]>, running: [&Tensor; 2], mode: Mode) -> Tensor {
        let channels = x.size()[1];
        let of_channels = |t: &Tensor| t.view([1, channels, 1, 1]);
        let statistics = no_grad(|| {
            let values = x.detach().to_kind(Kind::Float);
            let count = Tensor::from_slice(&[(x.numel() as i64 / channels) as f64]).to_device(x.device());
            let sums = Tensor::cat(&[sum(&values), sum(&values.square()), count], 0);
            (self.sum)(&sums);
            let count = sums.double_value(&[2 * channels]);
            let part = |i: i64| sums.narrow(0, i * channels, channels) / count;
            let (mean, variance) = if count > 1.0 {
                let mean = part(0);
                let variance = (part(1) - mean.square()).clamp_min(0.0);
                if mode == Mode::Train {
                    let unbiased = &variance * (count / (count - 1.0));
                    for (running, new) in running.into_iter().zip([&mean, &unbiased]) {
                        let _ = running.shallow_clone().lerp_(&new.to_kind(Kind::Float), MOMENTUM);
                    }
                }
                (mean, variance)
            } else {
                (running[0].to_kind(Kind::Double), running[1].to_kind(Kind::Double))
            };
            let single = |t: Tensor| of_channels(&t.to_kind(Kind::Float));
            let inverse_deviation = single((variance + EPSILON).rsqrt());
            Statistics { mean: single(mean), inverse_deviation, count }
        });
        let (mean, inverse) = (statistics.mean.shallow_clone(), statistics.inverse_deviation.shallow_clone());
        let leaf = self.cut_before(x, (statistics.count > 1.0).then_some(statistics));
        let normed = (leaf.to_kind(Kind::Float) - mean) * inverse;
        let scaled = match affine {
            Some([scale, shift]) => normed * of_channels(scale) + of_channels(shift),
            None => normed,
        };
        scaled.to_kind(x.kind())
    }

    /// To be called after `backward()` of the loss of all passes since the last call: carries the gradient over the cuts.
    ///
    /// # Errors
    /// What libtorch refuses on the way, for example for want of memory.
    pub fn backward(&self) -> Result<(), TchError> {
        // What comes later in a pass is cut later, so that a leaf's gradient is whole when its turn comes.
        let cuts = self.cuts.take();
        for Cut { before, leaf, normalised } in cuts.into_iter().rev() {
            let known = leaf.grad();
            let mut gradient = if known.defined() { known } else { leaf.detach().zeros_like() };
            if let Some(statistics) = normalised {
                gradient = no_grad(|| self.of_normalised(&leaf.detach(), &gradient, &statistics));
            }
            // The gradient of this sum is that of `before`.
            (before * gradient).sum(Kind::Float).f_backward()?;
        }
        Ok(())
    }

    /// The gradient with respect to `x`, of which mean and variance are functions, from that in which they are constants: less
    /// its mean, and its mean product with the normalised values, over the whole batch (Ioffe & Szegedy, 2015, section 3).
    fn of_normalised(&self, x: &Tensor, gradient: &Tensor, of: &Statistics) -> Tensor {
        let normed = (x.to_kind(Kind::Float) - &of.mean) * &of.inverse_deviation;
        let gradient = gradient.to_kind(Kind::Float);
        let sums = Tensor::cat(&[sum(&gradient), sum(&(&gradient * &normed))], 0);
        (self.sum)(&sums);
        let means = (sums / of.count).to_kind(Kind::Float).view([2, 1, -1, 1, 1]);
        (gradient - means.get(0) - normed * means.get(1)).to_kind(x.kind())
    }

    /// Drops the passes since the last [`Self::backward`], of which no gradient is wanted.
    pub fn forget(&self) {
        self.cuts.take();
    }
}

/// Of each channel of `[B, C, h, w]`, in 64 bits.
fn sum(of: &Tensor) -> Tensor {
    of.sum_dim_intlist(ALL_BUT_CHANNELS, false, Kind::Double)
}
