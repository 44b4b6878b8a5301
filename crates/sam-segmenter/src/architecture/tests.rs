//! Names and shapes of the official checkpoints are recognised, and fit the models that are built from them.

use crate::groups::{BUFFER, LORA};
use std::collections::BTreeMap;
use std::path::Path;

use stage_api::Segmenter;
use tch::{Device, Kind, Tensor};

use super::{EncoderArchitecture, SamArchitecture, TinyVitArchitecture, VitArchitecture};
use crate::checkpoint::{Record, Shapes, StateFile};
use crate::family::Family;
use crate::lora_target::LoraTarget;
use crate::prompt_encoder::CAM_EMBEDDING;
use crate::settings::SegmenterSettings;
use crate::{SamSegmenter, WeightsError};

/// From the official packages; see `tests/fixtures/make_sam_fixtures.py`.
const STATE_DICTS: &str = include_str!("../../tests/fixtures/state_dicts.json");

fn shapes(model: &str) -> BTreeMap<String, Vec<i64>> {
    let mut all: BTreeMap<String, BTreeMap<String, Vec<i64>>> =
        serde_json::from_str(STATE_DICTS).expect("names and shapes");
    all.remove(model).expect("the model is there")
}

fn recognised(model: &str) -> EncoderArchitecture {
    let shapes: Shapes = shapes(model).into_iter().collect();
    EncoderArchitecture::recognise(&shapes).expect("an encoder that is known")
}

/// A model of zeros that take no memory.
fn build(shapes: BTreeMap<String, Vec<i64>>, settings: &SegmenterSettings) -> Result<SamSegmenter, WeightsError> {
    let zeros = |(name, shape): (String, Vec<i64>)| {
        let kind = if name.ends_with("num_batches_tracked") { Kind::Int64 } else { Kind::Float };
        (name, Tensor::zeros([1_i64; 0], (kind, Device::Cpu)).expand(&shape, false))
    };
    let tensors = shapes.into_iter().map(zeros).collect();
    SamSegmenter::build(StateFile::of_model(Path::new("zeros"), tensors, "", Record::default()), settings, Device::Cpu)
}

fn of_family(family: Family, lora_rank: usize) -> SegmenterSettings {
    SegmenterSettings { family: Some(family), lora_rank, ..SegmenterSettings::default() }
}

fn lora_values(model: &SamSegmenter) -> usize {
    model.tensors().iter().filter(|t| t.group == LORA).map(|t| t.tensor.numel()).sum()
}

#[test]
fn official_checkpoints_are_recognised_by_names_and_shapes() {
    assert_eq!(recognised("vit_b"), EncoderArchitecture::Vit(VitArchitecture::base()));
    assert_eq!(recognised("vit_l"), EncoderArchitecture::Vit(VitArchitecture::large()));
    assert_eq!(recognised("vit_h"), EncoderArchitecture::Vit(VitArchitecture::huge()));
    assert_eq!(recognised("mobile_sam"), EncoderArchitecture::TinyVit(TinyVitArchitecture::mobile_sam()));
    assert_eq!(recognised("lite_medsam"), EncoderArchitecture::TinyVit(TinyVitArchitecture::lite_medsam()));
}

#[test]
fn the_published_descriptions_are_those_of_the_papers_table() {
    let heads = |vit: &VitArchitecture| (vit.width, vit.depth, vit.heads, vit.global_blocks.clone());
    assert_eq!(heads(&VitArchitecture::base()), (768, 12, 12, vec![2, 5, 8, 11]));
    assert_eq!(heads(&VitArchitecture::large()), (1024, 24, 16, vec![5, 11, 17, 23]));
    assert_eq!(heads(&VitArchitecture::huge()), (1280, 32, 16, vec![7, 15, 23, 31]));
    let tiny = TinyVitArchitecture::mobile_sam();
    assert_eq!(
        (tiny.widths, tiny.depths, tiny.heads, tiny.windows),
        ([64, 128, 160, 320], [2, 2, 6, 2], [4, 5, 10], [7, 14, 7])
    );
}

#[test]
fn every_key_of_an_official_checkpoint_has_its_place_and_none_is_missing() {
    for (name, family, input_size) in [
        ("vit_b", Family::Sam, 1024),
        ("vit_b", Family::MedSam, 1024),
        ("vit_l", Family::Sam, 1024),
        ("vit_h", Family::Sam, 1024),
        ("mobile_sam", Family::MobileSam, 1024),
        ("lite_medsam", Family::LiteMedSam, 256),
    ] {
        let shapes = shapes(name);
        let model = build(shapes.clone(), &of_family(family, 0)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(model.architecture().input_size, input_size, "{name}");
        assert_eq!(model.architecture().grid(), 64, "{name}");
        // Written again, the file has the same keys and shapes; only the CAM's vector is ours.
        let merged: BTreeMap<String, Vec<i64>> =
            model.merged_state().into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
        assert_eq!(merged, shapes, "{name}");
    }
}

#[test]
fn parameters_are_as_many_as_published() {
    for (name, expected) in [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)] {
        let model = build(shapes(name), &of_family(Family::Sam, 0)).expect("it fits");
        let own = model.tensors().into_iter().filter(|t| t.group != BUFFER && t.name != CAM_EMBEDDING);
        assert_eq!(own.map(|t| t.tensor.numel()).sum::<usize>(), expected, "{name}");
    }
}

#[test]
fn other_input_sizes_need_no_other_file() {
    for size in [512, 256] {
        let settings = SegmenterSettings { input_size: Some(size), ..of_family(Family::Sam, 0) };
        let model = build(shapes("vit_b"), &settings).expect("positions are resized");
        assert_eq!(model.architecture().grid(), size / 16);
    }
}

#[test]
fn adapters_have_the_papers_number_of_values() {
    // ViT-B, rank 8 on q and v: 12 blocks · 2 targets · (768 · 8 + 8 · 768).
    let vit_b = build(shapes("vit_b"), &of_family(Family::Sam, 8)).expect("it fits");
    assert_eq!(lora_values(&vit_b), 294_912);
    // Ten attention blocks of TinyViT: 2 · 2 · 8 · (2 · 128 + 6 · 160 + 2 · 320).
    let lite = build(shapes("lite_medsam"), &of_family(Family::LiteMedSam, 8)).expect("it fits");
    assert_eq!(lora_values(&lite), 59_392);
    // All targets of ViT-B, rank 4: 12 blocks · 4 · (4 maps of 768 + 768, two of 768 + 3072).
    let all = SegmenterSettings { lora_targets: LoraTarget::ALL.to_vec(), ..of_family(Family::Sam, 4) };
    assert_eq!(lora_values(&build(shapes("vit_b"), &all).expect("it fits")), 12 * 4 * (4 * 1536 + 2 * 3840));
}

#[test]
fn a_family_that_is_neither_stated_nor_known_is_asked_for() {
    let settings = SegmenterSettings { lora_rank: 0, ..SegmenterSettings::default() };
    let error = build(shapes("vit_b"), &settings).err().expect("SAM's or MedSAM's?").to_string();
    assert!(error.contains("it holds a ViT-B") && error.contains("= \"sam\" or \"medsam\""), "{error}");
    let error =
        build(shapes("mobile_sam"), &of_family(Family::LiteMedSam, 0)).err().expect("another encoder").to_string();
    assert!(
        error.contains("the family is 'lite-medsam', but the file's encoder is the TinyViT of mobile-sam"),
        "{error}"
    );
}

#[test]
fn published_files_are_known_by_their_checksum() {
    let known = |sha256: &str| {
        let shapes: Shapes = shapes("vit_b").into_iter().collect();
        let encoder = EncoderArchitecture::recognise(&shapes).expect("ViT-B");
        Family::of_file(sha256).map(|family| SamArchitecture::new(family, encoder, None).expect("it fits").family)
    };
    assert_eq!(known("ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"), Some(Family::Sam));
    assert_eq!(known("34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74"), Some(Family::MedSam));
    assert_eq!(known("0000000000000000000000000000000000000000000000000000000000000000"), None);
}

#[test]
fn misfits_are_listed_whole() {
    let mut shapes = shapes("vit_b");
    shapes.insert("image_encoder.pos_embed_extra".into(), vec![1]);
    shapes.insert("pixel_mean".into(), vec![3, 1, 1]);
    shapes.insert("image_encoder.blocks.3.attn.proj.bias".into(), vec![767]);
    shapes.remove("mask_decoder.iou_token.weight");
    shapes.retain(|name, _| !name.starts_with("image_encoder.blocks.7."));
    let error = build(shapes, &of_family(Family::Sam, 0)).err().expect("it doesn't fit");
    let WeightsError::Mismatch { problems, .. } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 4 + 14);
    let text = error.to_string();
    for part in [
        "'image_encoder.blocks.3.attn.proj.bias' has shape [767], expected [768]",
        "'mask_decoder.iou_token.weight' is missing, expected with shape [1, 256]",
        "'image_encoder.blocks.7.mlp.lin2.bias' is missing, expected with shape [768]",
        "'image_encoder.pos_embed_extra' of shape [1] belongs to no part of the model",
        "'pixel_mean' of shape [3, 1, 1] belongs to no part of the model: SAM's code has it outside",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn sizes_and_numbers_in_a_hostile_file_ask_for_no_memory() {
    let with = |name: &str, shape: &[i64]| {
        let mut shapes = shapes("vit_b");
        shapes.insert(format!("image_encoder.{name}"), shape.to_vec());
        build(shapes, &of_family(Family::Sam, 0)).err().expect("it doesn't fit").to_string()
    };
    assert!(with("pos_embed", &[1, 64, 64, 1 << 40]).contains("are of no SAM that is known here"));
    assert!(with("pos_embed", &[1, 64, 64, 0]).contains("are of no SAM that is known here"));
    assert!(with("blocks.0.attn.rel_pos_h", &[27, 0]).contains("are of no SAM that is known here"));
    let deep = with("blocks.18446744073709551615.norm1.weight", &[768]);
    assert!(
        deep.contains("'image_encoder.blocks.18446744073709551615.norm1.weight' of shape [768] belongs to no part")
    );
    let mut tiny = shapes("mobile_sam");
    tiny.insert("image_encoder.layers.2.blocks.0.attn.attention_biases".into(), vec![5, 4096 * 4096]);
    assert!(build(tiny, &of_family(Family::MobileSam, 0)).is_err());
}
