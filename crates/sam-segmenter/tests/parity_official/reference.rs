//! What the fixtures' scripts do around the official code, and their files.

use std::collections::BTreeMap;

use sam_segmenter::SamSegmenter;
use stage_api::{Adapters, BoxPrompt, Embedding, MaskChoice, Masks, Mode, Precision, Prompts, Segmenter};
use tch::{Device, Kind, Tensor};

use super::formula;

/// Largest difference that is allowed, as a share of the tensor's range.
pub const TOLERANCE: f64 = 1e-4;
pub const GRADIENT_TOLERANCE: f64 = 1e-3;

pub const CHOICES: [(&str, MaskChoice); 2] = [("single", MaskChoice::Single), ("three", MaskChoice::Three)];

/// A file of thinned tensors.
pub struct Fixture(pub BTreeMap<String, Tensor>);

impl Fixture {
    pub fn read(name: &str) -> Self {
        let path = format!("{}/tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        Self(Tensor::read_safetensors(path).expect("the fixture can be read").into_iter().collect())
    }

    /// The names of thinned tensors behind a prefix.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.0.keys().filter_map(|key| Some(key.strip_prefix(prefix)?.strip_suffix(".range")?.to_owned())).collect()
    }

    pub fn flat(&self, name: &str) -> Vec<f32> {
        Vec::try_from(self.0[name].flatten(0, -1)).expect("numbers")
    }

    /// Compares the values that the fixture kept of a tensor.
    pub fn check(&self, name: &str, found: &Tensor, tolerance: f64) {
        let range = &self.0[&format!("{name}.range")];
        let range = range.double_value(&[1]) - range.double_value(&[0]);
        let found = found.detach().to_device(Device::Cpu).contiguous().flatten(0, -1);
        let stride = (found.numel() / 1000) | 1;
        self.compare(name, &found.slice(0, 0, None, stride as i64), range, tolerance);
    }

    /// Compares a small tensor that was kept whole.
    pub fn check_whole(&self, name: &str, found: &Tensor, tolerance: f64) {
        let scale = self.0[name].abs().max().double_value(&[]);
        self.compare(name, &found.detach().to_device(Device::Cpu), scale, tolerance);
    }

    pub fn compare(&self, name: &str, found: &Tensor, range: f64, tolerance: f64) {
        let expected = &self.0[name];
        assert_eq!(found.size(), expected.size(), "{name}");
        let worst = (found - expected).abs().max().double_value(&[]) / range;
        println!("{name}: {worst:.1e} of its range");
        assert!(worst <= tolerance, "{name}: differs by {worst:.2e} of its range");
    }

    pub fn check_encoder(&self, prefix: &str, model: &SamSegmenter, input: &Tensor, expected: &[String]) {
        let layers = model.embed_by_layer(&model.features_of_input(input));
        assert_eq!(layers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), expected);
        for (name, output) in layers {
            self.check(&format!("{prefix}{name}"), &output, TOLERANCE);
        }
    }

    /// The first box of the scripts, at the input's scale.
    pub fn check_first_box(&self, name: &str, model: &SamSegmenter, input: &Tensor) {
        let side = input.size()[2] as f32 / 4.0;
        let corners = [44.0, 70.0, 136.0, 171.0].map(|x: f32| x / 256.0 * side);
        let prompts = Prompts { boxes: Some(vec![box_of(&corners)]), ..Prompts::default() };
        let embedding = embed_at_mask_size(model, input, Mode::Eval);
        let masks = tch::no_grad(|| model.decode(&embedding, &prompts, MaskChoice::Three));
        self.check_decoded(name, &masks);
    }

    pub fn check_masks(&self, name: &str, model: &SamSegmenter, embedding: &Embedding, prompts: &Prompts) {
        for (count, choice) in CHOICES {
            let masks = tch::no_grad(|| model.decode(embedding, prompts, choice));
            self.check_decoded(&format!("{name}.{count}"), &masks);
        }
    }

    pub fn check_decoded(&self, name: &str, masks: &Masks) {
        self.check(&format!("{name}.logits"), &masks.logits, TOLERANCE);
        self.check_whole(&format!("{name}.scores"), &masks.scores, TOLERANCE);
    }
}

/// The embedding, and all gradients by name.
pub fn step(fixture: &Fixture, model: &SamSegmenter, prefix: &str) -> (Tensor, BTreeMap<String, Tensor>) {
    let tensors = named(model);
    for (name, tensor) in tensors.iter().filter(|(name, _)| name.contains("lora_")) {
        let value = formula::tensor(name, &tensor.size());
        tch::no_grad(|| tensor.shallow_clone().copy_(&value));
    }
    let x = input("input", [2, 3, 256, 256], tensors["mask_decoder.mask_tokens.weight"].device());
    let embedding = embed_at_mask_size(model, &x, Mode::Train);
    let prompts = Prompts { boxes: Some(boxes()), ..Prompts::default() };
    let logits = model.decode(&embedding, &prompts, MaskChoice::Single).logits;
    let loss = dice_loss(&logits, &discs().gt(0).to_kind(Kind::Float).to_device(x.device()));
    if model.settings().precision == Precision::F32 {
        fixture.check(&format!("{prefix}logits"), &logits, TOLERANCE);
        fixture.check_whole(&format!("{prefix}loss"), &loss.view([1]), TOLERANCE);
    }
    loss.backward();
    let value = embedding.tensor.detach();
    embedding.backward().expect("nothing is refused");
    let gradients = tensors.into_iter().map(|(name, tensor)| (name, tensor.grad()));
    (value, gradients.filter(|(_, gradient)| gradient.defined()).collect())
}

/// What the encoder shall see.
pub fn input(name: &str, shape: [i64; 4], device: Device) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    Tensor::from_slice(&formula::values(name, count, 0.0, 1.7)).view(shape).to_device(device)
}

/// An embedding as if of slices as large as the decoder's masks, so that these come out as the decoder gives them. Prompts
/// for it count a quarter of the input's pixels.
pub fn embed_at_mask_size(model: &SamSegmenter, input: &Tensor, mode: Mode) -> Embedding {
    let embedding = model.embed(&model.features_of_input(input), Adapters::On, mode);
    let side = (input.size()[2] / 4) as usize;
    Embedding { slice_size: [side, side], ..embedding }
}

/// The scripts' two boxes, one for each image.
pub fn boxes() -> Vec<BoxPrompt> {
    quarter_boxes(&Fixture::read("sam_vit").0["boxes"])
}

pub fn quarter_boxes(corners: &Tensor) -> Vec<BoxPrompt> {
    let corners = Vec::<f32>::try_from((corners / 4.0).flatten(0, -1)).expect("numbers");
    corners.chunks(4).map(box_of).collect()
}

pub fn box_of(corners: &[f32]) -> BoxPrompt {
    BoxPrompt { x0: corners[0], y0: corners[1], x1: corners[2], y1: corners[3] }
}

/// Two discs, as `discs` in the fixture's script.
pub fn discs() -> Tensor {
    let values: Vec<f32> = [(22.5_f32, 30.0_f32), (24.0, 32.0)]
        .iter()
        .flat_map(|&(cx, cy)| {
            (0..64 * 64).map(move |i| {
                let (x, y) = ((i % 64) as f32, (i / 64) as f32);
                (12. - ((x - cx).powi(2) + (y - cy).powi(2)).sqrt()).clamp(-10., 10.)
            })
        })
        .collect();
    Tensor::from_slice(&values).view([2, 1, 64, 64])
}

pub fn dice_loss(logits: &Tensor, target: &Tensor) -> Tensor {
    let sum = |t: &Tensor| t.sum_dim_intlist([1_i64, 2, 3].as_slice(), false, None);
    let probability = logits.sigmoid();
    let dice: Tensor = (sum(&(&probability * target)) * 2.0 + 1.0) / (sum(&probability) + sum(target) + 1.0);
    1.0 - dice.mean(None)
}

/// The model's tensors by name.
pub fn named(model: &SamSegmenter) -> BTreeMap<String, Tensor> {
    model.tensors().into_iter().map(|t| (t.name, t.tensor)).collect()
}
