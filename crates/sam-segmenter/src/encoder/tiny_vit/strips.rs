//! Convolutions a strip of rows at a time, so that what is between them stays in the cache: a tensor of LiteMedSAM's 256
//! hidden channels at 256² pixels has 67 MB, and would go through memory with each operation.
//!
//! Where a graph is recorded or the pass traced, or on a GPU, a picture is one strip.

use tch::{Device, Tensor};

use super::conv::Affine;
use crate::tracing;

/// Rows of a strip that come out: more of them leave the cache, with fewer the rows count that neighbours compute twice. For
/// the features of one slice of 256², 4, 8, 16, 32 and 64 rows took 156, 122, 148, 148 and 156 ms of the processors, whole
/// pictures 270 (medians of three, on a machine that other work shared).
const ROWS: i64 = 8;

/// Some rows of a picture, with those that a 3×3 convolution wants beside them.
pub(super) struct Strip {
    /// `[B, h, W, C]`.
    pub(super) rows: Tensor,
    /// Whether the picture ends above and below: what a convolution wants there is zero.
    ends: [bool; 2],
}

impl Strip {
    /// The rows without those beside them.
    pub(super) fn own(&self) -> Tensor {
        let [above, below] = self.ends.map(|ends| i64::from(!ends));
        self.rows.narrow(1, above, self.rows.size()[1] - above - below)
    }

    /// A 3×3 convolution of each channel by itself, of what was computed of each pixel of these rows.
    pub(super) fn depthwise(&self, hidden: &Tensor, map: &Affine, stride: i64) -> Tensor {
        match self.ends {
            [true, true] => map.depthwise(hidden, stride, [1, 1]),
            [false, false] => map.depthwise(hidden, stride, [0, 1]),
            ends => {
                let [above, below] = ends.map(i64::from);
                map.depthwise(&hidden.constant_pad_nd([0, 0, 0, 0, above, below]), stride, [0, 1])
            }
        }
    }
}

/// `work` on all strips of `[B, H, W, C]`, whose results are rows of the result; with a stride of 2, half as many.
pub(super) fn by_strips(x: &Tensor, stride: i64, work: impl Fn(&Strip) -> Tensor) -> Tensor {
    let (batch, height, _, _) = x.size4().expect("the encoder's tensors are [B, H, W, C]");
    if x.device() != Device::Cpu || x.requires_grad() || tracing::is_on() {
        return work(&Strip { rows: x.shallow_clone(), ends: [true, true] });
    }
    let outputs = (height - 1) / stride + 1;
    let strip = |picture: i64, first: i64| {
        let (above, below) = (stride * first - 1, stride * ((first + ROWS).min(outputs) - 1) + 1);
        let (from, to) = (above.max(0), below.min(height - 1));
        let rows = x.narrow(0, picture, 1).narrow(1, from, to - from + 1);
        work(&Strip { rows, ends: [above < 0, below >= height] })
    };
    let places = (0..batch).flat_map(|picture| (0..outputs).step_by(ROWS as usize).map(move |first| (picture, first)));
    let strips: Vec<Tensor> = places.map(|(picture, first)| strip(picture, first)).collect();
    let (_, _, width, channels) = strips[0].size4().expect("strips are [1, h, W, C]");
    Tensor::cat(&strips, 1).view([batch, outputs, width, channels])
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn strips_know_their_neighbours_and_the_ends_of_the_picture() {
        tch::manual_seed(1);
        for (height, stride) in [(1, 1), (16, 1), (17, 1), (48, 1), (16, 2), (34, 2), (66, 2), (35, 2)] {
            let x = Tensor::rand([2, height, 5, 4], (Kind::Float, Device::Cpu));
            let map = Affine::new(
                Tensor::rand([4, 1, 3, 3], (Kind::Float, Device::Cpu)),
                Tensor::rand([4], (Kind::Float, Device::Cpu)),
            );
            let found = by_strips(&x, stride, |strip| strip.depthwise(&(&strip.rows + 1.0), &map, stride));
            let expected = map.depthwise(&(&x + 1.0), stride, [1, 1]);
            assert!((found - expected).abs().max().double_value(&[]) < 1e-5, "{height} rows, stride {stride}");
            assert_eq!(by_strips(&x, 1, Strip::own), x);
        }
    }
}
