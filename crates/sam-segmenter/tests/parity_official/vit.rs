//! The ViT encoders and their decoder.

use std::collections::BTreeMap;

use sam_segmenter::{EncoderPart, Family, LoraTarget, Memory, SamSegmenter, SegmenterSettings};
use stage_api::{Adapters, MaskChoice, Masks, Mode, Precision, Prompts, Segmenter};
use tch::{Device, Kind, Tensor};

use super::formula;
use super::reference::{
    CHOICES, Fixture, GRADIENT_TOLERANCE, TOLERANCE, box_of, boxes, check_trained_encoder, discs, embed_at_mask_size,
    encoder_gradients, input, named, quarter_boxes, step,
};

#[test]
fn weights_by_formula_are_those_of_the_fixture() {
    let fixture = Fixture::read("sam_vit");
    let shapes = formula::small_vit_shapes(32, 2, 4, &[1, 3], 16);
    let kept: Vec<&str> = fixture.0.keys().filter_map(|key| key.strip_prefix("formula.image_encoder")).collect();
    assert_eq!(kept.len(), 5);
    for name in kept {
        let name = format!("image_encoder{name}");
        let found = formula::tensor(&name, &shapes[&name]).flatten(0, -1).narrow(0, 0, 8);
        assert_eq!(found, fixture.0[&format!("formula.{name}")], "{name}");
    }
    assert_eq!(Tensor::from_slice(&formula::values("input", 8, 0.0, 1.7)), fixture.0["formula.input"]);
}

#[test]
fn every_layer_of_the_encoder_equals_the_official_code() {
    for device in formula::devices() {
        let model = small_model(&without_adapters(), device);
        Fixture::read("sam_vit").check_encoder(
            "encoder.",
            &model,
            &input("input", [2, 3, 256, 256], device),
            &layer_names(),
        );
    }
}

#[test]
fn one_exact_window_and_windows_in_the_middle_equal_the_official_code() {
    let fixture = Fixture::read("sam_vit_sizes");
    for device in formula::devices() {
        for (size, name) in [(224, "224"), (512, "512")] {
            let model = model(&Small { width: 48, size }, &without_adapters(), device);
            let x = input(&format!("input.{name}"), [1, 3, size, size], device);
            fixture.check_encoder(&format!("{name}."), &model, &x, &layer_names());
            fixture.check_first_box(name, &model, &x);
        }
    }
}

#[test]
fn positions_are_resized_for_another_input_as_samed_does() {
    let fixture = Fixture::read("sam_vit_sizes");
    let settings = SegmenterSettings { input_size: Some(256), ..without_adapters() };
    for device in formula::devices() {
        let model = model(&Small { width: 48, size: 512 }, &settings, device);
        let x = input("input.resized", [1, 3, 256, 256], device);
        fixture.check_encoder("resized.", &model, &x, &layer_names());
        fixture.check_first_box("resized", &model, &x);
    }
}

#[test]
fn masks_and_scores_of_every_mix_of_prompts_equal_the_official_code() {
    let fixture = Fixture::read("sam_vit");
    for device in formula::devices() {
        let model = small_model(&without_adapters(), device);
        let embedding = embed_at_mask_size(&model, &input("input", [2, 3, 256, 256], device), Mode::Eval);
        let points = |labels: &str| Some((&fixture.0["points"] / 4.0, fixture.0[labels].shallow_clone()));
        let mask = || Some(discs());
        let none = Prompts::default;
        let mixes = [
            ("box", Prompts { boxes: Some(boxes()), ..none() }),
            ("points", Prompts { points: points("labels"), ..none() }),
            ("padded_points", Prompts { points: points("padded_labels"), ..none() }),
            ("mask", Prompts { mask_logits: mask(), ..none() }),
            ("box_points", Prompts { boxes: Some(boxes()), points: points("labels"), ..none() }),
            ("all", Prompts { boxes: Some(boxes()), points: points("labels"), mask_logits: mask(), ..none() }),
            ("none", none()),
        ];
        for (name, prompts) in &mixes {
            fixture.check_masks(name, &model, &embedding, prompts);
        }
    }
}

#[test]
fn any_number_of_prompts_for_each_image_equals_the_official_code_one_image_at_a_time() {
    let fixture = Fixture::read("sam_vit");
    for device in formula::devices() {
        let model = small_model(&without_adapters(), device);
        let embedding = embed_at_mask_size(&model, &input("input", [2, 3, 256, 256], device), Mode::Eval);
        let both = |what: &str| {
            Tensor::cat(&[&fixture.0[&format!("many.0.{what}")], &fixture.0[&format!("many.1.{what}")]], 0)
        };
        let slices = || Some(vec![0, 0, 1, 1, 1]);
        let points = (both("points") / 4.0, both("labels"));
        let by_box = Prompts { slices: slices(), boxes: Some(quarter_boxes(&both("boxes"))), ..Prompts::default() };
        let by_points = Prompts { slices: slices(), points: Some(points), ..Prompts::default() };
        for (name, prompts) in [("box", by_box), ("points", by_points)] {
            for (count, choice) in CHOICES {
                let masks = tch::no_grad(|| model.decode(&embedding, &prompts, choice));
                for (image, first, objects) in [(0, 0, 2), (1, 2, 3)] {
                    let own = Masks {
                        logits: masks.logits.narrow(0, first, objects),
                        scores: masks.scores.narrow(0, first, objects),
                        coarser: Vec::new(),
                    };
                    fixture.check_decoded(&format!("many.{image}.{name}.{count}"), &own);
                }
            }
        }
    }
}

#[test]
fn slices_that_are_not_square_become_masks_of_their_shape_as_in_the_official_code() {
    let fixture = Fixture::read("sam_vit");
    for device in formula::devices() {
        let model = small_model(&without_adapters(), device);
        let slices = [("same", 0, [192, 256]), ("enlarged", 1, [150, 121]), ("reduced", 2, [300, 400])];
        for (name, number, [height, width]) in slices {
            let slice = slice_by_formula(number, height, width).to_device(device);
            let corners: Vec<f32> = fixture.flat(&format!("slice.{name}.box"));
            let prompts = Prompts { boxes: Some(vec![box_of(&corners)]), ..Prompts::default() };
            let embedding = model.embed(&model.features(&slice), Adapters::On, Mode::Eval);
            let masks = tch::no_grad(|| model.decode(&embedding, &prompts, MaskChoice::Three));
            assert_eq!(masks.logits.size(), [1, 3, height, width]);
            fixture.check(&format!("slice.{name}.float.masks"), &masks.logits, TOLERANCE);
            fixture.check_whole(&format!("slice.{name}.float.scores"), &masks.scores, TOLERANCE);
        }
    }
}

#[test]
fn gradients_of_adapters_on_queries_and_values_equal_pytorchs() {
    let settings = SegmenterSettings { lora_rank: 4, ..SegmenterSettings::default() };
    for device in formula::devices() {
        for memory in [Memory::Keep, Memory::Recompute] {
            let settings = SegmenterSettings { memory, ..settings.clone() };
            check_gradients("lora.", &settings, device, 4 * 4 + 9);
        }
    }
}

#[test]
fn gradients_of_adapters_on_every_map_equal_pytorchs() {
    let settings = SegmenterSettings {
        lora_rank: 3,
        lora_alpha: Some(6.0),
        lora_targets: vec![LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::Proj, LoraTarget::Mlp],
        ..SegmenterSettings::default()
    };
    for device in formula::devices() {
        for memory in [Memory::Keep, Memory::Recompute] {
            let settings = SegmenterSettings { memory, ..settings.clone() };
            check_gradients("lora_all.", &settings, device, 4 * 12 + 9);
        }
    }
}

/// Eight significant bits through four blocks: single values differ by per cents, gradients more.
#[test]
fn in_bfloat16_embedding_and_gradients_are_nearly_those_of_32_bits() {
    for device in formula::devices() {
        let run = |precision| {
            let settings = SegmenterSettings { lora_rank: 4, precision, ..SegmenterSettings::default() };
            let (embedding, gradients, _) = training_step(&settings, device);
            (embedding, gradients["image_encoder.blocks.0.attn.qkv.lora_b_v"].shallow_clone())
        };
        let ((embedding, gradient), (embedding_16, gradient_16)) = (run(Precision::F32), run(Precision::Bf16));
        assert_eq!(embedding_16.kind(), Kind::Float);
        let apart = |a: &Tensor, b: &Tensor| ((a - b).norm() / a.norm()).double_value(&[]);
        let found = (apart(&embedding, &embedding_16), apart(&gradient, &gradient_16));
        println!("{device:?}: embedding {:.4}, gradient {:.4} apart", found.0, found.1);
        assert!(found.0 > 0.0 && found.0 < 0.05 && found.1 < 0.2, "{found:?}");
    }
}

#[test]
fn no_gradient_reaches_what_is_frozen_or_switched_off() {
    let settings = SegmenterSettings { lora_rank: 4, ..SegmenterSettings::default() };
    let (_, gradients, model) = training_step(&settings, Device::Cpu);
    let frozen = |name: &String| name.starts_with("image_encoder") && !name.contains("lora");
    assert!(!gradients.keys().any(frozen));
    assert!(
        named(&model)
            .iter()
            .all(|(name, tensor)| frozen(name) != tensor.requires_grad() || name.ends_with("gaussian_matrix"))
    );
    let features = model.features(&Tensor::rand([1, 1, 256, 256], (Kind::Float, Device::Cpu)));
    for (adapters, mode) in [(Adapters::Off, Mode::Train), (Adapters::On, Mode::Eval)] {
        let embedding = model.embed(&features, adapters, mode);
        assert!(!embedding.tensor.requires_grad() && embedding.rest.is_none());
    }
}

#[test]
fn the_gradients_of_an_encoder_that_is_trained_itself_are_those_of_its_adapters_and_of_differences() {
    let lora_targets = vec![LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::Proj, LoraTarget::Mlp];
    let adapted = SegmenterSettings { lora_rank: 3, lora_targets, ..SegmenterSettings::default() };
    let adapted = small_model(&adapted, Device::Cpu);
    check_trained_encoder(&adapted, &slice_by_formula(0, 256, 256), None);
}

#[test]
fn an_encoder_that_is_trained_itself_has_no_adapters_and_its_files_own_input() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = formula::write_state(folder.path(), &formula::small_vit_shapes(32, 2, 4, &[1, 3], 16));
    let whole =
        SegmenterSettings { family: Some(Family::Sam), encoder: EncoderPart::Whole, ..SegmenterSettings::default() };
    let refused = |settings: SegmenterSettings| {
        SamSegmenter::load(&path, &settings, Device::Cpu).err().expect("it is refused").to_string()
    };
    assert!(refused(whole.clone()).contains("expected `lora_rank = 0` (now 8) and `memory = \"keep\"`"));
    let small = SegmenterSettings { lora_rank: 0, input_size: Some(128), ..whole };
    assert!(refused(small).contains("for an input of 256 pixels: leave `input_size` out"));
}

#[test]
fn frozen_adapters_get_no_gradient_and_change_nobody_elses() {
    let all = SegmenterSettings {
        lora_rank: 3,
        lora_targets: vec![LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::Proj, LoraTarget::Mlp],
        ..SegmenterSettings::default()
    };
    // All of the first block's, as `optimizer.freeze` has it; single ones of it; those of two blocks and of one in the middle.
    let frozen: [&[&str]; 6] = [
        &["blocks.0."],
        &["blocks.0.attn.qkv"],
        &["lora_a"],
        &["blocks.0.attn.qkv.lora_b_q"],
        &["blocks.0.", "blocks.1."],
        &["blocks.2."],
    ];
    for device in formula::devices() {
        for (memory, precision) in
            [(Memory::Keep, Precision::F32), (Memory::Recompute, Precision::F32), (Memory::Recompute, Precision::Bf16)]
        {
            let settings = SegmenterSettings { memory, precision, ..all.clone() };
            let (embedding, expected) =
                encoder_gradients(&small_model(&settings, device), &slice_by_formula(0, 256, 256));
            for names in frozen {
                let model = small_model(&settings, device);
                let is_frozen = |name: &str| name.contains("lora") && names.iter().any(|part| name.contains(part));
                let all = named(&model);
                assert!(all.keys().any(|name| is_frozen(name)), "{names:?}");
                all.iter().filter(|(name, _)| is_frozen(name)).for_each(|(_, t)| drop(t.set_requires_grad(false)));
                let (found_embedding, found) = encoder_gradients(&model, &slice_by_formula(0, 256, 256));
                assert_eq!(found_embedding, embedding);
                let wanted: Vec<&String> = expected.keys().filter(|name| !is_frozen(name)).collect();
                assert_eq!(found.keys().collect::<Vec<_>>(), wanted, "{memory:?}, {names:?}");
                for (name, gradient) in &found {
                    let apart = ((gradient - &expected[name]).norm() / expected[name].norm()).double_value(&[]);
                    assert!(apart < 1e-5, "{memory:?}, {precision:?}, {names:?}: {name} is {apart:.1e} apart");
                }
            }
            // With all of them frozen nothing is left to do.
            let model = small_model(&settings, device);
            for tensor in named(&model).values() {
                let _ = tensor.set_requires_grad(false);
            }
            let slice = slice_by_formula(0, 256, 256).to_device(device);
            let embedding = model.embed(&model.features(&slice), Adapters::On, Mode::Train);
            assert!(!embedding.tensor.requires_grad());
            embedding.backward().expect("nothing to do");
        }
    }
}

#[test]
fn between_pretrained_and_trained_an_adapted_map_is_w_plus_share_times_its_update() {
    let settings = SegmenterSettings {
        lora_rank: 3,
        lora_alpha: Some(6.0),
        lora_targets: vec![LoraTarget::Q, LoraTarget::V, LoraTarget::Proj, LoraTarget::Mlp],
        ..SegmenterSettings::default()
    };
    let merged = |model: &SamSegmenter| -> BTreeMap<String, Tensor> {
        model.merged_state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
    };
    for share in [0.0, 0.3, 0.5, 1.0] {
        let model = small_model(&settings, Device::Cpu);
        let before = merged(&model);
        let trainable = model.tensors().into_iter().filter(|t| t.group.is_trainable());
        let pretrained: Vec<Tensor> = trainable.map(|t| t.tensor.detach().copy()).collect();
        for (name, tensor) in named(&model).iter().filter(|(_, t)| t.requires_grad()) {
            let value = formula::tensor(&format!("trained.{name}"), &tensor.size());
            tch::no_grad(|| tensor.shallow_clone().copy_(&value));
        }
        let after = merged(&model);
        model.interpolate(&pretrained, share);
        let mut moved = 0;
        for (name, found) in merged(&model) {
            // What any map does is linear in its weights, so that effective weights are what lies between.
            let expected = &before[&name] * (1.0 - share) + &after[&name] * share;
            let worst = (found - expected).abs().max().double_value(&[]);
            assert!(worst < 1e-5, "{name} at {share}: {worst:.1e}");
            moved += i32::from(before[&name] != after[&name]);
        }
        // Four maps of four blocks, beside decoder and prompt encoder.
        assert!(moved > 16 + 100, "{moved}");
        assert_eq!(model.is_adapted(), share > 0.0);
    }
}

#[test]
fn names_that_all_begin_alike_make_the_same_model_which_says_what_was_taken_off() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("wrapped.safetensors");
    let shapes = formula::small_vit_shapes(32, 2, 4, &[1, 3], 16);
    let state: Vec<(String, Tensor)> =
        shapes.iter().map(|(name, shape)| (format!("model._orig_mod.{name}"), formula::tensor(name, shape))).collect();
    Tensor::write_safetensors(&state, &path).expect("the weights are written");
    let settings = SegmenterSettings { family: Some(Family::Sam), ..without_adapters() };
    let wrapped = SamSegmenter::load(&path, &settings, Device::Cpu).expect("the prefix is taken off");
    let plain = small_model(&settings, Device::Cpu);
    assert_eq!(named(&wrapped), named(&plain));
    let said = wrapped.read_from().expect("a note");
    assert_eq!(said, "the weights were read without 'model._orig_mod.', with which all names begin");
    assert_eq!(plain.read_from(), None);
}

/// A step of Dice loss, as `keep_step` in the fixture's script.
fn check_gradients(prefix: &str, settings: &SegmenterSettings, device: Device, count: usize) {
    let fixture = Fixture::read("sam_vit");
    let model = small_model(settings, device);
    let (embedding, gradients) = step(&fixture, &model, prefix);
    fixture.check(&format!("{prefix}embedding"), &embedding, TOLERANCE);
    let names: Vec<String> = fixture.names(&format!("{prefix}gradient."));
    assert_eq!(names.len(), count);
    for name in names {
        fixture.check(&format!("{prefix}gradient.{name}"), &gradients[&name], GRADIENT_TOLERANCE);
    }
}

fn training_step(settings: &SegmenterSettings, device: Device) -> (Tensor, BTreeMap<String, Tensor>, SamSegmenter) {
    let model = small_model(settings, device);
    let (embedding, gradients) = step(&Fixture::read("sam_vit"), &model, "lora.");
    (embedding, gradients, model)
}

/// Four blocks with two heads, of which the second and the last see the whole slice.
struct Small {
    width: i64,
    size: i64,
}

fn small_model(settings: &SegmenterSettings, device: Device) -> SamSegmenter {
    model(&Small { width: 32, size: 256 }, settings, device)
}

fn model(small: &Small, settings: &SegmenterSettings, device: Device) -> SamSegmenter {
    // Tests run beside each other already.
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let shapes = formula::small_vit_shapes(small.width, 2, 4, &[1, 3], small.size / 16);
    let path = formula::write_state(folder.path(), &shapes);
    let settings = SegmenterSettings { family: Some(Family::Sam), ..settings.clone() };
    SamSegmenter::load(&path, &settings, device).expect("the weights are those of a small ViT")
}

fn without_adapters() -> SegmenterSettings {
    SegmenterSettings { lora_rank: 0, ..SegmenterSettings::default() }
}

/// A slice as `slice_by_formula` in the fixture's script, in [0, 1].
fn slice_by_formula(number: i64, height: i64, width: i64) -> Tensor {
    let noise = formula::hashes(&format!("slice.{number}"), (height * width) as usize);
    let inside =
        |x: i64, y: i64, [cx, cy, a, b]: [i64; 4]| (x - cx).pow(2) * b * b + (y - cy).pow(2) * a * a < a * a * b * b;
    let body = [width / 2, height / 2, width * 2 / 5, height * 2 / 5];
    let liver = [width * 7 / 20 + 8 * number, height * 9 / 20, width / 6, height / 5];
    let grey = |(i, noise): (usize, u32)| {
        let (x, y) = (i as i64 % width, i as i64 / width);
        let value = i64::from(noise >> 28) + 90 * i64::from(inside(x, y, body)) + 80 * i64::from(inside(x, y, liver));
        value as f32 / 255.0
    };
    Tensor::from_slice(&noise.enumerate().map(grey).collect::<Vec<f32>>()).view([1, 1, height, width])
}

fn layer_names() -> Vec<String> {
    let blocks = (0..4).map(|i| format!("blocks.{i}"));
    std::iter::once("patch_embed".to_owned()).chain(blocks).chain(["neck".to_owned()]).collect()
}
