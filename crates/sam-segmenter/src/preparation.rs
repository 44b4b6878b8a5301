//! From slices to the encoder's input, and from the decoder's logits back to slices.

use stage_api::SliceSize;
use tch::Tensor;

use crate::architecture::{InputNormalization, SamArchitecture};

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
pub(crate) fn restore(logits: &Tensor, slice_size: SliceSize, input_size: i64) -> Tensor {
    let [height, width] = slice_size.map(|n| n as i64);
    let resize = |x: &Tensor, size: [i64; 2]| x.upsample_bilinear2d(size, false, None, None);
    if height != width {
        let [valid_height, valid_width] = scaled_size(slice_size, input_size);
        let whole = resize(logits, [input_size, input_size]);
        return resize(&whole.narrow(2, 0, valid_height).narrow(3, 0, valid_width), [height, width]);
    }
    if logits.size()[2..] == [height, width] { logits.shallow_clone() } else { resize(logits, [height, width]) }
}

/// The size whose longest side is `longest`; halves are rounded up, as in the official code.
pub(crate) fn scaled_size(size: SliceSize, longest: i64) -> [i64; 2] {
    let scale = longest as f64 / size.into_iter().max().unwrap_or(1) as f64;
    size.map(|n| (n as f64 * scale + 0.5) as i64)
}
