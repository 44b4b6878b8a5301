//! What the fixtures' scripts do around the official code, and their files.

use std::collections::BTreeMap;

use sam_segmenter::groups::TRAINED_ENCODER;
use sam_segmenter::{EncoderPart, Notes, SamSegmenter, SegmenterSettings};
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

/// The embedding of a slice with adapters that do something, and the gradients of its product with fixed numbers.
pub fn encoder_gradients(model: &SamSegmenter, slice: &Tensor) -> (Tensor, BTreeMap<String, Tensor>) {
    let all = named(model);
    for (name, tensor) in all.iter().filter(|(name, _)| name.contains("lora_")) {
        let value = formula::tensor(name, &tensor.size());
        tch::no_grad(|| tensor.shallow_clone().copy_(&value));
    }
    let device = all["mask_decoder.mask_tokens.weight"].device();
    let slice = slice.to_device(device);
    let embedding = model.embed(&model.features(&slice), Adapters::On, Mode::Train);
    let weights = formula::tensor("direction", &embedding.tensor.size()).to_device(device);
    (&embedding.tensor * weights).sum(Kind::Float).backward();
    let value = embedding.tensor.detach();
    embedding.backward().expect("nothing is refused");
    let gradients = all.into_iter().map(|(name, tensor)| (name, tensor.grad()));
    (value, gradients.filter(|(_, gradient)| gradient.defined()).collect())
}

/// Where the encoder is trained itself. On a map W with an adapter B · A, the gradient of B, which is compared with PyTorch's elsewhere, is that
/// of W times Aᵀ; and along a direction through all of its weights the result changes as their gradients say.
pub fn check_trained_encoder(adapted: &SamSegmenter, slice: &Tensor, heads: Option<i64>) {
    let (embedding, of_adapters) = encoder_gradients(adapted, slice);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("merged.safetensors");
    adapted.save_merged(&path, &Notes::new()).expect("it is written");
    let settings = SegmenterSettings { encoder: EncoderPart::Whole, lora_rank: 0, ..SegmenterSettings::default() };
    let model = SamSegmenter::load(&path, &settings, Device::Cpu).expect("it is read");
    let (found, gradients) = encoder_gradients(&model, slice);
    let apart = |a: &Tensor, b: &Tensor| ((a - b).norm() / b.norm()).double_value(&[]);
    assert!(apart(&found, &embedding) < 1e-4, "{}", apart(&found, &embedding));
    let factors = named(adapted);
    let mut compared = 0;
    for (name, of_b) in of_adapters.iter().filter(|(name, _)| name.contains("lora_b")) {
        let (map, factor) = name.rsplit_once('.').expect("a path");
        let of_map = &gradients[&format!("{map}.weight")];
        let part = ["lora_b_q", "lora_b_k", "lora_b_v"].iter().position(|of| *of == factor);
        let of_map = match (part, heads) {
            (None, _) => of_map.shallow_clone(),
            (Some(part), None) => of_map.chunk(3, 0)[part].shallow_clone(),
            (Some(part), Some(width)) => of_map.unflatten(0, [-1, 3, width]).select(1, part as i64).flatten(0, 1),
        };
        let expected = of_map.matmul(&factors[&name.replace("lora_b", "lora_a")].tr());
        assert!(apart(of_b, &expected) < 1e-3, "{name} is {:.1e} apart", apart(of_b, &expected));
        compared += 1;
    }
    assert!(compared > 0);
    let weights: Vec<(String, Tensor)> =
        model.tensors().into_iter().filter(|t| t.group == TRAINED_ENCODER).map(|t| (t.name, t.tensor)).collect();
    assert!(weights.iter().all(|(name, _)| gradients.contains_key(name)), "every weight has a gradient");
    let direction = |name: &str, tensor: &Tensor| {
        let direction = formula::tensor(&format!("direction.{name}"), &tensor.size());
        &direction * (tensor.norm() / direction.norm())
    };
    let slope: f64 = weights
        .iter()
        .map(|(name, tensor)| (&gradients[name] * direction(name, tensor)).sum(Kind::Double).double_value(&[]))
        .sum();
    let moved = |step: f64| {
        let shift = |step: f64| {
            for (name, tensor) in &weights {
                tch::no_grad(|| drop(tensor.shallow_clone().g_add_(&(direction(name, tensor) * step))));
            }
        };
        // The direction's length follows the weights: they are put back exactly.
        let before: Vec<Tensor> = weights.iter().map(|(_, tensor)| tensor.detach().copy()).collect();
        shift(step);
        let embedding = model.embed(&model.features(slice), Adapters::On, Mode::Eval).tensor;
        for ((_, tensor), before) in weights.iter().zip(&before) {
            tch::no_grad(|| tensor.shallow_clone().copy_(before));
        }
        (&embedding * formula::tensor("direction", &embedding.size())).sum(Kind::Double).double_value(&[])
    };
    let step = 1e-4;
    let found = (moved(step) - moved(-step)) / (2.0 * step);
    println!("slope {slope:.5e}, by differences {found:.5e}");
    assert!((found / slope - 1.0).abs() < 0.02, "{found} by differences, {slope} by gradients");
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
