//! SAM's vision transformer: attention in windows, in some blocks among all tokens, with relative positions by axis.
//!
//! Inside, tensors are `[B, H, W, C]`, as in the official code.

mod attention;
mod backward;
mod block;
mod positions;
mod windows;

use std::rc::Rc;

use tch::{Kind, Tensor};

use self::block::Block;
use self::positions::resized_positions;
use super::Encoded;
use super::lora::{LoraFactory, Pass};
use super::neck::Neck;
use crate::architecture::VitArchitecture;
use crate::checkpoint::Weights;
use crate::layers::{Scope, channels_last, for_input};
use crate::settings::{EncoderPart, Memory, SegmenterSettings};

pub(super) struct Vit {
    patch_weight: Tensor,
    patch_bias: Tensor,
    patch: i64,
    /// `[1, g, g, C]`.
    positions: Tensor,
    blocks: Vec<Rc<Block>>,
    neck: Neck,
    memory: Memory,
    precision: Kind,
    /// Whether its own weights are trained.
    is_whole: bool,
}

impl Vit {
    pub(super) fn take(
        weights: &mut Weights,
        shape: &VitArchitecture,
        grid: i64,
        settings: &SegmenterSettings,
        lora: &mut LoraFactory<'_>,
    ) -> Self {
        let mut scope = Scope::new(weights, "image_encoder", super::group(settings));
        let &VitArchitecture { width, depth, patch, .. } = shape;
        Self {
            positions: resized_positions(&scope.take("pos_embed", &[1, shape.grid, shape.grid, width]), grid),
            patch_weight: scope.take("patch_embed.proj.weight", &[width, 3, patch, patch]),
            patch_bias: scope.take("patch_embed.proj.bias", &[width]),
            patch,
            blocks: (0..depth)
                .map(|i| Rc::new(Block::take(scope.at(format_args!("blocks.{i}")), shape, grid, i, lora)))
                .collect(),
            neck: Neck::take(scope.at("neck"), width),
            memory: settings.memory,
            precision: settings.precision.kind(),
            is_whole: settings.encoder == EncoderPart::Whole,
        }
    }

    /// Patches and their positions, `[B, g, g, C]`.
    pub(super) fn features(&self, input: &Tensor) -> Tensor {
        let weight = for_input(&self.patch_weight, input);
        let weight = if input.size()[1] == 1 { weight.sum_dim_intlist(1, true, None) } else { weight };
        let patches = input.conv2d(&weight, Some(&for_input(&self.patch_bias, input)), self.patch, 0, 1, 1);
        channels_last(&patches).to_kind(Kind::Float) + &self.positions
    }

    pub(super) fn forward(&self, features: &Tensor, pass: Pass) -> Encoded {
        let is_blocked = || attention::is_blocked(features.device(), self.precision);
        let by_graph = self.is_whole || self.memory == Memory::Keep && !is_blocked();
        if pass.mode.is_training() && !by_graph {
            return backward::forward(&self.blocks, &self.neck, features, pass, self.memory, self.precision);
        }
        let x = self.blocks.iter().fold(features.shallow_clone(), |x, block| block.forward(&x, pass));
        self.neck.forward(&x, self.precision).into()
    }

    /// What each layer makes of the features, by its name in the official code.
    pub(super) fn by_layer(&self, features: &Tensor, pass: Pass) -> Vec<(String, Tensor)> {
        let mut outputs = vec![("patch_embed".to_owned(), features - &self.positions)];
        let mut x = features.shallow_clone();
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, pass);
            outputs.push((format!("blocks.{i}"), x.shallow_clone()));
        }
        outputs.push(("neck".to_owned(), self.neck.forward(&x, self.precision)));
        outputs
    }

    /// What a tensor of the file is resized to for another input than the file's, by its name.
    pub(super) fn resized(name: &str, tensor: &Tensor, shape: &VitArchitecture, grid: i64) -> Option<Tensor> {
        positions::resized(name, tensor, shape, grid)
    }

    pub(super) fn merged_weights(&self) -> Vec<(String, Tensor)> {
        self.blocks.iter().flat_map(|block| block.merged()).collect()
    }
}
