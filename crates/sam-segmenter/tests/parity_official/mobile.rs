//! `MobileSAM`: `TinyViT` behind a patch embedding of two 3×3 convolutions. The weights are those of the official size; the input
//! is a quarter of its side, so that only the grid differs.

use sam_segmenter::groups::ENCODER;
use sam_segmenter::{EncoderArchitecture, Family, SamSegmenter, SegmenterSettings, TinyVitArchitecture};
use stage_api::{Adapters, BoxPrompt, MaskChoice, Mode, Precision, Prompts, Segmenter};
use tch::{Device, Kind, Tensor};

use super::formula;
use super::reference::{
    Fixture, GRADIENT_TOLERANCE, TOLERANCE, boxes, check_trained_encoder, embed_at_mask_size, input, step,
};

#[test]
fn every_layer_of_the_encoder_equals_the_official_code() {
    for device in formula::devices() {
        let model = model(0, Precision::F32, device);
        let x = input("input", [2, 3, 256, 256], device);
        Fixture::read("mobile_sam").check_encoder("encoder.", &model, &x, &layer_names());
    }
}

#[test]
fn masks_and_scores_equal_the_official_code() {
    let fixture = Fixture::read("mobile_sam");
    for device in formula::devices() {
        let model = model(0, Precision::F32, device);
        let embedding = embed_at_mask_size(&model, &input("input", [2, 3, 256, 256], device), Mode::Eval);
        let prompts = Prompts { boxes: Some(boxes()), ..Prompts::default() };
        let masks = tch::no_grad(|| model.decode(&embedding, &prompts, MaskChoice::Three));
        fixture.check_decoded("box.three", &masks);
    }
}

#[test]
fn gradients_of_adapters_and_decoder_equal_pytorchs() {
    let fixture = Fixture::read("mobile_sam");
    for device in formula::devices() {
        let (embedding, gradients) = step(&fixture, &model(4, Precision::F32, device), "lora.");
        fixture.check("lora.embedding", &embedding, TOLERANCE);
        let names = fixture.names("lora.gradient.");
        assert_eq!(names.len(), 10 * 4 + 9);
        for name in names {
            fixture.check(&format!("lora.gradient.{name}"), &gradients[&name], GRADIENT_TOLERANCE);
        }
    }
}

#[test]
fn the_gradients_of_an_encoder_that_is_trained_itself_are_those_of_its_adapters_and_of_differences() {
    let slice = Tensor::rand([1, 1, 256, 256], (Kind::Float, Device::Cpu));
    // 32 channels a head.
    check_trained_encoder(&model(4, Precision::F32, Device::Cpu), &slice, Some(32));
}

#[test]
fn in_bfloat16_embedding_and_gradients_are_nearly_those_of_32_bits() {
    let fixture = Fixture::read("mobile_sam");
    for device in formula::devices() {
        let run = |precision| {
            let (embedding, gradients) = step(&fixture, &model(4, precision, device), "lora.");
            (embedding, gradients["image_encoder.layers.1.blocks.0.attn.qkv.lora_b_v"].shallow_clone())
        };
        let ((embedding, gradient), (embedding_16, gradient_16)) = (run(Precision::F32), run(Precision::Bf16));
        let apart = |a: &Tensor, b: &Tensor| ((a - b).norm() / a.norm()).double_value(&[]);
        let found = (apart(&embedding, &embedding_16), apart(&gradient, &gradient_16));
        println!("{device:?}: embedding {:.4}, gradient {:.4} apart", found.0, found.1);
        assert!(found.0 > 0.0 && found.0 < 0.1 && found.1 < 0.2, "{found:?}");
    }
}

/// Slices are grey; the encoder sees three channels, which differ by their means and deviations.
#[test]
fn slices_become_three_channels_with_the_means_and_deviations_of_sam() {
    let model = model(0, Precision::F32, Device::Cpu);
    let slice = Tensor::rand([1, 1, 256, 256], (Kind::Float, Device::Cpu));
    let (mean, deviation) = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]);
    let channels: Vec<Tensor> = (0..3).map(|i| (&slice * 255.0 - mean[i]) / deviation[i]).collect();
    let by_hand = model.features_of_input(&Tensor::cat(&channels, 1));
    let found = model.features(&slice);
    let worst = (found.tensor - &by_hand.tensor).abs().max() / by_hand.tensor.abs().max();
    assert!(worst.double_value(&[]) < 1e-5);
}

#[test]
fn the_head_for_imagenet_is_kept_and_written_again() {
    let model = model(4, Precision::F32, Device::Cpu);
    let head = ["norm_head.weight", "norm_head.bias", "head.weight", "head.bias"].map(|n| format!("image_encoder.{n}"));
    let listed = model.tensors();
    let merged = model.merged_state();
    for name in &head {
        let shape = &formula::official_shapes("mobile_sam")[name];
        let tensor = listed.iter().find(|t| t.name == *name && t.group == ENCODER).expect("it is listed");
        assert_eq!(tensor.tensor, formula::tensor(name, shape));
        let written = merged.iter().find(|(n, _)| n == name).expect("it is written");
        assert_eq!(written.1, tensor.tensor);
    }
    let official: Vec<String> = formula::official_shapes("mobile_sam").into_keys().collect();
    let mut names: Vec<String> = merged.into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, official);
}

/// A whole slice at the official size, 1024²: a grid of 64, masks of the slice's size.
#[test]
fn a_slice_of_its_own_size_gives_masks_of_that_size() {
    let settings = SegmenterSettings { input_size: None, ..settings(0, Precision::F32) };
    let model = load(&settings, Device::Cpu);
    assert_eq!((model.architecture().input_size, model.architecture().grid()), (1024, 64));
    assert_eq!(model.architecture().encoder, EncoderArchitecture::TinyVit(TinyVitArchitecture::mobile_sam()));
    let slice = Tensor::rand([1, 1, 512, 512], (Kind::Float, Device::Cpu));
    let features = model.features(&slice);
    assert_eq!(features.tensor.size(), [1, 128, 128, 128]);
    let embedding = model.embed(&features, Adapters::On, Mode::Eval);
    assert_eq!(embedding.tensor.size(), [1, 256, 64, 64]);
    let prompts = Prompts { boxes: Some(vec![BoxPrompt::central_half(512)]), ..Prompts::default() };
    let masks = tch::no_grad(|| model.decode(&embedding, &prompts, model.default_choice()));
    assert_eq!(masks.logits.size(), [1, 3, 512, 512]);
    assert!(bool::try_from(masks.logits.isfinite().all()).expect("one value"));
}

fn settings(lora_rank: usize, precision: Precision) -> SegmenterSettings {
    let family = Some(Family::MobileSam);
    SegmenterSettings { family, input_size: Some(256), lora_rank, precision, ..SegmenterSettings::default() }
}

fn model(lora_rank: usize, precision: Precision, device: Device) -> SamSegmenter {
    load(&settings(lora_rank, precision), device)
}

fn load(settings: &SegmenterSettings, device: Device) -> SamSegmenter {
    // Tests run beside each other already.
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = formula::write_state(folder.path(), &formula::official_shapes("mobile_sam"));
    SamSegmenter::load(&path, settings, device).expect("the weights are MobileSAM's")
}

/// Those behind the convolutions' stage, of which the last is what the features are.
fn layer_names() -> Vec<String> {
    let blocks = |layer: usize, depth: usize| (0..depth).map(move |i| format!("layers.{layer}.blocks.{i}"));
    let merging = |layer: usize| std::iter::once(format!("layers.{layer}.downsample"));
    let stages =
        merging(0).chain(blocks(1, 2)).chain(merging(1)).chain(blocks(2, 6)).chain(merging(2)).chain(blocks(3, 2));
    stages.chain(["neck".to_owned()]).collect()
}
