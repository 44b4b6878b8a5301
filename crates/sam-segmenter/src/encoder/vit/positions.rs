//! Positions in a ViT: absolute ones of the token grid, and relative ones of pairs of rows or columns; both are resized for
//! another grid as SAMed does it.

use tch::{Kind, Tensor};

use crate::architecture::VitArchitecture;
use crate::layers::{channels_first, channels_last, for_input};

/// What a tensor of the file is resized to for that grid, by its name; `None` where it is used as it is.
pub(super) fn resized(name: &str, tensor: &Tensor, shape: &VitArchitecture, grid: i64) -> Option<Tensor> {
    let name = name.strip_prefix("image_encoder.").filter(|_| grid != shape.grid)?;
    if name == "pos_embed" {
        return Some(resized_positions(tensor, grid));
    }
    let (block, table) = name.strip_prefix("blocks.")?.split_once('.')?;
    let of_whole_grid = shape.global_blocks.contains(&block.parse().ok()?);
    (of_whole_grid && table.starts_with("attn.rel_pos_")).then(|| resized_table(tensor, 2 * grid - 1))
}

/// `[1, g, g, C]` for another side.
pub(super) fn resized_positions(positions: &Tensor, grid: i64) -> Tensor {
    if positions.size()[1] == grid {
        return positions.shallow_clone();
    }
    channels_last(&channels_first(positions).upsample_bilinear2d([grid, grid], false, None, None)).contiguous()
}

/// `[rows, d]` for another number of rows.
pub(super) fn resized_table(table: &Tensor, rows: i64) -> Tensor {
    if table.size()[0] == rows {
        return table.shallow_clone();
    }
    let table = table.unsqueeze(0).unsqueeze(0);
    table.upsample_bilinear2d([rows, table.size()[3]], false, None, None).squeeze_dim(0).squeeze_dim(0)
}

/// A table by distance, `[2 · side − 1, d]`, as one by pair, `[side, side, d]`: of a query's row (or column) and a key's.
pub(super) fn by_pair(table: &Tensor, side: i64, like: &Tensor) -> Tensor {
    let i = Tensor::arange(side, (Kind::Int64, table.device()));
    let distance = (i.unsqueeze(1) - i.unsqueeze(0) + (side - 1)).view(-1);
    for_input(table, like).index_select(0, &distance).view([side, side, -1])
}
