//! SAM's mask decoder: an image embedding and encoded prompts to mask logits and predicted scores.
//!
//! Each object knows its image: `P` objects are `P` decodings (the official code pairs each object with each image).

use stage_api::{Group, MaskChoice};
use tch::Tensor;

use crate::architecture::EMBEDDING;
use crate::checkpoint::Weights;
use crate::layers::{Conv, LayerNorm, Linear, Scope, channels_first, channels_last, gelu};
use crate::prompt_encoder::EncodedPrompts;
use crate::transformer::TwoWayTransformer;

/// One token for a single mask, then three for candidates.
const MASK_TOKENS: usize = 4;
/// Channels after the two upscaling steps.
const UPSCALED: [i64; 2] = [EMBEDDING / 4, EMBEDDING / 8];

pub(crate) struct MaskDecoder {
    score_token: Tensor,
    mask_tokens: Tensor,
    transformer: TwoWayTransformer,
    first_upscaling: Conv,
    upscaling_norm: LayerNorm,
    second_upscaling: Conv,
    /// For each mask token the perceptron that makes a mask's weights of it.
    hypernetworks: Vec<Mlp>,
    score_head: Mlp,
}

impl MaskDecoder {
    pub(crate) fn take(weights: &mut Weights) -> Self {
        let mut scope = Scope::new(weights, "mask_decoder", Group::Decoder);
        let [first, second] = UPSCALED;
        let tokens = MASK_TOKENS as i64;
        Self {
            transformer: TwoWayTransformer::take(scope.at("transformer")),
            score_token: scope.take("iou_token.weight", &[1, EMBEDDING]),
            mask_tokens: scope.take("mask_tokens.weight", &[tokens, EMBEDDING]),
            first_upscaling: Conv::take(scope.at("output_upscaling.0"), [EMBEDDING, first, 2, 2], first),
            upscaling_norm: LayerNorm::take(scope.at("output_upscaling.1"), first, LayerNorm::EPS_2D),
            second_upscaling: Conv::take(scope.at("output_upscaling.3"), [first, second, 2, 2], second),
            hypernetworks: (0..MASK_TOKENS)
                .map(|i| Mlp::take(scope.at(format_args!("output_hypernetworks_mlps.{i}.layers")), second))
                .collect(),
            score_head: Mlp::take(scope.at("iou_prediction_head.layers"), tokens),
        }
    }

    /// `embedding` `[P, C, g, g]`, `positions` `[1, C, g, g]`; gives logits `[P, M, 4g, 4g]` and scores `[P, M]`.
    pub(crate) fn forward(
        &self,
        embedding: &Tensor,
        positions: &Tensor,
        prompts: &EncodedPrompts,
        choice: MaskChoice,
    ) -> (Tensor, Tensor) {
        let (_, channels, height, width) = embedding.size4().expect("an embedding is [B, C, g, g]");
        let as_tokens = |x: &Tensor| channels_last(x).flatten(1, 2);
        let image = as_tokens(&(embedding + &prompts.dense));
        let own = Tensor::cat(&[&self.score_token, &self.mask_tokens], 0);
        // No number of objects is written down here: a traced decoder takes any.
        let own = own.expand_as(&image.narrow(1, 0, own.size()[0]));
        let tokens = Tensor::cat(&[&own, &prompts.tokens], 1);
        let (tokens, image) = self.transformer.forward(&tokens, &image, &as_tokens(positions));

        let image = channels_first(&image.view([-1, height, width, channels]));
        let upscaled = self.upscale(&image);
        let chosen = match choice {
            MaskChoice::Single => 0..1,
            MaskChoice::Three => 1..MASK_TOKENS,
        };
        let weights: Vec<Tensor> =
            chosen.clone().map(|i| self.hypernetworks[i].forward(&tokens.select(1, 1 + i as i64))).collect();
        let logits = Tensor::stack(&weights, 1).matmul(&upscaled.flatten(2, 3));
        let scores = self.score_head.forward(&tokens.select(1, 0));
        let count = chosen.len() as i64;
        (logits.view([-1, count, 4 * height, 4 * width]), scores.narrow(1, chosen.start as i64, count))
    }

    fn upscale(&self, image: &Tensor) -> Tensor {
        let double = |x: &Tensor, conv: &Conv| x.conv_transpose2d(&conv.weight, Some(&conv.bias), 2, 0, 0, 1, 1);
        let x = double(image, &self.first_upscaling);
        let x = gelu(&channels_first(&self.upscaling_norm.forward(&channels_last(&x))));
        gelu(&double(&x, &self.second_upscaling))
    }
}

/// Three linear layers with ReLU between them.
struct Mlp([Linear; 3]);

impl Mlp {
    fn take(mut scope: Scope<'_>, outputs: i64) -> Self {
        Self(std::array::from_fn(|i| Linear::take(scope.at(i), EMBEDDING, if i == 2 { outputs } else { EMBEDDING })))
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let [first, second, third] = &self.0;
        third.forward(&second.forward(&first.forward(x).relu()).relu())
    }
}
