//! Low-rank adapters on the queries and values of an attention layer (Hu et al., 2021; on q and v as in SAMed).

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use stage_api::Group;
use tch::Tensor;

use crate::layers::Scope;
use crate::settings::LoraInit;

/// `ΔW = B · A` for q and for v, without bias and without the α/r factor.
pub(super) struct Lora {
    a_q: Tensor,
    b_q: Tensor,
    a_v: Tensor,
    b_v: Tensor,
}

impl Lora {
    /// Adapters of the given rank for an attention of `width` channels; `B = 0`, so that they change nothing at first.
    pub(super) fn new(scope: &mut Scope<'_>, width: i64, rank: usize, init: LoraInit, rng: &mut ChaCha8Rng) -> Self {
        let rank = rank as i64;
        let a = |rng: &mut ChaCha8Rng| random_a(rank * width, init, width as f32, rng).view([rank, width]);
        let b = || Tensor::zeros([width, rank], (tch::Kind::Float, tch::Device::Cpu));
        Self {
            a_q: scope.add("lora_a_q", &a(rng), Group::Lora),
            b_q: scope.add("lora_b_q", &b(), Group::Lora),
            a_v: scope.add("lora_a_v", &a(rng), Group::Lora),
            b_v: scope.add("lora_b_v", &b(), Group::Lora),
        }
    }

    /// The frozen weight `[heads · 3 · d, width]`, whose rows are q, k, v of the first head, then of the next, with the
    /// adapters' product added to the rows of q and v.
    pub(super) fn adapt(&self, weight: &Tensor, heads: i64) -> Tensor {
        let per_head = |b: &Tensor, a: &Tensor| b.matmul(a).view([heads, 1, -1, weight.size()[1]]);
        let (q, v) = (per_head(&self.b_q, &self.a_q), per_head(&self.b_v, &self.a_v));
        let delta = Tensor::cat(&[&q, &q.zeros_like(), &v], 1);
        weight + delta.view_as(weight)
    }
}

fn random_a(count: i64, init: LoraInit, fan_in: f32, rng: &mut ChaCha8Rng) -> Tensor {
    let uniform = |rng: &mut ChaCha8Rng| rng.random_range(f32::EPSILON..1.0);
    let values: Vec<f32> = (0..count)
        .map(|_| match init {
            LoraInit::Kaiming => (2.0 * uniform(rng) - 1.0) / fan_in.sqrt(),
            // Box–Muller.
            LoraInit::Gaussian => {
                0.01 * (-2.0 * uniform(rng).ln()).sqrt() * (std::f32::consts::TAU * uniform(rng)).cos()
            }
        })
        .collect();
    Tensor::from_slice(&values)
}
