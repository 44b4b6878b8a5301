//! From slices to the encoder's input, and from the decoder's logits back to slices.

use stage_api::{SliceSize, sent};
use tch::{Device, Tensor};

use crate::architecture::SamArchitecture;
use crate::family::InputNormalization;

/// SAM's, of red, green and blue in 0 to 255.
const PIXEL_MEAN: [f64; 3] = [123.675, 116.28, 103.53];
const PIXEL_STD: [f64; 3] = [58.395, 57.12, 57.375];

/// `[B, 1, H, W]` in `[0, 1]` to `[B, 1 or 3, S, S]`: the longest side becomes `S`, values are normalised as the family
/// needs it, and the rest at the right and bottom is 0. One channel stands for three equal ones.
pub(crate) fn prepare(slices: &Tensor, architecture: &SamArchitecture) -> Tensor {
    let size = architecture.input_size;
    let (_, _, height, width) = slices.size4().expect("slices are [B, 1, H, W]");
    let scaled = scaled_size([height as usize, width as usize], size);
    let slices = if [height, width] == scaled {
        slices.shallow_clone()
    } else {
        slices.internal_upsample_bilinear2d_aa(scaled, false, None, None)
    };
    let normalized = match architecture.family.normalization() {
        InputNormalization::PixelMean => {
            let grey = &slices * 255.0;
            // Numbers and no tensor of them, which tracing would not see the content of.
            let channels = PIXEL_MEAN.into_iter().zip(PIXEL_STD).map(|(mean, std)| (&grey - mean) / std);
            Tensor::cat(&channels.collect::<Vec<Tensor>>(), 1)
        }
        InputNormalization::MinMax => {
            // A constant slice becomes zero.
            let low = slices.amin([1, 2, 3], true);
            let range = (slices.amax([1, 2, 3], true) - &low).clamp_min(1e-8);
            (slices - low) / range
        }
    };
    let [height, width] = scaled;
    if height == width { normalized } else { normalized.constant_pad_nd([0, size - width, 0, size - height]) }
}

/// Logits of the square input, `[P, M, 4g, 4g]`, to `[P, M, H, W]` of the slice. Those of a slice that isn't square go
/// through the input's size, where the padding is cut off, as in the official code; those of a square one go straight to its
/// size, which saves that detour in every training step.
///
/// On a GPU libtorch sums the gradient of its resizing in no fixed order, which `--deterministic` refuses; there, a training
/// step resizes by products of matrices, which take the GPU no longer.
pub(crate) fn restore(logits: &Tensor, slice_size: SliceSize, input_size: i64) -> Tensor {
    let [height, width] = slice_size.map(|n| n as i64);
    let by_products = logits.device().is_cuda() && logits.requires_grad();
    let resize = |x: &Tensor, size: [i64; 2]| {
        if by_products { resized_by_products(x, size) } else { x.upsample_bilinear2d(size, false, None, None) }
    };
    if height != width {
        let [valid_height, valid_width] = scaled_size(slice_size, input_size);
        let whole = resize(logits, [input_size, input_size]);
        return resize(&whole.narrow(2, 0, valid_height).narrow(3, 0, valid_width), [height, width]);
    }
    if logits.size()[2..] == [height, width] { logits.shallow_clone() } else { resize(logits, [height, width]) }
}

/// `[…, h, w]` to `[…, H, W]`, bilinearly: rows times `x` times columns.
fn resized_by_products(x: &Tensor, [height, width]: [i64; 2]) -> Tensor {
    let (_, _, rows, columns) = x.size4().expect("logits are [P, M, h, w]");
    let [by_row, by_column] =
        [(height, rows), (width, columns)].map(|(outputs, inputs)| bilinear_weights(outputs, inputs, x.device()));
    by_row.matmul(x).matmul(&by_column.tr())
}

/// `[outputs, inputs]`: the share that each input has in each output, where both are centres of pixels along one axis and
/// what lies beyond the outermost centres is as they are.
fn bilinear_weights(outputs: i64, inputs: i64, device: Device) -> Tensor {
    let scale = inputs as f32 / outputs as f32;
    let mut weights = vec![0_f32; (outputs * inputs) as usize];
    for (output, row) in weights.chunks_exact_mut(inputs as usize).enumerate() {
        let place = (scale * (output as f32 + 0.5) - 0.5).max(0.0);
        let first = (place as usize).min(row.len() - 1);
        let second = (first + 1).min(row.len() - 1);
        let share = place - first as f32;
        row[first] += 1.0 - share;
        row[second] += share;
    }
    sent(&Tensor::from_slice(&weights), device).view([outputs, inputs])
}

/// The size whose longest side is `longest`; halves are rounded up, as in the official code.
pub(crate) fn scaled_size(size: SliceSize, longest: i64) -> [i64; 2] {
    let scale = longest as f64 / size.into_iter().max().unwrap_or(1) as f64;
    size.map(|n| (n as f64 * scale + 0.5) as i64)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn resizing_by_products_and_its_gradient_are_libtorchs_bilinear_ones() {
        tch::manual_seed(3);
        for ([rows, columns], size) in [
            ([64, 64], [128, 128]),
            ([64, 64], [81, 50]),
            ([64, 64], [64, 200]),
            ([30, 17], [7, 45]),
            ([8, 8], [1, 1]),
            ([1, 2], [5, 5]),
        ] {
            let x = Tensor::randn([2, 3, rows, columns], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let direction = Tensor::randn([2, 3, size[0], size[1]], (Kind::Float, Device::Cpu));
            let gradient = |y: &Tensor| {
                let product = (y * &direction).sum(Kind::Float);
                Tensor::run_backward(&[product], &[&x], false, false).remove(0)
            };
            let (found, expected) = (resized_by_products(&x, size), x.upsample_bilinear2d(size, false, None, None));
            let apart = |a: &Tensor, b: &Tensor| ((a - b).abs().max() / b.abs().max()).double_value(&[]);
            assert_eq!(found.size(), expected.size());
            assert!(apart(&found, &expected) < 1e-5, "{rows} × {columns} to {size:?}");
            assert!(apart(&gradient(&found), &gradient(&expected)) < 1e-5, "{rows} × {columns} to {size:?}");
        }
    }
}
