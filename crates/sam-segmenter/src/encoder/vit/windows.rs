//! How a map of tokens falls into windows and heads, and back.

use tch::{Kind, Tensor};

use crate::layers::for_input;

/// Square windows and heads of attention: what sees each other is one grid of `side²` tokens for each window and head.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    /// Side of a window; `None`: one window that is the whole map.
    pub(super) side: Option<i64>,
    pub(super) heads: i64,
}

impl Windows {
    /// Side of a window on that map, `[B, H, W, C]`.
    pub(super) fn side_on(self, map: [i64; 4]) -> i64 {
        self.side.unwrap_or(map[1])
    }

    /// `[B, H, W, C]` to `[B · windows · heads, side², d]`. What pads the last windows is `filling`, `[C]`, or zero.
    pub(super) fn split(self, x: &Tensor, filling: Option<&Tensor>) -> Tensor {
        let map = size(x);
        let side = self.side_on(map);
        let padded = self.padded(map);
        let [batch, height, width, channels] = map;
        let mut x = x.shallow_clone();
        if [height, width] != padded {
            x = x.constant_pad_nd([0, 0, 0, padded[1] - width, 0, padded[0] - height]);
            if let Some(filling) = filling {
                // The padding's only: what isn't padding must not change by a rounding.
                let outside = Tensor::ones([height, width, 1], (Kind::Float, x.device()))
                    .constant_pad_nd([0, 0, 0, padded[1] - width, 0, padded[0] - height])
                    .eq(0);
                x += for_input(filling, &x) * outside;
            }
        }
        let [rows, columns] = padded.map(|n| n / side);
        x.view([batch, rows, side, columns, side, self.heads, channels / self.heads].as_slice())
            .permute([0, 1, 3, 5, 2, 4, 6])
            .reshape([-1, side * side, channels / self.heads])
    }

    /// The inverse of [`Self::split`], to a map of that size; the padding is cut off.
    pub(super) fn join(self, x: &Tensor, map: [i64; 4]) -> Tensor {
        let side = self.side_on(map);
        let padded = self.padded(map);
        let [batch, height, width, channels] = map;
        let [rows, columns] = padded.map(|n| n / side);
        x.view([batch, rows, columns, self.heads, side, side, channels / self.heads].as_slice())
            .permute([0, 1, 4, 2, 5, 3, 6])
            .reshape([batch, padded[0], padded[1], channels])
            .narrow(1, 0, height)
            .narrow(2, 0, width)
            .contiguous()
    }

    fn padded(self, map: [i64; 4]) -> [i64; 2] {
        let side = self.side_on(map);
        [map[1], map[2]].map(|n| (n + side - 1) / side * side)
    }
}

/// The encoder's tensors are `[B, H, W, C]`.
pub(super) fn size(x: &Tensor) -> [i64; 4] {
    x.size4().expect("the encoder's tensors are [B, H, W, C]").into()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn joining_undoes_splitting_and_padding_is_the_filling() {
        let x = Tensor::rand([2, 5, 5, 6], (Kind::Float, Device::Cpu));
        let windows = Windows { side: Some(3), heads: 2 };
        let split = windows.split(&x, Some(&Tensor::from_slice(&[1_f32, 2., 3., 4., 5., 6.])));
        assert_eq!(split.size(), [2 * 4 * 2, 9, 3]);
        // The last window of the first image, its second head: two rows and columns of the map, then the filling.
        let last = split.get(7).view([3, 3, 3]);
        assert_eq!(last.narrow(0, 0, 2).narrow(1, 0, 2), x.get(0).narrow(0, 3, 2).narrow(1, 3, 2).narrow(2, 3, 3));
        for (row, column) in [(0, 2), (1, 2), (2, 0), (2, 1), (2, 2)] {
            assert_eq!(last.get(row).get(column), Tensor::from_slice(&[4_f32, 5., 6.]));
        }
        assert_eq!(windows.join(&split, [2, 5, 5, 6]), x);
        let whole = Windows { side: None, heads: 2 };
        assert_eq!(whole.join(&whole.split(&x, None), [2, 5, 5, 6]), x);
    }
}
