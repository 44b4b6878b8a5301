//! The slow twin of the other kernels: every pair's score in one tensor, as the formula is written.

use tch::Tensor;

use super::Grids;

pub(super) fn forward(grids: &Grids<'_>) -> Tensor {
    let (count, tokens, width) = grids.q.size3().expect("queries are [G, N, d]");
    let side = grids.side;
    let q = grids.q.view([count, side, side, width]);
    let [rows, columns] = &grids.relative;
    let by_row = Tensor::einsum("ghwc,hkc->ghwk", &[&q, rows], None::<i64>).unsqueeze(-1);
    let by_column = Tensor::einsum("ghwc,wkc->ghwk", &[&q, columns], None::<i64>).unsqueeze(-2);
    let scores = (grids.q * grids.scale()).matmul(&grids.k.transpose(1, 2));
    let scores = scores + (by_row + by_column).reshape([count, tokens, tokens]);
    scores.softmax(-1, None).matmul(grids.v)
}
