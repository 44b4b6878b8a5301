//! SAM's mask decoder: an image embedding and encoded prompts to mask logits and predicted scores.
//!
//! Each object knows its image: `P` objects are `P` decodings (the official code pairs each object with each image). What is
//! wanted of an image alone is computed once for all of its objects.

use crate::groups::DECODER;
use stage_api::{MaskChoice, sent};
use tch::{Device, Kind, Tensor};

use crate::architecture::EMBEDDING;
use crate::checkpoint::Weights;
use crate::layers::{Conv, LayerNorm, Linear, Scope, channels_last, gelu_owned, linear};
use crate::prompt_encoder::EncodedPrompts;
use crate::transformer::{Image, TwoWayTransformer};

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
        let mut scope = Scope::new(weights, "mask_decoder", DECODER);
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

    /// `embedding` `[B, C, g, g]`, `positions` `[1, C, g, g]`, for each of `P` objects the image that it is in; gives logits
    /// `[P, M, 4g, 4g]` and scores `[P, M]`.
    pub(crate) fn forward(
        &self,
        embedding: &Tensor,
        images: &[i64],
        positions: &Tensor,
        prompts: &EncodedPrompts,
        choice: MaskChoice,
    ) -> (Tensor, Tensor) {
        let (objects, grid) = (images.len() as i64, embedding.size()[2]);
        if images.is_empty() {
            let count = mask_tokens(choice).len() as i64;
            let empty = |size: &[i64]| Tensor::zeros(size, (Kind::Float, embedding.device()));
            return (empty(&[0, count, 4 * grid, 4 * grid]), empty(&[0, count]));
        }
        let (embedding, positions) = (as_tokens(embedding), as_tokens(positions));
        let own = self.own_tokens().unsqueeze(0).expand([objects, -1, -1], false);
        let tokens = Tensor::cat(&[&own, &prompts.tokens], 1);
        let index = sent(&Tensor::from_slice(images), embedding.device());
        let shared = prompts.dense.size()[0] == 1;

        // Where the dense prompt is the same for all objects, so is what the first layer sees of their image.
        let of_images = shared.then(|| Image::new(&embedding + as_tokens(&prompts.dense), &positions));
        let image_of = |first: i64, count: i64| match &of_images {
            Some(all) if count == 1 => all.of(images[first as usize]),
            Some(all) => all.select(&index.narrow(0, first, count)),
            None => {
                let dense = as_tokens(&prompts.dense.narrow(0, first, count));
                Image::new(embedding.index_select(0, &index.narrow(0, first, count)) + dense, &positions)
            }
        };
        // On a CPU one object after the other: its tensors stay in the cache, where those of 32 would go through memory.
        let step = if embedding.device() == Device::Cpu { 1 } else { objects };
        let (logits, scores): (Vec<Tensor>, Vec<Tensor>) = (0..objects)
            .step_by(step as usize)
            .map(|first| {
                let tokens = tokens.narrow(0, first, step);
                self.decode(&tokens, &image_of(first, step), &positions, grid, choice)
            })
            .unzip();
        (Tensor::cat(&logits, 0), Tensor::cat(&scores, 0))
    }

    /// The image of each object, `[P, C, g, g]`, and its prompts: nothing here counts the objects, so that what is traced of it
    /// takes any number of them.
    pub(crate) fn forward_traced(
        &self,
        images: &Tensor,
        positions: &Tensor,
        prompts: &EncodedPrompts,
        choice: MaskChoice,
    ) -> (Tensor, Tensor) {
        let positions = as_tokens(positions);
        let image = Image::new(as_tokens(images) + as_tokens(&prompts.dense), &positions);
        let own = self.own_tokens();
        let own = own.expand_as(&as_tokens(images).narrow(1, 0, own.size()[0]));
        let tokens = Tensor::cat(&[&own, &prompts.tokens], 1);
        self.decode(&tokens, &image, &positions, images.size()[2], choice)
    }

    /// The score's token and the masks', `[1 + 4, C]`.
    fn own_tokens(&self) -> Tensor {
        Tensor::cat(&[&self.score_token, &self.mask_tokens], 0)
    }

    /// The objects whose `tokens` are `[P, N, C]`, with the image of each.
    fn decode(
        &self,
        tokens: &Tensor,
        image: &Image,
        positions: &Tensor,
        grid: i64,
        choice: MaskChoice,
    ) -> (Tensor, Tensor) {
        let chosen = mask_tokens(choice);
        let (tokens, image) = self.transformer.forward(tokens, 1 + chosen.end as i64, image, positions);
        let weights: Vec<Tensor> =
            chosen.clone().map(|i| self.hypernetworks[i].forward(&tokens.select(1, 1 + i as i64))).collect();
        let count = weights.len() as i64;
        let logits = Tensor::stack(&weights, 1).matmul(&self.upscale(&image).transpose(1, 2));
        let scores = self.score_head.forward(&tokens.select(1, 0));
        (unfold(&logits, grid), scores.narrow(1, chosen.start as i64, count))
    }

    /// `[P, g · g, C]` to `[P, g · g · 4 · 4, C / 8]`: each cell's four parts, row-major, and the four of each of these. A
    /// transposed convolution of stride 2 whose kernel is 2 makes them of each cell by itself: a linear map.
    fn upscale(&self, image: &Tensor) -> Tensor {
        let double = |x: &Tensor, conv: &Conv| {
            let weight = conv.weight.permute([2, 3, 1, 0]).flatten(0, 2);
            let y = linear(x, &weight, Some(&conv.bias.repeat([4])));
            y.unflatten(2, [4, -1]).flatten(1, 2)
        };
        let x = gelu_owned(self.upscaling_norm.forward(&double(image, &self.first_upscaling)));
        gelu_owned(double(&x, &self.second_upscaling))
    }
}

/// `[B, C, g, g]` as `[B, g · g, C]`.
fn as_tokens(x: &Tensor) -> Tensor {
    channels_last(x).flatten(1, 2).contiguous()
}

/// The mask tokens that are asked for.
fn mask_tokens(choice: MaskChoice) -> std::ops::Range<usize> {
    match choice {
        MaskChoice::Single => 0..1,
        MaskChoice::Three => 1..MASK_TOKENS,
    }
}

/// `[P, M, g · g · 4 · 4]`, as [`MaskDecoder::upscale`] orders them, to `[P, M, 4g, 4g]`.
fn unfold(logits: &Tensor, grid: i64) -> Tensor {
    let nested = logits.unflatten(2, [grid, grid, 2, 2, 2, 2]);
    nested.permute([0, 1, 2, 4, 6, 3, 5, 7]).flatten(5, 7).flatten(2, 4)
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
