//! What the CAM's mask and the other prompts do to the decoder's input, shown on the real weights.

mod common;

use common::{assert_close, model, named, weights};
use sam_segmenter::{DensePrompt, SamSegmenter, SegmenterSettings};
use stage_api::{BoxPrompt, Embedding, Group, MaskChoice, PromptedSegmenter, Prompts};
use tch::{Device, Kind, Tensor};

fn load(test: &str, dense_prompt: DensePrompt) -> Option<SamSegmenter> {
    let settings = SegmenterSettings { lora_rank: 0, dense_prompt, ..SegmenterSettings::default() };
    weights(test).map(|path| model(&path, &settings))
}

fn embedding(batch: i64) -> Embedding {
    tch::manual_seed(3);
    Embedding::new(Tensor::randn([batch, 256, 64, 64], (Kind::Float, Device::Cpu)) * 0.1, [256, 256])
}

/// A square of ones, aligned with the cells of the embedding grid.
fn cam_mask() -> Tensor {
    let mask = Tensor::zeros([1, 1, 256, 256], (Kind::Float, Device::Cpu));
    let _ = mask.narrow(2, 64, 100).narrow(3, 32, 60).fill_(1.0);
    mask
}

fn logits(model: &SamSegmenter, embedding: &Embedding, cam: Option<Tensor>) -> Tensor {
    let prompts = Prompts { boxes: Some(vec![BoxPrompt::central_half(256)]), cam_mask: cam, ..Prompts::default() };
    tch::no_grad(|| model.decode(embedding, &prompts, MaskChoice::Single).logits)
}

#[test]
fn learned_vector_starts_without_effect_and_is_then_added_where_the_cam_is() {
    let Some(model) =
        load("learned_vector_starts_without_effect_and_is_then_added_where_the_cam_is", DensePrompt::Embedding)
    else {
        return;
    };
    let embedding = embedding(1);
    let without = logits(&model, &embedding, None);
    assert_eq!(logits(&model, &embedding, Some(cam_mask())), without);

    let vector = named(&model)["prompt_encoder.cam_embed.weight"].shallow_clone();
    let _ = tch::no_grad(|| vector.shallow_clone().fill_(0.05));
    // 16 rows from the 16th, 15 columns from the 8th, of four pixels each: 100 rows are 25 cells.
    let added = Tensor::zeros([1, 256, 64, 64], (Kind::Float, Device::Cpu));
    let _ = added.narrow(2, 16, 25).narrow(3, 8, 15).fill_(0.05);
    let by_hand = Embedding::new(&embedding.tensor + added, [256, 256]);
    assert_close("logits", &logits(&model, &embedding, Some(cam_mask())), &logits(&model, &by_hand, None), 1e-5);
}

#[test]
fn learned_vector_gets_a_gradient() {
    let Some(model) = load("learned_vector_gets_a_gradient", DensePrompt::Embedding) else { return };
    let prompts = Prompts { cam_mask: Some(cam_mask()), ..Prompts::default() };
    model.decode(&embedding(1), &prompts, MaskChoice::Three).logits.mean(Kind::Float).backward();
    let gradient = named(&model)["prompt_encoder.cam_embed.weight"].grad();
    assert!(gradient.abs().max().double_value(&[]) > 0.0);
}

#[test]
fn cam_as_mask_input_is_sams_own_mask_prompt() {
    let Some(model) = load("cam_as_mask_input_is_sams_own_mask_prompt", DensePrompt::MaskInput { strength: 6.0 })
    else {
        return;
    };
    let embedding = embedding(1);
    let explicit = Prompts {
        boxes: Some(vec![BoxPrompt::central_half(256)]),
        mask_logits: Some(cam_mask() * 12.0 - 6.0),
        ..Prompts::default()
    };
    let expected = tch::no_grad(|| model.decode(&embedding, &explicit, MaskChoice::Single).logits);
    assert_eq!(logits(&model, &embedding, Some(cam_mask())), expected);
    assert_ne!(logits(&model, &embedding, None), expected);
}

#[test]
fn cam_is_ignored_where_the_settings_say_so() {
    let Some(model) = load("cam_is_ignored_where_the_settings_say_so", DensePrompt::None) else { return };
    let embedding = embedding(1);
    assert_eq!(logits(&model, &embedding, Some(cam_mask())), logits(&model, &embedding, None));
    assert!(!named(&model).contains_key("prompt_encoder.cam_embed.weight"));
}

#[test]
fn each_image_of_a_batch_has_its_own_prompts() {
    let Some(model) = load("each_image_of_a_batch_has_its_own_prompts", DensePrompt::None) else { return };
    let both = embedding(2);
    let boxes = [BoxPrompt::central_half(256), BoxPrompt::whole(256)];
    let decode = |embedding: &Embedding, boxes: &[BoxPrompt]| {
        let prompts = Prompts { boxes: Some(boxes.to_vec()), ..Prompts::default() };
        tch::no_grad(|| model.decode(embedding, &prompts, MaskChoice::Three))
    };
    let together = decode(&both, &boxes);
    for (i, alone) in boxes.iter().enumerate() {
        let i = i as i64;
        let one = Embedding::new(both.tensor.narrow(0, i, 1), [256, 256]);
        let masks = decode(&one, std::slice::from_ref(alone));
        assert_close("logits", &together.logits.narrow(0, i, 1), &masks.logits, 1e-5);
        assert_close("scores", &together.scores.narrow(0, i, 1), &masks.scores, 1e-5);
    }
}

#[test]
fn prompts_count_pixels_of_the_slice_whatever_its_size() {
    let Some(model) = load("prompts_count_pixels_of_the_slice_whatever_its_size", DensePrompt::None) else { return };
    let embedding_of = |slice_size| Embedding { slice_size, ..embedding(1) };
    let masks = |size: usize, scale: f32| {
        let corner = |x: f32| x * scale;
        let b = BoxPrompt { x0: corner(40.0), y0: corner(60.0), x1: corner(200.0), y1: corner(180.0) };
        let prompts = Prompts { boxes: Some(vec![b]), ..Prompts::default() };
        tch::no_grad(|| model.decode(&embedding_of([size, size]), &prompts, MaskChoice::Single))
    };
    let (own, double) = (masks(256, 1.0), masks(512, 2.0));
    assert_eq!(double.logits.size(), [1, 1, 512, 512]);
    assert_eq!(double.scores, own.scores);
}

#[test]
fn every_tensor_of_the_file_is_listed_in_its_group() {
    let Some(path) = weights("every_tensor_of_the_file_is_listed_in_its_group") else { return };
    let model = model(&path, &SegmenterSettings::default());
    let count = |group| model.tensors().iter().filter(|t| t.group == group).count();
    let values = |group| model.tensors().iter().filter(|t| t.group == group).map(|t| t.tensor.numel()).sum::<usize>();
    let tensors = model.tensors();
    assert_eq!(tensors.len(), 435 + 40 + 1);
    let names: std::collections::BTreeSet<_> = tensors.iter().map(|t| &t.name).collect();
    assert_eq!(names.len(), tensors.len());
    assert_eq!((count(Group::Lora), values(Group::Lora)), (40, 59_392));
    // The reference's mask decoder and prompt encoder, the latter with the CAM's vector of 256.
    assert_eq!(values(Group::Decoder), 4_058_340);
    assert_eq!(values(Group::PromptEncoder), 6_220 + 256);
    for t in &tensors {
        assert_eq!(t.tensor.requires_grad(), !matches!(t.group, Group::Encoder | Group::Buffer), "{}", t.name);
    }
    assert_eq!(model.encoder_fingerprint(), "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76");
}
