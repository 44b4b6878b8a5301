//! A training step's pass through the encoder where autograd doesn't do the backward pass: on the CPU, whose attention
//! has a backward pass of its own, and where the backward pass computes the blocks again.
//!
//! On the CPU the blocks record no graph. What a block keeps is what can't be had again cheaply; normalisations, the
//! activation and the adapters' detours are computed again, with small graphs of their own.

use std::rc::Rc;

use stage_api::EncoderBackward;
use tch::{Kind, TchError, Tensor};

use super::super::lora::{Pass, Qkv};
use super::super::neck::Neck;
use super::super::{Encoded, push};
use super::attention::blocked::{self, Attended};
use super::block::Block;
use super::windows::size;
use crate::layers::{LayerNorm, gelu};
use crate::settings::Memory;

/// From the gradient of an output to that of the input, where the input needs one.
type Backward = Box<dyn FnOnce(&Tensor) -> Result<Option<Tensor>, TchError>>;

/// Where a block's input comes from: nothing before the first adapter needs a gradient.
#[derive(Clone, Copy, PartialEq)]
enum Input {
    Constant,
    Trained,
}

pub(super) fn forward(
    blocks: &[Rc<Block>],
    neck: &Neck,
    features: &Tensor,
    pass: Pass,
    memory: Memory,
    precision: Kind,
) -> Encoded {
    let mut passes: Vec<Backward> = Vec::new();
    let mut input = Input::Constant;
    let mut x = features.detach();
    for block in blocks {
        if input == Input::Constant && !block.trains_adapters(pass) {
            x = tch::no_grad(|| block.forward(&x, pass));
            continue;
        }
        let (y, backward) = step(block, x, input, pass, memory);
        passes.push(backward);
        (x, input) = (y, Input::Trained);
    }
    let x = x.set_requires_grad(input == Input::Trained);
    let embedding = neck.forward(&x, precision);
    if !embedding.requires_grad() {
        return embedding.into();
    }
    let leaf = embedding.detach().set_requires_grad(true);
    // The backward pass ends with the first block's seed, and the next step must not begin where that leads.
    let after = blocks.iter().any(|block| block.drops_out(pass)).then(random_seed);
    let back = move |gradient: &Tensor| {
        push([(embedding, gradient.shallow_clone())])?;
        let mut gradient = Some(x.grad());
        drop(x);
        while let (Some(backward), Some(of_output)) = (passes.pop(), gradient) {
            gradient = backward(&of_output)?;
        }
        after.into_iter().for_each(tch::manual_seed);
        Ok(())
    };
    Encoded { embedding: leaf, rest: Some(EncoderBackward(Box::new(back))) }
}

/// A block's output without graph, and its backward pass.
fn step(block: &Rc<Block>, x: Tensor, input: Input, pass: Pass, memory: Memory) -> (Tensor, Backward) {
    // The backward pass must leave out the values that the forward pass left out. libtorch can't save its generator of random
    // numbers, but it can be seeded.
    let seed = block.drops_out(pass).then(random_seed);
    let seed_again = move || seed.into_iter().for_each(tch::manual_seed);
    let block = block.clone();
    seed_again();
    if block.is_blocked(&x) && memory == Memory::Keep {
        let (y, kept) = tch::no_grad(|| Kept::of(&block, x, pass));
        let backward = move |gradient: &Tensor| {
            seed_again();
            tch::no_grad(|| kept.back(&block, gradient, input))
        };
        return (y, Box::new(backward));
    }
    let y = tch::no_grad(|| block.forward(&x, pass));
    let backward = move |gradient: &Tensor| {
        seed_again();
        if !block.is_blocked(&x) {
            return back_by_graph(&block, &x, gradient, input, pass);
        }
        let (_, kept) = tch::no_grad(|| Kept::of(&block, x, pass));
        seed_again();
        tch::no_grad(|| kept.back(&block, gradient, input))
    };
    (y, Box::new(backward))
}

fn random_seed() -> i64 {
    Tensor::randint(i64::MAX, [1], tch::kind::INT64_CPU).int64_value(&[0])
}

/// Computes the block again, for autograd.
fn back_by_graph(
    block: &Block,
    x: &Tensor,
    gradient: &Tensor,
    input: Input,
    pass: Pass,
) -> Result<Option<Tensor>, TchError> {
    let x = x.detach().set_requires_grad(input == Input::Trained);
    let y = tch::with_grad(|| block.forward(&x, pass));
    push([(y, gradient.shallow_clone())])?;
    Ok((input == Input::Trained).then(|| x.grad()))
}

/// What a block keeps of a forward pass.
struct Kept {
    x: Tensor,
    qkv: [Tensor; 3],
    attended: Attended,
    /// `x` with attention's result.
    y: Tensor,
    /// The perceptron's hidden layer before its activation.
    hidden: Tensor,
}

impl Kept {
    /// The block's output, and what it keeps.
    fn of(block: &Block, x: Tensor, pass: Pass) -> (Tensor, Self) {
        let qkv = block.project(&x, pass);
        let attended = blocked::forward(&block.grids(&qkv, &x));
        let y = block.attend(&x, &attended.output, pass);
        let hidden = block.widen(&y, pass);
        let output = block.narrow(&gelu(&hidden), &y, pass);
        (output, Self { x, qkv, attended, y, hidden })
    }

    /// From the gradient of the block's output to its input's. Those of the adapters are added to them.
    fn back(self, block: &Block, gradient: &Tensor, input: Input) -> Result<Option<Tensor>, TchError> {
        let wants_input = input == Input::Trained;
        let Self { x, qkv, attended, y, hidden } = self;
        let map = size(&x);
        let first = Normed::of(&block.first_norm, &x);
        let second = Normed::of(&block.second_norm, &y);
        let qkv_detours = block.qkv.detours(&first.y, wants_input);
        let proj_detour = block.proj.detour(|| block.windows.join(&attended.output, map));
        let in_detour = block.mlp_in.detour(|| second.y.shallow_clone());
        let out_detour = block.mlp_out.detour(|| gelu(&hidden));

        let of_hidden = hidden.gelu_backward(&block.mlp_out.back(gradient, out_detour)?, "none");
        drop(hidden);
        let of_y = second.back(&block.mlp_in.back(&of_hidden, in_detour)?)? + gradient;
        drop(of_hidden);
        let of_attended = block.windows.split(&block.proj.back(&of_y, proj_detour)?, None);
        let wanted = block.qkv.trained().map(|trained| trained || wants_input);
        let of_qkv = blocked::backward(&block.grids(&qkv, &x), &attended, &of_attended, wanted)
            .map(|gradient| gradient.map(|gradient| block.windows.join(&gradient, map)));
        drop((qkv, attended, of_attended));
        if !wants_input {
            Qkv::back_to_adapters(&of_qkv, qkv_detours)?;
            return Ok(None);
        }
        Ok(Some(first.back(&block.qkv.back(&of_qkv, qkv_detours)?)? + of_y))
    }
}

/// A normalisation, recorded.
struct Normed {
    x: Tensor,
    y: Tensor,
}

impl Normed {
    fn of(norm: &LayerNorm, x: &Tensor) -> Self {
        let x = x.detach().set_requires_grad(true);
        Self { y: tch::with_grad(|| norm.forward(&x)), x }
    }

    fn back(self, gradient: &Tensor) -> Result<Tensor, TchError> {
        push([(self.y, gradient.shallow_clone())])?;
        Ok(self.x.grad())
    }
}
