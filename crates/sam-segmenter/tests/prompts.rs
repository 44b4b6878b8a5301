//! What the CAM's mask and the other prompts do to the decoder's input, shown on the real weights.

mod common;

use common::{assert_close, model, named, weights};
use sam_segmenter::groups::{DECODER, LORA, PROMPT_ENCODER};
use sam_segmenter::{DensePrompt, SamSegmenter, SegmenterSettings};
use stage_api::{BoxPrompt, Embedding, MaskChoice, Prompts, Segmenter};
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

/// Prompts of every kind for so many objects, each somewhere else.
fn mixed(objects: &[usize]) -> Prompts {
    let (boxes, points): (Vec<BoxPrompt>, Vec<[f32; 4]>) = objects
        .iter()
        .map(|&i| {
            let (x, y) = (30.0 + 17.0 * i as f32, 50.0 + 11.0 * i as f32);
            (BoxPrompt { x0: x, y0: y, x1: x + 80.0, y1: y + 60.0 }, [x + 40.0, y + 30.0, x - 10.0, y])
        })
        .unzip();
    let count = objects.len() as i64;
    let masks: Vec<Tensor> = objects
        .iter()
        .map(|&i| {
            let mask = Tensor::full([1, 1, 256, 256], -8.0, (Kind::Float, Device::Cpu));
            let _ = mask.narrow(2, 40 + 10 * i as i64, 60).narrow(3, 30 + 15 * i as i64, 80).fill_(8.0);
            mask
        })
        .collect();
    // The second point of every other object is none.
    let labels: Vec<f32> = objects.iter().flat_map(|i| [1.0, if i % 2 == 0 { 0.0 } else { -1.0 }]).collect();
    let points = Tensor::from_slice(&points.concat()).view([count, 2, 2]);
    Prompts {
        boxes: Some(boxes),
        points: Some((points, Tensor::from_slice(&labels).view([count, 2]))),
        mask_logits: Some(Tensor::cat(&masks, 0)),
        ..Prompts::default()
    }
}

#[test]
fn images_with_one_three_and_two_objects_are_decoded_as_one_image_at_a_time() {
    let Some(model) =
        load("images_with_one_three_and_two_objects_are_decoded_as_one_image_at_a_time", DensePrompt::None)
    else {
        return;
    };
    let all = embedding(3);
    // Not in the images' order: object 0 is in the last, 1 to 3 in the first, 4 and 5 in the second.
    let images = [2, 0, 0, 0, 1, 1];
    let without = |name: &str, mut prompts: Prompts| {
        match name {
            "boxes" => prompts.boxes = None,
            "points" => prompts.points = None,
            "masks" => prompts.mask_logits = None,
            _ => {}
        }
        prompts
    };
    for missing in ["nothing", "boxes", "points", "masks"] {
        for choice in [MaskChoice::Single, MaskChoice::Three] {
            let decode = |embedding: &Embedding, objects: &[usize], slices: Vec<usize>| {
                let prompts = Prompts { slices: Some(slices), ..without(missing, mixed(objects)) };
                tch::no_grad(|| model.decode(embedding, &prompts, choice))
            };
            let together = decode(&all, &[0, 1, 2, 3, 4, 5], images.to_vec());
            for (image, objects) in [(0, vec![1, 2, 3]), (1, vec![4, 5]), (2, vec![0])] {
                let one = Embedding::new(all.tensor.narrow(0, image, 1), [256, 256]);
                let alone = decode(&one, &objects, vec![0; objects.len()]);
                let (first, count) = (objects[0] as i64, objects.len() as i64);
                let name = |what: &str| format!("{what} of image {image} without {missing}");
                assert_close(&name("logits"), &together.logits.narrow(0, first, count), &alone.logits, 1e-6);
                assert_close(&name("scores"), &together.scores.narrow(0, first, count), &alone.scores, 1e-6);
            }
        }
    }
}

#[test]
fn gradients_of_many_objects_are_the_sum_of_each_ones() {
    let Some(model) = load("gradients_of_many_objects_are_the_sum_of_each_ones", DensePrompt::Embedding) else {
        return;
    };
    let names = [
        "mask_decoder.transformer.layers.0.cross_attn_token_to_image.k_proj.weight",
        "mask_decoder.transformer.layers.0.cross_attn_token_to_image.v_proj.bias",
        "mask_decoder.transformer.layers.1.cross_attn_image_to_token.q_proj.weight",
        "mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.bias",
        "mask_decoder.output_upscaling.3.weight",
        "prompt_encoder.no_mask_embed.weight",
    ];
    let tensors = named(&model);
    let gradients = |parts: &[&[usize]]| -> Vec<Tensor> {
        let leaf = embedding(1).tensor.set_requires_grad(true);
        for objects in parts {
            let prompts = Prompts { slices: Some(vec![0; objects.len()]), mask_logits: None, ..mixed(objects) };
            let embedding = Embedding::new(leaf.shallow_clone(), [256, 256]);
            model.decode(&embedding, &prompts, MaskChoice::Single).logits.sum(Kind::Float).backward();
        }
        let values = names.iter().map(|name| tensors[*name].grad().copy()).chain([leaf.grad()]).collect();
        tensors.values().filter(|t| t.grad().defined()).for_each(|t| t.shallow_clone().zero_grad());
        values
    };
    let (together, apart) = (gradients(&[&[0, 1, 2]]), gradients(&[&[0], &[1], &[2]]));
    for ((found, expected), name) in together.iter().zip(&apart).zip(names.iter().chain(&["embedding"])) {
        assert_close(name, found, expected, 1e-4);
    }
}

#[test]
fn places_without_a_point_change_nothing_wherever_they_are() {
    let Some(model) = load("places_without_a_point_change_nothing_wherever_they_are", DensePrompt::None) else {
        return;
    };
    let scores = |points: &[f32], labels: &[f32]| {
        let count = labels.len() as i64;
        let points = (Tensor::from_slice(points).view([1, count, 2]), Tensor::from_slice(labels).view([1, count]));
        let prompts = Prompts { points: Some(points), ..Prompts::default() };
        tch::no_grad(|| model.decode(&embedding(1), &prompts, MaskChoice::Three).scores)
    };
    let here = scores(&[90., 120., 0., 0.], &[1., -1.]);
    assert_eq!(scores(&[90., 120., 200., 31.], &[1., -1.]), here);
    assert_close("in front", &scores(&[200., 31., 90., 120.], &[-1., 1.]), &here, 1e-5);
    assert_ne!(scores(&[90., 120., 200., 31.], &[1., 0.]), here);
}

#[test]
fn masks_of_a_slice_that_is_not_square_are_those_of_its_part_of_the_padded_square() {
    for dense in [DensePrompt::Embedding, DensePrompt::MaskInput { strength: 6.0 }] {
        let Some(model) = load("masks_of_a_slice_that_is_not_square_are_those_of_its_part_of_the_padded_square", dense)
        else {
            return;
        };
        if let Some(vector) = named(&model).get("prompt_encoder.cam_embed.weight") {
            let _ = tch::no_grad(|| vector.shallow_clone().fill_(0.05));
        }
        let square = embedding(1);
        let flat = Embedding { slice_size: [192, 256], ..embedding(1) };
        let upper = cam_mask().narrow(2, 0, 192);
        let padded = upper.constant_pad_nd([0, 0, 0, 64]);
        let (found, whole) = (logits(&model, &flat, Some(upper)), logits(&model, &square, Some(padded)));
        assert_eq!(found.size(), [1, 1, 192, 256]);
        assert_eq!(found, whole.narrow(2, 0, 192));
    }
}

#[test]
fn without_objects_there_are_no_masks() {
    let Some(model) = load("without_objects_there_are_no_masks", DensePrompt::None) else { return };
    let prompts = Prompts { slices: Some(Vec::new()), boxes: Some(Vec::new()), ..Prompts::default() };
    let masks = tch::no_grad(|| model.decode(&embedding(2), &prompts, MaskChoice::Three));
    assert_eq!((masks.logits.size(), masks.scores.size()), (vec![0, 3, 256, 256], vec![0, 3]));
}

#[test]
fn prompts_that_disagree_on_the_number_of_objects_are_refused_by_name() {
    let Some(model) = load("prompts_that_disagree_on_the_number_of_objects_are_refused_by_name", DensePrompt::None)
    else {
        return;
    };
    let message = |prompts: Prompts| {
        let decode = std::panic::AssertUnwindSafe(|| drop(model.decode(&embedding(2), &prompts, MaskChoice::Single)));
        *std::panic::catch_unwind(decode).expect_err("it is refused").downcast::<String>().expect("a message")
    };
    let found = message(Prompts { boxes: mixed(&[0, 1, 2]).boxes, ..Prompts::default() });
    assert_eq!(found, "3 boxes for 2 objects, which as many slices have");
    let found =
        message(Prompts { slices: Some(vec![1, 1, 0, 0]), points: mixed(&[0, 1]).points, ..Prompts::default() });
    assert_eq!(found, "2 rows of points for 4 objects, which the prompts' slices name");
    let found = message(Prompts { slices: Some(vec![0, 2]), ..Prompts::default() });
    assert_eq!(found, "an object is in slice 2, but the embedding is of 2 slices");
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
    assert_eq!((count(LORA), values(LORA)), (40, 59_392));
    // The reference's mask decoder and prompt encoder, the latter with the CAM's vector of 256.
    assert_eq!(values(DECODER), 4_058_340);
    assert_eq!(values(PROMPT_ENCODER), 6_220 + 256);
    for t in &tensors {
        assert_eq!(t.tensor.requires_grad(), t.group.is_trainable(), "{}", t.name);
    }
    assert_eq!(model.pretrained_sha256(), Some("79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"));
}
