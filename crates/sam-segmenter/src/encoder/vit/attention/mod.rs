//! Attention with relative positions: softmax(q · k / √d + q · R(rows) + q · R(columns)) · v, in each grid of tokens.
//!
//! Invariant: no kernel makes a tensor of all pairs of a large grid's tokens. [`blocked`] goes through the pairs in parts that
//! stay in the processor's cache, and its own backward pass; [`fused`] is one call of libtorch's fused attention.

pub(super) mod blocked;
pub(super) mod fused;
#[cfg(test)]
mod plain;

use tch::{Device, Kind, Tensor};

use super::positions::by_pair;
use crate::tracing;

/// Queries, keys and values of grids of `side · side` tokens, `[G, side², d]` each, row-major, and what their bias is made of.
pub(super) struct Grids<'a> {
    pub(super) q: &'a Tensor,
    pub(super) k: &'a Tensor,
    pub(super) v: &'a Tensor,
    /// `[side, side, d]` by the query's row and the key's, and by their columns.
    pub(super) relative: [Tensor; 2],
    pub(super) side: i64,
}

impl<'a> Grids<'a> {
    /// `tables`: `[2 · side − 1, d]` for rows and for columns.
    pub(super) fn new([q, k, v]: [&'a Tensor; 3], tables: &[Tensor; 2], side: i64) -> Self {
        Self { q, k, v, relative: tables.each_ref().map(|table| by_pair(table, side, q)), side }
    }

    /// What the product of q and k is multiplied by.
    fn scale(&self) -> f64 {
        (self.width() as f64).powf(-0.5)
    }

    fn width(&self) -> i64 {
        self.q.size()[2]
    }
}

/// Which kernel is for tensors of that kind there.
pub(super) fn is_blocked(device: Device, kind: Kind) -> bool {
    device == Device::Cpu && kind == Kind::Float && !tracing::is_on()
}
