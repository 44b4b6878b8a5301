//! The model computes what the reference implementation computes, on the real weights.
//!
//! The numbers come from `fixtures/make_fixtures.py`; a difference is measured against the tensor's range.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::assert_close;

use sam_segmenter::{LoraInit, Notes, SamSegmenter, SegmenterSettings};
use stage_api::{Adapters, BoxPrompt, Embedding, MaskChoice, Mode, Precision, Prompts, Segmenter};
use tch::{Device, Kind, Tensor};

const STRIDE_EMBEDDING: i64 = 211;
const STRIDE_LOGITS: i64 = 101;
const STRIDE_GRADIENT: i64 = 13;

/// Largest difference that is allowed, as a share of the tensor's range.
const TOLERANCE: f64 = 1e-4;
const GRADIENT_TOLERANCE: f64 = 1e-3;

#[test]
fn embedding_masks_and_scores_of_every_mix_of_prompts_equal_the_reference() {
    let Some(reference) = Reference::load("embedding_masks_and_scores_of_every_mix_of_prompts_equal_the_reference")
    else {
        return;
    };
    let model = reference.model(0);
    let embedding = embed(&model, &reference.slices(), Mode::Eval);
    reference.check("embedding", &embedding.tensor, STRIDE_EMBEDDING, TOLERANCE);
    let boxes = || Some(boxes().to_vec());
    let points = || {
        let places = Tensor::from_slice(&[90_f32, 120., 180., 130., 95., 128., 20., 30.]).view([2, 2, 2]);
        Some((places, Tensor::from_slice(&[1_f32, 0., 1., 0.]).view([2, 2])))
    };
    let mask = || Some(mask_logits());
    let cases = [
        ("box", Prompts { boxes: boxes(), ..Prompts::default() }),
        ("points", Prompts { points: points(), ..Prompts::default() }),
        ("mask", Prompts { mask_logits: mask(), ..Prompts::default() }),
        ("box_points", Prompts { boxes: boxes(), points: points(), ..Prompts::default() }),
        ("all", Prompts { boxes: boxes(), points: points(), mask_logits: mask(), ..Prompts::default() }),
        ("none", Prompts::default()),
    ];
    for (name, prompts) in &cases {
        for (count, choice) in [("single", MaskChoice::Single), ("three", MaskChoice::Three)] {
            let masks = tch::no_grad(|| model.decode(&embedding, prompts, choice));
            reference.check(&format!("{name}.{count}.logits"), &masks.logits, STRIDE_LOGITS, TOLERANCE);
            let scores = &reference.tensors[&format!("{name}.{count}.scores")];
            assert_close(&format!("{name}.{count}.scores"), &masks.scores, scores, TOLERANCE);
        }
    }
}

#[test]
fn slices_of_another_size_are_resized_and_their_masks_brought_back() {
    let Some(reference) = Reference::load("slices_of_another_size_are_resized_and_their_masks_brought_back") else {
        return;
    };
    let model = reference.model(0);
    let small = reference.slices().narrow(2, 30, 192).narrow(3, 30, 192).contiguous();
    let embedding = embed(&model, &small, Mode::Eval);
    reference.check("small.embedding", &embedding.tensor, STRIDE_EMBEDDING, TOLERANCE);
    let moved = boxes().map(|b| BoxPrompt { x0: b.x0 - 30., y0: b.y0 - 30., x1: b.x1 - 30., y1: b.y1 - 30. });
    let prompts = Prompts { boxes: Some(moved.to_vec()), ..Prompts::default() };
    let masks = tch::no_grad(|| model.decode(&embedding, &prompts, MaskChoice::Single));
    assert_eq!(masks.logits.size(), [2, 1, 192, 192]);
    reference.check("small.logits", &masks.logits, STRIDE_LOGITS, TOLERANCE);
}

#[test]
fn gradients_of_adapters_and_decoder_equal_the_reference() {
    let Some(reference) = Reference::load("gradients_of_adapters_and_decoder_equal_the_reference") else { return };
    let model = reference.model(8);
    let tensors = common::named(&model);
    for (number, layer) in adapted_layers().iter().enumerate() {
        for (k, part) in ["a_q", "b_q", "a_v", "b_v"].iter().enumerate() {
            fill_with_wave(&tensors[&format!("{layer}.lora_{part}")], number, k);
        }
    }

    let embedding = embed(&model, &reference.slices(), Mode::Train);
    reference.check("lora.embedding", &embedding.tensor, STRIDE_EMBEDDING, TOLERANCE);
    let prompts = Prompts { boxes: Some(boxes().to_vec()), ..Prompts::default() };
    let logits = model.decode(&embedding, &prompts, MaskChoice::Single).logits;
    reference.check("lora.logits", &logits, STRIDE_LOGITS, TOLERANCE);
    let loss = dice_loss(&logits, &mask_logits().gt(0).to_kind(Kind::Float));
    assert_close("lora.loss", &loss.view([1]), &reference.tensors["lora.loss"], TOLERANCE);
    loss.backward();

    let names: Vec<&str> =
        reference.tensors.keys().filter_map(|k| k.strip_prefix("gradient.")?.strip_suffix(".range")).collect();
    assert_eq!(names.len(), 10 * 4 + 7);
    for name in names {
        reference.check(&format!("gradient.{name}"), &tensors[name].grad(), STRIDE_GRADIENT, GRADIENT_TOLERANCE);
    }
    let frozen = tensors.iter().filter(|(name, _)| name.starts_with("image_encoder") && !name.contains("lora"));
    assert!(frozen.into_iter().all(|(_, tensor)| !tensor.requires_grad() && !tensor.grad().defined()));
}

/// Eight significant bits through ten blocks of attention: single values differ by per cents, the masks hardly.
#[test]
fn in_bfloat16_masks_and_gradients_are_nearly_those_of_32_bits() {
    let Some(reference) = Reference::load("in_bfloat16_masks_and_gradients_are_nearly_those_of_32_bits") else {
        return;
    };
    let run = |precision| {
        let settings = SegmenterSettings { lora_rank: 8, precision, ..SegmenterSettings::default() };
        let model = common::model(&reference.weights, &settings);
        let tensors = common::named(&model);
        for (number, layer) in adapted_layers().iter().enumerate() {
            fill_with_wave(&tensors[&format!("{layer}.lora_b_q")], number, 0);
        }
        let embedding = embed(&model, &reference.slices().narrow(0, 0, 1), Mode::Train);
        let prompts = Prompts { boxes: Some(boxes()[..1].to_vec()), ..Prompts::default() };
        let masks = model.decode(&embedding, &prompts, MaskChoice::Single);
        assert!(embedding.tensor.kind() == Kind::Float && masks.logits.kind() == Kind::Float);
        dice_loss(&masks.logits, &mask_logits().narrow(0, 0, 1).gt(0).to_kind(Kind::Float)).backward();
        let gradient = tensors[&format!("{}.lora_a_q", adapted_layers()[0])].grad();
        (embedding.tensor.detach(), masks.logits.detach().gt(0.0), gradient)
    };
    let ((embedding, mask, gradient), (embedding_16, mask_16, gradient_16)) =
        (run(Precision::F32), run(Precision::Bf16));
    let apart = |a: &Tensor, b: &Tensor| ((a - b).norm() / a.norm()).double_value(&[]);
    let both = mask.logical_and(&mask_16).sum(Kind::Float) * 2.0;
    let dice = (both / (mask.sum(Kind::Float) + mask_16.sum(Kind::Float))).double_value(&[]);
    let found = (apart(&embedding, &embedding_16), apart(&gradient, &gradient_16), dice);
    println!("embedding {:.4}, gradient {:.4} apart; Dice of the masks {:.4}", found.0, found.1, found.2);
    assert!(found.0 > 0.0 && found.0 < 0.1 && found.1 < 0.2 && found.2 > 0.99, "{found:?}");
}

#[test]
fn adapters_change_the_rows_of_q_and_v_only() {
    let Some(reference) = Reference::load("adapters_change_the_rows_of_q_and_v_only") else { return };
    let model = reference.model(8);
    let tensors = common::named(&model);
    let layer = "image_encoder.layers.2.blocks.3.attn.qkv";
    fill_with_wave(&tensors[&format!("{layer}.lora_b_q")], 0, 0);
    fill_with_wave(&tensors[&format!("{layer}.lora_b_v")], 0, 1);
    let name = format!("{layer}.weight");
    let merged = model.merged_state().into_iter().find(|(n, _)| *n == name).expect("the state has all weights").1;
    // Five heads of 32 channels: rows q, k, v of the first head, then of the second, and so on.
    let change = (merged - &tensors[&name]).abs().sum_dim_intlist(1, false, None).view([5, 3, 32]);
    let least_and_most =
        |part: i64| (change.select(1, part).min().double_value(&[]), change.select(1, part).max().double_value(&[]));
    assert!(least_and_most(0).0 > 0.0, "every row of q changes");
    assert_eq!(least_and_most(1), (0.0, 0.0), "no row of k changes");
    assert!(least_and_most(2).0 > 0.0, "every row of v changes");
}

#[test]
fn merged_weights_load_again_without_adapters_and_give_the_same_masks() {
    let Some(reference) = Reference::load("merged_weights_load_again_without_adapters_and_give_the_same_masks") else {
        return;
    };
    let model = reference.model(4);
    for t in model.tensors().iter().filter(|t| t.name.contains("lora_b")) {
        fill_with_wave(&t.tensor, 0, 0);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("merged.safetensors");
    model.save_merged(&path, &Notes::new()).expect("the merged weights are written");
    let merged =
        SamSegmenter::load(&path, &SegmenterSettings { lora_rank: 0, ..SegmenterSettings::default() }, Device::Cpu)
            .expect("the merged weights are a whole LiteMedSAM state");
    let slices = reference.slices().narrow(0, 0, 1);
    let (expected, found) = (embed(&model, &slices, Mode::Eval).tensor, embed(&merged, &slices, Mode::Eval).tensor);
    assert_close("embedding", &found, &expected, 1e-6);
    let pretrained = model.embed(&model.features(&slices), Adapters::Off, Mode::Eval).tensor;
    let found = pretrained.contiguous().flatten(0, -1).slice(0, 0, None, STRIDE_EMBEDDING);
    assert_close("pretrained", &found, &reference.tensors["embedding"].narrow(0, 0, found.numel() as i64), TOLERANCE);
    assert!((pretrained - expected).abs().max().double_value(&[]) > 0.01, "the adapters had an effect");
}

#[test]
fn adapters_are_saved_alone_and_loaded_again() {
    let Some(reference) = Reference::load("adapters_are_saved_alone_and_loaded_again") else { return };
    let values = |model: &SamSegmenter| -> Vec<Tensor> {
        model.tensors().into_iter().filter(|t| t.name.contains("lora_")).map(|t| t.tensor).collect()
    };
    let (first, mut second) = (reference.model_seeded(8, 1), reference.model_seeded(8, 2));
    assert!(values(&first).iter().zip(values(&second)).any(|(a, b)| *a != b), "other seeds, other adapters");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("adapters.safetensors");
    first.save_adapters(&path, &Notes::new()).expect("the adapters are written");
    assert!(path.metadata().expect("the file exists").len() < 300_000);
    second.load_adapters(&path).expect("the adapters fit");
    assert!(values(&first).iter().zip(values(&second)).all(|(a, b)| *a == b));

    let error = reference.model(4).load_adapters(&path).expect_err("another rank doesn't fit").to_string();
    assert!(error.contains("has shape [8, 128], expected [4, 128]"), "{error}");
}

#[test]
fn a_constant_slice_gives_finite_masks() {
    let Some(reference) = Reference::load("a_constant_slice_gives_finite_masks") else { return };
    let model = reference.model(8);
    let embedding = embed(&model, &Tensor::full([1, 1, 256, 256], 0.3, (Kind::Float, Device::Cpu)), Mode::Eval);
    let prompts = Prompts { boxes: Some(vec![BoxPrompt::whole(256)]), ..Prompts::default() };
    let masks = model.decode(&embedding, &prompts, MaskChoice::Three);
    assert!(bool::try_from(masks.logits.isfinite().all()).expect("one value"));
    assert!(bool::try_from(masks.scores.isfinite().all()).expect("one value"));
}

/// The fixture and the real weights.
struct Reference {
    tensors: BTreeMap<String, Tensor>,
    weights: PathBuf,
}

impl Reference {
    /// `None`, said aloud, where the weights are absent.
    fn load(test: &str) -> Option<Self> {
        let weights = common::weights(test)?;
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/lite_medsam.safetensors");
        let tensors = Tensor::read_safetensors(fixture).expect("the fixture can be read").into_iter().collect();
        Some(Self { tensors, weights })
    }

    fn model(&self, lora_rank: usize) -> SamSegmenter {
        self.model_seeded(lora_rank, 0)
    }

    fn model_seeded(&self, lora_rank: usize, seed: u64) -> SamSegmenter {
        let settings =
            SegmenterSettings { lora_rank, lora_init: LoraInit::Gaussian, seed, ..SegmenterSettings::default() };
        common::model(&self.weights, &settings)
    }

    fn slices(&self) -> Tensor {
        self.tensors["images"].unsqueeze(1).to_kind(Kind::Float) / 255.0
    }

    /// Compares every `stride`-th value with the fixture's.
    fn check(&self, name: &str, found: &Tensor, stride: i64, tolerance: f64) {
        let range = &self.tensors[&format!("{name}.range")];
        let range = range.double_value(&[1]) - range.double_value(&[0]);
        let found = found.contiguous().flatten(0, -1).slice(0, 0, None, stride);
        let worst = worst_difference(&found, &self.tensors[name]) / range;
        assert!(worst <= tolerance, "{name}: differs by {worst:.2e} of its range");
        println!("{name}: {worst:.1e} of its range");
    }
}

fn embed(model: &SamSegmenter, slices: &Tensor, mode: Mode) -> Embedding {
    model.embed(&model.features(slices), Adapters::On, mode)
}

fn boxes() -> [BoxPrompt; 2] {
    [BoxPrompt { x0: 44., y0: 70., x1: 136., y1: 171. }, BoxPrompt { x0: 38.5, y0: 92.25, x1: 151., y1: 164. }]
}

/// Two discs, as in the fixture's script.
fn mask_logits() -> Tensor {
    let values: Vec<f32> = [(90_f32, 120_f32), (95., 128.)]
        .iter()
        .flat_map(|&(cx, cy)| {
            (0..256 * 256).map(move |i| {
                let (x, y) = ((i % 256) as f32, (i / 256) as f32);
                (12. - ((x - cx).powi(2) + (y - cy).powi(2)).sqrt() / 4.).clamp(-10., 10.)
            })
        })
        .collect();
    Tensor::from_slice(&values).view([2, 1, 256, 256])
}

fn adapted_layers() -> Vec<String> {
    let blocks =
        [(1, 2), (2, 6), (3, 2)].into_iter().flat_map(|(layer, depth)| (0..depth).map(move |block| (layer, block)));
    blocks.map(|(layer, block)| format!("image_encoder.layers.{layer}.blocks.{block}.attn.qkv")).collect()
}

/// `0.05 · sin(0.37 · i + number + 0.25 · k)`, as in the fixture's script.
fn fill_with_wave(tensor: &Tensor, number: usize, k: usize) {
    let phase = number as f64 + 0.25 * k as f64;
    let values: Vec<f32> = (0..tensor.numel()).map(|i| (0.05 * (0.37 * i as f64 + phase).sin()) as f32).collect();
    tch::no_grad(|| tensor.shallow_clone().copy_(&Tensor::from_slice(&values).view_as(tensor)));
}

fn dice_loss(logits: &Tensor, target: &Tensor) -> Tensor {
    let sum = |t: &Tensor| t.sum_dim_intlist([1_i64, 2, 3].as_slice(), false, None);
    let probability = logits.sigmoid();
    let dice: Tensor = (sum(&(&probability * target)) * 2.0 + 1.0) / (sum(&probability) + sum(target) + 1.0);
    1.0 - dice.mean(None)
}

fn worst_difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    (found - expected).abs().max().double_value(&[])
}
