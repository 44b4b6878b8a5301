//! Batch normalisation (Ioffe & Szegedy, 2015), whose running statistics are those of whole slices alone.

use stage_api::{Mode, SharedBatch};
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

/// Share of the batch's statistics in an update of the running ones, and what is added to a variance: PyTorch's.
const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;

/// Mean and variance of each channel, `[C]`, as inference uses them.
#[derive(Debug)]
pub(crate) struct RunningStatistics {
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
    /// Where batches are shares of larger ones.
    shared: Option<Rc<SharedBatch>>,
}

impl RunningStatistics {
    /// As of values that are normal already.
    pub(crate) fn new(channels: i64, device: Device) -> Self {
        let options = (Kind::Float, device);
        Self { mean: Tensor::zeros([channels], options), variance: Tensor::ones([channels], options), shared: None }
    }

    /// See [`stage_api::PresenceClassifier::share_batches`].
    pub(crate) fn share(&mut self, with: &Rc<SharedBatch>) {
        self.shared = Some(with.clone());
    }

    fn shared(&self, mode: Mode) -> Option<&SharedBatch> {
        self.shared.as_deref().filter(|shared| mode.is_training() && shared.is_shared())
    }

    /// `x`, from which two paths go on: see [`SharedBatch::cut`].
    pub(crate) fn before_fork(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.shared(mode).map_or_else(|| x.shallow_clone(), |shared| shared.cut(x))
    }

    /// `[B, C, h, w]`, normalised by the batch's statistics in training, by the running ones in inference, then scaled and
    /// shifted (`[C]` each).
    ///
    /// A single value (one slice with a map of one place) has no variance: it is normalised as in inference, in training too,
    /// and leaves the running statistics alone, which it would fill with NaN.
    pub(crate) fn normalize(&self, x: &Tensor, affine: Option<[&Tensor; 2]>, mode: Mode) -> Tensor {
        if let Some(shared) = self.shared(mode) {
            return shared.batch_norm(x, affine, [&self.mean, &self.variance], mode);
        }
        let values = x.numel() as i64 / self.mean.size()[0].max(1);
        let mode = if values > 1 { mode } else { Mode::Eval };
        // With statistics of its own in training, libtorch updates them; without, it takes the batch's and keeps none.
        let running = (mode != Mode::TrainUntracked).then_some([&self.mean, &self.variance]);
        x.batch_norm(
            affine.map(|[scale, _]| scale),
            affine.map(|[_, shift]| shift),
            running.map(|[mean, _]| mean),
            running.map(|[_, variance]| variance),
            mode.is_training(),
            MOMENTUM,
            EPSILON,
            false,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
    }

    fn close(found: &Tensor, expected: &[f64]) {
        let found = values(found);
        let near = found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-5);
        assert!(near && found.len() == expected.len(), "{found:?}, expected {expected:?}");
    }

    /// Two slices of one channel with a map of two places: mean 4, variance 5 (of the batch), 20/3 (unbiased).
    fn batch() -> Tensor {
        Tensor::from_slice(&[1.0f32, 3.0, 5.0, 7.0]).view([2, 1, 1, 2])
    }

    #[test]
    fn whole_slices_move_the_running_statistics_by_a_tenth() {
        let running = RunningStatistics::new(1, Device::Cpu);
        let _normed = running.normalize(&batch(), None, Mode::Train);
        close(&running.mean, &[0.4]);
        close(&running.variance, &[0.9 + 0.1 * 20.0 / 3.0]);
    }

    #[test]
    fn untracked_input_is_normalised_by_its_own_statistics_and_leaves_the_running_ones() {
        let running = RunningStatistics::new(1, Device::Cpu);
        let found = running.normalize(&batch(), None, Mode::TrainUntracked);
        let deviation = (5.0f64 + 1e-5).sqrt();
        close(&found, &[-3.0, -1.0, 1.0, 3.0].map(|d| d / deviation));
        assert_eq!(found, RunningStatistics::new(1, Device::Cpu).normalize(&batch(), None, Mode::Train));
        close(&running.mean, &[0.0]);
        close(&running.variance, &[1.0]);
    }

    #[test]
    fn a_single_value_is_normalised_by_the_running_statistics_and_passes_its_gradient() {
        let running = RunningStatistics {
            mean: Tensor::from_slice(&[2.0f32]),
            variance: Tensor::from_slice(&[4.0f32]),
            shared: None,
        };
        let [scale, shift] = [Tensor::from_slice(&[3.0f32]), Tensor::from_slice(&[1.0f32])];
        for mode in [Mode::Train, Mode::TrainUntracked, Mode::Eval] {
            let x = Tensor::from_slice(&[6.0f32]).view([1, 1, 1, 1]).set_requires_grad(true);
            let found = running.normalize(&x, Some([&scale, &shift]), mode);
            // 3 · (6 − 2) / 2 + 1, and its slope 3 / 2.
            assert!((found.double_value(&[0, 0, 0, 0]) - 7.0).abs() < 1e-4);
            found.sum(Kind::Float).backward();
            assert!((x.grad().double_value(&[0, 0, 0, 0]) - 1.5).abs() < 1e-4);
        }
        close(&running.mean, &[2.0]);
        close(&running.variance, &[4.0]);
    }
}
