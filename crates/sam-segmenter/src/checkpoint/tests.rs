//! Checkpoints that are right, wrong, and hostile.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{AdapterRecord, Record, StateFile, write_safetensors};
use crate::lora_target::LoraTarget;
use crate::{Family, SamSegmenter, SegmenterSettings, WeightsError};

// Written by PyTorch 2.13; see `tests/fixtures/make_checkpoints.py`.
const TINY: &[u8] = include_bytes!("../../tests/fixtures/tiny.pth");
const TRAINING: &[u8] = include_bytes!("../../tests/fixtures/training.pth");
const TRAINING_PROTOCOL_4: &[u8] = include_bytes!("../../tests/fixtures/training_protocol_4.pth");
const HOSTILE: &[u8] = include_bytes!("../../tests/fixtures/hostile.pth");

struct File {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn file(name: &str, bytes: &[u8]) -> File {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("the file is written");
    File { path, _folder: folder }
}

fn load(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    read(&file("weights.pth", bytes).path)
}

/// All tensors of a file.
fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let mut file = StateFile::open(path)?;
    let names: Vec<String> = file.shapes().iter().map(|(name, _)| name.to_owned()).collect();
    names.into_iter().map(|name| file.tensor(&name).map(|tensor| (name, tensor))).collect()
}

/// The message after the path.
fn refusal(bytes: &[u8]) -> String {
    let message = load(bytes).expect_err("the file is refused").to_string();
    message.split_once("weights.pth': ").expect("the message names the file").1.to_owned()
}

fn zip(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).expect("an entry");
        writer.write_all(bytes).expect("its bytes");
    }
    writer.finish().expect("an archive").into_inner()
}

fn zip_of_pickle(pickle: &[u8]) -> Vec<u8> {
    zip(&[("x/data.pkl", pickle), ("x/data/0", &[0; 16])], CompressionMethod::Stored)
}

/// A pickle of `{"a": tensor}` with one float storage `0` of `len` elements.
fn pickle_of_tensor(len: i32, offset: i32, size: i32, stride: i32) -> Vec<u8> {
    let integer = |value: i32| [b"J".as_slice(), &value.to_le_bytes()].concat();
    let text = |text: &str| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    [
        b"\x80\x02}".to_vec(),
        text("a"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        integer(len),
        b"tQ".to_vec(),
        integer(offset),
        integer(size),
        b"\x85".to_vec(),
        integer(stride),
        b"\x85\x89}tRs.".to_vec(),
    ]
    .concat()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).expect("numbers")
}

#[test]
fn state_under_model_with_views_types_and_prefix_is_read_as_pytorch_wrote_it() {
    let state = load(TINY).expect("the file is whole");
    let names: Vec<_> = state.keys().map(String::as_str).collect();
    assert_eq!(names, ["bfloat", "count", "empty", "half", "parameter", "tail", "transposed"]);
    assert_eq!(state["transposed"].size(), [4, 3]);
    assert_eq!(values(&state["transposed"]), [0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]);
    assert_eq!(values(&state["tail"]), [6., 7., 10., 11.]);
    assert_eq!(values(&state["half"]), [0.5, -2.0]);
    assert_eq!(values(&state["bfloat"]), [1.5, -3.0]);
    assert_eq!(values(&state["parameter"]), [1.0, 2.0]);
    assert_eq!((state["count"].kind(), values(&state["count"])), (Kind::Int64, vec![-7.0]));
    assert_eq!(state["empty"].size(), [0, 3]);
}

/// Every name of a state dictionary as the file has it, to the file's bytes: tensors of one number each.
fn safetensors(names: &[String]) -> File {
    let tensors: Vec<_> = names.iter().map(|name| (name.clone(), Tensor::from_slice(&[0.5_f32]))).collect();
    let file = file("weights.safetensors", &[]);
    write_safetensors(&file.path, &tensors, &Record::default()).expect("it is written");
    file
}

#[test]
fn what_all_names_begin_with_is_taken_off_and_a_part_of_the_model_is_not() {
    let own = ["image_encoder.pos_embed", "image_encoder.neck.0.weight", "mask_decoder.iou_token.weight"];
    for prefix in ["", "model.", "sam.", "module.", "_orig_mod.", "model._orig_mod.module.", "a.b.c."] {
        let names = own.map(|name| format!("{prefix}{name}"));
        let state = StateFile::open(&safetensors(&names).path).expect("a whole file");
        let found: Vec<&str> = state.shapes().iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["image_encoder.neck.0.weight", "image_encoder.pos_embed", "mask_decoder.iou_token.weight"]);
        let said = state.place().to_string();
        assert!(
            said.contains(&format!("without '{prefix}', with which all names begin")) != prefix.is_empty(),
            "{said}"
        );
        assert_eq!(read(&safetensors(&names).path).expect("a whole file").len(), 3, "they are read by their own names");
    }
    // All adapters are of the image encoder.
    let adapters = ["model.image_encoder.blocks.0.lora_a", "model.image_encoder.blocks.1.lora_a"].map(str::to_owned);
    let state = StateFile::open(&safetensors(&adapters).path).expect("a whole file");
    assert!(state.shapes().get("image_encoder.blocks.0.lora_a").is_some());
    // One name without it: nothing is taken off.
    let mixed = ["model.image_encoder.pos_embed", "model.mask_decoder.x", "loss.weight"].map(str::to_owned);
    let state = StateFile::open(&safetensors(&mixed).path).expect("a whole file");
    assert!(state.shapes().get("model.mask_decoder.x").is_some() && state.place().to_string().is_empty());
}

/// A pickle of dictionaries in each other by these keys, about one float tensor `a`, with a number beside each of them.
fn nested_pickle(keys: &[&str]) -> Vec<u8> {
    let innermost = pickle_of_tensor(4, 0, 1, 1);
    let mut inner = innermost[2..innermost.len() - 1].to_vec();
    let text = |text: &str| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    for key in keys.iter().rev() {
        inner = [b"}(".to_vec(), text("epoch"), b"K\x03".to_vec(), text(key), inner, b"u".to_vec()].concat();
    }
    [b"\x80\x02".to_vec(), inner, b".".to_vec()].concat()
}

#[test]
fn the_state_dictionary_is_found_under_every_name_that_scripts_give_it() {
    for keys in [&[][..], &["model"], &["state_dict"], &["model_state_dict"], &["net"], &["net", "state_dict"]] {
        let file = file("weights.pth", &zip_of_pickle(&nested_pickle(keys)));
        let state = StateFile::open(&file.path).expect("a whole file");
        assert_eq!(state.shapes().iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a"], "{keys:?}");
        assert!(keys.iter().all(|key| state.place().to_string().contains(&format!("'{key}'"))), "{}", state.place());
    }
    let refusal = refusal(&zip_of_pickle(&nested_pickle(&["weights"])));
    assert_eq!(
        refusal,
        "there is no tensor at its top nor under 'model', 'state_dict', 'model_state_dict' or 'net', where a state \
         dictionary is expected; it has 'epoch' (an integer), 'weights' (a dictionary); 'weights' holds tensors: save it \
         alone, torch.save(torch.load(FILE)['weights'], 'weights.pth')"
    );
}

#[test]
fn a_file_without_image_encoder_says_so_and_what_to_give() {
    let message = |names: &[&str], record: &Record| {
        let tensors: Vec<_> = names.iter().map(|name| ((*name).to_owned(), Tensor::from_slice(&[0.5_f32]))).collect();
        let file = file("weights.safetensors", &[]);
        write_safetensors(&file.path, &tensors, record).expect("it is written");
        SamSegmenter::load(&file.path, &SegmenterSettings::default(), Device::Cpu).err().expect("no SAM").to_string()
    };
    let none = Record::default();
    // As SAMed, PEFT and this program name them.
    for names in [
        &["w_a_000", "w_b_000", "mask_decoder.iou_token.weight"][..],
        &["base_model.model.vision_encoder.layers.0.attn.qkv.lora_A.weight", "base_model.model.x.lora_B.weight"],
        &["image_encoder.blocks.0.attn.qkv.lora_a_q", "image_encoder.blocks.0.attn.qkv.lora_b_q"],
    ] {
        let found = message(names, &none);
        let parts = [
            "it has low-rank adapters (2 of its",
            "no image encoder, expected 'image_encoder.pos_embed'",
            "Give the checkpoint that they were trained on",
        ];
        assert!(parts.iter().all(|part| found.contains(part)), "{found}");
    }
    let adapters = AdapterRecord {
        architecture: "ViT-B".into(),
        rank: 8,
        targets: vec![LoraTarget::Q],
        alpha: None,
        base_sha256: "ec2df6".into(),
    };
    let found =
        message(&["image_encoder.blocks.0.attn.qkv.lora_a_q"], &Record { adapters: Some(adapters), ..none.clone() });
    assert!(
        found.contains("from a ViT-B whose file has SHA-256 ec2df6: `export --weights THAT_FILE --adapters"),
        "{found}"
    );
    let found = message(&["mask_decoder.iou_token.weight", "mask_decoder.mask_tokens.weight"], &none);
    assert!(found.contains("it has no image encoder, its 2 tensors are 'mask_decoder.…', expected"), "{found}");
    let found = message(&["model.image_encoder.pos_embed", "loss.weight"], &none);
    assert!(found.contains("begin with 'model.', but 'loss.weight' doesn't"), "{found}");
    let found = message(&["vision_encoder.pos_embed", "mask_decoder.x"], &none);
    assert!(found.contains("those of Hugging Face's transformers"), "{found}");
    let found = message(&["trunk.a", "trunk.b"], &none);
    assert!(
        found.contains("its 2 tensors (first: a, b) without 'trunk.', with which all names begin are of no SAM"),
        "{found}"
    );
}

#[test]
fn what_training_scripts_keep_beside_the_model_is_passed_over() {
    for bytes in [TRAINING, TRAINING_PROTOCOL_4] {
        let state = load(bytes).expect("the file is whole");
        let names: Vec<_> = state.keys().map(String::as_str).collect();
        assert_eq!(names, ["bias", "weight"]);
        assert_eq!((values(&state["weight"]), state["weight"].size()), (vec![1.0, -2.0], vec![1, 2]));
        assert_eq!(values(&state["bias"]), [0.5]);
    }
}

#[test]
fn hostile_file_is_refused_and_runs_nothing() {
    // The script that made it saw Python run its command.
    let refusal = refusal(HOSTILE);
    assert!(refusal.contains("refuses to run 'posix.system'"), "{refusal}");
    assert!(!Path::new("hostile-pickle-ran").exists());
}

#[test]
fn compressed_entries_are_read_too() {
    let pickle = pickle_of_tensor(4, 1, 2, 2);
    let floats: Vec<u8> = [1_f32, 2., 3., 4.].iter().flat_map(|f| f.to_le_bytes()).collect();
    let bytes = zip(&[("x/data.pkl", &pickle), ("x/data/0", &floats)], CompressionMethod::Deflated);
    assert_eq!(values(&load(&bytes).expect("a whole file")["a"]), [2.0, 4.0]);
}

#[test]
fn pickle_that_would_run_a_command_is_refused_by_name() {
    // What pickle.dumps makes of an object whose __reduce__ returns (os.system, ("id",)), in protocols 2 and 4.
    let old = zip_of_pickle(b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.");
    let new = zip_of_pickle(b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.");
    for bytes in [old, new] {
        let refusal = refusal(&bytes);
        assert!(refusal.contains("refuses to run 'posix.system'"), "{refusal}");
    }
}

#[test]
fn opcodes_that_build_objects_are_refused() {
    // NEWOBJ of a known function; INST, which names a class and makes an instance of it.
    let new = refusal(&zip_of_pickle(b"\x80\x02ccollections\nOrderedDict\n)\x81."));
    assert!(new.contains("refuses an instance of a function or class"), "{new}");
    let inst = refusal(&zip_of_pickle(b"\x80\x02(iposix\nsystem\n."));
    assert!(inst.contains("refuses opcode 0x69"), "{inst}");
}

#[test]
fn deep_nesting_and_self_reference_are_harmless() {
    let nested = [b"\x80\x02)".as_slice(), &vec![0x85; 1_000_000], b"."].concat();
    assert!(refusal(&zip_of_pickle(&nested)).contains("holds a tuple, expected a dictionary of tensors"));
    // A dictionary that is its own value.
    let own = refusal(&zip_of_pickle(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."));
    assert!(own.contains("it has 'a' (a dictionary)"), "{own}");
    // And one that is its own model.
    let own = refusal(&zip_of_pickle(b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."));
    assert!(own.contains("it has 'model' (a dictionary)"), "{own}");
}

#[test]
fn tensor_beyond_its_storage_is_refused_before_anything_is_allocated() {
    for (offset, size, stride) in
        [(0, 5, 1), (3, 2, 1), (0, 2, 4), (-1, 1, 1), (0, -1, 1), (0, 1, -1), (0, 2_000_000_000, 0)]
    {
        let refusal = refusal(&zip_of_pickle(&pickle_of_tensor(4, offset, size, stride)));
        assert!(refusal.contains("doesn't fit its storage of 4 elements"), "{refusal}");
    }
}

#[test]
fn storage_of_another_length_than_declared_is_refused() {
    let longer = refusal(&zip_of_pickle(&pickle_of_tensor(1_000_000_000, 0, 1, 1)));
    assert!(longer.contains("storage '0' has 16 bytes, expected 4000000000 for 1000000000 elements"), "{longer}");
    let shorter = refusal(&zip_of_pickle(&pickle_of_tensor(3, 0, 1, 1)));
    assert!(shorter.contains("storage '0' has 16 bytes, expected 12 for 3 elements"), "{shorter}");
    let negative = refusal(&zip_of_pickle(&pickle_of_tensor(-1, 0, 1, 1)));
    assert!(negative.contains("a storage of -1 elements"), "{negative}");
}

#[test]
fn truncated_archive_is_named_so() {
    let refusal = refusal(&TINY[..TINY.len() / 2]);
    assert!(refusal.contains("probably truncated"), "{refusal}");
}

#[test]
fn older_pickles_are_refused_with_the_way_to_convert_them() {
    let refusal = refusal(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.");
    assert!(refusal.contains("bare pickle (PyTorch before 1.6)") && refusal.contains("torch.save"), "{refusal}");
    assert!(load(b"").expect_err("an empty file").to_string().contains("the file is empty"));
}

#[test]
fn safetensors_come_back_as_they_were_written() {
    let file = file("state.safetensors", b"to be replaced");
    let matrix = Tensor::from_slice(&[1_f32, 2., 3., 4., 5., 6.]).view([2, 3]);
    let tensors = [("m".to_owned(), matrix.tr()), ("n".to_owned(), Tensor::from(5_i64))];
    write_safetensors(&file.path, &tensors, &Record::default()).expect("the file is written");
    let state = read(&file.path).expect("the file is whole");
    assert_eq!(values(&state["m"]), [1., 4., 2., 5., 3., 6.]);
    assert_eq!((state["n"].kind(), state["n"].size()), (Kind::Int64, vec![]));
    let beside = std::fs::read_dir(file.path.parent().expect("a folder")).expect("a folder").count();
    assert_eq!(beside, 1, "the temporary file is gone");
}

#[test]
fn truncated_safetensors_are_named_so() {
    let file = file("state.safetensors", &[]);
    let tensors = [("n".to_owned(), Tensor::from_slice(&[1_f32, 2.]))];
    write_safetensors(&file.path, &tensors, &Record::default()).expect("the file is written");
    let bytes = std::fs::read(&file.path).expect("the file");
    for (end, expected) in [(bytes.len() - 1, "7 bytes of tensors, expected 8"), (40, "its header claims")] {
        let refusal = refusal(&bytes[..end]);
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn record_of_adapters_comes_back_and_its_damage_is_named() {
    let file = file("adapters.safetensors", &[]);
    let adapters = AdapterRecord {
        architecture: "ViT-B".into(),
        rank: 4,
        targets: vec![LoraTarget::Q, LoraTarget::Mlp],
        alpha: Some(0.1),
        base_sha256: "ec2d".into(),
    };
    let record =
        Record { family: Some(Family::MedSam), input_size: Some(512), adapters: Some(adapters), ..Record::default() };
    write_safetensors(&file.path, &[], &record).expect("the file is written");
    assert_eq!(*StateFile::open(&file.path).expect("a whole file").record(), record);

    let bytes = std::fs::read(&file.path).expect("the file");
    let changed = |from: &str, to: &str| {
        let header = std::str::from_utf8(&bytes[8..]).expect("a header alone is text");
        refusal(&[&bytes[..8], header.replace(from, to).as_bytes()].concat())
    };
    assert!(changed("\"q,mlp\"", "\"q,mlq\"").contains("'lora_targets' = 'q,mlq', which can't be read"));
    assert!(changed("_format\":\"1\"", "_format\":\"2\"").contains("version 2, expected at most 1: a newer program"));
    assert!(changed("base_sha256", "base_sha512").contains("has no 'base_sha256'"));
}

#[test]
fn every_missing_and_superfluous_tensor_is_listed() {
    // As little as tells which encoder it should be, and tensors that no encoder has.
    let mut tensors: Vec<_> = load(TINY).expect("a whole file").into_iter().collect();
    let strange = tensors.len();
    for (name, shape) in [
        ("patch_embed.seq.2.c.weight", vec![64, 32, 1, 1]),
        ("layers.0.blocks.1.conv1.c.weight", vec![256, 64, 1, 1]),
        ("layers.1.blocks.0.attn.attention_biases", vec![4, 49]),
        ("layers.1.blocks.0.attn.norm.weight", vec![128]),
        ("layers.1.blocks.1.attn.norm.weight", vec![128]),
        ("layers.2.blocks.0.attn.attention_biases", vec![5, 196]),
        ("layers.2.blocks.0.attn.norm.weight", vec![160]),
        ("layers.2.blocks.5.attn.norm.weight", vec![160]),
        ("layers.3.blocks.0.attn.attention_biases", vec![10, 49]),
        ("layers.3.blocks.0.attn.norm.weight", vec![320]),
        ("layers.3.blocks.1.attn.norm.weight", vec![320]),
    ] {
        tensors.push((format!("image_encoder.{name}"), Tensor::zeros(shape, (Kind::Float, Device::Cpu))));
    }
    let there = tensors.len() - strange;
    let file = file("weights.safetensors", &[]);
    write_safetensors(&file.path, &tensors, &Record { family: Some(Family::LiteMedSam), ..Record::default() })
        .expect("it is written");
    let error =
        SamSegmenter::load(&file.path, &SegmenterSettings::default(), Device::Cpu).err().expect("other tensors");
    let WeightsError::Mismatch { problems, .. } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 435 - there + strange);
    let text = error.to_string();
    assert!(text.contains("'image_encoder.neck.0.weight' is missing, expected with shape [256, 320, 1, 1]"), "{text}");
    assert!(text.contains("'transposed' of shape [4, 3] belongs to no part of the model"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(changes in prop::collection::vec((0..TINY.len(), any::<u8>()), 1..6)) {
        let mut bytes = TINY.to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let _ = load(&bytes);
    }

    #[test]
    fn arbitrary_pickles_never_panic(pickle in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = load(&zip_of_pickle(&pickle));
    }
}
