//! `classifier.kind = "none"`: for segmenters that need no prompt, or that get the whole slice for one.

use stage_api::{Mode, NamedTensor, Presence, PresenceClassifier};
use tch::{Kind, Tensor};

/// Calls every slice present, and sees nothing in it.
pub(crate) struct NoClassifier;

impl PresenceClassifier for NoClassifier {
    fn forward(&self, slices: &Tensor, _: Mode) -> Presence {
        let (count, options) = (slices.size()[0], (Kind::Float, slices.device()));
        Presence {
            logit: Tensor::full([count], f64::INFINITY, options),
            cam: Tensor::zeros([count, 1, 1, 1], options),
            map: None,
        }
    }

    fn tensors(&self) -> Vec<NamedTensor> {
        Vec::new()
    }
}
