//! From an encoder's channels to the embedding's; the same in every SAM.

use tch::{Kind, Tensor};

use crate::architecture::EMBEDDING;
use crate::layers::{LayerNorm, Scope, channels_first, channels_last, for_input};

pub(super) struct Neck {
    narrow: Tensor,
    first_norm: LayerNorm,
    conv: Tensor,
    second_norm: LayerNorm,
}

impl Neck {
    pub(super) fn take(mut scope: Scope<'_>, width: i64) -> Self {
        Self {
            narrow: scope.take("0.weight", &[EMBEDDING, width, 1, 1]),
            first_norm: LayerNorm::take(scope.at(1), EMBEDDING, LayerNorm::EPS_2D),
            conv: scope.take("2.weight", &[EMBEDDING, EMBEDDING, 3, 3]),
            second_norm: LayerNorm::take(scope.at(3), EMBEDDING, LayerNorm::EPS_2D),
        }
    }

    /// `[B, H, W, C]` to `[B, 256, H, W]` in 32-bit floats; its convolutions compute in `precision`.
    pub(super) fn forward(&self, x: &Tensor, precision: Kind) -> Tensor {
        let x = x.to_kind(precision);
        let x = x.linear::<Tensor>(&for_input(&self.narrow, &x).flatten(1, -1), None).to_kind(Kind::Float);
        let x = self.first_norm.forward(&x).to_kind(precision);
        let x = channels_first(&x).conv2d::<Tensor>(&for_input(&self.conv, &x), None, 1, 1, 1, 1).to_kind(Kind::Float);
        channels_first(&self.second_norm.forward(&channels_last(&x)))
    }
}
