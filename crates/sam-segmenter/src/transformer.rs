//! The decoder's transformer: tokens look at the image, and the image at the tokens.

use tch::Tensor;

use crate::architecture::EMBEDDING;
use crate::layers::{LayerNorm, Linear, Scope};

const LAYERS: usize = 2;
const HEADS: i64 = 8;
const MLP: i64 = 2048;

pub(crate) struct TwoWayTransformer {
    layers: Vec<Layer>,
    final_attention: Attention,
    final_norm: LayerNorm,
}

impl TwoWayTransformer {
    pub(crate) fn take(mut scope: Scope<'_>) -> Self {
        Self {
            layers: (0..LAYERS).map(|i| Layer::take(scope.at(format_args!("layers.{i}")))).collect(),
            final_attention: Attention::take(scope.at("final_attn_token_to_image"), EMBEDDING / 2),
            final_norm: LayerNorm::take(scope.at("norm_final_attn"), EMBEDDING, LayerNorm::EPS),
        }
    }

    /// `tokens` `[B, N, C]`, `image` `[B, P, C]` and its positional encoding `[1, P, C]`; both come out processed.
    pub(crate) fn forward(&self, tokens: &Tensor, image: &Tensor, image_positions: &Tensor) -> (Tensor, Tensor) {
        let (mut queries, mut keys) = (tokens.shallow_clone(), image.shallow_clone());
        for (i, layer) in self.layers.iter().enumerate() {
            let first = if i == 0 { Order::First } else { Order::Later };
            (queries, keys) = layer.forward(&queries, &keys, tokens, image_positions, first);
        }
        let seen = self.final_attention.forward(&(&queries + tokens), &(&keys + image_positions), &keys);
        (self.final_norm.forward(&(queries + seen)), keys)
    }
}

/// The first layer's self-attention replaces the tokens and leaves out their positions.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    First,
    Later,
}

struct Layer {
    self_attention: Attention,
    norm1: LayerNorm,
    token_to_image: Attention,
    norm2: LayerNorm,
    mlp_in: Linear,
    mlp_out: Linear,
    norm3: LayerNorm,
    image_to_token: Attention,
    norm4: LayerNorm,
}

impl Layer {
    fn take(mut scope: Scope<'_>) -> Self {
        Self {
            self_attention: Attention::take(scope.at("self_attn"), EMBEDDING),
            norm1: LayerNorm::take(scope.at("norm1"), EMBEDDING, LayerNorm::EPS),
            token_to_image: Attention::take(scope.at("cross_attn_token_to_image"), EMBEDDING / 2),
            norm2: LayerNorm::take(scope.at("norm2"), EMBEDDING, LayerNorm::EPS),
            mlp_in: Linear::take(scope.at("mlp.lin1"), EMBEDDING, MLP),
            mlp_out: Linear::take(scope.at("mlp.lin2"), MLP, EMBEDDING),
            norm3: LayerNorm::take(scope.at("norm3"), EMBEDDING, LayerNorm::EPS),
            norm4: LayerNorm::take(scope.at("norm4"), EMBEDDING, LayerNorm::EPS),
            image_to_token: Attention::take(scope.at("cross_attn_image_to_token"), EMBEDDING / 2),
        }
    }

    fn forward(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        query_pe: &Tensor,
        key_pe: &Tensor,
        order: Order,
    ) -> (Tensor, Tensor) {
        let queries = match order {
            Order::First => self.self_attention.forward(queries, queries, queries),
            Order::Later => {
                let q = queries + query_pe;
                queries + self.self_attention.forward(&q, &q, queries)
            }
        };
        let queries = self.norm1.forward(&queries);

        let keys_at = keys + key_pe;
        let seen = self.token_to_image.forward(&(&queries + query_pe), &keys_at, keys);
        let queries = self.norm2.forward(&(queries + seen));

        let thought = self.mlp_out.forward(&self.mlp_in.forward(&queries).relu());
        let queries = self.norm3.forward(&(queries + thought));

        let told = self.image_to_token.forward(&keys_at, &(&queries + query_pe), &queries);
        let keys = self.norm4.forward(&(keys + told));
        (queries, keys)
    }
}

/// Multi-head attention whose inner width may be smaller than the embedding's.
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

impl Attention {
    fn take(mut scope: Scope<'_>, inner: i64) -> Self {
        Self {
            q: Linear::take(scope.at("q_proj"), EMBEDDING, inner),
            k: Linear::take(scope.at("k_proj"), EMBEDDING, inner),
            v: Linear::take(scope.at("v_proj"), EMBEDDING, inner),
            out: Linear::take(scope.at("out_proj"), inner, EMBEDDING),
        }
    }

    fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let heads = |x: Tensor| x.unflatten(-1, [HEADS, -1]).transpose(1, 2);
        let (q, k, v) = (heads(self.q.forward(q)), heads(self.k.forward(k)), heads(self.v.forward(v)));
        let y = Tensor::scaled_dot_product_attention::<Tensor>(&q, &k, &v, None, 0.0, false, None, false);
        self.out.forward(&y.transpose(1, 2).flatten(2, 3))
    }
}
