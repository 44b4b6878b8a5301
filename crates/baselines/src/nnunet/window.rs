//! Prediction by overlapping tiles, weighted towards their centres (nnU-Net's `sliding_window_prediction.py`).

use tch::{Kind, Tensor};

/// Weights `[rows, columns]` in (0, 1] of a tile's pixels: a Gaussian about the pixel at the half of each side, whose deviation is
/// an eighth of the side.
pub fn importance([rows, columns]: [i64; 2]) -> Tensor {
    let along = |side: i64| {
        let weight = |i: i64| (-0.5 * ((i - side / 2) as f64 / (side as f64 / 8.0)).powi(2)).exp();
        Tensor::from_slice(&(0..side).map(weight).collect::<Vec<_>>())
    };
    along(rows).outer(&along(columns))
}

/// Where tiles of a side begin on an image's side, in pixels: half a tile apart or less, the first at the start, the last at the
/// end. One tile at 0 where the image is no larger than it.
pub fn tile_starts(image: i64, tile: i64) -> Vec<i64> {
    let room = (image - tile).max(0) as f64;
    let steps = (room / (tile as f64 * 0.5)).ceil();
    let apart = if steps > 0.0 { room / steps } else { 0.0 };
    (0..=steps as i64).map(|i| (apart * i as f64).round_ties_even() as i64).collect()
}

/// Logits `[B, 1, H, W]` of slices `[B, 1, H, W]` by a network that gives those of a tile. Slices smaller than a tile lie in the
/// middle of one, among zeros.
pub(super) fn predicted(slices: &Tensor, [rows, columns]: [i64; 2], network: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let (_, _, height, width) = slices.size4().expect("slices are [B, 1, H, W]");
    let [missing_rows, missing_columns] = [(rows - height).max(0), (columns - width).max(0)];
    let [above, left] = [missing_rows / 2, missing_columns / 2];
    let padded = slices.constant_pad_nd([left, missing_columns - left, above, missing_rows - above]);
    let weights = importance([rows, columns]).to_device(slices.device()).to_kind(Kind::Float);
    let (sum, total) = (padded.zeros_like(), padded.zeros_like());
    for y in tile_starts(height, rows) {
        for x in tile_starts(width, columns) {
            let tile = |of: &Tensor| of.narrow(2, y, rows).narrow(3, x, columns);
            let _ = tile(&sum).g_add_(&(network(&tile(&padded)) * &weights));
            let _ = tile(&total).g_add_(&weights);
        }
    }
    (sum / total).narrow(2, above, height).narrow(3, left, width)
}

/// The mean of a network's maps of a tile and its three mirrored copies, mirrored back.
pub(super) fn mirrored_mean(tile: &Tensor, network: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let mirrored = |axes: &[i64]| network(&tile.flip(axes)).flip(axes);
    (network(tile) + mirrored(&[2]) + mirrored(&[3]) + mirrored(&[2, 3])) / 4.0
}
