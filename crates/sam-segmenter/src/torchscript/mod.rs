//! The model as TorchScript, by tracing: what Python or C++ runs without anything of ours.
//!
//! Two modules: the encoder, `forward(image)`, and the decoder, `forward(embedding, boxes[, mask])`. Both are of the model as
//! it predicts: adapters in the weights, normalisation inside, 32-bit floats.

mod archive;

use std::path::Path;

use tch::{CModule, Device, IValue, Kind, TchError, Tensor};
use whole_file::Unfinished;

use self::archive::Method;
use crate::architecture::{EMBEDDING, SamArchitecture};
use crate::error::WeightsError;
use crate::segmenter::Notes;
use crate::settings::DensePrompt;
use crate::{SamSegmenter, tracing};

/// File of the encoder in the folder that [`SamSegmenter::save_torchscript`] writes to.
pub const TORCHSCRIPT_ENCODER: &str = "encoder.pt";
/// File of the decoder there.
pub const TORCHSCRIPT_DECODER: &str = "decoder.pt";

/// Largest difference between a module and the model, as a share of the range of the values.
const TOLERANCE: f64 = 1e-4;

/// Name of the traced methods; `forward`, which calls them, is written by hand.
const TRACED: &str = "traced";

impl SamSegmenter {
    /// Writes [`TORCHSCRIPT_ENCODER`] and [`TORCHSCRIPT_DECODER`] into a folder that exists.
    ///
    /// `encoder(image)`: one slice `[1, 1, S, S]`, windowed to `[0, 1]`, `S` being the input's side, to the embedding
    /// `[1, 256, g, g]`. `decoder(embedding, boxes)`: the embedding of a slice and any number of boxes `[P, 4]` (x0, y0, x1,
    /// y1 in pixels of the input) to logits `[P, M, 4g, 4g]` and scores `[P, M]`; where the model has a use for the CAM's
    /// mask, `decoder(embedding, boxes, mask)` with `[P, 1, S, S]` in `[0, 1]`, which is optional with
    /// [`DensePrompt::Embedding`].
    ///
    /// Each file holds a description as the extra file `model.json`: the model's and `notes`. Before a file gets its name, its
    /// module is loaded and compared with the model on inputs that it was not traced with.
    ///
    /// # Errors
    /// If libtorch can't trace or write, or the module computes something else; a file is whole or not there.
    pub fn save_torchscript(&self, folder: &Path, notes: &Notes) -> Result<(), WeightsError> {
        let twin = self.frozen_twin()?;
        let description = twin.description(notes);
        let &SamArchitecture { input_size: size, .. } = twin.architecture();
        let (grid, dense) = (twin.architecture().grid(), twin.settings().dense_prompt);

        let encoder = Traced {
            method: encoder_method(),
            function: &|inputs| vec![twin.encode_traced(&inputs[0])],
            packed: &|outputs| outputs[0].shallow_clone(),
        };
        let encoder_file = folder.join(TORCHSCRIPT_ENCODER);
        let encoder = encoder.write(&encoder_file, &description, |_| vec![rand(&[1, 1, size, size])])?;

        let decoder = Traced {
            method: decoder_method(dense, grid, size),
            function: &|inputs| twin.decode_traced(&inputs[0], &inputs[1], inputs.get(2)).into(),
            packed: &|outputs| Tensor::cat(&[outputs[0].flatten(2, 3), outputs[1].unsqueeze(-1)], -1),
        };
        let decoder_file = folder.join(TORCHSCRIPT_DECODER);
        let decoder = decoder.write(&decoder_file, &description, |objects| {
            // Upper left corners in one half, lower right ones in the other.
            let boxes = Tensor::cat(&[rand(&[objects, 2]), rand(&[objects, 2]) + 1.0], 1) * (0.5 * size as f64);
            let mask = (dense != DensePrompt::None).then(|| rand(&[objects, 1, size, size]));
            [rand(&[1, EMBEDDING, grid, grid]), boxes].into_iter().chain(mask).collect()
        })?;
        // The two belong together: neither gets its name before both are right.
        encoder.finish().map_err(WeightsError::io(&encoder_file))?;
        decoder.finish().map_err(WeightsError::io(&decoder_file))
    }
}

/// A function of the model on its way into a file.
struct Traced<'a> {
    method: Method,
    function: &'a dyn Fn(&[Tensor]) -> Vec<Tensor>,
    /// Its results as the one tensor that a traced function gives; [`Method`] takes them apart.
    packed: &'a dyn Fn(&[Tensor]) -> Tensor,
}

impl Traced<'_> {
    /// Traces, writes and compares it. `inputs`: some for that number of objects.
    fn write(
        &self,
        path: &Path,
        description: &Notes,
        inputs: impl Fn(i64) -> Vec<Tensor>,
    ) -> Result<Unfinished, WeightsError> {
        let run = |inputs: &[Tensor]| tch::no_grad(|| (self.function)(inputs));
        let module = tracing::on(|| {
            let mut function = |inputs: &[Tensor]| vec![tch::no_grad(|| (self.packed)(&run(inputs)))];
            CModule::create_by_tracing(self.method.class, TRACED, &inputs(2), &mut function)
        });
        let written = archive::write(&module.map_err(WeightsError::torch(path))?, path, &self.method, description)?;
        let others = inputs(3);
        let found = results(written.path(), &others).map_err(WeightsError::torch(path))?;
        check(&found, &run(&others)).map_err(|what| WeightsError::malformed(path, what))?;
        Ok(written)
    }
}

/// What a file's `forward` gives.
fn results(path: &Path, inputs: &[Tensor]) -> Result<Vec<Tensor>, TchError> {
    let module = CModule::load(path)?;
    let inputs: Vec<IValue> = inputs.iter().map(|input| IValue::Tensor(input.shallow_clone())).collect();
    Ok(match tch::no_grad(|| module.forward_is(&inputs))? {
        IValue::Tensor(tensor) => vec![tensor],
        IValue::Tuple(values) => values.into_iter().filter_map(|value| Tensor::try_from(value).ok()).collect(),
        _ => Vec::new(),
    })
}

/// Equal but for rounding: the traced module may use other kernels.
fn check(found: &[Tensor], expected: &[Tensor]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("the traced module gives {} tensors, the model {}", found.len(), expected.len()));
    }
    for (found, expected) in found.iter().zip(expected) {
        if found.size() != expected.size() {
            return Err(format!("the traced module gives {:?}, the model {:?}", found.size(), expected.size()));
        }
        let range = (expected.max() - expected.min()).double_value(&[]).max(f64::MIN_POSITIVE);
        let apart = (found - expected).abs().max().double_value(&[]) / range;
        // Not a number is not small either.
        if apart.is_nan() || apart > TOLERANCE {
            return Err(format!("the traced module differs from the model by {apart:.1e} of its range"));
        }
    }
    Ok(())
}

fn rand(shape: &[i64]) -> Tensor {
    Tensor::rand(shape, (Kind::Float, Device::Cpu))
}

fn encoder_method() -> Method {
    Method {
        class: "SamEncoder",
        arguments: "image: Tensor",
        result: "Tensor",
        body: format!("return (self).{TRACED}(image, )"),
    }
}

fn decoder_method(dense: DensePrompt, grid: i64, size: i64) -> Method {
    let side = 4 * grid;
    let (arguments, call) = match dense {
        DensePrompt::None => {
            ("embedding: Tensor, boxes: Tensor", format!("packed = (self).{TRACED}(embedding, boxes, )"))
        }
        DensePrompt::MaskInput { .. } => (
            "embedding: Tensor, boxes: Tensor, mask: Tensor",
            format!("packed = (self).{TRACED}(embedding, boxes, mask, )"),
        ),
        // Where there is no mask, nothing is added.
        DensePrompt::Embedding => (
            "embedding: Tensor, boxes: Tensor, mask: Optional[Tensor]=None",
            format!(
                "if torch.__is__(mask, None):\n\
                 \x20 given = torch.new_zeros(embedding, [torch.len(boxes), 1, {size}, {size}])\n\
                 else:\n\
                 \x20 given = unchecked_cast(Tensor, mask)\n\
                 packed = (self).{TRACED}(embedding, boxes, given, )"
            ),
        ),
    };
    let body = format!(
        "{call}\n\
         logits = torch.unflatten(torch.slice(packed, 2, 0, -1, 1), 2, [{side}, {side}])\n\
         return (logits, torch.select(packed, 2, -1))"
    );
    Method { class: "SamDecoder", arguments, result: "Tuple[Tensor, Tensor]", body }
}
