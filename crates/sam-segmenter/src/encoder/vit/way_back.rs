//! A training step's way through the encoder where it doesn't leave the way back to autograd: on the CPU, whose attention
//! has a way back of its own, and where the backward pass computes the blocks again.
//!
//! Each block ends one graph and begins another: its input is a leaf. On the CPU so is the result of attention, which has no
//! graph itself. The gradient is carried from graph to graph, and reaches the adapters in each.

use std::rc::Rc;

use stage_api::EncoderBackward;
use tch::{Kind, Tensor};

use super::super::Encoded;
use super::super::lora::Pass;
use super::super::neck::Neck;
use super::attention::{self, blocked};
use super::block::Block;
use crate::settings::Memory;

/// From the gradient of an output to that of the input, which is undefined where the input needs none.
type WayBack = Box<dyn FnOnce(&Tensor) -> Tensor>;

pub(super) fn forward(blocks: &[Rc<Block>], neck: &Neck, features: &Tensor, pass: Pass, memory: Memory) -> Encoded {
    let mut ways: Vec<WayBack> = Vec::new();
    let x = blocks.iter().fold(features.detach(), |x, block| {
        let needs_gradient = x.requires_grad() || block.trains_adapters(pass);
        if !needs_gradient {
            return tch::no_grad(|| block.forward(&x, pass));
        }
        let (y, way) = match memory {
            Memory::Keep => record(block, x, pass),
            Memory::Recompute => postpone(block, x, pass),
        };
        ways.push(way);
        y.detach().set_requires_grad(true)
    });
    let embedding = neck.forward(&x).to_kind(Kind::Float);
    if !embedding.requires_grad() {
        return embedding.into();
    }
    let leaf = embedding.detach().set_requires_grad(true);
    let back = move |gradient: &Tensor| {
        push([(embedding, gradient.shallow_clone())]);
        let mut gradient = x.grad();
        drop(x);
        while let Some(way) = ways.pop() {
            gradient = way(&gradient);
        }
    };
    Encoded { embedding: leaf, rest: Some(EncoderBackward(Box::new(back))) }
}

/// A block's output, with what its way back needs.
fn record(block: &Rc<Block>, x: Tensor, pass: Pass) -> (Tensor, WayBack) {
    if !attention::is_blocked(&x) {
        let y = block.forward(&x, pass);
        let output = y.detach();
        let way = move |gradient: &Tensor| {
            push([(y, gradient.shallow_clone())]);
            x.grad()
        };
        return (output, Box::new(way));
    }
    let qkv = block.project(&x, pass);
    let apart = qkv.each_ref().map(Tensor::detach);
    let attended = tch::no_grad(|| blocked::forward(&block.grids(&apart, &x)));
    let leaf = attended.output.detach().set_requires_grad(qkv.iter().any(Tensor::requires_grad));
    let y = block.finish(&x, leaf.shallow_clone(), pass);
    let output = y.detach();
    let block = block.clone();
    let way = move |gradient: &Tensor| {
        push([(y, gradient.shallow_clone())]);
        let gradient = leaf.grad();
        if gradient.defined() {
            let wanted = qkv.each_ref().map(Tensor::requires_grad);
            let gradients = tch::no_grad(|| blocked::backward(&block.grids(&apart, &x), &attended, &gradient, wanted));
            drop((apart, attended, leaf, gradient));
            push(qkv.into_iter().zip(gradients).filter_map(|(x, gradient)| Some((x, gradient?))));
        }
        x.grad()
    };
    (output, Box::new(way))
}

/// A block's output alone; its way back first computes the block again.
fn postpone(block: &Rc<Block>, x: Tensor, pass: Pass) -> (Tensor, WayBack) {
    // Dropout must leave out the same values again. libtorch can't save its generator, but it can be seeded.
    let seed = block.drops_out(pass).then(|| Tensor::randint(i64::MAX, [1], tch::kind::INT64_CPU).int64_value(&[0]));
    let sow = move || seed.into_iter().for_each(tch::manual_seed);
    sow();
    let y = tch::no_grad(|| block.forward(&x, pass));
    let block = block.clone();
    let way = move |gradient: &Tensor| {
        sow();
        let (_, way) = tch::with_grad(|| record(&block, x, pass));
        way(gradient)
    };
    (y, Box::new(way))
}

/// The gradients of tensors, carried on into the graphs that these are the ends of.
fn push(ends: impl IntoIterator<Item = (Tensor, Tensor)>) {
    // The derivative of x · gradient is that gradient.
    let products = ends.into_iter().map(|(x, gradient)| x.flatten(0, -1).dot(&gradient.flatten(0, -1)));
    if let Some(sum) = products.reduce(|a, b| a + b) {
        sum.backward();
    }
}
