//! The decoder's transformer: tokens look at the image, and the image at the tokens.
//!
//! Tokens are few (seven with a box), pixels are thousands. So between them nothing is computed for each pixel that can be
//! computed for each token: the maps that attention has for pixels are moved to the other side of its products. With eight
//! heads, that is less arithmetic up to sixteen tokens, and the tensors of all pixels are never split into heads.

use tch::Tensor;

use crate::architecture::EMBEDDING;
use crate::layers::{LayerNorm, Linear, Scope, linear};

const LAYERS: usize = 2;
const HEADS: i64 = 8;
const MLP: i64 = 2048;

/// The image's side of the transformer, for each object.
pub(crate) struct Image {
    /// `[P, L, C]`: what is there.
    pixels: Tensor,
    /// The same, with where it is.
    placed: Tensor,
}

impl Image {
    /// `pixels` `[P, L, C]` and their positional encoding `[1, L, C]`.
    pub(crate) fn new(pixels: Tensor, positions: &Tensor) -> Self {
        Self { placed: &pixels + positions, pixels }
    }

    /// That of the `index`-th object alone.
    pub(crate) fn of(&self, index: i64) -> Self {
        Self { pixels: self.pixels.narrow(0, index, 1), placed: self.placed.narrow(0, index, 1) }
    }

    /// Those of several objects.
    pub(crate) fn select(&self, indices: &Tensor) -> Self {
        Self { pixels: self.pixels.index_select(0, indices), placed: self.placed.index_select(0, indices) }
    }
}

pub(crate) struct TwoWayTransformer {
    layers: Vec<Layer>,
    final_attention: CrossAttention,
    final_norm: LayerNorm,
}

impl TwoWayTransformer {
    pub(crate) fn take(mut scope: Scope<'_>) -> Self {
        Self {
            layers: (0..LAYERS).map(|i| Layer::take(scope.at(format_args!("layers.{i}")))).collect(),
            final_attention: CrossAttention::take(scope.at("final_attn_token_to_image")),
            final_norm: LayerNorm::take(scope.at("norm_final_attn"), EMBEDDING, LayerNorm::EPS),
        }
    }

    /// `tokens` `[P, N, C]`, of which the first `wanted` come out, and the image with its positional encoding `[1, L, C]`,
    /// of which all pixels come out; both processed.
    pub(crate) fn forward(&self, tokens: &Tensor, wanted: i64, image: &Image, positions: &Tensor) -> (Tensor, Tensor) {
        let mut queries = tokens.shallow_clone();
        let mut seen: Option<Image> = None;
        for (i, layer) in self.layers.iter().enumerate() {
            let first = if i == 0 { Order::First } else { Order::Later };
            let image = seen.as_ref().unwrap_or(image);
            let (tokens, pixels) = layer.forward(&queries, image, tokens, first);
            (queries, seen) = (tokens, Some(Image::new(pixels, positions)));
        }
        let image = seen.as_ref().unwrap_or(image);
        let (queries, tokens) = (queries.narrow(1, 0, wanted), tokens.narrow(1, 0, wanted));
        let found = self.final_attention.tokens_to_image(&(&queries + tokens), image);
        (self.final_norm.forward(&(queries + found)), image.pixels.shallow_clone())
    }
}

/// The first layer's self-attention replaces the tokens and leaves out their positions.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    First,
    Later,
}

struct Layer {
    self_attention: SelfAttention,
    norm1: LayerNorm,
    token_to_image: CrossAttention,
    norm2: LayerNorm,
    mlp_in: Linear,
    mlp_out: Linear,
    norm3: LayerNorm,
    image_to_token: CrossAttention,
    norm4: LayerNorm,
}

impl Layer {
    fn take(mut scope: Scope<'_>) -> Self {
        Self {
            self_attention: SelfAttention::take(scope.at("self_attn")),
            norm1: LayerNorm::take(scope.at("norm1"), EMBEDDING, LayerNorm::EPS),
            token_to_image: CrossAttention::take(scope.at("cross_attn_token_to_image")),
            norm2: LayerNorm::take(scope.at("norm2"), EMBEDDING, LayerNorm::EPS),
            mlp_in: Linear::take(scope.at("mlp.lin1"), EMBEDDING, MLP),
            mlp_out: Linear::take(scope.at("mlp.lin2"), MLP, EMBEDDING),
            norm3: LayerNorm::take(scope.at("norm3"), EMBEDDING, LayerNorm::EPS),
            norm4: LayerNorm::take(scope.at("norm4"), EMBEDDING, LayerNorm::EPS),
            image_to_token: CrossAttention::take(scope.at("cross_attn_image_to_token")),
        }
    }

    fn forward(&self, queries: &Tensor, image: &Image, places: &Tensor, order: Order) -> (Tensor, Tensor) {
        let queries = match order {
            Order::First => self.self_attention.forward(queries, queries),
            Order::Later => queries + self.self_attention.forward(&(queries + places), queries),
        };
        let queries = self.norm1.forward(&queries);

        let seen = self.token_to_image.tokens_to_image(&(&queries + places), image);
        let queries = self.norm2.forward(&(queries + seen));

        let changed = self.mlp_out.forward(&self.mlp_in.forward(&queries).relu());
        let queries = self.norm3.forward(&(queries + changed));

        let mut attended = self.image_to_token.image_to_tokens(image, &(&queries + places), &queries);
        let pixels = self.norm4.forward(&attended.g_add_(&image.pixels));
        (queries, pixels)
    }
}

/// The four maps of multi-head attention, whose inner width may be smaller than the embedding's.
struct Maps {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

impl Maps {
    fn take(mut scope: Scope<'_>, inner: i64) -> Self {
        Self {
            q: Linear::take(scope.at("q_proj"), EMBEDDING, inner),
            k: Linear::take(scope.at("k_proj"), EMBEDDING, inner),
            v: Linear::take(scope.at("v_proj"), EMBEDDING, inner),
            out: Linear::take(scope.at("out_proj"), inner, EMBEDDING),
        }
    }
}

/// `[P, N, width]` to `[P, heads, N, width / heads]`.
fn heads(x: &Tensor) -> Tensor {
    x.unflatten(-1, [HEADS, -1]).transpose(1, 2)
}

/// Attention among the tokens.
struct SelfAttention(Maps);

impl SelfAttention {
    fn take(scope: Scope<'_>) -> Self {
        Self(Maps::take(scope, EMBEDDING))
    }

    fn forward(&self, placed: &Tensor, tokens: &Tensor) -> Tensor {
        let Maps { q, k, v, out } = &self.0;
        let (q, k, v) = (heads(&q.forward(placed)), heads(&k.forward(placed)), heads(&v.forward(tokens)));
        let y = Tensor::scaled_dot_product_attention::<Tensor>(&q, &k, &v, None, 0.0, false, None, false);
        out.forward(&y.transpose(1, 2).flatten(2, 3))
    }
}

/// Attention between tokens and pixels, one way or the other.
struct CrossAttention(Maps);

impl CrossAttention {
    const INNER: i64 = EMBEDDING / 2;

    fn take(scope: Scope<'_>) -> Self {
        Self(Maps::take(scope, Self::INNER))
    }

    /// What tokens `[P, N, C]` find among the pixels: `[P, N, C]`.
    fn tokens_to_image(&self, tokens: &Tensor, image: &Image) -> Tensor {
        let Maps { q, k, v, out } = &self.0;
        let count = tokens.size()[1];
        let weights = Self::scores(&q.forward(tokens), k, image).softmax(-1, None);
        // Weights sum up to 1, so the mean of mapped pixels is the mapped mean.
        let mean = weights.matmul(&image.pixels).view([-1, HEADS, count, EMBEDDING]);
        let [v_weight, v_bias] = Self::by_head(v);
        let values = mean.matmul(&v_weight.transpose(1, 2)) + v_bias.transpose(1, 2);
        out.forward(&values.transpose(1, 2).flatten(2, 3))
    }

    /// What the pixels find among the tokens: `[P, L, C]`.
    fn image_to_tokens(&self, image: &Image, placed: &Tensor, tokens: &Tensor) -> Tensor {
        let Maps { q, k, v, out } = &self.0;
        let scores = Self::scores(&k.forward(placed), q, image);
        let weights = scores.unflatten(1, [HEADS, -1]).softmax(2, None).flatten(1, 2);
        let out_by_head = out.weight.view([EMBEDDING, HEADS, -1]).permute([1, 2, 0]);
        let values = heads(&v.forward(tokens)).matmul(&out_by_head).flatten(1, 2);
        of_each(&weights.transpose(1, 2).contiguous(), &values.transpose(1, 2), &out.bias.unsqueeze(0))
    }

    /// Products of the tokens' inner vectors `[P, N, inner]` with the pixels' mapped by `map`: `[P, heads · N, L]`.
    fn scores(tokens: &Tensor, map: &Linear, image: &Image) -> Tensor {
        let tokens = heads(&(tokens * (1.0 / ((Self::INNER / HEADS) as f64).sqrt())));
        let [weight, bias] = Self::by_head(map);
        let (weight, bias) = (tokens.matmul(&weight).flatten(1, 2), tokens.matmul(&bias).flatten(1, 3));
        of_each(&image.placed, &weight, &bias).transpose(1, 2).contiguous()
    }

    /// Weight `[heads, inner / heads, C]` and bias `[heads, inner / heads, 1]` of a map to the inner width.
    fn by_head(map: &Linear) -> [Tensor; 2] {
        [map.weight.view([HEADS, -1, EMBEDDING]), map.bias.view([HEADS, -1, 1])]
    }
}

/// A linear map of its own for each object: `x` `[P, L, K]`, weights `[P, N, K]`, biases `[P or 1, N]`; gives `[P, L, N]`.
fn of_each(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    if x.size()[0] == 1 {
        return linear(&x.squeeze_dim(0), &weight.squeeze_dim(0), Some(&bias.squeeze_dim(0))).unsqueeze(0);
    }
    bias.unsqueeze(1).baddbmm(x, &weight.transpose(1, 2), 1.0, 1.0)
}
