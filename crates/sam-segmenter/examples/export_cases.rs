//! Exports a model with random adapters, and writes what it computes beside, so that plain Python can be compared with it:
//!
//! ```text
//! cargo run --release -p sam-segmenter --example export_cases WEIGHTS FAMILY FOLDER [INPUT_SIZE]
//! cd crates/sam-segmenter/tests/fixtures
//! python check_export.py official FOLDER/merged.safetensors FOLDER/official.safetensors --model vit_b
//! python check_export.py torchscript FOLDER/encoder.pt FOLDER/encoder.case.safetensors
//! python check_export.py torchscript FOLDER/decoder.pt FOLDER/decoder.case-1.safetensors FOLDER/decoder.case-5.safetensors
//! ```

use std::path::{Path, PathBuf};

use sam_segmenter::{
    DensePrompt, Family, LoraTarget, Notes, SamSegmenter, SegmenterSettings, TORCHSCRIPT_DECODER, TORCHSCRIPT_ENCODER,
};
use stage_api::{Adapters, BoxPrompt, Embedding, MaskChoice, Mode, Prompts, Segmenter};
use tch::{Device, Kind, Tensor};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: export_cases WEIGHTS FAMILY FOLDER [INPUT_SIZE]");
    let weights: PathBuf = next()?.into();
    let family: Family = next()?.parse()?;
    let folder: PathBuf = next()?.into();
    let input_size = next().ok().map(|text| text.parse()).transpose()?;
    let settings = SegmenterSettings {
        family: Some(family),
        input_size,
        lora_rank: 4,
        lora_targets: vec![LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::Proj, LoraTarget::Mlp],
        dense_prompt: DensePrompt::None,
        ..SegmenterSettings::default()
    };
    tch::manual_seed(1);
    let model = SamSegmenter::load(&weights, &settings, Device::Cpu)?;
    for t in model.tensors().into_iter().filter(|t| t.name.contains(".lora_b")) {
        let _ = tch::no_grad(|| t.tensor.shallow_clone().normal_(0.0, 0.02));
    }
    std::fs::create_dir_all(&folder)?;
    model.save_merged(&folder.join("merged.safetensors"), &Notes::new())?;
    model.save_torchscript(&folder, &Notes::new())?;
    official_case(&model, &folder.join("official.safetensors"))?;
    torchscript_cases(&model, &folder)?;
    println!("{}: merged.safetensors, {TORCHSCRIPT_ENCODER}, {TORCHSCRIPT_DECODER} and cases", folder.display());
    Ok(())
}

/// What the encoder shall see, and the masks for a box on each of two images.
fn official_case(model: &SamSegmenter, path: &Path) -> Result<()> {
    let size = model.architecture().input_size;
    let input = random(&[2, 3, size, size]) * 2.0 - 1.0;
    let embedding = model.embed(&model.features_of_input(&input), Adapters::On, Mode::Eval);
    let boxes = boxes(2, size);
    let [logits, scores] = decode(model, &embedding.tensor, &boxes, MaskChoice::Single);
    let [three_logits, three_scores] = decode(model, &embedding.tensor, &boxes, MaskChoice::Three);
    let case = [
        ("input", &input),
        ("boxes", &boxes),
        ("embedding", &embedding.tensor),
        ("logits", &logits),
        ("scores", &scores),
        ("three_logits", &three_logits),
        ("three_scores", &three_scores),
    ];
    Ok(write(path, &case)?)
}

/// Slices and numbers of boxes that nothing was traced with.
fn torchscript_cases(model: &SamSegmenter, folder: &Path) -> Result<()> {
    let size = model.architecture().input_size;
    let slice = random(&[1, 1, size, size]);
    let embedding = model.embed(&model.features(&slice), Adapters::On, Mode::Eval).tensor;
    write(&folder.join("encoder.case.safetensors"), &[("input.0", &slice), ("output.0", &embedding)])?;
    for count in [1, 5] {
        let boxes = boxes(count, size);
        let images = embedding.expand([count, -1, -1, -1], false);
        let [logits, scores] = decode(model, &images, &boxes, model.default_choice());
        let case = [("input.0", &embedding), ("input.1", &boxes), ("output.0", &logits), ("output.1", &scores)];
        write(&folder.join(format!("decoder.case-{count}.safetensors")), &case)?;
    }
    Ok(())
}

/// Logits as the decoder gives them, and scores; boxes count pixels of the input.
fn decode(model: &SamSegmenter, embedding: &Tensor, boxes: &Tensor, choice: MaskChoice) -> [Tensor; 2] {
    let side = 4 * model.architecture().grid();
    let scale = side as f64 / model.architecture().input_size as f64;
    let corners = Vec::<f32>::try_from((boxes * scale).flatten(0, -1)).expect("numbers");
    let boxes = corners.chunks(4).map(|c| BoxPrompt { x0: c[0], y0: c[1], x1: c[2], y1: c[3] }).collect();
    let prompts = Prompts { boxes: Some(boxes), ..Prompts::default() };
    let embedding = Embedding::new(embedding.shallow_clone(), [side as usize; 2]);
    let masks = tch::no_grad(|| model.decode(&embedding, &prompts, choice));
    [masks.logits, masks.scores]
}

fn random(shape: &[i64]) -> Tensor {
    Tensor::rand(shape, (Kind::Float, Device::Cpu))
}

/// Upper left corners in one half, lower right ones in the other.
fn boxes(count: i64, size: i64) -> Tensor {
    Tensor::cat(&[random(&[count, 2]), random(&[count, 2]) + 1.0], 1) * (0.5 * size as f64)
}

fn write(path: &Path, tensors: &[(&str, &Tensor)]) -> std::result::Result<(), tch::TchError> {
    let tensors: Vec<(&str, Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor.contiguous())).collect();
    Tensor::write_safetensors(&tensors, path)
}
