//! SAM's prompt encoder: points, boxes and masks to the decoder's tokens and to a map that is added to the embedding.

use crate::groups::{BUFFER, PROMPT_ENCODER};
use stage_api::{BoxPrompt, Prompts, SliceSize, sent};
use tch::{Device, Kind, Tensor};

use crate::architecture::{EMBEDDING, SamArchitecture};
use crate::checkpoint::Weights;
use crate::layers::{Conv, LayerNorm, Scope, channels_first, channels_last, gelu};
use crate::preparation::scaled_size;
use crate::settings::DensePrompt;

/// Channels of the mask input's two strided convolutions.
const MASK_CHANNELS: [i64; 2] = [4, 16];

/// Name of [`DensePrompt::Embedding`]'s vector among the tensors: the only one there that no SAM checkpoint has.
pub(crate) const CAM_EMBEDDING: &str = "prompt_encoder.cam_embed.weight";

pub(crate) struct PromptEncoder {
    /// Side of the encoder's input in pixels.
    input_size: i64,
    /// Side of the embedding grid.
    grid: i64,
    /// `[2, 128]`: random frequencies of the positional encoding, for x and for y.
    frequencies: Tensor,
    /// A point outside, a point inside, a box's upper left and lower right corner.
    kinds: [Tensor; 4],
    padding_point: Tensor,
    no_mask: Tensor,
    mask_input: MaskInput,
    dense: Dense,
}

/// [`DensePrompt`] with its learned vector.
enum Dense {
    /// `[1, 256]`.
    Embedding(Tensor),
    MaskInput(f32),
    None,
}

/// What the decoder gets to see of the prompts.
pub(crate) struct EncodedPrompts {
    /// `[P, N, 256]`; `N` is 0 without points and boxes.
    pub(crate) tokens: Tensor,
    /// `[P or 1, 256, g, g]` or `[1, 256, 1, 1]`, to be added to the image embedding.
    pub(crate) dense: Tensor,
}

impl PromptEncoder {
    pub(crate) fn take(weights: &mut Weights, architecture: &SamArchitecture, dense: DensePrompt) -> Self {
        let mut scope = Scope::new(weights, "prompt_encoder", PROMPT_ENCODER);
        let vector = [1, EMBEDDING];
        let frequencies = scope.take_as("pe_layer.positional_encoding_gaussian_matrix", &[2, EMBEDDING / 2], BUFFER);
        Self {
            input_size: architecture.input_size,
            grid: architecture.grid(),
            frequencies,
            kinds: std::array::from_fn(|i| scope.take(&format!("point_embeddings.{i}.weight"), &vector)),
            padding_point: scope.take("not_a_point_embed.weight", &vector),
            mask_input: MaskInput::take(scope.at("mask_downscaling")),
            no_mask: scope.take("no_mask_embed.weight", &vector),
            dense: match dense {
                DensePrompt::Embedding => Dense::Embedding(weights.add(
                    CAM_EMBEDDING,
                    &Tensor::zeros(vector, (Kind::Float, Device::Cpu)),
                    PROMPT_ENCODER,
                )),
                DensePrompt::MaskInput { strength } => Dense::MaskInput(strength),
                DensePrompt::None => Dense::None,
            },
        }
    }

    /// `slice_size`: size of the slices whose pixels the prompts of `count` objects count.
    pub(crate) fn forward(&self, prompts: &Prompts, count: i64, slice_size: SliceSize) -> EncodedPrompts {
        let scale = self.input_pixels(slice_size);
        let mut tokens = vec![Tensor::zeros([count, 0, EMBEDDING], (Kind::Float, self.frequencies.device()))];
        if let Some((points, labels)) = &prompts.points {
            tokens.push(self.points(points, labels, &scale));
            if prompts.boxes.is_none() {
                tokens.push(self.padding_point.expand([count, 1, EMBEDDING], false));
            }
        }
        if let Some(boxes) = &prompts.boxes {
            tokens.push(self.boxes(boxes, &scale));
        }
        EncodedPrompts { tokens: Tensor::cat(&tokens, 1), dense: self.dense(prompts) }
    }

    /// Of tensors alone, so that it can be traced: boxes `[P, 4]` in pixels of the input, and masks of the CAM.
    pub(crate) fn forward_traced(&self, boxes: &Tensor, cam_mask: Option<&Tensor>) -> EncodedPrompts {
        let prompts = Prompts { cam_mask: cam_mask.map(Tensor::shallow_clone), ..Prompts::default() };
        EncodedPrompts { tokens: self.corners(&boxes.view([-1, 2, 2])), dense: self.dense(&prompts) }
    }

    /// The positional encoding of the embedding grid's cell centres, `[1, 256, g, g]`.
    pub(crate) fn grid_encoding(&self) -> Tensor {
        let grid = self.grid;
        let centres = (Tensor::arange(grid, (Kind::Float, self.frequencies.device())) + 0.5_f64) / grid as f64;
        let x = centres.view([1, grid]).expand([grid, grid], false);
        let y = centres.view([grid, 1]).expand([grid, grid], false);
        self.positions(&Tensor::stack(&[x, y], -1)).permute([2, 0, 1]).unsqueeze(0)
    }

    /// Sines and cosines of positions in `[0, 1]²`: `[…, 2]` to `[…, 256]`.
    fn positions(&self, unit: &Tensor) -> Tensor {
        let phase = (unit * 2.0 - 1.0_f64).matmul(&self.frequencies) * std::f64::consts::TAU;
        Tensor::cat(&[phase.sin(), phase.cos()], -1)
    }

    /// Pixels of the input for each of the slice, `[2]`, for x and for y: they differ where the shorter side was rounded.
    fn input_pixels(&self, slice_size: SliceSize) -> Tensor {
        let scaled = scaled_size(slice_size, self.input_size);
        let [y, x] = std::array::from_fn(|i| scaled[i] as f32 / slice_size[i].max(1) as f32);
        sent(&Tensor::from_slice(&[x, y]), self.frequencies.device())
    }

    /// Positions `[…, 2]` in pixels of the input, at the pixels' centres.
    fn pixel_positions(&self, pixels: &Tensor) -> Tensor {
        self.positions(&((pixels + 0.5_f64) / self.input_size as f64))
    }

    /// Labels are 1 and 0; -1 marks a place in the batch without a point, as SAM has it.
    fn points(&self, points: &Tensor, labels: &Tensor, scale: &Tensor) -> Tensor {
        let points = sent(points, self.frequencies.device()).to_kind(Kind::Float);
        let positions = self.pixel_positions(&(points * scale));
        let labels = sent(labels, positions.device()).unsqueeze(-1);
        let [outside, inside, ..] = &self.kinds;
        let learned = outside.where_self(&labels.eq(0), &inside.where_self(&labels.eq(1), &self.padding_point));
        positions * labels.ge(0) + learned
    }

    fn boxes(&self, boxes: &[BoxPrompt], scale: &Tensor) -> Tensor {
        let corners: Vec<f32> = boxes.iter().flat_map(|b| [b.x0, b.y0, b.x1, b.y1]).collect();
        self.corners(&(sent(&Tensor::from_slice(&corners), self.frequencies.device()).view([-1, 2, 2]) * scale))
    }

    /// `[P, 2, 2]` in pixels of the input.
    fn corners(&self, pixels: &Tensor) -> Tensor {
        let positions = self.pixel_positions(pixels);
        let [.., upper_left, lower_right] = &self.kinds;
        positions + Tensor::cat(&[upper_left, lower_right], 0)
    }

    /// An explicit mask input wins over one that would be made of the CAM.
    fn dense(&self, prompts: &Prompts) -> Tensor {
        let (device, grid) = (self.frequencies.device(), self.grid);
        // The mask's place in the square input: what lies beside it at the right and bottom is padding, outside any mask.
        let averaged = |cam: &Tensor, side: i64| {
            let (_, _, height, width) = cam.size4().expect("a CAM's mask is [P, 1, H, W]");
            let longest = height.max(width);
            let square = sent(cam, device).constant_pad_nd([0, longest - width, 0, longest - height]);
            square.adaptive_avg_pool2d([side, side])
        };
        let no_mask = || self.no_mask.view([1, EMBEDDING, 1, 1]);
        let base = match (&prompts.mask_logits, &self.dense, &prompts.cam_mask) {
            (Some(logits), ..) => self.mask_input.forward(&sent(logits, device)),
            (None, Dense::MaskInput(strength), Some(cam)) => {
                let mask = averaged(cam, 4 * grid);
                self.mask_input.forward(&((mask * 2.0 - 1.0) * f64::from(*strength)))
            }
            _ => no_mask(),
        };
        match (&self.dense, &prompts.cam_mask) {
            (Dense::Embedding(vector), Some(cam)) => {
                let coverage = averaged(cam, grid);
                base + coverage * vector.view([1, EMBEDDING, 1, 1])
            }
            _ => base,
        }
    }
}

/// Mask logits at four times the embedding grid, to the embedding's channels.
struct MaskInput {
    first: Conv,
    first_norm: LayerNorm,
    second: Conv,
    second_norm: LayerNorm,
    widen: Conv,
}

impl MaskInput {
    fn take(mut scope: Scope<'_>) -> Self {
        let [first, second] = MASK_CHANNELS;
        Self {
            first: Conv::take(scope.at(0), [first, 1, 2, 2], first),
            first_norm: LayerNorm::take(scope.at(1), first, LayerNorm::EPS_2D),
            second: Conv::take(scope.at(3), [second, first, 2, 2], second),
            second_norm: LayerNorm::take(scope.at(4), second, LayerNorm::EPS_2D),
            widen: Conv::take(scope.at(6), [EMBEDDING, second, 1, 1], EMBEDDING),
        }
    }

    fn forward(&self, logits: &Tensor) -> Tensor {
        let halve = |x: &Tensor, conv: &Conv| channels_last(&x.conv2d(&conv.weight, Some(&conv.bias), 2, 0, 1, 1));
        let x = gelu(&self.first_norm.forward(&halve(logits, &self.first)));
        let x = gelu(&self.second_norm.forward(&halve(&channels_first(&x), &self.second)));
        channels_first(&x.linear(&self.widen.weight.flatten(1, -1), Some(&self.widen.bias)))
    }
}
