//! Attention by libtorch's fused kernel, which autograd goes back through: for GPUs, and for numbers of 16 bits.
//!
//! The kernel takes a product of two vectors for each pair, and a mask only at the price of a tensor of all pairs. So the bias
//! becomes a part of the product: beside each query stand its bias for each row and for each column of keys, beside each key
//! ones at its own row and column.

use tch::{Kind, Tensor};

use super::Grids;

/// GPU kernels want the length of a vector to be a multiple of this.
const ALIGNMENT: i64 = 8;

pub(in super::super) fn forward(grids: &Grids<'_>) -> Tensor {
    let (count, tokens, width) = grids.q.size3().expect("queries are [G, N, d]");
    let side = grids.side;
    let map = grids.q.view([count, side, side, width]);
    let [rows, columns] = &grids.relative;
    // [G, h, w, d] · [h, d, k], and · [w, d, k].
    let by_row = map.matmul(&rows.transpose(1, 2));
    let by_column = map.transpose(1, 2).matmul(&columns.transpose(1, 2)).transpose(1, 2);
    let padding = (ALIGNMENT - (width + 2 * side) % ALIGNMENT) % ALIGNMENT;
    let to_aligned = |x: &Tensor, missing: i64| x.constant_pad_nd([0, missing]).unsqueeze(0);

    let q = Tensor::cat(&[&(&map * grids.scale()), &by_row, &by_column], -1).view([count, tokens, -1]);
    let places = places(side, grids.q).unsqueeze(0).expand([count, -1, -1], false);
    let k = Tensor::cat(&[grids.k, &places], -1);
    let [q, k] = [q, k].map(|x| to_aligned(&x, padding));
    // Flash attention wants values as long as queries.
    let v = to_aligned(grids.v, 2 * side + padding);
    let y = Tensor::scaled_dot_product_attention::<Tensor>(&q, &k, &v, None, 0.0, false, Some(1.0), false);
    y.squeeze_dim(0).narrow(2, 0, width)
}

/// `[side², 2 · side]`: a one at each token's row, and one at its column.
fn places(side: i64, like: &Tensor) -> Tensor {
    let one = Tensor::eye(side, (Kind::Float, like.device())).to_kind(like.kind());
    let rows = one.unsqueeze(1).expand([side, side, side], false);
    let columns = one.unsqueeze(0).expand([side, side, side], false);
    Tensor::cat(&[rows, columns], -1).view([side * side, 2 * side])
}

#[cfg(test)]
mod tests {
    use super::super::blocked::tests::{apart, example, gradients};
    use super::super::plain;
    use super::*;

    #[test]
    fn fused_attention_and_its_gradients_are_those_of_the_formula() {
        for (count, side, width) in [(3, 5, 8), (2, 14, 16), (1, 16, 20)] {
            let example = example(count, side, width);
            let (expected, slow) = gradients(&example, plain::forward);
            let (found, fast) = gradients(&example, forward);
            assert!(apart(&found, &expected) < 1e-5);
            assert!(fast.iter().zip(&slow).all(|(a, b)| apart(a, b) < 1e-5));
        }
    }
}
