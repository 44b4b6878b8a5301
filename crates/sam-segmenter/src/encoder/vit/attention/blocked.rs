//! Attention on the CPU in parts that stay in the cache, with its own backward pass.
//!
//! The forward pass goes through the queries, the backward pass through the keys: there all products but one are then of
//! contiguous operands. What is kept between them is the logarithm of each query's softmax denominator (`[G, N]`); the
//! probabilities are computed again. Powers of two take libtorch a fifth of the time of powers of e, so scores are in
//! units of log 2.

use std::f64::consts::{LN_2, LOG2_E};

use tch::{Kind, Tensor};

use super::Grids;
use crate::layers::linear;

/// Scores that are computed at once: 8 MiB. Products of half as many are slower by a seventh, those of twice as many no
/// faster.
const SCORES: i64 = 1 << 21;

/// The result of attention and what its backward pass needs of the forward pass.
pub(in super::super) struct Attended {
    /// `[G, N, d]`.
    pub(in super::super) output: Tensor,
    /// `[G, N]`: the binary logarithm of the softmax's denominator.
    log_sums: Tensor,
}

/// Some of the grids, all tokens or some rows of them.
struct Part {
    first_grid: i64,
    grids: i64,
    first_row: i64,
    rows: i64,
}

impl Part {
    /// Parts that together are all pairs: whole grids while they are small, else rows of one.
    fn all(grids: i64, side: i64) -> impl Iterator<Item = Self> {
        let tokens = side * side;
        let at_once = (SCORES / (tokens * tokens)).clamp(1, grids);
        let rows = if at_once > 1 { side } else { (SCORES / (tokens * side)).clamp(1, side) };
        let steps = |count: i64, step: i64| (0..count).step_by(step as usize).map(move |i| (i, step.min(count - i)));
        steps(grids, at_once).flat_map(move |(first_grid, grids)| {
            steps(side, rows).map(move |(first_row, rows)| Self { first_grid, grids, first_row, rows })
        })
    }

    /// Its grids of `[G, …]`.
    fn grids(&self, x: &Tensor) -> Tensor {
        x.narrow(0, self.first_grid, self.grids)
    }

    /// Its tokens of `[G, N, …]`.
    fn tokens(&self, x: &Tensor, side: i64) -> Tensor {
        self.grids(x).narrow(1, self.first_row * side, self.rows * side)
    }

    /// Its rows of `[G, side, …]`.
    fn rows(&self, x: &Tensor) -> Tensor {
        self.grids(x).narrow(1, self.first_row, self.rows)
    }
}

/// Without graph: to be called where no gradients are recorded.
pub(in super::super) fn forward(x: &Grids<'_>) -> Attended {
    let (count, tokens, width) = x.q.size3().expect("queries are [G, N, d]");
    let side = x.side;
    let mut q = x.q * LOG2_E;
    let map = q.view([count, side, side, width]);
    let [rows, columns] = &x.relative;
    let by_row = Tensor::einsum("ghwc,hkc->ghwk", &[&map, rows], None::<i64>).reshape([count, tokens, side, 1]);
    let by_column = Tensor::einsum("ghwc,wkc->ghwk", &[&map, columns], None::<i64>).reshape([count, tokens, 1, side]);
    q *= x.scale();
    let values = x.v.transpose(1, 2).contiguous();
    let output = x.q.empty_like();
    let log_sums = Tensor::empty([count, tokens], (Kind::Float, x.q.device()));

    for part in Part::all(count, side) {
        let mut scores = product(&part.tokens(&q, side), &part.grids(x.k));
        let mut map = scores.view([part.grids, part.rows * side, side, side]);
        map += part.tokens(&by_row, side);
        map += part.tokens(&by_column, side);
        let highest = scores.amax(-1, true);
        scores -= &highest;
        let weights = scores.exp2_();
        let sums = weights.sum_dim_intlist(-1, true, None);
        part.tokens(&output, side).copy_(&(product(&weights, &part.grids(&values)) / &sums));
        part.tokens(&log_sums, side).copy_(&(highest + sums.log2()).squeeze_dim(-1));
    }
    Attended { output, log_sums }
}

/// Gradients of q, k and v for one of the output, those that are wanted. Without graph.
pub(in super::super) fn backward(
    x: &Grids<'_>,
    attended: &Attended,
    gradient: &Tensor,
    wanted: [bool; 3],
) -> [Option<Tensor>; 3] {
    let (count, tokens, width) = x.q.size3().expect("queries are [G, N, d]");
    let side = x.side;
    let [rows, columns] = &x.relative;
    let mut q = x.q * LOG2_E;
    let map = q.view([count, side, side, width]);
    // Bias and denominator, by the key's row or column first.
    let mut by_row = Tensor::einsum("ghwc,hkc->gkhw", &[&map, rows], None::<i64>).reshape([count, side, 1, tokens]);
    by_row -= attended.log_sums.view([count, 1, 1, tokens]);
    let by_column = Tensor::einsum("ghwc,wkc->gkhw", &[&map, columns], None::<i64>).reshape([count, 1, side, tokens]);
    q *= x.scale();
    let transposed = |x: &Tensor| x.transpose(1, 2).contiguous();
    let (gradient_t, q_t) = (transposed(gradient), transposed(&q));
    // What the softmax's normalisation takes from each score's gradient: the mean over its keys.
    let mean = (gradient * &attended.output).sum_dim_intlist(-1, false, None).unsqueeze(1);

    let [mut dq, dq_by_row, dq_by_column] =
        [width, side, side].map(|n| Tensor::zeros([count, n, tokens], (Kind::Float, q.device())));
    let [dk, dv] = [x.k, x.v].map(Tensor::empty_like);
    for part in Part::all(count, side) {
        let keys = part.tokens(x.k, side);
        let mut scores = product(&keys, &part.grids(&q));
        let shape = [part.grids, part.rows, side, tokens];
        let mut map = scores.view(shape);
        map += part.rows(&by_row);
        map += part.grids(&by_column);
        let weights = scores.exp2_();
        if wanted[2] {
            part.tokens(&dv, side).copy_(&product(&weights, &part.grids(&gradient_t)));
        }
        if !(wanted[0] || wanted[1]) {
            continue;
        }
        let mut changes = product(&part.tokens(x.v, side), &part.grids(gradient));
        changes -= part.grids(&mean);
        changes *= &weights;
        if wanted[1] {
            part.tokens(&dk, side).copy_(&product(&changes, &part.grids(&q_t)));
        }
        if wanted[0] {
            let map = changes.view(shape);
            add(&part.grids(&dq), &product_over_rows(&keys, &changes));
            add(&part.rows(&dq_by_row), &map.sum_dim_intlist(2, false, None));
            add(&part.grids(&dq_by_column), &map.sum_dim_intlist(1, false, None));
        }
    }
    let dq = wanted[0].then(|| {
        let map = |x: &Tensor| x.view([count, -1, side, side]);
        dq *= x.scale();
        let by_row = Tensor::einsum("gkhw,hkc->ghwc", &[&map(&dq_by_row), rows], None::<i64>);
        let by_column = Tensor::einsum("gkhw,wkc->ghwc", &[&map(&dq_by_column), columns], None::<i64>);
        (by_row + by_column).reshape([count, tokens, width]) + dq.transpose(1, 2)
    });
    // Keys met queries in units of log 2.
    [dq, wanted[1].then(|| dk * LN_2), wanted[2].then_some(dv)]
}

fn add(sum: &Tensor, x: &Tensor) {
    let mut sum = sum.shallow_clone();
    sum += x;
}

/// `a · bᵀ`: `[g, m, k]` and `[g, n, k]` to `[g, m, n]`.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    if a.size()[0] == 1 {
        linear(&a.squeeze_dim(0), &b.squeeze_dim(0), None).unsqueeze(0)
    } else {
        a.bmm(&b.transpose(1, 2))
    }
}

/// `aᵀ · b`: `[g, k, m]` and `[g, k, n]` to `[g, m, n]`, where `n` is the large side.
fn product_over_rows(a: &Tensor, b: &Tensor) -> Tensor {
    if a.size()[0] == 1 {
        // Rows are the channels of a picture of `n` pixels.
        let weight = a.squeeze_dim(0).tr().contiguous().unsqueeze(-1).unsqueeze(-1);
        b.unsqueeze(-1).conv2d::<Tensor>(&weight, None, 1, 0, 1, 1).squeeze_dim(-1)
    } else {
        a.transpose(1, 2).bmm(b)
    }
}

#[cfg(test)]
pub(super) mod tests {

    use super::super::plain;
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    pub(in super::super) struct Example {
        qkv: [Tensor; 3],
        tables: [Tensor; 2],
        side: i64,
        /// Of the output.
        gradient: Tensor,
    }

    pub(in super::super) fn example(count: i64, side: i64, width: i64) -> Example {
        // Not libtorch's numbers, which tests at the same time take from one stream. Variance 1.
        let mut rng = ChaCha8Rng::seed_from_u64(side as u64);
        let mut random = |shape: &[i64]| {
            let count = shape.iter().product::<i64>();
            let values: Vec<f32> = (0..count).map(|_| rng.random_range(-1.732..1.732)).collect();
            Tensor::from_slice(&values).reshape(shape)
        };
        Example {
            qkv: std::array::from_fn(|_| random(&[count, side * side, width]).set_requires_grad(true)),
            tables: std::array::from_fn(|_| random(&[2 * side - 1, width]) * 0.3),
            side,
            gradient: random(&[count, side * side, width]),
        }
    }

    /// The output, and the gradients of q, k and v by autograd.
    pub(in super::super) fn gradients(
        example: &Example,
        attention: impl Fn(&Grids<'_>) -> Tensor,
    ) -> (Tensor, Vec<Tensor>) {
        let output = attention(&example.grids());
        let gradients = Tensor::run_backward(&[(&output * &example.gradient).sum(None)], &example.qkv, false, false);
        (output.detach(), gradients)
    }

    pub(in super::super) fn apart(a: &Tensor, b: &Tensor) -> f64 {
        ((a - b).abs().max() / b.abs().max()).double_value(&[])
    }

    impl Example {
        fn grids(&self) -> Grids<'_> {
            Grids::new(self.qkv.each_ref(), &self.tables, self.side)
        }
    }

    #[test]
    fn blocked_attention_and_its_gradients_are_those_of_the_formula() {
        // Several grids at once; rows of one grid, the last part smaller.
        for (count, side, width) in [(300, 14, 8), (2, 5, 12), (2, 46, 16)] {
            let example = example(count, side, width);
            let (expected, slow) = gradients(&example, plain::forward);
            tch::no_grad(|| {
                let attended = forward(&example.grids());
                assert!(apart(&attended.output, &expected) < 1e-5);
                let fast = backward(&example.grids(), &attended, &example.gradient, [true; 3]);
                for (a, b) in fast.iter().flatten().zip(&slow) {
                    assert!(apart(a, b) < 2e-5, "{}", apart(a, b));
                }
                let one = backward(&example.grids(), &attended, &example.gradient, [true, false, false]);
                assert!(one[1].is_none() && one[2].is_none() && one[0] == fast[0]);
            });
        }
    }

    #[test]
    fn scores_far_apart_neither_overflow_nor_vanish() {
        let mut example = example(2, 5, 8);
        example.qkv = example.qkv.map(|x| (x * 40.0).detach().set_requires_grad(true));
        let expected = plain::forward(&example.grids()).detach();
        tch::no_grad(|| assert!(apart(&forward(&example.grids()).output, &expected) < 1e-4));
    }
}
